//! DPM-Solver++(2M): a second-order multistep solver in the log-SNR.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
//! 2022, [arXiv:2211.01095](https://arxiv.org/abs/2211.01095), Algorithm 2.
//!
//! With `h = lambda(to) - lambda(from)`, `r = h_last / h` and `d1 = (x0 - x0_last) / r`:
//!
//! ```text
//! x_t = sigma_t / sigma_s x - alpha_t (e^-h - 1) (x0 + d1 / 2)                       midpoint
//! x_t = sigma_t / sigma_s x - alpha_t (e^-h - 1) x0 + alpha_t ((e^-h - 1) / h + 1) d1    heun
//! ```
//!
//! The first step is of first order, and so are a step from pure noise, the one after it, and a step
//! to clean data, where `h` or `h_last` is infinite. As in diffusers, so is the last step of a run
//! of fewer than 15 (`lower_order_final`).

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::level::Level;
use crate::noise::Noise;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpmpp-2m",
    seam: Seam::Sampler,
    title: "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    source: "2211.01095",
    year: 2022,
    what: "second-order multistep solver in the log-SNR",
    aliases: &["DPM++ 2M", "dpmpp_2m", "dpm++2m", "k_dpmpp_2m", "DPMSolverMultistepScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Dpmpp2m::new(s.read()?))),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// How the slope of the estimate enters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// The estimate in the middle of the step (Algorithm 2).
    #[default]
    Midpoint,
    /// The integral of the linear estimate.
    Heun,
}

/// The fewest steps of a run whose last step stays of second order.
pub(crate) const FEW: usize = 15;

/// DPM-Solver++(2M).
#[derive(Clone, Debug)]
pub struct Dpmpp2m {
    settings: Settings,
    last: Option<(Level, State)>,
}

/// The settings of DPM-Solver++(2M).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How the slope enters. The default, midpoint, is the paper's.
    pub solver: Solver,
    /// Whether the last step of a run of fewer than 15 is of first order. The default, yes, is the
    /// paper's advice for few steps.
    pub lower_order_final: bool,
    /// Whether the last step is of first order in any run. The default is no; a step to clean data
    /// always is.
    pub euler_at_final: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { solver: Solver::Midpoint, lower_order_final: true, euler_at_final: false }
    }
}

impl Dpmpp2m {
    /// A solver.
    pub fn new(settings: Settings) -> Self {
        Self { settings, last: None }
    }
}

impl Sampler for Dpmpp2m {
    fn claims(&self) -> Claims {
        Claims { order: 2, nfe: 1, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.last = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to, h) = (step.from, step.to, step.h());
        let x0 = eval.at(&x, from)?;
        let last = self.last.replace((from, x0.clone()));
        let shrink = to.sigma / from.sigma;
        let gain = -to.alpha * (-h).exp_m1();
        let first = x * shrink + x0.clone() * gain;
        let few = self.settings.lower_order_final && step.count < FEW;
        let few = step.is_last() && (few || self.settings.euler_at_final);
        let Some(d1) = slope(last, &x0, step).filter(|_| !few) else { return Ok(first) };
        let weight = match self.settings.solver {
            Solver::Midpoint => 0.5 * gain,
            Solver::Heun => to.alpha * ((-h).exp_m1() / h + 1.0),
        };
        Ok(first + d1 * weight)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.last = self.last.take().map(|(at, x0)| (at, x0.select(rows)));
    }
}

/// `(x0 - x0_last) h / h_last`, where both steps are finite.
pub(crate) fn slope(last: Option<(Level, State)>, x0: &State, step: &Step<'_>) -> Option<State> {
    let (before, x0_last) = last?;
    let (h, h_last) = (step.h(), step.from.lambda() - before.lambda());
    let finite = h.is_finite() && h_last.is_finite();
    finite.then(|| (x0.clone() - x0_last) * (h / h_last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::step;

    fn levels() -> [Level; 3] {
        [Level::vp(0.9, -1.0), Level::vp(0.6, -0.4), Level::vp(0.4, 0.7)]
    }

    #[test]
    fn the_slope_enters_from_the_second_step_on() {
        let [a, b, c] = levels();
        let mut solver = Dpmpp2m::new(Settings::default());
        let x = step(&mut solver, (a, b), (0, 20), (0.3, 0.9), 0.0);
        let found = step(&mut solver, (b, c), (1, 20), (x, 1.2), 0.0);
        let (h, r) = (1.1_f64, 0.6 / 1.1);
        let d = (1.0 + 0.5 / r) * 1.2 - 0.5 / r * 0.9;
        let wanted = c.sigma / b.sigma * x - c.alpha * ((-h).exp() - 1.0) * d;
        assert!((found - wanted).abs() < 1e-14);
    }

    #[test]
    fn few_steps_end_with_one_of_first_order() {
        let [a, b, c] = levels();
        let end = |count: usize, lower_order_final: bool| {
            let mut solver = Dpmpp2m::new(Settings { lower_order_final, ..Settings::default() });
            step(&mut solver, (a, b), (count - 2, count), (0.3, 0.9), 0.0);
            step(&mut solver, (b, c), (count - 1, count), (0.5, 1.2), 0.0)
        };
        let first = c.sigma / b.sigma * 0.5 - c.alpha * (-1.1_f64).exp_m1() * 1.2;
        assert!((end(14, true) - first).abs() < 1e-14);
        assert!((end(15, true) - first).abs() > 1e-2);
        assert_eq!(end(14, false), end(15, true));
    }

    #[test]
    fn the_step_after_pure_noise_has_no_slope() {
        let [_, b, c] = levels();
        let mut solver = Dpmpp2m::new(Settings::default());
        step(&mut solver, (Level::new(1.0, 0.0, 1.0), b), (0, 20), (0.3, 0.9), 0.0);
        let found = step(&mut solver, (b, c), (1, 20), (0.5, 1.2), 0.0);
        let first = c.sigma / b.sigma * 0.5 - c.alpha * (-1.1_f64).exp_m1() * 1.2;
        assert!((found - first).abs() < 1e-14);
    }
}
