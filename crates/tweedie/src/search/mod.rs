//! Searches: spend evaluations of the network on finding a sample of higher reward.
//!
//! A search works on one picture. It gets its [`Ground`]: runs of as many candidates of that picture
//! as it likes, and the reward. The first candidate is the picture that stands without a search, and
//! candidate `i` does not depend on how many there are.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

pub mod fk_steering;
pub mod noise_search;
mod particles;

pub use fk_steering::FkSteering;
pub use noise_search::NoiseSearch;
pub use particles::{Particles, Resampling};

use crate::catalog::{Card, Made};
use crate::denoiser::Cost;
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::reward::Reward;
use crate::run::{Observer, Parts};
use crate::state::State;

/// Spends evaluations on finding a better sample.
pub trait Search: Debug + Send {
    /// The best sample that it finds.
    ///
    /// # Errors
    ///
    /// What a part says; [`Error::Unsupported`] where the run is of a kind that cannot be searched.
    fn search(&mut self, ground: &Ground<'_>, observer: &mut dyn Observer) -> Result<Found>;

    /// Walks of one candidate that it pays for, where a walk has `steps` steps: what a picture costs is
    /// this many times what it costs without a search.
    fn walks(&self, steps: usize) -> f64;
}

/// What a search makes its candidates from: one picture of a run.
pub struct Ground<'m> {
    /// The parts of a run of these candidates; of so many steps, where a number stands there.
    #[allow(clippy::type_complexity, reason = "a closure that is written once")]
    pub parts: &'m dyn Fn(Range<usize>, Option<usize>) -> Result<Parts<'m>>,
    /// One row, for its shape.
    pub like: State,
    /// What a candidate is to score high in; of one row.
    pub reward: Arc<dyn Reward>,
    /// Candidates that go through the network at once, where they need not know of each other.
    pub room: usize,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The sample, of one row.
    pub x: State,
    /// Its reward.
    pub score: f64,
    /// What all candidates together have cost.
    pub cost: Cost,
    /// How often a reward was read.
    pub reads: usize,
}

impl Ground<'_> {
    /// A state of so many rows.
    pub fn rows(&self, count: usize) -> State {
        self.like.select(&vec![0; count])
    }

    /// The rewards of some states at a level.
    ///
    /// # Errors
    ///
    /// What the reward says; [`Error::NotFinite`] for one that is no number.
    pub fn score(&self, x: &State, at: Level) -> Result<Vec<f64>> {
        let reward = self.reward.select(&vec![0; x.batch()]);
        let scores = reward.score(x, &Levels::One(at))?.into_data_as::<f64>();
        let scores: Vec<f64> = scores.iter::<f64>().collect();
        if scores.iter().any(|s| s.is_nan()) {
            return Err(Error::NotFinite { what: "a reward".into() });
        }
        Ok(scores)
    }

    /// A reward of estimates, for searches that read no noisy state.
    fn reads_estimates(&self, owner: &str) -> Result<()> {
        if self.reward.reads_noise() {
            return Err(Error::unsupported(owner, "a reward of clean samples"));
        }
        Ok(())
    }
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.forward += other.forward;
        self.backward += other.backward;
    }
}

/// A search of the catalogue.
pub type Entry = Made<dyn Search>;

/// Every search.
pub(crate) const ENTRIES: &[Entry] = &[fk_steering::ENTRY, noise_search::ENTRY];

/// Every search of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}

/// Checks a count of the part `owner`.
fn count(owner: &str, key: &str, value: usize) -> Result<()> {
    if (1..=65_536).contains(&value) {
        return Ok(());
    }
    Err(Error::setting(format!("{owner}:{key}"), format!("{value}, wanted 1 to 65536")))
}
