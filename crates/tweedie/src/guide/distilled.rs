//! Guidance that the network was taught: it is told the weight, and asked once.
//!
//! Meng et al., "On Distillation of Guided Diffusion Models", 2023,
//! [arXiv:2210.03142](https://arxiv.org/abs/2210.03142), section 3.1: a student learns the guided
//! estimate of its teacher for every weight `w`, which goes in as an embedding beside the time.
//! Latent consistency models (Luo et al., 2023, [arXiv:2310.04378](https://arxiv.org/abs/2310.04378))
//! are told it so.
//!
//! ```text
//! x0 = x0_student(x, level, condition, weight)
//! ```
//!
//! Their `w` is one less than `weight`, which is the `guidance_scale` of the field. The negative
//! condition has no part in it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::{Entry, Guide, weight};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "distilled",
    seam: Seam::Guide,
    title: "On Distillation of Guided Diffusion Models",
    source: "2210.03142",
    year: 2023,
    what: "the network is told the guidance weight and asked once",
    aliases: &["guidance-distilled"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Distilled>()?.checked()?)),
    defaults: defaults_of::<Distilled>,
    known_failures: &[],
};

/// Guidance that the network was taught.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distilled {
    /// What the network is told. The default, 8.5, is that of the published pipeline of latent
    /// consistency models.
    pub weight: f64,
}

impl Default for Distilled {
    fn default() -> Self {
        Self { weight: 8.5 }
    }
}

impl Distilled {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        weight("distilled", self.weight)?;
        Ok(self)
    }
}

impl Guide for Distilled {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        if !model.is_told_guidance() {
            return Err(Error::unsupported("distilled", "a network that was taught guidance"));
        }
        let guidance: Arc<[f64]> = vec![self.weight; x.batch()].into();
        let told = Cond { guidance: Some(guidance), ..cond.clone() };
        pass.on_branch(Branch::Cond, at, |pass| model.x0(x, at, &told, pass))
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::guide::testing::{Says, ask};
    use crate::level::Level;

    /// Says the weight that it is told.
    struct Repeats;

    impl Denoiser for Repeats {
        fn x0(&self, x: &State, _: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
            pass.count_forward();
            let told = cond.guidance.as_ref().map_or(0.0, |g| g[0]);
            assert_eq!(cond.guidance.as_ref().map_or(0, |g| g.len()), x.batch());
            Ok(x.map(|x| x.zeros_like() + told))
        }

        fn is_told_guidance(&self) -> bool {
            true
        }
    }

    #[test]
    fn the_weight_is_told_and_asked_once() {
        let at = Level::vp(0.5, 0.0);
        let (said, spent) = ask(&mut Distilled { weight: 7.5 }, &Repeats, at);
        assert!(said.iter().all(|v| *v == 7.5) && spent == 1);
        assert!(Distilled { weight: f64::NAN }.checked().is_err());
    }

    #[test]
    fn a_network_that_was_not_taught_is_refused() {
        let x = State::from_f64(vec![0.1, -0.2], &[1, 2], &Device::flex()).unwrap();
        let at = Level::vp(0.5, 0.0);
        let (plain, mut pass) = (Says([1.0, 2.0], [0.5, 3.0]), Pass::single(1, at));
        let said = Distilled::default().x0(&plain, &x, &at.into(), &Cond::default(), &mut pass);
        assert!(said.unwrap_err().to_string().contains("taught guidance"));
    }
}
