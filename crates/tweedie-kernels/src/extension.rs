//! The kernels as a backend extension: forward on Flex, and their gradients on autodiff over Flex.
//!
//! Only f32 tensors of these two backends come here; [`crate::ops`] sends all others to the
//! composed operations.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, ExtensionType, TensorMetadata, backend_extension};
use burn::tensor::{DType, TensorData};
use burn_flex::{Flex, FlexTensor};

use crate::activation::{self, Activation};
use crate::attention::{self, Bias};
use crate::contiguous::laid_out;
use crate::memory::{Output, Ptr};
use crate::norm::{self, Groups};
use crate::profile::{Class, timed};
use crate::{AdamwStep, conv, linear, optimiser, resample};

/// An operand that may be absent.
#[derive(ExtensionType)]
pub(crate) enum Maybe<B: Backend> {
    /// It is there.
    Given(FloatTensor<B>),
    /// It is not.
    Absent,
}

impl<B: Backend> Maybe<B> {
    pub(crate) fn option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Given(x) => Some(x),
            Self::Absent => None,
        }
    }
}

impl<B: Backend> From<Option<FloatTensor<B>>> for Maybe<B> {
    fn from(x: Option<FloatTensor<B>>) -> Self {
        x.map_or(Self::Absent, Self::Given)
    }
}

