//! Exact worlds: data whose score, denoiser, density and posterior are known in closed form.
//!
//! They are denoisers like any network, built of tensor operations: differentiable, in f32 and f64,
//! with a level a row. Methods are held against them.

pub mod empirical;
pub mod gaussian;
pub mod gaussian_mixture;

pub use empirical::Empirical;
pub use gaussian::Gaussian;
pub use gaussian_mixture::GaussianMixture;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::denoiser::Cond;
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::prediction::free_of_anchor;
use crate::state::State;

/// The state as `[batch, dim]`, without the second endpoint's share.
fn rows(x: &State, at: &Levels, cond: &Cond, dim: usize) -> Result<Tensor<2>> {
    if !matches!(at, Levels::One(_) | Levels::Rows(_)) {
        return Err(Error::unsupported("oracle", "one level a row"));
    }
    let x = free_of_anchor(x, cond.endpoint.as_ref(), at).rows_tensor()?;
    let [batch, found] = x.dims();
    if found != dim {
        return Err(Error::Shape {
            what: "state of an oracle".into(),
            wanted: vec![batch, dim],
            found: vec![batch, found],
        });
    }
    Ok(x)
}

/// A coefficient of each row's level, `[batch, 1, 1]`.
fn coefficient(at: &Levels, like: &Tensor<2>, f: impl Fn(Level) -> f64) -> Tensor<3> {
    let batch = like.dims()[0];
    let data: Vec<f64> = (0..batch).map(|row| f(at.row(row))).collect();
    constant(data, [batch, 1, 1], like)
}

/// Host numbers in the type and on the device of a tensor.
fn constant<const D: usize>(data: Vec<f64>, shape: [usize; D], like: &Tensor<2>) -> Tensor<D> {
    let options: (&Device, DType) = (&like.device(), like.dtype());
    Tensor::from_data(TensorData::new(data, shape), options)
}

/// The estimate in the layout of the state.
fn like(x: &State, x0: &Tensor<2>) -> State {
    x.map(|_| x0.clone())
}
