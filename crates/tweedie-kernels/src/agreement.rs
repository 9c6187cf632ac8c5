//! The kernels, in f32, against burn's own operations in f64: values and all gradients, at odd
//! sizes; and their bits for other batches and numbers of threads.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::testing::{numbers, rounding, with_each_set, with_one_set};
use crate::{
    AdamwStep, adamw, attention, conv2d, gelu, gelu_tanh, group_norm, layer_norm, linear,
    quick_gelu, silu, upsample_nearest,
};

/// Operands as shapes; an operation on them as tensors flattened to rank 1.
type Operation<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

/// Value and gradients (by every operand, for a fixed gradient of the output) in the type `dtype`.
fn run(lens: &[usize], dtype: DType, tracked: bool, f: Operation) -> Vec<Vec<f64>> {
    let device = if tracked { Device::flex().autodiff() } else { Device::flex() };
    let operands: Vec<Tensor<1>> = lens
        .iter()
        .enumerate()
        .map(|(i, len)| {
            let data = TensorData::new(numbers(*len, i as u64 + 1), [*len]);
            let x = Tensor::<1>::from_data(data, (&device, dtype));
            if tracked { x.require_grad() } else { x }
        })
        .collect();
    let y = f(&operands);
    let values = |t: Tensor<1>| t.try_into_vec_as::<f64>().unwrap();
    let mut out = vec![values(y.clone())];
    if tracked {
        let len = out[0].len();
        let g = TensorData::new(numbers(len, 99), [len]);
        let grads = (y * Tensor::from_data(g, (&device, dtype))).sum().backward();
        for x in &operands {
            out.push(values(x.grad(&grads).unwrap()));
        }
    }
    out
}

/// Holds the f32 kernels, tracked and not, against f64 within `tolerance` relative to the largest
/// number of each result (at least 1); wider where products are rounded more.
fn agree(name: &str, lens: &[usize], tolerance: f64, f: Operation) {
    let tolerance = tolerance * rounding();
    let wanted = run(lens, DType::F64, true, f);
    let plain = run(lens, DType::F32, false, f);
    let got = run(lens, DType::F32, true, f);
    assert_eq!(plain[0], got[0], "{name}: tracked and untracked values");
    for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        assert_eq!(got.len(), wanted.len());
        let size = wanted.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
        for (j, (got, wanted)) in got.iter().zip(wanted).enumerate() {
            assert!(
                (got - wanted).abs() <= tolerance * size,
                "{name}: result {i} at {j}: {got} instead of {wanted}"
            );
        }
    }
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    x.flatten(0, D - 1)
}

#[test]
fn convolutions() {
    with_each_set(|set| {
        for ([b, c, h, w], [o, k], stride, padding) in [
            ([2, 3, 7, 5], [13, 3], 1, [1; 4]),
            ([1, 13, 5, 5], [3, 3], 2, [0, 1, 0, 1]),
            ([3, 3, 8, 8], [5, 4], 2, [1; 4]),
            ([2, 13, 1, 1], [3, 1], 1, [0; 4]),
            ([2, 5, 7, 7], [4, 1], 1, [0; 4]),
        ] {
            let (oh, ow) = (h + padding[0] + padding[1], w + padding[2] + padding[3]);
            assert!(oh >= k && ow >= k);
            agree(
                &format!("conv2d {set:?} {k} {stride}"),
                &[b * c * h * w, o * c * k * k, o],
                2e-5,
                &|t| {
                    let w = t[1].clone().reshape([o, c, k, k]);
                    let x = t[0].clone().reshape([b, c, h, w_of(&t[0], b * c * h)]);
                    flat(conv2d(x, w, Some(t[2].clone()), [stride; 2], padding))
                },
            );
            agree(
                &format!("conv2d without bias {set:?} {k}"),
                &[b * c * h * w, o * c * k * k],
                2e-5,
                &|t| {
                    let k = t[1].clone().reshape([o, c, k, k]);
                    let x = t[0].clone().reshape([b, c, h, w]);
                    flat(conv2d(x, k, None, [stride; 2], padding))
                },
            );
        }
    });
}

fn w_of(x: &Tensor<1>, rest: usize) -> usize {
    x.dims()[0] / rest
}

