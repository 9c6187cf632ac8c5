//! DDPM's ancestral step: a draw from the posterior of the less noisy state.
//!
//! Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020,
//! [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), equations 6, 7 and 11.
//!
//! With `c = alpha_s sigma_t / (alpha_t sigma_s) = exp(-h)` for a step from `s` to `t`:
//!
//! ```text
//! mean = alpha_t (1 - c^2) x0 + c sigma_t / sigma_s x
//! x_t  = mean + std z
//! std  = sigma_t sqrt(1 - c^2)      variance=small, the posterior's
//! std  = sigma_s sqrt(1 - c^2)      variance=large, the forward step's
//! ```
//!
//! The small variance is right for data at a point, the large one for data of unit variance
//! (section 3.2 there). A step to clean data adds no noise unless `noisy_end` says so.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::noise::Noise;
use crate::sampler::{Claims, Entry, Eval, Gaussian, Moments, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "ddpm",
    seam: Seam::Sampler,
    title: "Denoising Diffusion Probabilistic Models",
    source: "2006.11239",
    year: 2020,
    what: "ancestral step, a draw from the posterior",
    aliases: &["DDPMScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Ddpm>()?)),
    defaults: defaults_of::<Ddpm>,
    known_failures: &[],
};

/// The variance of the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variance {
    /// That of the posterior given the clean sample, `fixed_small` in diffusers.
    #[default]
    Small,
    /// That of the forward step, `fixed_large` in diffusers.
    Large,
}

/// DDPM's ancestral step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ddpm {
    /// The variance of the step. The paper finds both alike; the default is the small one.
    pub variance: Variance,
    /// Whether the step to clean data draws noise too, as diffusers' class does with the large
    /// variance where its steps are offset. The default is no.
    pub noisy_end: bool,
}

impl Sampler for Ddpm {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: true }
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

impl Gaussian for Ddpm {
    fn moments(&mut self, eval: &mut dyn Eval, x: &State, step: &Step<'_>) -> Result<Moments> {
        let (from, to) = (step.from, step.to);
        let x0 = eval.at(x, from)?;
        let c = (-step.h()).exp();
        let share = 1.0 - c * c;
        let mean = x0 * (to.alpha * share) + x.clone() * (c * to.sigma / from.sigma);
        let noisy = self.noisy_end && from.t > 0.0 && self.variance == Variance::Large;
        if to.sigma == 0.0 && !noisy {
            return Ok(Moments { mean, std: 0.0, to });
        }
        let std = share.sqrt()
            * match self.variance {
                Variance::Small => to.sigma,
                Variance::Large => from.sigma,
            };
        Ok(Moments { mean, std, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::sampler::testing::step;

    #[test]
    fn equation_7_of_the_paper() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let (bar, prev) = (s.alpha_bar(), t.alpha_bar());
        let (a, b) = (bar / prev, 1.0 - bar / prev);
        let mean =
            prev.sqrt() * b / (1.0 - bar) * 0.9 + a.sqrt() * (1.0 - prev) / (1.0 - bar) * 0.3;
        for (variance, wanted) in
            [(Variance::Small, (1.0 - prev) / (1.0 - bar) * b), (Variance::Large, b)]
        {
            let mut ddpm = Ddpm { variance, ..Ddpm::default() };
            let found = step(&mut ddpm, (s, t), (0, 9), (0.3, 0.9), 1.5);
            assert!((found - (mean + wanted.sqrt() * 1.5)).abs() < 1e-14, "{variance:?}");
        }
    }

    #[test]
    fn the_last_step_is_the_estimate() {
        let t = Level::vp(0.4, 0.7);
        for variance in [Variance::Small, Variance::Large] {
            let mut ddpm = Ddpm { variance, ..Ddpm::default() };
            assert_eq!(step(&mut ddpm, (t, Level::CLEAN), (8, 9), (0.3, 0.9), 5.0), 0.9);
        }
    }
}
