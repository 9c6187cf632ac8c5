//! Reading a reward: its gradient, and rewards of pictures over latents.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Tensor;

use crate::error::{Error, Result};
use crate::level::Levels;
use crate::reward::{Classified, Reward};
use crate::state::State;

/// The gradient of a reward with respect to the state that it reads, for the part `owner`.
///
/// # Errors
///
/// [`Error::Unsupported`] where the reward cannot be followed; what it says of the state.
pub fn gradient(owner: &str, reward: &dyn Reward, x: &State, at: &Levels) -> Result<State> {
    slope(owner, x, |leaf| {
        if !reward.is_differentiable() {
            let needs = "a reward with a gradient: `classifier`, `linear` or `measurement`";
            return Err(Error::unsupported(owner, needs));
        }
        reward.score(leaf, at)
    })
}

/// The gradient of any number a row with respect to a state.
pub(crate) fn slope(
    owner: &str,
    x: &State,
    objective: impl FnOnce(&State) -> Result<Tensor<2>>,
) -> Result<State> {
    let leaf = x.tracked();
    let scalar = objective(&leaf)?.sum();
    if !scalar.is_tracked() {
        return Err(Error::unsupported(owner, "a reward that depends on the state"));
    }
    let grads = scalar.backward();
    Ok(leaf.map(|x| x.grad(&grads).unwrap_or_else(|| x.without_autodiff().zeros_like())))
}

/// From latents to pictures, differentiable where the latents are tracked.
pub trait Decodes: Debug + Send + Sync {
    /// Pictures in -1..1.
    ///
    /// # Errors
    ///
    /// What the decoder says.
    fn decode(&self, latents: &State) -> Result<State>;
}

/// A reward of pictures, over the latents that they are decoded from.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The decoder.
    pub decoder: Arc<dyn Decodes>,
    /// The reward of the pictures.
    pub inner: Arc<dyn Reward>,
}

impl Reward for Decoded {
    fn score(&self, x: &State, at: &Levels) -> Result<Tensor<2>> {
        self.inner.score(&self.decoder.decode(x)?, at)
    }

    fn is_differentiable(&self) -> bool {
        self.inner.is_differentiable()
    }

    fn classified(&self, x: &State, at: &Levels) -> Result<Option<Classified>> {
        self.inner.classified(&self.decoder.decode(x)?, at)
    }

    fn select(&self, rows: &[usize]) -> Arc<dyn Reward> {
        Arc::new(Self { decoder: self.decoder.clone(), inner: self.inner.select(rows) })
    }
}
