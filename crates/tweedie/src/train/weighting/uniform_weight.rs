//! Every level counts alike, in the network's own output.
//!
//! Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020,
//! [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), equation 14 (`L_simple`).
//!
//! ```text
//! w = 1 on |output - target|^2
//! ```
//! Departs from the others here: it is stated on the output, so that it means another weight of the
//! clean sample for each prediction (the SNR for eps, SNR + 1 for v on a variance-preserving path).

use serde::{Deserialize, Serialize};

use super::{Entry, Weighting};
use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::Scaling;
use crate::level::Level;

pub(crate) const CARD: Card = Card {
    id: "uniform-weight",
    seam: Seam::Objective,
    title: "Denoising Diffusion Probabilistic Models",
    source: "2006.11239",
    year: 2020,
    what: "weighs the squared error of the network's output equally at every level",
    aliases: &["simple"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |settings| Ok(Box::new(settings.read::<UniformWeight>()?)),
    defaults: defaults_of::<UniformWeight>,
    known_failures: &[],
};

/// Every level counts alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UniformWeight {}

impl Weighting for UniformWeight {
    fn factor(&self, _level: Level, _scaling: Scaling) -> f64 {
        1.0
    }
}
