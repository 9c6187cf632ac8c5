//! EVODiff: a multistep method whose differences are weighted by projections, to cut the variance of
//! what it predicts.
//!
//! Li et al., "EVODiff: Entropy-aware Variance Optimized Diffusion Inference", 2025,
//! [arXiv:2509.26096](https://arxiv.org/abs/2509.26096), Algorithm 1, in the form of the authors'
//! program for EDM.
//!
//! With `h = alpha_t / sigma_t - alpha_s / sigma_s`, `r` the last step in log-SNR over this one,
//! `proj(a, b) = (a . b) / (b . b)` within 2 of 0, channel by channel, the sigmoid `S`, and the
//! estimates `m0` of this level and `m1` of the last:
//!
//! ```text
//! e  = sigma_t / sigma_s x + sigma_t h m0                                DDIM's step
//! w  = (1 - t^2) / 2       b = sqrt((sigma_t / sigma_s) / (sigma_s / sigma_1))
//! D1 = m0 - r1 m1          r1 = (1 - w) b + w proj(m0, m1)
//! p  = e + sigma_t h D1 / (2 q)       q = r S(|r1| / 4), within [r / 4, 3 r / 2]
//! m  = the estimate at p              D2 = m - r2 m0      r2 = (1 - w) b + w proj(m, m0)
//! n  = S(|proj(Bn + Bp, Bn - Bp)| / 2) / 2            Bp = D1 / (r h)    Bn = r D2 / h
//! B  = -n / r D1 + r (1 - n) D2
//! z  = S(|proj(p - e - sigma_t h B / (2 q), D1)| / (h sigma_t) - 1/2)
//! x_t = e + sigma_t h B / (2 z)
//! ```
//!
//! In runs of more than 20 steps `z` is `S((1/2 - |..|) S(proj(m0, m0 - m1) (2 - (sigma_t / sigma_s)^2)))`.
//! There a projection that is large beside `h sigma_t` makes `z` vanish and the step endless; here it
//! is at least 1/4, the limit that `q` has too. The evaluation at `p` is the next step's `m0`, so that a step takes one. The first step and the
//! last are DDIM's; `edm_end` gives the last one the form of the authors' program, whose factor
//! `1 - sqrt(sigma_t sigma_s)` fits the small sigmas that EDM's grids end with. The paper claims
//! order 2; `r1` and `r2` differ from 1 by terms of first order, and what is measured is order 1.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "evodiff",
    seam: Seam::Sampler,
    title: "EVODiff: Entropy-aware Variance Optimized Diffusion Inference",
    source: "2509.26096",
    year: 2025,
    what: "multistep method with differences weighted by projections",
    aliases: &[],
    ledger: "evodiff",
    parts: &[&crate::sampler::dpmpp_2m::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Evodiff::new(s.read()?))),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of EVODiff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether the last step is that of the authors' program for EDM. The default is no.
    pub edm_end: bool,
}

/// EVODiff.
#[derive(Clone, Debug)]
pub struct Evodiff {
    settings: Settings,
    /// The last level and its estimate.
    last: Option<(Level, State)>,
    /// The estimate at this level, where the last step has asked for it.
    ahead: Option<State>,
}

impl Evodiff {
    /// A solver.
    pub fn new(settings: Settings) -> Self {
        Self { settings, last: None, ahead: None }
    }
}

/// The smallest `z`, which the authors' program does not have.
const LEAST: f64 = 0.25;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The channels of a sample, each with numbers of its own: axis 1 of pictures and the like, else one.
#[derive(Clone, Copy, Debug)]
struct Channels(usize);

impl Channels {
    fn of(x: &State) -> Self {
        let shape = x.shape();
        Self(if x.segments().len() == 1 && shape.len() > 2 { shape[1] } else { 1 })
    }

