//! DPM-Solver and DPM-Solver++, multistep, of order 1 to 3, of the flow or of the SDE.
//!
//! Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
//! 2022, [arXiv:2211.01095](https://arxiv.org/abs/2211.01095), and "DPM-Solver: A Fast ODE Solver
//! for Diffusion Probabilistic Model Sampling in Around 10 Steps", 2022,
//! [arXiv:2206.00927](https://arxiv.org/abs/2206.00927), in the forms of the authors' program.
//!
//! With `h = lambda(to) - lambda(from)`, estimates `m0`, `m1`, `m2` of this and the steps before,
//! their distances `h0`, `h1`, `r_i = h_i / h`, `d = (m0 - m1) / r0` and `d' = (m1 - m2) / r1`:
//!
//! ```text
//! x_t = sigma_t / sigma_s x + w m0 + w1 D1 + w2 D2                       space=data, m = x0
//! x_t = alpha_t / alpha_s x + w m0 + w1 D1 + w2 D2                       space=noise, m = eps
//! order 2:  D1 = d, D2 = 0      order 3:  D1 = d + r0 / (r0 + r1) (d - d'), D2 = (d - d') / (r0 + r1)
//! ```
//!
//! The weights are in [`Weights`]. `dpmpp-2m` is order 2 of the data without noise and `dpmpp-2m-sde`
//! with it. The first step is of order 1, which limits a run to order 2.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::dpmpp_2m::{FEW, Solver};
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpm-solver",
    seam: Seam::Sampler,
    title: "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    source: "2211.01095",
    year: 2022,
    what: "multistep solvers of order 1 to 3 in data or noise, of the flow or the SDE",
    aliases: &["dpmpp_3m", "dpmpp-3m", "DPM++ 3M"],
    ledger: "",
    parts: &[&crate::sampler::dpmpp_2m::CARD, &crate::sampler::dpmpp_2m_sde::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(DpmSolver::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// Which estimate a solver takes for a polynomial of `lambda`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// The clean sample: DPM-Solver++.
    #[default]
    Data,
    /// The noise: DPM-Solver.
    Noise,
}

impl Space {
    /// The estimate in this space.
    pub(crate) fn of(self, x: &State, x0: &State, at: Level) -> State {
        match self {
            Self::Data => x0.clone(),
            Self::Noise => eps_of(x, x0, at),
        }
    }
}

/// What multiplies the state, the estimate, its slope and its curvature over a step, and the noise.
///
/// ```text
/// data, g = (1 + eta) h:
///   x = sigma_t / sigma_s e^(h - g), m = alpha_t (1 - e^-g), slope = alpha_t (1 - (1 - e^-g) / g)
///   curve = alpha_t (1/2 - (e^-g - 1 + g) / g^2), std = sigma_t sqrt(1 - e^(-2 eta h))
/// noise, times 1 + eta:
///   x = alpha_t / alpha_s, m = -sigma_t (e^h - 1), slope = -sigma_t ((e^h - 1) / h - 1)
///   curve = -sigma_t ((e^h - 1 - h) / h^2 - 1/2), std = sigma_t sqrt(eta (e^(2 h) - 1))
/// ```
///
/// with `eta = 0` of the flow and 1 of the SDE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub(crate) x: f64,
    pub(crate) m: f64,
    pub(crate) slope: f64,
    pub(crate) curve: f64,
    pub(crate) std: f64,
}

impl Weights {
    pub(crate) fn of(from: Level, to: Level, space: Space, eta: f64) -> Self {
        let h = to.lambda() - from.lambda();
        match space {
            Space::Data => {
                // Infinite steps: 0 times infinity is 0 here, no noise is no damping.
                let damp = if eta == 0.0 { 0.0 } else { eta * h };
                let g = h + damp;
                let fall = (-g).exp_m1();
                Self {
                    x: to.sigma / from.sigma * (-damp).exp(),
                    m: -to.alpha * fall,
                    slope: to.alpha * (fall / g + 1.0),
                    curve: to.alpha * (0.5 - (fall + g) / (g * g)),
                    std: to.sigma * (-(-2.0 * damp).exp_m1()).sqrt(),
                }
            }
            Space::Noise => {
                // sigma_t e^h without infinity.
                let m = to.sigma - to.alpha * from.sigma_edm();
                let twice = 1.0 + eta;
                let wide = if eta == 0.0 { 0.0 } else { (eta * (2.0 * h).exp_m1()).sqrt() };
                Self {
                    x: to.alpha / from.alpha,
                    m: twice * m,
                    slope: twice * (m / h + to.sigma),
                    curve: m / (h * h) + to.sigma / h + 0.5 * to.sigma,
                    std: to.sigma * wide,
                }
            }
        }
    }

