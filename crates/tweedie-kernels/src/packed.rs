//! Weights laid out once for the products that they are multiplied in.

use std::sync::{Arc, OnceLock};

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, Dispatch, DispatchDevice, backend_extension,
};
use burn::tensor::{DType, Device, Tensor};
use burn_flex::{Flex, FlexTensor};

#[cfg(target_arch = "x86_64")]
use crate::amx::layer;
#[cfg(target_arch = "x86_64")]
use crate::amx::layer::Layer;
use crate::extension::{Kernels, Maybe, Numbers, conv_shape, shape, tensor};
use crate::int8::{self, Layer8};
#[cfg(not(target_arch = "x86_64"))]
use crate::no_layer as layer;
#[cfg(not(target_arch = "x86_64"))]
use crate::no_layer::Layer;
use crate::profile::{Class, timed};
use crate::{Epilogue, Half, activation, conv, mmap};

/// Elements of a kernel times channels, below which most of a tile would be zeros.
const LEAST: usize = 27;

/// Weights of a layer from which on tiles are worth it where they are preferred.
const LARGE: usize = 1 << 16;

/// A weight of a linear layer or of a convolution in the form that products on this machine are
/// fastest with; its numbers keep 17 bits.
///
/// It takes as much memory as the numbers in f32; or a quarter, in 8 bits.
#[derive(Clone, Debug)]
pub struct PackedWeight(Arc<Form>);

/// What products take.
#[derive(Debug)]
pub(crate) enum Form {
    /// Tiles of bf16, in 32 bits a number or in 16.
    Tiles(Layer),
    /// Bytes with a scale for each output.
    Bytes(Layer8),
}

impl Form {
    /// Outputs, channels and elements of the kernel.
    fn sizes(&self) -> [usize; 3] {
        match self {
            Self::Tiles(layer) => layer.sizes(),
            Self::Bytes(layer) => {
                let [outputs, channels] = layer.sizes();
                [outputs, channels, 1]
            }
        }
    }

    fn unpack(&self) -> Vec<f32> {
        match self {
            Self::Tiles(layer) => layer.unpack(),
            Self::Bytes(layer) => layer.unpack(),
        }
    }
}

impl PackedWeight {
    /// Packs the numbers `w` of a weight of the shape `[out, in]` or `[out, in, kh, kw]`. Where they
    /// lie in a [mapped file](mmap::MappedFile), its pages go back to the system.
    ///
    /// `None` where nothing would be gained: where it does not go through AMX
    /// ([`crate::InstructionSet::prefer_tiles`]), on another device, of another type than f32, tracked by autodiff,
    /// of another shape or of very few inputs.
    pub fn new(w: &Tensor<1>, shape: &[usize]) -> Option<Self> {
        let sizes = sizes(shape)?;
        let count: usize = sizes.iter().product();
        let plain = !w.is_autodiff() && w.dtype() == DType::F32 && w.dims() == [count];
        if !plain || !on_processor(&w.device()) {
            return None;
        }
        Self::made(w, sizes, false)
    }

    /// The weight of a linear layer quantised to 8 bits, with one scale for each output; activations are
    /// quantised row by row as they come (see docs/performance.md). On every instruction set the same bits.
    ///
    /// `None` for other shapes than `[out, in]`, for layers that are too small to gain by it, on another
    /// device, and where the weight is tracked by autodiff.
    pub fn bytes8(w: &Tensor<1>, shape: &[usize]) -> Option<Self> {
        let &[outputs, channels] = shape else { return None };
        let fits = channels >= LEAST && outputs >= LEAST && w.dims() == [outputs * channels];
        if !fits || w.is_autodiff() || w.dtype() != DType::F32 || !on_processor(&w.device()) {
            return None;
        }
        Self::made(w, [outputs, channels, 1], true)
    }

    fn made(w: &Tensor<1>, sizes: [usize; 3], bytes: bool) -> Option<Self> {
        let slot = Arc::new(OnceLock::new());
        Dispatch::kernel_pack(w.clone().into_dispatch(), sizes, bytes, Arc::clone(&slot));
        Arc::into_inner(slot)?.into_inner().map(|form| Self(Arc::new(form)))
    }

