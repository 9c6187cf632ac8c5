//! A denoiser with a guide around it: how guides stand in a row.

use std::sync::{Mutex, PoisonError};

use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::Result;
use crate::guide::Guide;
use crate::level::{Level, Levels};
use crate::state::State;

/// A denoiser with a guide around it.
pub struct Guided<'a> {
    guide: Mutex<&'a mut dyn Guide>,
    model: &'a dyn Denoiser,
}

impl<'a> Guided<'a> {
    /// Puts a guide around a denoiser, which may itself be guided.
    pub fn new(guide: &'a mut dyn Guide, model: &'a dyn Denoiser) -> Self {
        Self { guide: Mutex::new(guide), model }
    }
}

impl Denoiser for Guided<'_> {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let mut guide = self.guide.lock().unwrap_or_else(PoisonError::into_inner);
        guide.x0(self.model, x, at, cond, pass)
    }

    fn jump(
        &self,
        x: &State,
        from: Level,
        to: Level,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<Option<State>> {
        self.model.jump(x, from, to, cond, pass)
    }

    fn is_told_guidance(&self) -> bool {
        self.model.is_told_guidance()
    }

    fn unguided(&self) -> Option<&dyn Denoiser> {
        Some(self.model.unguided().unwrap_or(self.model))
    }
}

/// The estimate through guides, the first outermost.
///
/// # Errors
///
/// What the network or a guide says.
pub fn through(
    guides: &mut [Box<dyn Guide>],
    model: &dyn Denoiser,
    x: &State,
    at: &Levels,
    cond: &Cond,
    pass: &mut Pass,
) -> Result<State> {
    match guides.split_last_mut() {
        None => model.x0(x, at, cond, pass),
        Some((inner, [])) => inner.x0(model, x, at, cond, pass),
        Some((inner, outer)) => {
            let model = Guided::new(inner.as_mut(), model);
            through(outer, &model, x, at, cond, pass)
        }
    }
}
