//! The draws of a run, kept: recorded from one source, edited, played to another run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::noise::{Noise, Recorded};
use crate::state::State;

/// Draws in order. A clone is the same tape.
#[derive(Clone, Debug, Default)]
pub struct Tape(Arc<Mutex<Vec<State>>>);

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a draw behind the others.
    pub fn push(&self, draw: State) {
        self.lock().push(draw);
    }

    /// How many draws it holds.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The draws in order.
    pub fn draws(&self) -> Vec<State> {
        self.lock().clone()
    }

    /// Puts `f` of each draw, and of its place, into its stead.
    pub fn edit(&self, mut f: impl FnMut(usize, State) -> State) {
        for (place, draw) in self.lock().iter_mut().enumerate() {
            *draw = f(place, draw.clone());
        }
    }

    /// A source that plays what the tape holds now.
    pub fn play(&self) -> Recorded {
        Recorded::new(self.draws())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source whose draws go onto a tape as they pass. Uniform numbers pass unrecorded.
#[derive(Debug)]
pub struct Recording {
    inner: Box<dyn Noise>,
    tape: Tape,
}

impl Recording {
    /// Records what `inner` draws.
    pub fn new(inner: Box<dyn Noise>, tape: &Tape) -> Self {
        Self { inner, tape: tape.clone() }
    }
}

impl Noise for Recording {
    fn draw(&mut self, like: &State) -> Result<State> {
        let draw = self.inner.draw(like)?;
        self.tape.push(draw.clone());
        Ok(draw)
    }

    fn over(&mut self, like: &State, from: f64, to: f64) -> Result<State> {
        let draw = self.inner.over(like, from, to)?;
        self.tape.push(draw.clone());
        Ok(draw)
    }

    fn uniform(&mut self, batch: usize, width: usize) -> Result<Vec<Vec<f64>>> {
        self.inner.uniform(batch, width)
    }

    /// The fork records onto a tape of its own, which nobody else holds.
    fn fork(&self, branch: u64) -> Box<dyn Noise> {
        let tape = Tape(Arc::new(Mutex::new(self.tape.draws())));
        Box::new(Self { inner: self.inner.fork(branch), tape })
    }

    fn select(&mut self, rows: &[usize]) {
        self.inner.select(rows);
        self.tape.edit(|_, draw| draw.select(rows));
    }
}

/// The same draws for two halves of a batch: two walks that see one noise.
#[derive(Debug)]
pub struct Twice(Box<dyn Noise>);

impl Twice {
    /// Draws for half a batch, given to both halves.
    pub fn new(inner: Box<dyn Noise>) -> Self {
        Self(inner)
    }
}

impl Noise for Twice {
    fn draw(&mut self, like: &State) -> Result<State> {
        let half: Vec<usize> = (0..like.batch() / 2).collect();
        let draw = self.0.draw(&like.select(&half))?;
        State::cat(&[draw.clone(), draw])
    }

    fn over(&mut self, like: &State, from: f64, to: f64) -> Result<State> {
        let half: Vec<usize> = (0..like.batch() / 2).collect();
        let draw = self.0.over(&like.select(&half), from, to)?;
        State::cat(&[draw.clone(), draw])
    }

    fn uniform(&mut self, batch: usize, width: usize) -> Result<Vec<Vec<f64>>> {
        let draw = self.0.uniform(batch / 2, width)?;
        Ok([draw.clone(), draw].concat())
    }

    fn fork(&self, branch: u64) -> Box<dyn Noise> {
        Box::new(Self(self.0.fork(branch)))
    }

    /// Follows the first half; the second follows it.
    fn select(&mut self, rows: &[usize]) {
        self.0.select(&rows[..rows.len() / 2]);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::noise::Seeded;

    fn blank(batch: usize) -> State {
        State::from_f64(vec![0.0; batch * 3], &[batch, 3], &Device::flex()).unwrap()
    }

    #[test]
    fn what_was_drawn_is_played_again_and_can_be_edited() {
        let tape = Tape::new();
        let mut source = Recording::new(Box::new(Seeded::new(4, 2)), &tape);
        let drawn: Vec<_> = (0..3).map(|_| source.draw(&blank(2)).unwrap().to_rows()).collect();
        let mut again = tape.play();
        for draw in &drawn {
            assert_eq!(&again.draw(&blank(2)).unwrap().to_rows(), draw);
        }
        assert!(again.draw(&blank(2)).is_err(), "the tape ends");
        tape.edit(|place, draw| if place == 1 { -draw } else { draw });
        let edited: Vec<_> = tape.draws().iter().map(State::to_rows).collect();
        assert_eq!((&edited[0], &edited[2]), (&drawn[0], &drawn[2]));
        assert_eq!(edited[1][0][2], -drawn[1][0][2]);
        // A fork goes on alone.
        source.fork(1).draw(&blank(2)).unwrap();
        assert_eq!(tape.len(), 3);
    }

    #[test]
    fn two_halves_see_one_noise() {
        let mut twice = Twice::new(Box::new(Seeded::new(4, 2)));
        let rows = twice.draw(&blank(4)).unwrap().to_rows();
        assert_eq!(rows[..2], Seeded::new(4, 2).draw(&blank(2)).unwrap().to_rows());
        assert_eq!(rows[..2], rows[2..]);
    }
}
