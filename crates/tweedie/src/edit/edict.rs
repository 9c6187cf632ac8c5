//! EDICT: the picture inverted exactly, by two coupled states.
//!
//! Wallace, Gokul and Naik, "EDICT: Exact Diffusion Inversion via Coupled Transformations", 2022,
//! [arXiv:2211.12446](https://arxiv.org/abs/2211.12446), section 4 and figure 3; the step is
//! [`crate::sampler::coupled`].
//!
//! Both states begin as the picture and are walked back under the source's condition; both are kept, and
//! walked forth under the target's. Guidance has the same weight both ways, or the inversion would be
//! of another walk. Rounding grows by `(1 / mix)^2` a step: in f32 the picture comes back to some 1e-3
//! after 50 steps, in f64 to 1e-11.

use super::{Entry, Evaluations, Inversion, Inverted, Scene, Usual, reverse};
use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::run::Observer;
use crate::sampler::coupled::{self, Coupled};
use crate::spec::PartSpec;

pub(crate) const CARD: Card = Card {
    id: "edict",
    seam: Seam::Edit,
    title: "EDICT: Exact Diffusion Inversion via Coupled Transformations",
    source: "2211.12446",
    year: 2022,
    what: "exact inversion by two states, each stepped along the other's noise",
    aliases: &[],
    ledger: "edict",
    parts: &[&crate::sampler::coupled::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Edict::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of EDICT: those of its coupled states.
pub type Settings = coupled::Settings;

/// EDICT.
#[derive(Clone, Debug)]
pub struct Edict(Settings);

impl Edict {
    /// EDICT.
    ///
    /// # Errors
    ///
    /// As [`Coupled::new`].
    pub fn new(settings: Settings) -> Result<Self> {
        Coupled::new(settings.clone())?;
        Ok(Self(settings))
    }
}

impl Inversion for Edict {
    fn usual(&self) -> Usual {
        Usual { steps: 50, strength: 0.8, source_guidance: None }
    }

    fn sampler(&self) -> PartSpec {
        PartSpec::named("coupled").with("mix", self.0.mix)
    }

    fn evaluations(&self, walked: usize, source: usize, target: usize) -> Evaluations {
        Evaluations { invert: 2 * walked * source, walk: 2 * walked * target }
    }

    fn invert<'m>(&self, scene: Scene<'m>, observer: &mut dyn Observer) -> Result<Inverted<'m>> {
        if scene.levels[scene.first].alpha == 0.0 {
            let needs = "a start that holds some signal: a strength below 1";
            return Err(Error::unsupported("edict", needs));
        }
        reverse::inverted(scene, Box::new(Coupled::new(self.0.clone())?), observer)
    }
}
