//! Heun's method in EDM's coordinates, with churn.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
//! [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), Algorithm 2.
//!
//! With `y = x / alpha` and `s = sigma / alpha`:
//!
//! ```text
//! gamma = min(s_churn / steps, sqrt(2) - 1)  where s_tmin <= s <= s_tmax, else 0
//! s'    = (1 + gamma) s          y' = y + sqrt(s'^2 - s^2) s_noise z
//! d     = (y' - x0(y', s')) / s'                y_t = y' + (s_t - s') d
//! d2    = (y_t - x0(y_t, s_t)) / s_t            y_t = y' + (s_t - s') (d + d2) / 2
//! ```
//!
//! A step to clean data has no second half. From pure noise (`alpha = 0`) `s` is infinite and the
//! average of the slopes has no limit; there the step is Euler's too. Churn cannot rise above the
//! path's noisiest level.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "heun",
    seam: Seam::Sampler,
    title: "Elucidating the Design Space of Diffusion-Based Generative Models",
    source: "2206.00364",
    year: 2022,
    what: "Heun's method in x / alpha, with churn",
    aliases: &["k_heun", "HeunDiscreteScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Heun>()?.checked()?)),
    defaults: defaults_of::<Heun>,
    known_failures: &[],
};

/// EDM's churn: noise that is added before a step, and the level that rises with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// Churn over the whole run, `S_churn`.
    pub s_churn: f64,
    /// The lowest `sigma_edm` that is churned, `S_tmin`.
    pub s_tmin: f64,
    /// The highest `sigma_edm` that is churned, `S_tmax`.
    pub s_tmax: Option<f64>,
    /// The standard deviation of the noise, `S_noise`.
    pub s_noise: f64,
}

impl Churn {
    /// Checks the settings of the part `owner`.
    pub(crate) fn check(&self, owner: &str) -> Result<()> {
        at_least_zero(&format!("{owner}:s_churn"), self.s_churn)?;
        at_least_zero(&format!("{owner}:s_tmin"), self.s_tmin)?;
        at_least_zero(&format!("{owner}:s_noise"), self.s_noise)?;
        match self.s_tmax {
            Some(t) if t.is_nan() || t < 0.0 => {
                Err(Error::setting(format!("{owner}:s_tmax"), format!("{t}, wanted at least 0")))
            }
            _ => Ok(()),
        }
    }

    /// The state and the level that the step begins with.
    pub(crate) fn apply(
        &self,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<(State, Level)> {
        let from = step.from;
        let s = from.sigma_edm();
        let inside = self.s_tmin <= s && self.s_tmax.is_none_or(|most| s <= most);
        if self.s_churn == 0.0 || !inside || !s.is_finite() {
            return Ok((x, from));
        }
        let gamma = (self.s_churn / step.count as f64).min(std::f64::consts::SQRT_2 - 1.0);
        let raised = step.process.at_lambda(from.lambda() - gamma.ln_1p());
        let added = raised.sigma_edm().powi(2) - s * s;
        if added.is_nan() || added <= 0.0 || raised.alpha == 0.0 {
            return Ok((x, from));
        }
        let fresh = noise.draw(&x)? * (raised.alpha * added.sqrt() * self.s_noise);
        Ok((x * (raised.alpha / from.alpha) + fresh, raised))
    }
}

/// Heun's method in EDM's coordinates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heun {
    /// Churn over the whole run, `S_churn`. The default, 0, is the paper's deterministic sampler.
    pub s_churn: f64,
    /// The lowest `sigma_edm` that is churned, `S_tmin`. The default is 0.
    pub s_tmin: f64,
    /// The highest `sigma_edm` that is churned, `S_tmax`; none by default.
    pub s_tmax: Option<f64>,
    /// The standard deviation of the churn's noise, `S_noise`. The default is 1; the paper has
    /// 1.003 or 1.007 with churn.
    pub s_noise: f64,
}

impl Default for Heun {
    fn default() -> Self {
        Self { s_churn: 0.0, s_tmin: 0.0, s_tmax: None, s_noise: 1.0 }
    }
}

impl Heun {
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
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        self.churn().check("heun")?;
        Ok(self)
    }
}

/// One step of Heun's method without churn.
pub(crate) fn slopes(eval: &mut dyn Eval, x: &State, from: Level, to: Level) -> Result<State> {
    let x0 = eval.at(x, from)?;
    let d = eps_of(x, &x0, from);
    let ahead = x0 * to.alpha + d.clone() * to.sigma;
    if to.sigma == 0.0 || from.alpha == 0.0 {
        return Ok(ahead);
    }
    let d2 = eps_of(&ahead, &eval.at(&ahead, to)?, to);
    let stride = to.sigma_edm() - from.sigma_edm();
    Ok(x.clone() * (to.alpha / from.alpha) + (d + d2) * (0.5 * stride * to.alpha))
}

impl Sampler for Heun {
    fn claims(&self) -> Claims {
        Claims { order: 2, nfe: 2, first: 0, stochastic: self.s_churn > 0.0 }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (x, from) = self.churn().apply(x, step, noise)?;
        slopes(eval, &x, from, step.to)
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
    fn a_constant_estimate_is_walked_exactly() {
        // The curve to a fixed point is straight in sigma, so the second slope changes nothing.
        let (s, t) = (Level::new(0.2, 1.0, 2.0), Level::new(0.1, 1.0, 1.0));
        let found = step(&mut Heun::default(), (s, t), (0, 9), (0.3, 0.9), 0.0);
        assert!((found - 0.6).abs() < 1e-15);
    }

    #[test]
    fn from_pure_noise_it_is_eulers_step() {
        let (dark, t) = (Level::new(1.0, 0.0, 1.0), Level::vp(0.5, 0.2));
        let found = step(&mut Heun::default(), (dark, t), (0, 9), (0.3, 0.9), 0.0);
        assert!((found - (t.alpha * 0.9 + t.sigma * 0.3)).abs() < 1e-15);
    }

    #[test]
    fn churn_is_capped_and_keeps_to_its_range() {
        use crate::process::{Process, VpLinear};
        let path = VpLinear::default();
        let (s, t) = (path.at_lambda(0.0), path.at_lambda(0.5));
        let raised = |churn: Churn| {
            let x = State::from_f64(vec![0.3], &[1, 1], &burn::tensor::Device::flex()).unwrap();
            let step = Step { from: s, to: t, index: 0, count: 2, process: &path };
            let mut noise = crate::noise::Seeded::new(1, 1);
            churn.apply(x, &step, &mut noise).unwrap().1.sigma_edm()
        };
        let much = Churn { s_churn: 100.0, s_tmin: 0.0, s_tmax: None, s_noise: 1.0 };
        assert!((raised(much) - 2.0_f64.sqrt()).abs() < 1e-9);
        assert!((raised(Churn { s_churn: 0.2, ..much }) - 1.1).abs() < 1e-9);
        for outside in [Churn { s_tmin: 1.1, ..much }, Churn { s_tmax: Some(0.9), ..much }] {
            assert_eq!(raised(outside), s.sigma_edm());
        }
    }
}
