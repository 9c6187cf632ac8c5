//! Autoguidance: away from a weaker version of the model itself.
//!
//! Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", 2024,
//! [arXiv:2406.02507](https://arxiv.org/abs/2406.02507), equation 4.
//!
//! ```text
//! x0 = x0_weak + weight (x0_model - x0_weak)
//! ```
//!
//! Both are asked with the same condition; with none it guides unconditional models too. The weak
//! model is a smaller or less trained one of the same data: the run's second model, or an argument of
//! [`Autoguidance::new`].

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass};
use crate::error::Result;
use crate::guide::{Entry, Guide, second, weight};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "autoguidance",
    seam: Seam::Guide,
    title: "Guiding a Diffusion Model with a Bad Version of Itself",
    source: "2406.02507",
    year: 2024,
    what: "away from a weaker version of the model",
    aliases: &[],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Autoguidance { weak: None, settings: s.read::<Settings>()?.checked()? })),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of autoguidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// 1 is the model as it is. The default, 2, is near what the paper finds best.
    pub weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { weight: 2.0 }
    }
}

impl Settings {
    fn checked(self) -> Result<Self> {
        weight("autoguidance", self.weight)?;
        Ok(self)
    }
}

/// Autoguidance.
#[derive(Clone)]
pub struct Autoguidance {
    weak: Option<Arc<dyn Denoiser>>,
    settings: Settings,
}

impl fmt::Debug for Autoguidance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Autoguidance").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Autoguidance {
    /// Guides away from `weak`.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(weak: Arc<dyn Denoiser>, settings: Settings) -> Result<Self> {
        Ok(Self { weak: Some(weak), settings: settings.checked()? })
    }
}

impl Guide for Autoguidance {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let strong = model.x0(x, at, cond, pass)?;
        if self.settings.weight == 1.0 {
            return Ok(strong);
        }
        let weak = second(self.weak.as_ref(), "autoguidance")?;
        let weak = pass.on_branch(Branch::Weak, at, |pass| weak.x0(x, at, cond, pass))?;
        Ok(weak.clone() + (strong - weak) * self.settings.weight)
    }

    fn wants_second(&self) -> bool {
        self.weak.is_none() && self.settings.weight != 1.0
    }

    fn give_second(&mut self, model: Arc<dyn Denoiser>) {
        self.weak = Some(model);
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
    fn the_weak_model_is_left_behind() {
        let model = Says([1.0, 2.0], [0.0, 0.0]);
        let weak: Arc<dyn Denoiser> = Arc::new(Says([0.5, 3.0], [9.0, 9.0]));
        let at = Level::vp(0.5, 0.0);
        let with = |weight| Autoguidance::new(weak.clone(), Settings { weight });
        assert_eq!(ask(&mut with(3.0).unwrap(), &model, at), (vec![2.0, 0.0], 2));
        assert_eq!(ask(&mut with(1.0).unwrap(), &model, at), (vec![1.0, 2.0], 1));
        assert!(with(f64::NAN).is_err());
    }
}
