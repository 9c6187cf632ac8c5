//! The best of eight walks scores as the best of eight draws from the model would.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::Cond;
use tweedie::grid;
use tweedie::level::{Level, Levels};
use tweedie::noise::{Noise, Seeded};
use tweedie::oracle::GaussianMixture;
use tweedie::process::{self, Process};
use tweedie::reward::Reward;
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::search::{self, Ground};
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "noise-search",
    file: file!(),
    claim: "spending walks on a search raises what the verifier says as the best of as many draws would (section 3)",
    world: world::NAME,
    measure: "Kolmogorov's distance times the root of the count, of the log densities of 300 samples of a best-of-8 search to those of the largest of 8 draws",
    arms: ["one walk", "the first of the 8 walks in place of the best"],
    // Closed form: what is exceeded with a probability of 0.01 where the laws are equal.
    bar: Bar::AtMost(1.63),
    seeds: &[51, 52, 53],
    run,
};

const CANDIDATES: i32 = 8;
const COUNT: u64 = 300;

/// The log density of clean data, read through a closure so that searches know nothing of the world.
#[derive(Clone, Debug)]
pub(crate) struct LogDensity(pub(crate) Arc<GaussianMixture>);

impl Reward for LogDensity {
    fn score(&self, x: &State, _at: &Levels) -> Result<Tensor<2>> {
        let logs: Result<Vec<f64>> =
            x.to_rows().iter().map(|row| self.0.log_density(row, Level::CLEAN, None)).collect();
        let data = TensorData::new(logs?, [x.batch(), 1]);
        Ok(Tensor::from_data(data, (&x.device(), x.dtype())))
    }

    fn is_differentiable(&self) -> bool {
        false
    }

    fn select(&self, _rows: &[usize]) -> Arc<dyn Reward> {
        Arc::new(self.clone())
    }
}

/// What picks the first candidate: every candidate scores alike.
#[derive(Clone, Debug)]
struct Indifferent;

impl Reward for Indifferent {
    fn score(&self, x: &State, _at: &Levels) -> Result<Tensor<2>> {
        Ok(Tensor::zeros([x.batch(), 1], (&x.device(), x.dtype())))
    }

    fn select(&self, _rows: &[usize]) -> Arc<dyn Reward> {
        Arc::new(self.clone())
    }
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let world = Arc::new(world::mixture()?);
    let path: Box<dyn Process> =
        PartSpec::named("vp-linear").make(process::entries(), Seam::Process)?;
    let grid = PartSpec::named("log-snr").make(grid::entries(), Seam::Grid)?;
    let levels = grid.levels(path.as_ref(), 20)?;
    let like = State::from_f64(vec![0.0; 2], &[1, 2], &Device::flex())?;
    let parts_of = |noise: Box<dyn Noise>, rows: usize| -> Result<Parts<'_>> {
        Ok(Parts {
            model: world.as_ref(),
            process: path.as_ref(),
            levels: levels.clone(),
            sampler: world::sampler("dpmpp-2m")?,
            guides: Vec::new(),
            taps: Vec::new(),
            noise,
            cond: Cond::default(),
            requests: (0..rows as u64).collect(),
        })
    };
    let verifier = LogDensity(world.clone());
    let reward: Arc<dyn Reward> = match arm {
        Arm::Ablation => Arc::new(Indifferent),
        _ => Arc::new(verifier.clone()),
    };
    let candidates = if arm == Arm::Baseline { 1 } else { CANDIDATES };
    let mut scores = Vec::new();
    for k in 0..COUNT {
        let parts = |rows: Range<usize>, _: Option<usize>| {
            let mut noise = Seeded::of_seeds([(seed << 32) + k]);
            noise.select(&vec![0; rows.end]);
            noise.select(&rows.clone().collect::<Vec<_>>());
            parts_of(Box::new(noise), rows.len())
        };
        let part = PartSpec::named("noise-search").with("candidates", candidates);
        let mut search = part.make(search::entries(), Seam::Search)?;
        let ground = Ground { parts: &parts, like: like.clone(), reward: reward.clone(), room: 64 };
        let found = search.search(&ground, &mut Unwatched)?;
        scores.push(world.log_density(&found.x.to_rows()[0], Level::CLEAN, None)?);
    }
    // The law of one draw, from others.
    let others = 20_000;
    let noise = Seeded::of_seeds((0..others).map(|k| (seed << 32) + COUNT + k));
    let all = like.select(&vec![0; others as usize]);
    let run = Run::from_prior(parts_of(Box::new(noise), others as usize)?, &all)?;
    let (ends, _) = run.finish(&mut Unwatched)?;
    let mut law: Vec<f64> = ends
        .to_rows()
        .iter()
        .map(|row| world.log_density(row, Level::CLEAN, None))
        .collect::<Result<_>>()?;
    law.sort_by(f64::total_cmp);
    // Where the best of n has the law F^n, F^n of it is uniform.
    let share = |score: &f64| law.partition_point(|l| l <= score) as f64 / others as f64;
    let mut shares: Vec<f64> = scores.iter().map(|s| share(s).powi(CANDIDATES)).collect();
    shares.sort_by(f64::total_cmp);
    let count = shares.len() as f64;
    let off = |(i, u): (usize, &f64)| {
        let i = i as f64;
        (u - i / count).abs().max(((i + 1.0) / count - u).abs())
    };
    let distance = shares.iter().enumerate().map(off).fold(0.0, f64::max);
    Ok(distance * count.sqrt())
}
