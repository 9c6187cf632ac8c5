//! The midpoint method in `sigma_edm`, with the middle taken in its logarithm.
//!
//! k-diffusion's `sample_dpm_2` (Crowson 2022), after Algorithm 2 of Karras et al. 2022
//! ([arXiv:2206.00364](https://arxiv.org/abs/2206.00364)) and DPM-Solver-2.
//!
//! ```text
//! m   = sqrt(s t)                      y_m = y + (m - s) d(y, s)
//! y_t = y + (t - s) d(y_m, m)          d(y, s) = (y - x0(y, s)) / s, y = x / alpha
//! ```
//!
//! A step to clean data, or from pure noise, is Euler's. Where a part of the state is kept, diffusers'
//! pipelines put it into `y_m` at the level `t` where the step ends, not at `m`; so does this sampler,
//! for the same picture.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::process::Process;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpm2",
    seam: Seam::Sampler,
    title: "k-diffusion",
    source: "Crowson, k-diffusion, 2022",
    year: 2022,
    what: "midpoint method in sigma_edm",
    aliases: &["dpm_2", "k_dpm_2", "KDPM2DiscreteScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Dpm2>()?)),
    defaults: defaults_of::<Dpm2>,
    known_failures: &[],
};

/// The midpoint method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpm2 {}

/// The slope in the middle, in `ln sigma_edm`, of the way from `from` to the EDM level `down`.
pub(crate) fn slope_between(
    eval: &mut dyn Eval,
    process: &dyn Process,
    (x0, eps): (&State, &State),
    from: Level,
    down: f64,
) -> Result<State> {
    let middle = process.at_lambda(0.5 * (from.lambda() - down.ln()));
    let x = x0.clone() * middle.alpha + eps.clone() * middle.sigma;
    let x0 = eval.at(&x, middle)?;
    Ok(eps_of(&x, &x0, middle))
}

impl Sampler for Dpm2 {
    fn claims(&self) -> Claims {
        Claims { order: 2, nfe: 2, first: 0, stochastic: false }
    }

    fn kept_on_the_way(&self, step: &Step<'_>) -> Option<Level> {
        Some(step.to)
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
        if to.sigma == 0.0 || from.alpha == 0.0 {
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        let slope = slope_between(eval, step.process, (&x0, &eps), from, to.sigma_edm())?;
        let stride = to.sigma_edm() - from.sigma_edm();
        Ok(x * (to.alpha / from.alpha) + slope * (stride * to.alpha))
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::VpLinear;
    use crate::sampler::testing::step;

    #[test]
    fn the_middle_is_the_geometric_mean() {
        let path = VpLinear::default();
        let (s, t) = (path.at_lambda(-0.5), path.at_lambda(0.9));
        let found = step(&mut Dpm2 {}, (s, t), (0, 9), (0.3, 0.9), 0.0);
        // With a constant estimate every slope is that of the straight line to it.
        let wanted = t.alpha * 0.9 + t.sigma * (0.3 - s.alpha * 0.9) / s.sigma;
        assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
    }
}
