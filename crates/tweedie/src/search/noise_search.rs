//! Noise search: walk from many starting noises, or from better and better ones, and keep what a
//! verifier likes best.
//!
//! Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps", 2025,
//! [arXiv:2501.09732](https://arxiv.org/abs/2501.09732), section 3.
//!
//! ```text
//! random:      the best of `candidates` walks from noises of their own
//! zero-order:  `rounds` times: neighbours n' = (n + radius u) / sqrt(1 + radius^2) of the best noise n
//! paths:       `candidates` walks down to time `start`; until 0: each is noised `copies` times by
//!              `forward` and walked back by `back`, and the best `candidates` by their estimates stay
//! ```
//!
//! The paper does not say how neighbours are drawn; these stay on the shell where Gaussian noise lies.
//! Where the search walks in fewer steps than the run (`steps`), the sample that stands is walked in
//! full from the noise that was found, and may score otherwise.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::Cost;
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Recorded;
use crate::process::Process;
use crate::run::{Observer, Parts, Run};
use crate::search::{Entry, Found, Ground, Search, count};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "noise-search",
    seam: Seam::Search,
    title: "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps",
    source: "2501.09732",
    year: 2025,
    what: "the best of many walks, from noises drawn, varied or revisited",
    aliases: &["best-of-n"],
    ledger: "noise-search",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<NoiseSearch>()?.checked()?)),
    defaults: defaults_of::<NoiseSearch>,
    known_failures: &[],
};

/// Where the next noises come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// Each drawn by itself.
    #[default]
    Random,
    /// In the neighbourhood of the best so far.
    ZeroOrder,
    /// On the way, by noising again what was walked already.
    Paths,
}

/// Noise search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoiseSearch {
    /// Where the next noises come from. The default is `random`.
    pub over: Over,
    /// Candidates: of all (`random`), of a round (`zero-order`), kept (`paths`). The default is 4.
    pub candidates: usize,
    /// Rounds of `zero-order`. The default is 4.
    pub rounds: usize,
    /// How far neighbours of `zero-order` are from the best noise, before it is scaled back to the
    /// shell. The default is 0.5.
    pub radius: f64,
    /// Copies of each candidate of `paths`. The default is 2.
    pub copies: usize,
    /// The time down to which `paths` walks first. The default, 0.11, is the paper's.
    pub start: f64,
    /// How far `paths` goes back towards noise, in time. The default, 0.78, is the paper's.
    pub forward: f64,
    /// How far it walks from there. The default, 0.81, is the paper's.
    pub back: f64,
    /// Steps of a walk of `random` and `zero-order` while searching; 0, the default, is the run's own.
    pub steps: usize,
}

impl Default for NoiseSearch {
    fn default() -> Self {
        Self {
            over: Over::Random,
            candidates: 4,
            rounds: 4,
            radius: 0.5,
            copies: 2,
            start: 0.11,
            forward: 0.78,
            back: 0.81,
            steps: 0,
        }
    }
}

/// The stream of neighbours and of noise on the way, apart from that of the samples.
const AROUND: u64 = 0x4e53;

