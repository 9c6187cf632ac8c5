//! Momentum keeps strongly guided pictures within their range at few steps.

use tweedie::Result;

use super::fashion::{self, Asked};
use super::{Arm, Bar, Check};

pub(crate) const CHECK: Check = Check {
    id: "ghvb",
    file: file!(),
    claim: "with momentum, fewer pixels diverge at few steps and strong guidance (section 1, figure 1)",
    world: fashion::NAME,
    measure: "share of the pixels of 100 samples that end beyond 1.1, 12 steps at guidance 7.5, over that of PLMS of order 4",
    arms: ["PLMS of order 4, over itself", "the newest noise in place of the average (beta = 1)"],
    // The entry's proposal: half of PLMS's.
    bar: Bar::AtMost(0.5),
    seeds: &[51, 52, 53],
    run,
};

fn beyond(sampler: &str, seed: u64) -> Result<f64> {
    let asked = Asked { sampler, grid: "trailing", steps: 12, guidance: 7.5, count: 100 };
    let values = fashion::samples(asked, seed)?.latents.values;
    let off = values.iter().filter(|v| v.abs() > 1.1).count();
    Ok(off as f64 / values.len() as f64)
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let plms = beyond("ipndm:order=4", seed)?;
    let found = match arm {
        Arm::Baseline => plms,
        Arm::Method => beyond("ghvb:order=4,beta=0.8", seed)?,
        Arm::Ablation => beyond("ghvb:order=4,beta=1", seed)?,
    };
    Ok(found / plms)
}
