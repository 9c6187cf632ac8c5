//! Restart: Heun's method that goes back up an interval of noise levels and walks it again.
//!
//! Xu et al., "Restart Sampling for Improving Generative Processes", 2023,
//! [arXiv:2306.14878](https://arxiv.org/abs/2306.14878), Algorithm 2.
//!
//! With `y = x / alpha` and `s = sigma / alpha`, when the walk comes to `s = low`:
//!
//! ```text
//! repeat times:  y = y + sqrt(high^2 - low^2) s_noise z
//!                walk from high to low in steps, even in s^(1/7), by Heun's method
//! ```
//!
//! The noise contracts the errors that the walk has gathered, as in an SDE, and the walk between has
//! the small discretisation error of an ODE. A step that passes `low` stops there, so that the
//! interval does not depend on the grid, at the price of one more step. A step from pure noise to
//! clean data is the estimate.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::noise::Noise;
use crate::sampler::heun::slopes;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "restart",
    seam: Seam::Sampler,
    title: "Restart Sampling for Improving Generative Processes",
    source: "2306.14878",
    year: 2023,
    what: "Heun's method that walks an interval of noise levels again",
    aliases: &[],
    ledger: "",
    parts: &[&crate::sampler::heun::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Restart::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[(
        "noise",
        "noise is drawn where the walk passes the interval, which the levels of the test do not",
    )],
};

/// An interval that is walked again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Its clean end, a `sigma_edm`; `t_min` in the paper.
    pub low: f64,
    /// Its noisy end, a `sigma_edm`; `t_max` in the paper.
    pub high: f64,
    /// How many steps a walk from one to the other takes, `N_Restart` in the paper.
    pub steps: usize,
    /// How often it is walked, `K` in the paper.
    pub times: usize,
}

/// The settings of restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The intervals. The default is that of A1111's interface for short runs: from 2 to 0.1 once,
    /// in 9 steps. The paper tunes one list of them for each model.
    pub intervals: Vec<Interval>,
    /// The standard deviation of the noise. The default is 1.
    pub s_noise: f64,
}

impl Default for Settings {
    fn default() -> Self {
        let interval = Interval { low: 0.1, high: 2.0, steps: 9, times: 1 };
        Self { intervals: vec![interval], s_noise: 1.0 }
    }
}

/// Restarts.
#[derive(Clone, Debug)]
pub struct Restart {
    /// The interval with the noisiest clean end first.
    settings: Settings,
}

/// The exponent of the steps between, EDM's `rho`.
const RHO: f64 = 7.0;

impl Restart {
    /// A sampler.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an interval without a length or without steps.
    pub fn new(mut settings: Settings) -> Result<Self> {
        at_least_zero("restart:s_noise", settings.s_noise)?;
        for Interval { low, high, steps, .. } in &settings.intervals {
            if !(*low > 0.0 && low < high && high.is_finite()) {
                let why = format!("{low} to {high}, wanted 0 < low < high, finite");
                return Err(Error::setting("restart:intervals", why));
            }
            if *steps == 0 {
                return Err(Error::setting("restart:intervals", "0 steps, wanted at least 1"));
            }
        }
        settings.intervals.sort_by(|a, b| b.low.total_cmp(&a.low));
        Ok(Self { settings })
    }
}