#[test]
fn linear_layers() {
    with_each_set(|set| {
        for [b, t, k, o] in [[1, 1, 1, 1], [2, 7, 13, 5], [3, 50, 33, 49], [2, 600, 3, 7]] {
            let name = format!("linear {set:?} {b} {t} {k} {o}");
            agree(&name, &[b * t * k, o * k, o], 2e-5, &|x| {
                let w = x[1].clone().reshape([o, k]);
                flat(linear(x[0].clone().reshape([b, t, k]), w, Some(x[2].clone())))
            });
            agree(&name, &[b * t * k, o * k], 2e-5, &|x| {
                let w = x[1].clone().reshape([o, k]);
                flat(linear(x[0].clone().reshape([b, t, k]), w, None))
            });
        }
    });
}

#[test]
fn norms() {
    with_each_set(|set| {
        for ([b, c, n], groups) in
            [([2, 6, 49], 3), ([1, 13, 1], 1), ([3, 8, 17], 8), ([2, 4, 64], 2)]
        {
            // One number a group has no deviation: its gradients are noise over eps.
            let eps = 1e-2;
            for with_silu in [false, true] {
                agree(&format!("group_norm {set:?} {b} {c} {n}"), &[b * c * n, c, c], 3e-5, &|x| {
                    let (weight, bias) = (x[1].clone(), x[2].clone());
                    let x = x[0].clone().reshape([b, c, n]);
                    flat(group_norm(x, groups, weight, bias, eps, with_silu))
                });
            }
            let lens = [b * n * c, c, c];
            let norm = |x: &[Tensor<1>], weight: bool, bias: bool| {
                let w = weight.then(|| x[1].clone());
                let b_ = bias.then(|| x[usize::from(weight) + 1].clone());
                flat(layer_norm(x[0].clone().reshape([b, n, c]), w, b_, eps))
            };
            let name = format!("layer_norm {set:?} {b} {c} {n}");
            agree(&name, &lens, 3e-5, &|x| norm(x, true, true));
            agree(&name, &lens[..2], 3e-5, &|x| norm(x, true, false));
            agree(&name, &lens[..2], 3e-5, &|x| norm(x, false, true));
            agree(&name, &lens[..1], 3e-5, &|x| norm(x, false, false));
        }
    });
}

#[test]
fn activations() {
    with_each_set(|set| {
        for len in [1, 15, 16, 40_001] {
            let scaled = |x: &[Tensor<1>]| x[0].clone() * 6.0;
            agree(&format!("silu {set:?}"), &[len], 3e-6, &|x| silu(scaled(x)));
            agree(&format!("gelu {set:?}"), &[len], 3e-6, &|x| gelu(scaled(x)));
            agree(&format!("gelu_tanh {set:?}"), &[len], 3e-6, &|x| gelu_tanh(scaled(x)));
            agree(&format!("quick_gelu {set:?}"), &[len], 3e-6, &|x| quick_gelu(scaled(x)));
        }
    });
}

#[test]
fn attentions() {
    with_each_set(|set| {
        for ([b, h, t, d], [s, e]) in
            [([1, 1, 1, 1], [1, 1]), ([2, 3, 7, 13], [5, 4]), ([2, 1, 70, 8], [130, 8])]
        {
            let lens = [b * h * t * d, b * h * s * d, b * h * s * e];
            let go = |x: &[Tensor<1>], bias: Option<Tensor<4>>| {
                let q = x[0].clone().reshape([b, h, t, d]) * 3.0;
                let k = x[1].clone().reshape([b, h, s, d]);
                flat(attention(q, k, x[2].clone().reshape([b, h, s, e]), bias, 0.7))
            };
            let name = format!("attention {set:?} {t} {s}");
            agree(&name, &lens, 1e-5, &|x| go(x, None));
            for dims in [[b, h, t, s], [1, h, t, s], [b, 1, 1, s], [1, 1, t, 1], [1, 1, 1, 1]] {
                let mut lens = lens.to_vec();
                lens.push(dims.iter().product());
                agree(&format!("{name} {dims:?}"), &lens, 1e-5, &|x| {
                    go(x, Some(x[3].clone().reshape(dims)))
                });
            }
            // A mask that leaves the first key.
            agree(&format!("{name} masked"), &lens, 1e-5, &|x| {
                let mut mask = vec![f32::NEG_INFINITY; s];
                mask[0] = 0.0;
                let data = TensorData::new(mask, [1, 1, 1, s]);
                go(x, Some(Tensor::from_data(data, (&x[0].device(), x[0].dtype()))))
            });
        }
    });
}

