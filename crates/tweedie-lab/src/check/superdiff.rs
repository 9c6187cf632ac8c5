//! Superposition with `and` keeps the densities under two conditions equal.

use burn::tensor::Device;
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::Cond;
use tweedie::guide::superdiff::{Mode, Settings};
use tweedie::guide::{Compose, Guide, Superdiff, compose};
use tweedie::noise::Seeded;
use tweedie::process::{self, Process};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::sampler::Ddim;
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "superdiff",
    file: file!(),
    claim: "samples of the superposition are as likely under one condition as under the other (Proposition 6)",
    world: "three Gaussians in the plane in two classes, exact denoiser, vp-linear, 1,000 steps of DDIM with eta = 1",
    measure: "median distance of the log densities under the two classes at lambda = 2, of 200 samples",
    arms: [
        "the mean of both conditions",
        "the densities of the samples taken for equal at every step",
    ],
    // A fifth of the least that the first run of the baseline measured, 5.33.
    bar: Bar::AtMost(1.06),
    seeds: &[41, 42, 43],
    run,
};

/// The superposition that forgets what it has followed.
#[derive(Debug)]
struct Forgetful(Superdiff);

impl Guide for Forgetful {
    fn x0(
        &mut self,
        model: &dyn tweedie::denoiser::Denoiser,
        x: &State,
        at: &tweedie::level::Levels,
        cond: &Cond,
        pass: &mut tweedie::denoiser::Pass,
    ) -> Result<State> {
        self.0.reset();
        self.0.x0(model, x, at, cond, pass)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(Self(self.0.clone()))
    }
}

fn superdiff() -> Result<Superdiff> {
    let settings =
        Settings { mode: Mode::And, weight: 1.0, classes: vec![1], ..Settings::default() };
    Superdiff::new(settings)
}

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let world = world::mixture()?.with_classes(vec![vec![0, 2], vec![1]])?;
    let path: Box<dyn Process> =
        PartSpec::named("vp-linear").make(process::entries(), Seam::Process)?;
    let count = 200;
    let at = |i: usize| path.at_lambda(-3.0 + 5.0 * i as f64 / 1000.0);
    let levels: Vec<_> = (0..=1000).map(at).collect();
    let end = levels[1000];
    let mut noise = Seeded::of_seeds((0..count as u64).map(|k| (seed << 32) + k));
    let like = State::from_f64(vec![0.0; 2 * count], &[count, 2], &Device::flex())?;
    let x = path.prior(&like, None, levels[0], &mut noise)?;
    let part = compose::Part { weight: 0.5, cond: compose::Which::Class(1) };
    let guide: Box<dyn Guide> = match arm {
        Arm::Baseline => Box::new(Compose::with(0.5, vec![part])?),
        Arm::Method => Box::new(superdiff()?),
        Arm::Ablation => Box::new(Forgetful(superdiff()?)),
    };
    let parts = Parts {
        model: &world,
        process: path.as_ref(),
        levels,
        sampler: Box::new(Ddim { eta: 1.0, even: false }),
        guides: vec![guide],
        taps: Vec::new(),
        noise: Box::new(noise),
        cond: Cond::of_class(vec![0; count]),
        requests: (0..count as u64).collect(),
    };
    let (x, _) = Run::new(parts, x)?.finish(&mut Unwatched)?;
    let mut gaps = Vec::new();
    for row in x.to_rows() {
        let log = |class| world.log_density(&row, end, Some(class));
        gaps.push((log(0)? - log(1)?).abs());
    }
    gaps.sort_by(f64::total_cmp);
    Ok(gaps[count / 2])
}
