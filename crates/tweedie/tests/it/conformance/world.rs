//! The exact worlds that samplers and guides are held against, and how a run is made on them.

use burn::tensor::Device;
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Cost, Denoiser, Pass};
use tweedie::level::{Level, Levels};
use tweedie::noise::{Noise, Recorded};
use tweedie::oracle::{Gaussian, GaussianMixture};
use tweedie::process::{Process, VpLinear};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::sampler::{self, Sampler};
use tweedie::spec::PartSpec;
use tweedie::state::State;

/// A Gaussian in the plane whose axes are not the coordinates'.
pub(super) fn gaussian() -> Gaussian {
    Gaussian::new(vec![0.7, -0.4], &[vec![0.5, 0.3], vec![0.3, 0.9]]).unwrap()
}

/// Three modes in the plane; class 0 has two of them.
pub(super) fn mixture() -> GaussianMixture {
    let part = |mean: [f64; 2], c: [f64; 3]| {
        Gaussian::new(mean.to_vec(), &[vec![c[0], c[1]], vec![c[1], c[2]]]).unwrap()
    };
    GaussianMixture::new(vec![
        (0.5, part([1.0, 0.3], [0.3, 0.1, 0.2])),
        (0.3, part([-0.8, 0.9], [0.2, -0.05, 0.4])),
        (0.2, part([-0.3, -1.1], [0.5, 0.2, 0.3])),
    ])
    .unwrap()
    .with_classes(vec![vec![0, 2], vec![1]])
    .unwrap()
}

/// The interior interval that orders are measured on: `lambda` from -1.2 to 1.8.
pub(super) const INTERVAL: (f64, f64) = (-1.2, 1.8);

/// `steps + 1` levels of the interval, uniform in the log-SNR.
pub(super) fn interior(process: &dyn Process, steps: usize) -> Vec<Level> {
    let (a, b) = INTERVAL;
    let at = |i: usize| process.at_lambda(a + (b - a) * i as f64 / steps as f64);
    (0..=steps).map(at).collect()
}

/// The same interval with steps that are long and short in turn, two to one.
pub(super) fn uneven(process: &dyn Process, steps: usize) -> Vec<Level> {
    let (a, b) = INTERVAL;
    let whole = (steps / 2 * 3 + steps % 2 * 2) as f64;
    let at = |i: usize| {
        let gone = (i / 2 * 3 + i % 2 * 2) as f64;
        process.at_lambda(a + (b - a) * gone / whole)
    };
    (0..=steps).map(at).collect()
}

pub(super) fn path() -> VpLinear {
    VpLinear::default()
}

pub(super) fn state(rows: &[Vec<f64>]) -> State {
    let shape = [rows.len(), rows[0].len()];
    State::from_f64(rows.concat(), &shape, &Device::flex()).unwrap()
}

pub(super) fn sampler(part: &PartSpec) -> Box<dyn Sampler> {
    part.make(sampler::entries(), Seam::Sampler).unwrap()
}

/// A tape that holds nothing.
pub(super) fn silence() -> Box<dyn Noise> {
    Box::new(Recorded::new(Vec::new()))
}

/// A run over the levels.
pub(super) fn run<'m>(
    model: &'m dyn Denoiser,
    process: &'m dyn Process,
    levels: &[Level],
    sampler: Box<dyn Sampler>,
    noise: Box<dyn Noise>,
    x: State,
) -> Run<'m> {
    let requests = (0..x.batch() as u64).collect();
    let (guides, taps, cond) = (Vec::new(), Vec::new(), Cond::default());
    let levels = levels.to_vec();
    Run::new(Parts { model, process, levels, sampler, guides, taps, noise, cond, requests }, x)
        .unwrap()
}

/// The end of a run over the levels, and its cost.
pub(super) fn walk(
    model: &dyn Denoiser,
    process: &dyn Process,
    levels: &[Level],
    sampler: Box<dyn Sampler>,
    noise: Box<dyn Noise>,
    x: State,
) -> Result<(State, Cost)> {
    run(model, process, levels, sampler, noise, x).finish(&mut Unwatched)
}

/// The estimate of a denoiser without a condition.
pub(super) fn ask(model: &dyn Denoiser, x: &State, level: Level) -> State {
    let mut pass = Pass::single(x.batch(), level);
    model.x0(x, &Levels::One(level), &Cond::default(), &mut pass).unwrap()
}

/// The probability-flow solution over the interval, by the classical Runge-Kutta method in
/// `y = x / sigma`, where `dy / dlambda = e^lambda x0`.
pub(super) fn flow(model: &dyn Denoiser, process: &dyn Process, x: &State, steps: usize) -> State {
    let (a, b) = INTERVAL;
    let h = (b - a) / steps as f64;
    let slope = |y: &State, lambda: f64| {
        let at = process.at_lambda(lambda);
        ask(model, &(y.clone() * at.sigma), at) * lambda.exp()
    };
    let mut y = x.clone() * (1.0 / process.at_lambda(a).sigma);
    for i in 0..steps {
        let at = a + h * i as f64;
        let k1 = slope(&y, at);
        let k2 = slope(&(y.clone() + k1.clone() * (0.5 * h)), at + 0.5 * h);
        let k3 = slope(&(y.clone() + k2.clone() * (0.5 * h)), at + 0.5 * h);
        let k4 = slope(&(y.clone() + k3.clone() * h), at + h);
        y = y + (k1 + (k2 + k3) * 2.0 + k4) * (h / 6.0);
    }
    y * process.at_lambda(b).sigma
}

/// The largest difference of two states.
pub(super) fn apart(a: &State, b: &State) -> f64 {
    let (a, b) = (a.to_rows().concat(), b.to_rows().concat());
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    if a.iter().chain(&b).any(|v| v.is_nan()) { f64::NAN } else { worst }
}

/// The slope of `-log error` over `log steps`, by least squares.
pub(super) fn order(steps: &[usize], errors: &[f64]) -> f64 {
    let x: Vec<f64> = steps.iter().map(|n| (*n as f64).ln()).collect();
    let y: Vec<f64> = errors.iter().map(|e| -e.ln()).collect();
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let top: f64 = x.iter().zip(&y).map(|(x, y)| (x - mx) * (y - my)).sum();
    top / x.iter().map(|x| (x - mx) * (x - mx)).sum::<f64>()
}
