//! What adaptive layer normalisation does around a block (Peebles and Xie, "Scalable Diffusion Models
//! with Transformers", 2023): normalise, scale and shift by the condition in one pass over the
//! tokens, and add what the block says times a gate in another.
//!
//! Without a gradient of their own: tracked tensors take the composed operations, with the same bits.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::{Flex, FlexTensor};

use crate::extension::{Numbers, in_place, shape};
use crate::memory::{Output, Ptr, parallel};
use crate::norm;
use crate::ops::has_kernels;
use crate::profile::{Class, timed};
use crate::simd::{Simd, dispatch};

/// The kernels.
#[backend_extension(Flex)]
pub(crate) trait ModulateKernels: Backend {
    fn kernel_layer_norm_modulated(
        x: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;

    fn kernel_add_gated(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        gate: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl ModulateKernels for Flex {
    fn kernel_layer_norm_modulated(
        x: FlexTensor,
        shift: FlexTensor,
        scale: FlexTensor,
        eps: f64,
    ) -> FlexTensor {
        let _timed = timed(Class::Norm, 0);
        let [b, t, c] = shape(&x);
        let [x, shift, scale] = [x, shift, scale].map(Numbers::new);
        let weight: Vec<f32> = scale.slice().iter().map(|s| s + 1.0).collect();
        let mut y = Output::new(b * t * c);
        let (from, to) = (Ptr::of(x.slice()), y.ptr());
        for row in 0..b {
            let (weight, shift) = (&weight[row * c..][..c], &shift.slice()[row * c..][..c]);
            let (x, y) = (Ptr::new(from.at(row * t * c)), Ptr::new(to.at(row * t * c)));
            // SAFETY: the tokens of the row, and `c` numbers of both.
            unsafe { norm::layer_forward(t, c, eps as f32, x, Some(weight), Some(shift), y) };
        }
        // SAFETY: every row's tokens were written.
        FlexTensor::from_data(TensorData::new(unsafe { y.finish() }, [b, t, c]))
    }

    fn kernel_add_gated(x: FlexTensor, y: FlexTensor, gate: FlexTensor) -> FlexTensor {
        let _timed = timed(Class::Norm, 0);
        let [b, t, c] = shape(&x);
        let [y, gate] = [y, gate].map(Numbers::new);
        let (from, gates) = (Ptr::of(y.slice()), Ptr::of(gate.slice()));
        in_place(x, |x, to| {
            parallel(b * t, c, |token| {
                let (at, gate) = (token * c, gates.at(token / t * c));
                // SAFETY: a token of each, and the gate of its row.
                unsafe { add_token(c, x.at(at), from.at(at), gate, to.at(at)) };
            });
        })
    }
}

#[inline(always)]
unsafe fn add_body<S: Simd>(
    len: usize,
    x: *const f32,
    y: *const f32,
    gate: *const f32,
    to: *mut f32,
) {
    for i in 0..len {
        // SAFETY: the caller's numbers.
        unsafe { *to.add(i) = *x.add(i) + *y.add(i) * *gate.add(i) };
    }
}

dispatch! {
    /// `to = x + y * gate`; `to` may be `x`.
    ///
    /// # Safety
    /// `len` numbers each.
    fn add_token(
        len: usize, x: *const f32, y: *const f32, gate: *const f32, to: *mut f32,
    ) = add_body
}

fn plain(parts: [(bool, DType); 3], device: burn::tensor::Device) -> bool {
    parts.iter().all(|(tracked, _)| !tracked) && has_kernels(device, &parts.map(|(_, dtype)| dtype))
}

/// `normed * (1 + scale) + shift`, where `normed` is the layer normalisation of `x` `[b, t, c]`
/// without a weight of its own, and `scale` and `shift` are `[b, c]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn layer_norm_modulated(
    x: Tensor<3>,
    shift: Tensor<2>,
    scale: Tensor<2>,
    eps: f64,
) -> Tensor<3> {
    let [b, _, c] = x.dims();
    assert!(
        shift.dims() == [b, c] && scale.dims() == [b, c],
        "layer_norm_modulated: shapes differ"
    );
    let of = |x: &Tensor<2>| (x.is_autodiff(), x.dtype());
    if plain([(x.is_autodiff(), x.dtype()), of(&shift), of(&scale)], x.device()) {
        let (x, shift, scale) = (x.into_dispatch(), shift.into_dispatch(), scale.into_dispatch());
        return Tensor::from_dispatch(Dispatch::kernel_layer_norm_modulated(x, shift, scale, eps));
    }
    let normed = crate::layer_norm(x, None, None, eps);
    normed * (scale.reshape([b, 1, c]) + 1.0) + shift.reshape([b, 1, c])
}

/// `x + y * gate` for `x` and `y` `[b, t, c]` and a gate `[b, c]`, in place where nobody else holds
/// `x`.
///
/// # Panics
/// When the shapes do not fit.
pub fn add_gated(x: Tensor<3>, y: Tensor<3>, gate: Tensor<2>) -> Tensor<3> {
    let [b, _, c] = x.dims();
    assert!(x.dims() == y.dims() && gate.dims() == [b, c], "add_gated: the shapes differ");
    let of = |x: &Tensor<3>| (x.is_autodiff(), x.dtype());
    if plain([of(&x), of(&y), (gate.is_autodiff(), gate.dtype())], x.device()) {
        let (x, y, gate) = (x.into_dispatch(), y.into_dispatch(), gate.into_dispatch());
        return Tensor::from_dispatch(Dispatch::kernel_add_gated(x, y, gate));
    }
    x + y * gate.reshape([b, 1, c])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{numbers, with_each_set};

    fn values(x: Tensor<3>) -> Vec<f32> {
        x.into_data_as::<f32>().iter::<f32>().collect()
    }

    /// One pass gives the bits that its parts give, at odd sizes.
    #[test]
    fn in_one_pass_as_in_parts() {
        with_each_set(|set| {
            for [b, t, c] in [[1, 1, 1], [2, 5, 37], [3, 70, 64], [1, 0, 8]] {
                let three = |seed| {
                    let data = TensorData::new(numbers(b * t * c, seed), [b, t, c]);
                    Tensor::<3>::from_data(data, &Device::flex())
                };
                let two = |seed| {
                    let data = TensorData::new(numbers(b * c, seed), [b, c]);
                    Tensor::<2>::from_data(data, &Device::flex())
                };
                let (x, y, shift, scale) = (three(1), three(2), two(3), two(4));
                let found = layer_norm_modulated(x.clone(), shift.clone(), scale.clone(), 1e-6);
                let tracked = x.clone().autodiff();
                let parts = layer_norm_modulated(
                    tracked,
                    shift.clone().autodiff(),
                    scale.clone().autodiff(),
                    1e-6,
                );
                assert_eq!(values(found), values(parts.inner()), "{set:?} {b} {t} {c}");
                let found = add_gated(x.clone(), y.clone(), scale.clone());
                let parts = add_gated(x.autodiff(), y.autodiff(), scale.autodiff());
                assert_eq!(values(found), values(parts.inner()), "{set:?} {b} {t} {c}");
            }
        });
    }
}
