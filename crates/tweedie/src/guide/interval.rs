//! Guidance in an interval of noise levels only.
//!
//! Kynkaanniemi et al., "Applying Guidance in a Limited Interval Improves Sample and Distribution
//! Quality in Diffusion Models", 2024, [arXiv:2404.07724](https://arxiv.org/abs/2404.07724),
//! equation 3.
//!
//! ```text
//! x0 = guided    where  low < sigma_edm <= high
//! x0 = x0_cond   elsewhere
//! ```
//!
//! It stands around another guide, which it asks inside the interval only; elsewhere the network is
//! asked without any guide, at the price of one evaluation. Rows of one call may fall on either
//! side.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::{Entry, Guide};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "interval",
    seam: Seam::Guide,
    title: "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models",
    source: "2404.07724",
    year: 2024,
    what: "guidance in an interval of noise levels only",
    aliases: &["guidance_interval"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Interval>()?.checked()?)),
    defaults: defaults_of::<Interval>,
    known_failures: &[],
};

/// Guidance in an interval of noise levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Interval {
    /// Below and at this `sigma_edm` there is no guidance. The default, 0.28, is the paper's for
    /// ImageNet at 512x512.
    pub low: f64,
    /// Above this `sigma_edm` there is no guidance. The default, 2.9, is the paper's for ImageNet
    /// at 512x512.
    pub high: f64,
}

impl Default for Interval {
    fn default() -> Self {
        Self { low: 0.28, high: 2.9 }
    }
}

impl Interval {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        if self.low >= 0.0 && self.low < self.high {
            return Ok(self);
        }
        let why = format!("{} and {}, wanted 0 <= low < high", self.low, self.high);
        Err(Error::setting("interval:low, high", why))
    }

    fn holds(&self, sigma: f64) -> bool {
        self.low < sigma && sigma <= self.high
    }
}

impl Guide for Interval {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let Some(plain) = model.unguided() else {
            return Err(Error::unsupported("interval", "a guide inside it, such as `cfg`"));
        };
        let rows = 0..x.batch();
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            rows.partition(|&row| self.holds(at.row(row).sigma_edm()));
        if outside.is_empty() {
            return model.x0(x, at, cond, pass);
        }
        if inside.is_empty() {
            return plain.x0(x, at, cond, pass);
        }
        let mut part = |model: &dyn Denoiser, rows: &[usize]| {
            let of = rows.iter().map(|&r| pass.rows[r]).collect();
            let (x, at, cond) = (x.select(rows), at.select(rows), cond.select(rows));
            pass.over_rows(of, |pass| model.x0(&x, &at, &cond, pass))
        };
        let parts = [part(model, &inside)?, part(plain, &outside)?];
        let mut order = vec![0; x.batch()];
        for (from, &to) in inside.iter().chain(&outside).enumerate() {
            order[to] = from;
        }
        Ok(State::cat(&parts)?.select(&order))
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::testing::{Says, ask};
    use crate::guide::{Cfg, Guided};
    use crate::level::Level;

    #[test]
    fn outside_it_costs_one_evaluation() {
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let mut inner = Cfg { weight: 3.0 };
        let guided = Guided::new(&mut inner, &model);
        let mut guide = Interval::default();
        let at = |sigma: f64| Level::new(0.5, 1.0, sigma);
        assert_eq!(ask(&mut guide, &guided, at(1.0)), (vec![2.0, 0.0], 2));
        assert_eq!(ask(&mut guide, &guided, at(0.28)), (vec![1.0, 2.0], 1));
        assert_eq!(ask(&mut guide, &guided, at(2.91)), (vec![1.0, 2.0], 1));
    }
}
