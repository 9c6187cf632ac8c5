//! What follows a linear layer in the same pass over its outputs.

use burn::tensor::Tensor;

use crate::activation::Activation;
use crate::{gated, ops};

/// What follows a linear layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing.
    #[default]
    Plain,
    /// The activation of each output.
    Activated(Activation),
    /// The first half of the outputs times the activation of the second (Shazeer, "GLU Variants Improve
    /// Transformer", 2020): GEGLU, SwiGLU.
    Gated(Activation),
}

impl Epilogue {
    /// How many numbers are left of `n` outputs.
    pub(crate) fn outputs(self, n: usize) -> usize {
        if matches!(self, Self::Gated(_)) { n / 2 } else { n }
    }

    /// The same, in a pass of its own.
    ///
    /// # Panics
    /// When the outputs to be gated have no two halves.
    pub fn of(self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Plain => x,
            Self::Activated(f) => ops::activate(x, f),
            Self::Gated(f) => gated::gated(x, f),
        }
    }
}
