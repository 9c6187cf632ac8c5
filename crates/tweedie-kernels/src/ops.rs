//! The public operations.

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{DType, Device, Tensor, activation};

use crate::activation::Activation;
use crate::composed;
use crate::extension::{Kernels, all_f32};

/// Whether the kernels can take tensors of these types on this device.
pub(crate) fn has_kernels(device: Device, types: &[DType]) -> bool {
    all_f32(types) && matches!(device.inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The type of an optional operand: that of `other` where it is absent.
fn type_or<const D: usize>(x: Option<&Tensor<D>>, other: DType) -> DType {
    x.map_or(other, Tensor::dtype)
}

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
    conv2d_enlarged(x, 1, w, bias, stride, padding)
}

/// As [`conv2d`] of `x` with each pixel repeated `factor` times in both directions
/// ([`upsample_nearest`]); untracked, the enlarged image is never stored.
///
/// # Panics
/// As [`conv2d`], and when `factor` is zero.
pub fn conv2d_enlarged(
    x: Tensor<4>,
    factor: usize,
    w: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: [usize; 2],
    padding: [usize; 4],
) -> Tensor<4> {
    assert!(factor > 0, "conv2d_enlarged: the factor is zero");
    let ([_, c, h, width], [o, c_w, kh, kw]) = (x.dims(), w.dims());
    let (h, width) = (h * factor, width * factor);
    let [top, bottom, left, right] = padding;
    assert!(c == c_w, "conv2d: {c} channels of the image, {c_w} of the kernel");
    assert!(stride[0] > 0 && stride[1] > 0, "conv2d: a stride is zero");
    assert!(
        kh > 0 && kw > 0 && h + top + bottom >= kh && width + left + right >= kw,
        "conv2d: a kernel of {kh}x{kw} on {h}x{width} with padding {padding:?}"
    );
    assert_dims("conv2d: bias", bias.as_ref(), [o]);
    let types = [x.dtype(), w.dtype(), type_or(bias.as_ref(), x.dtype())];
    if !has_kernels(x.device(), &types) {
        let x = if factor > 1 { composed::upsample_nearest(x, factor) } else { x };
        return composed::conv2d(x, w, bias, stride, padding);
    }
    let bias = bias.map(Tensor::into_dispatch).into();
    let (x, w) = (x.into_dispatch(), w.into_dispatch());
    Tensor::from_dispatch(Dispatch::kernel_conv2d(x, w, bias, stride, padding, factor))
}

/// `x` `[b, t, in]` times the transpose of `w` `[out, in]` (the layout of PyTorch and diffusers),
/// plus `bias` `[out]`, to `[b, t, out]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn linear(x: Tensor<3>, w: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let ([_, _, k], [o, _]) = (x.dims(), w.dims());
    assert_dims("linear: weight", Some(&w), [o, k]);
    assert_dims("linear: bias", bias.as_ref(), [o]);
    let types = [x.dtype(), w.dtype(), type_or(bias.as_ref(), x.dtype())];
    if !has_kernels(x.device(), &types) {
        return composed::linear(x, w, bias);
    }
    let bias = bias.map(Tensor::into_dispatch).into();
    Tensor::from_dispatch(Dispatch::kernel_linear(x.into_dispatch(), w.into_dispatch(), bias))
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
    let [_, c, _] = x.dims();
    assert!(groups > 0 && c % groups == 0, "group_norm: {groups} groups of {c} channels");
    assert_dims("group_norm: weight", Some(&weight), [c]);
    assert_dims("group_norm: bias", Some(&bias), [c]);
    if !has_kernels(x.device(), &[x.dtype(), weight.dtype(), bias.dtype()]) {
        return composed::group_norm(x, groups, weight, bias, eps, silu);
    }
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::kernel_group_norm(x, weight, bias, groups, eps, silu))
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
    let [_, _, c] = x.dims();
    assert_dims("layer_norm: weight", weight.as_ref(), [c]);
    assert_dims("layer_norm: bias", bias.as_ref(), [c]);
    let t = x.dtype();
    if !has_kernels(x.device(), &[t, type_or(weight.as_ref(), t), type_or(bias.as_ref(), t)]) {
        return composed::layer_norm(x, weight, bias, eps);
    }
    let (weight, bias) =
        (weight.map(Tensor::into_dispatch).into(), bias.map(Tensor::into_dispatch).into());
    Tensor::from_dispatch(Dispatch::kernel_layer_norm(x.into_dispatch(), weight, bias, eps))
}

