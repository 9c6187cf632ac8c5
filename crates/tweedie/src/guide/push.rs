//! What guides have in common that push the state a step ends with.

use crate::denoiser::Cond;
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::reward::Reward;
use crate::state::State;

/// What the first evaluation of a step found, kept until the step has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Push {
    begun: Option<(Levels, State)>,
}

impl Push {
    /// Keeps a direction, unless the step has one already.
    pub(crate) fn keep(&mut self, at: &Levels, along: State) {
        if self.begun.is_none() {
            self.begun = Some((at.clone(), along));
        }
    }

    /// Whether the step has none yet.
    pub(crate) fn is_open(&self) -> bool {
        self.begun.is_none()
    }

    pub(crate) fn clear(&mut self) {
        self.begun = None;
    }

    /// The direction of the step that was taken from this level, where it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the step did not begin with the whole state at its level.
    pub(crate) fn take(
        &mut self,
        owner: &str,
        from: Level,
        after: &State,
    ) -> Result<Option<State>> {
        let Some((at, along)) = self.begun.take() else { return Ok(None) };
        if along.batch() != after.batch() || at != Levels::One(from) {
            let needs = "a step that begins with an evaluation of the whole state at its level";
            return Err(Error::unsupported(owner, needs));
        }
        Ok(Some(along))
    }
}

/// The reward that a guide follows.
///
/// # Errors
///
/// [`Error::Unsupported`] where the condition has none.
pub(crate) fn followed<'a>(owner: &str, cond: &'a Cond) -> Result<&'a dyn Reward> {
    cond.reward.as_deref().ok_or_else(|| Error::unsupported(owner, "a reward to follow"))
}
