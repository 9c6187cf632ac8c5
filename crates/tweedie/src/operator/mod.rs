//! Operators: a measurement `y = A(x)`, with what is known of it.
//!
//! Knows nothing of diffusion. What an operator can do beyond measuring is an answer, not a type:
//! a solver that needs the adjoint or the singular values asks for them and says
//! [`crate::Error::Unsupported`] where there are none.

use std::fmt::Debug;

pub mod downsample;
pub mod grey;
pub mod mask;

pub use downsample::Downsample;
pub use grey::Grey;
pub use mask::Mask;

use crate::error::Result;
use crate::state::State;

/// A measurement, `y = A(x)`.
pub trait Operator: Debug + Send + Sync {
    /// `A(x)`, row by row; differentiable where `x` is tracked.
    ///
    /// # Errors
    ///
    /// Where `x` does not fit.
    fn apply(&self, x: &State) -> Result<State>;

    /// The linear structure, where there is one.
    fn linear(&self) -> Option<&dyn Linear> {
        None
    }

    /// The singular values, where they are known.
    fn spectral(&self) -> Option<&dyn Spectral> {
        None
    }
}

/// What a linear operator can do beyond measuring.
pub trait Linear {
    /// `A^T y`.
    ///
    /// # Errors
    ///
    /// Where `y` does not fit.
    fn adjoint(&self, y: &State) -> Result<State>;

    /// `A^+ y`: of all states that measure as near to `y` as can be, the shortest.
    ///
    /// # Errors
    ///
    /// Where `y` does not fit.
    fn pseudo_inverse(&self, y: &State) -> Result<State>;
}

/// An operator whose singular value decomposition `A = U S V^T` is cheap to apply.
///
/// Coordinates are plain rows `[batch, features]`: the first `singular_values().len()` of a state's
/// coordinates are the measured ones.
pub trait Spectral {
    /// The singular values, largest first; zeros belong to directions that are not seen.
    fn singular_values(&self) -> &[f64];

    /// `V^T x`.
    ///
    /// # Errors
    ///
    /// Where `x` does not fit.
    fn coordinates(&self, x: &State) -> Result<State>;

    /// `V c`: the inverse of [`Spectral::coordinates`].
    ///
    /// # Errors
    ///
    /// Where `c` does not fit.
    fn state(&self, c: &State) -> Result<State>;

    /// `U^T y`.
    ///
    /// # Errors
    ///
    /// Where `y` does not fit.
    fn measured(&self, y: &State) -> Result<State>;
}
