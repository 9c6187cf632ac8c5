//! Steered diffusion: the estimate is brought to the measurement, and the step is taken from there.
//!
//! Nair et al., "Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image
//! Synthesis", 2023, [arXiv:2310.00224](https://arxiv.org/abs/2310.00224), Algorithm 1.
//!
//! ```text
//! x0' = x0 - A^+ (A x0 - y)                    a linear measurement
//! x0' = x0 + scale sigma grad_x r(x0(x))       any other reward, through the network
//! eps' follows from the state and x0'
//! ```
//!
//! A projection costs no evaluation, a gradient a backward one. The paper multiplies the gradient by the
//! noise of the next level; a guide knows that of its own.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::derivative;
use crate::error::{Error, Result};
use crate::guide::push::followed;
use crate::guide::{Entry, Guide, number};
use crate::level::{Level, Levels};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "steered-diffusion",
    seam: Seam::Guide,
    title: "Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image Synthesis",
    source: "2310.00224",
    year: 2023,
    what: "the estimate brought to a measurement, or along a reward's gradient",
    aliases: &[],
    ledger: "steered-diffusion",
    parts: &[&crate::reward::measurement::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<SteeredDiffusion>()?.checked()?)),
    defaults: defaults_of::<SteeredDiffusion>,
    known_failures: &[],
};

/// Steered diffusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SteeredDiffusion {
    /// How far along the gradient, where the reward has no projection; the weights of rewards are the
    /// paper's lambda. The default is 1.
    pub scale: f64,
}

impl Default for SteeredDiffusion {
    fn default() -> Self {
        Self { scale: 1.0 }
    }
}

impl SteeredDiffusion {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        number("steered-diffusion:scale", self.scale)?;
        Ok(self)
    }
}

impl Guide for SteeredDiffusion {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let reward = followed("steered-diffusion", cond)?;
        if reward.reads_noise() {
            return Err(Error::unsupported("steered-diffusion", "a reward of clean samples"));
        }
        if reward.projected(&x.zeros_like())?.is_some() {
            let x0 = model.x0(x, at, cond, pass)?;
            return Ok(reward.projected(&x0)?.unwrap_or(x0));
        }
        if !reward.is_differentiable() {
            let needs = "a reward with a gradient: `classifier`, `linear` or `measurement`";
            return Err(Error::unsupported("steered-diffusion", needs));
        }
        let clean = Levels::One(Level::CLEAN);
        let (x0, slope) =
            derivative::gradient(model, x, at, cond, pass, |x0| reward.score(x0, &clean))?;
        Ok(x0 + slope.scaled(at, |l| l.sigma) * self.scale)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}