impl Sampler for Restart {
    fn claims(&self) -> Claims {
        let draws = self.settings.intervals.iter().any(|i| i.times > 0);
        let stochastic = draws && self.settings.s_noise > 0.0;
        Claims { order: 2, nfe: 2, first: 0, stochastic }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        mut x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (mut from, to) = (step.from, step.to);
        if from.alpha == 0.0 && to.sigma == 0.0 {
            return slopes(eval, &x, from, to);
        }
        for Interval { low, high, steps, times } in &self.settings.intervals {
            // Levels that are the interval's end but for rounding are its end.
            let end = low * (1.0 + 1e-9);
            if *times == 0 || from.sigma_edm() <= end || to.sigma_edm() > end {
                continue;
            }
            let at = |sigma: f64| step.process.at_lambda(-sigma.ln());
            let bottom = if to.sigma_edm() * (1.0 + 1e-9) >= *low { to } else { at(*low) };
            x = slopes(eval, &x, from, bottom)?;
            from = bottom;
            let top = at(*high);
            let (low, high) = (bottom.sigma_edm(), top.sigma_edm());
            if top.alpha == 0.0 || high <= low {
                continue;
            }
            for _ in 0..*times {
                let std = top.alpha * (high * high - low * low).sqrt() * self.settings.s_noise;
                x = x * (top.alpha / bottom.alpha);
                if std > 0.0 {
                    x = x.clone() + noise.draw(&x)? * std;
                }
                let root = |i: usize| {
                    let share = i as f64 / *steps as f64;
                    (high.powf(1.0 / RHO) * (1.0 - share) + low.powf(1.0 / RHO) * share).powf(RHO)
                };
                let mut here = top;
                for i in 1..=*steps {
                    let next = if i == *steps { bottom } else { at(root(i)) };
                    x = slopes(eval, &x, here, next)?;
                    here = next;
                }
            }
        }
        if from == to { Ok(x) } else { slopes(eval, &x, from, to) }
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Heun;
    use crate::sampler::testing::{SIGMAS, ends_at, walk};

    fn sampler(intervals: Vec<Interval>) -> Restart {
        Restart::new(Settings { intervals, ..Settings::default() }).unwrap()
    }

    #[test]
    fn the_end_is_the_algorithms() {
        // A restatement of Algorithm 2 in NumPy, with one interval that ends on the grid and one
        // between its levels.
        let first = Interval { low: 0.5, high: 1.1, steps: 2, times: 3 };
        let second = Interval { low: 1.3, high: 2.4, steps: 3, times: 1 };
        ends_at(&mut sampler(vec![first, second]), RESTATED);
    }

    const RESTATED: f64 = 0.318_016_631_644_024;

    #[test]
    fn an_interval_that_is_not_passed_changes_nothing() {
        let formula = |x: f64, s: f64| (x / (1.0 + s)).tanh();
        let heun = walk(&mut Heun::default(), &SIGMAS, 4.2, &formula);
        let below = Interval { low: 0.05, high: 0.2, steps: 2, times: 1 };
        let above = Interval { low: 7.0, high: 9.0, steps: 2, times: 1 };
        assert_eq!(walk(&mut sampler(vec![below, above]), &SIGMAS, 4.2, &formula), heun);
        assert!(walk(&mut sampler(Settings::default().intervals), &SIGMAS, 4.2, &formula) != heun);
    }

    #[test]
    fn data_of_a_known_spread_keep_it() {
        // Data N(0, 1): the walk is linear, and the end's variance that of its level, up to the
        // error of Heun's steps. Noise of another deviation shows.
        let formula = |x: f64, s: f64| x / (1.0 + s * s);
        let levels: Vec<f64> = (0..=60).map(|i| 3.0 * (-0.06 * f64::from(i)).exp()).collect();
        let last = levels[60];
        let mut solver = sampler(vec![Interval { low: 0.3, high: 1.5, steps: 40, times: 1 }]);
        solver.settings.s_noise = 0.0;
        // Without noise the end is the start times a number, which is what the start keeps.
        let kept = walk(&mut solver, &levels, 1.0, &formula);
        solver.settings.s_noise = 1.0;
        let drawn = (walk(&mut solver, &levels, 1.0, &formula) - kept) / (1.2 * 1.3_f64.sin());
        let variance = kept * kept * (1.0 + 9.0) + drawn * drawn;
        assert!((variance / (1.0 + last * last) - 1.0).abs() < 2e-3, "{variance}");
    }

    #[test]
    fn intervals_without_a_length_are_refused() {
        for (low, high, steps) in [(2.0, 1.0, 3), (0.0, 1.0, 3), (0.1, 1.0, 0)] {
            let intervals = vec![Interval { low, high, steps, times: 1 }];
            assert!(Restart::new(Settings { intervals, ..Settings::default() }).is_err());
        }
    }
}
