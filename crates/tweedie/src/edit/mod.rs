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
mod inverted;
mod reverse;
mod taped;

pub use cyclediffusion::Cyclediffusion;
pub use ddim_inversion::DdimInversion;
pub use direct_inversion::DirectInversion;
pub use edict::Edict;
pub use edit_friendly::EditFriendly;
pub use infedit::Infedit;
pub use inverted::{Inverted, Under};

use inverted::{Beside, Collecting};

use crate::catalog::{Card, Made};
use crate::denoiser::{Cond, Denoiser};
use crate::error::{Error, Result};
use crate::guide::Guide;
use crate::level::Level;
use crate::noise::Noise;
use crate::process::Process;
use crate::run::{Observer, Parts};
use crate::sampler::Sampler;
use crate::spec::PartSpec;
use crate::state::State;
use crate::tap::SharedTap;

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
