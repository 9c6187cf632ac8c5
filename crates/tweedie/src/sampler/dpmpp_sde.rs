//! DPM-Solver++ of the diffusion SDE in two stages.
//!
//! k-diffusion's `sample_dpmpp_sde` (Crowson 2022), "DPM++ SDE", after DPM-Solver++
//! ([arXiv:2211.01095](https://arxiv.org/abs/2211.01095)).
//!
//! In `y = x / alpha` and `sigma_edm`, from `s` to `t` with `m = sqrt(s t)`:
//!
//! ```text
//! y_m = down_m / s y + (1 - down_m / s) x0(y, s)   + up_m s_noise z_1
//! y_t = down_t / s y + (1 - down_t / s) x0(y_m, m) + up_t s_noise z_2
//! up_v = min(v, eta v sqrt(1 - v^2 / s^2)), down_v = sqrt(v^2 - up_v^2)
//! ```
//!
//! The noises are increments of one Brownian motion in `sigma_edm`, over `(m, s)` and `(t, s)`:
//!
//! ```text
//! z_2 = (sqrt(s - m) z_1 + sqrt(m - t) z') / sqrt(s - t)
//! ```
//!
//! which is the law of the tree that k-diffusion asks at these two intervals; its numbers are the
//! tree's own. Noise that is a Brownian path of its own is asked over the two halves. A step to clean data is the estimate. From pure noise the second stage is left out.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::level::Level;
use crate::noise::Noise;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpmpp-sde",
    seam: Seam::Sampler,
    title: "k-diffusion",
    source: "Crowson, k-diffusion, 2022",
    year: 2022,
    what: "two-stage solver of the diffusion SDE",
    aliases: &["DPM++ SDE", "dpmpp_sde", "dpmpp_sde_gpu", "k_dpmpp_sde", "DPMSolverSDEScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<DpmppSde>()?.checked()?)),
    defaults: defaults_of::<DpmppSde>,
    known_failures: &[],
};

/// The two-stage solver of the diffusion SDE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpmppSde {
    /// How much of a stage's noise is drawn afresh. The default, 1, is k-diffusion's.
    pub eta: f64,
    /// The standard deviation of the fresh noise. The default, 1, is k-diffusion's.
    pub s_noise: f64,
}

impl Default for DpmppSde {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl DpmppSde {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        at_least_zero("dpmpp-sde:eta", self.eta)?;
        at_least_zero("dpmpp-sde:s_noise", self.s_noise)?;
        Ok(self)
    }

    /// `(down, up)` at `to`, in its own scale.
    fn split(&self, from: Level, to: Level) -> (f64, f64) {
        let ratio = (from.lambda() - to.lambda()).exp();
        let up = to.sigma * (self.eta * (1.0 - ratio * ratio).sqrt()).min(1.0);
        ((to.sigma * to.sigma - up * up).max(0.0).sqrt(), up)
    }

    /// The stage from `x` at `from` to `to`, without its noise.
    fn stage(&self, x: &State, x0: State, from: Level, to: Level) -> State {
        let kept = self.split(from, to).0 / from.sigma;
        x.clone() * kept + x0 * (to.alpha - kept * from.alpha)
    }
}

impl Sampler for DpmppSde {
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
        if to.sigma == 0.0 {
            return Ok(x0 * to.alpha);
        }
        let up = self.split(from, to).1 * self.s_noise;
        if from.alpha == 0.0 {
            let next = self.stage(&x, x0, from, to);
            if up == 0.0 {
                return Ok(next);
            }
            let fresh = noise.over(&next, from.sigma_edm(), to.sigma_edm())?;
            return Ok(next + fresh * up);
        }
        let middle = step.process.at_lambda(0.5 * (from.lambda() + to.lambda()));
        let mut half = self.stage(&x, x0, from, middle);
        let up_half = self.split(from, middle).1 * self.s_noise;
        let (s, m, t) = (from.sigma_edm(), middle.sigma_edm(), to.sigma_edm());
        let fresh = if up == 0.0 {
            None
        } else {
            Some((noise.over(&half, s, m)?, noise.over(&half, m, t)?))
        };
        if let Some((z, _)) = &fresh {
            half = half + z.clone() * up_half;
        }
        let x0 = eval.at(&half, middle)?;
        let next = self.stage(&x, x0, from, to);
        let Some((z, rest)) = fresh else { return Ok(next) };
        let whole = (s - t).sqrt();
        let z = z * ((s - m).max(0.0).sqrt() / whole) + rest * ((m - t).max(0.0).sqrt() / whole);
        Ok(next + z * up)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::step;

    #[test]
    fn clean_data_is_the_estimate_and_without_noise_the_line_is_kept() {
        let t = Level::vp(0.4, 0.7);
        let mut solver = DpmppSde::default();
        assert_eq!(step(&mut solver, (t, Level::CLEAN), (8, 9), (0.3, 0.9), 5.0), 0.9);
        let mut still = DpmppSde { eta: 0.0, s_noise: 1.0 };
        let s = Level::vp(0.6, -0.4);
        let found = step(&mut still, (s, t), (0, 9), (0.3, 0.9), 5.0);
        let wanted = t.alpha * 0.9 + t.sigma * (0.3 - s.alpha * 0.9) / s.sigma;
        assert!((found - wanted).abs() < 1e-9);
        assert!(DpmppSde { eta: -1.0, s_noise: 1.0 }.checked().is_err());
    }
}
