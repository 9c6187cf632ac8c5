//! Multistep consistency sampling, as latent consistency models do it.
//!
//! Luo et al., "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step
//! Inference", 2023, [arXiv:2310.04378](https://arxiv.org/abs/2310.04378), Algorithm 3, after Song et
//! al., "Consistency Models", 2023.
//!
//! ```text
//! f   = c_skip x + c_out x0          c_skip = d^2 / (u^2 + d^2), c_out = u / sqrt(u^2 + d^2)
//! x_t = alpha_t f + sigma_t z         u = scaling step, d = sigma_data
//! ```
//!
//! where `step` is the training step of `x`. A network that was distilled for it answers with the end
//! of its path, not with the mean of all ends; with an exact denoiser the method does not converge.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::noise::Noise;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "lcm",
    seam: Seam::Sampler,
    title: "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference",
    source: "2310.04378",
    year: 2023,
    what: "multistep consistency sampling of distilled models",
    aliases: &["LCMScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Lcm::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[
        ("goodness of fit", "a method for distilled networks; an exact denoiser is none"),
        ("ends", "the boundary condition keeps a share of the state, also in a single step"),
    ],
};

/// The settings of multistep consistency sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What a training step is multiplied by in the boundary condition, `timestep_scaling` in
    /// diffusers. The default, 10, is the published models'.
    pub scaling: f64,
    /// `sigma_data` of the boundary condition. The default, 0.5, is the published models'.
    pub sigma_data: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { scaling: 10.0, sigma_data: 0.5 }
    }
}

/// Multistep consistency sampling.
#[derive(Clone, Debug)]
pub struct Lcm(Settings);

impl Lcm {
    /// A sampler.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for numbers that are not positive.
    pub fn new(settings: Settings) -> Result<Self> {
        for (key, value) in [("scaling", settings.scaling), ("sigma_data", settings.sigma_data)] {
            if !value.is_finite() || value <= 0.0 {
                let why = format!("{value}, wanted a positive number");
                return Err(Error::setting(format!("lcm:{key}"), why));
            }
        }
        Ok(Self(settings))
    }
}

/// Training steps where the process is no table.
const STEPS: f64 = 1000.0;

impl Sampler for Lcm {
    fn claims(&self) -> Claims {
        Claims { order: 0, nfe: 1, first: 0, stochastic: true }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let x0 = eval.at(&x, step.from)?;
        let table = step.process.table_steps().map_or(STEPS, |n| n as f64);
        let scaled = step.from.t * table * self.0.scaling;
        let norm = scaled.hypot(self.0.sigma_data);
        let skip = (self.0.sigma_data / norm).powi(2);
        let end = (x0 * (scaled / norm) + x * skip) * step.to.alpha;
        if step.to.sigma == 0.0 {
            return Ok(end);
        }
        Ok(end.clone() + noise.draw(&end)? * step.to.sigma)
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
    fn far_from_the_data_the_estimate_counts_alone() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let mut lcm = Lcm::new(Settings::default()).unwrap();
        let found = step(&mut lcm, (s, t), (0, 9), (0.3, 0.9), 0.5);
        assert!((found - (t.alpha * 0.9 + t.sigma * 0.5)).abs() < 1e-7);
        // At a twentieth of a training step both shares are even: c_skip = 1/2, c_out = sqrt(1/2).
        let near = Level::vp(5e-5, 4.0);
        let found = step(&mut lcm, (near, Level::CLEAN), (8, 9), (0.3, 0.9), 0.5);
        assert!((found - (0.5 * 0.3 + 0.5_f64.sqrt() * 0.9)).abs() < 1e-12);
        assert!(Lcm::new(Settings { scaling: 0.0, ..Settings::default() }).is_err());
    }
}
