//! Every time step alike.
//!
//! Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020,
//! [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), Algorithm 1.
//!
//! ```text
//! t = u;  a table of T steps takes step floor(T u), 0 to T - 1
//! ```
//! Trap: what is uniform in time is not uniform in noise; the path decides what that means.

use serde::{Deserialize, Serialize};

use super::{Entry, LevelSampling, at_step};
use crate::catalog::{Card, Seam, defaults_of};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "uniform-time",
    seam: Seam::Objective,
    title: "Denoising Diffusion Probabilistic Models",
    source: "2006.11239",
    year: 2020,
    what: "trains every time step of the path equally often",
    aliases: &["uniform"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |settings| Ok(Box::new(settings.read::<UniformTime>()?)),
    defaults: defaults_of::<UniformTime>,
    known_failures: &[],
};

/// Every time step alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UniformTime {}

impl LevelSampling for UniformTime {
    fn level(&self, process: &dyn Process, u: f64) -> Level {
        at_step(process, u)
    }
}
