//! EVODiff's pictures of five evaluations are nearer to real ones than those of DPM-Solver++(2M).

use tweedie::Result;

use super::fashion::{self, Asked};
use super::{Arm, Bar, Check};

pub(crate) const CHECK: Check = Check {
    id: "evodiff",
    file: file!(),
    claim: "at five evaluations its pictures are nearer to real ones than those of DPM-Solver++(2M) (table 1)",
    world: fashion::NAME,
    measure: "Frechet distance of 1,000 samples of 5 steps on a Karras grid from 80 to 0.02, over that of DPM-Solver++(2M)",
    arms: ["DPM-Solver++(2M), over itself", "without its differences: DDIM's step"],
    // The entry's proposal.
    bar: Bar::AtMost(0.85),
    seeds: &[61, 62, 63],
    run,
};

fn distance(sampler: &str, seed: u64) -> Result<f64> {
    let grid = "karras:sigma_max=80,sigma_min=0.02";
    let asked = Asked { sampler, grid, steps: 5, guidance: 1.0, count: 1000 };
    fashion::distance(&fashion::samples(asked, seed)?.images)
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let two = distance("dpmpp-2m", seed)?;
    let found = match arm {
        Arm::Baseline => two,
        Arm::Method => distance("evodiff", seed)?,
        Arm::Ablation => distance("ddim", seed)?,
    };
    Ok(found / two)
}
