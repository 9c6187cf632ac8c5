//! Pushed by the loss at the estimate, samples of a straight flow meet a measurement and what goes with it.

use std::sync::Arc;

use burn::tensor::Device;
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Denoiser, Pass};
use tweedie::grid;
use tweedie::guide::{self, Guide};
use tweedie::level::{Level, Levels};
use tweedie::noise::Seeded;
use tweedie::operator::{Mask, Operator};
use tweedie::oracle::Gaussian;
use tweedie::process::{self, Process};
use tweedie::random::Key;
use tweedie::reward::Measurement;
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "flowchef",
    file: file!(),
    claim: "the loss at the estimate steers a straight flow without the network's gradient (section 4)",
    world: "the straight flow from a unit Gaussian in 16 dimensions to one whose numbers hang together, every second number measured, 50 steps of Euler",
    measure: "root mean squared distance of 500 samples to the points that were measured",
    arms: [
        "a sample without guidance, what is measured replaced at the end",
        "the gradient at the noisy state in place of the estimate",
    ],
    // Half of what the first run of the baseline measured, 2.8.
    bar: Bar::AtMost(1.4),
    seeds: &[81, 82, 83],
    run,
};

const COUNT: usize = 500;
const DIM: usize = 16;

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

/// The flow along straight lines `x = (1 - t) A z + t z`, with `A A` the data's covariance: what a flow
/// is that was rectified until nothing is left to straighten.
struct Straight(Gaussian);

impl Denoiser for Straight {
    /// `A ((1 - t) A + t)^-1 x`.
    fn x0(&self, x: &State, at: &Levels, _: &Cond, pass: &mut Pass) -> Result<State> {
        pass.count_forward();
        let t = at.single("a straight flow")?.sigma;
        let (bases, wide) = self.0.eigen();
        let mut out = Vec::with_capacity(x.batch() * DIM);
        for row in x.to_rows() {
            let along: Vec<f64> = (0..DIM)
                .map(|k| {
                    let a = wide[k].sqrt();
                    let share: f64 = row.iter().zip(bases).map(|(x, b)| x * b[k]).sum();
                    share * a / ((1.0 - t) * a + t)
                })
                .collect();
            out.extend(
                bases.iter().map(|b| -> f64 { b.iter().zip(&along).map(|(b, s)| b * s).sum() }),
            );
        }
        x.filled_like(&out)
    }
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let between = |i: usize, j: usize| 0.5 * 0.85_f64.powi(i.abs_diff(j) as i32);
    let covariance: Vec<Vec<f64>> =
        (0..DIM).map(|i| (0..DIM).map(|j| between(i, j)).collect()).collect();
    let world = Straight(Gaussian::new(vec![0.0; DIM], &covariance)?);
    let path: Box<dyn Process> = PartSpec::named("flow").make(process::entries(), Seam::Process)?;
    let grid = PartSpec::named("linspace").make(grid::entries(), Seam::Grid)?;
    let levels = grid.levels(path.as_ref(), 50)?;
    let mut draw = Key::new(seed, 1, 0).generator();
    let points: Vec<f64> = (0..COUNT).flat_map(|_| world.0.sample(&mut draw)).collect();
    let truth = State::from_f64(points, &[COUNT, DIM], &Device::flex())?;
    let seen: Vec<bool> = (0..DIM).map(|i| i % 2 == 0).collect();
    let mask = Arc::new(Mask::new(&seen)?);
    let measured = mask.apply(&truth)?;
    let steered = || PartSpec::named("flowchef").make(guide::entries(), Seam::Guide);
    let guides: Vec<Box<dyn Guide>> = match arm {
        Arm::Baseline => Vec::new(),
        Arm::Method => vec![steered()?],
        Arm::Ablation => vec![Box::new(OnTheState(steered()?))],
    };
    let parts = Parts {
        model: &world,
        process: path.as_ref(),
        levels,
        sampler: world::sampler("euler")?,
        guides,
        taps: Vec::new(),
        noise: Box::new(Seeded::of_seeds((0..COUNT as u64).map(|k| (seed << 32) + k))),
        cond: Cond { reward: Some(Arc::new(Measurement::new(mask, measured))), ..Cond::default() },
        requests: (0..COUNT as u64).collect(),
    };
    let (ends, _) = Run::from_prior(parts, &truth.zeros_like())?.finish(&mut Unwatched)?;
    let (mut ends, truth) = (ends.to_rows(), truth.to_rows());
    if arm == Arm::Baseline {
        for (end, truth) in ends.iter_mut().zip(&truth) {
            (0..DIM).step_by(2).for_each(|i| end[i] = truth[i]);
        }
    }
    Ok(world::distance(&ends, &truth))
}
