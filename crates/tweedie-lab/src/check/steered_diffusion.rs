//! Steered at the estimate, samples come nearer to the exact posterior than by replacing what is seen.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::Cond;
use tweedie::grid;
use tweedie::guide::{self, Guide};
use tweedie::level::Levels;
use tweedie::noise::{Noise, Seeded};
use tweedie::operator::{Mask, Operator};
use tweedie::oracle::{Gaussian, GaussianMixture};
use tweedie::process::{self, Process};
use tweedie::random::Key;
use tweedie::reward::{Measurement, Reward};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::sampler::{Blend, Ddim, Sampler};
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::{Arm, Bar, Check};

pub(crate) const CHECK: Check = Check {
    id: "steered-diffusion",
    file: file!(),
    claim: "steered along the gradient of a loss of the estimate, samples follow a measurement better than by replacing (section 4)",
    world: "a Gaussian in 16 dimensions of which every second is seen, exact denoiser, vp-linear, 100 steps of DDIM with eta = 1",
    measure: "distance of the mean of 200 samples to the exact posterior mean, over that of replacing what is seen in the state",
    arms: [
        "what is seen replaced in the state at every step, over itself",
        "the estimate projected on the measurement, without the network's gradient",
    ],
    // The entry's proposal.
    bar: Bar::AtMost(0.6),
    seeds: &[91, 92, 93],
    run,
};

const DIM: usize = 16;
const COUNT: usize = 200;
const POINTS: u64 = 16;

/// A measurement that is followed by its gradient, as a loss that has no projection is.
#[derive(Debug)]
struct Followed(Measurement);

impl Reward for Followed {
    fn score(&self, x: &State, at: &Levels) -> Result<Tensor<2>> {
        self.0.score(x, at)
    }

    fn select(&self, rows: &[usize]) -> Arc<dyn Reward> {
        self.0.select(rows)
    }
}

/// A Gaussian whose coordinates hang together: steps of a walk that forgets slowly.
fn covariance() -> Vec<Vec<f64>> {
    let between = |i: usize, j: usize| 0.5 * 0.85_f64.powi(i.abs_diff(j) as i32);
    (0..DIM).map(|i| (0..DIM).map(|j| between(i, j)).collect()).collect()
}

fn seen() -> Vec<bool> {
    (0..DIM).map(|i| i % 2 == 0).collect()
}

/// The mean of what is not seen given what is: `S_us S_ss^-1 y`, by elimination.
fn posterior_mean(y: &[f64]) -> Vec<f64> {
    let (s, seen) = (covariance(), seen());
    let known: Vec<usize> = (0..DIM).filter(|i| seen[*i]).collect();
    let n = known.len();
    let mut rows: Vec<Vec<f64>> =
        known.iter().map(|&i| known.iter().map(|&j| s[i][j]).chain([y[i]]).collect()).collect();
    for k in 0..n {
        let pivot = rows[k].clone();
        for (i, row) in rows.iter_mut().enumerate() {
            if i != k {
                let factor = row[k] / pivot[k];
                row.iter_mut().zip(&pivot).for_each(|(a, b)| *a -= factor * b);
            }
        }
    }
    let solved: Vec<f64> = (0..n).map(|k| rows[k][n] / rows[k][k]).collect();
    (0..DIM).map(|i| known.iter().zip(&solved).map(|(&j, v)| s[i][j] * v).sum()).collect()
}

/// The distance of the samples' mean to the posterior's.
fn miss(arm: Arm, seed: u64) -> Result<f64> {
    let world = GaussianMixture::new(vec![(1.0, Gaussian::new(vec![0.0; DIM], &covariance())?)])?;
    let path: Box<dyn Process> =
        PartSpec::named("vp-linear").make(process::entries(), Seam::Process)?;
    let grid = PartSpec::named("linspace").make(grid::entries(), Seam::Grid)?;
    let levels = grid.levels(path.as_ref(), 100)?;
    let point = world.sample(None, &mut Key::new(seed, 1, 0).generator())?;
    let truth = State::from_f64(point.repeat(COUNT), &[COUNT, DIM], &Device::flex())?;
    let mask = Arc::new(Mask::new(&seen())?);
    let measured = mask.apply(&truth)?;
    let steered = || {
        // Chosen on other seeds, in steps of two.
        let part: PartSpec = "steered-diffusion:scale=4".parse()?;
        part.make(guide::entries(), Seam::Guide)
    };
    let ddim = Ddim { eta: 1.0, even: false };
    let mut noise = Seeded::of_seeds((0..COUNT as u64).map(|k| (seed << 32) + k));
    let (mut guides, mut sampler): (Vec<Box<dyn Guide>>, Box<dyn Sampler>) =
        (Vec::new(), Box::new(ddim.clone()));
    match arm {
        Arm::Baseline => {
            let hidden = seen().iter().map(|s| f64::from(u8::from(!s))).collect::<Vec<_>>();
            let hidden = truth.filled_like(&hidden.repeat(COUNT))?;
            let eps = noise.fork(7).draw(&truth)?;
            sampler = Box::new(Blend::new(Box::new(ddim), hidden, truth.clone(), eps));
        }
        Arm::Method | Arm::Ablation => guides.push(steered()?),
    }
    let measurement = Measurement::new(mask, measured);
    let reward: Arc<dyn Reward> = match arm {
        Arm::Method => Arc::new(Followed(measurement)),
        _ => Arc::new(measurement),
    };
    let x = path.prior(&truth, None, levels[0], &mut noise)?;
    let parts = Parts {
        model: &world,
        process: path.as_ref(),
        levels,
        sampler,
        guides,
        taps: Vec::new(),
        noise: Box::new(noise),
        cond: Cond { reward: Some(reward), ..Cond::default() },
        requests: (0..COUNT as u64).collect(),
    };
    let (ends, _) = Run::new(parts, x)?.finish(&mut Unwatched)?;
    let mut mean = [0.0; DIM];
    for row in ends.to_rows() {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / COUNT as f64);
    }
    let wanted = posterior_mean(&point);
    let square: f64 = mean.iter().zip(&wanted).map(|(a, b)| (a - b) * (a - b)).sum();
    Ok(square.sqrt())
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    if arm == Arm::Baseline {
        return Ok(1.0);
    }
    // Several points to measure, so that no single one decides.
    let mut sums = [0.0; 2];
    for k in 0..POINTS {
        sums[0] += miss(arm, seed * 100 + k)?;
        sums[1] += miss(Arm::Baseline, seed * 100 + k)?;
    }
    Ok(sums[0] / sums[1])
}
