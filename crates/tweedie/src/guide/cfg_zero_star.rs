//! Classifier-free guidance with an optimised scale, and without a velocity in the first steps.
//!
//! Fan et al., "CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models", 2025,
//! [arXiv:2503.18886](https://arxiv.org/abs/2503.18886), equations 10 to 14 and Algorithm 1.
//!
//! With the network's velocities `c` and `u` with and without the condition:
//!
//! ```text
//! s = (c . u) / (u . u)         over a whole sample
//! v = s u + weight (c - s u)
//! v = 0                         in the first zero_steps steps
//! ```
//!
//! Where the velocity is 0 the state stays, in the scale of the space, and the network is not asked.
//! The result depends on what the output means; the paper's networks predict the velocity of a flow.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass};
use crate::error::Result;
use crate::guide::cfg::both;
use crate::guide::{Entry, Guide, weight};
use crate::level::Levels;
use crate::prediction::Prediction;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "cfg-zero-star",
    seam: Seam::Guide,
    title: "CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models",
    source: "2503.18886",
    year: 2025,
    what: "guidance with an optimised scale, and none of the first steps",
    aliases: &["CFG-Zero*", "CFGZeroStar", "ClassifierFreeZeroStarGuidance"],
    ledger: "",
    parts: &[&crate::guide::cfg::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<CfgZeroStar>()?.checked()?)),
    defaults: defaults_of::<CfgZeroStar>,
    known_failures: &[],
};

/// Classifier-free guidance with an optimised scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CfgZeroStar {
    /// The guidance weight; 1 is the condition as it is. The default, 4, is that of `cfg`.
    pub weight: f64,
    /// How many of the first steps have no velocity. The default, 1, is the authors'.
    pub zero_steps: usize,
    /// The meaning in which the scale is taken. The default, `flow`, is the paper's.
    pub space: Prediction,
}

impl Default for CfgZeroStar {
    fn default() -> Self {
        Self { weight: 4.0, zero_steps: 1, space: Prediction::Flow }
    }
}

impl CfgZeroStar {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        weight("cfg-zero-star", self.weight)?;
        Ok(self)
    }

    /// The guided estimate of rows that have a velocity.
    fn guided(
        &self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        if self.weight == 1.0 {
            return pass.on_branch(Branch::Cond, at, |pass| model.x0(x, at, cond, pass));
        }
        let (with, without) = both("cfg-zero-star", model, x, at, cond, pass)?;
        let c = self.space.from_x0(&with, x, at)?;
        let u = self.space.from_x0(&without, x, at)?;
        let share = |(dot, norm): (f64, f64)| if norm > 0.0 { dot / norm } else { 0.0 };
        let scales: Vec<f64> = c.dots(&u).into_iter().zip(u.square_norms()).map(share).collect();
        let u = u.scaled_rows(&scales);
        self.space.x0(&(u.clone() + (c - u) * self.weight), x, at)
    }
}

impl Guide for CfgZeroStar {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let rows = 0..x.batch();
        let (still, moved): (Vec<usize>, Vec<usize>) =
            rows.partition(|&row| pass.rows[row].step < self.zero_steps);
        if still.is_empty() {
            return self.guided(model, x, at, cond, pass);
        }
        let zero = self.space.x0(&x.zeros_like(), x, at)?;
        if moved.is_empty() {
            return Ok(zero);
        }
        let of = moved.iter().map(|&r| pass.rows[r]).collect();
        let (part, levels) = (x.select(&moved), at.select(&moved));
        let cond = cond.select(&moved);
        let guided = pass.over_rows(of, |pass| self.guided(model, &part, &levels, &cond, pass))?;
        let mut order = vec![0; x.batch()];
        for (from, &to) in still.iter().chain(&moved).enumerate() {
            order[to] = from;
        }
        Ok(State::cat(&[zero.select(&still), guided])?.select(&order))
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
    fn the_scale_is_the_projection() {
        // In x0: (1, 2) . (0.5, 3) over 0.25 + 9 is 6.5 / 9.25.
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let space = Prediction::X0;
        let mut guide = CfgZeroStar { weight: 3.0, zero_steps: 0, space };
        let s = 6.5 / 9.25;
        let (found, spent) = ask(&mut guide, &model, Level::vp(0.5, 0.0));
        let wanted = [0.5 * s + 3.0 * (1.0 - 0.5 * s), 3.0 * s + 3.0 * (2.0 - 3.0 * s)];
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-14), "{found:?}");
        assert_eq!(spent, 2);
    }

    #[test]
    fn first_steps_stay_where_they_are() {
        // Without a velocity the clean sample and the noise are the state itself.
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let level = Level::new(0.7, 0.3, 0.7);
        let (found, spent) = ask(&mut CfgZeroStar::default(), &model, level);
        assert_eq!((found, spent), (vec![0.1, -0.2], 0));
    }
}
