//! The log likelihood of a class under a classifier.
//!
//! Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
//! [arXiv:2105.05233](https://arxiv.org/abs/2105.05233), section 4.
//!
//! ```text
//! r(x) = log softmax(f(x))_y
//! ```
//!
//! The classifier may be an ordinary one, which reads estimates of the clean sample, or one that was
//! taught on noisy pictures, which reads states at their levels.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::reward::{Entry, Given, Recipe, Reward, Wants, weight};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "classifier",
    seam: Seam::Reward,
    title: "Diffusion Models Beat GANs on Image Synthesis",
    source: "2105.05233",
    year: 2021,
    what: "the log likelihood of a class under a classifier",
    aliases: &[],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Settings>()?.checked()?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// A network that tells classes apart.
pub trait Classifies: Debug + Send + Sync {
    /// The logits, `[batch, classes]`, on the tape of `x` where it is tracked.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the state does not fit.
    fn logits(&self, x: &State, at: &Levels) -> Result<Tensor<2>>;

    /// How many classes there are.
    fn classes(&self) -> usize;

    /// Whether it was taught on noisy states, and wants them with their levels.
    fn reads_noise(&self) -> bool {
        false
    }
}

/// What a classifier says of some rows, and what was asked.
#[derive(Clone, Debug)]
pub struct Classified {
    /// The logits, `[batch, classes]`.
    pub logits: Tensor<2>,
    /// The asked class of each row.
    pub classes: Vec<i64>,
}

impl Classified {
    /// The log of `exp(own f_y) / sum exp(all f)`, a number a row: the log likelihood where both
    /// temperatures are 1, the joint `f_y` alone where `all` is 0 (but for a constant).
    #[must_use]
    pub fn log_likelihood(&self, own: f64, all: f64) -> Tensor<2> {
        let count = self.classes.len();
        let data = TensorData::new(self.classes.clone(), [count, 1]);
        let device = self.logits.device();
        let index = Tensor::<2, Int>::from_data(data, &device);
        let asked = self.logits.clone().gather(1, index) * own;
        let scaled = self.logits.clone() * all;
        let most = scaled.clone().max_dim(1).detach();
        asked - (scaled - most.clone()).exp().sum_dim(1).log() - most
    }
}

/// The settings of a class's likelihood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The classifier: `builtin:NAME` or a folder. The default is `builtin:fashion-features`, so that
    /// `builtin:fashion-judge` stays a judge who took no part.
    pub model: String,
    /// The class. The default is the one that each picture was asked for.
    pub class: Option<i64>,
    /// How much it counts beside other rewards. The default is 1.
    pub weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { model: "builtin:fashion-features".into(), class: None, weight: 1.0 }
    }
}

impl Settings {
    fn checked(self) -> Result<Self> {
        weight("classifier", self.weight)?;
        Ok(self)
    }
}

impl Recipe for Settings {
    fn wants(&self) -> Wants<'_> {
        Wants { classifier: Some(&self.model), ..Wants::default() }
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn reward(&self, rows: usize, given: &Given) -> Result<Arc<dyn Reward>> {
        let Some(classifier) = given.classifier.clone() else {
            return Err(Error::unsupported("reward classifier", "a classifier"));
        };
        let classes = match (self.class, &given.classes) {
            (Some(class), _) => vec![class; rows],
            (None, Some(classes)) => classes.clone(),
            (None, None) => {
                let needs = "a class: the setting `class`, or a model with classes";
                return Err(Error::unsupported("reward classifier", needs));
            }
        };
        Ok(Arc::new(Likelihood::new(classifier, classes)?))
    }
}

/// The log likelihood of a class a row.
#[derive(Clone, Debug)]
pub struct Likelihood {
    classifier: Arc<dyn Classifies>,
    classes: Vec<i64>,
}

impl Likelihood {
    /// Of these classes, one a row.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a class that the classifier does not have.
    pub fn new(classifier: Arc<dyn Classifies>, classes: Vec<i64>) -> Result<Self> {
        let count = classifier.classes() as i64;
        if let Some(bad) = classes.iter().find(|c| !(0..count).contains(*c)) {
            let why = format!("{bad}, the classifier has 0 to {}", count - 1);
            return Err(Error::setting("classifier:class", why));
        }
        Ok(Self { classifier, classes })
    }
}

impl Reward for Likelihood {
    fn score(&self, x: &State, at: &Levels) -> Result<Tensor<2>> {
        let logits = self.classifier.logits(x, at)?;
        Ok(Classified { logits, classes: self.classes.clone() }.log_likelihood(1.0, 1.0))
    }

    fn reads_noise(&self) -> bool {
        self.classifier.reads_noise()
    }

    fn classified(&self, x: &State, at: &Levels) -> Result<Option<Classified>> {
        let logits = self.classifier.logits(x, at)?;
        Ok(Some(Classified { logits, classes: self.classes.clone() }))
    }

    fn select(&self, rows: &[usize]) -> Arc<dyn Reward> {
        let classes = rows.iter().map(|&r| self.classes[r]).collect();
        Arc::new(Self { classifier: self.classifier.clone(), classes })
    }
}

/// Log of the softmax over classes; shared with what learns from a classifier.
pub fn log_softmax(logits: Tensor<2>) -> Tensor<2> {
    activation::log_softmax(logits, 1)
}
