//! Strategic stochastic sampling of trajectory consistency distillation.
//!
//! Zheng et al., "Trajectory Consistency Distillation: Improved Latent Consistency Distillation by
//! Semi-Linear Consistency Function with Trajectory Mapping", 2024,
//! [arXiv:2402.19159](https://arxiv.org/abs/2402.19159), Algorithm 4.
//!
//! ```text
//! x_s = alpha_s x0 + sigma_s eps                    the level at (1 - eta) of the next one's time
//! x_t = alpha_t / alpha_s x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) z
//! ```
//!
//! With `eta = 0` it is DDIM; with an exact denoiser and another `eta` it does not converge.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "tcd",
    seam: Seam::Sampler,
    title: "Trajectory Consistency Distillation: Improved Latent Consistency Distillation by Semi-Linear Consistency Function with Trajectory Mapping",
    source: "2402.19159",
    year: 2024,
    what: "a step below the next level, then noise up to it",
    aliases: &["TCDScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Tcd>()?.checked()?)),
    defaults: defaults_of::<Tcd>,
    known_failures: &[(
        "goodness of fit",
        "a method for distilled networks; an exact denoiser is none",
    )],
};

/// Strategic stochastic sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tcd {
    /// How far below the next level a step goes, `gamma` in the paper, from 0 to 1. The default,
    /// 0.3, is the paper's.
    pub eta: f64,
}

impl Default for Tcd {
    fn default() -> Self {
        Self { eta: 0.3 }
    }
}

impl Tcd {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        if (0.0..=1.0).contains(&self.eta) {
            return Ok(self);
        }
        Err(Error::setting("tcd:eta", format!("{}, wanted 0 to 1", self.eta)))
    }
}

impl Sampler for Tcd {
    fn claims(&self) -> Claims {
        let stochastic = self.eta > 0.0;
        Claims { order: u8::from(!stochastic), nfe: 1, first: 0, stochastic }
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
        if to.sigma == 0.0 || self.eta == 0.0 {
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        let below = match step.process.table_steps() {
            Some(n) => {
                let n = n as f64;
                // Whole steps; what is whole but for the last bits stays.
                ((1.0 - self.eta) * (to.t * n).round() + 1e-9).floor() / n
            }
            None => (1.0 - self.eta) * to.t,
        };
        let below = step.process.at(below);
        let reached = x0 * below.alpha + eps * below.sigma;
        let ratio = to.alpha / below.alpha;
        let std = (to.sigma * to.sigma - (ratio * below.sigma).powi(2)).max(0.0).sqrt();
        let mean = reached * ratio;
        if std == 0.0 {
            return Ok(mean);
        }
        Ok(mean.clone() + noise.draw(&mean)? * std)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::process::{Process as _, VpLinear};
    use crate::sampler::testing::step;

    #[test]
    fn the_end_has_the_levels_noise() {
        // With a known clean sample the state at the end is alpha x0 plus noise of variance sigma^2.
        let path = VpLinear::default();
        let (s, t) = (path.at(0.8), path.at(0.5));
        let mut tcd = Tcd::default();
        let zero = step(&mut tcd, (s, t), (0, 9), (s.alpha * 0.9, 0.9), 0.0);
        assert!((zero - t.alpha * 0.9).abs() < 1e-12);
        let old = step(&mut tcd, (s, t), (0, 9), (s.alpha * 0.9 + s.sigma, 0.9), 0.0) - zero;
        let new = step(&mut tcd, (s, t), (0, 9), (s.alpha * 0.9, 0.9), 1.0) - zero;
        assert!((old.hypot(new) - t.sigma).abs() < 1e-12);
        assert_eq!(step(&mut tcd, (t, Level::CLEAN), (8, 9), (0.3, 0.9), 5.0), 0.9);
    }
}
