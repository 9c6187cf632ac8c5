//! DDIM's steps undone, each with the noise that the network finds where the step would land.
//!
//! Song, Meng and Ermon, "Denoising Diffusion Implicit Models", 2021,
//! [arXiv:2010.02502](https://arxiv.org/abs/2010.02502), section 4.3; for editing with guidance Mokady et
//! al., "Null-text Inversion", 2022, [arXiv:2211.09794](https://arxiv.org/abs/2211.09794), section 3.1.
//!
//! The noise at the unknown start of a step is taken for that at its end, told the level of the start
//! ([`crate::sampler::ddim`]). The error of a step is of second order in its length; guidance on the way
//! forth, where there was none on the way back, multiplies it. It is the baseline of the others.

use serde::{Deserialize, Serialize};

use super::{Entry, Evaluations, Inversion, Inverted, Scene, Usual, reverse};
use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::run::Observer;
use crate::sampler::Ddim;
use crate::spec::PartSpec;

pub(crate) const CARD: Card = Card {
    id: "ddim-inversion",
    seam: Seam::Edit,
    title: "Denoising Diffusion Implicit Models",
    source: "2010.02502",
    year: 2021,
    what: "DDIM's steps undone, with the noise found where each would land",
    aliases: &["ddim", "DDIMInverseScheduler"],
    ledger: "",
    parts: &[&crate::sampler::ddim::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<DdimInversion>()?)),
    defaults: defaults_of::<DdimInversion>,
    known_failures: &[(
        "reconstruction",
        "the noise of a step is read at its other end, and the error grows along the walk",
    )],
};

/// DDIM inversion. It has no settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DdimInversion {}

impl Inversion for DdimInversion {
    fn usual(&self) -> Usual {
        Usual { steps: 50, strength: 1.0, source_guidance: Some(1.0) }
    }

    fn sampler(&self) -> PartSpec {
        PartSpec::named("ddim")
    }

    fn evaluations(&self, walked: usize, source: usize, target: usize) -> Evaluations {
        Evaluations { invert: walked * source, walk: walked * target }
    }

    fn invert<'m>(&self, scene: Scene<'m>, observer: &mut dyn Observer) -> Result<Inverted<'m>> {
        reverse::inverted(scene, Box::new(Ddim::default()), observer)
    }
}
