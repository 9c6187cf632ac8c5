//! A step as a mean and a standard deviation.

use crate::error::Result;
use crate::level::Level;
use crate::noise::Noise;
use crate::sampler::{Eval, Step};
use crate::state::State;

/// A step before its noise is drawn: `x_to = mean + std z`.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The mean.
    pub mean: State,
    /// The standard deviation, the same for every number; 0 is a step that draws nothing.
    pub std: f64,
    /// The level that is landed on.
    pub to: Level,
}

impl Moments {
    /// The step with its draw.
    ///
    /// # Errors
    ///
    /// What the source of noise says.
    pub fn drawn(self, from: Level, noise: &mut dyn Noise) -> Result<State> {
        if self.std == 0.0 {
            return Ok(self.mean);
        }
        let z = noise.over(&self.mean, from.sigma_edm(), self.to.sigma_edm())?;
        Ok(self.mean + z * self.std)
    }
}

/// A sampler whose step is one Gaussian draw. Who knows where a step went can solve for its noise:
/// `z = (x_to - mean) / std`.
pub trait Gaussian {
    /// Mean and standard deviation of the step from `x`.
    ///
    /// # Errors
    ///
    /// What the evaluation says.
    fn moments(&mut self, eval: &mut dyn Eval, x: &State, step: &Step<'_>) -> Result<Moments>;
}
