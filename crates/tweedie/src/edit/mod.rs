//! Inversion and editing: from a picture back to what a walk could have made it from, and forth again
//! under another condition.
//!
//! An [`Inversion`] takes clean samples and what is known of them (the source's condition), and gives
//! an [`Inverted`]: a run that stands at its first level, ready to go. Walked under the source's
//! condition it ends with the samples again, to the method's own tolerance; walked under the target's
//! it is the edit. A method differs from the others in where it lets the walk begin, in what noise the
//! steps draw, and in what the source's own walk lends the target's.

use std::fmt::Debug;

mod branches;
pub mod cyclediffusion;
pub mod ddim_inversion;
pub mod direct_inversion;
pub mod edict;
pub mod edit_friendly;
pub mod infedit;
mod reverse;
mod taped;

pub use cyclediffusion::Cyclediffusion;
pub use ddim_inversion::DdimInversion;
pub use direct_inversion::DirectInversion;
pub use edict::Edict;
pub use edit_friendly::EditFriendly;
pub use infedit::Infedit;

use branches::Branches;
use direct_inversion::Held;

use crate::catalog::{Card, Made};
use crate::denoiser::{Cond, Cost, Denoiser};
use crate::error::{Error, Result};
use crate::guide::Guide;
use crate::level::Level;
use crate::noise::Noise;
use crate::process::Process;
use crate::run::{Observer, Parts, Run};
use crate::sampler::Sampler;
use crate::spec::PartSpec;
use crate::state::State;
use crate::tap::{AttentionControl, SharedTap, attention_control};

/// What a method uses where nothing was said; its paper's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// Steps of the grid.
    pub steps: usize,
    /// The share of the steps that is walked, counted from the data.
    pub strength: f64,
    /// The guidance weight of the source's side; that of the target's side where there is none.
    pub source_guidance: Option<f64>,
}

/// Evaluations of the network, for one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluations {
    /// Until the picture is inverted.
    pub invert: usize,
    /// For a walk from there.
    pub walk: usize,
}

/// A condition and how it is followed.
pub struct Side {
    /// What the sample is, or should be, of.
    pub cond: Cond,
    /// Guides, outermost first.
    pub guides: Vec<Box<dyn Guide>>,
}

impl Side {
    fn guides(&self) -> Vec<Box<dyn Guide>> {
        self.guides.iter().map(|g| g.fork()).collect()
    }
}

/// Makes the taps of a run, which remember and so belong to it alone.
pub type Taps<'m> = Box<dyn Fn() -> Result<Vec<SharedTap>> + 'm>;

/// What is inverted, and with what.
pub struct Scene<'m> {
    /// The network.
    pub model: &'m dyn Denoiser,
    /// The path.
    pub process: &'m dyn Process,
    /// The grid, noise first.
    pub levels: Vec<Level>,
    /// The level at which a walk begins: `levels[first]`.
    pub first: usize,
    /// The clean samples.
    pub x0: State,
    /// What they are of.
    pub source: Side,
    /// What the edit should be of.
    pub target: Side,
    /// For each token of the target's text, the token of the source's text that it stands for;
    /// `None` where there are no texts.
    pub words: Option<Vec<Option<usize>>>,
    /// Noise, where a method draws some; from one seed a row.
    pub noise: Box<dyn Noise>,
    /// The taps of a run.
    pub taps: Taps<'m>,
    /// A name a row.
    pub requests: Vec<u64>,
}

impl<'m> Scene<'m> {
    /// The steps that a walk takes.
    pub fn walked(&self) -> usize {
        self.levels.len().saturating_sub(1 + self.first)
    }

    /// The parts of a run under the source's condition.
    fn parts(&self, sampler: Box<dyn Sampler>, noise: Box<dyn Noise>) -> Result<Parts<'m>> {
        Ok(Parts {
            model: self.model,
            process: self.process,
            levels: self.levels.clone(),
            sampler,
            guides: self.source.guides(),
            taps: (self.taps)()?,
            noise,
            cond: self.source.cond.clone(),
            requests: self.requests.clone(),
        })
    }
}

/// A way from clean samples to a walk that leads to them, and back under another condition.
pub trait Inversion: Debug + Send {
    /// What it uses where nothing was said.
    fn usual(&self) -> Usual;

    /// How it steps, for the record of a run.
    fn sampler(&self) -> PartSpec;

    /// What it costs for `walked` steps, where an estimate of the source's side takes `source`
    /// evaluations and one of the target's side `target`.
    fn evaluations(&self, walked: usize, source: usize, target: usize) -> Evaluations;

    /// Inverts.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for levels or conditions that it cannot work with; what a part says.
    fn invert<'m>(&self, scene: Scene<'m>, observer: &mut dyn Observer) -> Result<Inverted<'m>>;
}

/// Under which condition an inverted picture is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// The source's: the picture again.
    Source,
    /// The target's: the edit.
    Target,
}

/// How the source's own walk takes part in the other's.
struct Beside {
    /// Which rows get what the source's are off the inverted path by, after every step.
    held: Held,
    /// The clean samples, where the source's path is known without inversion.
    known: Option<State>,
    /// What of the source's attention the other walk has.
    control: attention_control::Settings,
}

/// A picture inverted: a run at its first level.
///
/// Where the source walks beside the target the run has its rows first and the target's behind them.
pub struct Inverted<'m> {
    run: Run<'m>,
    scene: Scene<'m>,
    /// The source's states from the first level to the clean samples.
    path: Vec<State>,
    /// What the last step leaves out, where it draws no noise that could be solved for.
    rest: Option<State>,
    beside: Option<Beside>,
    cost: Cost,
}

impl<'m> Inverted<'m> {
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
struct Collecting<'a> {
    path: Vec<State>,
    observer: &'a mut dyn Observer,
}

impl Observer for Collecting<'_> {
    fn step(&mut self, progress: &crate::run::Progress<'_>) -> std::ops::ControlFlow<()> {
        self.path.push(progress.x.clone());
        self.observer.step(progress)
    }

    fn evaluate(&mut self) -> std::ops::ControlFlow<()> {
        self.observer.evaluate()
    }
}

/// A share that must lie between 0 and 1.
fn share(key: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::setting(key, format!("{value}, wanted 0 to 1")))
}

/// An inversion of the catalogue.
pub type Entry = Made<dyn Inversion>;

/// Every inversion.
pub(crate) const ENTRIES: &[Entry] = &[
    cyclediffusion::ENTRY,
    ddim_inversion::ENTRY,
    direct_inversion::ENTRY,
    edict::ENTRY,
    edit_friendly::ENTRY,
    infedit::ENTRY,
];

/// Every inversion of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}
