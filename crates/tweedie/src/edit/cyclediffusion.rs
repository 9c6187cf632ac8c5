//! CycleDiffusion: the noises that a stochastic sampler would have drawn on its way to the picture.
//!
//! Wu and De la Torre, "Unifying Diffusion Models' Latent Space, with Applications to CycleDiffusion and
//! Guidance", 2022, [arXiv:2210.05559](https://arxiv.org/abs/2210.05559), section 3.2 (DPM-Encoder) and
//! Algorithm 1.
//!
//! ```text
//! x_T = alpha_T x0 + sigma_T n        x_{t-1} ~ q(x_{t-1} | x_t, x0)        x_0 = x0
//! z_t = (x_{t-1} - mean(x_t, source)) / std_t
//! ```
//!
//! with the posterior of DDIM's process at `eta`. The walk under the target's condition draws the same
//! `x_T` and `z_t`. The source's side has no guidance in the paper, the target's 1 to 5. A last step onto
//! clean data draws nothing; what it leaves out of the picture is added as it is, which is what a
//! vanishing `std_t` comes to. The paper tries several strengths and seeds and ranks what comes out;
//! here that is the caller's.

use serde::{Deserialize, Serialize};

use super::{Entry, Evaluations, Inversion, Inverted, Scene, Usual, taped};
use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::run::Observer;
use crate::sampler::Ddim;
use crate::sampler::encode::Path;
use crate::spec::PartSpec;

pub(crate) const CARD: Card = Card {
    id: "cyclediffusion",
    seam: Seam::Edit,
    title: "Unifying Diffusion Models' Latent Space, with Applications to CycleDiffusion and Guidance",
    source: "2210.05559",
    year: 2022,
    what: "the noises of a stochastic sampler on a drawn path to the picture",
    aliases: &["dpm-encoder"],
    ledger: "cyclediffusion",
    parts: &[&crate::sampler::ddim::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Cyclediffusion>()?.checked()?)),
    defaults: defaults_of::<Cyclediffusion>,
    known_failures: &[],
};

/// CycleDiffusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cyclediffusion {
    /// How much noise a step draws, eta of DDIM, above 0. The default, 0.1, is the paper's for
    /// text-to-image models.
    pub eta: f64,
}

impl Default for Cyclediffusion {
    fn default() -> Self {
        Self { eta: 0.1 }
    }
}

impl Cyclediffusion {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`]: at 0 there is no noise to solve for.
    pub fn checked(self) -> Result<Self> {
        if self.eta > 0.0 && self.eta <= 1.0 {
            return Ok(self);
        }
        let why = format!("{}, wanted above 0, so that there is noise, and at most 1", self.eta);
        Err(Error::setting("cyclediffusion:eta", why))
    }
}

impl Inversion for Cyclediffusion {
    fn usual(&self) -> Usual {
        // 99 steps of which 15 to 50 are skipped; the middle.
        Usual { steps: 99, strength: 0.67, source_guidance: Some(1.0) }
    }

    fn sampler(&self) -> PartSpec {
        PartSpec::named("ddim").with("eta", self.eta)
    }

    fn evaluations(&self, walked: usize, source: usize, target: usize) -> Evaluations {
        Evaluations { invert: walked * source, walk: walked * target }
    }

    fn invert<'m>(&self, scene: Scene<'m>, observer: &mut dyn Observer) -> Result<Inverted<'m>> {
        let ddim = Ddim { eta: self.eta, even: false };
        taped::inverted(scene, Box::new(ddim), Path::Posterior, observer)
    }
}