    /// As [`PackedWeight::new`] from 16-bit numbers, lowest byte first, for use on `device`: kept
    /// exactly, in as many bits.
    pub fn narrow(bytes: &[u8], half: Half, shape: &[usize], device: &Device) -> Option<Self> {
        let sizes = sizes(shape)?;
        if bytes.len() != 2 * sizes.iter().product::<usize>() || !on_processor(device) {
            return None;
        }
        let layer = Layer::narrow(sizes, bytes, half)?;
        mmap::release_bytes(bytes);
        Some(Self(Arc::new(Form::Tiles(layer))))
    }

    /// The numbers that it stands for: those that were packed, in the precision that is kept.
    pub fn unpack(&self) -> Vec<f32> {
        self.0.unpack()
    }

    /// Bytes of memory that it holds.
    pub fn bytes(&self) -> usize {
        match &*self.0 {
            Form::Tiles(layer) => layer.bytes(),
            Form::Bytes(layer) => layer.bytes(),
        }
    }
}

/// Outputs, channels and elements of the kernel of a weight of this shape, if it is to be packed on this
/// machine.
fn sizes(shape: &[usize]) -> Option<[usize; 3]> {
    let (outputs, channels) = (*shape.first()?, *shape.get(1)?);
    let taps = shape[2..].iter().product::<usize>();
    let fits = matches!(shape.len(), 2 | 4) && channels * taps >= LEAST && outputs > 0;
    let count = outputs.checked_mul(channels)?.checked_mul(taps)?;
    count.checked_mul(8)?;
    (fits && crate::InstructionSet::tiles_for(count, LARGE)).then_some([outputs, channels, taps])
}

fn on_processor(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// As [`crate::linear`] with a weight that is packed, and what follows.
///
/// # Panics
/// When the shapes do not fit.
pub fn linear_packed(
    x: Tensor<3>,
    w: &PackedWeight,
    bias: Option<Tensor<1>>,
    epilogue: Epilogue,
) -> Tensor<3> {
    let [outputs, channels, taps] = w.0.sizes();
    assert!(taps == 1 && x.dims()[2] == channels, "linear_packed: the shapes do not fit");
    if matches!(epilogue, Epilogue::Gated(_)) {
        assert!(outputs.is_multiple_of(2), "linear_packed: a gate of {outputs} outputs");
    }
    if let Some(bias) = &bias {
        assert!(bias.dims() == [outputs], "linear_packed: a bias of {:?}", bias.dims());
    }
    let bias = bias.map(Tensor::into_dispatch).into();
    // What is tracked goes through operations that have gradients.
    let tracked = x.is_autodiff();
    let within = if tracked { Epilogue::Plain } else { epilogue };
    let (x, layer) = (x.into_dispatch(), w.0.clone());
    let y = Tensor::from_dispatch(Dispatch::kernel_linear_packed(x, layer, bias, within));
    if tracked { epilogue.of(y) } else { y }
}

/// As [`crate::conv2d_enlarged`] with a kernel of `size` that is packed.
///
/// # Panics
/// When the shapes do not fit.
pub fn conv2d_packed(
    x: Tensor<4>,
    factor: usize,
    w: &PackedWeight,
    size: [usize; 2],
    bias: Option<Tensor<1>>,
    stride: [usize; 2],
    padding: [usize; 4],
) -> Tensor<4> {
    let ([outputs, channels, taps], [_, c, h, width]) = (w.0.sizes(), x.dims());
    let (h, width) = (h * factor, width * factor);
    let ([top, bottom, left, right], [kh, kw]) = (padding, size);
    assert!(factor > 0, "conv2d_packed: the factor is zero");
    assert!(taps == kh * kw && c == channels, "conv2d_packed: the shapes do not fit");
    assert!(stride[0] > 0 && stride[1] > 0, "conv2d_packed: a stride is zero");
    assert!(
        h + top + bottom >= kh && width + left + right >= kw,
        "conv2d_packed: a kernel of {kh}x{kw} on {h}x{width} with padding {padding:?}"
    );
    if let Some(bias) = &bias {
        assert!(bias.dims() == [outputs], "conv2d_packed: a bias of {:?}", bias.dims());
    }
    let bias = bias.map(Tensor::into_dispatch).into();
    let x = x.into_dispatch();
    let layer = w.0.clone();
    let y = Dispatch::kernel_conv2d_packed(x, layer, size, bias, stride, padding, factor);
    Tensor::from_dispatch(y)
}

/// The kernels over packed weights; see the functions above for shapes.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait PackedKernels: Backend {
    /// Packs `w` into `slot`, as bytes or as tiles; gives `w` back.
    fn kernel_pack(
        w: FloatTensor<Self>,
        sizes: [usize; 3],
        bytes: bool,
        slot: Arc<OnceLock<Form>>,
    ) -> FloatTensor<Self>;

    fn kernel_linear_packed(
        x: FloatTensor<Self>,
        layer: Arc<Form>,
        #[extension_type] bias: Maybe<Self>,
        epilogue: Epilogue,
    ) -> FloatTensor<Self>;

    fn kernel_conv2d_packed(
        x: FloatTensor<Self>,
        layer: Arc<Form>,
        size: [usize; 2],
        #[extension_type] bias: Maybe<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
        up: usize,
    ) -> FloatTensor<Self>;
}

