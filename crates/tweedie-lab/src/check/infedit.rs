//! Without inversion, an edit that corrects its estimate by what the source's is known to miss keeps what
//! it should keep.

use tweedie::Result;
use tweedie::data::shapes::ChangeKind;
use tweedie::spec::PartSpec;

use super::pie::{self, Bench, How};
use super::{Arm, Bar, Check};

pub(crate) const CHECK: Check = Check {
    id: "infedit",
    file: file!(),
    claim: "the corrected estimate edits what the words ask for and keeps the rest (section 3, denoising diffusion consistent models)",
    world: pie::NAME,
    measure: "share of 30 edits, five of each kind, that are read as they should be, with at least 25 dB outside the mask; 15 steps",
    arms: ["SDEdit of strength 0.7", "the same walk without the correction"],
    bar: Bar::AtLeast(0.7),
    seeds: &[71, 72, 73],
    run,
};

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let base = How { steps: Some(15), ..How::default() };
    let how = match arm {
        Arm::Baseline => How { strength: Some(0.7), ..base },
        Arm::Method => How { method: Some(method()), ..base },
        Arm::Ablation => How { strength: Some(1.0), ..base },
    };
    let outcomes = Bench::open()?.outcomes(&how, &ChangeKind::ALL, 5, seed)?;
    Ok(pie::kept(&outcomes, 25.0))
}

/// Without attention control, which is a part of its own.
fn method() -> PartSpec {
    PartSpec::named("infedit").with("cross", 0.0).with("own", 0.0)
}
