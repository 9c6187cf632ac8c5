//! DPM-Solver and DPM-Solver++, singlestep: blocks of steps that end at the order of the block.
//!
//! Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10
//! Steps", 2022, [arXiv:2206.00927](https://arxiv.org/abs/2206.00927), Algorithms 1 and 2, and
//! "DPM-Solver++", 2022, [arXiv:2211.01095](https://arxiv.org/abs/2211.01095), Algorithm 1.
//!
//! A block has as many steps of the grid as its order. Each is taken anew from the block's first
//! state, with all estimates of the block: the first step of order 1, the second of order 2, the
//! third of order 3. So the estimates inside a block stand at levels of the grid, one evaluation a
//! step, and only a block's last state counts. With `lambda` from the block's first level `b`,
//! `r_i = (lambda_i - lambda_b) / (lambda_t - lambda_b)`, `d_i = (m_i - m_b) / r_i`:
//!
//! ```text
//! order 2:  D1 = d_1, D2 = 0
//! order 3:  D1 = (r_2 d_1 - r_1 d_2) / (r_2 - r_1), D2 = 2 (d_2 - d_1) / (r_2 - r_1)       heun
//!           D1 = d_2, D2 = 0                                                          midpoint
//! ```
//!
//! with the weights of `dpm-solver`. Where the run's length is no multiple of the order, and with
//! `lower_order_final`, the last blocks are of lower order, as in diffusers.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::sampler::dpm_solver::{Space, Weights};
use crate::sampler::dpmpp_2m::Solver;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpm-singlestep",
    seam: Seam::Sampler,
    title: "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",
    source: "2206.00927",
    year: 2022,
    what: "blocks of steps that end at the order of the block",
    aliases: &["DPMSolverSinglestepScheduler", "dpmpp-2s", "dpmpp_2s"],
    ledger: "",
    parts: &[&crate::sampler::dpm_solver::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(DpmSinglestep::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of the singlestep solvers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The order of a block, 1 to 3. The default, 2, is the paper's advice for guided runs.
    pub order: usize,
    /// Which estimate is taken for a polynomial. The default is the data.
    pub space: Space,
    /// Whether fresh noise is drawn, as of the SDE. The default is no.
    pub stochastic: bool,
    /// How slope and curvature enter. The default, midpoint, is the paper's.
    pub solver: Solver,
    /// Whether the last blocks are of lower order. The default, yes, is needed to end at clean data.
    pub lower_order_final: bool,
    /// Whether the curvature of the SDE has the weight that diffusers 0.42 gives it, whose half has
    /// the other sign. The default is no.
    pub other_curve: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            order: 2,
            space: Space::Data,
            stochastic: false,
            solver: Solver::Midpoint,
            lower_order_final: true,
            other_curve: false,
        }
    }
}

/// The singlestep solvers.
#[derive(Clone, Debug)]
pub struct DpmSinglestep {
    settings: Settings,
    /// Levels and estimates, the newest last.
    past: Vec<(Level, State)>,
    /// The state that the block began with.
    begun: Option<State>,
}

impl DpmSinglestep {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order that the paper does not have, or noise in a solver of the
    /// noise.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=3).contains(&settings.order) {
            let why = format!("{}, wanted 1 to 3", settings.order);
            return Err(Error::setting("dpm-singlestep:order", why));
        }
        if settings.stochastic && settings.space == Space::Noise {
            let why = "the SDE is solved in the data";
            return Err(Error::setting("dpm-singlestep:space", why));
        }
        Ok(Self { settings, past: Vec::new(), begun: None })
    }

    /// The place of a step in its block, from 1.
    fn place(&self, index: usize, count: usize, to_clean: bool) -> usize {
        let order = self.settings.order;
        if index + 1 == count && to_clean {
            return 1;
        }
        let lower = self.settings.lower_order_final || !count.is_multiple_of(order);
        let whole = index % order + 1;
        // How many steps stand before the last ones, which are [1, 2, 1] or [1, 1] on whole blocks.
        match (lower, order, count % order) {
            (true, 2 | 3, 0) if index + 1 == count => 1,
            _ => whole,
        }
    }
}

