//! The operations of the networks over [`Weight`]s.
//!
//! The numbers come from `tweedie-kernels`. A weight that is not tracked is lifted to the autodiff
//! side where its partner is on it, so that frozen and trained weights mix freely.

use burn::tensor::{Int, Tensor, TensorData, activation};
use tweedie_kernels as kernels;
use tweedie_kernels::Epilogue;

use super::config::Activation;
use crate::weight::Weight;

/// The activation of each number.
pub fn activate<const D: usize>(x: Tensor<D>, by: Activation) -> Tensor<D> {
    match by {
        Activation::Silu => kernels::silu(x),
        Activation::Gelu => kernels::gelu(x),
        Activation::GeluTanh => kernels::gelu_tanh(x),
        Activation::Relu => activation::relu(x),
        Activation::Mish => {
            // ln(1 + exp(x)) without overflow.
            let soft = (x.clone().abs().neg().exp() + 1.0).log() + x.clone().clamp_min(0.0);
            x * soft.tanh()
        }
    }
}

/// The mean of each two by two pixels of an image `[batch, c, h, w]`; a last odd row or column is
/// left out (PyTorch's `avg_pool2d` with a kernel and a stride of two).
pub fn halve(x: Tensor<4>) -> Tensor<4> {
    let [batch, c, height, width] = x.dims();
    let (rows, columns) = (height / 2, width / 2);
    let even = x.narrow(2, 0, 2 * rows).narrow(3, 0, 2 * columns);
    even.reshape([batch * c, rows, 2, columns, 2])
        .sum_dim(4)
        .sum_dim(2)
        .reshape([batch, c, rows, columns])
        * 0.25
}

/// `x w^T + b` over tokens `[batch, tokens, in]`, with `w` `[out, in]`, and what follows.
///
/// What adapters add to `w` is a path of its own, `scale (x down^T) up^T`: no copy of `w` is made.
pub fn linear(x: Tensor<3>, w: &Weight, b: Option<&Weight>, epilogue: Epilogue) -> Tensor<3> {
    let bias = b.map(|b| b.tensor(&x));
    let base = |x: Tensor<3>, epilogue: Epilogue| match w.packed(&x) {
        Some(packed) => kernels::linear_packed(x, packed, bias, epilogue),
        None => {
            let w = w.base_tensor(&x);
            epilogue.of(kernels::linear(x, w, bias))
        }
    };
    if w.added().is_empty() {
        return base(x, epilogue);
    }
    let y = base(x.clone(), Epilogue::Plain);
    let y = w.added().iter().fold(y, |y, added| {
        let (down, _, up) = added.factors.factors();
        let inner = kernels::linear(x.clone(), down.tensor(&x), None);
        let part = kernels::linear(inner, up.tensor(&x), None);
        y + part * added.scale
    });
    epilogue.of(y)
}

/// Cross-correlation of `x` `[batch, in, h, w]` with `w` `[out, in, kh, kw]`; `padding` is top,
/// bottom, left and right, in pixels. As [`linear`] for what adapters add to `w`.
pub fn conv2d(
    x: Tensor<4>,
    w: &Weight,
    b: Option<&Weight>,
    stride: usize,
    padding: [usize; 4],
) -> Tensor<4> {
    enlarged_conv2d(x, 1, w, b, stride, padding)
}

/// As [`conv2d`] of `x` with each pixel repeated `factor` times in both directions.
pub fn enlarged_conv2d(
    x: Tensor<4>,
    factor: usize,
    w: &Weight,
    b: Option<&Weight>,
    stride: usize,
    padding: [usize; 4],
) -> Tensor<4> {
    let bias = b.map(|b| b.tensor(&x));
    let base = |x: Tensor<4>| match (w.packed(&x), w.shape()) {
        (Some(packed), &[_, _, height, width]) => {
            let size = [height, width];
            kernels::conv2d_packed(x, factor, packed, size, bias, [stride; 2], padding)
        }
        _ => {
            let w = w.base_tensor(&x);
            kernels::conv2d_enlarged(x, factor, w, bias, [stride; 2], padding)
        }
    };
    if w.added().is_empty() {
        return base(x);
    }
    let y = base(x.clone());
    let x = kernels::upsample_nearest(x, factor);
    w.added().iter().fold(y, |y, added| {
        let (down, mid, up) = added.factors.factors();
        // A factor that is a matrix is a convolution of one pixel.
        let pixel = |x: Tensor<4>, w: &Weight| {
            let [to, from] = [w.shape()[0], w.shape()[1]];
            let w = w.tensor::<2, 4>(&x).reshape([to, from, 1, 1]);
            kernels::conv2d(x, w, None, [1; 2], [0; 4])
        };
        let kernel = |x: Tensor<4>, w: &Weight| {
            let w = w.tensor(&x);
            kernels::conv2d(x, w, None, [stride; 2], padding)
        };
        let inner = match mid {
            Some(mid) => kernel(pixel(x.clone(), down), mid),
            None => kernel(x.clone(), down),
        };
        y + pixel(inner, up) * added.scale
    })
}

