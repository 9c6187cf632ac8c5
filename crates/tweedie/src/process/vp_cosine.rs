//! The variance-preserving path whose `alpha` is a cosine, in continuous time.
//!
//! Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021,
//! [arXiv:2102.09672](https://arxiv.org/abs/2102.09672), equation 17.
//!
//! ```text
//! alpha = cos(pi/2 (t + s) / (1 + s)) / cos(pi/2 s / (1 + s))        sigma = sqrt(1 - alpha^2)
//! ```
//!
//! Departs from the paper: no `beta` is clipped, so that `alpha = 0` at `t = 1` and a network that
//! predicts `eps` cannot be asked there. The paper's clipped table is
//! `vp-table:betas=squaredcos-cap-v2`.

use std::f64::consts::FRAC_PI_2;

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::noise::Noise;
use crate::process::{Entry, Process, Rate, unit_prior};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "vp-cosine",
    seam: Seam::Process,
    title: "Improved Denoising Diffusion Probabilistic Models",
    source: "2102.09672",
    year: 2021,
    what: "variance-preserving path whose alpha is a cosine, in continuous time",
    aliases: &["cosine"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<VpCosine>()?.checked()?)),
    defaults: defaults_of::<VpCosine>,
    known_failures: &[],
};

/// The variance-preserving path whose `alpha` is a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VpCosine {
    /// The offset `s` that keeps the first steps from being too small. The default, 0.008, is the
    /// paper's.
    pub s: f64,
    /// The cleanest time that grids go to before the clean end. The paper's table has 4,000 steps;
    /// the default, 0.001, is that of the other continuous paths.
    pub t_min: f64,
}

impl Default for VpCosine {
    fn default() -> Self {
        Self { s: 0.008, t_min: 1e-3 }
    }
}

impl VpCosine {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        if !(0.0..=1.0).contains(&self.s) {
            return Err(Error::setting("vp-cosine:s", format!("{}, wanted 0 to 1", self.s)));
        }
        if !(0.0..1.0).contains(&self.t_min) {
            let why = format!("{}, wanted 0 to less than 1", self.t_min);
            return Err(Error::setting("vp-cosine:t_min", why));
        }
        Ok(self)
    }

    /// The cosine's argument at `t`.
    fn angle(&self, t: f64) -> f64 {
        FRAC_PI_2 * (t + self.s) / (1.0 + self.s)
    }

    /// The cosine at `t`; written from its zero, so that it vanishes at `t = 1`.
    fn cosine(&self, t: f64) -> f64 {
        (FRAC_PI_2 * (1.0 - t) / (1.0 + self.s)).sin()
    }
}

impl Process for VpCosine {
    fn at(&self, t: f64) -> Level {
        let t = t.clamp(0.0, 1.0);
        let first = self.cosine(0.0);
        // cos^2 a - cos^2 b = sin(b - a) sin(b + a): no cancellation near the data.
        let (a, b) = (self.angle(0.0), self.angle(t));
        let sigma = ((b - a).sin() * (b + a).sin()).max(0.0).sqrt() / first;
        Level::new(t, self.cosine(t) / first, sigma.min(1.0))
    }

    fn rate(&self, t: f64) -> Rate {
        let at = self.at(t);
        let speed = FRAC_PI_2 / (1.0 + self.s);
        let alpha = -speed * self.angle(at.t).sin() / self.cosine(0.0);
        Rate { alpha, anchor: 0.0, sigma: -at.alpha * alpha / at.sigma }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        let at = Level::vp(0.0, lambda);
        let first = self.cosine(0.0);
        // Where alpha is near 1 the sine of the difference of angles is the accurate way.
        let cosine = at.alpha * first;
        let sine = (1.0 - first * first + at.sigma * at.sigma * first * first).max(0.0).sqrt();
        let angle = sine.atan2(cosine);
        (angle / FRAC_PI_2 * (1.0 + self.s) - self.s).clamp(0.0, 1.0)
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
    fn closed_form_and_ends() {
        let path = VpCosine::default();
        assert_eq!((path.at(0.0).alpha, path.at(0.0).sigma), (1.0, 0.0));
        assert_eq!((path.at(1.0).alpha, path.at(1.0).sigma), (0.0, 1.0));
        let f = |t: f64| ((t + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
        for t in [0.01, 0.3, 0.77] {
            assert!((path.at(t).alpha_bar() - f(t) / f(0.0)).abs() < 1e-15);
        }
    }
}
