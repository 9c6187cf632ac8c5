//! Min-SNR without its corner.
//!
//! Crowson et al., "Scalable High-Resolution Pixel-Space Image Synthesis with Hourglass Diffusion
//! Transformers", 2024, [arXiv:2401.11605](https://arxiv.org/abs/2401.11605), section 3.4.
//!
//! ```text
//! w = SNR gamma / (SNR + gamma) on |x0_hat - x0|^2
//! ```
//! The paper writes it in `sigma_edm`: `1 / (sigma^2 + 1 / gamma)`, with `gamma = 4` its default
//! (`sigma_data = 0.5`, `1 / sigma_data^2`).

use serde::{Deserialize, Serialize};

use super::{Entry, Weighting, of_clean, snr};
use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::Scaling;
use crate::error::{Error, Result};
use crate::level::Level;

pub(crate) const CARD: Card = Card {
    id: "soft-min-snr",
    seam: Seam::Objective,
    title: "Scalable High-Resolution Pixel-Space Image Synthesis with Hourglass Diffusion Transformers",
    source: "2401.11605",
    year: 2024,
    what: "min-SNR weighting with a smooth passage instead of a corner",
    aliases: &[],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |settings| Ok(Box::new(settings.read::<SoftMinSnr>()?.checked()?)),
    defaults: defaults_of::<SoftMinSnr>,
    known_failures: &[],
};

/// Min-SNR without its corner.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftMinSnr {
    /// The weight that is approached without noise.
    pub gamma: f64,
}

impl Default for SoftMinSnr {
    fn default() -> Self {
        Self { gamma: 4.0 }
    }
}

impl SoftMinSnr {
    fn checked(self) -> Result<Self> {
        if self.gamma.is_finite() && self.gamma > 0.0 {
            return Ok(self);
        }
        Err(Error::setting("soft-min-snr:gamma", format!("{} is not above 0", self.gamma)))
    }
}

impl Weighting for SoftMinSnr {
    fn factor(&self, level: Level, scaling: Scaling) -> f64 {
        // Divided through by SNR, so that no level overflows.
        let weight = self.gamma / (1.0 + self.gamma / snr(level));
        of_clean(weight, level, scaling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction::Prediction;

    #[test]
    fn it_lies_below_min_snr_and_meets_it_at_both_ends() {
        let (soft, hard) =
            (SoftMinSnr { gamma: 5.0 }, super::super::min_snr::MinSnr { gamma: 5.0 });
        let x0 = Scaling::Predict(Prediction::X0);
        for (sigma, close) in [(1e-4, true), (0.4, false), (0.9999, true)] {
            let level = Level::new(0.5, f64::sqrt(1.0 - sigma * sigma), sigma);
            let share = soft.factor(level, x0) / hard.factor(level, x0);
            assert!(share <= 1.0 && (share > 0.999) == close, "{sigma}: {share}");
        }
    }
}