/// Group normalisation of an image `[batch, c, h, w]`, then SiLU where `silu`.
pub fn group_norm(
    x: Tensor<4>,
    groups: usize,
    [w, b]: [&Weight; 2],
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let shape = x.dims();
    let [batch, c, height, width] = shape;
    let (w, b) = (w.tensor(&x), b.tensor(&x));
    let x = x.reshape([batch, c, height * width]);
    kernels::group_norm(x, groups, w, b, eps, silu).reshape(shape)
}

/// Layer normalisation of tokens `[batch, tokens, c]`, with weight and bias where given.
pub fn layer_norm(x: Tensor<3>, affine: Option<[&Weight; 2]>, eps: f64) -> Tensor<3> {
    let of = |i: usize| affine.map(|a| a[i].tensor(&x));
    let (w, b) = (of(0), of(1));
    kernels::layer_norm(x, w, b, eps)
}

/// The given rows of a table `[rows, c]`.
pub fn embedding(table: &Weight, rows: &[i64]) -> Tensor<2> {
    let value = table.value();
    let device = value.device();
    let mut shape = [0; 2];
    shape.copy_from_slice(table.shape());
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows.to_vec(), [rows.len()]), &device);
    value.reshape(shape).select(0, rows)
}

/// Nearest-neighbour resizing of an image to `[height, width]`, as PyTorch's `interpolate` with a
/// size: pixel `i` of the result is pixel `floor(i * old / new)`.
pub fn resize_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    if [height, width] == size {
        return x;
    }
    if [height * 2, width * 2] == size {
        return kernels::upsample_nearest(x, 2);
    }
    let device = x.device();
    let pick = |old: usize, new: usize| {
        let index: Vec<i64> = (0..new).map(|i| (i * old / new) as i64).collect();
        Tensor::<1, Int>::from_data(TensorData::new(index, [new]), &device)
    };
    x.select(2, pick(height, size[0])).select(3, pick(width, size[1]))
}

