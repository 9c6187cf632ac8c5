//! Edit-friendly inversion: the noises between states that were each noised by themselves.
//!
//! Huberman-Spiegelglas, Kulikov and Michaeli, "An Edit Friendly DDPM Noise Space: Inversion and
//! Manipulations", 2023, [arXiv:2304.06140](https://arxiv.org/abs/2304.06140), section 3.2, equation 6 and
//! Algorithm 1.
//!
//! ```text
//! x_t = alpha_t x0 + sigma_t n_t      n_t independent of each other
//! z_t = (x_{t-1} - mean(x_t, source)) / std_t
//! ```
//!
//! Such noises are larger than a sampler's own and opposed from step to step; they carry the picture's
//! structure, and turned round they turn the picture round. The walk begins at `x_t` of the strength. At
//! `eta = 1`, the default, DDIM's step is DDPM's; the paper's code at other `eta` has a direction term of
//! another length than DDIM's, which is used here. That code sets the last noise to zero and so leaves a
//! small error; here what the last step leaves out is added, and the picture comes back whole.

use serde::{Deserialize, Serialize};

use super::{Entry, Evaluations, Inversion, Inverted, Scene, Usual, taped};
use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::run::Observer;
use crate::sampler::Ddim;
use crate::sampler::encode::Path;
use crate::spec::PartSpec;

pub(crate) const CARD: Card = Card {
    id: "edit-friendly",
    seam: Seam::Edit,
    title: "An Edit Friendly DDPM Noise Space: Inversion and Manipulations",
    source: "2304.06140",
    year: 2023,
    what: "the noises of a stochastic sampler between states noised by themselves",
    aliases: &["ddpm-inversion", "DDPMInversion"],
    ledger: "edit-friendly",
    parts: &[&crate::sampler::ddim::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<EditFriendly>()?.checked()?)),
    defaults: defaults_of::<EditFriendly>,
    known_failures: &[],
};

/// Edit-friendly inversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EditFriendly {
    /// How much noise a step draws, eta of DDIM, above 0. The default, 1, is the paper's.
    pub eta: f64,
}

impl Default for EditFriendly {
    fn default() -> Self {
        Self { eta: 1.0 }
    }
}

impl EditFriendly {
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
        Err(Error::setting("edit-friendly:eta", why))
    }
}

impl Inversion for EditFriendly {
    fn usual(&self) -> Usual {
        // 100 steps of which 36 are skipped.
        Usual { steps: 100, strength: 0.64, source_guidance: Some(3.5) }
    }

    fn sampler(&self) -> PartSpec {
        PartSpec::named("ddim").with("eta", self.eta)
    }

    fn evaluations(&self, walked: usize, source: usize, target: usize) -> Evaluations {
        Evaluations { invert: walked * source, walk: walked * target }
    }

    fn invert<'m>(&self, scene: Scene<'m>, observer: &mut dyn Observer) -> Result<Inverted<'m>> {
        let ddim = Ddim { eta: self.eta, even: false };
        taped::inverted(scene, Box::new(ddim), Path::Independent, observer)
    }
}
