//! The trained world that checks of guides share: `builtin:fashion` without a class, guided to classes by
//! what a reward says, and judged by `builtin:fashion-judge`, which took no part.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::data::Images;
use tweedie::denoiser::Cond;
use tweedie::engine::{Measured, Model};
use tweedie::grid;
use tweedie::guide::Guide;
use tweedie::noise::Seeded;
use tweedie::process;
use tweedie::reward::Reward;
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::world;

/// The class of each sample: all ten in turn.
pub(crate) fn asked(count: usize) -> Vec<i64> {
    (0..count as i64).map(|k| k % 10).collect()
}

/// The share of samples that the judge sees as the class that was asked.
pub(crate) fn hits(
    sampler: &str,
    (steps, count): (usize, usize),
    seed: u64,
    guides: Vec<Box<dyn Guide>>,
    reward: Option<Arc<dyn Reward>>,
) -> Result<f64> {
    let device = Device::flex();
    let model = Model::open("builtin:fashion", &device)?;
    let judge = Measured::open("builtin:fashion-judge", &device)?;
    let process = model.process.make(process::entries(), Seam::Process)?;
    let grid = PartSpec::named("trailing").make(grid::entries(), Seam::Grid)?;
    // The class behind the last stands for none.
    let none = model.classes.as_ref().and_then(|c| c.none).unwrap_or_default();
    let [channels, height, width] = model.shape;
    let like = State::new(Tensor::<4>::zeros([count, channels, height, width], &device));
    let parts = Parts {
        model: &model.denoiser,
        process: process.as_ref(),
        levels: grid.levels(process.as_ref(), steps)?,
        sampler: world::sampler(sampler)?,
        guides,
        taps: Vec::new(),
        noise: Box::new(Seeded::of_seeds((0..count as u64).map(|k| (seed << 32) + k))),
        cond: Cond { reward, ..Cond::of_class(vec![none; count]) },
        requests: (0..count as u64).collect(),
    };
    let (ends, _) = Run::from_prior(parts, &like)?.finish(&mut Unwatched)?;
    let values: Vec<f32> = ends.to_rows().concat().iter().map(|v| *v as f32).collect();
    let images = Images::from_f32([count, channels, height, width], &values)?;
    let (_, found) = judge.look(&images)?;
    let right = asked(count).iter().zip(&found).filter(|(a, f)| **a == i64::from(**f)).count();
    Ok(right as f64 / count as f64)
}
