//! DPM-Solver++(2M) is nearer to the exact solution than a first-order step of the same cost.

use tweedie::Result;
use tweedie::noise::Noise;
use tweedie::sampler::{Claims, Eval, Sampler, Step};
use tweedie::state::State;

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "dpmpp-2m",
    file: file!(),
    claim: "with the last estimate kept, twenty evaluations come nearer to the exact solution",
    world: world::NAME,
    measure: "root mean squared distance of 500 end points at 20 steps from those of 4,000 DDIM steps",
    arms: ["DDIM", "the memory of the last estimate erased before every step"],
    // Half of the least that the first run of the baseline measured, 0.139.
    bar: Bar::AtMost(0.07),
    seeds: &[21, 22, 23],
    run,
};

/// The method without its memory.
#[derive(Debug)]
struct Forgetful(Box<dyn Sampler>);

impl Sampler for Forgetful {
    fn claims(&self) -> Claims {
        self.0.claims()
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        self.0.reset();
        self.0.step(eval, x, step, noise)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(Self(self.0.fork()))
    }
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let sampler: Box<dyn Sampler> = match arm {
        Arm::Baseline => world::sampler("ddim")?,
        Arm::Method => world::sampler("dpmpp-2m")?,
        Arm::Ablation => Box::new(Forgetful(world::sampler("dpmpp-2m")?)),
    };
    let ends = world::samples(sampler, 20, 500, seed)?;
    let exact = world::samples(world::sampler("ddim")?, 4000, 500, seed)?;
    Ok(world::distance(&ends, &exact))
}
