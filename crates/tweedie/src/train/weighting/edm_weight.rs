//! The weight under which EDM's network has unit error at every level before training.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
//! [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), Table 1 (`lambda(sigma)`).
//!
//! ```text
//! w = (sigma_edm^2 + sigma_data^2) / (sigma_edm sigma_data)^2 on |x0_hat - x0|^2
//! ```
//! With EDM's own scaling that is a factor of 1 on the raw output.

use serde::{Deserialize, Serialize};

use super::{Entry, Weighting, of_clean};
use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::Scaling;
use crate::error::{Error, Result};
use crate::level::Level;

pub(crate) const CARD: Card = Card {
    id: "edm-weight",
    seam: Seam::Objective,
    title: "Elucidating the Design Space of Diffusion-Based Generative Models",
    source: "2206.00364",
    year: 2022,
    what: "weighs every level so that EDM's network starts with unit error",
    aliases: &["edm"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |settings| Ok(Box::new(settings.read::<EdmWeight>()?.checked()?)),
    defaults: defaults_of::<EdmWeight>,
    known_failures: &[],
};

/// EDM's weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdmWeight {
    /// The standard deviation of the data.
    pub sigma_data: f64,
}

impl Default for EdmWeight {
    fn default() -> Self {
        Self { sigma_data: 0.5 }
    }
}

impl EdmWeight {
    fn checked(self) -> Result<Self> {
        if self.sigma_data.is_finite() && self.sigma_data > 0.0 {
            return Ok(self);
        }
        Err(Error::setting("edm-weight:sigma_data", format!("{} is not above 0", self.sigma_data)))
    }
}

impl Weighting for EdmWeight {
    fn factor(&self, level: Level, scaling: Scaling) -> f64 {
        let sigma = level.sigma_edm();
        let product = sigma * self.sigma_data;
        let weight = (sigma * sigma + self.sigma_data * self.sigma_data) / (product * product);
        of_clean(weight, level, scaling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_on_its_own_scaling() {
        let part = EdmWeight::default();
        for sigma in [0.002, 0.3, 5.0, 80.0] {
            let level = Level::new(0.5, 1.0, sigma);
            let factor = part.factor(level, Scaling::Edm { sigma_data: 0.5 });
            assert!((factor - 1.0).abs() < 1e-9, "{sigma}: {factor}");
        }
    }
}