pub(crate) fn activate<const D: usize>(x: Tensor<D>, f: Activation) -> Tensor<D> {
    if has_kernels(x.device(), &[x.dtype()]) {
        return Tensor::from_dispatch(Dispatch::kernel_activation(x.into_dispatch(), f));
    }
    match f {
        Activation::Silu => activation::silu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => activation::gelu_approximate(x),
        Activation::QuickGelu => composed::quick_gelu(x),
    }
}

/// Panics unless `x`, if there is one, has the dimensions `wanted`.
fn assert_dims<const D: usize>(what: &str, x: Option<&Tensor<D>>, wanted: [usize; D]) {
    if let Some(x) = x {
        assert!(x.dims() == wanted, "{what} is {:?}, not {wanted:?}", x.dims());
    }
}

/// `x * sigmoid(x)`.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(x, Activation::Silu)
}

/// `x * Phi(x)` with the normal distribution function, by the error function.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(x, Activation::Gelu)
}

/// The tanh approximation of [`gelu`] (PyTorch's `approximate="tanh"`).
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(x, Activation::GeluTanh)
}

/// `x * sigmoid(1.702 x)`, the activation of the first CLIP text encoders.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activate(x, Activation::QuickGelu)
}

/// `softmax(q k^T * scale + bias) v` for `q` `[b, h, t, d]`, `k` `[b, h, s, d]`, `v`
/// `[b, h, s, e]`, to `[b, h, t, e]`. `bias` is `[b, h, t, s]`, where each may be 1;
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
    let ([b, h, t, d], [_, _, s, _], [_, _, _, e]) = (q.dims(), k.dims(), v.dims());
    assert_dims("attention: k", Some(&k), [b, h, s, d]);
    assert_dims("attention: v", Some(&v), [b, h, s, e]);
    if let Some(bias) = &bias {
        let dims = bias.dims();
        let fits = dims.iter().zip([b, h, t, s]).all(|(have, full)| *have == 1 || *have == full);
        assert!(fits, "attention: a bias of {dims:?} for scores of {:?}", [b, h, t, s]);
    }
    let types = [q.dtype(), k.dtype(), v.dtype(), type_or(bias.as_ref(), q.dtype())];
    if s == 0 || !has_kernels(q.device(), &types) {
        return composed::attention(q, k, v, bias, scale);
    }
    let bias = bias.map(Tensor::into_dispatch).into();
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(Dispatch::kernel_attention(q, k, v, bias, scale))
}

/// Repeats each pixel of `x` `[b, c, h, w]` `factor` times in both directions.
///
/// # Panics
/// When `factor` is zero.
pub fn upsample_nearest(x: Tensor<4>, factor: usize) -> Tensor<4> {
    assert!(factor > 0, "upsample_nearest: the factor is zero");
    if !has_kernels(x.device(), &[x.dtype()]) {
        return composed::upsample_nearest(x, factor);
    }
    Tensor::from_dispatch(Dispatch::kernel_upsample(x.into_dispatch(), factor))
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
///
/// # Panics
/// When the shapes differ.
pub fn adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    step: &AdamwStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let dims = param.dims();
    assert_dims("adamw: gradient", Some(&grad), dims);
    assert_dims("adamw: first moment", Some(&m), dims);
    assert_dims("adamw: second moment", Some(&v), dims);
    let types = [param.dtype(), grad.dtype(), m.dtype(), v.dtype()];
    if !has_kernels(param.device(), &types) {
        return composed::adamw(param, grad, m, v, step);
    }
    let (param, m, v) = Dispatch::kernel_adamw(
        param.into_dispatch(),
        grad.into_dispatch(),
        m.into_dispatch(),
        v.into_dispatch(),
        *step,
    );
    (Tensor::from_dispatch(param), Tensor::from_dispatch(m), Tensor::from_dispatch(v))
}
