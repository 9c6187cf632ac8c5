//! FK steering: candidates walk side by side, and those that promise little make room for copies of
//! those that promise much.
//!
//! Singhal et al., "A General Framework for Inference-time Scaling and Steering of Diffusion Models",
//! 2025, [arXiv:2501.06848](https://arxiv.org/abs/2501.06848), Algorithm 1.
//!
//! With `r_i` the reward of the estimate at the `i`-th stop and `r` that of the sample:
//!
//! ```text
//! diff:   G_i = exp(lambda (r_i - r_{i-1}))          last: exp(lambda r) / prod G_i
//! max:    G_i = exp(lambda max_{j <= i} r_j)         last: exp(lambda r) / prod G_i
//! add:    G_i = exp(lambda sum_{j <= i} r_j)         last: exp(lambda r) / prod G_i
//! now:    G_i = exp(lambda r_i)                      last: exp(lambda r) / prod G_i
//! ```
//!
//! So that the population follows `p(x) exp(lambda r(x))` whatever the potential. Weights are kept
//! where a stop does not resample. A candidate that is drawn by its weight is a sample of that law; the
//! one of the highest reward, which is the default as it is the authors', is not.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::run::{Observer, Run};
use crate::search::{Entry, Found, Ground, Particles, Resampling, Search, count};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "fk-steering",
    seam: Seam::Search,
    title: "A General Framework for Inference-time Scaling and Steering of Diffusion Models",
    source: "2501.06848",
    year: 2025,
    what: "candidates side by side, copied and dropped by their rewards on the way",
    aliases: &["fkd"],
    ledger: "fk-steering",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<FkSteering>()?.checked()?)),
    defaults: defaults_of::<FkSteering>,
    known_failures: &[],
};

/// How rewards on the way become weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Potential {
    /// By how much the reward rose since the last stop.
    Diff,
    /// By the highest reward so far.
    #[default]
    Max,
    /// By the sum of all rewards so far.
    Add,
    /// By the reward as it is.
    Now,
}

/// Which candidate stands at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// The one of the highest reward.
    #[default]
    Best,
    /// One drawn by its weight: a sample of the steered law.
    Draw,
}

/// FK steering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FkSteering {
    /// Candidates. The default, 4, is the paper's.
    pub particles: usize,
    /// How strongly the reward counts. The default, 10, is the paper's for images.
    pub lambda: f64,
    /// How rewards on the way become weights. The default, `max`, is the paper's for images.
    pub potential: Potential,
    /// The first stop, as a share of the steps. The default, 0.2, is the paper's.
    pub from: f64,
    /// The last stop, as a share of the steps. The default, 0.8, is the paper's.
    pub to: f64,
    /// From one stop to the next, as a share of the steps. The default, 0.2, is the paper's.
    pub every: f64,
    /// Resample only where the effective size of the population is below half of it. The default is
    /// no, as in the paper's main runs.
    pub adaptive: bool,
    /// How descendants are drawn. The default, `multinomial`, is the paper's.
    pub resampling: Resampling,
    /// Which candidate stands at the end. The default, `best`, is the authors'.
    pub pick: Pick,
}

impl Default for FkSteering {
    fn default() -> Self {
        Self {
            particles: 4,
            lambda: 10.0,
            potential: Potential::Max,
            from: 0.2,
            to: 0.8,
            every: 0.2,
            adaptive: false,
            resampling: Resampling::Multinomial,
            pick: Pick::Best,
        }
    }
}

/// The stream of resampling, apart from that of the samples.
const LUCK: u64 = 0x464b;

impl FkSteering {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        count("fk-steering", "particles", self.particles)?;
        if !self.lambda.is_finite() {
            let why = format!("{}, wanted a finite number", self.lambda);
            return Err(Error::setting("fk-steering:lambda", why));
        }
        let shares = 0.0 <= self.from && self.from <= self.to && self.to <= 1.0;
        if !(shares && 0.0 < self.every && self.every <= 1.0) {
            let why = format!(
                "{}, {} and {}, wanted 0 <= from <= to <= 1 and 0 < every <= 1",
                self.from, self.to, self.every
            );
            return Err(Error::setting("fk-steering:from, to, every", why));
        }
        Ok(self)
    }

    /// Whether the run stops after so many of its steps.
    fn stops(&self, done: usize, steps: usize) -> bool {
        let (at, steps) = (done as f64, steps as f64);
        let gap = (self.every * steps).max(1.0);
        let since = at - (self.from * steps).round().max(1.0);
        let inside = since >= 0.0 && at <= (self.to * steps).round() && at < steps;
        inside && (since / gap).round().mul_add(gap, -since).abs() < 0.5
    }

    /// The population at the end: states of equal standing but for the weights, and rewards.
    ///
    /// # Errors
    ///
    /// As [`Search::search`].
    pub fn population(
        &self,
        ground: &Ground<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Population> {
        ground.reads_estimates("fk-steering")?;
        let parts = (ground.parts)(0..self.particles, None)?;
        if !parts.sampler.claims().stochastic {
            let needs = "a sampler that draws noise, such as `ddpm` or `ddim:eta=1`: copies of a candidate stay alike otherwise";
            return Err(Error::unsupported("fk-steering", needs));
        }
        let mut luck = parts.noise.fork(LUCK);
        luck.select(&[0]);
        let mut run = Run::from_prior(parts, &ground.rows(self.particles))?;
        let mut particles = Particles::new(self.particles);
        let mut past = vec![Past::default(); self.particles];
        let mut reads = 0;
        while run.advance(observer)? {
            if !self.stops(run.done(), run.count()) {
                continue;
            }
            let Some(x0) = run.x0() else { continue };
            let scores = ground.score(x0, Level::CLEAN)?;
            reads += self.particles;
            let logs: Vec<f64> =
                past.iter_mut().zip(&scores).map(|(p, r)| p.meets(*r, self)).collect();
            particles.weigh(&logs)?;
            if self.adaptive && particles.effective() >= 0.5 * self.particles as f64 {
                continue;
            }
            let rows = particles.resample(self.resampling, luck.as_mut())?;
            past = rows.iter().map(|&r| past[r]).collect();
            run.select(&rows);
        }
        let scores = ground.score(run.x(), Level::CLEAN)?;
        reads += self.particles;
        let last = |(p, r): (&Past, &f64)| self.lambda * r - p.spent;
        particles.weigh(&past.iter().zip(&scores).map(last).collect::<Vec<_>>())?;
        let drawn = particles.draw(luck.as_mut())?;
        Ok(Population { x: run.x().clone(), scores, particles, drawn, cost: run.cost(), reads })
    }
}

