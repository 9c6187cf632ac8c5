//! The midpoint method to a cleaner level than asked, then noise up to it.
//!
//! k-diffusion's `sample_dpm_2_ancestral` (Crowson 2022), "DPM2 a".
//!
//! ```text
//! up = min(t, eta t sqrt(1 - t^2 / s^2))          down = sqrt(t^2 - up^2)
//! y_t = y + (down - s) d(y_m, m) + up s_noise z          m = sqrt(s down)
//! ```
//!
//! in `y = x / alpha` and `sigma_edm`, with the slope `d` of `dpm2`. A step to clean data, or from
//! pure noise, is that of `euler-ancestral`.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::dpm2::slope_between;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpm2-ancestral",
    seam: Seam::Sampler,
    title: "k-diffusion",
    source: "Crowson, k-diffusion, 2022",
    year: 2022,
    what: "midpoint method below the level asked, then noise up to it",
    aliases: &["DPM2 a", "dpm_2_ancestral", "k_dpm_2_a", "KDPM2AncestralDiscreteScheduler"],
    ledger: "",
    parts: &[&crate::sampler::dpm2::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Dpm2Ancestral>()?.checked()?)),
    defaults: defaults_of::<Dpm2Ancestral>,
    known_failures: &[],
};

/// The midpoint method with ancestral noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpm2Ancestral {
    /// How much of the step's noise is drawn afresh. The default, 1, is k-diffusion's.
    pub eta: f64,
    /// The standard deviation of the fresh noise. The default, 1, is k-diffusion's.
    pub s_noise: f64,
}

impl Default for Dpm2Ancestral {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl Dpm2Ancestral {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        at_least_zero("dpm2-ancestral:eta", self.eta)?;
        at_least_zero("dpm2-ancestral:s_noise", self.s_noise)?;
        Ok(self)
    }
}

impl Sampler for Dpm2Ancestral {
    fn claims(&self) -> Claims {
        let stochastic = self.eta * self.s_noise > 0.0;
        Claims { order: 2, nfe: 2, first: 0, stochastic }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let x0 = eval.at(&x, from)?;
        let eps = eps_of(&x, &x0, from);
        let ratio = (-step.h()).exp();
        let up = to.sigma * (self.eta * (1.0 - ratio * ratio).sqrt()).min(1.0);
        let down = (to.sigma * to.sigma - up * up).max(0.0).sqrt();
        let mean = if down == 0.0 || from.alpha == 0.0 {
            x0 * to.alpha + eps * down
        } else {
            let below = down / to.alpha;
            let slope = slope_between(eval, step.process, (&x0, &eps), from, below)?;
            let stride = below - from.sigma_edm();
            x * (to.alpha / from.alpha) + slope * (stride * to.alpha)
        };
        if up * self.s_noise == 0.0 {
            return Ok(mean);
        }
        Ok(mean.clone()
            + noise.over(&mean, from.sigma_edm(), to.sigma_edm())? * (up * self.s_noise))
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Process as _, VpLinear};
    use crate::sampler::testing::step;

    #[test]
    fn with_a_constant_estimate_it_is_euler_ancestral() {
        let path = VpLinear::default();
        let (s, t) = (path.at_lambda(-0.5), path.at_lambda(0.9));
        let found = step(&mut Dpm2Ancestral::default(), (s, t), (0, 9), (0.3, 0.9), 0.7);
        let mut euler = crate::sampler::EulerAncestral::default();
        assert!((found - step(&mut euler, (s, t), (0, 9), (0.3, 0.9), 0.7)).abs() < 1e-9);
    }
}
