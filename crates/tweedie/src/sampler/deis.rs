//! DEIS: the noise as a polynomial of the log-SNR, integrated exactly.
//!
//! Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", 2023,
//! [arXiv:2204.13902](https://arxiv.org/abs/2204.13902), equation 14, with the polynomial in
//! `log rho` (rho-AB).
//!
//! ```text
//! x_t / alpha_t = x_s / alpha_s + integral of P(lambda) d rho          rho = sigma / alpha
//! ```
//!
//! with `P` through the noise of this and up to two steps before. `dpm-solver` in the noise has half
//! of its curvature. The first step is of order 1, which limits a run to order 2.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::dpmpp_2m::FEW;
use crate::sampler::multistep::{History, weights};
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "deis",
    seam: Seam::Sampler,
    title: "Fast Sampling of Diffusion Models with Exponential Integrator",
    source: "2204.13902",
    year: 2023,
    what: "the noise as a polynomial of the log-SNR, integrated exactly",
    aliases: &["DEISMultistepScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Deis::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of DEIS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The order, 1 to 3: a polynomial of one degree less. The default is 3.
    pub order: usize,
    /// Whether the order runs down at the end of a run of fewer than 15 steps. The default is yes.
    pub lower_order_final: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { order: 3, lower_order_final: true }
    }
}

/// DEIS.
#[derive(Clone, Debug)]
pub struct Deis {
    settings: Settings,
    /// Noises.
    past: History,
}

impl Deis {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order outside 1 to 3.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=3).contains(&settings.order) {
            let why = format!("{}, wanted 1 to 3", settings.order);
            return Err(Error::setting("deis:order", why));
        }
        Ok(Self { settings, past: History::default() })
    }
}

impl Sampler for Deis {
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
        let eps = eps_of(&x, &x0, from);
        self.past.push(from, eps.clone(), 3);
        if step.h().is_infinite() {
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        let few = self.settings.lower_order_final && step.count < FEW;
        let most = if few { step.count - step.index } else { 3 };
        let nodes = self.past.nodes(self.settings.order.min(most), Level::lambda);
        // d rho is -e^-lambda d lambda, and alpha_t e^-lambda_t is sigma_t.
        let weights = weights(&nodes, (from.lambda(), to.lambda()), -1.0);
        let weights: Vec<f64> = weights.iter().map(|w| -w * to.sigma).collect();
        Ok(self.past.added(x * (to.alpha / from.alpha), &weights))
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
    use crate::sampler::testing::step;

    #[test]
    fn noise_that_is_quadratic_in_the_log_snr_is_integrated_exactly() {
        // With x = 0 at each step the noise is -x0 alpha / sigma; it is set to 1 + l + l^2.
        let at = |i: usize| Level::vp(0.9, [-1.0, -0.55, -0.3, 0.2][i]);
        let eps = |l: f64| 1.0 + l + l * l;
        let x0 = |i: usize| -eps(at(i).lambda()) * at(i).sigma / at(i).alpha;
        let settings = Settings { order: 3, lower_order_final: false };
        let mut solver = Deis::new(settings).unwrap();
        for i in 0..2 {
            step(&mut solver, (at(i), at(i + 1)), (i, 20), (0.0, x0(i)), 0.0);
        }
        let found = step(&mut solver, (at(2), at(3)), (2, 20), (0.0, x0(2)), 0.0);
        let (a, b, n) = (at(2).lambda(), at(3).lambda(), 20_000);
        let slice = |k: i32| {
            let l = a + (b - a) * (f64::from(k) + 0.5) / f64::from(n);
            -(-l).exp() * eps(l) * (b - a) / f64::from(n)
        };
        let wanted: f64 = at(3).alpha * (0..n).map(slice).sum::<f64>();
        assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
    }
}
