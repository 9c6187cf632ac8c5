//! EluCD: an ordinary classifier guides well where it looks at the estimate, and smoothly.
//!
//! Ma et al., "Elucidating The Design Space of Classifier-Guided Diffusion Generation", 2023,
//! [arXiv:2310.11311](https://arxiv.org/abs/2310.11311), sections 3.2 to 3.4.
//!
//! ```text
//! g    = grad of log [exp(own f_y(x0)) / sum exp(all f(x0))]          at x0, not through the network
//! x_t' = x_t + scale (Sigma + gamma Sigma_max sin(pi t)) g            after the step
//! ```
//!
//! `Sigma` is the variance of the ancestral step from `s` to `t`, `sigma_t^2 (1 - c^2)` with `c` as in
//! DDIM; `Sigma_max`, the largest of a run, is `most / steps`. The authors smooth ReLUs to softplus; a
//! classifier of SiLUs, as this library's are, is smooth as it is. The estimate is that of the guides
//! inside.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::push::{Push, followed};
use crate::guide::{Entry, Guide, number};
use crate::level::{Level, Levels};
use crate::reward::slope;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "elucd",
    seam: Seam::Guide,
    title: "Elucidating The Design Space of Classifier-Guided Diffusion Generation",
    source: "2310.11311",
    year: 2023,
    what: "an ordinary classifier on the estimate, with its joint likelihood favoured",
    aliases: &[],
    ledger: "elucd",
    parts: &[&crate::reward::classifier::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Elucd::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of EluCD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How strongly the classifier counts. The default, 1, is the paper's.
    pub scale: f64,
    /// What the asked class's logit is multiplied by, tau_1. The default, 1, is the paper's.
    pub own: f64,
    /// What all logits are multiplied by beneath it, tau_2. The default, 0.5, is the paper's.
    pub all: f64,
    /// How much is added around the middle of the run. The default, 0.3, is the paper's.
    pub gamma: f64,
    /// The largest variance of a step, times the count of steps. The default, 20, is that of DDPM's
    /// path (0.02 of 1000).
    pub most: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { scale: 1.0, own: 1.0, all: 0.5, gamma: 0.3, most: 20.0 }
    }
}

/// EluCD.
#[derive(Clone, Debug)]
pub struct Elucd {
    settings: Settings,
    push: Push,
    steps: usize,
}

impl Elucd {
    /// A guide.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        let s = &settings;
        for (key, value) in [
            ("scale", s.scale),
            ("own", s.own),
            ("all", s.all),
            ("gamma", s.gamma),
            ("most", s.most),
        ] {
            number(&format!("elucd:{key}"), value)?;
        }
        Ok(Self { settings, push: Push::default(), steps: 1 })
    }

    /// How far a step goes along the gradient.
    fn reach(&self, from: Level, to: Level) -> f64 {
        let c = (from.lambda() - to.lambda()).exp();
        let variance = to.sigma * to.sigma * (1.0 - c * c);
        let most = (self.settings.most / self.steps.max(1) as f64).min(1.0);
        let middle = (std::f64::consts::PI * from.t).sin();
        self.settings.scale * (variance + self.settings.gamma * most * middle)
    }
}

impl Guide for Elucd {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let reward = followed("elucd", cond)?;
        let none =
            || Error::unsupported("elucd", "a reward that is an ordinary classifier: `classifier`");
        if reward.reads_noise() {
            return Err(none());
        }
        let x0 = model.x0(x, at, cond, pass)?;
        if self.push.is_open() {
            self.steps = pass.rows.first().map_or(1, |row| row.steps);
            let clean = Levels::One(Level::CLEAN);
            let along = slope("elucd", &x0, |x0| {
                let seen = reward.classified(x0, &clean)?.ok_or_else(none)?;
                Ok(seen.log_likelihood(self.settings.own, self.settings.all))
            })?;
            self.push.keep(at, along);
        }
        Ok(x0)
    }

    fn settled(&mut self, from: Level, to: Level, after: State) -> Result<State> {
        match self.push.take("elucd", from, &after)? {
            // The last step ends at the estimate.
            Some(along) if to.sigma > 0.0 => Ok(after + along * self.reach(from, to)),
            _ => Ok(after),
        }
    }

    fn reset(&mut self) {
        self.push.clear();
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}
