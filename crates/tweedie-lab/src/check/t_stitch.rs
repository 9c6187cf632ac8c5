//! A fast model may walk the noisy part of the way without harm to the pictures.

use tweedie::Result;

use super::fashion::{self, Asked, Walks};
use super::{Arm, Bar, Check};

pub(crate) const CHECK: Check = Check {
    id: "t-stitch",
    file: file!(),
    claim: "the small model in the first four tenths of the time costs no quality (figure 1)",
    world: "builtin:fashion, and the transformer of the bench, which takes a fraction of its time; Fashion-MNIST's test pictures",
    measure: "Frechet distance of 1,000 samples of 20 steps of DDIM, over that of builtin:fashion alone",
    arms: ["the small model alone", "the other order: the large model first, then the small one"],
    // The entry's proposal.
    bar: Bar::AtMost(1.05),
    seeds: &[111, 112, 113],
    run,
};

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let asked = Asked { sampler: "ddim", grid: "trailing", steps: 20, guidance: 1.0, count: 1000 };
    let walks = match arm {
        Arm::Baseline => Walks::Transformer,
        Arm::Method => Walks::TransformerFirst(0.4),
        Arm::Ablation => Walks::UNetFirst(0.4),
    };
    let found = fashion::distance(&fashion::walked(walks, asked, seed)?.images)?;
    Ok(found / fashion::distance(&fashion::samples(asked, seed)?.images)?)
}