impl NoiseSearch {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        count("noise-search", "candidates", self.candidates)?;
        count("noise-search", "rounds", self.rounds)?;
        count("noise-search", "copies", self.copies)?;
        if !(self.radius.is_finite() && self.radius > 0.0) {
            let why = format!("{}, wanted a positive number", self.radius);
            return Err(Error::setting("noise-search:radius", why));
        }
        let times = 0.0 < self.start && 0.0 < self.forward && self.forward < self.back;
        if !(times && self.start + self.forward <= 1.0) {
            let why = format!(
                "{}, {} and {}, wanted 0 < forward < back and 0 < start with start + forward <= 1",
                self.start, self.forward, self.back
            );
            return Err(Error::setting("noise-search:start, forward, back", why));
        }
        if self.over == Over::Paths && self.steps > 0 {
            let why = "`paths` walks in the run's own steps";
            return Err(Error::setting("noise-search:steps", why));
        }
        Ok(self)
    }

    /// The times that `paths` walks between after the first leg: from, to.
    fn legs(&self) -> Vec<(f64, f64)> {
        let mut legs = Vec::new();
        let mut at = self.start;
        while at > 0.0 {
            let from = at + self.forward;
            // What is left at the end is no leg of its own.
            let to = if from - self.back < 1e-9 { 0.0 } else { from - self.back };
            legs.push((from, to));
            at = to;
        }
        legs
    }

    fn searching(&self) -> Option<usize> {
        (self.steps > 0).then_some(self.steps)
    }

    /// Walks from these noises, of a row each; `first` is the number of the first candidate.
    fn walk(
        ground: &Ground<'_>,
        noises: &State,
        first: usize,
        steps: Option<usize>,
        (found, observer): (&mut Best, &mut dyn Observer),
    ) -> Result<()> {
        let (all, room) = (noises.batch(), ground.room.max(1));
        for from in (0..all).step_by(room) {
            let rows: Vec<usize> = (from..all.min(from + room)).collect();
            let parts = (ground.parts)(first + from..first + from + rows.len(), steps)?;
            let noises = noises.select(&rows);
            let (x, cost) = begun(parts, &noises)?.finish(observer)?;
            found.cost.add(cost);
            found.offer(ground, &x, &noises)?;
        }
        Ok(())
    }

    /// The own noises of some candidates.
    fn own(ground: &Ground<'_>, candidates: std::ops::Range<usize>) -> Result<State> {
        let like = ground.rows(candidates.len());
        let mut parts = (ground.parts)(candidates, None)?;
        parts.noise.draw(&like)
    }

    fn random(&self, ground: &Ground<'_>, watched: (&mut Best, &mut dyn Observer)) -> Result<()> {
        let noises = Self::own(ground, 0..self.candidates)?;
        Self::walk(ground, &noises, 0, self.searching(), watched)
    }

    fn zero_order(
        &self,
        ground: &Ground<'_>,
        (found, observer): (&mut Best, &mut dyn Observer),
    ) -> Result<()> {
        let pivot = Self::own(ground, 0..1)?;
        Self::walk(ground, &pivot, 0, self.searching(), (found, observer))?;
        let scale = 1.0 / self.radius.hypot(1.0);
        for round in 0..self.rounds {
            let first = 1 + round * self.candidates;
            let moves = Self::own(ground, first..first + self.candidates)?;
            let pivot = found.noise()?.select(&vec![0; self.candidates]);
            let near = (pivot + moves * self.radius) * scale;
            Self::walk(ground, &near, first, self.searching(), (found, observer))?;
        }
        Ok(())
    }

    fn paths(
        &self,
        ground: &Ground<'_>,
        (found, observer): (&mut Best, &mut dyn Observer),
    ) -> Result<()> {
        let kept = self.candidates;
        let parts = (ground.parts)(0..kept, None)?;
        let steps = parts.levels.len() - 1;
        let mut noise = parts.noise.fork(AROUND);
        let mut parts = parts;
        let process = parts.process;
        let start = process.at(self.start);
        parts.levels.retain(|l| l.t > self.start);
        parts.levels.push(start);
        let (mut x, cost) = Run::from_prior(parts, &ground.rows(kept))?.finish(observer)?;
        found.cost.add(cost);
        let mut at = start;
        // Copies of one candidate draw apart.
        let copied: Vec<usize> = (0..kept).flat_map(|i| vec![i; self.copies]).collect();
        noise.select(&copied);
        for (from, to) in self.legs() {
            let mut parts = (ground.parts)(0..copied.len(), None)?;
            parts.levels = leg(process, from, to, steps);
            let (up, down) = (parts.levels[0], parts.levels[parts.levels.len() - 1]);
            let noised = renoised(&x.select(&copied), at, up, noise.as_mut())?;
            let mut run = Run::new(parts, noised)?;
            while run.advance(observer)? {}
            found.cost.add(run.cost());
            let ends = run.x().clone();
            let seen = if to == 0.0 { &ends } else { run.x0().unwrap_or(&ends) };
            let scores = ground.score(seen, Level::CLEAN)?;
            found.reads += scores.len();
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            x = ends.select(&order[..kept]);
            at = down;
        }
        found.offer(ground, &x, &x)
    }
}

/// The best so far.
#[derive(Default)]
struct Best {
    x: Option<State>,
    noise: Option<State>,
    score: f64,
    cost: Cost,
    reads: usize,
}

impl Best {
    /// Reads the rewards of some samples and keeps the best of all.
    fn offer(&mut self, ground: &Ground<'_>, x: &State, noises: &State) -> Result<()> {
        for (row, score) in ground.score(x, Level::CLEAN)?.into_iter().enumerate() {
            self.reads += 1;
            if self.x.is_none() || score > self.score {
                self.x = Some(x.select(&[row]));
                self.noise = Some(noises.select(&[row]));
                self.score = score;
            }
        }
        Ok(())
    }