impl PackedKernels for Flex {
    fn kernel_pack(
        w: FlexTensor,
        sizes: [usize; 3],
        bytes: bool,
        slot: Arc<OnceLock<Form>>,
    ) -> FlexTensor {
        let numbers = Numbers::new(w);
        let form = match bytes {
            true => Layer8::new([sizes[0], sizes[1]], numbers.slice()).map(Form::Bytes),
            false => Layer::new(sizes, numbers.slice()).map(Form::Tiles),
        };
        if let Some(form) = form {
            mmap::release_numbers(numbers.slice());
            let _ = slot.set(form);
        }
        numbers.0
    }

    fn kernel_linear_packed(
        x: FlexTensor,
        layer: Arc<Form>,
        bias: Maybe<Self>,
        epilogue: Epilogue,
    ) -> FlexTensor {
        let ([b, t, k], [o, ..]) = (shape(&x), layer.sizes());
        let _timed = timed(Class::Linear, b * t * k * o);
        let (x, bias) = (Numbers::new(x), bias.option().map(Numbers::new));
        let bias = bias.as_ref().map(Numbers::slice);
        let (rows, n, x) = (b * t, epilogue.outputs(o), x.slice());
        let run = |epilogue| match &*layer {
            Form::Tiles(layer) => layer::rows(layer, rows, x, bias, epilogue),
            Form::Bytes(layer) => int8::rows(layer, rows, x, bias, epilogue),
        };
        let gates = match &*layer {
            Form::Tiles(layer) => layer::gates(layer),
            Form::Bytes(layer) => layer.gates(),
        };
        let y = match epilogue {
            Epilogue::Gated(f) if !gates => activation::gated(f, rows, n, &run(Epilogue::Plain)),
            _ => run(epilogue),
        };
        tensor(y, [b, t, n])
    }

    fn kernel_conv2d_packed(
        x: FlexTensor,
        layer: Arc<Form>,
        [kh, kw]: [usize; 2],
        bias: Maybe<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
        up: usize,
    ) -> FlexTensor {
        let [o, c, _] = layer.sizes();
        let s = conv_shape(&x, [o, c, kh, kw], stride, padding, up);
        let _timed = timed(Class::Convolution, s.products());
        let (x, bias) = (Numbers::new(x), bias.option().map(Numbers::new));
        let bias = bias.as_ref().map(Numbers::slice);
        let one = conv::Shape { batch: 1, ..s };
        let image = |s: &conv::Shape, x: &[f32]| match &*layer {
            Form::Tiles(layer) => layer::image(layer, s, x, bias),
            // Kernels are never kept so.
            Form::Bytes(_) => None,
        };
        let y = image(&s, x.slice()).unwrap_or_else(|| {
            // Sample by sample, so that no sample's numbers hang on another's.
            let w = layer.unpack();
            let each = x.slice().chunks_exact((c * s.stored()).max(1));
            let exact = |x: &[f32]| conv::forward(&one, x, &w, bias);
            each.flat_map(|x| image(&one, x).unwrap_or_else(|| exact(x))).collect()
        });
        tensor(y, [s.batch, s.o, s.oh, s.ow])
    }
}

