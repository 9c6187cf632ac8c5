//! The variance-exploding path in continuous time.
//!
//! Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021,
//! [arXiv:2011.13456](https://arxiv.org/abs/2011.13456), equation 30 and appendix C.
//!
//! ```text
//! alpha = 1          sigma = sigma_min (sigma_max / sigma_min)^t
//! ```
//!
//! `t = 0` is not clean: it has `sigma_min`.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::process::{Entry, Process, Rate};

pub(crate) const CARD: Card = Card {
    id: "ve",
    seam: Seam::Process,
    title: "Score-Based Generative Modeling through Stochastic Differential Equations",
    source: "2011.13456",
    year: 2021,
    what: "variance-exploding path with a geometric sigma",
    aliases: &["vesde"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Ve>()?.checked()?)),
    defaults: defaults_of::<Ve>,
    known_failures: &[],
};

/// The variance-exploding path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ve {
    /// Sigma at `t = 0`. The default, 0.01, is the paper's.
    pub sigma_min: f64,
    /// Sigma at `t = 1`. The default, 50, is the paper's for pictures of 32x32.
    pub sigma_max: f64,
}

impl Default for Ve {
    fn default() -> Self {
        Self { sigma_min: 0.01, sigma_max: 50.0 }
    }
}

impl Ve {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        let ordered = 0.0 < self.sigma_min && self.sigma_min < self.sigma_max;
        if !ordered || !self.sigma_max.is_finite() {
            let why = format!(
                "{} and {}, wanted 0 < sigma_min < sigma_max, finite",
                self.sigma_min, self.sigma_max
            );
            return Err(Error::setting("ve:sigma_min, sigma_max", why));
        }
        Ok(self)
    }

    fn log_ratio(&self) -> f64 {
        (self.sigma_max / self.sigma_min).ln()
    }
}

impl Process for Ve {
    fn at(&self, t: f64) -> Level {
        let t = t.clamp(0.0, 1.0);
        Level::new(t, 1.0, self.sigma_min * (t * self.log_ratio()).exp())
    }

    fn rate(&self, t: f64) -> Rate {
        Rate { alpha: 0.0, anchor: 0.0, sigma: self.at(t).sigma * self.log_ratio() }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        ((-lambda - self.sigma_min.ln()) / self.log_ratio()).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_geometric_mean_of_the_ends() {
        let path = Ve::default();
        assert!((path.at(0.5).sigma - 0.5_f64.sqrt()).abs() < 1e-12);
        assert!((path.at(0.0).sigma - 0.01).abs() < 1e-15);
        assert!((path.at(1.0).sigma - 50.0).abs() < 1e-11);
        assert!(Ve { sigma_min: 0.0, sigma_max: 1.0 }.checked().is_err());
    }
}
