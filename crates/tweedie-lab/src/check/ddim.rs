//! DDIM walks to the same sample from the same noise, whatever the count of steps.

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "ddim",
    file: file!(),
    claim: "the same noise gives nearly the same sample at any count of steps (section 5.2)",
    world: world::NAME,
    measure: "root mean squared distance of 500 end points at 20 steps from those of 200 steps",
    arms: ["DDPM ancestral", "eta = 1: all of the fresh noise"],
    // A third of the least that the first run of the baseline measured, 1.66.
    bar: Bar::AtMost(0.55),
    seeds: &[11, 12, 13],
    run,
};

fn run(arm: Arm, seed: u64) -> tweedie::Result<f64> {
    let part = match arm {
        Arm::Baseline => "ddpm",
        Arm::Method => "ddim",
        Arm::Ablation => "ddim:eta=1",
    };
    let few = world::samples(world::sampler(part)?, 20, 500, seed)?;
    let many = world::samples(world::sampler(part)?, 200, 500, seed)?;
    Ok(world::distance(&few, &many))
}
