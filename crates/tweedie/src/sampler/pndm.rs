//! Pseudo numerical methods: classical formulas for even steps, carried over to a diffusion's path.
//!
//! Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022,
//! [arXiv:2202.09778](https://arxiv.org/abs/2202.09778), equations 9 to 13; as in latent diffusion
//! ("PLMS") and diffusers.
//!
//! With the transfer `phi(x, e, s, t) = alpha_t / alpha_s x + (sigma_t - alpha_t sigma_s / alpha_s) e`,
//! which is DDIM's step, and the noise `e_0` of this step and `e_1`, `e_2`, `e_3` of those before:
//!
//! ```text
//! x_t = phi(x, e', s, t)
//! e' = (3 e_0 - e_1) / 2, (23 e_0 - 16 e_1 + 5 e_2) / 12, (55 e_0 - 59 e_1 + 37 e_2 - 9 e_3) / 24
//! first step:   e' = (e_0 + e(phi(x, e_0, s, t), t)) / 2                            start=heun
//! first three:  Runge and Kutta's four evaluations                           start=runge-kutta
//! ```
//!
//! The weights are for steps that are even in time; on other steps the order is 1. A step to clean
//! data among the first is DDIM's.
//!
//! diffusers asks twice at the second training step of a run, which is how its first step gets its
//! second evaluation, and its list of training steps holds that one twice. A run of its pipelines
//! that begins in the middle has no such pair: it begins a step earlier, and after the first step the
//! network is told the level of the next step but one, with the state where it is. `even` does as it
//! does there too.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::noise::Noise;
use crate::prediction::{Prediction, eps_of};
use crate::sampler::multistep::{History, adams};
use crate::sampler::stride::{landing, origin, place};
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "pndm",
    seam: Seam::Sampler,
    title: "Pseudo Numerical Methods for Diffusion Models on Manifolds",
    source: "2202.09778",
    year: 2022,
    what: "classical multistep formulas along DDIM's steps",
    aliases: &["PLMS", "PNDMScheduler"],
    ledger: "pndm",
    parts: &[&crate::sampler::ddim::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Pndm::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[(
        "order",
        "the weights are for steps that are even in time, and uneven ones make the order 1",
    )],
};

/// How a run begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// One step with two evaluations, `skip_prk_steps` in diffusers.
    #[default]
    Heun,
    /// Three steps with four.
    RungeKutta,
}

/// The settings of the pseudo numerical methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How a run begins. The default, `heun`, is latent diffusion's.
    pub start: Start,
    /// The meaning of the output that is combined, `eps` or `v`. The default, `eps`, is the paper's;
    /// diffusers combines what the network puts out.
    pub space: Prediction,
    /// Whether a step goes an even stride of the table down, whatever the grid's next level is, and a
    /// run that begins in the middle skips a step, as in diffusers. The default is no.
    pub even: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { start: Start::Heun, space: Prediction::Eps, even: false }
    }
}

/// The pseudo numerical methods.
#[derive(Clone, Debug)]
pub struct Pndm {
    settings: Settings,
    /// Outputs.
    past: History,
    /// The step in the middle of the grid that a run of diffusers was to begin at; 0 for a whole run.
    entered: usize,
}

impl Pndm {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a space that is none of the two.
    pub fn new(settings: Settings) -> Result<Self> {
        if !matches!(settings.space, Prediction::Eps | Prediction::V) {
            let why = format!("{}, wanted eps or v", settings.space.name());
            return Err(Error::setting("pndm:space", why));
        }
        Ok(Self { settings, past: History::default(), entered: 0 })
    }

    fn output(&self, x: &State, x0: &State, at: Level) -> Result<State> {
        self.settings.space.from_x0(x0, x, &Levels::One(at))
    }

    fn ask(&self, eval: &mut dyn Eval, x: &State, at: Level) -> Result<State> {
        let x0 = eval.at(x, at)?;
        self.output(x, &x0, at)
    }

    /// The paper's transfer with the output that stands for the noise.
    fn transfer(&self, x: &State, output: &State, from: Level, to: Level) -> State {
        let eps = match self.settings.space {
            Prediction::V => {
                let norm = from.alpha * from.alpha + from.sigma * from.sigma;
                x.clone() * (from.sigma / norm) + output.clone() * (from.alpha / norm)
            }
            _ => output.clone(),
        };
        let ratio = to.alpha / from.alpha;
        x.clone() * ratio + eps * (to.sigma - ratio * from.sigma)
    }

