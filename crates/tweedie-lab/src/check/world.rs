//! The world that sampler checks share: an exact mixture in the plane.

use burn::tensor::Device;
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::Cond;
use tweedie::grid;
use tweedie::noise::Seeded;
use tweedie::oracle::{Gaussian, GaussianMixture};
use tweedie::process::{self, Process};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::sampler::Sampler;
use tweedie::spec::PartSpec;
use tweedie::state::State;

/// What the worlds are called in records.
pub(crate) const NAME: &str =
    "three Gaussians in the plane, exact denoiser, vp-linear, log-snr grid";

/// Three Gaussians of unlike weight and shape.
pub(crate) fn mixture() -> Result<GaussianMixture> {
    let part = |weight, mean: [f64; 2], [a, b, c]: [f64; 3]| -> Result<(f64, Gaussian)> {
        Ok((weight, Gaussian::new(mean.to_vec(), &[vec![a, b], vec![b, c]])?))
    };
    GaussianMixture::new(vec![
        part(0.5, [-1.0, 0.3], [0.04, 0.01, 0.06])?,
        part(0.3, [1.1, 0.8], [0.05, -0.02, 0.03])?,
        part(0.2, [0.4, -1.2], [0.03, 0.0, 0.08])?,
    ])
}

/// Samples of the mixture by a sampler: `count` rows from noise of the given seed.
pub(crate) fn samples(
    sampler: Box<dyn Sampler>,
    steps: usize,
    count: usize,
    seed: u64,
) -> Result<Vec<Vec<f64>>> {
    walked(sampler, "log-snr", steps, count, seed)
}

/// The same with steps that are even in time.
pub(crate) const EVEN: &str =
    "three Gaussians in the plane, exact denoiser, vp-linear, steps even in time";

/// Samples by a sampler whose steps are even in time.
pub(crate) fn even(
    sampler: Box<dyn Sampler>,
    steps: usize,
    count: usize,
    seed: u64,
) -> Result<Vec<Vec<f64>>> {
    walked(sampler, "linspace", steps, count, seed)
}

fn walked(
    sampler: Box<dyn Sampler>,
    grid: &str,
    steps: usize,
    count: usize,
    seed: u64,
) -> Result<Vec<Vec<f64>>> {
    let world = mixture()?;
    let process: Box<dyn Process> =
        PartSpec::named("vp-linear").make(process::entries(), Seam::Process)?;
    let grid = PartSpec::named(grid).make(grid::entries(), Seam::Grid)?;
    let levels = grid.levels(process.as_ref(), steps)?;
    let like = State::from_f64(vec![0.0; 2 * count], &[count, 2], &Device::flex())?;
    let mut noise = Seeded::of_seeds((0..count as u64).map(|k| (seed << 32) + k));
    let x = process.prior(&like, None, levels[0], &mut noise)?;
    let parts = Parts {
        model: &world,
        process: process.as_ref(),
        levels,
        sampler,
        guides: Vec::new(),
        taps: Vec::new(),
        noise: Box::new(noise),
        cond: Cond::default(),
        requests: (0..count as u64).collect(),
    };
    Ok(Run::new(parts, x)?.finish(&mut Unwatched)?.0.to_rows())
}

/// The root of the mean squared distance between two runs of the same rows.
pub(crate) fn distance(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let square = |(x, y): (&Vec<f64>, &Vec<f64>)| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum()
    };
    (a.iter().zip(b).map(square).sum::<f64>() / a.len() as f64).sqrt()
}

/// A sampler of the catalogue.
pub(crate) fn sampler(part: &str) -> Result<Box<dyn Sampler>> {
    part.parse::<PartSpec>()?.make(tweedie::sampler::entries(), Seam::Sampler)
}
