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
    /// `sigma_edm` and the slope, the newest last; none for steps that were not taken.
    past: Vec<(f64, Option<State>)>,
    /// `sigma_edm` of the steps before the run.
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
        Ok(Self { settings, past: Vec::new(), absent: Vec::new() })
    }
}

/// The integral from `a` to `b` of the polynomial that is 1 at `nodes[k]` and 0 at the others; exact
/// for up to four nodes by Gauss's rule of two points.
fn coefficient(nodes: &[f64], k: usize, a: f64, b: f64) -> f64 {
    let (middle, half) = (0.5 * (a + b), 0.5 * (b - a));
    let basis = |s: f64| {
        let others = nodes.iter().enumerate().filter(|(j, _)| *j != k);
        others.map(|(_, node)| (s - node) / (nodes[k] - node)).product::<f64>()
    };
    let reach = half / 3.0_f64.sqrt();
    half * (basis(middle - reach) + basis(middle + reach))
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
            let before = before.iter().rev().take(self.settings.order - 1).rev();
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
        if self.past.is_empty() {
            self.past = self.absent.iter().map(|s| (*s, None)).collect();
        }
        self.past.push((from.sigma_edm(), Some(slope)));
        if self.past.len() > self.settings.order {
            self.past.remove(0);
        }
        let nodes: Vec<f64> = self.past.iter().map(|(s, _)| *s).collect();
        let mut next = x * (to.alpha / from.alpha);
        for (k, (_, slope)) in self.past.iter().enumerate() {
            let Some(slope) = slope else { continue };
            let c = coefficient(&nodes, k, from.sigma_edm(), to.sigma_edm());
            next = next + slope.clone() * (c * to.alpha);
        }
        Ok(next)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        for slope in self.past.iter_mut().filter_map(|(_, slope)| slope.as_mut()) {
            *slope = slope.select(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_steps_give_the_weights_of_adams_and_bashforth() {
        let nodes = [3.0, 2.0, 1.0, 0.0];
        let found: Vec<f64> = (0..4).map(|k| coefficient(&nodes, k, 0.0, -1.0) * -24.0).collect();
        for (found, wanted) in found.iter().zip([-9.0, 37.0, -59.0, 55.0]) {
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
        assert!(Lms::new(Settings { order: 5, absent: false }).is_err());
    }
}