impl Sampler for DpmSinglestep {
    fn claims(&self) -> Claims {
        let order = self.settings.order as u8;
        Claims { order, nfe: 1, first: 0, stochastic: self.settings.stochastic }
    }

    fn reset(&mut self) {
        self.past.clear();
        self.begun = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (to, settings) = (step.to, &self.settings);
        let x0 = eval.at(&x, step.from)?;
        self.past.push((step.from, settings.space.of(&x, &x0, step.from)));
        if self.past.len() > 3 {
            self.past.remove(0);
        }
        let mut place = self.place(step.index, step.count, to.sigma == 0.0).min(self.past.len());
        let first = |place: usize| self.past[self.past.len() - place].0;
        let far = |at: Level| !(to.lambda() - at.lambda()).is_finite();
        if place > 1 && far(first(place)) {
            place = 1;
        }
        let from = first(place);
        if place == 1 || self.begun.is_none() {
            self.begun = Some(x.clone());
        }
        let begun = self.begun.clone().unwrap_or_else(|| x.clone());
        let block = &self.past[self.past.len() - place..];
        let eta = if settings.stochastic { 1.0 } else { 0.0 };
        let weights = Weights::of(from, to, settings.space, eta);
        let h = to.lambda() - from.lambda();
        let (base, inner) = (&block[0].1, &block[1..]);
        let mut next = if settings.space == Space::Noise && h.is_infinite() {
            x0 * to.alpha + base.clone() * to.sigma
        } else {
            begun * weights.x + base.clone() * weights.m
        };
        let parts: Vec<(f64, State)> = inner
            .iter()
            .map(|(at, m)| {
                let r = (at.lambda() - from.lambda()) / h;
                (r, (m.clone() - base.clone()) * (1.0 / r))
            })
            .collect();
        match parts.as_slice() {
            [(_, d)] => next = next + d.clone() * weights.slope_of(settings.solver),
            [(_, _), (_, d)] if settings.solver == Solver::Midpoint => {
                next = next + d.clone() * weights.slope;
            }
            [(r1, d1), (r2, d2)] => {
                let slope = (d1.clone() * *r2 - d2.clone() * *r1) * (1.0 / (r2 - r1));
                let curve = (d2.clone() - d1.clone()) * (2.0 / (r2 - r1));
                let wrong = settings.other_curve && settings.stochastic;
                let bend = weights.curve - if wrong { to.alpha } else { 0.0 };
                next = next + slope * weights.slope + curve * bend;
            }
            _ => {}
        }
        if weights.std == 0.0 {
            return Ok(next);
        }
        Ok(next.clone() + noise.draw(&next)? * weights.std)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        for (_, m) in &mut self.past {
            *m = m.select(rows);
        }
        self.begun = self.begun.take().map(|x| x.select(rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orders_of_short_runs_are_those_of_the_authors() {
        let orders = |order: usize, count: usize, lower_order_final: bool| {
            let settings = Settings { order, lower_order_final, ..Settings::default() };
            let solver = DpmSinglestep::new(settings).unwrap();
            (0..count).map(|i| solver.place(i, count, false)).collect::<Vec<_>>()
        };
        assert_eq!(orders(3, 6, true), [1, 2, 3, 1, 2, 1]);
        assert_eq!(orders(3, 7, true), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(orders(3, 8, true), [1, 2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(orders(3, 6, false), [1, 2, 3, 1, 2, 3]);
        assert_eq!(orders(2, 6, true), [1, 2, 1, 2, 1, 1]);
        assert_eq!(orders(2, 5, true), [1, 2, 1, 2, 1]);
        assert_eq!(orders(2, 4, false), [1, 2, 1, 2]);
    }
}
