//! A finite set of points as the data: the denoiser that a network would be if it learnt its
//! training set by heart.
//!
//! ```text
//! E[x0 | x] = sum_i softmax_i(-|x - alpha x_i|^2 / (2 sigma^2)) x_i
//! ```

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::oracle::{coefficient, constant, like, rows};
use crate::state::State;

/// The most differences that one call holds at once; rows are taken in turns above that.
const MOST: usize = 1 << 24;

/// A finite set of points, each as likely as the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Empirical {
    points: Vec<f64>,
    dim: usize,
}

impl Empirical {
    /// The given points.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where there is none; [`Error::Shape`] where they differ in dimension.
    pub fn new(points: &[Vec<f64>]) -> Result<Self> {
        let dim = points.first().map_or(0, Vec::len);
        if dim == 0 {
            return Err(Error::setting("points", "wanted at least one, of at least one number"));
        }
        if let Some(odd) = points.iter().find(|p| p.len() != dim) {
            return Err(Error::Shape {
                what: "points of a data set".into(),
                wanted: vec![dim],
                found: vec![odd.len()],
            });
        }
        Ok(Self { points: points.concat(), dim })
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.points.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Never: a data set has a point.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    fn part(&self, flat: Tensor<2>, at: &Levels) -> Tensor<2> {
        let (batch, count) = (flat.dims()[0], self.len());
        let points: Tensor<3> = constant(self.points.clone(), [1, count, self.dim], &flat);
        let alpha = coefficient(at, &flat, |l| l.alpha);
        // Without noise the nearest point takes all; the floor keeps the quotient a number.
        let noise = coefficient(at, &flat, |l| (2.0 * l.sigma * l.sigma).max(1e-30));
        let off = flat.reshape([batch, 1, self.dim]) - points.clone() * alpha;
        let far = (off.clone() * off).sum_dim(2);
        let nearest = far.clone().min_dim(1);
        let shares = softmax((nearest - far) / noise, 1);
        (points * shares).sum_dim(1).reshape([batch, self.dim])
    }
}

impl Denoiser for Empirical {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let flat = rows(x, at, cond, self.dim)?;
        pass.count_forward();
        let batch = flat.dims()[0];
        let at_once = MOST.checked_div(self.points.len()).unwrap_or(1).max(1);
        let mut parts = Vec::new();
        let mut start = 0;
        while start < batch {
            let end = (start + at_once).min(batch);
            let levels = at.select(&(start..end).collect::<Vec<_>>());
            parts.push(self.part(flat.clone().slice([start..end, 0..self.dim]), &levels));
            start = end;
        }
        Ok(like(x, &Tensor::cat(parts, 0)))
    }
}
