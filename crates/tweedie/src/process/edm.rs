//! EDM's path: the noise level is the time.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
//! [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), Table 1: `s(t) = 1`, `sigma(t) = t`.
//!
//! ```text
//! alpha = 1          sigma = sigma_max t
//! ```
//!
//! The paper's time runs to `sigma_max`; ours to 1.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::process::{Entry, Process, Rate, unit_prior};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "edm",
    seam: Seam::Process,
    title: "Elucidating the Design Space of Diffusion-Based Generative Models",
    source: "2206.00364",
    year: 2022,
    what: "the noise level is the time",
    aliases: &[],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Edm>()?.checked()?)),
    defaults: defaults_of::<Edm>,
    known_failures: &[],
};

/// EDM's path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Edm {
    /// The smallest sigma that grids go to before the clean end. The default, 0.002, is the
    /// paper's.
    pub sigma_min: f64,
    /// Sigma at `t = 1`. The default, 80, is the paper's.
    pub sigma_max: f64,
    /// The standard deviation of the data. The default, 0.5, is the paper's.
    pub sigma_data: f64,
    /// Whether a run starts from noise of variance `sigma^2 + 1`, as diffusers' EDM classes do, in
    /// place of `sigma^2`. The default, no, is the paper's.
    pub prior_of_data: bool,
}

impl Default for Edm {
    fn default() -> Self {
        Self { sigma_min: 0.002, sigma_max: 80.0, sigma_data: 0.5, prior_of_data: false }
    }
}

impl Edm {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        let ordered = 0.0 < self.sigma_min && self.sigma_min < self.sigma_max;
        if !ordered || !self.sigma_max.is_finite() {
            let why = format!(
                "{} and {}, wanted 0 < sigma_min < sigma_max, finite",
                self.sigma_min, self.sigma_max
            );
            return Err(Error::setting("edm:sigma_min, sigma_max", why));
        }
        if !self.sigma_data.is_finite() || self.sigma_data <= 0.0 {
            let why = format!("{}, wanted a positive number", self.sigma_data);
            return Err(Error::setting("edm:sigma_data", why));
        }
        Ok(self)
    }
}

impl Process for Edm {
    fn at(&self, t: f64) -> Level {
        let t = t.clamp(0.0, 1.0);
        Level::new(t, 1.0, self.sigma_max * t)
    }

    fn rate(&self, _t: f64) -> Rate {
        Rate { alpha: 0.0, anchor: 0.0, sigma: self.sigma_max }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        ((-lambda).exp() / self.sigma_max).clamp(0.0, 1.0)
    }

    fn ends(&self) -> (f64, f64) {
        (self.sigma_min / self.sigma_max, 1.0)
    }

    fn sigma_data(&self) -> f64 {
        self.sigma_data
    }

    fn prior(
        &self,
        like: &State,
        endpoint: Option<&State>,
        at: Level,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let unit = unit_prior(like, endpoint, at, noise)?;
        Ok(unit * if self.prior_of_data { at.sigma.hypot(1.0) } else { at.sigma })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigma_is_the_time() {
        let path = Edm::default();
        assert_eq!((path.at(0.5).alpha, path.at(0.5).sigma), (1.0, 40.0));
        assert_eq!(path.at(path.ends().0).sigma, 0.002);
        assert_eq!(path.at(0.0), Level::CLEAN);
        assert!(Edm { sigma_min: 3.0, sigma_max: 2.0, ..path }.checked().is_err());
    }
}
