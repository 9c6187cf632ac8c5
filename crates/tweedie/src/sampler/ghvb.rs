//! Multistep methods with momentum, which stay stable on longer steps.
//!
//! Wizadwongsa et al., "Diffusion Sampling with Momentum for Mitigating Divergence Artifacts", 2023,
//! [arXiv:2307.11118](https://arxiv.org/abs/2307.11118), sections 3 and 4.
//!
//! With `y = x / alpha`, `g = sigma / alpha`, the noise `e` and Adams and Bashforth's combination
//! `AB_k` of the last `k`:
//!
//! ```text
//! y_t = y + (g_t - g) u
//! generalized:  v = (1 - beta) v + beta e          u = B_k(v)
//! heavy-ball:   v = (1 - beta) v + beta AB_k(e)    u = v
//! nesterov:     v = (1 - beta) v + beta AB_k(e)    u = (1 - beta) v + beta AB_k(e)
//! ```
//!
//! `v` begins with the first noise. In backward differences `D`, `AB_k` is the series `1 + D/2 +
//! 5/12 D^2 + 3/8 D^3 ...` up to `D^(k-1)`, and `B_k` that series times `1 + (1 - beta)/beta D`, cut
//! there too, so that `B_k` of the average is `AB_k` of the noise up to terms of order `k`:
//! generalized momentum keeps the order where the other two fall to 1. The paper's "GHVB 1.8" is
//! `order=2,beta=0.8`. With `beta = 1` all are `ipndm`. Weights are for even steps.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::noise::Noise;
use crate::prediction::eps_of;
use crate::sampler::multistep::{ADAMS, History, adams, of_differences};
use crate::sampler::{Claims, Entry, Eval, Sampler, Step};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "ghvb",
    seam: Seam::Sampler,
    title: "Diffusion Sampling with Momentum for Mitigating Divergence Artifacts",
    source: "2307.11118",
    year: 2023,
    what: "multistep formulas of an average of the noise, stable on longer steps",
    aliases: &[],
    ledger: "ghvb",
    parts: &[&crate::sampler::ipndm::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Ghvb::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[(
        "order",
        "the weights are for steps that are even in sigma_edm, and uneven ones make the order 1",
    )],
};

/// Where the average stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Momentum {
    /// Before the multistep formula, whose weights make up for it.
    #[default]
    Generalized,
    /// After it: Polyak's heavy ball.
    HeavyBall,
    /// After it, twice: Nesterov's.
    Nesterov,
}

/// The settings of multistep methods with momentum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many values the multistep formula takes, 1 to 5. The default, 2, is that of the paper's
    /// "1.8".
    pub order: usize,
    /// The share of the newest value in the average, above 0 and up to 1; 1 is no momentum. The
    /// default, 0.8, is that of the paper's "1.8".
    pub beta: f64,
    /// Where the average stands. The default is `generalized`.
    pub momentum: Momentum,
}

impl Default for Settings {
    fn default() -> Self {
        Self { order: 2, beta: 0.8, momentum: Momentum::Generalized }
    }
}

/// Multistep methods with momentum.
#[derive(Clone, Debug)]
pub struct Ghvb {
    settings: Settings,
    /// What the multistep formula takes: noises, or averages of them.
    past: History,
    /// The average.
    velocity: Option<State>,
}

impl Ghvb {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an order outside 1 to 5 or a share outside 0 to 1.
    pub fn new(settings: Settings) -> Result<Self> {
        if !(1..=5).contains(&settings.order) {
            let why = format!("{}, wanted 1 to 5", settings.order);
            return Err(Error::setting("ghvb:order", why));
        }
        if !(settings.beta > 0.0 && settings.beta <= 1.0) {
            let why = format!("{}, wanted more than 0 and at most 1", settings.beta);
            return Err(Error::setting("ghvb:beta", why));
        }
        Ok(Self { settings, past: History::default(), velocity: None })
    }

    /// The average with a new value in it.
    fn average(&mut self, new: State) -> State {
        let beta = self.settings.beta;
        let next = match self.velocity.take() {
            None => new,
            Some(velocity) => velocity * (1.0 - beta) + new * beta,
        };
        self.velocity = Some(next.clone());
        next
    }

    /// What is walked along; `eps` is the noise at `step`.
    fn slope(&mut self, eps: State, step: &Step<'_>) -> State {
        let (order, beta) = (self.settings.order, self.settings.beta);
        let zero = eps.zeros_like();
        if self.settings.momentum == Momentum::Generalized {
            let average = self.average(eps);
            self.past.push(step.from, average, order);
            return self.past.added(zero, &generalized(self.past.len(), beta));
        }
        self.past.push(step.from, eps, order);
        let along = self.past.added(zero, &adams(self.past.len()));
        let velocity = self.average(along.clone());
        match self.settings.momentum {
            Momentum::Nesterov => velocity * (1.0 - beta) + along * beta,
            _ => velocity,
        }
    }
}

