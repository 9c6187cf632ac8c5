//! DPM-Solver++(2S) to a cleaner level than asked, then noise up to it.
//!
//! k-diffusion's `sample_dpmpp_2s_ancestral` (Crowson 2022), "DPM++ 2S a", after DPM-Solver++
//! ([arXiv:2211.01095](https://arxiv.org/abs/2211.01095), Algorithm 1).
//!
//! In `y = x / alpha` and `sigma_edm`, from `s` to `t`:
//!
//! ```text
//! up  = min(t, eta t sqrt(1 - t^2 / s^2))         down = sqrt(t^2 - up^2)          m = sqrt(s down)
//! y_m = m / s y + (1 - m / s) x0(y, s)
//! y_t = down / s y + (1 - down / s) x0(y_m, m) + up s_noise z
//! ```
//!
//! A step to clean data is the estimate; a step from pure noise is that of `euler-ancestral`.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpmpp-2s-ancestral",
    seam: Seam::Sampler,
    title: "k-diffusion",
    source: "Crowson, k-diffusion, 2022",
    year: 2022,
    what: "two-stage solver in the log-SNR below the level asked, then noise up to it",
    aliases: &["DPM++ 2S a", "dpmpp_2s_ancestral", "k_dpmpp_2s_a", "dpm++2s_a"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Dpmpp2sAncestral>()?.checked()?)),
    defaults: defaults_of::<Dpmpp2sAncestral>,
    known_failures: &[],
};

/// DPM-Solver++(2S) with ancestral noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpmpp2sAncestral {
    /// How much of the step's noise is drawn afresh; 0 is DPM-Solver++(2S). The default, 1, is
    /// k-diffusion's.
    pub eta: f64,
    /// The standard deviation of the fresh noise. The default, 1, is k-diffusion's.
    pub s_noise: f64,
}

impl Default for Dpmpp2sAncestral {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

impl Dpmpp2sAncestral {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        at_least_zero("dpmpp-2s-ancestral:eta", self.eta)?;
        at_least_zero("dpmpp-2s-ancestral:s_noise", self.s_noise)?;
        Ok(self)
    }
}

impl Sampler for Dpmpp2sAncestral {
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
        let ratio = (-step.h()).exp();
        let up = to.sigma * (self.eta * (1.0 - ratio * ratio).sqrt()).min(1.0);
        let down = (to.sigma * to.sigma - up * up).max(0.0).sqrt();
        let mean = if down == 0.0 || from.alpha == 0.0 {
            let eps = eps_of(&x, &x0, from);
            x0 * to.alpha + eps * down
        } else {
            let below = -(down / to.alpha).ln();
            let middle = step.process.at_lambda(0.5 * (from.lambda() + below));
            let kept = middle.sigma / from.sigma;
            let half = x.clone() * kept + x0 * (middle.alpha - kept * from.alpha);
            let x0 = eval.at(&half, middle)?;
            let kept = down / from.sigma;
            x * kept + x0 * (to.alpha - kept * from.alpha)
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
    use crate::sampler::testing::ends_at;

    #[test]
    fn the_ends_are_comfyuis() {
        // ComfyUI (October 2025), sample_dpmpp_2s_ancestral.
        ends_at(&mut Dpmpp2sAncestral::default(), 0.752_313_744_028_060);
        let mut still = Dpmpp2sAncestral { eta: 0.0, s_noise: 1.0 };
        ends_at(&mut still, 0.816_547_522_481_779);
        assert!(Dpmpp2sAncestral { eta: -1.0, s_noise: 1.0 }.checked().is_err());
    }
}
