//! Gated activations, without a gradient of their own: tracked tensors take the composed operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use crate::activation::{self, Activation};
use crate::extension::{Numbers, shape, tensor};
use crate::profile::{Class, timed};

/// The kernel.
#[backend_extension(Flex)]
pub(crate) trait GatedKernels: Backend {
    fn kernel_gated(x: FloatTensor<Self>, f: Activation) -> FloatTensor<Self>;
}

impl GatedKernels for Flex {
    fn kernel_gated(x: FlexTensor, f: Activation) -> FlexTensor {
        let _timed = timed(Class::Activation, 0);
        let [b, t, n] = shape(&x);
        let x = Numbers::new(x);
        tensor(activation::gated(f, b * t, n / 2, x.slice()), [b, t, n / 2])
    }
}

/// The first half of the features times the activation of the second.
///
/// # Panics
/// When the number of features is odd.
pub(crate) fn gated(x: Tensor<3>, f: Activation) -> Tensor<3> {
    let n = x.dims()[2];
    assert!(n.is_multiple_of(2), "a gate of {n} features, which have no two halves");
    if !x.is_autodiff() && crate::ops::has_kernels(x.device(), &[x.dtype()]) {
        return Tensor::from_dispatch(Dispatch::kernel_gated(x.into_dispatch(), f));
    }
    let (value, gate) = (x.clone().narrow(2, 0, n / 2), x.narrow(2, n / 2, n / 2));
    value * crate::ops::activate(gate, f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, with_each_set};
    use burn::tensor::{Device, TensorData};

    #[test]
    fn a_gate_gives_what_its_parts_give() {
        with_each_set(|set| {
            for [b, t, n] in [[1, 1, 1], [2, 7, 37], [1, 300, 64]] {
                let data = TensorData::new(numbers(b * t * 2 * n, 1), [b, t, 2 * n]);
                let x = Tensor::<3>::from_data(data, &Device::flex());
                for f in [Activation::Gelu, Activation::Silu] {
                    let values = |x: Tensor<3>| x.into_data_as::<f32>().iter::<f32>().collect();
                    let found: Vec<f32> = values(gated(x.clone(), f));
                    let parts: Vec<f32> = values(gated(x.clone().autodiff(), f).inner());
                    assert_eq!(found, parts, "{set:?} {b} {t} {n}");
                }
            }
        });
    }
}
