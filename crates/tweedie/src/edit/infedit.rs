//! InfEdit: no inversion; the source's path is made, and what the network misses on it is known.
//!
//! Xu, Huang, Pan, Ma and Chai, "Inversion-Free Image Editing with Natural Language", 2023,
//! [arXiv:2312.04965](https://arxiv.org/abs/2312.04965), section 3 (denoising diffusion consistent models)
//! and Algorithm 2.
//!
//! The paper adds to the target's noise what the source's noise is off by; in estimates of the clean
//! sample that is
//!
//! ```text
//! x0_t = x0(x_t, target) + (picture - x0(x_s, source))
//! ```
//!
//! and both walks then step by DDIM with the same draws, the source's along the picture itself. With the
//! same condition on both sides the walks stay together and end at the picture, whatever `eta`. At
//! `eta = 1` a step forgets the state but for the estimate, as a consistency model's does.
//!
//! Of the attention control of section 4 the target has the source's attention over the first steps
//! ([`crate::tap::attention_control`]); the paper's third, "layout" walk is left out.

use serde::{Deserialize, Serialize};

use super::direct_inversion::Held;
use super::{
    Beside, Collecting, Entry, Evaluations, Inversion, Inverted, Scene, Usual, branches, share,
};
use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Cost, Denoiser, Pass};
use crate::error::Result;
use crate::level::Levels;
use crate::noise::{Recording, Silent, Tape, Twice};
use crate::run::{Observer, Parts, Run};
use crate::sampler::Ddim;
use crate::spec::PartSpec;
use crate::state::State;
use crate::tap::attention_control;

pub(crate) const CARD: Card = Card {
    id: "infedit",
    seam: Seam::Edit,
    title: "Inversion-Free Image Editing with Natural Language",
    source: "2312.04965",
    year: 2023,
    what: "no inversion: the target's estimate corrected by what the source's is known to miss",
    aliases: &["ddcm"],
    ledger: "infedit",
    parts: &[&crate::sampler::ddim::CARD, &crate::tap::attention_control::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Infedit>()?.checked()?)),
    defaults: defaults_of::<Infedit>,
    known_failures: &[],
};

/// InfEdit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Infedit {
    /// How much fresh noise a step draws, eta of DDIM, 0 to 1. The default, 1, is the paper's.
    pub eta: f64,
    /// The share of the steps, from the first on, in which words that stay have the source's
    /// cross-attention. The default, 0.7, is the paper's.
    pub cross: f64,
    /// The share of the steps in which self-attention is the source's. The default, 0.7, is the
    /// paper's.
    pub own: f64,
}

impl Default for Infedit {
    fn default() -> Self {
        Self { eta: 1.0, cross: 0.7, own: 0.7 }
    }
}

impl Infedit {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        share("infedit:eta", self.eta)?;
        share("infedit:cross", self.cross)?;
        share("infedit:own", self.own)?;
        Ok(self)
    }
}

impl Inversion for Infedit {
    fn usual(&self) -> Usual {
        Usual { steps: 15, strength: 1.0, source_guidance: Some(1.0) }
    }

    fn sampler(&self) -> PartSpec {
        PartSpec::named("ddim").with("eta", self.eta)
    }

    fn evaluations(&self, walked: usize, source: usize, target: usize) -> Evaluations {
        Evaluations { invert: 0, walk: walked * (source + target) }
    }

    fn invert<'m>(
        &self,
        mut scene: Scene<'m>,
        observer: &mut dyn Observer,
    ) -> Result<Inverted<'m>> {
        let ddim = Ddim { eta: self.eta, even: false };
        let (path, tape) = made(&mut scene, ddim.clone(), observer)?;
        let noise = Twice::new(Box::new(tape.play()));
        let mut parts = scene.parts(Box::new(ddim), Box::new(noise))?;
        parts.requests = branches::requests(&scene.requests);
        let both = State::cat(&[path[0].clone(), path[0].clone()])?;
        let run = Run::starting_at(parts, both, scene.first)?;
        let control = attention_control::Settings {
            cross: self.cross,
            own: self.own,
            ..attention_control::Settings::default()
        };
        let beside = Some(Beside { held: Held::Neither, known: Some(scene.x0.clone()), control });
        Ok(Inverted { run, scene, path, rest: None, beside, cost: Cost::default() })
    }
}

/// The source's path and the draws on it: a walk whose estimate is the picture, without a network.
fn made(
    scene: &mut Scene<'_>,
    ddim: Ddim,
    observer: &mut dyn Observer,
) -> Result<(Vec<State>, Tape)> {
    let endpoint = scene.source.cond.endpoint.clone();
    let at = Levels::One(scene.levels[scene.first]);
    let start = scene.process.perturb(&scene.x0, endpoint.as_ref(), &at, scene.noise.as_mut())?.0;
    let (picture, tape) = (Picture(scene.x0.clone()), Tape::new());
    let noise = std::mem::replace(&mut scene.noise, Box::new(Silent));
    let parts = Parts {
        model: &picture,
        process: scene.process,
        levels: scene.levels.clone(),
        sampler: Box::new(ddim),
        guides: Vec::new(),
        taps: Vec::new(),
        noise: Box::new(Recording::new(noise, &tape)),
        cond: Cond { endpoint, ..Cond::default() },
        requests: scene.requests.clone(),
    };
    let mut collecting = Collecting { path: vec![start.clone()], observer };
    Run::starting_at(parts, start, scene.first)?.finish(&mut collecting)?;
    Ok((collecting.path, tape))
}

/// Knows the clean samples.
struct Picture(State);

impl Denoiser for Picture {
    fn x0(&self, _x: &State, _at: &Levels, _cond: &Cond, _pass: &mut Pass) -> Result<State> {
        Ok(self.0.clone())
    }
}
