//! Tuners: find the settings of a run before it, by trying.

use std::fmt::Debug;

pub mod autodiffusion;

pub use autodiffusion::Autodiffusion;

use crate::catalog::{Card, Made};
use crate::error::Result;
use crate::grid::listed::Listed;
use crate::process::Process;

/// What a tuner tries its candidates on: a model, a sampler, a count of steps and a measure.
pub trait Ground {
    /// The path.
    fn process(&self) -> &dyn Process;

    /// How many steps a run has.
    fn steps(&self) -> usize;

    /// How bad runs on a grid are: less is better. The noise must be the same each time, so that
    /// grids are compared and not draws.
    ///
    /// # Errors
    ///
    /// What the run says.
    fn score(&mut self, grid: &Listed) -> Result<f64>;
}

/// What a tuner has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// The best grid.
    pub grid: Listed,
    /// Its score, on what it was chosen by: on fresh draws it is worse.
    pub score: f64,
    /// The score of evenly spread times.
    pub even: f64,
    /// How many grids were tried.
    pub tried: usize,
}

/// Finds the settings of a run before it.
pub trait Tuner: Debug + Send {
    /// Tries and chooses.
    ///
    /// # Errors
    ///
    /// What the ground says; [`crate::Error::Setting`] where there is nothing to choose from.
    fn tune(&self, ground: &mut dyn Ground) -> Result<Tuned>;
}

/// A tuner of the catalogue.
pub type Entry = Made<dyn Tuner>;

/// Every tuner.
pub(crate) const ENTRIES: &[Entry] = &[autodiffusion::ENTRY];

/// Every tuner of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}
