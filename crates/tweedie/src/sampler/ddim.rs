//! DDIM: a first-order step along the estimate's direction, with as much fresh noise as wanted.
//!
//! Song, Meng and Ermon, "Denoising Diffusion Implicit Models", 2021,
//! [arXiv:2010.02502](https://arxiv.org/abs/2010.02502), equations 12 and 16 (their `alpha` is our
//! `alpha^2`).
//!
//! With `c = alpha_s sigma_t / (alpha_t sigma_s) = exp(-h)` for a step from `s` to `t`:
//!
//! ```text
//! std = eta sigma_t sqrt(1 - c^2)
//! x_t = alpha_t x0 + sqrt(sigma_t^2 - std^2) eps + std z
//! ```
//!
//! On a variance-preserving path `std` is the paper's; written by `c` it holds on every path. With
//! `eta = 0` it is Euler's method in `x / alpha`, with `eta = 1` DDPM's ancestral step.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::stride::landing;
use crate::sampler::{Claims, Entry, Estimate, Eval, Gaussian, Invert, Moments, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "ddim",
    seam: Seam::Sampler,
    title: "Denoising Diffusion Implicit Models",
    source: "2010.02502",
    year: 2021,
    what: "first-order step with as much fresh noise as wanted",
    aliases: &["DDIMScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Ddim>()?.checked()?)),
    defaults: defaults_of::<Ddim>,
    known_failures: &[],
};

/// DDIM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ddim {
    /// How much noise a step adds, from 0, deterministic, to 1, DDPM's. The default, 0, is the
    /// paper's.
    pub eta: f64,
    /// Whether a step goes an even stride of the table down, whatever the grid's next level is, as
    /// in diffusers. The default is no.
    pub even: bool,
}

impl Ddim {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        if (0.0..=1.0).contains(&self.eta) {
            return Ok(self);
        }
        Err(Error::setting("ddim:eta", format!("{}, wanted 0 to 1", self.eta)))
    }
}

impl Sampler for Ddim {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: self.eta > 0.0 }
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

    fn invertible(&mut self) -> Option<&mut dyn Invert> {
        if self.eta == 0.0 { Some(self) } else { None }
    }

    fn gaussian(&mut self) -> Option<&mut dyn Gaussian> {
        Some(self)
    }
}

impl Gaussian for Ddim {
    fn moments(&mut self, eval: &mut dyn Eval, x: &State, step: &Step<'_>) -> Result<Moments> {
        let (from, to) = (step.from, landing(step, self.even));
        let Estimate { x0, before, apart } = eval.estimate(x, from)?;
        let c = (from.lambda() - to.lambda()).exp();
        let std = self.eta * to.sigma * (1.0 - c * c).sqrt();
        let eps = eps_of(x, &apart.unwrap_or(before), from);
        let mean = x0 * to.alpha + eps * (to.sigma * to.sigma - std * std).max(0.0).sqrt();
        Ok(Moments { mean, std, to })
    }
}

/// DDIM inversion: the step's noise is asked for where the step would land, told the level that it
/// came from, and taken for that of the unknown start. What is wrong with it is of the order of the
/// step; [`crate::sampler::coupled`] has steps that are undone exactly.
impl Invert for Ddim {
    fn unstep(&mut self, eval: &mut dyn Eval, x: State, step: &Step<'_>) -> Result<State> {
        let (from, to) = (step.from, landing(step, self.even));
        if to.alpha == 0.0 {
            return Err(Error::unsupported("ddim", "a state that holds some signal"));
        }
        let Estimate { before, apart, .. } = eval.estimate(&x, from)?;
        let eps = eps_of(&x, &apart.unwrap_or(before), from);
        let x0 = (x - eps.clone() * to.sigma) * (1.0 / to.alpha);
        Ok(x0 * from.alpha + eps * from.sigma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::sampler::testing::step;

    #[test]
    fn the_papers_deviation_on_a_variance_preserving_path() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let (bar, prev) = (s.alpha_bar(), t.alpha_bar());
        let std = ((1.0 - prev) / (1.0 - bar)).sqrt() * (1.0 - bar / prev).sqrt();
        let mut half = Ddim { eta: 0.5, even: false };
        let with = step(&mut half, (s, t), (0, 9), (0.3, 0.9), 1.0);
        let without = step(&mut half, (s, t), (0, 9), (0.3, 0.9), 0.0);
        assert!((with - without - 0.5 * std).abs() < 1e-14);
    }

    #[test]
    fn the_ends_are_the_estimate_and_the_noise() {
        let dark = Level::new(1.0, 0.0, 1.0);
        let t = Level::vp(0.4, 0.7);
        let mut ddim = Ddim { eta: 1.0, even: false };
        assert_eq!(step(&mut ddim, (t, Level::CLEAN), (8, 9), (0.3, 0.9), 5.0), 0.9);
        let fresh = step(&mut ddim, (dark, t), (0, 9), (0.3, 0.9), 2.0);
        assert!((fresh - (t.alpha * 0.9 + t.sigma * 2.0)).abs() < 1e-15);
        for eta in [1.5, f64::NAN] {
            assert!(Ddim { eta, even: false }.checked().is_err());
        }
    }
}