#[test]
fn enlargement() {
    with_each_set(|_| {
        for factor in [1, 2, 3] {
            for [b, c, h, w] in [[1, 1, 1, 1], [2, 3, 5, 7], [1, 2, 4, 16]] {
                agree("upsample_nearest", &[b * c * h * w], 1e-6, &|x| {
                    flat(upsample_nearest(x[0].clone().reshape([b, c, h, w]), factor))
                });
            }
        }
    });
}

/// Views that are not contiguous, or begin inside their buffer, give what their copies give.
#[test]
fn strided_views() {
    with_each_set(|_| {
        agree("a transposed view", &[2 * 6 * 20], 1e-5, &|x| {
            let x = x[0].clone().reshape([2, 6, 20]).swap_dims(1, 2);
            let w = x.clone().slice([0..1, 3..7]).reshape([4, 6]);
            flat(linear(silu(x.clone()), w, None) + gelu(x).slice([0..2, 0..20, 1..5]))
        });
        agree("a narrowed view", &[300], 1e-5, &|x| silu(x[0].clone().narrow(0, 7, 253)));
    });
}

#[test]
fn adamw_steps_as_composed_and_as_defined() {
    with_each_set(|_| {
        let device = Device::flex();
        let make = |seed, dtype| {
            Tensor::<1>::from_data(TensorData::new(numbers(1003, seed), [1003]), (&device, dtype))
        };
        let step =
            AdamwStep { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 3 };
        let go = |dtype| {
            let (p, g, m) = (make(1, dtype), make(2, dtype), make(3, dtype));
            let (p, m, v) = adamw(p, g, m, make(4, dtype).abs(), &step);
            [p, m, v].map(|t| t.try_into_vec_as::<f64>().unwrap())
        };
        let (fused, composed) = (go(DType::F32), go(DType::F64));
        let [p, g, m, v] = [1, 2, 3, 4].map(|seed| numbers(1003, seed));
        for i in 0..1003 {
            let [p, g, m, v] = [p[i], g[i], m[i], v[i].abs()].map(f64::from);
            let (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
            let (mean, square) = (m / (1.0 - 0.9_f64.powi(3)), v / (1.0 - 0.999_f64.powi(3)));
            let p = p - 1e-2 * 0.1 * p - 1e-2 * mean / (square.sqrt() + 1e-8);
            for (j, wanted) in [p, m, v].into_iter().enumerate() {
                assert!((composed[j][i] - wanted).abs() < 1e-12);
                assert!((fused[j][i] - wanted).abs() < 1e-6);
            }
        }
    });
}

/// A tensor that somebody else holds keeps its numbers when an operation works in place.
#[test]
fn shared_tensors_are_not_overwritten() {
    with_one_set(|| {
        let device = Device::flex();
        let x = Tensor::<1>::from_data(TensorData::new(numbers(100, 1), [100]), &device);
        let kept = x.clone();
        let step =
            AdamwStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, step: 1 };
        let _ = silu(x.clone());
        let _ = adamw(x.clone(), x.clone(), x.clone(), x.clone().abs(), &step);
        let ones = Tensor::ones([4], &device);
        let _ = group_norm(x.clone().reshape([1, 4, 25]), 2, ones.clone(), ones, 1e-5, true);
        let _ = layer_norm(x.reshape([1, 4, 25]), None, None, 1e-5);
        assert_eq!(kept.try_into_vec_as::<f32>().unwrap(), numbers(100, 1));
    });
}

