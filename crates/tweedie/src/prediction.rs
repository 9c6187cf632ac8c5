//! What a network's output means; the only place that converts between the meanings.
//!
//! With `x = alpha x0 + anchor y + sigma eps`:
//!
//! ```text
//! eps    the noise
//! x0     the clean sample
//! v      alpha eps - sigma x0                  (Salimans and Ho 2022)
//! flow   eps - x0                              (the velocity dx/dt of x = (1-t) x0 + t eps)
//! score  -eps / sigma                          (the gradient of the log density)
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::state::State;

/// What a network's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Prediction {
    /// The noise `eps`.
    #[default]
    Eps,
    /// The clean sample `x0`.
    X0,
    /// `alpha eps - sigma x0`.
    V,
    /// `eps - x0`.
    Flow,
    /// The score, `-eps / sigma`.
    Score,
}

impl Prediction {
    /// Every prediction.
    pub const ALL: [Self; 5] = [Self::Eps, Self::X0, Self::V, Self::Flow, Self::Score];

    /// Its name in specs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eps => "eps",
            Self::X0 => "x0",
            Self::V => "v",
            Self::Flow => "flow",
            Self::Score => "score",
        }
    }

    /// The prediction of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`].
    pub fn find(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|p| p.name() == name);
        found.ok_or_else(|| Error::unknown("prediction", name, Self::ALL.iter().map(|p| p.name())))
    }

    /// The clean sample that the output means, `x0 = a x + b output` with `(a, b)` from the level.
    ///
    /// `x` is without the second endpoint; see [`free_of_anchor`].
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the output does not determine it: `eps` and `score` at
    /// `alpha = 0`.
    pub fn x0(self, output: &State, x: &State, at: &Levels) -> Result<State> {
        self.check(at)?;
        if self == Self::X0 {
            return Ok(output.clone());
        }
        Ok(x.scaled(at, |l| self.x0_of(l).0) + output.scaled(at, |l| self.x0_of(l).1))
    }

    /// The output that means this clean sample: the inverse of [`Prediction::x0`].
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where `x` and `x0` do not determine it: anything but `x0` at
    /// `sigma = 0`.
    pub fn from_x0(self, x0: &State, x: &State, at: &Levels) -> Result<State> {
        if self == Self::X0 {
            return Ok(x0.clone());
        }
        if at.all().iter().any(|l| l.sigma == 0.0) {
            return Err(Error::unsupported(
                format!("prediction {}", self.name()),
                "noise: at sigma = 0 the clean sample does not determine it",
            ));
        }
        Ok(x.scaled(at, |l| self.of_x0(l).0) + x0.scaled(at, |l| self.of_x0(l).1))
    }

    /// The training target from the clean sample and the noise.
    #[must_use]
    pub fn target(self, x0: &State, eps: &State, at: &Levels) -> State {
        match self {
            Self::Eps => eps.clone(),
            Self::X0 => x0.clone(),
            Self::V => eps.scaled(at, |l| l.alpha) - x0.scaled(at, |l| l.sigma),
            Self::Flow => eps.clone() - x0.clone(),
            Self::Score => eps.scaled(at, |l| -1.0 / l.sigma),
        }
    }

    fn check(self, at: &Levels) -> Result<()> {
        let blind = |l: Level| match self {
            Self::Eps | Self::Score => l.alpha == 0.0,
            Self::X0 => false,
            Self::V => l.alpha == 0.0 && l.sigma == 0.0,
            Self::Flow => l.alpha + l.sigma == 0.0,
        };
        if at.all().into_iter().any(blind) {
            return Err(Error::unsupported(
                format!("prediction {}", self.name()),
                "signal: at alpha = 0 it does not determine the clean sample",
            ));
        }
        Ok(())
    }

    /// `(a, b)` of `x0 = a x + b output`.
    fn x0_of(self, l: Level) -> (f64, f64) {
        match self {
            Self::Eps => (1.0 / l.alpha, -l.sigma / l.alpha),
            Self::X0 => (0.0, 1.0),
            Self::V => {
                let norm = l.alpha * l.alpha + l.sigma * l.sigma;
                (l.alpha / norm, -l.sigma / norm)
            }
            Self::Flow => (1.0 / (l.alpha + l.sigma), -l.sigma / (l.alpha + l.sigma)),
            Self::Score => (1.0 / l.alpha, l.sigma * l.sigma / l.alpha),
        }
    }

    /// How much the output changes with the clean sample at fixed `x`: `b` of
    /// `output = a x + b x0`. What turns a weight of one error into a weight of the other.
    pub fn slope(self, level: Level) -> f64 {
        self.of_x0(level).1
    }

    /// `(a, b)` of `output = a x + b x0`.
    fn of_x0(self, l: Level) -> (f64, f64) {
        match self {
            Self::Eps => (1.0 / l.sigma, -l.alpha / l.sigma),
            Self::X0 => (0.0, 1.0),
            Self::V => (l.alpha / l.sigma, -(l.alpha * l.alpha + l.sigma * l.sigma) / l.sigma),
            Self::Flow => (1.0 / l.sigma, -(l.alpha + l.sigma) / l.sigma),
            Self::Score => (-1.0 / (l.sigma * l.sigma), l.alpha / (l.sigma * l.sigma)),
        }
    }
}

/// The noise in `x`, given the clean sample: `(x - alpha x0) / sigma`.
///
/// `x` is without the second endpoint. At `sigma = 0` there is none and the result is zero.
#[must_use]
pub fn eps_of(x: &State, x0: &State, at: Level) -> State {
    if at.sigma == 0.0 {
        return x.zeros_like();
    }
    (x.clone() - x0.clone() * at.alpha) * (1.0 / at.sigma)
}

/// `x` without the second endpoint's share, `x - anchor y`.
#[must_use]
pub fn free_of_anchor(x: &State, endpoint: Option<&State>, at: &Levels) -> State {
    match endpoint {
        Some(y) => x.clone() - y.scaled(at, |l| l.anchor),
        None => x.clone(),
    }
}

/// `x` with the second endpoint's share: the inverse of [`free_of_anchor`].
#[must_use]
pub fn with_anchor(x: State, endpoint: Option<&State>, at: &Levels) -> State {
    match endpoint {
        Some(y) => x + y.scaled(at, |l| l.anchor),
        None => x,
    }
}
