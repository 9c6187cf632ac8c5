//! Several conditions at once: towards some (AND), away from others (NOT).
//!
//! Liu et al., "Compositional Visual Generation with Composable Diffusion Models", 2022,
//! [arXiv:2206.01714](https://arxiv.org/abs/2206.01714), equations 11 and 13, Algorithm 1.
//!
//! ```text
//! x0 = u + weight (c - u) + sum_i weights_i (c_i - u)
//! ```
//!
//! with the estimates `c` under the run's condition, `c_i` under the others and `u` without any. A
//! positive weight asks for a condition, a negative one for its absence. The weights of all estimates
//! sum to one, so the result is the same in `x0`, `eps` and `v`. At clean data the score is that of
//! the product `p(x) prod_i (p(x | c_i) / p(x))^weights_i`; at other levels the sum of noised scores
//! is not the score of the noised product, and samples differ from it.
//!
//! Conditions of a class are settings; others are given to [`Compose::with`].

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass, evaluate_branches};
use crate::error::{Error, Result};
use crate::guide::{Entry, Guide, weight};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "compose",
    seam: Seam::Guide,
    title: "Compositional Visual Generation with Composable Diffusion Models",
    source: "2206.01714",
    year: 2022,
    what: "towards several conditions at once, and away from others",
    aliases: &["composable-diffusion"],
    ledger: "composable-diffusion",
    parts: &[&crate::guide::cfg::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Compose::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of composition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The weight of the run's own condition. The default, 7.5, is the paper's.
    pub weight: f64,
    /// Further conditions, by class. The default is none.
    pub classes: Vec<i64>,
    /// Their weights, one each; 7.5 each where there are none.
    pub weights: Vec<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { weight: 7.5, classes: Vec::new(), weights: Vec::new() }
    }
}

/// A further condition of every row, and its weight.
#[derive(Clone, Debug)]
pub struct Part {
    /// Below 0, its absence is asked for.
    pub weight: f64,
    /// The condition, with as many rows as the run, or a class for every row.
    pub cond: Which,
}

/// A further condition.
#[derive(Clone, Debug)]
pub enum Which {
    /// One class for all rows.
    Class(i64),
    /// A condition a row.
    Rows(Box<Cond>),
}

/// Composition.
#[derive(Clone, Debug)]
pub struct Compose {
    weight: f64,
    parts: Vec<Part>,
}

impl Compose {
    /// Composition of classes.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        let Settings { weight, classes, mut weights } = settings;
        if weights.is_empty() {
            weights = vec![Settings::default().weight; classes.len()];
        }
        if weights.len() != classes.len() {
            let why = format!("{} for {} classes", weights.len(), classes.len());
            return Err(Error::setting("compose:weights", why));
        }
        let part = |(class, weight)| Part { weight, cond: Which::Class(class) };
        Self::with(weight, classes.into_iter().zip(weights).map(part).collect())
    }

    /// Composition of the run's condition with others.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a weight that is not finite.
    pub fn with(own: f64, parts: Vec<Part>) -> Result<Self> {
        weight("compose", own)?;
        for part in &parts {
            weight("compose", part.weight)?;
        }
        Ok(Self { weight: own, parts })
    }

    /// The run's condition with another in its place.
    fn other(which: &Which, cond: &Cond, rows: usize) -> Cond {
        match which {
            Which::Class(class) => {
                Cond { class: Some(vec![*class; rows].into()), negative: None, ..cond.clone() }
            }
            Which::Rows(other) => (**other).clone(),
        }
    }
}

impl Guide for Compose {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let none = cond.class.is_none() && cond.context.is_none() && cond.vector.is_none();
        if none && self.parts.is_empty() {
            return Err(Error::unsupported(
                "compose",
                "a condition: a class, a prompt or a vector",
            ));
        }
        if let Some(Which::Rows(other)) = self.parts.iter().map(|p| &p.cond).find(|w| {
            let rows = |c: &Cond| c.class.as_ref().map(|c| c.len());
            matches!(w, Which::Rows(other) if rows(other).is_some_and(|n| n != x.batch()))
        }) {
            let found = other.class.as_ref().map_or(0, |c| c.len());
            let what = "rows of a further condition".to_owned();
            return Err(Error::Shape { what, wanted: vec![x.batch()], found: vec![found] });
        }
        let without = cond.unconditional();
        let others: Vec<Cond> =
            self.parts.iter().map(|part| Self::other(&part.cond, cond, x.batch())).collect();
        let mut branches = Vec::new();
        if !none {
            branches.push((Branch::Cond, cond));
        }
        for (i, other) in (0_u16..).zip(&others) {
            branches.push((Branch::Part(i), other));
        }
        branches.push((Branch::Uncond, &without));
        let mut estimates = evaluate_branches(model, x, at, &branches, pass)?;
        let Some(u) = estimates.pop() else {
            return Err(Error::unsupported("compose", "an estimate of each branch"));
        };
        let own = (!none).then_some(self.weight);
        let weights = own.into_iter().chain(self.parts.iter().map(|p| p.weight));
        let parts = estimates.into_iter().zip(weights);
        Ok(parts.fold(u.clone(), |sum, (c, weight)| sum + (c - u.clone()) * weight))
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        for part in &mut self.parts {
            if let Which::Rows(cond) = &mut part.cond {
                **cond = cond.select(rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::Cfg;
    use crate::guide::testing::{Says, ask};
    use crate::level::Level;

    #[test]
    fn one_condition_is_cfg_bit_for_bit() {
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let at = Level::vp(0.5, 0.0);
        let one = Compose::new(Settings { weight: 3.7, ..Settings::default() });
        assert_eq!(ask(&mut one.unwrap(), &model, at), ask(&mut Cfg { weight: 3.7 }, &model, at));
    }

    #[test]
    fn a_condition_and_its_absence_cancel() {
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let settings = Settings { weight: 2.0, classes: vec![1, 2], weights: vec![1.0, -3.0] };
        let found = ask(&mut Compose::new(settings).unwrap(), &model, Level::vp(0.5, 0.0));
        assert_eq!(found, (vec![0.5, 3.0], 4));
    }

    #[test]
    fn weights_are_one_each() {
        let settings = Settings { classes: vec![1, 2], weights: vec![1.0], ..Settings::default() };
        assert!(Compose::new(settings).is_err());
        assert!(Compose::new(Settings { weight: f64::NAN, ..Settings::default() }).is_err());
    }
}
