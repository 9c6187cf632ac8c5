//! One number through a step or a run, for the tests of samplers.

use burn::tensor::Device;

use super::{Eval, Level, Levels, Result, Sampler, State, Step};
use crate::noise::Recorded;
use crate::process::{Edm, Process as _, VpLinear};

/// A denoiser that says this, whatever it is asked.
struct Says(f64);

impl Eval for Says {
    fn x0(&mut self, x: &State, _at: &Levels) -> Result<State> {
        Ok(x.map(|x| x * 0.0 + self.0))
    }
}

#[cfg(test)]
fn number(x: f64) -> State {
    State::from_f64(vec![x], &[1, 1], &Device::flex()).unwrap()
}

/// Step `place.0` of `place.1` between two levels, from `x` with the estimate `x0` and one draw.
pub(crate) fn step(
    sampler: &mut dyn Sampler,
    (from, to): (Level, Level),
    (index, count): (usize, usize),
    (x, x0): (f64, f64),
    z: f64,
) -> f64 {
    try_step(sampler, (from, to), (index, count), (x, x0), z).unwrap()
}

/// The same of a step that may be refused.
pub(crate) fn try_step(
    sampler: &mut dyn Sampler,
    (from, to): (Level, Level),
    (index, count): (usize, usize),
    (x, x0): (f64, f64),
    z: f64,
) -> Result<f64> {
    let step = Step { from, to, index, count, process: &VpLinear::default() };
    let mut noise = Recorded::new(vec![number(z)]);
    let end = sampler.step(&mut Says(x0), number(x), &step, &mut noise)?;
    Ok(end.to_rows()[0][0])
}

/// Levels without `alpha` at these sigmas.
pub(crate) fn sigmas(sigmas: &[f64]) -> Vec<Level> {
    let path = Edm::default();
    sigmas.iter().map(|s| if *s == 0.0 { Level::CLEAN } else { path.at_lambda(-s.ln()) }).collect()
}

/// A denoiser that is a formula in the state and sigma.
struct Formula<'a>(&'a dyn Fn(f64, f64) -> f64);

impl Eval for Formula<'_> {
    fn x0(&mut self, x: &State, at: &Levels) -> Result<State> {
        Ok(number((self.0)(x.to_rows()[0][0], at.row(0).sigma_edm())))
    }
}

/// The end of a run over levels at these sigmas that asks this formula.
pub(crate) fn walk(
    sampler: &mut dyn Sampler,
    at: &[f64],
    start: f64,
    formula: &dyn Fn(f64, f64) -> f64,
) -> f64 {
    let levels = sigmas(at);
    let path = Edm::default();
    let draws = (1..100).map(|k| number(1.2 * (1.3 * f64::from(k)).sin())).collect();
    let (mut noise, mut x) = (Recorded::new(draws), number(start));
    let count = at.len() - 1;
    sampler.reset();
    for (index, pair) in levels.windows(2).enumerate() {
        let step = Step { from: pair[0], to: pair[1], index, count, process: &path };
        x = sampler.step(&mut Formula(formula), x, &step, &mut noise).unwrap();
    }
    x.to_rows()[0][0]
}

/// The sigmas of the runs that other programs' numbers are of.
pub(crate) const SIGMAS: [f64; 7] = [6.0, 3.5, 2.1, 1.3, 0.7, 0.3, 0.1];

/// Holds the end of a run over [`SIGMAS`], from 4.2, against the number that another program ends at
/// with the same denoiser and, in draw `k` from 1, the number `1.2 sin(1.3 k)` for the noise.
pub(crate) fn ends_at(sampler: &mut dyn Sampler, wanted: f64) {
    let formula = |x: f64, s: f64| (0.9 * x / (1.0 + s * s).sqrt() + 0.3 * s.cos()).tanh();
    let found = walk(sampler, &SIGMAS, 4.2, &formula);
    assert!((found - wanted).abs() < 1e-9, "{found}, wanted {wanted}");
}
