//! Where the time of a program goes: seconds, calls and products of each class of operations, counted
//! while someone asks for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// A class of operations, forward or backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Convolutions.
    Convolution,
    /// Linear layers.
    Linear,
    /// Attention behind its projections.
    Attention,
    /// Group and layer normalisation, with the activation that follows it.
    Norm,
    /// Activations by themselves.
    Activation,
    /// Resizing.
    Resampling,
    /// Steps of the optimiser.
    Optimiser,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Convolution,
        Self::Linear,
        Self::Attention,
        Self::Norm,
        Self::Activation,
        Self::Resampling,
        Self::Optimiser,
    ];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Convolution => "convolution",
            Self::Linear => "linear",
            Self::Attention => "attention",
            Self::Norm => "norm",
            Self::Activation => "activation",
            Self::Resampling => "resampling",
            Self::Optimiser => "optimiser",
        }
    }
}

/// What a class of operations took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// The class.
    pub class: Class,
    /// How often it was called.
    pub calls: u64,
    /// Seconds by the clock, of all threads together: calls of one program that overlap count twice.
    pub seconds: f64,
    /// Floating-point operations by the definition, two for a product and its sum; 0 where they are
    /// not counted. What a faster algorithm saves counts as done.
    pub operations: f64,
}

static COUNTING: AtomicBool = AtomicBool::new(false);

/// Calls, nanoseconds and operations of each class.
static COUNTS: [[AtomicU64; 3]; Class::ALL.len()] =
    [const { [const { AtomicU64::new(0) }; 3] }; Class::ALL.len()];

/// Begins to count from zero, in the whole process.
pub fn begin() {
    COUNTS.iter().flatten().for_each(|count| count.store(0, Ordering::Relaxed));
    COUNTING.store(true, Ordering::Relaxed);
}

/// Stops counting; gives what was counted, classes that were not called left out.
pub fn end() -> Vec<Spent> {
    COUNTING.store(false, Ordering::Relaxed);
    let of = |class: Class| {
        let [calls, nanoseconds, operations] =
            COUNTS[class as usize].each_ref().map(|count| count.load(Ordering::Relaxed));
        let seconds = nanoseconds as f64 * 1e-9;
        Spent { class, calls, seconds, operations: operations as f64 }
    };
    Class::ALL.into_iter().map(of).filter(|spent| spent.calls > 0).collect()
}

/// Counts from here to where it is dropped, if someone asks.
pub(crate) struct Timed {
    begun: Option<Instant>,
    class: Class,
    operations: usize,
}

/// A call of `products` multiplications with additions.
pub(crate) fn timed(class: Class, products: usize) -> Timed {
    let begun = COUNTING.load(Ordering::Relaxed).then(Instant::now);
    Timed { begun, class, operations: 2 * products }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let Some(begun) = self.begun else { return };
        let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let more = [1, nanoseconds, self.operations as u64];
        for (count, more) in COUNTS[self.class as usize].iter().zip(more) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::with_one_set;

    #[test]
    fn what_is_called_is_counted_while_someone_asks() {
        // Other tests call kernels meanwhile, but no optimiser for this long.
        with_one_set(|| {
            drop(timed(Class::Resampling, 5));
            begin();
            drop(timed(Class::Resampling, 5));
            let found = end();
            drop(timed(Class::Resampling, 5));
            let spent = found.iter().find(|s| s.class == Class::Resampling).unwrap();
            assert!(spent.calls >= 1 && spent.operations >= 10.0 && spent.seconds > 0.0);
            let names: std::collections::BTreeSet<&str> =
                Class::ALL.iter().map(|class| class.name()).collect();
            assert_eq!(names.len(), Class::ALL.len());
        });
    }
}
