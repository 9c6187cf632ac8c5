//! Tokens have seams of their own: a kernel that corrupts them, and a rule for which to commit.
//!
//! Only noise, observers and cards are shared with the continuous side.

use std::fmt::Debug;

use crate::error::Result;

/// How tokens become noise, and back given a guess of the clean ones.
pub trait Kernel: Debug + Send + Sync {
    /// How many tokens there are, a mask token among them where there is one.
    fn vocabulary(&self) -> usize;

    /// The token that stands for 'not known yet', where the kernel has one.
    fn mask(&self) -> Option<i64>;

    /// Clean tokens at time `t` in [0, 1]; one uniform number a position decides.
    fn corrupt(&self, x0: &[i64], t: f64, uniform: &[f64]) -> Vec<i64>;

    /// One step from time `from` to the cleaner `to`, given a distribution over the clean token at
    /// each position; one uniform number a position decides.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] where the distributions do not match the tokens.
    fn reverse(
        &self,
        x: &[i64],
        clean: &[Vec<f64>],
        from: f64,
        to: f64,
        uniform: &[f64],
    ) -> Result<Vec<i64>>;
}

/// Which of the masked positions to commit in a step.
pub trait Unmask: Debug + Send {
    /// Positions to commit among `masked`, at most `budget` of them and at least one where any is
    /// left, given the distribution over the clean token at each position of the row.
    fn choose(&mut self, clean: &[Vec<f64>], masked: &[usize], budget: usize) -> Vec<usize>;
}