/// The composed operations' gradients in f64 against central differences, so that the reference of
/// the tests above is itself held against something.
#[test]
fn composed_gradients_are_slopes() {
    let lens = [2 * 4 * 9, 4, 4, 3 * 4, 3];
    let f: Operation = &|x| {
        let device = x[0].device();
        let y =
            group_norm(x[0].clone().reshape([2, 4, 9]), 2, x[1].clone(), x[2].clone(), 1e-3, true);
        let y = linear(y.swap_dims(1, 2), x[3].clone().reshape([3, 4]), Some(x[4].clone()));
        let q = y.reshape([2, 1, 9, 3]);
        let bias = Tensor::<4>::ones([1, 1, 9, 1], (&device, DType::F64));
        let y = attention(q.clone(), q.clone() * 0.5, q, Some(bias), 0.8);
        flat(quick_gelu(upsample_nearest(y.reshape([2, 3, 3, 3]), 2)))
    };
    let results = run(&lens, DType::F64, true, f);
    let device = Device::flex();
    let value = |moved: usize, at: usize, by: f64| {
        let operands: Vec<Tensor<1>> = lens
            .iter()
            .enumerate()
            .map(|(i, len)| {
                let mut x: Vec<f64> =
                    numbers(*len, i as u64 + 1).into_iter().map(f64::from).collect();
                if i == moved {
                    x[at] += by;
                }
                Tensor::from_data(TensorData::new(x, [*len]), (&device, DType::F64))
            })
            .collect();
        let y = f(&operands).try_into_vec_as::<f64>().unwrap();
        let g = numbers(y.len(), 99);
        y.iter().zip(g).map(|(y, g)| y * f64::from(g)).sum::<f64>()
    };
    for (i, len) in lens.iter().enumerate() {
        for at in (0..*len).step_by(5) {
            let h = 1e-5;
            let slope = (value(i, at, h) - value(i, at, -h)) / (2.0 * h);
            let got = results[i + 1][at];
            assert!((got - slope).abs() < 1e-7 * (1.0 + slope.abs()), "{i} {at}: {got} {slope}");
        }
    }
}

/// One sample's bits (values and gradients by inputs) are the same alone, among 3 and among 8, and
/// on one thread and two; gradients of weights are the same on one thread and two.
#[test]
fn bits_do_not_depend_on_batch_or_threads() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (one, two) = (pool(1), pool(2));
    let network = |batch: usize| {
        let device = Device::flex().autodiff();
        let make = |len: usize, seed| {
            let data = TensorData::new(numbers(len, seed), [len]);
            Tensor::<1>::from_data(data, &device).require_grad()
        };
        let (c, h) = (24, 16);
        let x = {
            let all = numbers(8 * c * h * h, 1);
            let data = TensorData::new(all[..batch * c * h * h].to_vec(), [batch, c, h, h]);
            Tensor::<4>::from_data(data, &device).require_grad()
        };
        let (w1, w2) = (make(c * c * 9, 2), make(2 * c * c, 3));
        let (scale, shift) = (make(c, 4), make(c, 5));
        let y = conv2d(x.clone(), w1.clone().reshape([c, c, 3, 3]), None, [1; 2], [1; 4]);
        let y = y.reshape([batch, c, h * h]);
        let y = group_norm(y, 4, scale.clone(), shift.clone(), 1e-5, true).swap_dims(1, 2);
        let y = linear(y, w2.clone().reshape([2 * c, c]), None);
        let y = gelu(y).slice([0..batch, 0..h * h, 0..c]);
        let y = layer_norm(y, Some(scale.clone()), None, 1e-5);
        let q = y.reshape([batch, h * h, 3, c / 3]).swap_dims(1, 2);
        let y = attention(q.clone(), q.clone(), q, None, 0.3);
        let y = y.swap_dims(2, 3).reshape([batch, c, h, h]);
        let y = upsample_nearest(y, 2);
        let y = conv2d(y, w1.clone().reshape([c, c, 3, 3]), None, [2; 2], [0, 1, 0, 1]);
        let g = numbers(8 * c * h * h, 9)[..batch * c * h * h].to_vec();
        let g = Tensor::<4>::from_data(TensorData::new(g, [batch, c, h, h]), &device);
        let bits = |t: Tensor<1>| {
            let numbers = t.try_into_vec_as::<f32>().unwrap();
            numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let grads = (y.clone() * g).sum().backward();
        let weights: Vec<_> =
            [w1, w2, scale, shift].iter().filter_map(|w| w.grad(&grads)).map(bits).collect();
        assert_eq!(weights.len(), 4);
        (bits(flat(y)), bits(flat(x.grad(&grads).unwrap())), weights)
    };
    with_one_set(|| {
        let whole = one.install(|| network(8));
        assert!(whole == two.install(|| network(8)), "8 on two threads");
        for batch in [1, 3] {
            let part = one.install(|| network(batch));
            assert!(part == two.install(|| network(batch)), "{batch} on two threads");
            assert!(part.0[..] == whole.0[..part.0.len()], "values of {batch}");
            assert!(part.1[..] == whole.1[..part.1.len()], "gradients of {batch}");
        }
    });
}
