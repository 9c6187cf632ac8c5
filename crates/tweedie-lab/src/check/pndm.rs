//! F-PNDM is nearer to the exact solution than DDIM at the same cost.

use tweedie::Result;
use tweedie::noise::Noise;
use tweedie::sampler::{Claims, Eval, Sampler, Step};
use tweedie::state::State;

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "pndm",
    file: file!(),
    claim: "with the noises of the steps before, 49 evaluations come nearer to the exact solution (section 4.1)",
    world: world::EVEN,
    measure: "root mean squared distance of 500 end points after 49 evaluations from those of 4,000 DDIM steps, over that of DDIM",
    arms: [
        "DDIM of 49 steps, over itself",
        "the noises of the steps before erased after the start",
    ],
    // The entry's proposal: a fifth of DDIM's distance.
    bar: Bar::AtMost(0.2),
    seeds: &[31, 32, 33],
    run,
};

/// The method without its memory: each step is the first of a run, but for its start.
#[derive(Debug)]
struct Forgetful(Box<dyn Sampler>);

impl Sampler for Forgetful {
    fn claims(&self) -> Claims {
        self.0.claims()
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        if step.index < 3 {
            return self.0.step(eval, x, step, noise);
        }
        // A step of the DDIM transfer alone.
        world::sampler("ddim")?.step(eval, x, step, noise)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(Self(self.0.fork()))
    }
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    // Forty steps: three of four evaluations and the rest of one.
    let part = "pndm:start=runge-kutta";
    let ends = match arm {
        Arm::Baseline => world::even(world::sampler("ddim")?, 49, 500, seed)?,
        Arm::Method => world::even(world::sampler(part)?, 40, 500, seed)?,
        Arm::Ablation => world::even(Box::new(Forgetful(world::sampler(part)?)), 40, 500, seed)?,
    };
    let exact = world::even(world::sampler("ddim")?, 4000, 500, seed)?;
    let ddim = world::even(world::sampler("ddim")?, 49, 500, seed)?;
    Ok(world::distance(&ends, &exact) / world::distance(&ddim, &exact))
}
