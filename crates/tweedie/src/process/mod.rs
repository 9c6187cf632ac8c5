//! Processes: how data becomes noise.

use std::fmt::Debug;

pub mod edm;
pub mod flow;
pub mod ve;
pub mod vp_cosine;
pub mod vp_linear;
pub mod vp_table;
pub mod zero_terminal_snr;

pub use edm::Edm;
pub use flow::Flow;
pub use ve::Ve;
pub use vp_cosine::VpCosine;
pub use vp_linear::VpLinear;
pub use vp_table::VpTable;
pub use zero_terminal_snr::ZeroTerminalSnr;

use crate::catalog::{Card, Made};
use crate::error::Result;
use crate::level::{Level, Levels};
use crate::noise::Noise;
use crate::state::State;

/// The derivatives of a path's coefficients with respect to `t`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// d alpha / dt.
    pub alpha: f64,
    /// d anchor / dt.
    pub anchor: f64,
    /// d sigma / dt.
    pub sigma: f64,
}

/// How data becomes noise: the coefficients of `x_t = alpha x0 + anchor y + sigma eps` over time.
///
/// A process knows nothing of networks or steps. Times outside [0, 1] are clamped.
pub trait Process: Debug + Send + Sync {
    /// The path's coefficients at time `t`.
    fn at(&self, t: f64) -> Level;

    /// Their derivatives at time `t`, one-sided at the ends.
    fn rate(&self, t: f64) -> Rate;

    /// The time at which [`Level::lambda`] has this value; clamped to [0, 1].
    fn t_of_lambda(&self, lambda: f64) -> f64;

    /// The level whose `lambda` has this value.
    fn at_lambda(&self, lambda: f64) -> Level {
        self.at(self.t_of_lambda(lambda))
    }

    /// The cleanest and the noisiest time that a network is trained at; grids run between them.
    fn ends(&self) -> (f64, f64) {
        (0.0, 1.0)
    }

    /// How many training time steps the process is a table of, `i` at `t = i / steps`; `None` for a
    /// continuous one.
    fn table_steps(&self) -> Option<usize> {
        None
    }

    /// A state at the beginning of the way back. By default Gaussian noise of standard deviation
    /// `sigma`, around the second endpoint where there is one; the mean of the data is taken as 0.
    ///
    /// # Errors
    ///
    /// What the noise source says.
    fn prior(
        &self,
        like: &State,
        endpoint: Option<&State>,
        at: Level,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let eps = noise.draw(like)? * at.sigma;
        Ok(match endpoint {
            Some(y) => eps + y.clone() * at.anchor,
            None => eps,
        })
    }

    /// Clean samples brought to the given levels, with the noise that was added.
    ///
    /// # Errors
    ///
    /// What the noise source says.
    fn perturb(
        &self,
        x0: &State,
        endpoint: Option<&State>,
        at: &Levels,
        noise: &mut dyn Noise,
    ) -> Result<(State, State)> {
        let eps = noise.draw(x0)?;
        let mut x = x0.scaled(at, |l| l.alpha) + eps.scaled(at, |l| l.sigma);
        if let Some(y) = endpoint {
            x = x + y.scaled(at, |l| l.anchor);
        }
        Ok((x, eps))
    }

    /// The standard deviation of the data that the process was made for; EDM's `sigma_data`.
    fn sigma_data(&self) -> f64 {
        1.0
    }
}

/// Gaussian noise of unit variance around the second endpoint's share, the prior of the
/// variance-preserving papers: data of unit variance stay of unit variance at every level.
pub(crate) fn unit_prior(
    like: &State,
    endpoint: Option<&State>,
    at: Level,
    noise: &mut dyn Noise,
) -> Result<State> {
    let eps = noise.draw(like)?;
    Ok(match endpoint {
        Some(y) => eps + y.clone() * at.anchor,
        None => eps,
    })
}

/// A process of the catalogue.
pub type Entry = Made<dyn Process>;

/// Every process.
pub(crate) const ENTRIES: &[Entry] = &[
    edm::ENTRY,
    flow::ENTRY,
    ve::ENTRY,
    vp_cosine::ENTRY,
    vp_linear::ENTRY,
    vp_table::ENTRY,
    zero_terminal_snr::ENTRY,
];

/// Every process of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}
