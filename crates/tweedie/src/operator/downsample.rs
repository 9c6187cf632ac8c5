//! A picture at a smaller size: the mean of squares of pixels.

use burn::tensor::Tensor;

use crate::error::{Error, Result};
use crate::operator::{Linear, Operator};
use crate::state::State;

/// `y = ` the means of squares of `factor` by `factor` pixels.
#[derive(Clone, Copy, Debug)]
pub struct Downsample {
    factor: usize,
}

impl Downsample {
    /// By this factor.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a factor below 2.
    pub fn new(factor: usize) -> Result<Self> {
        if factor < 2 {
            return Err(Error::setting("downsample:factor", format!("{factor}, wanted 2 or more")));
        }
        Ok(Self { factor })
    }

    fn repeated(self, y: &State) -> Result<State> {
        let y = y.view::<4>()?;
        let [b, c, h, w] = y.dims();
        let f = self.factor;
        let y: Tensor<6> = y.reshape([b, c, h, 1, w, 1]).repeat(&[1, 1, 1, f, 1, f]);
        Ok(State::new(y.reshape([b, c, h * f, w * f])))
    }
}

impl Operator for Downsample {
    fn apply(&self, x: &State) -> Result<State> {
        let x = x.view::<4>()?;
        let [b, c, h, w] = x.dims();
        let f = self.factor;
        if h % f != 0 || w % f != 0 {
            return Err(Error::Shape {
                what: format!("a picture for means of {f} by {f} pixels"),
                wanted: vec![b, c, h - h % f, w - w % f],
                found: vec![b, c, h, w],
            });
        }
        let x: Tensor<6> = x.reshape([b, c, h / f, f, w / f, f]);
        Ok(State::new(x.mean_dim(3).mean_dim(5).reshape([b, c, h / f, w / f])))
    }

    fn linear(&self) -> Option<&dyn Linear> {
        Some(self)
    }
}

impl Linear for Downsample {
    fn adjoint(&self, y: &State) -> Result<State> {
        Ok(self.repeated(y)? * (1.0 / (self.factor * self.factor) as f64))
    }

    fn pseudo_inverse(&self, y: &State) -> Result<State> {
        self.repeated(y)
    }
}