    fn noise(&self) -> Result<State> {
        let none = || Error::unsupported("noise-search", "a first candidate");
        self.noise.clone().ok_or_else(none)
    }
}

/// A run that begins with the given noises in place of its own first draw.
fn begun<'m>(mut parts: Parts<'m>, noises: &State) -> Result<Run<'m>> {
    let endpoint = parts.cond.endpoint.clone();
    parts.noise.draw(noises)?;
    let mut tape = Recorded::new(vec![noises.clone()]);
    let x = parts.process.prior(noises, endpoint.as_ref(), parts.levels[0], &mut tape)?;
    Run::new(parts, x)
}

/// The levels of a leg in time, as even as the run's own steps are many.
fn leg(process: &dyn Process, from: f64, to: f64, steps: usize) -> Vec<Level> {
    let count = ((from - to) * steps as f64).round().max(1.0) as usize;
    let at = |i: usize| from + (to - from) * i as f64 / count as f64;
    let levels = (0..count).map(|i| process.at(at(i)));
    let last = if to == 0.0 { Level::CLEAN } else { process.at(to) };
    levels.chain([last]).collect()
}

/// The state at a noisier level of the same path.
fn renoised(
    x: &State,
    from: Level,
    to: Level,
    noise: &mut dyn crate::noise::Noise,
) -> Result<State> {
    let kept = to.alpha / from.alpha;
    let added = (to.sigma * to.sigma - kept * kept * from.sigma * from.sigma).max(0.0).sqrt();
    Ok(x.clone() * kept + noise.draw(x)? * added)
}

impl Search for NoiseSearch {
    fn search(&mut self, ground: &Ground<'_>, observer: &mut dyn Observer) -> Result<Found> {
        ground.reads_estimates("noise-search")?;
        let mut found = Best::default();
        match self.over {
            Over::Random => self.random(ground, (&mut found, observer))?,
            Over::ZeroOrder => self.zero_order(ground, (&mut found, observer))?,
            Over::Paths => self.paths(ground, (&mut found, observer))?,
        }
        if self.steps > 0 {
            // The sample that stands has the run's own steps.
            let noise = found.noise()?;
            let mut last = Best { cost: found.cost, reads: found.reads, ..Best::default() };
            Self::walk(ground, &noise, 0, None, (&mut last, observer))?;
            found = last;
        }
        let none = || Error::unsupported("noise-search", "a first candidate");
        let x = found.x.ok_or_else(none)?;
        Ok(Found { x, score: found.score, cost: found.cost, reads: found.reads })
    }

    fn walks(&self, steps: usize) -> f64 {
        let share = if self.steps == 0 { 1.0 } else { self.steps as f64 / steps as f64 };
        let last = f64::from(u8::from(self.steps > 0));
        match self.over {
            Over::Random => self.candidates as f64 * share + last,
            Over::ZeroOrder => (1 + self.rounds * self.candidates) as f64 * share + last,
            Over::Paths => {
                let legs: f64 = self.legs().iter().map(|(from, to)| from - to).sum();
                self.candidates as f64 * ((1.0 - self.start) + self.copies as f64 * legs)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_walk_down_to_the_data() {
        let search = NoiseSearch { over: Over::Paths, ..NoiseSearch::default() };
        let legs = search.legs();
        assert_eq!(legs.len(), 4, "0.11, 0.08, 0.05, 0.02, 0: {legs:?}");
        assert!((legs[0].0 - 0.89).abs() < 1e-12 && (legs[0].1 - 0.08).abs() < 1e-12);
        assert_eq!(legs[3].1, 0.0);
        assert!(NoiseSearch { forward: 0.9, ..search.clone() }.checked().is_err());
        assert!(NoiseSearch { steps: 3, ..search.clone() }.checked().is_err());
        assert!(NoiseSearch { radius: 0.0, ..search }.checked().is_err());
    }

    #[test]
    fn what_a_picture_costs_is_said_before() {
        let search = NoiseSearch::default();
        assert_eq!(search.walks(20), 4.0);
        assert_eq!(NoiseSearch { over: Over::ZeroOrder, ..search.clone() }.walks(20), 17.0);
        assert_eq!(NoiseSearch { steps: 5, ..search }.walks(20), 2.0);
    }
}
