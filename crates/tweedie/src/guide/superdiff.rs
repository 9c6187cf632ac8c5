//! Superposition: weights from the log densities of a sample along its own way.
//!
//! Skreta et al., "The Superposition of Diffusion Models Using the Itô Density Estimator", 2024,
//! [arXiv:2412.17762](https://arxiv.org/abs/2412.17762), Theorem 1, Propositions 3 and 6.
//!
//! With `y = x / alpha`, `s = sigma / alpha` and the noises `v_i` under the conditions, the density of
//! a sample under each is followed from step to step, without a divergence:
//!
//! ```text
//! d log q_i = -|ds| |v_i|^2 / s - (dy . v_i) / s          for the step dy that was taken
//! u  = v_0 + weight (sum_i k_i v_i - v_0)                       v_0 without a condition
//! or:  k = softmax(temperature log q)                            a draw from the mixture
//! and: k_a + k_b = 1 such that the two densities become equal
//! ```
//!
//! The estimator holds for steps that draw the noise of the reverse SDE: `ddpm`, `ddim:eta=1`,
//! `euler-ancestral`, SDE solvers. In `and` the paper solves for the step with its noise, which a
//! guide does not see before; here the expected step closes the distance that the densities have, as
//! far as the length of the last step says what the next one will be.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass, evaluate_branches};
use crate::error::{Error, Result};
use crate::guide::{Entry, Guide, weight};
use crate::level::{Level, Levels};
use crate::prediction::Prediction;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "superdiff",
    seam: Seam::Guide,
    title: "The Superposition of Diffusion Models Using the Itô Density Estimator",
    source: "2412.17762",
    year: 2024,
    what: "several conditions, weighted by the sample's density under each",
    aliases: &[],
    ledger: "superdiff",
    parts: &[&crate::guide::compose::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Superdiff::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// How densities become weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By the densities: a draw from the mixture of the conditions.
    #[default]
    Or,
    /// Such that two densities stay equal: what both conditions allow.
    And,
}

/// The settings of superposition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How densities become weights. The default is `or`.
    pub mode: Mode,
    /// The guidance weight; 1 is the superposition as it is. The default, 7.5, is the paper's.
    pub weight: f64,
    /// The conditions beside the run's own, by class. The default is none.
    pub classes: Vec<i64>,
    /// How sharply `or` decides. The default, 1, is the mixture.
    pub temperature: f64,
    /// What is added to the log density under the run's own condition. The default is 0.
    pub bias: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mode: Mode::Or, weight: 7.5, classes: Vec::new(), temperature: 1.0, bias: 0.0 }
    }
}

/// The first evaluation of a step: where, and the noises under the conditions.
#[derive(Clone, Debug)]
struct Begun {
    at: Levels,
    noises: Vec<State>,
}

/// Superposition.
#[derive(Clone, Debug)]
pub struct Superdiff {
    settings: Settings,
    begun: Option<Begun>,
    /// Log densities since the run began, up to a constant that is the same for all: a row of the
    /// batch, then a condition.
    logs: Vec<Vec<f64>>,
    /// The last step, as a share of its level: `|ds| / s`.
    share: f64,
}

impl Superdiff {
    /// A guide.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        weight("superdiff", settings.weight)?;
        for (key, value) in [("temperature", settings.temperature), ("bias", settings.bias)] {
            if !value.is_finite() {
                let why = format!("{value}, wanted a finite number");
                return Err(Error::setting(format!("superdiff:{key}"), why));
            }
        }
        if settings.mode == Mode::And && settings.classes.len() > 1 {
            let why = format!("{} beside the run's own; `and` is of two", settings.classes.len());
            return Err(Error::setting("superdiff:classes", why));
        }
        Ok(Self { settings, begun: None, logs: Vec::new(), share: 0.0 })
    }

    /// The log densities of each row under each condition since the run began, up to a constant that
    /// is the same for all conditions.
    pub fn log_densities(&self) -> &[Vec<f64>] {
        &self.logs
    }

    /// The weights of one row's conditions, which sum to one.
    fn row_weights(&self, row: usize, count: usize, noises: &[Vec<f64>], free: &[f64]) -> Vec<f64> {
        let mut logs = self.logs.get(row).cloned().unwrap_or_else(|| vec![0.0; count]);
        if let Some(own) = logs.first_mut() {
            *own += self.settings.bias;
        }
        if let (Mode::And, [a, b]) = (self.settings.mode, noises) {
            let gap = logs[0] - logs[1];
            let k = self.even(a, b, free, gap);
            return vec![k, 1.0 - k];
        }
        let scaled: Vec<f64> = logs.iter().map(|l| l * self.settings.temperature).collect();
        let most = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shares: Vec<f64> = scaled.iter().map(|l| (l - most).exp()).collect();
        let sum: f64 = shares.iter().sum();
        shares.iter().map(|s| s / sum).collect()
    }

    /// The weight of `a` with which the expected step closes the `gap` of the densities: with `u` the
    /// noise that is walked along, `2 u . (a - b) = |a|^2 - |b|^2 - gap s / |ds|`.
    fn even(&self, a: &[f64], b: &[f64], free: &[f64], gap: f64) -> f64 {
        let g = self.settings.weight;
        let (mut squares, mut along, mut apart) = (0.0, 0.0, 0.0);
        for ((a, b), free) in a.iter().zip(b).zip(free) {
            squares += a * a - b * b;
            along += (free + g * (b - free)) * (a - b);
            apart += (a - b) * (a - b);
        }
        let pull = if self.share > 0.0 { gap / self.share } else { 0.0 };
        let k = (0.5 * (squares - pull) - along) / (g * apart);
        if k.is_finite() { k } else { 0.5 }
    }
}

