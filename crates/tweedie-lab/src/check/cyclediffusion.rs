//! The noises that lead to a scene keep what an edit should keep.

use tweedie::Result;
use tweedie::data::shapes::ChangeKind;
use tweedie::spec::PartSpec;

use super::pie::{self, Bench, How};
use super::{Arm, Bar, Check};

pub(crate) const CHECK: Check = Check {
    id: "cyclediffusion",
    file: file!(),
    claim: "an image-to-image translation that draws the source's own noises keeps the source better (section 4.2)",
    world: pie::NAME,
    measure: "share of 18 edits, three of each kind, that are read as they should be, with at least 20 dB outside the mask; 27 of 30 steps",
    arms: ["SDEdit of the same strength", "the same start, and noises drawn anew"],
    bar: Bar::AtLeast(0.7),
    seeds: &[61, 62, 63],
    run,
};

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let base = How { steps: Some(30), strength: Some(0.9), ..How::default() };
    let how = match arm {
        Arm::Baseline => base,
        Arm::Method => How { method: Some(PartSpec::named("cyclediffusion")), ..base },
        Arm::Ablation => How { sampler: Some(PartSpec::named("ddim").with("eta", 0.1)), ..base },
    };
    let outcomes = Bench::open()?.outcomes(&how, &ChangeKind::ALL, 3, seed)?;
    Ok(pie::kept(&outcomes, 20.0))
}