/// A gradient by `x` asks for the weight itself, which is unpacked: networks whose inputs are tracked
/// use the stored form instead.
impl<C: CheckpointStrategy> PackedKernels for Autodiff<Flex, C> {
    fn kernel_pack(
        w: FloatTensor<Self>,
        _sizes: [usize; 3],
        _bytes: bool,
        _slot: Arc<OnceLock<Form>>,
    ) -> FloatTensor<Self> {
        w
    }

    fn kernel_linear_packed(
        x: FloatTensor<Self>,
        layer: Arc<Form>,
        bias: Maybe<Self>,
        epilogue: Epilogue,
    ) -> FloatTensor<Self> {
        debug_assert_eq!(epilogue, Epilogue::Plain, "a gradient of what follows");
        let [o, c, _] = layer.sizes();
        let w = Self::from_inner(tensor(layer.unpack(), [o, c]));
        Self::kernel_linear(x, w, bias)
    }

    fn kernel_conv2d_packed(
        x: FloatTensor<Self>,
        layer: Arc<Form>,
        [kh, kw]: [usize; 2],
        bias: Maybe<Self>,
        stride: [usize; 2],
        padding: [usize; 4],
        up: usize,
    ) -> FloatTensor<Self> {
        let [o, c, _] = layer.sizes();
        let w = Self::from_inner(tensor(layer.unpack(), [o, c, kh, kw]));
        Self::kernel_conv2d(x, w, bias, stride, padding, up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation::{Gelu, GeluTanh, QuickGelu, Silu};
    use crate::InstructionSet;
    use crate::testing::{numbers, with_each_set};
    use burn::tensor::TensorData;

    fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data_as::<f32>().iter::<f32>().collect()
    }

    fn close(found: &[f32], wanted: &[f32], within: f32) {
        let most = wanted.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() <= within * most, "{found} {wanted}");
        }
    }

    /// What is packed gives what the weight itself gives, and gradients; only where there are tiles.
    #[test]
    fn packed_weights_give_what_weights_give() {
        with_each_set(|set| {
            let (w, b) = (numbers(40 * 35 * 9, 1), numbers(40, 2));
            let weight = tensor(w, [40 * 35 * 9]);
            let kernel = PackedWeight::new(&weight, &[40, 35, 3, 3]);
            let matrix = PackedWeight::new(&weight, &[40, 35 * 9]);
            assert_eq!(kernel.is_some(), set == InstructionSet::Amx);
            let (Some(kernel), Some(matrix)) = (kernel, matrix) else { return };
            assert!(PackedWeight::new(&weight, &[40, 35, 9]).is_none());
            assert!(PackedWeight::new(&weight, &[40, 35]).is_none());
            assert!(PackedWeight::new(&weight.clone().autodiff(), &[40, 315]).is_none());
            assert!(kernel.bytes() >= 4 * 40 * 35 * 9);

            let (bias, stride, padding) = (Some(tensor(b, [40])), [1, 1], [1, 1, 1, 1]);
            let mut x = numbers(2 * 35 * 30, 3);
            let image = tensor(x.clone(), [2, 35, 6, 5]);
            let wide = weight.clone().reshape([40, 35, 3, 3]);
            let wanted = crate::conv2d(image.clone(), wide.clone(), bias.clone(), stride, padding);
            let found =
                conv2d_packed(image.clone(), 1, &kernel, [3, 3], bias.clone(), stride, padding);
            close(&values(found.clone()), &values(wanted), 1e-4);
            // A sample of tiny numbers is computed as well, and leaves the other one as it was.
            x[35 * 30..].iter_mut().for_each(|x| *x *= 1e-30);
            let mixed = tensor(x.clone(), [2, 35, 6, 5]);
            let tiny = tensor(x[35 * 30..].to_vec(), [1, 35, 6, 5]);
            let both = values(conv2d_packed(mixed, 1, &kernel, [3, 3], None, stride, padding));
            let plain = conv2d_packed(image.clone(), 1, &kernel, [3, 3], None, stride, padding);
            assert_eq!(both[..40 * 30], values(plain)[..40 * 30]);
            let exact = crate::conv2d(tiny, wide.clone(), None, stride, padding);
            close(&both[40 * 30..], &values(exact), 1e-4);

            let rows = tensor(numbers(2 * 7 * 315, 4), [2, 7, 315]);
            let flat = weight.clone().reshape([40, 315]);
            let wanted = crate::linear(rows.clone(), flat.clone(), bias.clone());
            close(
                &values(linear_packed(rows.clone(), &matrix, bias.clone(), Epilogue::Plain)),
                &values(wanted),
                1e-4,
            );

            // What follows in the same pass is what follows in one of its own, also where halves are
            // no whole blocks.
            for outputs in [40, 64, 128] {
                let w = tensor(numbers(outputs * 315, 6), [outputs * 315]);
                let w = PackedWeight::new(&w, &[outputs, 315]).unwrap();
                let bias = Some(tensor(numbers(outputs, 7), [outputs]));
                let plain = linear_packed(rows.clone(), &w, bias.clone(), Epilogue::Plain);
                for f in [Silu, Gelu, GeluTanh, QuickGelu] {
                    for after in [Epilogue::Activated(f), Epilogue::Gated(f)] {
                        let found = linear_packed(rows.clone(), &w, bias.clone(), after);
                        let wanted = after.of(plain.clone());
                        assert_ne!(values(found.clone()), values(plain.clone()));
                        assert_eq!(values(found), values(wanted), "{outputs} {after:?}");
                    }
                }
            }

            let gradient = |f: &dyn Fn(Tensor<3>) -> Tensor<3>| {
                let x = rows.clone().autodiff().require_grad();
                let y = f(x.clone());
                let grads = (y.clone() * y).sum().backward();
                values(x.grad(&grads).unwrap())
            };
            let lifted = bias.map(Tensor::autodiff);
            let found = gradient(&|x| linear_packed(x, &matrix, lifted.clone(), Epilogue::Plain));
            let wanted = gradient(&|x| crate::linear(x, flat.clone().autodiff(), lifted.clone()));
            close(&found, &wanted, 1e-4);
        });
    }

    /// In 8 bits too what follows is what follows in a pass of its own, and a gradient is that of the
    /// numbers that are kept.
    #[test]
    fn layers_in_bytes_are_gated_and_have_gradients() {
        with_each_set(|set| {
            for outputs in [40, 64] {
                let weight = tensor(numbers(outputs * 70, 1), [outputs * 70]);
                let w = PackedWeight::bytes8(&weight, &[outputs, 70]).unwrap();
                assert!(PackedWeight::bytes8(&weight, &[outputs, 70, 1, 1]).is_none());
                assert!(w.bytes() < 4 * outputs * 70);
                let rows = tensor(numbers(2 * 7 * 70, 4), [2, 7, 70]);
                let bias = Some(tensor(numbers(outputs, 7), [outputs]));
                let plain = linear_packed(rows.clone(), &w, bias.clone(), Epilogue::Plain);
                let exact = crate::linear(
                    rows.clone(),
                    weight.clone().reshape([outputs, 70]),
                    bias.clone(),
                );
                close(&values(plain.clone()), &values(exact), 0.02);
                for after in [Epilogue::Activated(Silu), Epilogue::Gated(Gelu)] {
                    let found = linear_packed(rows.clone(), &w, bias.clone(), after);
                    let wanted = after.of(plain.clone());
                    assert_eq!(values(found), values(wanted), "{set:?} {outputs} {after:?}");
                }
                let x = rows.clone().autodiff().require_grad();
                let lifted = bias.clone().map(Tensor::autodiff);
                let y = linear_packed(x.clone(), &w, lifted, Epilogue::Gated(Gelu));
                let grads = y.sum().backward();
                assert!(values(x.grad(&grads).unwrap()).iter().any(|g| *g != 0.0));
            }
        });
    }
}