    /// Inner products, a number a row and channel.
    fn dots(self, a: &State, b: &State) -> Vec<f64> {
        let (a, b) = (a.to_rows(), b.to_rows());
        let width = |row: &[f64]| (row.len() / self.0.max(1)).max(1);
        let row = |(a, b): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            let chunks = a.chunks(width(a)).zip(b.chunks(width(b)));
            chunks.map(|(a, b)| a.iter().zip(b).map(|(x, y)| x * y).sum()).collect()
        };
        a.iter().zip(&b).flat_map(row).collect()
    }

    /// How much of `b` is in `a`, within 2 of 0.
    fn share(self, a: &State, b: &State) -> Vec<f64> {
        let pairs = self.dots(a, b).into_iter().zip(self.dots(b, b));
        let share = |(dot, square): (f64, f64)| {
            if square > 0.0 { (dot / square).clamp(-2.0, 2.0) } else { 0.0 }
        };
        pairs.map(share).collect()
    }

    /// Each channel scaled by a number of its own.
    fn scaled(self, x: &State, factors: &[f64]) -> State {
        if self.0 == 1 {
            return x.scaled_rows(factors);
        }
        x.map(|x| {
            let [batch, features] = x.dims();
            let data = burn::tensor::TensorData::new(factors.to_vec(), [factors.len(), 1]);
            let factors = burn::tensor::Tensor::<2>::from_data(data, (&x.device(), x.dtype()));
            let rows = batch * self.0;
            let each = (features * batch).checked_div(rows).unwrap_or(0);
            (x.reshape([rows, each]) * factors).reshape([batch, features])
        })
    }
}

/// The numbers of a step that hang on its levels alone.
struct Scale {
    /// `sigma_t h / 2`.
    half: f64,
    /// `h`.
    h: f64,
    /// The last step over this one.
    r: f64,
    /// The weight of projections, and what stands in their place.
    weight: f64,
    balance: f64,
    /// `sigma_t / sigma_s`.
    ratio: f64,
}

impl Scale {
    fn of(before: Level, step: &Step<'_>) -> Self {
        let (from, to) = (step.from, step.to);
        let h = to.lambda().exp() - from.lambda().exp();
        let ratio = to.sigma / from.sigma;
        Self {
            half: 0.5 * to.sigma * h,
            h,
            r: (from.lambda() - before.lambda()) / step.h(),
            weight: 0.5 * (1.0 - to.t * to.t),
            balance: (ratio / (from.sigma / before.sigma)).sqrt(),
            ratio,
        }
    }

    /// `r1` or `r2` from the projections.
    fn balanced(&self, shares: &[f64]) -> Vec<f64> {
        let of = |share: &f64| (1.0 - self.weight) * self.balance + self.weight * share;
        shares.iter().map(of).collect()
    }
}

impl Evodiff {
    /// The step with both differences, from DDIM's `euler`.
    fn bent(
        &mut self,
        eval: &mut dyn Eval,
        euler: State,
        (m0, m1): (&State, &State),
        scale: &Scale,
        step: &Step<'_>,
    ) -> Result<State> {
        let channels = Channels::of(&euler);
        let Scale { half, h, r, .. } = *scale;
        let r1 = scale.balanced(&channels.share(m0, m1));
        let d1 = m0.clone() - channels.scaled(m1, &r1);
        let q = |r1: &f64| (sigmoid(0.25 * r1.abs()) * r).clamp(0.25 * r, 1.5 * r);
        let probing: Vec<f64> = r1.iter().map(|r1| half / q(r1)).collect();
        let probe = euler.clone() + channels.scaled(&d1, &probing);
        let m = eval.at(&probe, step.to)?;
        let r2 = scale.balanced(&channels.share(&m, m0));
        let d2 = m.clone() - channels.scaled(m0, &r2);
        self.ahead = Some(m);
        let (before, next) = (d1.clone() * (1.0 / (r * h)), d2.clone() * (r / h));
        let share = channels.share(&(next.clone() + before.clone()), &(next - before));
        let eta: Vec<f64> = share.iter().map(|s| 0.5 * sigmoid((0.5 * s).abs())).collect();
        let first: Vec<f64> = eta.iter().map(|n| -n / r).collect();
        let second: Vec<f64> = eta.iter().map(|n| (1.0 - n) * r).collect();
        let along = channels.scaled(&d1, &first) + channels.scaled(&d2, &second);
        let off = probe - euler.clone() - channels.scaled(&along, &probing);
        let off = channels.share(&off, &d1);
        let long = step.count > 20;
        let pull = if long {
            // The difference over h, of which the share is h times that of the difference.
            let slope = (m0.clone() - m1.clone()) * (1.0 / h);
            let shares = channels.share(m0, &slope);
            let fall = 2.0 - scale.ratio * scale.ratio;
            shares.iter().map(|s| -sigmoid(s * fall)).collect()
        } else {
            vec![1.0; off.len()]
        };
        let sigma = step.to.sigma;
        let zeta = off.iter().zip(&pull).map(|(off, pull)| {
            let shift = (off / (h * sigma)).abs() - 0.5;
            half / sigmoid(shift * pull).max(LEAST)
        });
        let zeta: Vec<f64> = zeta.collect();
        Ok(euler + channels.scaled(&along, &zeta))
    }
}

