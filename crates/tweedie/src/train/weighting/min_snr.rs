//! The signal-to-noise ratio as the weight, cut at `gamma`.
//!
//! Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023,
//! [arXiv:2303.09556](https://arxiv.org/abs/2303.09556), section 3.4.
//!
//! ```text
//! w = min(SNR, gamma) on |x0_hat - x0|^2,  SNR = alpha^2 / sigma^2
//! ```
//! For eps that is `min(SNR, gamma) / SNR`, for v on a variance-preserving path
//! `min(SNR, gamma) / (SNR + 1)`, as in the paper.

use serde::{Deserialize, Serialize};

use super::{Entry, Weighting, of_clean, snr};
use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::Scaling;
use crate::error::{Error, Result};
use crate::level::Level;

pub(crate) const CARD: Card = Card {
    id: "min-snr",
    seam: Seam::Objective,
    title: "Efficient Diffusion Training via Min-SNR Weighting Strategy",
    source: "2303.09556",
    year: 2023,
    what: "weighs the clean sample's error by the signal-to-noise ratio, cut at gamma",
    aliases: &["min-snr-gamma"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |settings| Ok(Box::new(settings.read::<MinSnr>()?.checked()?)),
    defaults: defaults_of::<MinSnr>,
    known_failures: &[],
};

/// The signal-to-noise ratio, cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MinSnr {
    /// The largest weight.
    pub gamma: f64,
}

impl Default for MinSnr {
    fn default() -> Self {
        Self { gamma: 5.0 }
    }
}

impl MinSnr {
    fn checked(self) -> Result<Self> {
        if self.gamma.is_finite() && self.gamma > 0.0 {
            return Ok(self);
        }
        Err(Error::setting("min-snr:gamma", format!("{} is not above 0", self.gamma)))
    }
}

impl Weighting for MinSnr {
    fn factor(&self, level: Level, scaling: Scaling) -> f64 {
        of_clean(snr(level).min(self.gamma), level, scaling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction::Prediction;

    #[test]
    fn it_is_what_the_paper_says_for_eps_and_v() {
        let part = MinSnr::default();
        for t in [0.1_f64, 0.3, 0.7, 0.95] {
            let level = Level::new(t, (1.0 - t * t).sqrt(), t);
            let snr = level.alpha.powi(2) / level.sigma.powi(2);
            let eps = part.factor(level, Scaling::Predict(Prediction::Eps));
            assert!((eps - snr.min(5.0) / snr).abs() < 1e-12);
            let v = part.factor(level, Scaling::Predict(Prediction::V));
            assert!((v - snr.min(5.0) / (snr + 1.0)).abs() < 1e-12);
        }
        assert!(MinSnr { gamma: 0.0 }.checked().is_err());
    }
}