impl Guide for Superdiff {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        if cond.class.is_none() && cond.context.is_none() && cond.vector.is_none() {
            let needs = "a condition: a class, a prompt or a vector";
            return Err(Error::unsupported("superdiff", needs));
        }
        let rows = x.batch();
        let without = cond.unconditional();
        let other = |class: &i64| Cond {
            class: Some(vec![*class; rows].into()),
            negative: None,
            ..cond.clone()
        };
        let others: Vec<Cond> = self.settings.classes.iter().map(other).collect();
        let mut branches = vec![(Branch::Cond, cond)];
        for (i, other) in (0_u16..).zip(&others) {
            branches.push((Branch::Part(i), other));
        }
        branches.push((Branch::Uncond, &without));
        let mut estimates = evaluate_branches(model, x, at, &branches, pass)?;
        let Some(free) = estimates.pop() else {
            return Err(Error::unsupported("superdiff", "an estimate of each branch"));
        };
        let noise = |x0: &State| Prediction::Eps.from_x0(x0, x, at);
        let noises: Vec<State> = estimates.iter().map(noise).collect::<Result<_>>()?;
        let by_part: Vec<Vec<Vec<f64>>> = noises.iter().map(State::to_rows).collect();
        let free_rows = noise(&free)?.to_rows();
        let count = estimates.len();
        let weights: Vec<Vec<f64>> = (0..rows)
            .map(|row| {
                let of: Vec<Vec<f64>> = by_part.iter().map(|p| p[row].clone()).collect();
                self.row_weights(row, count, &of, &free_rows[row])
            })
            .collect();
        if self.begun.is_none() {
            self.begun = Some(Begun { at: at.clone(), noises });
        }
        // The weights of all estimates sum to one, so that noises and clean samples combine alike.
        let mut sum = x.zeros_like();
        for (i, x0) in estimates.iter().enumerate() {
            let of: Vec<f64> = weights.iter().map(|w| w[i]).collect();
            sum = sum + x0.scaled_rows(&of);
        }
        Ok(free.clone() + (sum - free) * self.settings.weight)
    }

    fn stepped(&mut self, from: Level, to: Level, before: &State, after: &State) -> Result<()> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let rows = before.batch();
        if begun.noises.iter().any(|v| v.batch() != rows) || begun.at != Levels::One(from) {
            let needs = "a step that begins with an evaluation of the whole state at its level";
            return Err(Error::unsupported("superdiff", needs));
        }
        if from.alpha == 0.0 {
            return Ok(());
        }
        let (s, t) = (from.sigma_edm(), to.sigma_edm());
        let moved = after.clone() * (1.0 / to.alpha) - before.clone() * (1.0 / from.alpha);
        self.logs.resize(rows, vec![0.0; begun.noises.len()]);
        for (i, v) in begun.noises.iter().enumerate() {
            let (squares, dots) = (v.square_norms(), moved.dots(v));
            for (row, logs) in self.logs.iter_mut().enumerate() {
                logs[i] -= ((s - t) * squares[row] + dots[row]) / s;
            }
        }
        self.share = (s - t) / s;
        Ok(())
    }

    fn reset(&mut self) {
        self.begun = None;
        self.logs.clear();
        self.share = 0.0;
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        if !self.logs.is_empty() {
            self.logs = rows.iter().map(|&r| self.logs[r].clone()).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::Cfg;
    use crate::guide::testing::{Says, ask};

    #[test]
    fn one_condition_is_cfg() {
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let at = Level::vp(0.5, 0.0);
        for mode in [Mode::Or, Mode::And] {
            let settings = Settings { mode, weight: 3.5, ..Settings::default() };
            let found = ask(&mut Superdiff::new(settings).unwrap(), &model, at);
            assert_eq!(found, ask(&mut Cfg { weight: 3.5 }, &model, at));
        }
    }

    #[test]
    fn a_bias_decides() {
        // Two classes of one estimate: nothing to decide; the shares are those of the softmax.
        let settings = Settings { classes: vec![1], bias: 2.0, ..Settings::default() };
        let guide = Superdiff::new(settings).unwrap();
        let shares = guide.row_weights(0, 2, &[vec![], vec![]], &[]);
        assert!((shares[0] - 1.0 / (1.0 + (-2.0_f64).exp())).abs() < 1e-15);
    }

    #[test]
    fn three_densities_cannot_be_made_equal() {
        let three = Settings { mode: Mode::And, classes: vec![1, 2], ..Settings::default() };
        assert!(Superdiff::new(three).is_err());
    }
}
