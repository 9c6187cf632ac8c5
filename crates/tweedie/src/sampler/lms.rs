//! A linear multistep method in `sigma_edm`.
//!
//! k-diffusion's `sample_lms` (Crowson 2022): Adams-Bashforth on uneven steps.
//!
//! ```text
//! y_t = y_s + sum_k c_k d_k          d = (y - x0) / s, y = x / alpha, s = sigma / alpha
//! c_k = integral from s_s to s_t of prod_(j != k) (s - s_j) / (s_k - s_j) ds
//! ```
//!
//! over this step and up to three before. The first step is Euler's, which limits a run to order 2.

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
    id: "lms",
    seam: Seam::Sampler,
    title: "k-diffusion",
    source: "Crowson, k-diffusion, 2022",
    year: 2022,
    what: "linear multistep method in sigma_edm",
    aliases: &["k_lms", "LMSDiscreteScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Lms::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of the linear multistep method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many slopes are used, 1 to 4. The default, 4, is k-diffusion's.
    pub order: usize,
    /// Whether the steps before a run that begins in the middle of the grid count, with slopes of
    /// zero, in place of a lower order: what diffusers does. The default is no.
    pub absent: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { order: 4, absent: false }
    }
}

/// The linear multistep method.
#[derive(Clone, Debug)]
pub struct Lms {
    settings: Settings,
    /// Slopes.
    past: History,
    /// `sigma_edm` of the steps before the run, the newest first.
    absent: Vec<f64>,
}

impl Lms {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order outside 1 to 4.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=4).contains(&settings.order) {
            let why = format!("{}, wanted 1 to 4", settings.order);
            return Err(Error::setting("lms:order", why));
        }
        Ok(Self { settings, past: History::default(), absent: Vec::new() })
    }
}

impl Sampler for Lms {
    fn claims(&self) -> Claims {
        let order = self.settings.order.min(2) as u8;
        Claims { order, nfe: 1, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.past.clear();
    }

    fn enter(&mut self, levels: &[Level], first: usize) -> usize {
        if self.settings.absent {
            let before = &levels[..first.min(levels.len())];
            let before = before.iter().rev().take(self.settings.order - 1);
            self.absent = before.map(|level| level.sigma_edm()).collect();
        }
        first
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
        let slope = eps_of(&x, &x0, from);
        if from.alpha == 0.0 {
            // No multiple of an infinite sigma.
            return Ok(x0 * to.alpha + slope * to.sigma);
        }
        let order = self.settings.order;
        self.past.push(from, slope, order);
        let mut nodes = self.past.nodes(order, Level::sigma_edm);
        nodes.extend(self.absent.iter().take(order - nodes.len()));
        let weights = weights(&nodes, (from.sigma_edm(), to.sigma_edm()), 0.0);
        let weights: Vec<f64> = weights.iter().map(|w| w * to.alpha).collect();
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

    #[test]
    fn steps_that_were_not_taken_count_with_slopes_of_zero() {
        use crate::sampler::testing::step;
        // Weights of Adams and Bashforth: of two even steps the first was not taken.
        let at = |sigma: f64| Level::new(sigma / 4.0, 1.0, sigma);
        let levels = [at(3.0), at(2.0), at(1.0)];
        let end = |absent: bool| {
            let mut solver = Lms::new(Settings { order: 2, absent }).unwrap();
            solver.reset();
            solver.enter(&levels, 1);
            step(&mut solver, (levels[1], levels[2]), (1, 2), (0.5, 0.1), 0.0)
        };
        assert!((end(true) - (0.5 - 1.5 * 0.2)).abs() < 1e-14);
        assert!((end(false) - (0.5 - 0.2)).abs() < 1e-14);
        assert!(Lms::new(Settings { order: 5, absent: false }).is_err());
    }
}
