//! Two walks in one batch: the source's rows first, behind them the rows of the walk that it helps.

use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::{Guide, through};
use crate::level::{Level, Levels};
use crate::state::State;

/// Both sides' guides, each on its own rows, the source first: what it lends is there when the other
/// is asked.
#[derive(Debug)]
pub(super) struct Branches {
    /// The guides of the source's rows.
    pub(super) source: Vec<Box<dyn Guide>>,
    /// The guides of the other rows.
    pub(super) other: Vec<Box<dyn Guide>>,
    /// The clean samples, where they are known: the source's estimate is then theirs, and what the
    /// network misses there is added to the other's estimate.
    pub(super) known: Option<State>,
}

impl Guide for Branches {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let half = x.batch() / 2;
        let mut ask = |guides: &mut [Box<dyn Guide>], rows: std::ops::Range<usize>| {
            let rows: Vec<usize> = rows.collect();
            let (x, at, cond) = (x.select(&rows), at.select(&rows), cond.select(&rows));
            let named = rows.iter().map(|&r| pass.rows[r]).collect();
            pass.over_rows(named, |pass| {
                let x0 = through(guides, model, &x, &at, &cond, pass)?;
                // Both are of these rows alone.
                pass.uncorrected = None;
                match pass.apart.take() {
                    None => Ok(x0),
                    Some(_) => Err(Error::unsupported(
                        "the noise of another estimate",
                        "a walk of its own: the source's walks beside this one",
                    )),
                }
            })
        };
        let source = ask(&mut self.source, 0..half)?;
        let other = ask(&mut self.other, half..x.batch())?;
        match &self.known {
            None => State::cat(&[source, other]),
            Some(x0) => {
                let missed = x0.clone() - source;
                State::cat(&[x0.clone(), other + missed])
            }
        }
    }

    fn stepped(&mut self, from: Level, to: Level, before: &State, after: &State) -> Result<()> {
        let half = before.batch() / 2;
        let both = [(&mut self.source, 0..half), (&mut self.other, half..before.batch())];
        for (guides, rows) in both {
            let rows: Vec<usize> = rows.collect();
            for guide in guides {
                guide.stepped(from, to, &before.select(&rows), &after.select(&rows))?;
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.source.iter_mut().chain(&mut self.other).for_each(|guide| guide.reset());
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(Self {
            source: self.source.iter().map(|g| g.fork()).collect(),
            other: self.other.iter().map(|g| g.fork()).collect(),
            known: self.known.clone(),
        })
    }

    /// Follows the source's rows; the other's follow them.
    fn select(&mut self, rows: &[usize]) {
        let rows = &rows[..rows.len() / 2];
        self.source.iter_mut().chain(&mut self.other).for_each(|guide| guide.select(rows));
        self.known = self.known.as_ref().map(|x0| x0.select(rows));
    }
}

/// Both conditions one behind the other, the negative ones too.
///
/// # Errors
///
/// [`Error::Unsupported`] where they are of different kinds.
pub(super) fn stacked(source: &Cond, other: &Cond) -> Result<Cond> {
    let mut cond = Cond::cat(&[source, other])?;
    cond.negative = match (&source.negative, &other.negative) {
        (Some(a), Some(b)) => Some(Box::new(Cond::cat(&[a, b])?)),
        (None, None) => None,
        _ => {
            return Err(Error::unsupported("two walks", "a negative condition on both or neither"));
        }
    };
    Ok(cond)
}

/// Names for the rows of both walks: the source's, and unlike names for the other's.
pub(super) fn requests(source: &[u64]) -> Vec<u64> {
    let other = source.iter().map(|request| request ^ (1 << 63));
    source.iter().copied().chain(other).collect()
}