/// A population at the end of its walk.
#[derive(Clone, Debug)]
pub struct Population {
    /// The samples, a row each.
    pub x: State,
    /// Their rewards.
    pub scores: Vec<f64>,
    /// Their weights.
    pub particles: Particles,
    /// The sample that was drawn by its weight.
    pub drawn: usize,
    /// What they have cost together.
    pub cost: crate::denoiser::Cost,
    /// How often a reward was read.
    pub reads: usize,
}

/// What a candidate has met.
#[derive(Clone, Copy, Debug)]
struct Past {
    last: f64,
    most: f64,
    sum: f64,
    /// The log of the product of its potentials.
    spent: f64,
}

impl Default for Past {
    fn default() -> Self {
        Self { last: 0.0, most: f64::NEG_INFINITY, sum: 0.0, spent: 0.0 }
    }
}

impl Past {
    /// The log potential of a stop with this reward.
    fn meets(&mut self, reward: f64, settings: &FkSteering) -> f64 {
        let rise = reward - self.last;
        self.last = reward;
        self.most = self.most.max(reward);
        self.sum += reward;
        let log = settings.lambda
            * match settings.potential {
                Potential::Diff => rise,
                Potential::Max => self.most,
                Potential::Add => self.sum,
                Potential::Now => reward,
            };
        self.spent += log;
        log
    }
}

impl Search for FkSteering {
    fn search(&mut self, ground: &Ground<'_>, observer: &mut dyn Observer) -> Result<Found> {
        let population = self.population(ground, observer)?;
        let scores = &population.scores;
        let best = |a: usize, b: usize| if scores[b] > scores[a] { b } else { a };
        let row = match self.pick {
            Pick::Best => (0..scores.len()).reduce(best).unwrap_or(0),
            Pick::Draw => population.drawn,
        };
        Ok(Found {
            x: population.x.select(&[row]),
            score: scores[row],
            cost: population.cost,
            reads: population.reads,
        })
    }

    fn walks(&self, _steps: usize) -> f64 {
        self.particles as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_the_papers() {
        let fk = FkSteering::default();
        let at: Vec<usize> = (1..=100).filter(|i| fk.stops(*i, 100)).collect();
        assert_eq!(at, [20, 40, 60, 80]);
        let all = FkSteering { from: 0.0, to: 1.0, every: 0.1, ..fk.clone() };
        assert_eq!((1..=10).filter(|i| all.stops(*i, 10)).count(), 9, "every step but the last");
        assert!(FkSteering { from: 0.9, ..fk.clone() }.checked().is_err());
        assert!(FkSteering { particles: 0, ..fk }.checked().is_err());
    }

    #[test]
    fn potentials_and_the_last_weight_multiply_to_the_reward() {
        for potential in [Potential::Diff, Potential::Max, Potential::Add, Potential::Now] {
            let fk = FkSteering { potential, lambda: 2.0, ..FkSteering::default() };
            let mut past = Past::default();
            let logs: Vec<f64> = [0.3, -0.1, 0.7].map(|r| past.meets(r, &fk)).to_vec();
            let last = fk.lambda * 0.5 - past.spent;
            assert!((logs.iter().sum::<f64>() + last - 1.0).abs() < 1e-12, "{potential:?}");
            let wanted = match potential {
                Potential::Diff => [0.6, -0.8, 1.6],
                Potential::Max => [0.6, 0.6, 1.4],
                Potential::Add => [0.6, 0.4, 1.8],
                Potential::Now => [0.6, -0.2, 1.4],
            };
            assert!(logs.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{logs:?}");
        }
    }
}
