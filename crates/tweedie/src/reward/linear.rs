//! A weighted sum of the sample's numbers: brightness, a coordinate, a direction.
//!
//! Esscher, "On the probability function in the collective theory of risk", Skandinavisk
//! Aktuarietidskrift 15 (1932): with it a law `p` becomes `p exp(lambda a . x)`, which is known in
//! closed form for mixtures of Gaussians.
//!
//! ```text
//! r(x) = a . x
//! ```

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::reward::{Entry, Given, Recipe, Reward, weight};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "linear",
    seam: Seam::Reward,
    title: "On the probability function in the collective theory of risk",
    source: "Esscher, Skandinavisk Aktuarietidskrift 15, 1932",
    year: 1932,
    what: "a weighted sum of the sample's numbers, such as its brightness",
    aliases: &["brightness"],
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

/// The settings of a weighted sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The weights, repeated to the length of the sample and divided by how often they are. The
    /// default, 1, is the mean of all numbers.
    pub along: Vec<f64>,
    /// How much it counts beside other rewards. The default is 1.
    pub weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { along: vec![1.0], weight: 1.0 }
    }
}

impl Settings {
    fn checked(self) -> Result<Self> {
        weight("linear", self.weight)?;
        if self.along.is_empty() || self.along.iter().any(|a| !a.is_finite()) {
            return Err(Error::setting("linear:along", "wanted finite numbers, at least one"));
        }
        Ok(self)
    }
}

impl Recipe for Settings {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn reward(&self, _rows: usize, _given: &Given) -> Result<Arc<dyn Reward>> {
        Ok(Arc::new(Linear::new(self.along.clone())))
    }
}

/// A weighted sum of the sample's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    along: Vec<f64>,
}

impl Linear {
    /// With these weights, repeated to the length of the sample and divided by how often they are.
    pub fn new(along: Vec<f64>) -> Self {
        Self { along }
    }
}

impl Reward for Linear {
    fn score(&self, x: &State, _at: &Levels) -> Result<Tensor<2>> {
        let flat = x.rows_tensor()?;
        let [rows, width] = flat.dims();
        let times = width / self.along.len().max(1);
        if times * self.along.len() != width || width == 0 {
            return Err(Error::Shape {
                what: "weights of the reward `linear`".into(),
                wanted: vec![width],
                found: vec![self.along.len()],
            });
        }
        let along: Vec<f64> = self.along.iter().map(|a| a / times as f64).collect();
        let data = TensorData::new(along.repeat(times), [1, width]);
        let device = flat.device();
        let along = Tensor::<2>::from_data(data, (&device, flat.dtype()));
        Ok((flat * along).sum_dim(1).reshape([rows, 1]))
    }

    fn select(&self, _rows: &[usize]) -> Arc<dyn Reward> {
        Arc::new(self.clone())
    }
}
