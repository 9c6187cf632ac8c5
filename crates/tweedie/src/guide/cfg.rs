//! Classifier-free guidance: away from the estimate without the condition.
//!
//! Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022,
//! [arXiv:2207.12598](https://arxiv.org/abs/2207.12598), equation 6. Their `w` is one less than
//! `weight`, which is the `guidance_scale` of the field.
//!
//! ```text
//! x0 = x0_uncond + weight (x0_cond - x0_uncond)
//! ```
//!
//! The weights sum to one, so the result is the same in `x0`, `eps` and `v`. With `weight = 1` the
//! branch without the condition is not asked, with 0 the one with it is not. The unconditional
//! branch takes the negative condition where there is one.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass, evaluate_branches};
use crate::error::{Error, Result};
use crate::guide::{Entry, Guide, weight};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "cfg",
    seam: Seam::Guide,
    title: "Classifier-Free Diffusion Guidance",
    source: "2207.12598",
    year: 2022,
    what: "away from the estimate without the condition",
    aliases: &["classifier-free", "cfg_scale", "guidance_scale"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Cfg>()?.checked()?)),
    defaults: defaults_of::<Cfg>,
    known_failures: &[],
};

/// Classifier-free guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cfg {
    /// 1 is the condition as it is, 0 ignores it. The paper finds 1.1 to 5 best, by what is asked;
    /// the default, 4, is one of the values that it draws samples with (its `w = 3`).
    pub weight: f64,
}

impl Default for Cfg {
    fn default() -> Self {
        Self { weight: 4.0 }
    }
}

impl Cfg {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        weight("cfg", self.weight)?;
        Ok(self)
    }
}

/// The estimates with and without the condition; both are asked.
pub(crate) fn both(
    part: &str,
    model: &dyn Denoiser,
    x: &State,
    at: &Levels,
    cond: &Cond,
    pass: &mut Pass,
) -> Result<(State, State)> {
    let none = cond.class.is_none() && cond.context.is_none() && cond.vector.is_none();
    if none && cond.negative.is_none() {
        return Err(Error::unsupported(part, "a condition: a class, a prompt or a vector"));
    }
    let without = cond.unconditional();
    let branches = [(Branch::Cond, cond), (Branch::Uncond, &without)];
    let mut both = evaluate_branches(model, x, at, &branches, pass)?.into_iter();
    match (both.next(), both.next()) {
        (Some(with), Some(without)) => Ok((with, without)),
        _ => Err(Error::unsupported(part, "an estimate of each branch")),
    }
}

impl Guide for Cfg {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        if self.weight == 1.0 {
            return pass.on_branch(Branch::Cond, at, |pass| model.x0(x, at, cond, pass));
        }
        if self.weight == 0.0 {
            let without = cond.unconditional();
            return pass.on_branch(Branch::Uncond, at, |pass| model.x0(x, at, &without, pass));
        }
        let (with, without) = both("cfg", model, x, at, cond, pass)?;
        Ok(without.clone() + (with - without) * self.weight)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::testing::{Says, ask};
    use crate::level::Level;

    #[test]
    fn the_weight_is_the_fields_and_not_the_papers() {
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let at = Level::vp(0.5, 0.0);
        assert_eq!(ask(&mut Cfg { weight: 3.0 }, &model, at), (vec![2.0, 0.0], 2));
        assert_eq!(ask(&mut Cfg { weight: 1.0 }, &model, at), (vec![1.0, 2.0], 1));
        assert_eq!(ask(&mut Cfg { weight: 0.0 }, &model, at), (vec![0.5, 3.0], 1));
        assert!(Cfg { weight: f64::INFINITY }.checked().is_err());
    }
}
