//! Rewards: what a sample is to score high in, as a number a row.
//!
//! A reward looks at a state: an estimate of the clean sample or, where it was taught to, a noisy
//! state at its level. A search chooses by it (a verifier is a reward that is only read); a guide
//! follows its gradient. It stands in the condition, because it says what the sample is to be; so
//! neither guides nor searches know where it comes from.
//!
//! What the catalogue hands out is a [`Recipe`]: a reward of pictures needs a network, a class, a
//! caption or a picture, which only the caller has.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Tensor;

pub mod classifier;
pub mod linear;
pub mod measurement;
pub mod ppap;
mod read;
pub mod reader;
mod sum;

pub use classifier::{Classified, Classifies, Likelihood, log_softmax};
pub use linear::Linear;
pub use measurement::Measurement;
pub(crate) use read::slope;
pub use read::{Decoded, Decodes, gradient};
pub use reader::Reader;
pub use sum::Sum;

use crate::catalog::{Card, Made};
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::state::State;

/// What a sample is to score high in.
pub trait Reward: Debug + Send + Sync {
    /// A number a row, `[batch, 1]`, larger for better; on the tape of `x` where `x` is tracked and
    /// the reward can be followed. `at` says what level `x` stands at; estimates of the clean sample
    /// stand at [`crate::level::Level::CLEAN`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the state does not fit.
    fn score(&self, x: &State, at: &Levels) -> Result<Tensor<2>>;

    /// Whether its gradient can be followed.
    fn is_differentiable(&self) -> bool {
        true
    }

    /// Whether it reads noisy states at their levels, and not estimates of the clean sample.
    fn reads_noise(&self) -> bool {
        false
    }

    /// The classifier's logits and the asked classes, where the reward is a likelihood of classes.
    ///
    /// # Errors
    ///
    /// As [`Reward::score`].
    fn classified(&self, _x: &State, _at: &Levels) -> Result<Option<Classified>> {
        Ok(None)
    }

    /// The state nearest to `x0` that scores best, where there is one: `x0 - A^+ (A x0 - y)` of a
    /// linear measurement.
    ///
    /// # Errors
    ///
    /// As [`Reward::score`].
    fn projected(&self, _x0: &State) -> Result<Option<State>> {
        Ok(None)
    }

    /// The reward of other rows: row `i` is that of row `rows[i]`.
    fn select(&self, rows: &[usize]) -> Arc<dyn Reward>;
}

/// What a recipe wants to be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants<'a> {
    /// A classifier by name: `builtin:NAME` or a folder.
    pub classifier: Option<&'a str>,
    /// The picture that was measured.
    pub picture: bool,
    /// What each sample was asked to be of, in words.
    pub captions: bool,
}

/// What a recipe is given to make a reward for some rows of a run.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The class that each row was asked for, where it was.
    pub classes: Option<Vec<i64>>,
    /// The words that each row was asked for, where it was.
    pub captions: Option<Vec<String>>,
    /// The classifier that it wanted.
    pub classifier: Option<Arc<dyn Classifies>>,
    /// The picture, `[rows, channels, height, width]` in -1..1.
    pub picture: Option<State>,
}

/// A reward that is not yet bound to the rows of a run.
pub trait Recipe: Debug + Send + Sync {
    /// What it wants to be given.
    fn wants(&self) -> Wants<'_> {
        Wants::default()
    }

    /// How much it counts beside others.
    fn weight(&self) -> f64;

    /// The reward of `rows` rows.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where something is missing that it wants; [`Error::Setting`] where it
    /// does not fit.
    fn reward(&self, rows: usize, given: &Given) -> Result<Arc<dyn Reward>>;
}

/// A reward of the catalogue.
pub type Entry = Made<dyn Recipe>;

/// Every reward.
pub(crate) const ENTRIES: &[Entry] =
    &[classifier::ENTRY, linear::ENTRY, measurement::ENTRY, ppap::ENTRY, reader::ENTRY];

/// Every reward of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}

/// Checks the weight of the reward `owner` beside others.
fn weight(owner: &str, weight: f64) -> Result<()> {
    if weight.is_finite() {
        return Ok(());
    }
    Err(Error::setting(format!("{owner}:weight"), format!("{weight}, wanted a finite number")))
}
