//! EDICT's two states bring a scene back where DDIM inversion does not.

use tweedie::Result;
use tweedie::data::shapes::{Change, ChangeKind};
use tweedie::engine::Engine;
use tweedie::run::{Run, Unwatched};
use tweedie::sampler::{Coupled, coupled};

use super::pie::{self, Bench, How};
use super::{Arm, Bar, Check};

pub(crate) const CHECK: Check = Check {
    id: "edict",
    file: file!(),
    claim: "a picture inverted by coupled states is recovered under guidance, up to rounding (section 4)",
    world: pie::NAME,
    measure: "largest difference of the latents of three scenes, of unit variance, from what comes back after 40 of 50 steps each way with guidance 3, in f32",
    arms: ["DDIM inversion", "the second state forgotten where the walk turns"],
    // The entry's bar: rounding of f32 grown by (1 / mix)^2 a step.
    bar: Bar::AtMost(5e-3),
    seeds: &[51, 52, 53],
    run,
};

/// Steps of the grid, and the first that is walked.
const STEPS: (usize, usize) = (50, 10);
const GUIDANCE: f64 = 3.0;

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let bench = Bench::open()?;
    let how = |method: &str| -> Result<How> {
        Ok(How {
            steps: Some(STEPS.0),
            strength: Some(0.8),
            guidance: Some(GUIDANCE),
            source_guidance: Some(GUIDANCE),
            ..How::by(method)?
        })
    };
    let mut largest = 0.0_f64;
    for index in 0..3 {
        let change = Change::sample(seed, index, ChangeKind::Recolour);
        let error = match arm {
            Arm::Baseline => bench.reconstruction(&how("ddim-inversion")?, &change, seed)?,
            Arm::Method => bench.reconstruction(&how("edict")?, &change, seed)?,
            Arm::Ablation => Engine::cpu(1)?.install(|| forgetful(&bench, &change))?,
        };
        largest = largest.max(error);
    }
    Ok(largest)
}

/// Both ways with a sampler that starts anew where the walk turns.
fn forgetful(bench: &Bench, change: &Change) -> Result<f64> {
    let process = bench.process()?;
    let of = || {
        let sampler = Box::new(Coupled::new(coupled::Settings::default())?);
        bench.parts(process.as_ref(), change, sampler, (STEPS.0, GUIDANCE))
    };
    let (parts, x0) = of()?;
    let mut back = Run::ending_at(parts, x0.clone())?;
    while back.done() > STEPS.1 && back.retreat(&mut Unwatched)? {}
    let forth = Run::starting_at(of()?.0, back.x().clone(), STEPS.1)?;
    let (x, _) = forth.finish(&mut Unwatched)?;
    let apart = (x - x0).to_rows().concat();
    Ok(apart.into_iter().map(f64::abs).fold(0.0, f64::max))
}
