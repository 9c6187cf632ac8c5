//! Noise levels log-normally, where the work is.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
//! [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), Table 1 (`p_train`).
//!
//! ```text
//! ln sigma_edm = p_mean + p_std z,  z standard normal;  lambda = -ln sigma_edm
//! ```
//! On a path that does not reach that far the level is the path's end.

use serde::{Deserialize, Serialize};

use super::{Entry, LevelSampling, at_step};
use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::process::Process;
use crate::random::normal_quantile;

pub(crate) const CARD: Card = Card {
    id: "edm-log-normal",
    seam: Seam::Objective,
    title: "Elucidating the Design Space of Diffusion-Based Generative Models",
    source: "2206.00364",
    year: 2022,
    what: "trains noise levels log-normally around where learning is worth most",
    aliases: &["log-normal"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |settings| Ok(Box::new(settings.read::<EdmLogNormal>()?.checked()?)),
    defaults: defaults_of::<EdmLogNormal>,
    known_failures: &[],
};

/// Noise levels log-normally.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdmLogNormal {
    /// The mean of `ln sigma_edm`, `P_mean`.
    pub p_mean: f64,
    /// Its standard deviation, `P_std`.
    pub p_std: f64,
}

impl Default for EdmLogNormal {
    fn default() -> Self {
        Self { p_mean: -1.2, p_std: 1.2 }
    }
}

impl EdmLogNormal {
    fn checked(self) -> Result<Self> {
        if self.p_mean.is_finite() && self.p_std.is_finite() && self.p_std > 0.0 {
            return Ok(self);
        }
        let why = format!("a finite p_mean and a positive p_std are wanted, found {self:?}");
        Err(Error::setting("edm-log-normal", why))
    }
}

impl LevelSampling for EdmLogNormal {
    fn level(&self, process: &dyn Process, u: f64) -> Level {
        let log_sigma = self.p_mean + self.p_std * normal_quantile(u);
        at_step(process, process.t_of_lambda(-log_sigma))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Line;
    use super::*;

    #[test]
    fn the_median_is_the_mean_of_the_logarithm() {
        let level = EdmLogNormal::default().level(&Line { steps: None }, 0.5);
        assert!((level.sigma_edm().ln() + 1.2).abs() < 1e-9);
        let one_up = normal_cdf_one();
        let level = EdmLogNormal::default().level(&Line { steps: None }, one_up);
        assert!(level.sigma_edm().ln().abs() < 1e-6, "-1.2 + 1.2");
        assert!(EdmLogNormal { p_mean: 0.0, p_std: -1.0 }.checked().is_err());
    }

    /// The share of a normal below one standard deviation.
    fn normal_cdf_one() -> f64 {
        0.841_344_746_068_543
    }
}
