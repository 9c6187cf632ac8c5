//! How well a sample measures as a given picture does: seen in part, smaller, or without colours.
//!
//! Nair et al., "Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image
//! Synthesis", 2023, [arXiv:2310.00224](https://arxiv.org/abs/2310.00224), section 3.2.
//!
//! ```text
//! r(x) = -|A x - y|^2 / 2        nearest best: x - A^+ (A x - y)
//! ```

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::operator::{Downsample, Grey, Mask, Operator};
use crate::reward::{Entry, Given, Recipe, Reward, Wants, weight};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "measurement",
    seam: Seam::Reward,
    title: "Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image Synthesis",
    source: "2310.00224",
    year: 2023,
    what: "how well a sample measures as a given picture does",
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

/// What is measured of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The picture at a smaller size.
    #[default]
    Downsample,
    /// The picture without its colours.
    Grey,
    /// The picture but for a hole.
    Hole,
}

/// The settings of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is measured. The default is `downsample`.
    pub of: Kind,
    /// How many times smaller, for `downsample`. The default is 4.
    pub factor: usize,
    /// The hole, for `hole`: left, top, right and bottom as shares of the picture. The default is the
    /// square in the middle.
    pub hole: [f64; 4],
    /// How much it counts beside other rewards. The default is 1.
    pub weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { of: Kind::Downsample, factor: 4, hole: [0.25, 0.25, 0.75, 0.75], weight: 1.0 }
    }
}

impl Settings {
    fn checked(self) -> Result<Self> {
        weight("measurement", self.weight)?;
        Downsample::new(self.factor)?;
        let [left, top, right, bottom] = self.hole;
        let inside = self.hole.iter().all(|s| (0.0..=1.0).contains(s));
        if !(inside && left < right && top < bottom) {
            let why =
                format!("{:?}, wanted shares from left and top to right and bottom", self.hole);
            return Err(Error::setting("measurement:hole", why));
        }
        Ok(self)
    }

    fn operator(&self, [channels, height, width]: [usize; 3]) -> Result<Arc<dyn Operator>> {
        Ok(match self.of {
            Kind::Downsample => Arc::new(Downsample::new(self.factor)?),
            Kind::Grey => Arc::new(Grey { channels }),
            Kind::Hole => {
                let [left, top, right, bottom] = self.hole;
                let inside = |i: usize, of: usize, from: f64, to: f64| {
                    let middle = (i as f64 + 0.5) / of as f64;
                    from <= middle && middle < to
                };
                let seen: Vec<bool> = (0..channels * height * width)
                    .map(|i| {
                        let (y, x) = (i / width % height, i % width);
                        !(inside(x, width, left, right) && inside(y, height, top, bottom))
                    })
                    .collect();
                Arc::new(Mask::new(&seen)?)
            }
        })
    }
}

impl Recipe for Settings {
    fn wants(&self) -> Wants<'_> {
        Wants { picture: true, ..Wants::default() }
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn reward(&self, _rows: usize, given: &Given) -> Result<Arc<dyn Reward>> {
        let Some(picture) = &given.picture else {
            return Err(Error::unsupported("reward measurement", "a picture that is measured"));
        };
        let [_, channels, height, width] = picture.view::<4>()?.dims();
        let operator = self.operator([channels, height, width])?;
        let measured = operator.apply(picture)?;
        Ok(Arc::new(Measurement::new(operator, measured)))
    }
}

/// An operator and what was measured, a row each.
#[derive(Clone, Debug)]
pub struct Measurement {
    operator: Arc<dyn Operator>,
    measured: State,
}

impl Measurement {
    /// Of `y = A(x)`.
    pub fn new(operator: Arc<dyn Operator>, measured: State) -> Self {
        Self { operator, measured }
    }

    fn miss(&self, x: &State) -> Result<State> {
        let seen = self.operator.apply(x)?;
        if seen.shape() != self.measured.shape() {
            return Err(Error::Shape {
                what: "what is measured of a sample".into(),
                wanted: self.measured.shape().to_vec(),
                found: seen.shape().to_vec(),
            });
        }
        Ok(seen.zip(&self.measured, |a, y| {
            let y = if a.is_autodiff() { y.autodiff() } else { y };
            a - y
        }))
    }
}

impl Reward for Measurement {
    fn score(&self, x: &State, _at: &Levels) -> Result<Tensor<2>> {
        let miss = self.miss(x)?.rows_tensor()?;
        let rows = miss.dims()[0];
        Ok((miss.clone() * miss).sum_dim(1).reshape([rows, 1]) * -0.5)
    }

    fn projected(&self, x0: &State) -> Result<Option<State>> {
        let Some(linear) = self.operator.linear() else { return Ok(None) };
        Ok(Some(x0.clone() - linear.pseudo_inverse(&self.miss(x0)?)?))
    }

    fn select(&self, rows: &[usize]) -> Arc<dyn Reward> {
        Arc::new(Self { operator: self.operator.clone(), measured: self.measured.select(rows) })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::level::Level;

    #[test]
    fn a_projection_scores_best_and_keeps_the_rest() {
        let picture: Vec<f64> = (0..16).map(|i| (f64::from(i) * 0.7).sin()).collect();
        let picture = State::from_f64(picture, &[1, 1, 4, 4], &Device::flex()).unwrap();
        let given = Given { picture: Some(picture.clone()), ..Given::default() };
        for of in [Kind::Downsample, Kind::Hole, Kind::Grey] {
            let settings = Settings { of, factor: 2, ..Settings::default() };
            let reward = settings.reward(1, &given).unwrap();
            let x = picture.map(|p| p * -1.0 + 0.3);
            let best = reward.projected(&x).unwrap().unwrap();
            let score = |x: &State| {
                let found = reward.score(x, &Levels::One(Level::CLEAN)).unwrap();
                found.into_data_as::<f64>().iter::<f64>().next().unwrap()
            };
            assert!(score(&x) < -1e-3 && score(&best) > -1e-20, "{of:?} {}", score(&best));
            let again = reward.projected(&best).unwrap().unwrap();
            assert!((again - best.clone()).square_norms()[0] < 1e-20);
            if of == Kind::Hole {
                // Inside the hole nothing is known and nothing is changed.
                let (a, b) = (best.to_rows().concat(), x.to_rows().concat());
                assert_eq!([a[5], a[6], a[9], a[10]], [b[5], b[6], b[9], b[10]]);
            }
        }
        assert!(Settings { factor: 1, ..Settings::default() }.checked().is_err());
        assert!(Settings { hole: [0.5, 0.0, 0.2, 1.0], ..Settings::default() }.checked().is_err());
    }
}
