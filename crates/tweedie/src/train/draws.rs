//! The randomness of training: a function of seed, stream, step and row, and of nothing else.
//!
//! No generator runs along with the loop, so that a resumed run draws what the unbroken one would
//! have drawn, and the split of a step into micro-batches changes nothing.

use crate::random::{Generator, Key};

/// What a draw is for; each has a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The order of the examples in an epoch.
    Order,
    /// The noise level of a row.
    Level,
    /// The noise added to a row.
    Noise,
    /// Whether a row loses its condition.
    Dropout,
    /// Flips and shifts of a picture.
    Augment,
    /// The caption of a scene.
    Caption,
    /// The posterior sample of an autoencoder.
    Posterior,
    /// What is asked about a scene.
    Question,
}

/// Room for the rows of one step in an index.
const ROWS: u64 = 1 << 24;

/// A generator for one row of one step.
pub fn generator(seed: u64, what: Use, step: u64, row: usize) -> Generator {
    Key::new(seed, stream(what), step * ROWS + row as u64).generator()
}

fn stream(what: Use) -> u64 {
    // Kept apart from the streams of sampling (0) and of initial weights.
    const TRAINING: u64 = 0x7261_0000;
    TRAINING
        + match what {
            Use::Order => 0,
            Use::Level => 1,
            Use::Noise => 2,
            Use::Dropout => 3,
            Use::Augment => 4,
            Use::Caption => 5,
            Use::Posterior => 6,
            Use::Question => 7,
        }
}

/// Which examples come when: each epoch a permutation of its own.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    examples: usize,
    epoch: Option<(u64, Vec<usize>)>,
}

impl Order {
    /// The order of so many examples.
    pub fn new(seed: u64, examples: usize) -> Self {
        Self { seed, examples, epoch: None }
    }

    /// The example at a position of the run, counted from its beginning over all epochs.
    pub fn example(&mut self, position: u64) -> usize {
        let examples = self.examples.max(1) as u64;
        let (epoch, at) = (position / examples, (position % examples) as usize);
        match &self.epoch {
            Some((held, order)) if *held == epoch => order[at],
            _ => {
                let order = Key::new(self.seed, stream(Use::Order), epoch).generator();
                let order = { order }.permutation(self.examples.max(1));
                let example = order[at];
                self.epoch = Some((epoch, order));
                example
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_shows_every_example_once_in_another_order() {
        let mut order = Order::new(3, 50);
        let mut epoch = |e: u64| (0..50).map(|i| order.example(e * 50 + i)).collect::<Vec<_>>();
        let (a, b) = (epoch(0), epoch(1));
        assert_ne!(a, b);
        assert_eq!(a, epoch(0), "going back changes nothing");
        for mut seen in [a, b] {
            seen.sort_unstable();
            assert_eq!(seen, (0..50).collect::<Vec<_>>());
        }
    }

    #[test]
    fn uses_steps_and_rows_draw_apart() {
        let first = |what, step, row| generator(1, what, step, row).bits();
        let base = first(Use::Noise, 5, 2);
        assert_eq!(base, first(Use::Noise, 5, 2));
        for other in [first(Use::Level, 5, 2), first(Use::Noise, 6, 2), first(Use::Noise, 5, 3)] {
            assert_ne!(base, other);
        }
    }
}
