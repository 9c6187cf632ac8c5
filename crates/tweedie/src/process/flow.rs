//! The straight path from data to noise, as rectified flow and flow matching walk it.
//!
//! Liu, Gong and Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with
//! Rectified Flow", 2022, [arXiv:2209.03003](https://arxiv.org/abs/2209.03003); Lipman et al.,
//! "Flow Matching for Generative Modeling", 2022, whose time runs the other way (their `x_1` is our
//! `x0`).
//!
//! ```text
//! u = shift t / (1 + (shift - 1) t)          alpha = 1 - u          sigma = u
//! ```
//!
//! A shift (Esser et al. 2024, equation 23) belongs to the grid of a run, `shifted`, where the
//! network is told `u`. Here it bends the path itself, for networks that were trained on `t` along
//! a shifted path.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::process::{Entry, Process, Rate};

pub(crate) const CARD: Card = Card {
    id: "flow",
    seam: Seam::Process,
    title: "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    source: "2209.03003",
    year: 2022,
    what: "straight path from data to noise",
    aliases: &["rectified-flow", "flow-matching"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Flow>()?.checked()?)),
    defaults: defaults_of::<Flow>,
    known_failures: &[],
};

/// The straight path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flow {
    /// How far the path is bent towards noise. The default, 1, is the paper's straight path.
    pub shift: f64,
    /// The cleanest time that grids go to before the clean end. The default, 0.001, is the last of
    /// 1000 steps.
    pub t_min: f64,
}

impl Default for Flow {
    fn default() -> Self {
        Self { shift: 1.0, t_min: 1e-3 }
    }
}

impl Flow {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        if !self.shift.is_finite() || self.shift <= 0.0 {
            let why = format!("{}, wanted a positive number", self.shift);
            return Err(Error::setting("flow:shift", why));
        }
        if !(0.0..1.0).contains(&self.t_min) {
            let why = format!("{}, wanted 0 to less than 1", self.t_min);
            return Err(Error::setting("flow:t_min", why));
        }
        Ok(self)
    }
}

impl Process for Flow {
    fn at(&self, t: f64) -> Level {
        let t = t.clamp(0.0, 1.0);
        let whole = 1.0 + (self.shift - 1.0) * t;
        Level::new(t, (1.0 - t) / whole, self.shift * t / whole)
    }

    fn rate(&self, t: f64) -> Rate {
        let whole = 1.0 + (self.shift - 1.0) * t.clamp(0.0, 1.0);
        let speed = self.shift / (whole * whole);
        Rate { alpha: -speed, anchor: 0.0, sigma: speed }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        // sigma / alpha = shift t / (1 - t).
        let odds = (-lambda).exp() / self.shift;
        if odds.is_infinite() { 1.0 } else { odds / (1.0 + odds) }
    }

    fn ends(&self) -> (f64, f64) {
        (self.t_min, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_moves_the_middle() {
        let straight = Flow::default().at(0.5);
        assert_eq!((straight.alpha, straight.sigma), (0.5, 0.5));
        let bent = Flow { shift: 3.0, ..Flow::default() }.at(0.5);
        assert_eq!((bent.alpha, bent.sigma), (0.25, 0.75));
        assert_eq!(Flow::default().at(1.0).alpha, 0.0);
        assert_eq!(Flow::default().t_of_lambda(f64::NEG_INFINITY), 1.0);
        assert!(Flow { shift: 0.0, ..Flow::default() }.checked().is_err());
    }
}
