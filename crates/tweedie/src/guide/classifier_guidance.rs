//! Classifier guidance: the score of a likelihood is added to that of the data.
//!
//! Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
//! [arXiv:2105.05233](https://arxiv.org/abs/2105.05233), section 4.2.
//!
//! ```text
//! x0' = x0 + scale (sigma^2 / alpha) grad_x r(x)        r read on the noisy state
//! x0' = x0 + scale (sigma^2 / alpha) grad_x r(x0(x))    r read on the estimate, through the network
//! ```
//!
//! which is `eps' = eps - scale sigma grad`. Bayes' gradient falls with `alpha` where the state is nearly
//! noise, a taught classifier's need not: below `alpha = floor` the factor is `sigma^2 alpha / floor^2`. A reward that reads noisy states costs no evaluation of the
//! network; one that reads estimates costs a backward one (Chung et al., "Diffusion Posterior Sampling
//! for General Noisy Inverse Problems", 2023, with the gradient as it is).

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::derivative;
use crate::error::{Error, Result};
use crate::guide::push::followed;
use crate::guide::{Entry, Guide, number};
use crate::level::{Level, Levels};
use crate::reward::gradient;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "classifier-guidance",
    seam: Seam::Guide,
    title: "Diffusion Models Beat GANs on Image Synthesis",
    source: "2105.05233",
    year: 2021,
    what: "along the gradient of a reward, of the state or through the network",
    aliases: &["cg"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<ClassifierGuidance>()?.checked()?)),
    defaults: defaults_of::<ClassifierGuidance>,
    known_failures: &[],
};

/// Classifier guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierGuidance {
    /// How strongly the reward counts. The default, 1, is Bayes' rule.
    pub scale: f64,
    /// The share of signal below which the gradient counts less and less. The default is 0.2; 0 is
    /// Bayes' rule at every level.
    pub floor: f64,
}

impl Default for ClassifierGuidance {
    fn default() -> Self {
        Self { scale: 1.0, floor: FLOOR }
    }
}

/// The share of signal below which the gradient of a taught classifier is not trusted.
pub(crate) const FLOOR: f64 = 0.2;

impl ClassifierGuidance {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        number("classifier-guidance:scale", self.scale)?;
        if (0.0..=1.0).contains(&self.floor) {
            return Ok(self);
        }
        let why = format!("{}, wanted 0 to 1", self.floor);
        Err(Error::setting("classifier-guidance:floor", why))
    }
}

/// What a score is multiplied by to move the estimate: `sigma^2 / alpha`, falling to nothing below a
/// share of signal.
pub(crate) fn reach(level: Level, floor: f64) -> f64 {
    let Level { alpha, sigma, .. } = level;
    if alpha == 0.0 { 0.0 } else { sigma * sigma * alpha / alpha.max(floor).powi(2) }
}

impl Guide for ClassifierGuidance {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let reward = followed("classifier-guidance", cond)?;
        let (x0, slope) = if reward.reads_noise() {
            let slope = gradient("classifier-guidance", reward, x, at)?;
            (model.x0(x, at, cond, pass)?, slope)
        } else {
            let clean = Levels::One(Level::CLEAN);
            derivative::gradient(model, x, at, cond, pass, |x0| reward.score(x0, &clean))?
        };
        Ok(x0 + slope.scaled(at, |l| reach(l, self.floor)) * self.scale)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_bayes_above_the_floor_and_falls_below() {
        let at = |alpha: f64| Level::new(0.5, alpha, (1.0 - alpha * alpha).sqrt());
        assert!((reach(at(0.6), 0.2) - 0.64 / 0.6).abs() < 1e-14);
        assert!((reach(at(0.1), 0.2) - 0.99 * 0.1 / 0.04).abs() < 1e-13);
        assert!((reach(at(0.1), 0.0) - 9.9).abs() < 1e-13);
        assert_eq!(reach(at(0.0), 0.2), 0.0);
    }
}