/// The kernels; see the functions of the crate's root for shapes.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Kernels: Backend {
    fn kernel_conv2d(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
        up: usize,
    ) -> FloatTensor<Self>;

    fn kernel_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
    ) -> FloatTensor<Self>;

    fn kernel_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FloatTensor<Self>;

    fn kernel_layer_norm(
        x: FloatTensor<Self>,
        #[extension_type] weight: Maybe<Self>,
        #[extension_type] bias: Maybe<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;

    fn kernel_activation(x: FloatTensor<Self>, f: Activation) -> FloatTensor<Self>;

    fn kernel_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;

    fn kernel_upsample(x: FloatTensor<Self>, factor: usize) -> FloatTensor<Self>;

    fn kernel_adamw(
        param: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// A tensor's numbers, one after the other; a copy where it is a strided view.
pub(crate) struct Numbers(pub(crate) FlexTensor);

impl Numbers {
    pub(crate) fn new(x: FlexTensor) -> Self {
        Self(match x.is_contiguous() {
            true => x,
            false if x.dtype() == DType::F32 && x.layout().num_dims() > 1 => laid_out(&x),
            false => x.to_contiguous(),
        })
    }

    pub(crate) fn slice(&self) -> &[f32] {
        let layout = self.0.layout();
        let start = layout.start_offset();
        &self.0.storage::<f32>()[start..start + layout.num_elements()]
    }
}

pub(crate) fn shape<const D: usize>(x: &FlexTensor) -> [usize; D] {
    let shape = x.shape();
    std::array::from_fn(|i| shape[i])
}

pub(crate) fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

/// Gives `f` where `x` is and where the result goes, which is `x` itself if nobody else holds it.
pub(crate) fn in_place(x: FlexTensor, f: impl FnOnce(Ptr, Ptr)) -> FlexTensor {
    let mut x = Numbers::new(x).0;
    let len = x.layout().num_elements();
    let start = x.layout().start_offset();
    if let Some(storage) = x.try_storage_mut::<f32>() {
        let p = Ptr::new(storage[start..start + len].as_mut_ptr());
        f(p, p);
        return x;
    }
    let shape = x.shape();
    let x = Numbers(x);
    let mut y = Output::new(len);
    f(Ptr::of(x.slice()), y.ptr());
    // SAFETY: every user of this function writes as many numbers as it reads.
    FlexTensor::from_data(TensorData::new(unsafe { y.finish() }, shape))
}

/// The shape of a convolution with a kernel `[o, c, kh, kw]` over an image that is enlarged `up` times.
pub(crate) fn conv_shape(
    x: &FlexTensor,
    [o, _, kh, kw]: [usize; 4],
    stride: [usize; 2],
    padding: [usize; 4],
    up: usize,
) -> conv::Shape {
    let [batch, c, h, width] = shape(x);
    let (h, width) = (h * up, width * up);
    let [top, bottom, left, right] = padding;
    conv::Shape {
        batch,
        c,
        h,
        w: width,
        up,
        o,
        kh,
        kw,
        stride,
        before: [top as isize, left as isize],
        oh: (h + top + bottom - kh) / stride[0] + 1,
        ow: (width + left + right - kw) / stride[1] + 1,
    }
}

fn groups(x: &FlexTensor, groups: usize, eps: f64, silu: bool) -> Groups {
    let [batch, c, n] = shape(x);
    Groups { batch, count: groups, channels: c / groups, n, eps: eps as f32, silu }
}

fn group_norm(
    s: Groups,
    x: FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
) -> (FlexTensor, Vec<f32>) {
    let _timed = timed(Class::Norm, 0);
    let (weight, bias) = (Numbers::new(weight.clone()), Numbers::new(bias.clone()));
    let mut stats = Vec::new();
    let y = in_place(x, |x, y| {
        // SAFETY: shapes were checked where the operation was called.
        stats = unsafe { norm::group_forward(&s, x, weight.slice(), bias.slice(), y) };
    });
    (y, stats)
}

fn layer_norm(
    x: FlexTensor,
    weight: Option<&FlexTensor>,
    bias: Option<&FlexTensor>,
    eps: f64,
) -> (FlexTensor, Vec<f32>) {
    let _timed = timed(Class::Norm, 0);
    let [b, t, c] = shape(&x);
    let weight = weight.cloned().map(Numbers::new);
    let bias = bias.cloned().map(Numbers::new);
    let mut stats = Vec::new();
    let y = in_place(x, |x, y| {
        let weight = weight.as_ref().map(Numbers::slice);
        let bias = bias.as_ref().map(Numbers::slice);
        // SAFETY: shapes were checked where the operation was called.
        stats = unsafe { norm::layer_forward(b * t, c, eps as f32, x, weight, bias, y) };
    });
    (y, stats)
}

fn attention_shape(q: &FlexTensor, k: &FlexTensor, v: &FlexTensor, scale: f64) -> attention::Shape {
    let ([batch, heads, t, d], [_, _, s, _], [_, _, _, e]) = (shape(q), shape(k), shape(v));
    attention::Shape { batch, heads, t, s, d, e, scale: scale as f32 }
}

fn attend(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    bias: Option<FlexTensor>,
    scale: f64,
    stats: bool,
) -> (FlexTensor, Vec<f32>) {
    let s = attention_shape(&q, &k, &v, scale);
    let _timed = timed(Class::Attention, s.products());
    let [q, k, v] = [q, k, v].map(Numbers::new);
    let bias = bias.map(Numbers::new);
    let bias = bias.as_ref().map(|b| Bias { numbers: b.slice(), dims: shape(&b.0) });
    let (y, stats) = attention::forward(&s, q.slice(), k.slice(), v.slice(), bias.as_ref(), stats);
    (tensor(y, [s.batch, s.heads, s.t, s.e]), stats)
}

impl Kernels for Flex {
    fn kernel_conv2d(
        x: FlexTensor,
        w: FlexTensor,
        bias: Maybe<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
        up: usize,
    ) -> FlexTensor {
        let s = conv_shape(&x, shape(&w), stride, padding, up);
        let _timed = timed(Class::Convolution, s.products());
        let (x, w, bias) = (Numbers::new(x), Numbers::new(w), bias.option().map(Numbers::new));
        let y = conv::forward(&s, x.slice(), w.slice(), bias.as_ref().map(Numbers::slice));
        tensor(y, [s.batch, s.o, s.oh, s.ow])
    }

    fn kernel_linear(x: FlexTensor, w: FlexTensor, bias: Maybe<Self>) -> FlexTensor {
        let ([b, t, k], [o, _]) = (shape(&x), shape(&w));
        let _timed = timed(Class::Linear, b * t * k * o);
        let (x, w, bias) = (Numbers::new(x), Numbers::new(w), bias.option().map(Numbers::new));
        let bias = bias.as_ref().map(Numbers::slice);
        tensor(linear::forward(b * t, k, o, x.slice(), w.slice(), bias), [b, t, o])
    }

    fn kernel_group_norm(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        n: usize,
        eps: f64,
        silu: bool,
    ) -> FlexTensor {
        group_norm(groups(&x, n, eps, silu), x, &weight, &bias).0
    }

    fn kernel_layer_norm(
        x: FlexTensor,
        weight: Maybe<Self>,
        bias: Maybe<Self>,
        eps: f64,
    ) -> FlexTensor {
        layer_norm(x, weight.option().as_ref(), bias.option().as_ref(), eps).0
    }

    fn kernel_activation(x: FlexTensor, f: Activation) -> FlexTensor {
        let _timed = timed(Class::Activation, 0);
        let len = x.layout().num_elements();
        // SAFETY: both have the tensor's numbers.
        in_place(x, |x, y| unsafe { activation::forward(f, len, x, y) })
    }

    fn kernel_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        bias: Maybe<Self>,
        scale: f64,
    ) -> FlexTensor {
        attend(q, k, v, bias.option(), scale, false).0
    }

    fn kernel_upsample(x: FlexTensor, factor: usize) -> FlexTensor {
        let _timed = timed(Class::Resampling, 0);
        let [b, c, h, w] = shape(&x);
        let y = resample::forward(b * c * h, w, factor, Numbers::new(x).slice());
        tensor(y, [b, c, h * factor, w * factor])
    }

    fn kernel_adamw(
        param: FlexTensor,
        grad: FlexTensor,
        m: FlexTensor,
        v: FlexTensor,
        step: AdamwStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let _timed = timed(Class::Optimiser, 0);
        let len = param.layout().num_elements();
        let grad = Numbers::new(grad);
        let [mut param, mut m, mut v] = [param, m, v].map(|x| Numbers::new(x).0);
        let [p0, m0, v0] = [&param, &m, &v].map(|x| x.layout().start_offset());
        optimiser::step(
            &step,
            &mut param.storage_mut::<f32>()[p0..p0 + len],
            grad.slice(),
            &mut m.storage_mut::<f32>()[m0..m0 + len],
            &mut v.storage_mut::<f32>()[v0..v0 + len],
        );
        (param, m, v)
    }
}

/// Whether all these are f32, the type that the kernels are written for.
pub(crate) fn all_f32(types: &[DType]) -> bool {
    types.iter().all(|t| *t == DType::F32)
}

type Node = burn::backend::autodiff::NodeId;

#[derive(Debug)]
struct Conv2d;

/// Parents: image, weights, and the bias if there is one (else the image again, unused).
#[derive(Debug, Clone)]
struct ConvState {
    x: Node,
    w: Node,
    stride: [usize; 2],
    padding: [usize; 4],
}

impl<const N: usize> Backward<Flex, N> for Conv2d {
    type State = ConvState;

    fn backward(self, ops: Ops<ConvState, N>, grads: &mut Gradients, saved: &mut Checkpointer) {
        let x: FlexTensor = saved.retrieve_node_output(ops.state.x);
        let w: FlexTensor = saved.retrieve_node_output(ops.state.w);
        let g = Numbers::new(grads.consume::<Flex>(&ops.node));
        let s = conv_shape(&x, shape(&w), ops.state.stride, ops.state.padding, 1);
        let _timed = timed(Class::Convolution, 2 * s.products());
        let (x, w) = (Numbers::new(x), Numbers::new(w));
        for (i, node) in ops.parents.iter().enumerate() {
            let Some(node) = node else { continue };
            let gradient = match i {
                0 => tensor(conv::grad_image(&s, w.slice(), g.slice()), [s.batch, s.c, s.h, s.w]),
                1 => tensor(conv::grad_weights(&s, x.slice(), g.slice()), [s.o, s.c, s.kh, s.kw]),
                _ => tensor(conv::grad_bias(s.batch, s.o, s.oh * s.ow, g.slice()), [s.o]),
            };
            grads.register::<Flex>(node.id, gradient);
        }
    }
}

#[derive(Debug)]
struct Linear;

impl<const N: usize> Backward<Flex, N> for Linear {
    type State = (Node, Node);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, saved: &mut Checkpointer) {
        let x: FlexTensor = saved.retrieve_node_output(ops.state.0);
        let w: FlexTensor = saved.retrieve_node_output(ops.state.1);
        let g = Numbers::new(grads.consume::<Flex>(&ops.node));
        let ([b, t, k], [o, _]) = (shape(&x), shape(&w));
        let _timed = timed(Class::Linear, 2 * b * t * k * o);
        let (x, w, rows) = (Numbers::new(x), Numbers::new(w), b * t);
        for (i, node) in ops.parents.iter().enumerate() {
            let Some(node) = node else { continue };
            let gradient = match i {
                0 => tensor(linear::grad_input(rows, k, o, w.slice(), g.slice()), [b, t, k]),
                1 => tensor(linear::grad_weights(rows, k, o, x.slice(), g.slice()), [o, k]),
                _ => tensor(linear::grad_bias(rows, o, g.slice()), [o]),
            };
            grads.register::<Flex>(node.id, gradient);
        }
    }
}

