//! PPAP: an ordinary classifier becomes one of noisy pictures by an adapter for each range of levels.
//!
//! Go et al., "Towards Practical Plug-and-Play Diffusion Models", 2022,
//! [arXiv:2212.05973](https://arxiv.org/abs/2212.05973), section 3.
//!
//! ```text
//! r(x) = log softmax(f_n(x))_y          n the range that the level of x falls in
//! ```
//!
//! The experts learn from the classifier itself on generated pictures, without labels
//! (`task = "experts"`). `classifier-guidance` follows them on the noisy state, at no evaluation of the
//! denoising network.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::reward::{Entry, Given, Likelihood, Recipe, Reward, Wants, weight};

pub(crate) const CARD: Card = Card {
    id: "ppap",
    seam: Seam::Reward,
    title: "Towards Practical Plug-and-Play Diffusion Models",
    source: "2212.05973",
    year: 2022,
    what: "a class under an ordinary classifier with an adapter for each range of levels",
    aliases: &[],
    ledger: "ppap",
    parts: &[&crate::reward::classifier::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Settings>()?.checked()?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of the experts' likelihood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder of the experts (`models/bench/fashion-ppap` of the repository); it has to be named.
    pub model: String,
    /// The class. The default is the one that each picture was asked for.
    pub class: Option<i64>,
    /// How much it counts beside other rewards. The default is 1.
    pub weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { model: String::new(), class: None, weight: 1.0 }
    }
}

impl Settings {
    fn checked(self) -> Result<Self> {
        weight("ppap", self.weight)?;
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
        let Some(experts) = given.classifier.clone().filter(|c| c.reads_noise()) else {
            let needs = "experts for noise levels, trained with `task = \"experts\"`";
            return Err(Error::unsupported("reward ppap", needs));
        };
        let classes = match (self.class, &given.classes) {
            (Some(class), _) => vec![class; rows],
            (None, Some(classes)) => classes.clone(),
            (None, None) => {
                let needs = "a class: the setting `class`, or a model with classes";
                return Err(Error::unsupported("reward ppap", needs));
            }
        };
        Ok(Arc::new(Likelihood::new(experts, classes)?))
    }
}
