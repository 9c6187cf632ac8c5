//! Times around the middle of the path more often.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024,
//! [arXiv:2403.03206](https://arxiv.org/abs/2403.03206), equation 19.
//!
//! ```text
//! t = 1 / (1 + exp(-(mean + std z))),  z standard normal
//! ```
//! Their `t` is noise at 1, as here. The ends are almost never shown, so that a path that must be
//! right at pure noise wants a larger `std`.

use serde::{Deserialize, Serialize};

use super::{Entry, LevelSampling, at_step};
use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::process::Process;
use crate::random::normal_quantile;

pub(crate) const CARD: Card = Card {
    id: "logit-normal",
    seam: Seam::Objective,
    title: "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
    source: "2403.03206",
    year: 2024,
    what: "trains the middle of the path more often than its ends",
    aliases: &["logit_normal"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |settings| Ok(Box::new(settings.read::<LogitNormal>()?.checked()?)),
    defaults: defaults_of::<LogitNormal>,
    known_failures: &[],
};

/// Times around the middle of the path more often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogitNormal {
    /// The logit's mean, `m`; above 0 is noisier.
    pub mean: f64,
    /// The logit's standard deviation, `s`.
    pub std: f64,
}

impl Default for LogitNormal {
    fn default() -> Self {
        Self { mean: 0.0, std: 1.0 }
    }
}

impl LogitNormal {
    fn checked(self) -> Result<Self> {
        if self.mean.is_finite() && self.std.is_finite() && self.std > 0.0 {
            return Ok(self);
        }
        let why = format!("a finite mean and a positive std are wanted, found {self:?}");
        Err(Error::setting("logit-normal", why))
    }
}

impl LevelSampling for LogitNormal {
    fn level(&self, process: &dyn Process, u: f64) -> Level {
        let logit = self.mean + self.std * normal_quantile(u);
        at_step(process, 1.0 / (1.0 + (-logit).exp()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Line;
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_logistic_of_a_normal() {
        let part = LogitNormal { mean: 0.5, std: 2.0 };
        let line = Line { steps: None };
        // The 0.975 quantile of a standard normal is 1.959964.
        for (u, logit) in [(0.5, 0.5), (0.975, 0.5 + 2.0 * 1.959_963_984_540_054)] {
            let t = part.level(&line, u).t;
            assert!(((t / (1.0 - t)).ln() - logit).abs() < 1e-9);
        }
        assert!(LogitNormal { std: 0.0, mean: 0.0 }.checked().is_err());
    }
}