#[derive(Debug)]
struct GroupNorm;

#[derive(Debug, Clone)]
struct GroupState {
    x: Node,
    weight: Node,
    bias: Node,
    shape: Groups,
    stats: Vec<f32>,
}

impl Backward<Flex, 3> for GroupNorm {
    type State = GroupState;

    fn backward(self, ops: Ops<GroupState, 3>, grads: &mut Gradients, saved: &mut Checkpointer) {
        let _timed = timed(Class::Norm, 0);
        let state = ops.state;
        let x = Numbers::new(saved.retrieve_node_output(state.x));
        let weight = Numbers::new(saved.retrieve_node_output(state.weight));
        let bias = Numbers::new(saved.retrieve_node_output(state.bias));
        let g: FlexTensor = grads.consume::<Flex>(&ops.node);
        let mut rest = (Vec::new(), Vec::new());
        let dx = in_place(g, |g, dx| {
            let x = Ptr::of(x.slice());
            // SAFETY: the shapes of the forward pass.
            rest = unsafe {
                norm::group_backward(
                    &state.shape,
                    &state.stats,
                    x,
                    weight.slice(),
                    bias.slice(),
                    g,
                    dx,
                )
            };
        });
        let c = rest.0.len();
        let gradients = [dx, tensor(rest.0, [c]), tensor(rest.1, [c])];
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct LayerNorm;

#[derive(Debug, Clone)]
struct LayerState {
    x: Node,
    weight: Option<Node>,
    stats: Vec<f32>,
    /// Which parent is the weight and which the bias.
    places: [Option<usize>; 2],
}

impl<const N: usize> Backward<Flex, N> for LayerNorm {
    type State = LayerState;

    fn backward(self, ops: Ops<LayerState, N>, grads: &mut Gradients, saved: &mut Checkpointer) {
        let _timed = timed(Class::Norm, 0);
        let state = ops.state;
        let x: FlexTensor = saved.retrieve_node_output(state.x);
        let [b, t, c] = shape(&x);
        let x = Numbers::new(x);
        let weight = state.weight.map(|w| Numbers::new(saved.retrieve_node_output(w)));
        let g: FlexTensor = grads.consume::<Flex>(&ops.node);
        let mut rest = (Vec::new(), Vec::new());
        let dx = in_place(g, |g, dx| {
            let x = Ptr::of(x.slice());
            let weight = weight.as_ref().map(Numbers::slice);
            // SAFETY: the shapes of the forward pass.
            rest = unsafe { norm::layer_backward(b * t, c, &state.stats, x, weight, g, dx) };
        });
        let (d_weight, d_bias) = (tensor(rest.0, [c]), tensor(rest.1, [c]));
        let gradients = [(Some(0), dx), (state.places[0], d_weight), (state.places[1], d_bias)];
        for (place, gradient) in gradients {
            if let Some(node) = place.and_then(|i| ops.parents[i].as_ref()) {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Activate;

impl Backward<Flex, 1> for Activate {
    type State = (Node, Activation);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, saved: &mut Checkpointer) {
        let _timed = timed(Class::Activation, 0);
        let x = Numbers::new(saved.retrieve_node_output(ops.state.0));
        let g: FlexTensor = grads.consume::<Flex>(&ops.node);
        let [Some(node)] = ops.parents else { return };
        let x = x.slice();
        let dx = in_place(g, |g, dx| {
            // SAFETY: the gradient has the shape of the input.
            unsafe { activation::backward(ops.state.1, x.len(), Ptr::of(x), g, dx) };
        });
        grads.register::<Flex>(node.id, dx);
    }
}

#[derive(Debug)]
struct Attention;

#[derive(Debug, Clone)]
struct AttentionState {
    q: Node,
    k: Node,
    v: Node,
    bias: Option<Node>,
    scale: f64,
    stats: Vec<f32>,
}

impl<const N: usize> Backward<Flex, N> for Attention {
    type State = AttentionState;

    fn backward(
        self,
        ops: Ops<AttentionState, N>,
        grads: &mut Gradients,
        saved: &mut Checkpointer,
    ) {
        let state = ops.state;
        let [q, k, v]: [FlexTensor; 3] =
            [state.q, state.k, state.v].map(|n| saved.retrieve_node_output(n));
        let bias = state.bias.map(|n| Numbers::new(saved.retrieve_node_output(n)));
        let bias = bias.as_ref().map(|b| Bias { numbers: b.slice(), dims: shape(&b.0) });
        let g = Numbers::new(grads.consume::<Flex>(&ops.node));
        let s = attention_shape(&q, &k, &v, state.scale);
        let _timed = timed(Class::Attention, 5 * s.products() / 2);
        let [q, k, v] = [q, k, v].map(Numbers::new);
        let of_bias = ops.parents.get(3).is_some_and(Option::is_some);
        let d = attention::backward(
            &s,
            q.slice(),
            k.slice(),
            v.slice(),
            bias.as_ref(),
            of_bias,
            &state.stats,
            g.slice(),
        );
        let mut gradients = vec![
            tensor(d.q, [s.batch, s.heads, s.t, s.d]),
            tensor(d.k, [s.batch, s.heads, s.s, s.d]),
            tensor(d.v, [s.batch, s.heads, s.s, s.e]),
        ];
        gradients.extend(d.bias.zip(bias).map(|(d, bias)| tensor(d, bias.dims)));
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Upsample;

impl Backward<Flex, 1> for Upsample {
    type State = ([usize; 4], usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let _timed = timed(Class::Resampling, 0);
        let ([b, c, h, w], factor) = ops.state;
        let g = Numbers::new(grads.consume::<Flex>(&ops.node));
        if let [Some(node)] = ops.parents {
            let dx = resample::backward(b * c * h, w, factor, g.slice());
            grads.register::<Flex>(node.id, tensor(dx, [b, c, h, w]));
        }
    }
}

/// A tensor of the autodiff backend over Flex.
type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn kernel_conv2d(
        x: Tracked<C>,
        w: Tracked<C>,
        bias: Maybe<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
        up: usize,
    ) -> Tracked<C> {
        // The gradients are those of an image that was enlarged before.
        let x = if up > 1 { Self::kernel_upsample(x, up) } else { x };
        macro_rules! go {
            ($nodes:expr, $bias:expr) => {
                match Conv2d.prepare::<C>($nodes).compute_bound().stateful() {
                    OpsKind::Tracked(mut prep) => {
                        let state = ConvState {
                            x: prep.checkpoint(&x),
                            w: prep.checkpoint(&w),
                            stride,
                            padding,
                        };
                        let (x, w) = (x.into_primitive(), w.into_primitive());
                        prep.finish(state, Flex::kernel_conv2d(x, w, $bias, stride, padding, 1))
                    }
                    OpsKind::UnTracked(prep) => {
                        let (x, w) = (x.into_primitive(), w.into_primitive());
                        prep.finish(Flex::kernel_conv2d(x, w, $bias, stride, padding, 1))
                    }
                }
            };
        }
        match bias {
            Maybe::Given(bias) => {
                go!([x.node(), w.node(), bias.node()], Maybe::Given(bias.into_primitive()))
            }
            Maybe::Absent => go!([x.node(), w.node()], Maybe::Absent),
        }
    }

    fn kernel_linear(x: Tracked<C>, w: Tracked<C>, bias: Maybe<Self>) -> Tracked<C> {
        macro_rules! go {
            ($nodes:expr, $bias:expr) => {
                match Linear.prepare::<C>($nodes).compute_bound().stateful() {
                    OpsKind::Tracked(mut prep) => {
                        let state = (prep.checkpoint(&x), prep.checkpoint(&w));
                        let (x, w) = (x.into_primitive(), w.into_primitive());
                        prep.finish(state, Flex::kernel_linear(x, w, $bias))
                    }
                    OpsKind::UnTracked(prep) => {
                        let (x, w) = (x.into_primitive(), w.into_primitive());
                        prep.finish(Flex::kernel_linear(x, w, $bias))
                    }
                }
            };
        }
        match bias {
            Maybe::Given(bias) => {
                go!([x.node(), w.node(), bias.node()], Maybe::Given(bias.into_primitive()))
            }
            Maybe::Absent => go!([x.node(), w.node()], Maybe::Absent),
        }
    }

    fn kernel_group_norm(
        x: Tracked<C>,
        weight: Tracked<C>,
        bias: Tracked<C>,
        n: usize,
        eps: f64,
        silu: bool,
    ) -> Tracked<C> {
        let s = groups(x.primitive(), n, eps, silu);
        match GroupNorm
            .prepare::<C>([x.node(), weight.node(), bias.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let nodes = [&x, &weight, &bias].map(|t| prep.checkpoint(t));
                let (y, stats) =
                    group_norm(s, x.into_primitive(), weight.primitive(), bias.primitive());
                let [x, weight, bias] = nodes;
                prep.finish(GroupState { x, weight, bias, shape: s, stats }, y)
            }
            OpsKind::UnTracked(prep) => prep
                .finish(group_norm(s, x.into_primitive(), weight.primitive(), bias.primitive()).0),
        }
    }

    fn kernel_layer_norm(
        x: Tracked<C>,
        weight: Maybe<Self>,
        bias: Maybe<Self>,
        eps: f64,
    ) -> Tracked<C> {
        let (weight, bias) = (weight.option(), bias.option());
        let places = match (&weight, &bias) {
            (None, None) => [None, None],
            (Some(_), None) => [Some(1), None],
            (None, Some(_)) => [None, Some(1)],
            (Some(_), Some(_)) => [Some(1), Some(2)],
        };
        macro_rules! go {
            ($nodes:expr) => {
                match LayerNorm.prepare::<C>($nodes).compute_bound().stateful() {
                    OpsKind::Tracked(mut prep) => {
                        let node = prep.checkpoint(&x);
                        let of_weight = weight.as_ref().map(|w| prep.checkpoint(w));
                        let (y, stats) = layer_norm(
                            x.into_primitive(),
                            weight.as_ref().map(|w| w.primitive()),
                            bias.as_ref().map(|b| b.primitive()),
                            eps,
                        );
                        prep.finish(LayerState { x: node, weight: of_weight, stats, places }, y)
                    }
                    OpsKind::UnTracked(prep) => prep.finish(
                        layer_norm(
                            x.into_primitive(),
                            weight.as_ref().map(|w| w.primitive()),
                            bias.as_ref().map(|b| b.primitive()),
                            eps,
                        )
                        .0,
                    ),
                }
            };
        }
        match (&weight, &bias) {
            (Some(w), Some(b)) => go!([x.node(), w.node(), b.node()]),
            (Some(one), None) | (None, Some(one)) => go!([x.node(), one.node()]),
            (None, None) => go!([x.node()]),
        }
    }

    fn kernel_activation(x: Tracked<C>, f: Activation) -> Tracked<C> {
        match Activate.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), f);
                prep.finish(state, Flex::kernel_activation(x.into_primitive(), f))
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::kernel_activation(x.into_primitive(), f)),
        }
    }

    fn kernel_attention(
        q: Tracked<C>,
        k: Tracked<C>,
        v: Tracked<C>,
        bias: Maybe<Self>,
        scale: f64,
    ) -> Tracked<C> {
        let bias = bias.option();
        macro_rules! go {
            ($nodes:expr) => {
                match Attention.prepare::<C>($nodes).compute_bound().stateful() {
                    OpsKind::Tracked(mut prep) => {
                        let nodes = [&q, &k, &v].map(|t| prep.checkpoint(t));
                        let of_bias = bias.as_ref().map(|b| prep.checkpoint(b));
                        let bias = bias.map(|b| b.into_primitive());
                        let [x, y, z] = [q, k, v].map(Tracked::<C>::into_primitive);
                        let (y, stats) = attend(x, y, z, bias, scale, true);
                        let [q, k, v] = nodes;
                        prep.finish(AttentionState { q, k, v, bias: of_bias, scale, stats }, y)
                    }
                    OpsKind::UnTracked(prep) => {
                        let bias = bias.map(|b| b.into_primitive());
                        let [q, k, v] = [q, k, v].map(Tracked::<C>::into_primitive);
                        prep.finish(attend(q, k, v, bias, scale, false).0)
                    }
                }
            };
        }
        match &bias {
            Some(b) => go!([q.node(), k.node(), v.node(), b.node()]),
            None => go!([q.node(), k.node(), v.node()]),
        }
    }

    fn kernel_upsample(x: Tracked<C>, factor: usize) -> Tracked<C> {
        let state = (shape(x.primitive()), factor);
        match Upsample.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                prep.finish(state, Flex::kernel_upsample(x.into_primitive(), factor))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(Flex::kernel_upsample(x.into_primitive(), factor))
            }
        }
    }

    fn kernel_adamw(
        param: Tracked<C>,
        grad: Tracked<C>,
        m: Tracked<C>,
        v: Tracked<C>,
        step: AdamwStep,
    ) -> (Tracked<C>, Tracked<C>, Tracked<C>) {
        let [param, grad, m, v] = [param, grad, m, v].map(Tracked::<C>::into_primitive);
        let (param, m, v) = Flex::kernel_adamw(param, grad, m, v, step);
        (Tracked::<C>::new(param), Tracked::<C>::new(m), Tracked::<C>::new(v))
    }
}
