//! The public operations.

use burn::tensor::{Tensor, activation};

use crate::composed;

/// Two-dimensional cross-correlation of `x` `[b, c, h, w]` with `w` `[o, c, kh, kw]`, plus `bias`
/// `[o]`, to `[b, o, oh, ow]`. One group, no dilation.
///
/// `padding` is the zeros put on top, bottom, left and right, which may differ (the encoders of
/// published autoencoders pad 0, 1, 0, 1 before a stride of 2).
///
/// # Panics
/// When the channels of `x` and `w` differ, a stride is zero or the padded image is smaller than
/// the kernel.
pub fn conv2d(
    x: Tensor<4>,
    w: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: [usize; 2],
    padding: [usize; 4],
) -> Tensor<4> {
    composed::conv2d(x, w, bias, stride, padding)
}

/// `x` `[b, t, in]` times the transpose of `w` `[out, in]` (the layout of PyTorch and diffusers),
/// plus `bias` `[out]`, to `[b, t, out]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn linear(x: Tensor<3>, w: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    composed::linear(x, w, bias)
}

/// Group normalisation of `x` `[b, c, n]` (an image with its pixels flattened) over `groups` of
/// consecutive channels, then `weight` and `bias` `[c]` per channel, then SiLU if `silu`
/// (Wu and He, "Group Normalization", 2018; the variance is the biased one).
///
/// # Panics
/// When `groups` does not divide the channels or a shape does not fit.
pub fn group_norm(
    x: Tensor<3>,
    groups: usize,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    silu: bool,
) -> Tensor<3> {
    composed::group_norm(x, groups, weight, bias, eps, silu)
}

/// Layer normalisation of `x` `[b, t, c]` over its last dimension, then `weight` and `bias` `[c]`
/// where given (Ba, Kiros and Hinton, "Layer Normalization", 2016).
///
/// # Panics
/// When a shape does not fit.
pub fn layer_norm(
    x: Tensor<3>,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Tensor<3> {
    composed::layer_norm(x, weight, bias, eps)
}

/// `x * sigmoid(x)`.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// `x * Phi(x)` with the normal distribution function, by the error function.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// The tanh approximation of [`gelu`] (PyTorch's `approximate="tanh"`).
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu_approximate(x)
}

/// `x * sigmoid(1.702 x)`, the activation of the first CLIP text encoders.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    composed::quick_gelu(x)
}

/// `softmax(q k^T * scale + bias) v` for `q` `[b, h, t, d]`, `k` `[b, h, s, d]`, `v`
/// `[b, h, s, e]`, to `[b, h, t, e]`. `bias` is `[b, h, t, s]`, where `b`, `h` and `t` may be 1;
/// a position is masked by minus infinity (at least one position of a row must stay).
///
/// # Panics
/// When the shapes do not fit.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Option<Tensor<4>>,
    scale: f64,
) -> Tensor<4> {
    composed::attention(q, k, v, bias, scale)
}

/// Repeats each pixel of `x` `[b, c, h, w]` `factor` times in both directions.
///
/// # Panics
/// When `factor` is zero.
pub fn upsample_nearest(x: Tensor<4>, factor: usize) -> Tensor<4> {
    assert!(factor > 0, "upsample_nearest: the factor is zero");
    composed::upsample_nearest(x, factor)
}

/// The settings of one step of AdamW (Loshchilov and Hutter, "Decoupled Weight Decay
/// Regularization", 2019), in PyTorch's form: the decay is scaled by the learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the mean of the gradients, usually 0.9.
    pub beta1: f64,
    /// Decay of the mean of their squares, usually 0.999.
    pub beta2: f64,
    /// Added to the root of the second moment, usually 1e-8.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
}

impl AdamwStep {
    /// The bias corrections `1 - beta^step` of both moments.
    pub(crate) fn corrections(&self) -> (f64, f64) {
        let power = |beta: f64| 1.0 - beta.powi(self.step.clamp(1, i32::MAX as u64) as i32);
        (power(self.beta1), power(self.beta2))
    }
}

/// One AdamW step: the new parameter, first and second moment. In place where nobody else holds
/// the tensors. Not differentiable: give it tensors without a tape.
pub fn adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    step: &AdamwStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    composed::adamw(param, grad, m, v, step)
}
