//! UniPC: a multistep predictor in the log-SNR, corrected by the next step's evaluation.
//!
//! Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion
//! Models", 2023, [arXiv:2302.04867](https://arxiv.org/abs/2302.04867), Algorithms 5 to 8 (data
//! prediction).
//!
//! With `h = lambda(to) - lambda(from)`, the estimates `m_i` at the levels before, `r_i =
//! (lambda_i - lambda(from)) / h` and `d_i = (m_i - m_0) / r_i`:
//!
//! ```text
//! x_t = sigma_t / sigma_s x - alpha_t (e^-h - 1) m_0 - alpha_t B sum_i rho_i d_i
//! sum_i rho_i r_i^(k-1) = k! phi_k(h) / B        B = -h (bh1) or e^-h - 1 (bh2)
//! ```
//!
//! The corrector is the same sum with one more point, the evaluation at `to`, where `r = 1`. It
//! costs nothing, because that evaluation is the next step's first.
//!
//! As in diffusers: the predictor of order 2 and the corrector of order 1 take `rho = 1/2`, and with
//! `lower_order_final` the last steps run down to order 1. Points at pure noise are left out of the
//! sums, and a step to clean data is of order 1. The last state is a prediction that nothing
//! corrects, which with `lower_order_final` limits the order of a run to 2.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::dpm_solver::Space;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "unipc",
    seam: Seam::Sampler,
    title: "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
    source: "2302.04867",
    year: 2023,
    what: "multistep predictor and corrector in the log-SNR",
    aliases: &["uni_pc_bh2", "UniPCMultistepScheduler"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Unipc::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The function `B(h)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// `B = -h`.
    Bh1,
    /// `B = e^-h - 1`.
    #[default]
    Bh2,
}

/// The settings of UniPC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The order of the predictor, 1 to 3. The default, 2, is the paper's advice for guided runs.
    pub order: usize,
    /// The function `B(h)`. The default is `bh2`.
    pub variant: Variant,
    /// Steps that are not corrected, counted from 0. The default is none.
    pub disable_corrector: Vec<usize>,
    /// Whether the order runs down to 1 over the last steps. The default, yes, is the paper's
    /// advice for few steps.
    pub lower_order_final: bool,
    /// Which estimate is taken for a polynomial: the data, or the noise (Algorithms 1 and 2 of the
    /// paper; guides that clip do not count there, as in diffusers). The default is the data.
    pub space: Space,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            order: 2,
            variant: Variant::Bh2,
            disable_corrector: Vec::new(),
            lower_order_final: true,
            space: Space::Data,
        }
    }
}

/// UniPC.
#[derive(Clone, Debug)]
pub struct Unipc {
    settings: Settings,
    /// Levels and estimates of the steps before, the newest last.
    past: Vec<(Level, State)>,
    /// The state that the last step began with, and the order that it had.
    begun: Option<(State, usize)>,
}

impl Unipc {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order that the paper does not have.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=3).contains(&settings.order) {
            return Err(Error::setting(
                "unipc:order",
                format!("{}, wanted 1 to 3", settings.order),
            ));
        }
        Ok(Self { settings, past: Vec::new(), begun: None })
    }

    /// The step's linear part and its sum: from `x` at the newest point of the past to `to`, with
    /// the estimate there where it is known.
    fn update(&self, x: &State, to: Level, order: usize, ahead: Option<&State>) -> Option<State> {
        let ((from, m0), past) = self.past.split_last()?;
        let h = to.lambda() - from.lambda();
        // The exponent, and what the estimate and the sum are multiplied by.
        let (z, scale, mut next) = match self.settings.space {
            Space::Data => {
                let linear = x.clone() * (to.sigma / from.sigma);
                (-h, to.alpha, linear - m0.clone() * (to.alpha * (-h).exp_m1()))
            }
            Space::Noise => {
                // sigma_t (e^h - 1) without infinity.
                let gain = to.alpha * from.sigma_edm() - to.sigma;
                (h, to.sigma, x.clone() * (to.alpha / from.alpha) - m0.clone() * gain)
            }
        };
        let b = match self.settings.variant {
            Variant::Bh1 if h.is_finite() => z,
            _ => z.exp_m1(),
        };
        let mut points: Vec<(f64, &State)> = past
            .iter()
            .rev()
            .take(order - 1)
            .map(|(at, m)| ((at.lambda() - from.lambda()) / h, m))
            .take_while(|(r, _)| r.is_finite() && *r != 0.0)
            .collect();
        points.extend(ahead.map(|m| (1.0, m)));
        let simple = if ahead.is_some() { points.len() == 1 } else { order == 2 };
        let rho = if simple {
            vec![0.5; points.len()]
        } else {
            weights(&points.iter().map(|(r, _)| *r).collect::<Vec<_>>(), z, b)
        };
        for ((r, m), rho) in points.into_iter().zip(rho) {
            let d = (m.clone() - m0.clone()) * (1.0 / r);
            next = next - d * (scale * b * rho);
        }
        Some(next)
    }
}

impl Sampler for Unipc {
    fn claims(&self) -> Claims {
        // The first step is of order 1, corrected to a local error of h^3; the last is uncorrected.
        let (p, most) = (self.settings.order, if self.settings.lower_order_final { 2 } else { 3 });
        Claims { order: (p + 1).min(most) as u8, nfe: 1, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.past.clear();
        self.begun = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let m = match self.settings.space {
            Space::Data => eval.at(&x, step.from)?,
            Space::Noise => {
                let estimate = eval.estimate(&x, step.from)?;
                if estimate.apart.is_some() {
                    let needs = "a sampler that goes on along it: ddim, euler or euler-ancestral";
                    return Err(Error::unsupported("the noise of another estimate", needs));
                }
                let x0 = estimate.before;
                let eps = eps_of(&x, &x0, step.from);
                if step.h().is_infinite() {
                    // No finite step to correct or to go on from.
                    self.past.clear();
                    self.begun = None;
                    return Ok(x0 * step.to.alpha + eps * step.to.sigma);
                }
                eps
            }
        };
        let skip = |i: usize| self.settings.disable_corrector.contains(&i);
        let corrected = match &self.begun {
            Some((before, order)) if step.index > 0 && !skip(step.index - 1) => {
                self.update(before, step.from, *order, Some(&m))
            }
            _ => None,
        };
        let x = corrected.unwrap_or(x);
        self.past.push((step.from, m));
        if self.past.len() > self.settings.order {
            self.past.remove(0);
        }
        let mut order = self.settings.order.min(self.past.len());
        if self.settings.lower_order_final {
            order = order.min(step.count - step.index);
        }
        if step.h().is_infinite() {
            order = 1;
        }
        let next = self.update(&x, step.to, order, None).unwrap_or_else(|| x.clone());
        self.begun = Some((x, order));
        Ok(next)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        for (_, m) in &mut self.past {
            *m = m.select(rows);
        }
        self.begun = self.begun.take().map(|(x, order)| (x.select(rows), order));
    }
}

/// `rho` of `sum_i rho_i r_i^(k-1) = k! phi_k / B`, for `k` up to the count of points, at `z = -h` in
/// the data and `h` in the noise.
fn weights(r: &[f64], z: f64, b: f64) -> Vec<f64> {
    let n = r.len();
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    let mut factorial = 1.0;
    // phi_1 = (e^z - 1) / z and phi_(k+1) = (phi_k - 1 / k!) / z.
    let mut phi = if z.is_finite() { z.exp_m1() / z - 1.0 } else { -1.0 };
    for k in 1..=n {
        let mut row: Vec<f64> = r.iter().map(|r| r.powi(k as i32 - 1)).collect();
        row.push(phi * factorial / b);
        rows.push(row);
        factorial *= (k + 1) as f64;
        phi = phi / z - 1.0 / factorial;
    }
    solve(rows)
}

/// Gaussian elimination with pivots, on rows that end with the right side.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs()));
        rows.swap(i, pivot.unwrap_or(i));
        let lead = rows[i].clone();
        for (j, row) in rows.iter_mut().enumerate() {
            if j != i {
                let factor = row[i] / lead[i];
                row.iter_mut().zip(&lead).for_each(|(a, b)| *a -= factor * b);
            }
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::step;

    #[test]
    fn weights_meet_the_moments_of_the_exponential() {
        // The integral of e^(-h (1 - u)) u^(k-1) h over the step, from its series.
        let h = 0.7_f64;
        let moment = |k: i32| {
            let n = 20_000;
            let at = |i: i32| {
                let u = (f64::from(i) + 0.5) / f64::from(n);
                (-h * (1.0 - u)).exp() * u.powi(k) * h / f64::from(n)
            };
            (0..n).map(at).sum::<f64>()
        };
        let r = [-0.8, -2.1, 1.0];
        let b = (-h).exp_m1();
        let rho = weights(&r, -h, b);
        for k in 1..=3 {
            let sum: f64 = r.iter().zip(&rho).map(|(r, w)| w * r.powi(k - 1)).sum();
            assert!((-b * sum - moment(k)).abs() < 1e-8, "moment {k}");
        }
    }

    #[test]
    fn a_constant_estimate_is_walked_exactly() {
        for order in 1..=3 {
            let settings = Settings { order, lower_order_final: false, ..Settings::default() };
            let mut solver = Unipc::new(settings).unwrap();
            let at = |i: usize| Level::vp(0.9 - 0.1 * i as f64, -1.0 + 0.3 * i as f64);
            let mut x = at(0).alpha * 0.9 + at(0).sigma * 0.5;
            for i in 0..5 {
                x = step(&mut solver, (at(i), at(i + 1)), (i, 5), (x, 0.9), 0.0);
            }
            assert!((x - (at(5).alpha * 0.9 + at(5).sigma * 0.5)).abs() < 1e-14, "order {order}");
        }
    }

    #[test]
    fn orders_beyond_the_paper_are_refused() {
        for order in [0, 4] {
            assert!(Unipc::new(Settings { order, ..Settings::default() }).is_err());
        }
    }
}
