//! The variance-preserving path with a linear `beta`, in continuous time.
//!
//! Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021,
//! [arXiv:2011.13456](https://arxiv.org/abs/2011.13456), equation 32 and appendix C. It is the
//! limit of DDPM's table (Ho et al. 2020) for many steps.
//!
//! With `beta(t) = beta_min + t (beta_max - beta_min)`:
//!
//! ```text
//! ln alpha = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2
//! sigma    = sqrt(1 - alpha^2)
//! ```
//!
//! `lambda` inverts in closed form, a quadratic in `t`. At `t = 0` the derivative of `sigma` is
//! infinite.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::process::{Entry, Process, Rate, unit_prior};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "vp-linear",
    seam: Seam::Process,
    title: "Score-Based Generative Modeling through Stochastic Differential Equations",
    source: "2011.13456",
    year: 2021,
    what: "variance-preserving path with a linear beta, in continuous time",
    aliases: &["vpsde"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<VpLinear>()?.checked()?)),
    defaults: defaults_of::<VpLinear>,
    known_failures: &[],
};

/// The variance-preserving path with a linear `beta`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VpLinear {
    /// `beta` at `t = 0`. The default, 0.1, is the paper's.
    pub beta_min: f64,
    /// `beta` at `t = 1`. The default, 20, is the paper's.
    pub beta_max: f64,
    /// The cleanest time that grids go to before the clean end. The default, 0.001, is the paper's
    /// for sampling.
    pub t_min: f64,
}

impl Default for VpLinear {
    fn default() -> Self {
        Self { beta_min: 0.1, beta_max: 20.0, t_min: 1e-3 }
    }
}

impl VpLinear {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        let ordered = 0.0 < self.beta_min && self.beta_min <= self.beta_max;
        if !ordered || !self.beta_max.is_finite() {
            let why = format!(
                "{} and {}, wanted 0 < beta_min <= beta_max, finite",
                self.beta_min, self.beta_max
            );
            return Err(Error::setting("vp-linear:beta_min, beta_max", why));
        }
        if !(0.0..1.0).contains(&self.t_min) {
            let why = format!("{}, wanted 0 to less than 1", self.t_min);
            return Err(Error::setting("vp-linear:t_min", why));
        }
        Ok(self)
    }

    fn log_alpha(&self, t: f64) -> f64 {
        -0.25 * t * t * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min
    }
}

impl Process for VpLinear {
    fn at(&self, t: f64) -> Level {
        let t = t.clamp(0.0, 1.0);
        let log_alpha = self.log_alpha(t);
        // exp_m1 keeps the digits of a small sigma.
        Level::new(t, log_alpha.exp(), (-(2.0 * log_alpha).exp_m1()).sqrt())
    }

    fn rate(&self, t: f64) -> Rate {
        let at = self.at(t);
        let alpha = -0.5 * at.alpha * (self.beta_min + at.t * (self.beta_max - self.beta_min));
        Rate { alpha, anchor: 0.0, sigma: -at.alpha * alpha / at.sigma }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        // -ln alpha, from alpha^2 = 1 / (1 + exp(-2 lambda)), without overflow on either side.
        let e = (-2.0 * lambda.abs()).exp().ln_1p();
        let c = 0.5 * if lambda < 0.0 { e - 2.0 * lambda } else { e };
        if c.is_infinite() {
            return 1.0;
        }
        let half = 0.5 * self.beta_min;
        let root = (half * half + (self.beta_max - self.beta_min) * c).sqrt();
        (2.0 * c / (half + root)).clamp(0.0, 1.0)
    }

    fn ends(&self) -> (f64, f64) {
        (self.t_min, 1.0)
    }

    fn prior(
        &self,
        like: &State,
        endpoint: Option<&State>,
        at: Level,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        unit_prior(like, endpoint, at, noise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_paper() {
        let path = VpLinear::default();
        assert_eq!((path.at(0.0).alpha, path.at(0.0).sigma), (1.0, 0.0));
        // exp(-(20 - 0.1) / 4 - 0.1 / 2) = exp(-5.025).
        assert!((path.at(1.0).alpha - (-5.025_f64).exp()).abs() < 1e-15);
        assert_eq!(path.t_of_lambda(f64::INFINITY), 0.0);
        assert_eq!(path.t_of_lambda(f64::NEG_INFINITY), 1.0);
    }
}
