//! Euler's method along a noise that is extrapolated from the last step's.
//!
//! Permenter and Yuan, "Interpreting and Improving Diffusion Models from an Optimization
//! Perspective", 2024, [arXiv:2306.04848](https://arxiv.org/abs/2306.04848), Algorithm 2.
//!
//! ```text
//! e'  = gamma e + (1 - gamma) e_last
//! x_t = alpha_t (x / alpha + (sigma_t / alpha_t - sigma / alpha) e')
//! ```
//!
//! The paper reads the noise as an estimate of the gradient of the distance to the data, of which the
//! combination is a better one. With `gamma = 3/2` it is `ipndm:order=2`; the order of other weights
//! is 1. A step to clean data is the estimate.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::multistep::History;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "gradient-estimation",
    seam: Seam::Sampler,
    title: "Interpreting and Improving Diffusion Models from an Optimization Perspective",
    source: "2306.04848",
    year: 2024,
    what: "Euler's method along a noise extrapolated from the last step's",
    aliases: &["gradient_estimation"],
    ledger: "",
    parts: &[&crate::sampler::euler::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(GradientEstimation::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of gradient estimation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The weight of the newest noise; 1 is Euler's method. The default, 2, is the paper's.
    pub gamma: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { gamma: 2.0 }
    }
}

/// Gradient estimation.
#[derive(Clone, Debug)]
pub struct GradientEstimation {
    settings: Settings,
    /// Noises.
    past: History,
}

impl GradientEstimation {
    /// A sampler.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        at_least_zero("gradient-estimation:gamma", settings.gamma)?;
        Ok(Self { settings, past: History::default() })
    }
}

impl Sampler for GradientEstimation {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.past.clear();
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let x0 = eval.at(&x, from)?;
        let eps = eps_of(&x, &x0, from);
        if to.sigma == 0.0 || from.alpha == 0.0 {
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        self.past.push(from, eps, 2);
        let stride = (to.sigma_edm() - from.sigma_edm()) * to.alpha;
        let gamma = self.settings.gamma;
        let pair = [gamma * stride, (1.0 - gamma) * stride];
        let weights = if self.past.len() == 1 { &[stride][..] } else { &pair };
        Ok(self.past.added(x * (to.alpha / from.alpha), weights))
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.past.select(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::ends_at;

    #[test]
    fn the_end_is_comfyuis() {
        // ComfyUI (October 2025), sample_gradient_estimation.
        let mut sampler = GradientEstimation::new(Settings::default()).unwrap();
        ends_at(&mut sampler, 0.832_364_155_692_974);
        assert!(GradientEstimation::new(Settings { gamma: -1.0 }).is_err());
    }
}
