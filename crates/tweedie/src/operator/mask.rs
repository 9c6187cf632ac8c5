//! Some of the numbers are seen, the others are not.

use crate::error::{Error, Result};
use crate::operator::{Linear, Operator};
use crate::state::State;

/// `y = m x`, with a number of 1 where it is seen and of 0 where it is not, the same for all rows.
#[derive(Clone, Debug)]
pub struct Mask {
    seen: Vec<f64>,
}

impl Mask {
    /// Which of the numbers of a row are seen.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where none is.
    pub fn new(seen: &[bool]) -> Result<Self> {
        if !seen.contains(&true) {
            return Err(Error::setting("mask", "nothing is seen"));
        }
        Ok(Self { seen: seen.iter().map(|s| f64::from(u8::from(*s))).collect() })
    }

    fn times(&self, x: &State) -> Result<State> {
        if x.real_features() != self.seen.len() {
            return Err(Error::Shape {
                what: "a mask's numbers".into(),
                wanted: vec![self.seen.len()],
                found: vec![x.real_features()],
            });
        }
        let seen = x.untracked().filled_like(&self.seen.repeat(x.batch()))?;
        Ok(x.zip(&seen, |x, m| {
            let m = if x.is_autodiff() { m.autodiff() } else { m };
            x * m
        }))
    }
}

impl Operator for Mask {
    fn apply(&self, x: &State) -> Result<State> {
        self.times(x)
    }

    fn linear(&self) -> Option<&dyn Linear> {
        Some(self)
    }
}

impl Linear for Mask {
    fn adjoint(&self, y: &State) -> Result<State> {
        self.times(y)
    }

    fn pseudo_inverse(&self, y: &State) -> Result<State> {
        self.times(y)
    }
}
