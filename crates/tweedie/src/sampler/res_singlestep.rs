//! RES, singlestep: exponential Runge and Kutta methods that meet all conditions of their order.
//!
//! Zhang et al., "Improved Order Analysis and Design of Exponential Integrator for Diffusion Models
//! Sampling", 2023, [arXiv:2308.02157](https://arxiv.org/abs/2308.02157), tableaus of section 3.2 and
//! appendix, after Hochbruck and Ostermann, "Explicit Exponential Runge-Kutta Methods for Semilinear
//! Parabolic Problems", 2005.
//!
//! With `h = lambda(to) - lambda(from)`, stages at `lambda(from) + c_i h`, estimates `k_i` there and
//! `phi_j` at `-h`, or at `-c_i h` where `phi_(j,i)` is written:
//!
//! ```text
//! x_i = sigma_i / sigma_s x + alpha_i h sum_j a_ij k_j       x_t = sigma_t / sigma_s x + alpha_t h sum_i b_i k_i
//!
//! 2 stages:  a_21 = c2 phi_(1,2)      b_2 = phi_2 / c2      b_1 = phi_1 - b_2
//! 3 stages:  a_21 = c2 phi_(1,2)      a_32 = g c2 phi_(2,2) + c3^2 / c2 phi_(2,3)
//!            a_31 = c3 phi_(1,3) - a_32      g = (3 c3^2 - 2 c3) / (c2 (2 - 3 c2))
//!            b_3 = phi_2 / (g c2 + c3)       b_2 = g b_3    b_1 = phi_1 - b_2 - b_3
//! ```
//!
//! The two-stage tableau is `dpm-solver`'s of order 2 with its weight in full. Infinite steps are of
//! order 1, with one evaluation.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::multistep::moments;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "res-singlestep",
    seam: Seam::Sampler,
    title: "Improved Order Analysis and Design of Exponential Integrator for Diffusion Models Sampling",
    source: "2308.02157",
    year: 2023,
    what: "exponential Runge-Kutta methods of two and three stages",
    aliases: &["res_2s", "refined_exp_solver"],
    ledger: "",
    parts: &[&crate::sampler::res::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<ResSinglestep>()?.checked()?)),
    defaults: defaults_of::<ResSinglestep>,
    known_failures: &[],
};

/// RES, singlestep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResSinglestep {
    /// How many evaluations a step takes, 2 or 3, which is its order. The default is 2.
    pub stages: usize,
    /// Where the second stage stands, as a share of the step. The default, 1/2, is the paper's.
    pub c2: f64,
    /// Where the third stage stands. The default is 1.
    pub c3: f64,
}

impl Default for ResSinglestep {
    fn default() -> Self {
        Self { stages: 2, c2: 0.5, c3: 1.0 }
    }
}

impl ResSinglestep {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a count or for places that no method of that order has.
    pub fn checked(self) -> Result<Self> {
        if !(2..=3).contains(&self.stages) {
            let why = format!("{}, wanted 2 or 3", self.stages);
            return Err(Error::setting("res-singlestep:stages", why));
        }
        if !(self.c2 > 0.0 && self.c2 <= 1.0) {
            let why = format!("{}, wanted more than 0 and at most 1", self.c2);
            return Err(Error::setting("res-singlestep:c2", why));
        }
        let (ratio, sum) = self.ratio();
        let inside = self.c3 > 0.0 && self.c3 <= 1.0 && ratio.abs() < 1e6;
        if self.stages == 3 && !(inside && sum.abs() > 1e-6) {
            let why = format!("{} beside c2 = {}, for which there is no method", self.c3, self.c2);
            return Err(Error::setting("res-singlestep:c3", why));
        }
        Ok(self)
    }

    /// `g`, and `g c2 + c3`.
    fn ratio(&self) -> (f64, f64) {
        let (c2, c3) = (self.c2, self.c3);
        let ratio = (3.0 * c3 * c3 - 2.0 * c3) / (c2 * (2.0 - 3.0 * c2));
        (ratio, ratio * c2 + c3)
    }
}

/// `phi_1` and `phi_2` at `-z`.
fn phi(z: f64) -> (f64, f64) {
    let moments = moments(2, z);
    (moments[0], moments[1])
}

/// From `x` at `from` to `to` along `h` times the sum of weighted estimates.
fn along(x: &State, (from, to): (Level, Level), parts: &[(f64, &State)], h: f64) -> State {
    let kept = x.clone() * (to.sigma / from.sigma);
    parts.iter().fold(kept, |sum, (weight, x0)| sum + (*x0).clone() * (to.alpha * h * weight))
}

impl Sampler for ResSinglestep {
    fn claims(&self) -> Claims {
        let stages = self.stages as u8;
        Claims { order: stages, nfe: stages, first: 0, stochastic: false }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to, h) = (step.from, step.to, step.h());
        let k1 = eval.at(&x, from)?;
        if h.is_infinite() {
            let eps = eps_of(&x, &k1, from);
            return Ok(k1 * to.alpha + eps * to.sigma);
        }
        let (c2, c3) = (self.c2, self.c3);
        let stage = |c: f64| step.process.at_lambda(from.lambda() + c * h);
        let second = stage(c2);
        let (phi_12, phi_22) = phi(c2 * h);
        let x2 = along(&x, (from, second), &[(c2 * phi_12, &k1)], h);
        let k2 = eval.at(&x2, second)?;
        let (phi_1, phi_2) = phi(h);
        if self.stages == 2 {
            let b2 = phi_2 / c2;
            return Ok(along(&x, (from, to), &[(phi_1 - b2, &k1), (b2, &k2)], h));
        }
        let (g, sum) = self.ratio();
        let (phi_13, phi_23) = phi(c3 * h);
        let third = if c3 == 1.0 { to } else { stage(c3) };
        let a32 = g * c2 * phi_22 + c3 * c3 / c2 * phi_23;
        let x3 = along(&x, (from, third), &[(c3 * phi_13 - a32, &k1), (a32, &k2)], h);
        let k3 = eval.at(&x3, third)?;
        let b3 = phi_2 / sum;
        let b2 = g * b3;
        Ok(along(&x, (from, to), &[(phi_1 - b2 - b3, &k1), (b2, &k2), (b3, &k3)], h))
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::step;

    #[test]
    fn a_constant_estimate_is_walked_exactly() {
        let (s, t) = (Level::vp(0.6, -0.4), Level::vp(0.4, 0.7));
        for stages in [2, 3] {
            let mut solver = ResSinglestep { stages, ..ResSinglestep::default() };
            let found = step(&mut solver, (s, t), (0, 9), (0.3, 0.9), 0.0);
            let wanted = t.alpha * 0.9 + t.sigma * (0.3 - s.alpha * 0.9) / s.sigma;
            assert!((found - wanted).abs() < 1e-14, "{stages} stages");
        }
    }

    #[test]
    fn places_without_a_method_are_refused() {
        let third = ResSinglestep { stages: 3, ..ResSinglestep::default() };
        for bad in [
            ResSinglestep { stages: 4, ..third.clone() },
            ResSinglestep { c2: 0.0, ..third.clone() },
            ResSinglestep { c2: 2.0 / 3.0, ..third.clone() },
            ResSinglestep { c3: 1.5, ..third.clone() },
        ] {
            assert!(bad.clone().checked().is_err(), "{bad:?}");
        }
        assert!(third.checked().is_ok());
    }
}
