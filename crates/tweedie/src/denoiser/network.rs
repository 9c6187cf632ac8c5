//! A raw network as a denoiser: what it is told of the level, and what its output means.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::denoiser::{Asks, Cond, Denoiser, Pass};
use crate::error::Result;
use crate::level::{Level, Levels};
use crate::prediction::{Prediction, free_of_anchor};
use crate::state::State;
use crate::tap::Site;
use crate::weight::Parameters;

/// A network: noisy state, time and condition in, a prediction out.
///
/// It announces every block and attention to the pass, and holds its weights as [`Parameters`].
pub trait Network: Parameters + Send + Sync {
    /// The output for `x`, with the time that the network was trained on, one a row or one a
    /// position (see [`Times`]).
    ///
    /// # Errors
    ///
    /// [`crate::Error::Rank`], [`crate::Error::Shape`] or [`crate::Error::Unsupported`] where state
    /// or condition do not fit.
    fn forward(&self, x: &State, time: &Times, cond: &Cond, pass: &mut Pass) -> Result<State>;

    /// A copy that shares the numbers of its weights with this one, so that an adapter can act on
    /// the copy alone; `None` where the network cannot be copied.
    fn copied(&self) -> Option<Box<dyn Network>> {
        None
    }

    /// Every site that it announces, in order, once a pass.
    fn sites(&self) -> Vec<Site>;

    /// What it wants to find in a condition.
    fn asks(&self) -> Asks {
        Asks::default()
    }

    /// What height and width of its input must be multiples of.
    fn multiple(&self) -> usize {
        1
    }

    /// The natural shape of one input, batch left out, where the network fixes it.
    fn sample_shape(&self) -> Option<Vec<usize>> {
        None
    }
}

/// What a network is told of the levels: its own time, one a row or one a position.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// `rows * positions` numbers, row-major.
    pub values: Vec<f64>,
    /// Positions in a row; 1 where a row has one time.
    pub positions: usize,
}

/// How a level becomes the time that a network was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeCode {
    /// `t` times a number of training steps: diffusers' time step (1000 for most).
    Steps(f64),
    /// EDM's `c_noise`, `ln(sigma_edm) / 4`.
    QuarterLogSigma,
}

impl TimeCode {
    fn of(self, level: Level) -> f64 {
        match self {
            Self::Steps(steps) => level.t * steps,
            Self::QuarterLogSigma => 0.25 * level.sigma_edm().ln(),
        }
    }

    /// The times of a batch.
    pub fn times(self, at: &Levels, batch: usize) -> Times {
        match at {
            Levels::One(level) => Times { values: vec![self.of(*level); batch], positions: 1 },
            Levels::Rows(levels) => {
                Times { values: levels.iter().map(|l| self.of(*l)).collect(), positions: 1 }
            }
            Levels::Positions { levels, positions, .. } => Times {
                values: levels.iter().map(|l| self.of(*l)).collect(),
                positions: *positions,
            },
            Levels::Fields(fields) => self.times(&fields[0].1, batch),
        }
    }
}

/// How input and output are scaled around the network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// The state goes in as it is and the output is a [`Prediction`].
    Predict(Prediction),
    /// EDM's preconditioning (Karras et al. 2022, Table 1) around the network.
    Edm {
        /// The standard deviation of the data, `sigma_data`.
        sigma_data: f64,
    },
    /// EDM's preconditioning around a network that was trained on `v`: the output with the other
    /// sign.
    EdmV {
        /// The standard deviation of the data, `sigma_data`.
        sigma_data: f64,
    },
}

impl Scaling {
    /// How much the raw output changes with the clean sample that it means, at fixed `x`.
    pub fn slope(self, level: Level) -> f64 {
        match self {
            Self::Predict(prediction) => prediction.slope(level),
            Self::Edm { sigma_data } => 1.0 / edm(level, sigma_data).1,
            Self::EdmV { sigma_data } => -1.0 / edm(level, sigma_data).1,
        }
    }

    /// The raw output that means this clean sample: what training wants.
    ///
    /// For EDM's scaling it is `(x0 - c_skip x) / c_out`.
    #[must_use]
    pub fn target(self, x0: &State, eps: &State, x: &State, at: &Levels) -> State {
        match self {
            Self::Predict(prediction) => prediction.target(x0, eps, at),
            Self::Edm { sigma_data } | Self::EdmV { sigma_data } => {
                let skipped = x0.clone() - x.scaled(at, |l| edm(l, sigma_data).0);
                skipped.scaled(at, |l| self.slope(l))
            }
        }
    }
}

/// A network as a denoiser.
#[derive(Clone)]
pub struct NetworkDenoiser {
    /// The network.
    pub network: Arc<dyn Network>,
    /// What it is told of the level.
    pub time: TimeCode,
    /// What goes in and what comes out.
    pub scaling: Scaling,
}

/// `(c_skip, c_out, c_in)` of EDM for a state `x = alpha x0 + sigma eps`.
fn edm(level: Level, data: f64) -> (f64, f64, f64) {
    let sigma = level.sigma_edm();
    let total = sigma.hypot(data);
    let skip = data * data / (total * total);
    (skip / level.alpha, sigma * data / total, 1.0 / (total * level.alpha))
}

impl NetworkDenoiser {
    /// The raw output, as training wants it: with the state scaled and the levels told.
    ///
    /// # Errors
    ///
    /// What the network says.
    pub fn raw(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        pass.count_forward();
        let times = self.time.times(at, x.batch());
        pass.tell_times(|level| self.time.of(level));
        match self.scaling {
            Scaling::Predict(_) => self.network.forward(x, &times, cond, pass),
            Scaling::Edm { sigma_data } | Scaling::EdmV { sigma_data } => {
                let scaled = x.scaled(at, |l| edm(l, sigma_data).2);
                self.network.forward(&scaled, &times, cond, pass)
            }
        }
    }

    /// The clean sample that a raw output means.
    ///
    /// # Errors
    ///
    /// As [`Prediction::x0`].
    pub fn x0_of(&self, raw: &State, x: &State, at: &Levels) -> Result<State> {
        let raw = &without_variance(raw, x)?;
        match self.scaling {
            Scaling::Predict(prediction) => prediction.x0(raw, x, at),
            Scaling::Edm { sigma_data } | Scaling::EdmV { sigma_data } => Ok(x
                .scaled(at, |l| edm(l, sigma_data).0)
                + raw.scaled(at, |l| 1.0 / self.scaling.slope(l))),
        }
    }
}

/// The part of an output that is of the state's shape: networks that learn a variance (Nichol and
/// Dhariwal, "Improved denoising diffusion probabilistic models", 2021) put it behind, in as many
/// channels again. No sampler here asks for it.
fn without_variance(raw: &State, x: &State) -> Result<State> {
    match (raw.shape(), x.shape()) {
        (&[_, both, ..], &[_, channels, _, _]) if both == 2 * channels => {
            Ok(State::new(raw.view::<4>()?.narrow(1, 0, channels)))
        }
        _ => Ok(raw.clone()),
    }
}

impl Denoiser for NetworkDenoiser {
    fn is_told_guidance(&self) -> bool {
        self.network.asks().guidance.is_some()
    }

    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let raw = self.raw(x, at, cond, pass)?;
        self.x0_of(&raw, &free_of_anchor(x, cond.endpoint.as_ref(), at), at)
    }
}
