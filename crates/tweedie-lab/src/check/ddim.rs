//! DDIM keeps the distribution at step counts where the ancestral walk loses it.

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "ddim",
    file: file!(),
    claim: "at few steps the deterministic walk samples the data better than the ancestral one",
    world: world::NAME,
    measure: "sliced Wasserstein distance of 4,000 samples at 10 steps from exact ones",
    arms: ["DDPM ancestral", "eta = 1: all of the fresh noise"],
    bar: Bar::AtMost(0.06),
    seeds: &[11, 12, 13],
    run,
};

fn run(arm: Arm, seed: u64) -> tweedie::Result<f64> {
    let part = match arm {
        Arm::Baseline => "ddpm",
        Arm::Method => "ddim",
        Arm::Ablation => "ddim:eta=1",
    };
    let samples = world::samples(world::sampler(part)?, 10, 4000, seed)?;
    Ok(world::sliced(&samples, &world::exact(4000, seed)?))
}
