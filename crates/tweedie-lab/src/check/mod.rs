//! Miniature checks: a method's claim, measured with a baseline and with the method switched off.
//!
//! A check has one file here, named like its card. It says the world, the measure and the bar, and
//! measures one arm on one seed. [`run`] measures all arms on all seeds and writes the record.
//!
//! The bar was set after the first honest run of the baseline. The method has to meet it on every
//! seed, the ablation has to miss it on every seed, and the gap between them has to exceed twice the
//! spread between seeds.

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use tweedie::catalog::{self, Card};

use crate::record::{self, Record};

mod autodiffusion;
mod compose;
mod ddim;
mod dpmpp_2m;
mod edict;
mod elucd;
mod evodiff;
#[allow(dead_code, reason = "walks of two models are for a check that has no record yet")]
pub(crate) mod fashion;
mod fk_steering;
mod flowchef;
mod ghvb;
mod infedit;
mod minority_guidance;
mod noise_search;
mod pictures;
pub(crate) mod pie;
mod pndm;
mod steered_diffusion;
mod superdiff;
pub(crate) mod world;

/// Every check, in the order of their ids.
pub(crate) const CHECKS: &[Check] = &[
    autodiffusion::CHECK,
    compose::CHECK,
    ddim::CHECK,
    dpmpp_2m::CHECK,
    edict::CHECK,
    elucd::CHECK,
    evodiff::CHECK,
    fk_steering::CHECK,
    flowchef::CHECK,
    ghvb::CHECK,
    infedit::CHECK,
    minority_guidance::CHECK,
    noise_search::CHECK,
    pndm::CHECK,
    steered_diffusion::CHECK,
    superdiff::CHECK,
];

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arm {
    /// What one would use without the method.
    Baseline,
    /// The method.
    Method,
    /// The method with its core line altered or switched off.
    Ablation,
}

impl Arm {
    /// Every arm.
    pub(crate) const ALL: [Self; 3] = [Self::Baseline, Self::Method, Self::Ablation];
}

/// The bar, and on which side of it a method belongs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bar {
    /// The measure has to be at most this.
    AtMost(f64),
    /// The measure has to be at least this.
    AtLeast(f64),
}

impl Bar {
    /// Whether a measure meets it.
    pub(crate) fn met(self, measure: f64) -> bool {
        match self {
            Self::AtMost(bar) => measure <= bar,
            Self::AtLeast(bar) => measure >= bar,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bar) => write!(f, "at most {bar}"),
            Self::AtLeast(bar) => write!(f, "at least {bar}"),
        }
    }
}

/// A miniature check.
pub(crate) struct Check {
    /// The id of the card that it is about.
    pub(crate) id: &'static str,
    /// The file that it stands in, from the root of the workspace.
    pub(crate) file: &'static str,
    /// The claim, in a sentence.
    pub(crate) claim: &'static str,
    /// The world that it is measured in.
    pub(crate) world: &'static str,
    /// What is measured.
    pub(crate) measure: &'static str,
    /// The baseline and the ablation, in words.
    pub(crate) arms: [&'static str; 2],
    /// The bar.
    pub(crate) bar: Bar,
    /// At least three seeds that chose no setting.
    pub(crate) seeds: &'static [u64],
    /// Measures one arm on one seed.
    pub(crate) run: fn(Arm, u64) -> tweedie::Result<f64>,
}

/// The check of that id.
pub(crate) fn find(id: &str) -> Result<&'static Check> {
    let found = CHECKS.iter().find(|c| c.id == id);
    found.ok_or_else(|| tweedie::Error::unknown("check", id, CHECKS.iter().map(|c| c.id)).into())
}

/// The card that a check is about.
pub(crate) fn card(check: &Check) -> Result<&'static Card> {
    let found = catalog::cards().find(|c| c.id == check.id);
    found.ok_or_else(|| anyhow!("check `{}` is about no card of the catalogue", check.id))
}

/// Measures a check and writes its record.
///
/// # Errors
///
/// What an arm says; what the system says of the file.
pub(crate) fn run(check: &Check, say: &mut dyn FnMut(String)) -> Result<Record> {
    let begun = std::time::Instant::now();
    let mut measured = Vec::new();
    for arm in Arm::ALL {
        let mut values = Vec::new();
        for &seed in check.seeds {
            let value = (check.run)(arm, seed)?;
            say(format!("{}: {arm:?}, seed {seed}: {value:.6}", check.id));
            values.push(value);
        }
        measured.push((arm, values));
    }
    let record = record::judge(check, &measured, begun.elapsed().as_secs_f64())?;
    record::write(&record)?;
    Ok(record)
}