    /// The weight of the slope: exact for a linear estimate, or as if its value in the middle held.
    pub(crate) fn slope_of(&self, solver: Solver) -> f64 {
        match solver {
            Solver::Midpoint => 0.5 * self.m,
            Solver::Heun => self.slope,
        }
    }
}

/// The settings of the multistep solvers.
#[expect(clippy::struct_excessive_bools, reason = "settings as people write them")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The order, 1 to 3. The default is 3; the paper advises 2 for strong guidance.
    pub order: usize,
    /// Which estimate is taken for a polynomial. The default is the data.
    pub space: Space,
    /// Whether fresh noise is drawn, as of the SDE. The default is no.
    pub stochastic: bool,
    /// How much noise the SDE's steps draw, 1 for the reverse SDE; it counts where `stochastic` is on.
    /// The default is 1.
    pub eta: f64,
    /// The standard deviation of the noise. The default is 1.
    pub s_noise: f64,
    /// How the slope enters a step of order 2. The default, midpoint, is the paper's.
    pub solver: Solver,
    /// Whether the order runs down at the end of a run of fewer than 15 steps. The default, yes, is
    /// the paper's advice.
    pub lower_order_final: bool,
    /// Whether the last step is of order 1. The default is no; a step to clean data always is.
    pub euler_at_final: bool,
    /// Whether the curvature of the SDE has the weight that diffusers 0.42 gives it, whose half has
    /// the other sign; it spoils the order. The default is no.
    pub other_curve: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            order: 3,
            space: Space::Data,
            stochastic: false,
            eta: 1.0,
            s_noise: 1.0,
            solver: Solver::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            other_curve: false,
        }
    }
}

/// The multistep solvers.
#[derive(Clone, Debug)]
pub struct DpmSolver {
    settings: Settings,
    /// Levels and estimates, the newest last.
    past: Vec<(Level, State)>,
}

impl DpmSolver {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order that the papers do not have.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=3).contains(&settings.order) {
            let why = format!("{}, wanted 1 to 3", settings.order);
            return Err(Error::setting("dpm-solver:order", why));
        }
        at_least_zero("dpm-solver:eta", settings.eta)?;
        at_least_zero("dpm-solver:s_noise", settings.s_noise)?;
        Ok(Self { settings, past: Vec::new() })
    }

    fn eta(&self) -> f64 {
        if self.settings.stochastic { self.settings.eta } else { 0.0 }
    }

    /// The order of a step that has the estimates it needs.
    fn order(&self, index: usize, count: usize, clean: bool) -> usize {
        let few = self.settings.lower_order_final && count < FEW;
        let end = few || self.settings.euler_at_final || clean;
        let most = match count - index {
            1 if end => 1,
            2 if few => 2,
            _ => 3,
        };
        self.settings.order.min(most)
    }

    /// The SDE in the noise, which the papers solve to order 2 and only between ends that hold both
    /// signal and noise. A run that would come to a step of order 3 is refused before it begins.
    fn check_noise_sde(&self, step: &Step<'_>) -> Result<()> {
        let method = "dpm-solver:space=noise,stochastic=true";
        if step.h().is_infinite() {
            let needs = "ends that hold both signal and noise, as the SDE in the noise does";
            return Err(Error::unsupported(method, needs));
        }
        let mut later = (step.index + 2..step.count).map(|i| self.order(i, step.count, false));
        if self.past.is_empty() && later.any(|order| order == 3) {
            let needs = "order 1 or 2, or steps so few that none is of order 3 \
                         (four with lower_order_final)";
            return Err(Error::unsupported(method, needs));
        }
        Ok(())
    }
}

/// The slope and the curvature over a step of length `h` from estimates at `lambda`s, newest last;
/// of order 3 where there are three finite ones, of order 2 where there are two.
fn differences(past: &[(Level, State)], h: f64, order: usize) -> Option<(State, Option<State>)> {
    let step = |i: usize| {
        let [(at1, m1), (at0, m0)] = past.get(past.len().checked_sub(i + 2)?..)?.get(..2)? else {
            return None;
        };
        let r = (at0.lambda() - at1.lambda()) / h;
        r.is_finite().then(|| (r, (m0.clone() - m1.clone()) * (1.0 / r)))
    };
    if order < 2 || !h.is_finite() {
        return None;
    }
    let (r0, d) = step(0)?;
    match step(1).filter(|_| order > 2) {
        None => Some((d, None)),
        Some((r1, before)) => {
            let bend = (d.clone() - before) * (1.0 / (r0 + r1));
            Some((d + bend.clone() * r0, Some(bend)))
        }
    }
}

