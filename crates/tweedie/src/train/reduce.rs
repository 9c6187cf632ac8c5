//! Gradients of several workers into one.

use burn::tensor::Tensor;

use crate::error::Result;

/// Brings the gradients of all workers together, before they are clipped and applied.
///
/// One process has nothing to do ([`Alone`]); a backend with collectives averages over its devices
/// here. The order of the gradients is that of the parameters' paths.
pub trait Reduce: Send {
    /// The mean of the workers' gradients.
    ///
    /// # Errors
    ///
    /// What the connection says.
    fn reduce(&mut self, gradients: Vec<Option<Tensor<1>>>) -> Result<Vec<Option<Tensor<1>>>>;
}

/// One process: the gradients are what they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Reduce for Alone {
    fn reduce(&mut self, gradients: Vec<Option<Tensor<1>>>) -> Result<Vec<Option<Tensor<1>>>> {
        Ok(gradients)
    }
}
