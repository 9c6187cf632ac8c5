//! Euler's method in EDM's coordinates.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
//! [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), Algorithm 1 without the correction, and
//! Algorithm 2's churn.
//!
//! With `y = x / alpha` and `s = sigma / alpha`:
//!
//! ```text
//! y_t = y + (s_t - s) (y - x0) / s            that is  x_t = alpha_t x0 + sigma_t eps
//! ```
//!
//! In exact arithmetic this is DDIM with `eta = 0`, on every path; on a flow it is the plain Euler
//! step along the velocity. The second form is the one computed: it holds from pure noise
//! (`alpha = 0`) to clean data. Churn (`s_churn`) raises the level before the step, and the network is
//! asked at the raised level (see `heun`); diffusers' Euler class asks it before.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::heun::Churn;
use crate::sampler::{Claims, Entry, Estimate, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "euler",
    seam: Seam::Sampler,
    title: "Elucidating the Design Space of Diffusion-Based Generative Models",
    source: "2206.00364",
    year: 2022,
    what: "Euler's method in x / alpha",
    aliases: &["k_euler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"],
    ledger: "",
    parts: &[&crate::sampler::heun::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Euler>()?.checked()?)),
    defaults: defaults_of::<Euler>,
    known_failures: &[],
};

/// Euler's method in EDM's coordinates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Euler {
    /// Churn over the whole run, `S_churn`. The default, 0, is deterministic.
    pub s_churn: f64,
    /// The lowest `sigma_edm` that is churned, `S_tmin`. The default is 0.
    pub s_tmin: f64,
    /// The highest `sigma_edm` that is churned, `S_tmax`; none by default.
    pub s_tmax: Option<f64>,
    /// The standard deviation of the churn's noise, `S_noise`. The default is 1.
    pub s_noise: f64,
}

impl Default for Euler {
    fn default() -> Self {
        Self { s_churn: 0.0, s_tmin: 0.0, s_tmax: None, s_noise: 1.0 }
    }
}

impl Euler {
    fn churn(&self) -> Churn {
        Churn {
            s_churn: self.s_churn,
            s_tmin: self.s_tmin,
            s_tmax: self.s_tmax,
            s_noise: self.s_noise,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        self.churn().check("euler")?;
        Ok(self)
    }
}

impl Sampler for Euler {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: self.s_churn > 0.0 }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (x, from) = self.churn().apply(x, step, noise)?;
        let Estimate { x0, apart, .. } = eval.estimate(&x, from)?;
        let eps = eps_of(&x, apart.as_ref().unwrap_or(&x0), from);
        Ok(x0 * step.to.alpha + eps * step.to.sigma)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::sampler::testing::step;

    #[test]
    fn on_a_flow_it_is_a_step_along_the_velocity() {
        let (s, t) = (Level::new(0.8, 0.2, 0.8), Level::new(0.5, 0.5, 0.5));
        let velocity = (0.3 - 0.9) / 0.8;
        let found = step(&mut Euler::default(), (s, t), (0, 9), (0.3, 0.9), 0.0);
        assert!((found - (0.3 - 0.3 * velocity)).abs() < 1e-15);
    }

    #[test]
    fn bad_churn_is_refused() {
        for bad in [
            Euler { s_churn: -1.0, ..Euler::default() },
            Euler { s_noise: f64::INFINITY, ..Euler::default() },
            Euler { s_tmax: Some(f64::NAN), ..Euler::default() },
        ] {
            assert!(bad.checked().is_err());
        }
    }
}
