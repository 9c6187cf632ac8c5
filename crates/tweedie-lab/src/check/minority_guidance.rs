//! Guided to the last quantile of the minority score, samples come from the rare part of the data.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::Cond;
use tweedie::grid;
use tweedie::guide::minority_guidance::{quantiles, scores};
use tweedie::guide::{self, Guide};
use tweedie::level::{Level, Levels};
use tweedie::noise::Seeded;
use tweedie::oracle::{Gaussian, GaussianMixture};
use tweedie::process::{self, Process};
use tweedie::random::Key;
use tweedie::reward::{Classifies, Likelihood};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "minority-guidance",
    file: file!(),
    claim: "guided by a classifier of minority scores, many more samples come from where data is rare (section 4)",
    world: "two Gaussians in the plane of weights 0.95 and 0.05, exact denoiser, exact classifier of the scores of 1,000 samples, vp-linear, 100 steps of DDPM",
    measure: "share of 200 samples from the rare Gaussian",
    arms: ["no guidance", "the scores of the samples dealt out at random"],
    // The entry's proposal: eight times the share of the data.
    bar: Bar::AtLeast(0.4),
    seeds: &[71, 72, 73],
    run,
};

/// Samples whose scores are known.
const KNOWN: usize = 1000;
const CLASSES: usize = 20;
const COUNT: usize = 200;

fn mixture() -> Result<GaussianMixture> {
    let part = |mean: [f64; 2], wide: f64| {
        Gaussian::new(mean.to_vec(), &[vec![wide, 0.0], vec![0.0, wide]])
    };
    GaussianMixture::new(vec![(0.95, part([-0.8, 0.0], 0.04)?), (0.05, part([1.2, 0.6], 0.04)?)])
}

/// The exact posterior of a label given a noisy state, where the data are some labelled points.
#[derive(Debug)]
struct Labelled {
    points: Vec<f64>,
    classes: Vec<i64>,
}

impl Classifies for Labelled {
    fn logits(&self, x: &State, at: &Levels) -> Result<Tensor<2>> {
        let level = at.single("labelled points")?;
        let flat = x.rows_tensor()?;
        let [rows, width] = flat.dims();
        let count = self.classes.len();
        let device = flat.device().without_autodiff();
        let of = |data: Vec<f64>, shape: [usize; 2]| {
            let t = Tensor::<2>::from_data(TensorData::new(data, shape), (&device, flat.dtype()));
            if flat.is_autodiff() { t.autodiff() } else { t }
        };
        // |x - alpha p|^2 without a tensor of all differences.
        let points: Vec<f64> = self.points.iter().map(|p| p * level.alpha).collect();
        let squares = points.chunks(width).map(|p| p.iter().map(|v| v * v).sum()).collect();
        let points = of(points, [count, width]);
        let cross = flat.clone().matmul(points.transpose());
        let own = (flat.clone() * flat.clone()).sum_dim(1);
        let fit = (own + of(squares, [1, count]) - cross * 2.0) * (-0.5 / level.sigma.powi(2));
        // Weights relative to the nearest point of all.
        let most = fit.clone().detach().max_dim(1);
        let mut belongs = vec![0.0; count * CLASSES];
        for (i, class) in self.classes.iter().enumerate() {
            belongs[i * CLASSES + *class as usize] = 1.0;
        }
        let near = (fit - most).exp().matmul(of(belongs, [count, CLASSES]));
        debug_assert_eq!(near.dims(), [rows, CLASSES]);
        Ok((near + 1e-30).log())
    }

    fn classes(&self) -> usize {
        CLASSES
    }

    fn reads_noise(&self) -> bool {
        true
    }
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let world = mixture()?;
    let path: Box<dyn Process> =
        PartSpec::named("vp-linear").make(process::entries(), Seam::Process)?;
    let grid = PartSpec::named("linspace").make(grid::entries(), Seam::Grid)?;
    let mut draw = Key::new(seed, 1, 0).generator();
    let mut points = Vec::with_capacity(2 * KNOWN);
    for _ in 0..KNOWN {
        points.extend(world.sample(None, &mut draw)?);
    }
    let clean = State::from_f64(points.clone(), &[KNOWN, 2], &Device::flex())?;
    let mut noise = Seeded::of_seeds((0..KNOWN as u64).map(|k| (seed << 32) + k));
    let cond = Cond::default();
    let own = |x: &State| Ok(x.clone());
    let found = scores(&world, (&clean, &cond), path.at(0.6), (&mut noise, 5), &own)?;
    let mut classes = quantiles(&found, CLASSES);
    if arm == Arm::Ablation {
        let order = draw.permutation(KNOWN);
        classes = order.iter().map(|&i| classes[i]).collect();
    }
    let classifier = Arc::new(Labelled { points, classes });
    let reward = Likelihood::new(classifier, vec![0; COUNT])?;
    let guides: Vec<Box<dyn Guide>> = match arm {
        Arm::Baseline => Vec::new(),
        _ => vec![PartSpec::named("minority-guidance").make(guide::entries(), Seam::Guide)?],
    };
    let levels = grid.levels(path.as_ref(), 100)?;
    let like = State::from_f64(vec![0.0; 2 * COUNT], &[COUNT, 2], &Device::flex())?;
    let parts = Parts {
        model: &world,
        process: path.as_ref(),
        levels,
        sampler: world::sampler("ddpm")?,
        guides,
        taps: Vec::new(),
        noise: Box::new(Seeded::of_seeds((0..COUNT as u64).map(|k| (seed << 33) + k))),
        cond: Cond { reward: Some(Arc::new(reward)), ..Cond::default() },
        requests: (0..COUNT as u64).collect(),
    };
    let (ends, _) = Run::from_prior(parts, &like)?.finish(&mut Unwatched)?;
    let mut rare = 0;
    for row in ends.to_rows() {
        let log = |class| world.log_density(&row, Level::CLEAN, Some(class));
        rare += usize::from(0.05_f64.ln() + log(1)? > 0.95_f64.ln() + log(0)?);
    }
    Ok(rare as f64 / COUNT as f64)
}