/// The weights of `B_k`, the newest first.
fn generalized(order: usize, beta: f64) -> Vec<f64> {
    let lag = (1.0 - beta) / beta;
    let of = |j: usize| ADAMS[j] + if j == 0 { 0.0 } else { lag * ADAMS[j - 1] };
    of_differences(&(0..order).map(of).collect::<Vec<_>>())
}

impl Sampler for Ghvb {
    fn claims(&self) -> Claims {
        let keeps = self.settings.momentum == Momentum::Generalized || self.settings.beta == 1.0;
        let order = if keeps { self.settings.order.min(2) as u8 } else { 1 };
        Claims { order, nfe: 1, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.past.clear();
        self.velocity = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let x0 = eval.at(&x, from)?;
        let eps = eps_of(&x, &x0, from);
        if to.sigma == 0.0 || from.alpha == 0.0 {
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        let slope = self.slope(eps, step);
        let stride = (to.sigma_edm() - from.sigma_edm()) * to.alpha;
        Ok(x * (to.alpha / from.alpha) + slope * stride)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.past.select(rows);
        self.velocity = self.velocity.take().map(|v| v.select(rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::{SIGMAS, ends_at, walk};

    fn solver(order: usize, beta: f64, momentum: Momentum) -> Ghvb {
        Ghvb::new(Settings { order, beta, momentum }).unwrap()
    }

    #[test]
    fn weights_are_the_papers() {
        let b = 0.7;
        let paper: [&[f64]; 4] = [
            &[1.0],
            &[(2.0 + b) / (2.0 * b), -(2.0 - b) / (2.0 * b)],
            &[(18.0 + 5.0 * b), -(24.0 - 8.0 * b), 6.0 - b].map(|w| w / (12.0 * b)),
            &[
                (46.0 + 9.0 * b) / (24.0 * b),
                -(78.0 - 19.0 * b) / (24.0 * b),
                (42.0 - 5.0 * b) / (24.0 * b),
                -(10.0 - b) / (24.0 * b),
            ],
        ];
        for (order, wanted) in (1..).zip(paper) {
            let found = generalized(order, b);
            assert_eq!(found.len(), wanted.len());
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-13), "{order}");
        }
    }

    #[test]
    fn the_ends_are_the_authors() {
        // A restatement in NumPy of the formulas of the authors' momentum_scheduler.py.
        ends_at(&mut solver(2, 0.8, Momentum::Generalized), GHVB);
        ends_at(&mut solver(4, 0.9, Momentum::HeavyBall), HEAVY_BALL);
        ends_at(&mut solver(3, 0.6, Momentum::Nesterov), NESTEROV);
    }

    const GHVB: f64 = 0.823_320_872_321_814;
    const HEAVY_BALL: f64 = 0.808_326_292_717_729;
    const NESTEROV: f64 = 0.822_553_696_809_345;

    #[test]
    fn without_momentum_it_is_ipndm() {
        use crate::sampler::ipndm::{Ipndm, Settings as Plain};
        let formula = |x: f64, s: f64| (x / (1.0 + s)).tanh();
        let wanted = walk(&mut Ipndm::new(Plain { order: 4 }).unwrap(), &SIGMAS, 4.2, &formula);
        for momentum in [Momentum::Generalized, Momentum::HeavyBall, Momentum::Nesterov] {
            let found = walk(&mut solver(4, 1.0, momentum), &SIGMAS, 4.2, &formula);
            assert!((found - wanted).abs() < 1e-13, "{momentum:?}");
        }
    }

    #[test]
    fn the_limits_of_stability_are_the_papers() {
        // dy/dg = q y / d along even steps of -d.
        let grows = |solver: &mut Ghvb, q: f64| {
            let d = 0.15;
            let levels: Vec<f64> = (0..=400).map(|i| 70.0 - d * f64::from(i)).collect();
            let decays = move |x: f64, s: f64| x - s * q / d * x;
            walk(solver, &levels, 1.0, &decays).abs() > 1.0
        };
        for b in [0.5, 0.8] {
            for (order, momentum, limit) in [
                (1, Momentum::HeavyBall, 2.0 * (2.0 - b) / b),
                (2, Momentum::HeavyBall, (2.0 - b) / b),
                (2, Momentum::Generalized, 2.0 - b),
            ] {
                let ask = |q: f64| grows(&mut solver(order, b, momentum), q);
                assert!(!ask(0.95 * limit) && ask(1.05 * limit), "{order} {b} {momentum:?}");
            }
        }
    }

    #[test]
    fn shares_outside_are_refused() {
        for beta in [0.0, -1.0, 1.1, f64::NAN] {
            assert!(Ghvb::new(Settings { beta, ..Settings::default() }).is_err());
        }
    }
}
