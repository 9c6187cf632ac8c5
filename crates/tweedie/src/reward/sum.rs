//! Several rewards that add up.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::error::{Error, Result};
use crate::level::Levels;
use crate::reward::{Classified, Reward};
use crate::state::State;

/// Rewards with their weights, at least one.
#[derive(Clone, Debug)]
pub struct Sum {
    terms: Vec<(f64, Arc<dyn Reward>)>,
}

impl Sum {
    /// The sum of some rewards; one of weight 1 is itself.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where none is there, or where one reads noisy states and another
    /// estimates.
    pub fn of(mut terms: Vec<(f64, Arc<dyn Reward>)>) -> Result<Arc<dyn Reward>> {
        let Some(noisy) = terms.first().map(|(_, r)| r.reads_noise()) else {
            return Err(Error::unsupported("a sum of rewards", "a reward"));
        };
        if terms.iter().any(|(_, r)| r.reads_noise() != noisy) {
            let needs = "rewards that all read noisy states, or all estimates of the clean sample";
            return Err(Error::unsupported("a sum of rewards", needs));
        }
        match terms.pop() {
            Some((1.0, only)) if terms.is_empty() => Ok(only),
            last => Ok(Arc::new(Self { terms: terms.into_iter().chain(last).collect() })),
        }
    }
}

impl Reward for Sum {
    fn score(&self, x: &State, at: &Levels) -> Result<Tensor<2>> {
        let mut sum = None;
        for (weight, term) in &self.terms {
            let term = term.score(x, at)? * *weight;
            sum = Some(match sum {
                None => term,
                Some(sum) => sum + term,
            });
        }
        sum.ok_or_else(|| Error::unsupported("a sum of rewards", "a reward"))
    }

    fn is_differentiable(&self) -> bool {
        self.terms.iter().all(|(_, r)| r.is_differentiable())
    }

    fn reads_noise(&self) -> bool {
        self.terms.iter().all(|(_, r)| r.reads_noise())
    }

    /// Of the first that has any.
    fn classified(&self, x: &State, at: &Levels) -> Result<Option<Classified>> {
        for (_, term) in &self.terms {
            if let Some(found) = term.classified(x, at)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// One projection after the other, where every reward has one.
    fn projected(&self, x0: &State) -> Result<Option<State>> {
        let mut x0 = x0.clone();
        for (_, term) in &self.terms {
            match term.projected(&x0)? {
                Some(next) => x0 = next,
                None => return Ok(None),
            }
        }
        Ok(Some(x0))
    }

    fn select(&self, rows: &[usize]) -> Arc<dyn Reward> {
        Arc::new(Self { terms: self.terms.iter().map(|(w, r)| (*w, r.select(rows))).collect() })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::level::Level;
    use crate::reward::Linear;

    #[test]
    fn weights_count_and_one_is_itself() {
        let x = State::from_f64(vec![1.0, 2.0, -1.0, 0.5], &[2, 2], &Device::flex()).unwrap();
        let at = Levels::One(Level::CLEAN);
        let of = |along: [f64; 2]| -> Arc<dyn Reward> { Arc::new(Linear::new(along.to_vec())) };
        let sum = Sum::of(vec![(2.0, of([1.0, 0.0])), (-1.0, of([0.0, 1.0]))]).unwrap();
        let found: Vec<f64> = sum.score(&x, &at).unwrap().into_data_as::<f64>().iter().collect();
        assert_eq!(found, [0.0, -2.5]);
        let slope = crate::reward::gradient("test", &*sum, &x, &at).unwrap().to_rows();
        assert_eq!(slope, [[2.0, -1.0], [2.0, -1.0]]);
        assert!(Sum::of(Vec::new()).is_err());
    }
}