impl Sampler for Evodiff {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.last = None;
        self.ahead = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let m0 = match self.ahead.take() {
            Some(m0) => m0,
            None => eval.at(&x, from)?,
        };
        if step.h().is_infinite() {
            let eps = eps_of(&x, &m0, from);
            return Ok(m0 * to.alpha + eps * to.sigma);
        }
        let kept = to.sigma / from.sigma;
        let euler = x * kept + m0.clone() * (to.alpha - kept * from.alpha);
        let Some((before, m1)) = self.last.replace((from, m0.clone())) else { return Ok(euler) };
        if !step.is_last() {
            let scale = Scale::of(before, step);
            return self.bent(eval, euler, (&m0, &m1), &scale, step);
        }
        if !self.settings.edm_end {
            return Ok(euler);
        }
        let factor = 1.0 - (to.sigma * from.sigma).sqrt();
        let root = if kept < 0.5 { kept } else { kept - 0.5 };
        let d = m0 - m1 * (1.0 - 0.5 * root.sqrt());
        let half = 0.5 * (to.alpha - kept * from.alpha);
        Ok(euler * factor + d * half)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.last = self.last.take().map(|(at, m)| (at, m.select(rows)));
        self.ahead = self.ahead.take().map(|m| m.select(rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::{ends_at, walk};

    #[test]
    fn the_ends_are_those_of_the_authors_formulas() {
        // A restatement in Python of the authors' EVODiff_edm for one number, with the time of the
        // path, sigma / 80, in place of the run's, and z at least 1/4.
        ends_at(&mut Evodiff::new(Settings::default()), RESTATED[0]);
        ends_at(&mut Evodiff::new(Settings { edm_end: true }), RESTATED[1]);
        let long: Vec<f64> = (0..=24).map(|i| 6.0 * (-0.17 * f64::from(i)).exp()).collect();
        let formula = |x: f64, s: f64| (0.9 * x / (1.0 + s * s).sqrt() + 0.3 * s.cos()).tanh();
        let found = walk(&mut Evodiff::new(Settings::default()), &long, 4.2, &formula);
        assert!((found - RESTATED[2]).abs() < 1e-9, "{found}");
    }

    const RESTATED: [f64; 3] =
        [0.824_372_018_801_082, 0.764_757_292_652_210, 0.815_375_932_256_587];

    #[test]
    fn channels_have_numbers_of_their_own() {
        let device = burn::tensor::Device::flex();
        let state = |v: [f64; 8]| State::from_f64(v.to_vec(), &[2, 2, 2], &device).unwrap();
        let a = state([1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 9.0, 0.0]);
        let b = state([1.0, 0.0, 0.0, 2.0, 1.0, 1.0, 1.0, 0.0]);
        let channels = Channels::of(&a);
        assert_eq!(channels.share(&a, &b), [1.0, 2.0, 0.5, 2.0]);
        let scaled = channels.scaled(&a, &[1.0, 2.0, 3.0, 0.5]).to_rows().concat();
        assert_eq!(scaled, [1.0, 2.0, 6.0, 8.0, 0.0, 3.0, 4.5, 0.0]);
    }
}
