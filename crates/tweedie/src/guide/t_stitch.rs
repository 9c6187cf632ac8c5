//! T-Stitch: a small model walks the noisy part of the way, the large one the rest.
//!
//! Pan et al., "T-Stitch: Accelerating Sampling in Pre-Trained Diffusion Models with Trajectory
//! Stitching", 2024, [arXiv:2402.14167](https://arxiv.org/abs/2402.14167), section 3.2.
//!
//! ```text
//! x0 = x0_small where t >= 1 - share, else x0_model
//! ```
//!
//! In the noisy part models of one data set say nearly the same, whatever their size. Both are asked
//! with the same condition and walk one path, and what a sampler remembers goes on over the switch.
//! The share is one of times, as in the authors' program for DiT; on a grid that is uneven in time it
//! is not the share of steps. Put it innermost (last), so that guidance is each model's own. The small
//! model is the run's second model, or given to [`TStitch::new`].

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::{Entry, Guide, second};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "t-stitch",
    seam: Seam::Guide,
    title: "T-Stitch: Accelerating Sampling in Pre-Trained Diffusion Models with Trajectory Stitching",
    source: "2402.14167",
    year: 2024,
    what: "a small model for the noisy part of the way",
    aliases: &[],
    ledger: "t-stitch",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(TStitch { small: None, settings: s.read::<Settings>()?.checked()? })),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of T-Stitch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The share of the path's time, from the noisy end, that the small model walks: 0 is the model
    /// alone, 1 the small one alone. The default, 0.4, is what the paper finds to cost no quality.
    pub share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { share: 0.4 }
    }
}

impl Settings {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        if (0.0..=1.0).contains(&self.share) {
            return Ok(self);
        }
        Err(Error::setting("t-stitch:share", format!("{} is not in 0..=1", self.share)))
    }
}

/// T-Stitch.
#[derive(Clone)]
pub struct TStitch {
    small: Option<Arc<dyn Denoiser>>,
    settings: Settings,
}

impl fmt::Debug for TStitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TStitch").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TStitch {
    /// Lets `small` walk the noisy part.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(small: Arc<dyn Denoiser>, settings: Settings) -> Result<Self> {
        Ok(Self { small: Some(small), settings: settings.checked()? })
    }
}

impl Guide for TStitch {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let share = self.settings.share;
        // A share of 0 leaves the model alone at pure noise too.
        let early = |i: usize| share > 0.0 && at.row(i).t >= 1.0 - share;
        let rows: Vec<bool> = (0..x.batch()).map(early).collect();
        if !rows.contains(&true) {
            return model.x0(x, at, cond, pass);
        }
        let small = second(self.small.as_ref(), "t-stitch")?;
        // What a tap keeps of one network means nothing in another: the small one has branches of
        // its own.
        let saved = pass.rows.clone();
        pass.rows.iter_mut().for_each(|row| row.branch = row.branch.of_second());
        let walked = small.x0(x, at, cond, pass);
        pass.rows = saved;
        let walked = walked?;
        if !rows.contains(&false) {
            return Ok(walked);
        }
        let factors = |of: bool| -> Vec<f64> {
            rows.iter().map(|row| f64::from(u8::from(*row == of))).collect()
        };
        let rest = model.x0(x, at, cond, pass)?;
        Ok(walked.scaled_rows(&factors(true)) + rest.scaled_rows(&factors(false)))
    }

    fn wants_second(&self) -> bool {
        self.small.is_none() && self.settings.share > 0.0
    }

    fn give_second(&mut self, model: Arc<dyn Denoiser>) {
        self.small = Some(model);
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
    fn the_small_model_walks_the_noisy_part() {
        let model = Says([1.0, 2.0], [0.0, 0.0]);
        let small: Arc<dyn Denoiser> = Arc::new(Says([0.5, 3.0], [9.0, 9.0]));
        let (noisy, clean) = (Level::vp(0.9, 0.2), Level::vp(0.3, 0.9));
        let with = |share| TStitch::new(small.clone(), Settings { share });
        let mut half = with(0.5).unwrap();
        assert_eq!(ask(&mut half, &model, noisy), (vec![0.5, 3.0], 1));
        assert_eq!(ask(&mut half, &model, clean), (vec![1.0, 2.0], 1));
        assert_eq!(ask(&mut with(0.0).unwrap(), &model, Level::vp(1.0, 0.0)), (vec![1.0, 2.0], 1));
        assert_eq!(ask(&mut with(1.0).unwrap(), &model, clean), (vec![0.5, 3.0], 1));
        assert!(with(1.5).is_err() && with(f64::NAN).is_err());
    }

    #[test]
    fn rows_on_both_sides_have_their_own_models() {
        let model = Says([1.0, 2.0], [0.0, 0.0]);
        let small: Arc<dyn Denoiser> = Arc::new(Says([0.5, 3.0], [9.0, 9.0]));
        let mut half = TStitch::new(small, Settings { share: 0.5 }).unwrap();
        let levels = Levels::rows(vec![Level::vp(0.9, 0.2), Level::vp(0.3, 0.9)]);
        let device = burn::tensor::Device::flex();
        let x = State::from_f64(vec![0.0; 4], &[2, 2], &device).unwrap();
        let mut pass = Pass::single(2, Level::vp(0.9, 0.2));
        let cond = Cond::of_class(vec![1, 1]);
        let x0 = half.x0(&model, &x, &levels, &cond, &mut pass).unwrap();
        assert_eq!(x0.to_rows(), [[0.5, 3.0], [1.0, 2.0]]);
    }

    #[test]
    fn without_a_second_model_it_is_refused() {
        let mut guide = (ENTRY.make)(&crate::catalog::Settings::default()).unwrap();
        assert!(guide.wants_second());
        let model = Says([1.0, 2.0], [0.0, 0.0]);
        let x = State::from_f64(vec![0.0; 2], &[1, 2], &burn::tensor::Device::flex()).unwrap();
        let at = Level::vp(0.9, 0.2);
        let mut pass = Pass::single(1, at);
        let said = guide.x0(&model, &x, &Levels::One(at), &Cond::default(), &mut pass);
        assert!(said.err().unwrap().to_string().contains("a second model"));
    }
}