    /// One step with four evaluations; `k1` is the first.
    fn runge_kutta(
        &self,
        eval: &mut dyn Eval,
        x: &State,
        k1: &State,
        step: &Step<'_>,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        // Half of the stride below the start and above the end; the same but for rounding.
        let (below, above) = match place(step, self.settings.even) {
            Some((tau, stride, n)) => {
                let half = (stride / 2.0).floor();
                let end = (to.t * n).round();
                (step.process.at((tau - half) / n), step.process.at((end + half) / n))
            }
            None => {
                let middle = step.process.at(0.5 * (from.t + to.t));
                (middle, middle)
            }
        };
        let k2 = self.ask(eval, &self.transfer(x, k1, from, below), above)?;
        let k3 = self.ask(eval, &self.transfer(x, &k2, from, above), above)?;
        let k4 = self.ask(eval, &self.transfer(x, &k3, from, to), to)?;
        let sum = (k1.clone() + k4) * (1.0 / 6.0) + (k2 + k3) * (1.0 / 3.0);
        Ok(self.transfer(x, &sum, from, to))
    }
}

impl Sampler for Pndm {
    fn claims(&self) -> Claims {
        let first = match self.settings.start {
            Start::Heun => 1,
            Start::RungeKutta => 9,
        };
        Claims { order: 2, nfe: 1, first, stochastic: false }
    }

    fn reset(&mut self) {
        self.past.clear();
    }

    fn enter(&mut self, _levels: &[Level], first: usize) -> usize {
        if !self.settings.even || self.settings.start != Start::Heun {
            return first;
        }
        self.entered = first;
        // The list of training steps is one longer from the second on.
        if first > 1 { first - 1 } else { first }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, even) = (step.from, self.settings.even);
        if self.entered > 1 && step.index == self.entered {
            // The pair's second evaluation was the first step's; the state stays.
            return Ok(x);
        }
        let x0 = eval.at(&x, from)?;
        let output = self.output(&x, &x0, from)?;
        let begun = self.past.len();
        self.past.push(from, output.clone(), 4);
        let to = landing(step, even);
        if from.alpha == 0.0 {
            let eps = eps_of(&x, &x0, from);
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        let goes_on = step.to.sigma > 0.0 && !step.is_last();
        match self.settings.start {
            Start::RungeKutta if begun < 3 && goes_on => {
                return self.runge_kutta(eval, &x, &output, step);
            }
            Start::Heun if begun == 0 && goes_on => {
                // A run that begins at the pair asks twice there.
                let then = if self.entered == 1 { from } else { step.to };
                let ahead = self.ask(eval, &self.transfer(&x, &output, from, to), then)?;
                let mean = (output + ahead) * 0.5;
                let start = origin(&Step { to: then, ..*step }, even);
                return Ok(self.transfer(&x, &mean, start, then));
            }
            _ => {}
        }
        let sum = self.past.added(x.zeros_like(), &adams(self.past.len()));
        Ok(self.transfer(&x, &sum, from, to))
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
    fn a_constant_estimate_is_walked_exactly() {
        // Then the noise is constant too, and so is every combination.
        for start in [Start::Heun, Start::RungeKutta] {
            for space in [Prediction::Eps, Prediction::V] {
                let at = |i: usize| Level::vp(0.9 - 0.1 * i as f64, -1.0 + 0.3 * i as f64);
                let mut solver = Pndm::new(Settings { start, space, even: false }).unwrap();
                let mut x = at(0).alpha * 0.9 + at(0).sigma * 0.5;
                if space == Prediction::V && start == Start::RungeKutta {
                    continue;
                }
                for i in 0..6 {
                    x = step(&mut solver, (at(i), at(i + 1)), (i, 7), (x, 0.9), 0.0);
                }
                if space == Prediction::Eps {
                    let wanted = at(6).alpha * 0.9 + at(6).sigma * 0.5;
                    assert!((x - wanted).abs() < 1e-13, "{start:?} {space:?}");
                }
            }
        }
        let x0 = Settings { space: Prediction::X0, ..Settings::default() };
        assert!(Pndm::new(x0).is_err());
    }
}
