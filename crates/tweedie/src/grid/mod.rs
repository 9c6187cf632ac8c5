//! Grids: the levels that a run stops at.

use std::fmt::Debug;

use crate::catalog::{Card, Made};
use crate::error::Result;
use crate::level::Level;
use crate::process::Process;

/// The levels that a run stops at; host numbers only.
pub trait Grid: Debug + Send + Sync {
    /// `steps + 1` levels from noise to data, strictly decreasing in noise, the last one clean
    /// unless the grid says otherwise.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`] for a count of steps that the process cannot give;
    /// [`crate::Error::Unsupported`] where the grid needs what the process lacks.
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>>;
}

/// A grid of the catalogue.
pub type Entry = Made<dyn Grid>;

/// Every grid.
pub(crate) const ENTRIES: &[Entry] = &[];

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}
