//! A picture inverted: the walk that leads to it, ready to go.

use super::Scene;
use super::branches::{self, Branches};
use super::direct_inversion::Held;
use crate::denoiser::Cost;
use crate::error::Result;
use crate::guide::Guide;
use crate::run::{Observer, Progress, Run};
use crate::state::State;
use crate::tap::{AttentionControl, SharedTap, attention_control};

/// Under which condition an inverted picture is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// The source's: the picture again.
    Source,
    /// The target's: the edit.
    Target,
}

/// How the source's own walk takes part in the other's.
pub(super) struct Beside {
    /// Which rows get what the source's are off the inverted path by, after every step.
    pub(super) held: Held,
    /// The clean samples, where the source's path is known without inversion.
    pub(super) known: Option<State>,
    /// What of the source's attention the other walk has.
    pub(super) control: attention_control::Settings,
}

/// A picture inverted: a run at its first level.
///
/// Where the source walks beside the target the run has its rows first and the target's behind them.
pub struct Inverted<'m> {
    pub(super) run: Run<'m>,
    pub(super) scene: Scene<'m>,
    /// The source's states from the first level to the clean samples.
    pub(super) path: Vec<State>,
    /// What the last step leaves out, where it draws no noise that could be solved for.
    pub(super) rest: Option<State>,
    pub(super) beside: Option<Beside>,
    pub(super) cost: Cost,
}

impl Inverted<'_> {
    /// The state that a walk begins with.
    pub fn x(&self) -> &State {
        &self.path[0]
    }

    /// The source's states, from the first level of the walk to the clean samples.
    pub fn path(&self) -> &[State] {
        &self.path
    }

    /// What the inversion has cost.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Walks to the data. Where a mask is given (of the samples' shape, 1 where the edit counts), the
    /// state is put back on the source's path outside it after every step.
    ///
    /// # Errors
    ///
    /// What a part says.
    pub fn walk(
        &self,
        under: Under,
        mask: Option<&State>,
        observer: &mut dyn Observer,
    ) -> Result<(State, Cost)> {
        let side = match under {
            Under::Source => &self.scene.source,
            Under::Target => &self.scene.target,
        };
        let mut taps = (self.scene.taps)()?;
        let (cond, guides) = match &self.beside {
            None => (side.cond.clone(), side.guides()),
            Some(beside) => {
                taps.extend(self.control(beside, under)?);
                let guides = Branches {
                    source: self.scene.source.guides(),
                    other: side.guides(),
                    known: beside.known.clone(),
                };
                let guides: Vec<Box<dyn Guide>> = vec![Box::new(guides)];
                (branches::stacked(&self.scene.source.cond, &side.cond)?, guides)
            }
        };
        let mut run = self.run.fork(0, taps);
        run.turn(cond, guides);
        while run.advance(observer)? {
            let place = run.done() - self.scene.first;
            if place < self.path.len() - 1 {
                let x = self.mended(run.x().clone(), place, mask)?;
                run.set_x(x);
            }
        }
        let mut x = run.x().clone();
        if let Some(rest) = &self.rest {
            x = x + rest.clone();
        }
        let x = self.mended(x, self.path.len() - 1, mask)?;
        let cost = Cost {
            forward: run.cost().forward - self.run.cost().forward,
            backward: run.cost().backward - self.run.cost().backward,
        };
        Ok((self.rows(&x, under), cost))
    }

    /// The rows that answer.
    fn rows(&self, x: &State, under: Under) -> State {
        let half = self.scene.x0.batch();
        match (&self.beside, under) {
            (None, _) => x.clone(),
            (Some(_), Under::Source) => x.select(&(0..half).collect::<Vec<_>>()),
            (Some(_), Under::Target) => x.select(&(half..2 * half).collect::<Vec<_>>()),
        }
    }

    /// The state with what is known of it: the source's rows on their path, and the path where the
    /// mask keeps it.
    fn mended(&self, x: State, place: usize, mask: Option<&State>) -> Result<State> {
        let path = &self.path[place];
        let kept = |x: State| match mask {
            None => x,
            Some(mask) => path.clone() + (x - path.clone()).zip(mask, |x, mask| x * mask),
        };
        let Some(beside) = &self.beside else { return Ok(kept(x)) };
        let (source, other) = (self.rows(&x, Under::Source), self.rows(&x, Under::Target));
        let (source, other) = match beside.held {
            Held::Neither => (source, other),
            Held::Source => (path.clone(), other),
            Held::Both => (path.clone(), other + (path.clone() - source)),
        };
        State::cat(&[source, kept(other)])
    }

    /// The tap that lends the source's attention.
    fn control(&self, beside: &Beside, under: Under) -> Result<Option<SharedTap>> {
        let settings = beside.control.clone();
        if settings.cross == 0.0 && settings.own == 0.0 {
            return Ok(None);
        }
        let half = self.scene.x0.batch() as u64;
        let requests = branches::requests(&self.scene.requests);
        let (sources, others) = requests.split_at(half as usize);
        let words = match under {
            // The same text: every token stands for itself.
            Under::Source => {
                self.scene.words.as_ref().map(|words| (0..words.len()).map(Some).collect())
            }
            Under::Target => self.scene.words.clone(),
        };
        let pairs = sources.iter().copied().zip(others.iter().copied()).collect();
        let control = AttentionControl::new(settings, pairs, words, self.scene.first)?;
        Ok(Some(SharedTap::new(control)))
    }
}

/// Collects the states of a run.
pub(super) struct Collecting<'a> {
    pub(super) path: Vec<State>,
    pub(super) observer: &'a mut dyn Observer,
}

impl Observer for Collecting<'_> {
    fn step(&mut self, progress: &Progress<'_>) -> std::ops::ControlFlow<()> {
        self.path.push(progress.x.clone());
        self.observer.step(progress)
    }

    fn evaluate(&mut self) -> std::ops::ControlFlow<()> {
        self.observer.evaluate()
    }
}
