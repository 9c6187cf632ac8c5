//! Time-shift sampling: the network is told the time that the state's variance looks like.
//!
//! Li et al., "Alleviating Exposure Bias in Diffusion Models through Sampling with Shifted Time
//! Steps", 2023, [arXiv:2305.15583](https://arxiv.org/abs/2305.15583), Algorithm 3, around DDIM.
//!
//! ```text
//! v   = variance of a sample's numbers
//! tau = the time within window / 2 of t whose sigma^2 is nearest to v        while t > cutoff
//! eps = the network's noise for x at tau
//! x_t = alpha_t x0 + sigma_t eps          x0 = (x - sigma_s eps) / alpha_s               apply=network
//!                                         x0 = (x - sigma_tau eps) / alpha_tau              apply=both
//! ```
//!
//! A sampled state is not distributed as the noised data of its time; the time at which it would be
//! is a better one to ask at. Each sample has its own. The first step is not shifted: a state from
//! the prior is as it should be. The variance of a state holds that of the picture too, so that
//! contrasty pictures lean to noisier times. The shift does not shrink with the step: this does not
//! converge to the probability flow, nor is it meant to.
//!
//! The authors' programs differ from the paper and from each other in what is shifted; `apply` has
//! the paper's and the one that shifts the solver too. On tables times are whole training steps.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::noise::Noise;
use crate::prediction::{Prediction, eps_of};
use crate::process::Process;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "ts-sampler",
    seam: Seam::Sampler,
    title: "Alleviating Exposure Bias in Diffusion Models through Sampling with Shifted Time Steps",
    source: "2305.15583",
    year: 2023,
    what: "DDIM at the time that the state's variance looks like",
    aliases: &[],
    ledger: "ts-sampler",
    parts: &[&crate::sampler::ddim::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<TsSampler>()?.checked()?)),
    defaults: defaults_of::<TsSampler>,
    known_failures: &[("order", "the shift of a time does not shrink with the step")],
};

/// What is shifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Apply {
    /// What the network is told.
    #[default]
    Network,
    /// The solver's own level too.
    Both,
}

/// Time-shift sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TsSampler {
    /// The width of the window of times, as a share of all; 0 is DDIM. The default, 0.08, is the
    /// authors' for DDIM (80 of 1000).
    pub window: f64,
    /// Times from here down are not shifted. The default, 0.3, is the authors' for DDIM.
    pub cutoff: f64,
    /// What is shifted. The default is what the network is told.
    pub apply: Apply,
}

impl Default for TsSampler {
    fn default() -> Self {
        Self { window: 0.08, cutoff: 0.3, apply: Apply::Network }
    }
}

impl TsSampler {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        at_least_zero("ts-sampler:window", self.window)?;
        if self.cutoff.is_finite() {
            return Ok(self);
        }
        let why = format!("{}, wanted a finite number", self.cutoff);
        Err(Error::setting("ts-sampler:cutoff", why))
    }

    /// The level within the window of `at` whose variance is nearest to `v`.
    fn shifted(&self, process: &dyn Process, at: Level, v: f64) -> Level {
        let half = 0.5 * self.window;
        let (first, last) = process.ends();
        let (low, high) = ((at.t - half).max(first), (at.t + half).min(last));
        let off = |t: f64| (process.at(t).sigma.powi(2) - v).abs();
        if let Some(n) = process.table_steps() {
            let n = n as f64;
            let (low, high) = ((low * n).ceil() as i64, (high * n).floor() as i64);
            let best =
                (low..=high).min_by(|a, b| off(*a as f64 / n).total_cmp(&off(*b as f64 / n)));
            return best.map_or(at, |i| process.at(i as f64 / n));
        }
        // The variance rises with the time: halve the window until the time is found.
        let (mut low, mut high) = (low, high);
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if process.at(middle).sigma.powi(2) < v { low = middle } else { high = middle }
        }
        process.at(0.5 * (low + high))
    }

    /// The level of each row, shifted where it is time.
    fn levels(&self, x: &State, step: &Step<'_>) -> Vec<Level> {
        let from = step.from;
        let plain = step.index == 0 || self.window == 0.0 || from.t <= self.cutoff;
        let of = |row: &Vec<f64>| {
            if plain || row.len() < 2 {
                return from;
            }
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let v = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
            self.shifted(step.process, from, v)
        };
        x.to_rows().iter().map(of).collect()
    }
}

