//! Direct inversion: the source walks beside the target, held on its inverted path.
//!
//! Ju et al., "Direct Inversion: Boosting Diffusion-based Editing with 3 Lines of Code", 2023,
//! [arXiv:2310.01506](https://arxiv.org/abs/2310.01506), Algorithm 1; with the attention control of Hertz
//! et al. 2022 ([`crate::tap::attention_control`]).
//!
//! DDIM inversion gives a path from the picture to noise. On the way forth the source's walk would leave
//! it; after each step what is missing is added to the source's state and not to the target's. So the
//! attention that the source lends is that of a walk which ends at the picture, and the target is free.
//!
//! Adding what is missing is putting the state back on the path. The paper walks the source with the
//! target's guidance; its state does not hang on that, and its attention is lent from the conditional
//! estimate alone, so that here the source is asked without guidance and half as often.

use serde::{Deserialize, Serialize};

use super::{
    Beside, Entry, Evaluations, Inversion, Inverted, Scene, Usual, branches, reverse, share,
};
use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::noise::Silent;
use crate::run::{Observer, Run};
use crate::sampler::Ddim;
use crate::spec::PartSpec;
use crate::state::State;
use crate::tap::attention_control;

pub(crate) const CARD: Card = Card {
    id: "direct-inversion",
    seam: Seam::Edit,
    title: "Direct Inversion: Boosting Diffusion-based Editing with 3 Lines of Code",
    source: "2310.01506",
    year: 2023,
    what: "the source walks beside the target, held on its inverted path, and lends its attention",
    aliases: &["pnp-inversion"],
    ledger: "direct-inversion",
    parts: &[&super::ddim_inversion::CARD, &crate::tap::attention_control::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<DirectInversion>()?.checked()?)),
    defaults: defaults_of::<DirectInversion>,
    known_failures: &[],
};

/// Direct inversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectInversion {
    /// The share of the steps, from the first on, in which words that stay have the source's
    /// cross-attention. The default, 0.4, is the paper's.
    pub cross: f64,
    /// The share of the steps in which self-attention is the source's. The default, 0.6, is the
    /// paper's.
    pub own: f64,
    /// Which walk gets what the source is off its path by. The default, the source alone, is the
    /// paper's; the others are what it compares with.
    pub held: Held,
}

/// Which walk gets what the source's is off the inverted path by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// The source's.
    #[default]
    Source,
    /// The source's and the target's.
    Both,
    /// None: DDIM inversion, with the attention lent as the source's walk has it.
    Neither,
}

impl Default for DirectInversion {
    fn default() -> Self {
        Self { cross: 0.4, own: 0.6, held: Held::Source }
    }
}

impl DirectInversion {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        share("direct-inversion:cross", self.cross)?;
        share("direct-inversion:own", self.own)?;
        Ok(self)
    }
}

impl Inversion for DirectInversion {
    fn usual(&self) -> Usual {
        Usual { steps: 50, strength: 1.0, source_guidance: Some(1.0) }
    }

    fn sampler(&self) -> PartSpec {
        PartSpec::named("ddim")
    }

    fn evaluations(&self, walked: usize, source: usize, target: usize) -> Evaluations {
        Evaluations { invert: walked * source, walk: walked * (source + target) }
    }

    fn invert<'m>(&self, scene: Scene<'m>, observer: &mut dyn Observer) -> Result<Inverted<'m>> {
        let (_, path, cost) = reverse::back(&scene, Box::new(Ddim::default()), observer)?;
        let mut parts = scene.parts(Box::new(Ddim::default()), Box::new(Silent))?;
        parts.requests = branches::requests(&scene.requests);
        let both = State::cat(&[path[0].clone(), path[0].clone()])?;
        let run = Run::starting_at(parts, both, scene.first)?;
        let control = attention_control::Settings {
            cross: self.cross,
            own: self.own,
            ..attention_control::Settings::default()
        };
        let beside = Some(Beside { held: self.held, known: None, control });
        Ok(Inverted { run, scene, path, rest: None, beside, cost })
    }
}