impl Sampler for DpmSolver {
    fn claims(&self) -> Claims {
        let order = self.settings.order.min(2) as u8;
        let stochastic = self.eta() * self.settings.s_noise > 0.0;
        Claims { order, nfe: 1, first: 0, stochastic }
    }

    fn reset(&mut self) {
        self.past.clear();
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to, settings) = (step.from, step.to, &self.settings);
        if settings.space == Space::Noise && settings.stochastic {
            self.check_noise_sde(step)?;
        }
        let x0 = eval.at(&x, from)?;
        let m = settings.space.of(&x, &x0, from);
        let order = self.order(step.index, step.count, to.sigma == 0.0);
        self.past.push((from, m.clone()));
        if self.past.len() > 3 {
            self.past.remove(0);
        }
        let weights = Weights::of(from, to, settings.space, self.eta());
        let mut next = if settings.space == Space::Noise && step.h().is_infinite() {
            x0 * to.alpha + m * to.sigma
        } else {
            x * weights.x + m * weights.m
        };
        match differences(&self.past, step.h(), order) {
            None => {}
            Some((slope, None)) => next = next + slope * weights.slope_of(settings.solver),
            Some((slope, Some(curve))) => {
                let wrong = settings.other_curve && settings.stochastic;
                let bend = weights.curve - if wrong { to.alpha } else { 0.0 };
                next = next + slope * weights.slope + curve * bend;
            }
        }
        let std = weights.std * settings.s_noise;
        if std == 0.0 {
            return Ok(next);
        }
        Ok(next.clone() + noise.over(&next, from.sigma_edm(), to.sigma_edm())? * std)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        for (_, m) in &mut self.past {
            *m = m.select(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::{ends_at, step, try_step};

    fn solver(order: usize, space: Space) -> DpmSolver {
        let settings = Settings { order, space, lower_order_final: false, ..Settings::default() };
        DpmSolver::new(settings).unwrap()
    }

    #[test]
    fn a_constant_estimate_is_walked_exactly() {
        let at = |i: usize| Level::vp(0.9 - 0.1 * i as f64, -1.0 + 0.3 * i as f64);
        for order in 1..=3 {
            let mut solver = solver(order, Space::Data);
            let mut x = at(0).alpha * 0.9 + at(0).sigma * 0.5;
            for i in 0..5 {
                x = step(&mut solver, (at(i), at(i + 1)), (i, 5), (x, 0.9), 0.0);
            }
            assert!((x - (at(5).alpha * 0.9 + at(5).sigma * 0.5)).abs() < 1e-14, "order {order}");
        }
    }

    #[test]
    fn the_ends_are_comfyuis() {
        // ComfyUI (October 2025), sample_dpmpp_3m_sde with eta 1 and 0.5.
        let of = |eta: f64| {
            let settings = Settings { stochastic: true, eta, ..Settings::default() };
            let settings = Settings { solver: Solver::Heun, lower_order_final: false, ..settings };
            DpmSolver::new(settings).unwrap()
        };
        ends_at(&mut of(1.0), 0.399_191_389_909_958);
        ends_at(&mut of(0.5), 0.811_166_758_694_197);
    }

    #[test]
    fn the_two_spaces_have_one_first_step() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let ends = [Space::Data, Space::Noise]
            .map(|space| step(&mut solver(1, space), (s, t), (0, 9), (0.3, 0.9), 0.0));
        assert!((ends[0] - ends[1]).abs() < 1e-14);
    }

    #[test]
    fn what_the_papers_do_not_have_is_refused() {
        for order in [0, 4] {
            assert!(DpmSolver::new(Settings { order, ..Settings::default() }).is_err());
        }
    }

    #[test]
    fn the_sde_in_the_noise_runs_until_a_step_of_order_three() {
        let third = Settings { space: Space::Noise, stochastic: true, ..Settings::default() };
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        let first = |index: usize, count: usize| {
            let mut solver = DpmSolver::new(third.clone()).unwrap();
            try_step(&mut solver, (s, t), (index, count), (0.3, 0.9), 0.0)
        };
        assert!(first(0, 4).is_ok());
        assert!(first(16, 20).is_err(), "two estimates before the last two steps");
        assert!(first(18, 20).is_ok(), "starting late there are never three estimates");
        let said = first(0, 5).unwrap_err().to_string();
        assert!(said.contains("order 3"), "{said}");
    }
}
