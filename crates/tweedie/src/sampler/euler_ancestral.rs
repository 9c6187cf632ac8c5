//! Euler's method to a cleaner level than asked, then noise up to it.
//!
//! k-diffusion's `sample_euler_ancestral` (Crowson 2022), "Euler a".
//!
//! In `y = x / alpha`, `s = sigma / alpha`, for a step from `s` to `t`:
//!
//! ```text
//! s_up   = min(s_t, eta sqrt(s_t^2 (s^2 - s_t^2) / s^2))
//! s_down = sqrt(s_t^2 - s_up^2)
//! y_t    = x0 + s_down eps + s_up s_noise z
//! ```
//!
//! With `s_noise = 1` this is DDIM with the same `eta`, and with `eta = 1` DDPM's ancestral step:
//! three fields found it thrice. Multiplied by `alpha_t` it needs no division by `alpha` and holds
//! from pure noise to clean data. ComfyUI's variant for flow models, which draws another amount of
//! noise, is not this.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::{
    Claims, Entry, Estimate, Eval, Gaussian, Moments, Sampler, Step, at_least_zero,
};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "euler-ancestral",
    seam: Seam::Sampler,
    title: "k-diffusion",
    source: "Crowson, k-diffusion, 2022",
    year: 2022,
    what: "Euler's method below the level asked, then noise up to it",
    aliases: &[
        "Euler a",
        "euler_ancestral",
        "euler_a",
        "k_euler_a",
        "EulerAncestralDiscreteScheduler",
    ],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<EulerAncestral>()?.checked()?)),
    defaults: defaults_of::<EulerAncestral>,
    known_failures: &[],
};

/// Euler's method with ancestral noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EulerAncestral {
    /// How much of the step's noise is drawn afresh; 0 is Euler's method. The default, 1, is
    /// k-diffusion's.
    pub eta: f64,
    /// The standard deviation of the fresh noise. The default, 1, is k-diffusion's.
    pub s_noise: f64,
}

impl Default for EulerAncestral {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl EulerAncestral {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        at_least_zero("euler-ancestral:eta", self.eta)?;
        at_least_zero("euler-ancestral:s_noise", self.s_noise)?;
        Ok(self)
    }
}

impl Sampler for EulerAncestral {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: self.eta > 0.0 && self.s_noise > 0.0 }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        self.moments(eval, &x, step)?.drawn(step.from, noise)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn gaussian(&mut self) -> Option<&mut dyn Gaussian> {
        Some(self)
    }
}

impl Gaussian for EulerAncestral {
    fn moments(&mut self, eval: &mut dyn Eval, x: &State, step: &Step<'_>) -> Result<Moments> {
        let (from, to) = (step.from, step.to);
        let Estimate { x0, apart, .. } = eval.estimate(x, from)?;
        let eps = eps_of(x, apart.as_ref().unwrap_or(&x0), from);
        let ratio = (-step.h()).exp();
        let up = to.sigma * (self.eta * (1.0 - ratio * ratio).sqrt()).min(1.0);
        let down = (to.sigma * to.sigma - up * up).max(0.0).sqrt();
        Ok(Moments { mean: x0 * to.alpha + eps * down, std: up * self.s_noise, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::sampler::testing::step;

    #[test]
    fn from_two_to_one_it_goes_down_to_a_half() {
        // sigma_up = sqrt(1 (4 - 1) / 4), sigma_down = sqrt(1 - 3/4).
        let (s, t) = (Level::new(0.2, 1.0, 2.0), Level::new(0.1, 1.0, 1.0));
        let eps = (0.3 - 0.9) / 2.0;
        let found = step(&mut EulerAncestral::default(), (s, t), (0, 9), (0.3, 0.9), 1.0);
        assert!((found - (0.9 + 0.5 * eps + 0.75_f64.sqrt())).abs() < 1e-15);
        // More than all of the noise cannot be drawn afresh.
        let mut wild = EulerAncestral { eta: 9.0, s_noise: 1.0 };
        let found = step(&mut wild, (s, t), (0, 9), (0.3, 0.9), 1.0);
        assert!((found - 1.9).abs() < 1e-15);
    }
}
