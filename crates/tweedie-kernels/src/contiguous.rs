//! Strided views laid out one number after the other, and sums of two tensors, on all threads.
//!
//! Networks turn images into tokens and split features into heads by views; the kernels read what lies one
//! after the other. Without a gradient of their own: tracked tensors take the tensor library's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexTensor};

use crate::extension::{Numbers, in_place};
use crate::memory::{Output, Ptr, parallel};
use crate::ops::has_kernels;
use crate::simd::{LANES, Simd, dispatch};

/// The kernels.
#[backend_extension(Flex)]
pub(crate) trait ContiguousKernels: Backend {
    fn kernel_contiguous(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn kernel_add(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl ContiguousKernels for Flex {
    fn kernel_contiguous(x: FlexTensor) -> FlexTensor {
        Numbers::new(x).0
    }

    fn kernel_add(x: FlexTensor, y: FlexTensor) -> FlexTensor {
        let y = Numbers::new(y);
        let from = Ptr::of(y.slice());
        let len = y.slice().len();
        in_place(x, |x, to| {
            parallel(len.div_ceil(PART), PART, |i| {
                let at = i * PART;
                // SAFETY: all three have as many numbers, in disjoint parts.
                unsafe { add_part(PART.min(len - at), x.at(at), from.at(at), to.at(at)) };
            });
        })
    }
}

/// Numbers that one unit of work takes.
const PART: usize = 1 << 15;

/// The same tensor with its numbers one after the other.
pub fn contiguous<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.is_autodiff() || !has_kernels(x.device(), &[x.dtype()]) {
        return x;
    }
    Tensor::from_dispatch(Dispatch::kernel_contiguous(x.into_dispatch()))
}

/// `x + y`, in place where nobody else holds `x`.
///
/// # Panics
/// When the shapes differ.
pub fn add<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    assert_eq!(x.dims(), y.dims(), "add: the shapes differ");
    let plain = !x.is_autodiff() && !y.is_autodiff();
    if !plain || !has_kernels(x.device(), &[x.dtype(), y.dtype()]) {
        return x + y;
    }
    Tensor::from_dispatch(Dispatch::kernel_add(x.into_dispatch(), y.into_dispatch()))
}

#[inline(always)]
unsafe fn add_body<S: Simd>(len: usize, x: *const f32, y: *const f32, to: *mut f32) {
    for i in 0..len {
        // SAFETY: the caller's numbers.
        unsafe { *to.add(i) = *x.add(i) + *y.add(i) };
    }
}

dispatch! {
    /// `to = x + y`; `to` may be `x`.
    ///
    /// # Safety
    /// `len` numbers each.
    fn add_part(len: usize, x: *const f32, y: *const f32, to: *mut f32) = add_body
}

/// Lays out a view of f32 that is strided.
pub(crate) fn laid_out(x: &FlexTensor) -> FlexTensor {
    let (layout, shape) = (x.layout(), x.layout().shape().clone());
    let dims: Vec<usize> = (0..layout.num_dims()).map(|i| shape[i]).collect();
    let strides: Vec<isize> = layout.strides().to_vec();
    let numbers = x.storage::<f32>();
    let from = Ptr::of(numbers).at(layout.start_offset());
    let (len, rank) = (dims.iter().product::<usize>(), dims.len());
    let mut y = Output::new(len);
    let (from, to) = (Ptr::new(from), y.ptr());
    // A plane of the last two dimensions at a time, in bands of rows.
    let (rows, columns) = (dims[rank - 2], dims[rank - 1]);
    let (down, right) = (strides[rank - 2], strides[rank - 1]);
    let planes = len.checked_div(rows * columns).unwrap_or(0);
    let band = if right == 1 { rows } else { LANES };
    let bands = rows.div_ceil(band.max(1));
    parallel(planes * bands, band * columns, |unit| {
        let (plane, first) = (unit / bands, unit % bands * band);
        let (mut rest, mut at) = (plane, 0);
        for i in (0..rank - 2).rev() {
            at += (rest % dims[i]) as isize * strides[i];
            rest /= dims[i];
        }
        let count = band.min(rows - first);
        let from = from.at(0).wrapping_offset(at + first as isize * down);
        let to = to.at((plane * rows + first) * columns);
        // SAFETY: the rows of the view, and their places.
        unsafe { copy_rows(count, columns, from, [down, right], to) };
    });
    // SAFETY: every row of every plane was written.
    FlexTensor::from_data(TensorData::new(unsafe { y.finish() }, shape))
}

#[inline(always)]
unsafe fn copy_body<S: Simd>(
    rows: usize,
    columns: usize,
    from: *const f32,
    [down, right]: [isize; 2],
    to: *mut f32,
) {
    // SAFETY: the caller's rows.
    unsafe {
        let row = |r: usize| from.wrapping_offset(r as isize * down);
        if right == 1 {
            for r in 0..rows {
                std::ptr::copy_nonoverlapping(row(r), to.add(r * columns), columns);
            }
            return;
        }
        let whole = if down == 1 && rows == LANES { columns / LANES * LANES } else { 0 };
        for first in (0..whole).step_by(LANES) {
            let mut block = [S::splat(0.0); LANES];
            for (c, v) in block.iter_mut().enumerate() {
                *v = S::load(from.wrapping_offset((first + c) as isize * right));
            }
            for (r, v) in S::transpose(&block).iter().enumerate() {
                v.store(to.add(r * columns + first));
            }
        }
        for r in 0..rows {
            for c in whole..columns {
                *to.add(r * columns + c) = *row(r).wrapping_offset(c as isize * right);
            }
        }
    }
}

dispatch! {
    /// Copies `rows` by `columns` numbers, which lie `strides` apart downwards and to the right.
    ///
    /// # Safety
    /// All of these numbers, and room for them one after the other.
    fn copy_rows(rows: usize, columns: usize, from: *const f32, strides: [isize; 2], to: *mut f32) = copy_body
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{numbers, with_each_set};

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data_as::<f32>().iter::<f32>().collect()
    }

    /// Views of every kind are laid out as the tensor library does it, and sums are its sums.
    #[test]
    fn views_are_laid_out_and_sums_are_sums() {
        with_each_set(|set| {
            for [b, t, h, d] in [[1, 1, 1, 1], [2, 33, 4, 5], [1, 64, 8, 40], [3, 7, 2, 17]] {
                let data = TensorData::new(numbers(b * t * h * d, 1), [b, t, h, d]);
                let x = Tensor::<4>::from_data(data, &Device::flex());
                let views = [
                    x.clone().swap_dims(1, 2),
                    x.clone().swap_dims(2, 3),
                    x.clone().swap_dims(1, 3),
                    x.clone().swap_dims(0, 3).swap_dims(1, 2),
                    x.clone().narrow(1, t / 2, t - t / 2).swap_dims(1, 3),
                    x.clone().narrow(3, d / 2, d - d / 2),
                    x.clone().flip([1]),
                ];
                for (i, view) in views.into_iter().enumerate() {
                    let wanted = values(view.clone());
                    assert_eq!(
                        values(contiguous(view.clone())),
                        wanted,
                        "{set:?} {i} {:?}",
                        x.dims()
                    );
                    let sum = values(view.clone() + view.clone());
                    assert_eq!(values(add(view.clone(), view)), sum);
                }
            }
            let flat = Tensor::<1>::from_data(TensorData::new(numbers(7, 1), [7]), &Device::flex());
            assert_eq!(values(contiguous(flat.clone())), values(flat));
        });
    }
}
