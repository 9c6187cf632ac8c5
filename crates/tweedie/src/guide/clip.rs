//! The estimate of the clean sample, clipped to the range of the data.
//!
//! Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020,
//! [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), as in the authors' program.
//!
//! ```text
//! x0' = min(max(x0, -range), range)
//! ```
//!
//! Samplers that split the state in data and noise take the noise from the estimate before clipping,
//! as diffusers' DDIM class does of itself.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::{Entry, Guide};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "clip",
    seam: Seam::Guide,
    title: "Denoising Diffusion Probabilistic Models",
    source: "2006.11239",
    year: 2020,
    what: "the estimate clipped to the range of the data",
    aliases: &["clip_sample"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Clip>()?.checked()?)),
    defaults: defaults_of::<Clip>,
    known_failures: &[],
};

/// Clipping to a range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clip {
    /// The largest absolute value. The default, 1, is that of pictures in -1 to 1.
    pub range: f64,
}

impl Default for Clip {
    fn default() -> Self {
        Self { range: 1.0 }
    }
}

impl Clip {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        if self.range.is_finite() && self.range > 0.0 {
            return Ok(self);
        }
        Err(Error::setting("clip:range", format!("{}, wanted a positive number", self.range)))
    }
}

impl Guide for Clip {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let x0 = model.x0(x, at, cond, pass)?;
        pass.uncorrected.get_or_insert_with(|| x0.clone());
        Ok(x0.map(|x| x.clamp(-self.range, self.range)))
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
    fn only_what_is_outside_is_moved() {
        let model = Says([1.5, -0.3], [0.0, 0.0]);
        assert_eq!(ask(&mut Clip::default(), &model, Level::vp(0.5, 0.0)).0, [1.0, -0.3]);
        assert!(Clip { range: 0.0 }.checked().is_err());
    }
}
