//! An ordinary classifier guides a model without classes where it looks at the estimate.

use std::sync::Arc;

use burn::tensor::Device;
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Denoiser, Pass};
use tweedie::engine::open_classifier;
use tweedie::guide::{self, Guide};
use tweedie::level::{Level, Levels};
use tweedie::reward::{Likelihood, Reward};
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::{Arm, Bar, Check, pictures};

pub(crate) const CHECK: Check = Check {
    id: "elucd",
    file: file!(),
    claim: "an off-the-shelf classifier guides well where it is asked about the estimate (section 3)",
    world: "builtin:fashion without a class, guided by builtin:fashion-features, 50 steps of DDPM",
    measure: "share of 60 samples that builtin:fashion-judge sees as the class that was asked",
    arms: ["no guidance", "the classifier asked about the noisy state in place of the estimate"],
    // The entry's proposal.
    bar: Bar::AtLeast(0.85),
    seeds: &[101, 102, 103],
    run,
};

const COUNT: usize = 60;

/// The guide around a model that says its state is the estimate.
#[derive(Debug)]
struct OnTheState(Box<dyn Guide>);

struct Echo;

impl Denoiser for Echo {
    fn x0(&self, x: &State, _: &Levels, _: &Cond, _: &mut Pass) -> Result<State> {
        Ok(x.clone())
    }
}

impl Guide for OnTheState {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        self.0.x0(&Echo, x, at, cond, pass)?;
        model.x0(x, at, cond, pass)
    }

    fn settled(&mut self, from: Level, to: Level, after: State) -> Result<State> {
        self.0.settled(from, to, after)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(Self(self.0.fork()))
    }
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let classifier = open_classifier("builtin:fashion-features", &Device::flex())?;
    let reward: Arc<dyn Reward> = Arc::new(Likelihood::new(classifier, pictures::asked(COUNT))?);
    let elucd = || "elucd:scale=4".parse::<PartSpec>()?.make(guide::entries(), Seam::Guide);
    let guides: Vec<Box<dyn Guide>> = match arm {
        Arm::Baseline => Vec::new(),
        Arm::Method => vec![elucd()?],
        Arm::Ablation => vec![Box::new(OnTheState(elucd()?))],
    };
    pictures::hits("ddpm", (50, COUNT), seed, guides, Some(reward))
}
