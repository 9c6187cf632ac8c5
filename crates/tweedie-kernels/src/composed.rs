//! Every operation of this crate composed of burn's own operations.
//!
//! This is what runs on every backend but Flex and on every element type but f32, and what the
//! fused kernels are tested against. burn differentiates it.

use burn::tensor::activation::softmax;
use burn::tensor::module::conv2d as burn_conv2d;
use burn::tensor::ops::{ConvOptions, PadMode};
use burn::tensor::{Tensor, activation};

use crate::AdamwStep;

/// See [`crate::conv2d`].
pub(crate) fn conv2d(
    x: Tensor<4>,
    w: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: [usize; 2],
    padding: [usize; 4],
) -> Tensor<4> {
    let [top, bottom, left, right] = padding;
    if top == bottom && left == right {
        return burn_conv2d(x, w, bias, ConvOptions::new(stride, [top, left], [1, 1], 1));
    }
    let x = x.pad([(top, bottom), (left, right)], PadMode::Constant(0.0));
    burn_conv2d(x, w, bias, ConvOptions::new(stride, [0, 0], [1, 1], 1))
}

/// See [`crate::linear`].
pub(crate) fn linear(x: Tensor<3>, w: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let y = x.matmul(w.transpose().unsqueeze::<3>());
    match bias {
        Some(bias) => y + bias.unsqueeze::<3>(),
        None => y,
    }
}

/// See [`crate::group_norm`].
pub(crate) fn group_norm(
    x: Tensor<3>,
    groups: usize,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    silu: bool,
) -> Tensor<3> {
    let [b, c, n] = x.dims();
    let y = standardise(x.reshape([b, groups, c / groups * n]), eps).reshape([b, c, n]);
    let y = y * weight.reshape([1, c, 1]) + bias.reshape([1, c, 1]);
    if silu { activation::silu(y) } else { y }
}

/// See [`crate::layer_norm`].
pub(crate) fn layer_norm(
    x: Tensor<3>,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Tensor<3> {
    let mut y = standardise(x, eps);
    if let Some(weight) = weight {
        y = y * weight.unsqueeze::<3>();
    }
    if let Some(bias) = bias {
        y = y + bias.unsqueeze::<3>();
    }
    y
}

/// Subtracts the mean of the last dimension and divides by its standard deviation (biased).
fn standardise(x: Tensor<3>, eps: f64) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    centred / (variance + eps).sqrt()
}

/// See [`crate::quick_gelu`].
pub(crate) fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * activation::sigmoid(x * 1.702)
}

/// See [`crate::attention`].
pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Option<Tensor<4>>,
    scale: f64,
) -> Tensor<4> {
    let mut scores = q.matmul(k.swap_dims(2, 3)) * scale;
    if let Some(bias) = bias {
        scores = scores + bias;
    }
    softmax(scores, 3).matmul(v)
}

/// See [`crate::upsample_nearest`].
pub(crate) fn upsample_nearest(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h, 1, w, 1]).expand([b, c, h, factor, w, factor]).reshape([
        b,
        c,
        h * factor,
        w * factor,
    ])
}

/// See [`crate::adamw`].
pub(crate) fn adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    step: &AdamwStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let (c1, c2) = step.corrections();
    let m = m * step.beta1 + grad.clone() * (1.0 - step.beta1);
    let v = v * step.beta2 + grad.square() * (1.0 - step.beta2);
    let update = m.clone() / ((v.clone() / c2).sqrt() + step.eps) * (step.lr / c1);
    let param = param * (1.0 - step.lr * step.weight_decay) - update;
    (param, m, v)
}
