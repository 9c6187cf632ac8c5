//! RES, multistep: the clean sample as a polynomial of the log-SNR, integrated exactly.
//!
//! Zhang et al., "Improved Order Analysis and Design of Exponential Integrator for Diffusion Models
//! Sampling", 2023, [arXiv:2308.02157](https://arxiv.org/abs/2308.02157), section 3 and Algorithm 2.
//!
//! With `h = lambda(to) - lambda(from)` and the polynomial `P` through the estimates of this step and
//! those before:
//!
//! ```text
//! x_t = sigma_t / sigma_s x + alpha_t integral of e^(lambda - lambda_t) P(lambda) d lambda
//! ```
//!
//! Of order 2 this is `dpmpp-2m:solver=heun`. `dpm-solver` of order 3 in the data has half of the
//! curvature that the integral has. Infinite steps are of order 1. The first step is too, which
//! limits a run to order 2.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::multistep::{History, weights};
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "res",
    seam: Seam::Sampler,
    title: "Improved Order Analysis and Design of Exponential Integrator for Diffusion Models Sampling",
    source: "2308.02157",
    year: 2023,
    what: "the clean sample as a polynomial of the log-SNR, integrated exactly",
    aliases: &["res_multistep", "res_2m"],
    ledger: "",
    parts: &[&crate::sampler::dpmpp_2m::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Res::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of RES.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many estimates the polynomial goes through, 1 to 4. The default is 2.
    pub order: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { order: 2 }
    }
}

/// RES, multistep.
#[derive(Clone, Debug)]
pub struct Res {
    settings: Settings,
    /// Clean samples.
    past: History,
}

impl Res {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order outside 1 to 4.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=4).contains(&settings.order) {
            let why = format!("{}, wanted 1 to 4", settings.order);
            return Err(Error::setting("res:order", why));
        }
        Ok(Self { settings, past: History::default() })
    }
}

impl Sampler for Res {
    fn claims(&self) -> Claims {
        let order = self.settings.order.min(2) as u8;
        Claims { order, nfe: 1, first: 0, stochastic: false }
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
        if step.h().is_infinite() {
            let eps = eps_of(&x, &x0, from);
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        self.past.push(from, x0, self.settings.order);
        let nodes = self.past.nodes(self.settings.order, Level::lambda);
        let weights = weights(&nodes, (from.lambda(), to.lambda()), 1.0);
        let weights: Vec<f64> = weights.iter().map(|w| w * to.alpha).collect();
        Ok(self.past.added(x * (to.sigma / from.sigma), &weights))
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
    use crate::sampler::testing::{ends_at, sigmas, step};

    #[test]
    fn the_end_is_comfyuis() {
        // ComfyUI (October 2025), sample_res_multistep.
        ends_at(&mut Res::new(Settings::default()).unwrap(), 0.859_341_015_427_098);
    }

    #[test]
    fn a_cubic_of_the_log_snr_is_integrated_exactly() {
        let at = sigmas(&[3.0, 2.2, 1.4, 1.1, 0.6]);
        let x0 = |l: f64| 1.0 + l - 0.4 * l * l + 0.2 * l * l * l;
        let mut solver = Res::new(Settings { order: 4 }).unwrap();
        for i in 0..3 {
            step(&mut solver, (at[i], at[i + 1]), (i, 4), (0.0, x0(at[i].lambda())), 0.0);
        }
        let found = step(&mut solver, (at[3], at[4]), (3, 4), (0.3, x0(at[3].lambda())), 0.0);
        let (a, b, n) = (at[3].lambda(), at[4].lambda(), 20_000);
        let slice = |k: i32| {
            let l = a + (b - a) * (f64::from(k) + 0.5) / f64::from(n);
            (l - b).exp() * x0(l) * (b - a) / f64::from(n)
        };
        let wanted = 0.3 * at[4].sigma / at[3].sigma + (0..n).map(slice).sum::<f64>();
        assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        assert!(Res::new(Settings { order: 5 }).is_err());
    }
}