/// Sines and cosines of times, `[times, dim]` row-major: the position encoding of Vaswani et al.
/// 2017, as Ho et al. 2020 use it, in the variants of diffusers' `get_timestep_embedding`.
///
/// Frequency `i` of `dim / 2` is `10000^(-i / (dim / 2 - shift))`; cosines come first where
/// `cos_first`; an odd `dim` ends in a zero. Rounded to f32 after each operation as the published
/// code does, since the argument of the sine is large.
pub fn sinusoid(times: &[f64], dim: usize, cos_first: bool, shift: f64) -> Vec<f32> {
    let half = dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| {
            let exponent = -(10000_f64.ln()) as f32 * i as f32 / (half as f64 - shift) as f32;
            f64::from(exponent).exp() as f32
        })
        .collect();
    let mut values = Vec::with_capacity(times.len() * dim);
    for &time in times {
        let angles: Vec<f64> = frequencies.iter().map(|f| f64::from(time as f32 * f)).collect();
        let sines = angles.iter().map(|a| a.sin() as f32);
        let cosines = angles.iter().map(|a| a.cos() as f32);
        if cos_first {
            values.extend(cosines.chain(sines));
        } else {
            values.extend(sines.chain(cosines));
        }
        values.extend((2 * half..dim).map(|_| 0.0));
    }
    values
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::Device;

    use super::*;
    use crate::weight::{Added, Initial, LowRank};

    fn drawn(shape: &[usize], seed: u64) -> Weight {
        let mut weight = Weight::new(shape, Initial::Normal(0.5), &Device::flex());
        weight.draw(seed, "w").unwrap();
        weight
    }

    /// The weight with an update beside it, and one with the update in its numbers.
    fn both(target: &[usize], down: &[usize], mid: Option<&[usize]>) -> [Weight; 2] {
        let rank = mid.map_or(down[0], |m| m[0]);
        let (up, mid) = (drawn(&[target[0], rank], 3), mid.map(|m| drawn(m, 4)));
        let low = LowRank::new(drawn(down, 2), mid, up, target).unwrap();
        let mut beside = drawn(target, 1);
        beside.add(Added { factors: Arc::new(low), scale: -0.7 }).unwrap();
        let mut within = drawn(target, 1);
        within.set_vec(beside.to_vec()).unwrap();
        assert_ne!(within.to_vec(), drawn(target, 1).to_vec());
        [beside, within]
    }

    fn near<const D: usize>(a: Tensor<D>, b: Tensor<D>) {
        assert_eq!(a.dims(), b.dims());
        let off = (a - b).abs().max().into_data_as::<f32>().iter::<f32>().next().unwrap();
        assert!(off < 1e-5, "{off}");
    }

    #[test]
    fn a_low_rank_path_equals_the_sum_of_weights() {
        let [beside, within] = both(&[6, 5], &[2, 5], None);
        let x = drawn(&[2, 3, 5], 9).value().reshape([2, 3, 5]);
        let b = drawn(&[6], 8);
        // What follows comes after what is added.
        let after = Epilogue::Activated(kernels::Activation::Gelu);
        near(linear(x.clone(), &beside, Some(&b), after), linear(x, &within, Some(&b), after));
        let x = drawn(&[2, 3, 7, 6], 9).value().reshape([2, 3, 7, 6]);
        for (stride, padding) in [(1, [1; 4]), (2, [0, 1, 0, 1])] {
            for (down, mid) in [(&[2, 3, 3, 3][..], None), (&[2, 3][..], Some(&[4, 2, 3, 3][..]))] {
                let [beside, within] = both(&[4, 3, 3, 3], down, mid);
                let of = |w| conv2d(x.clone(), w, None, stride, padding);
                near(of(&beside), of(&within));
            }
        }
    }

    #[test]
    fn nearest_resizing_picks_the_pixel_below() {
        let x: Vec<f32> = (0..6).map(|v| v as f32).collect();
        let x = Tensor::<4>::from_data(TensorData::new(x, [1, 1, 2, 3]), &Device::flex());
        let flat = |size| resize_nearest(x.clone(), size).into_data_as::<f32>();
        let numbers = |size| flat(size).iter::<f32>().collect::<Vec<_>>();
        assert_eq!(
            numbers([3, 5]),
            [0.0, 0.0, 1.0, 1.0, 2.0, 0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0]
        );
        assert_eq!(numbers([2, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(numbers([4, 6]).len(), 24);
    }

    #[test]
    fn halving_takes_means() {
        let x: Vec<f32> = (0..15).map(|v| v as f32).collect();
        let x = Tensor::<4>::from_data(TensorData::new(x, [1, 1, 3, 5]), &Device::flex());
        let y: Vec<f32> = halve(x).into_data_as::<f32>().iter::<f32>().collect();
        assert_eq!(y, [3.0, 5.0]);
    }

    #[test]
    fn activations_at_their_ends() {
        let at = |by, x: f32| {
            let x = Tensor::<1>::from_data(TensorData::new(vec![x], [1]), &Device::flex());
            activate(x, by).into_data_as::<f32>().iter::<f32>().next().unwrap()
        };
        for by in [Activation::Silu, Activation::Mish, Activation::Gelu, Activation::Relu] {
            assert_eq!(at(by, 200.0), 200.0, "{by:?}");
            assert!(at(by, -200.0).abs() < 1e-6, "{by:?}");
            assert_eq!(at(by, 0.0), 0.0, "{by:?}");
        }
        assert!((at(Activation::Mish, 1.0) - 0.865_098_4).abs() < 1e-6);
    }

    #[test]
    fn sinusoid_of_time_zero_is_ones_and_zeros() {
        assert_eq!(sinusoid(&[0.0], 5, true, 0.0), [1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(sinusoid(&[0.0], 4, false, 1.0), [0.0, 0.0, 1.0, 1.0]);
        let two = sinusoid(&[1.0, 2.0], 4, false, 1.0);
        assert!((f64::from(two[0]) - 1f64.sin()).abs() < 1e-7);
        assert!((f64::from(two[5]) - 2e-4f64.sin()).abs() < 1e-9);
    }
}
