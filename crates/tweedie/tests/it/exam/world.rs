//! The smallest exact world: Gaussian data, one coordinate independent of the other.

use burn::tensor::Device;
use tweedie::denoiser::{Cond, Denoiser, Pass};
use tweedie::level::{Level, Levels};
use tweedie::noise::{Noise, Seeded};
use tweedie::process::{Process, Rate};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::sampler::{Claims, Eval, Sampler, Step};
use tweedie::state::State;
use tweedie::{Error, Result};

/// `alpha = cos`, `sigma = sin`.
#[derive(Debug)]
pub(crate) struct Cosine;

impl Process for Cosine {
    fn at(&self, t: f64) -> Level {
        let (sigma, alpha) = (t * std::f64::consts::FRAC_PI_2).sin_cos();
        Level::new(t, alpha, sigma)
    }

    fn rate(&self, t: f64) -> Rate {
        let level = self.at(t);
        let half_pi = std::f64::consts::FRAC_PI_2;
        Rate { alpha: -half_pi * level.sigma, anchor: 0.0, sigma: half_pi * level.alpha }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        (-lambda).exp().atan() / std::f64::consts::FRAC_PI_2
    }
}

/// Levels uniform in the log signal-to-noise ratio between two times, noise first.
pub(crate) fn uniform_lambda(
    process: &dyn Process,
    from: f64,
    to: f64,
    steps: usize,
) -> Vec<Level> {
    let (start, end) = (process.at(from).lambda(), process.at(to).lambda());
    let lambda = |i: usize| start + (end - start) * i as f64 / steps as f64;
    (0..=steps).map(|i| process.at_lambda(lambda(i))).collect()
}

/// Data `N(mean, std^2)` in every coordinate; a class `k` moves the mean by `k`.
#[derive(Debug)]
pub(crate) struct Gauss {
    pub(crate) mean: f64,
    pub(crate) std: f64,
}

impl Gauss {
    fn gain(&self, l: Level) -> f64 {
        l.alpha * self.std * self.std / (l.alpha * self.std).hypot(l.sigma).powi(2)
    }

    /// The standard deviation of `x_t`.
    pub(crate) fn std_at(&self, l: Level) -> f64 {
        (l.alpha * self.std).hypot(l.sigma)
    }
}

impl Denoiser for Gauss {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        pass.count_forward();
        let batch = x.batch();
        let class = |row: usize| cond.class.as_ref().map_or(0.0, |c| c[row] as f64);
        let means: Vec<f64> = (0..batch).map(|row| self.mean + class(row)).collect();
        let x = tweedie::prediction::free_of_anchor(x, cond.endpoint.as_ref(), at);
        let ones = x.untracked().map(|v| v.zeros_like() + 1.0).scaled_rows(&means);
        let ones = if x.rows_tensor()?.is_autodiff() { ones.map(|v| v.autodiff()) } else { ones };
        Ok(x.scaled(at, |l| self.gain(l)) + ones.scaled(at, |l| 1.0 - self.gain(l) * l.alpha))
    }
}

/// The exponential integrator of first order: from one level to the next along the estimate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain {
    /// Fresh noise in a step, as DDIM's eta.
    pub(crate) eta: f64,
}

impl Sampler for Plain {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: self.eta > 0.0 }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let x0 = eval.at(&x, from)?;
        let ratio = from.alpha * to.sigma / (to.alpha * from.sigma);
        let fresh = self.eta * to.sigma * (1.0 - ratio * ratio).max(0.0).sqrt();
        let kept = (to.sigma * to.sigma - fresh * fresh).max(0.0).sqrt();
        let eps = (x - x0.clone() * from.alpha) * (1.0 / from.sigma);
        let next = x0 * to.alpha + eps * kept;
        Ok(if fresh > 0.0 { next.clone() + noise.draw(&next)? * fresh } else { next })
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

/// A state of f64 rows.
pub(crate) fn state(rows: &[Vec<f64>]) -> State {
    State::from_f64(rows.concat(), &[rows.len(), rows[0].len()], &Device::flex()).unwrap()
}

/// The parts of a run of `batch` rows, seeded from 0.
pub(crate) fn parts<'m>(
    model: &'m dyn Denoiser,
    process: &'m dyn Process,
    levels: Vec<Level>,
    sampler: impl Sampler + 'static,
    batch: usize,
) -> Parts<'m> {
    Parts {
        model,
        process,
        levels,
        sampler: Box::new(sampler),
        guides: Vec::new(),
        taps: Vec::new(),
        noise: Box::new(Seeded::new(0, batch)),
        cond: Cond::default(),
        requests: (0..batch as u64).collect(),
    }
}

/// Runs to the end and returns the rows.
pub(crate) fn finish(run: Run<'_>) -> Vec<Vec<f64>> {
    run.finish(&mut Unwatched).unwrap().0.to_rows()
}

/// The largest difference between two sets of rows.
pub(crate) fn distance(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

/// Mean and variance of one coordinate.
pub(crate) fn moments(rows: &[Vec<f64>], coordinate: usize) -> (f64, f64) {
    let n = rows.len() as f64;
    let mean = rows.iter().map(|r| r[coordinate]).sum::<f64>() / n;
    let variance = rows.iter().map(|r| (r[coordinate] - mean).powi(2)).sum::<f64>() / n;
    (mean, variance)
}

/// An error of the library, for parts that a test makes up.
pub(crate) fn refused(needs: &str) -> Error {
    Error::unsupported("test", needs)
}
