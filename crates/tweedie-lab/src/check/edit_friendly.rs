//! Noises between states that were noised by themselves carry the picture.

use tweedie::Result;
use tweedie::data::shapes::ChangeKind;
use tweedie::spec::PartSpec;

use super::pie::{self, Bench, How};
use super::{Arm, Bar, Check};

pub(crate) const CHECK: Check = Check {
    id: "edit-friendly",
    file: file!(),
    claim: "noises of independently noised states carry the picture, so that the words change it and the rest stays (section 4)",
    world: pie::NAME,
    measure: "share of 18 edits, three of each kind, that are read as they should be, with at least 20 dB outside the mask; 27 of 30 steps",
    arms: ["DDIM inversion", "the same start, and noises drawn anew"],
    bar: Bar::AtLeast(0.7),
    seeds: &[81, 82, 83],
    run,
};

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let base =
        How { steps: Some(30), strength: Some(0.9), source_guidance: Some(1.0), ..How::default() };
    let how = match arm {
        Arm::Baseline => How { method: Some(PartSpec::named("ddim-inversion")), ..base },
        Arm::Method => How { method: Some(PartSpec::named("edit-friendly")), ..base },
        Arm::Ablation => base,
    };
    let outcomes = Bench::open()?.outcomes(&how, &ChangeKind::ALL, 3, seed)?;
    Ok(pie::kept(&outcomes, 20.0))
}