impl Sampler for TsSampler {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: false }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        let levels = self.levels(&x, step);
        if levels.iter().all(|level| *level == from) || from.alpha == 0.0 {
            let x0 = eval.at(&x, from)?;
            let eps = eps_of(&x, &x0, from);
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        let at = Levels::rows(levels);
        let x0 = eval.x0(&x, &at)?;
        let eps = Prediction::Eps.from_x0(&x0, &x, &at)?;
        let x0 = match self.apply {
            Apply::Both => x0,
            Apply::Network => (x - eps.clone() * from.sigma) * (1.0 / from.alpha),
        };
        Ok(x0 * to.alpha + eps * to.sigma)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{VpLinear, VpTable};

    #[test]
    fn the_variance_of_a_time_is_told_that_time() {
        let sampler = TsSampler { window: 0.2, ..TsSampler::default() };
        let table = VpTable::new(&crate::process::vp_table::Table::default()).unwrap();
        let path = VpLinear::default();
        let paths: [&dyn Process; 2] = [&table, &path];
        for process in paths {
            let (at, wanted) = (process.at(0.6), process.at(0.55));
            let found = sampler.shifted(process, at, wanted.sigma.powi(2));
            assert!((found.t - wanted.t).abs() < 1e-9, "{} {}", found.t, wanted.t);
            // Beyond the window its end is told.
            let far = sampler.shifted(process, at, 0.0);
            assert!((far.t - 0.5).abs() < 1e-9, "{}", far.t);
        }
    }

    #[test]
    fn without_a_window_or_below_the_cutoff_it_is_ddim() {
        use crate::sampler::Ddim;
        use crate::sampler::testing::step;
        let path = VpLinear::default();
        let (s, t) = (path.at(0.6), path.at(0.4));
        let wanted = step(&mut Ddim::default(), (s, t), (3, 9), (0.3, 0.9), 0.0);
        for mut sampler in [
            TsSampler { window: 0.0, ..TsSampler::default() },
            TsSampler { cutoff: 0.6, ..TsSampler::default() },
        ] {
            let found = step(&mut sampler, (s, t), (3, 9), (0.3, 0.9), 0.0);
            assert!((found - wanted).abs() < 1e-14);
        }
        assert!(TsSampler { window: -1.0, ..TsSampler::default() }.checked().is_err());
    }

    #[test]
    fn the_two_ways_to_shift_are_the_formulas() {
        use crate::noise::Silent;
        use burn::tensor::Device;

        struct Zero;
        impl Eval for Zero {
            fn x0(&mut self, x: &State, at: &Levels) -> Result<State> {
                // The network's noise is the time, whatever the state.
                let t = at.row(0).t;
                let l = at.row(0);
                Ok(x.map(|x| (x - t * l.sigma) * (1.0 / l.alpha)))
            }
        }

        let path = VpLinear::default();
        let (s, t) = (path.at(0.6), path.at(0.4));
        let x = [1.1, -0.7];
        let tau = TsSampler::default().shifted(&path, s, (1.1_f64 + 0.7).powi(2) / 2.0);
        assert!((tau.t - 0.64).abs() < 1e-9, "the noisy end of the window: {}", tau.t);
        for (apply, level) in [(Apply::Network, s), (Apply::Both, tau)] {
            let mut sampler = TsSampler { apply, ..TsSampler::default() };
            let step = Step { from: s, to: t, index: 3, count: 9, process: &path };
            let state = State::from_f64(x.to_vec(), &[1, 2], &Device::flex()).unwrap();
            let end = sampler.step(&mut Zero, state, &step, &mut Silent).unwrap().to_rows();
            for (found, x) in end[0].iter().zip(x) {
                let wanted = t.alpha * (x - level.sigma * tau.t) / level.alpha + t.sigma * tau.t;
                assert!((found - wanted).abs() < 1e-12, "{apply:?}: {found} {wanted}");
            }
        }
    }
}
