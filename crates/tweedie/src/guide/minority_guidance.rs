//! Minority guidance: towards samples that a model finds hard to restore, by a classifier of how hard.
//!
//! Um, Lee and Ye, "Don't Play Favorites: Minority Guidance for Diffusion Models", 2023,
//! [arXiv:2301.12334](https://arxiv.org/abs/2301.12334), sections 3.1 and 3.2.
//!
//! The minority score of a picture is how far it is from what one step makes of its noisy self, and its
//! class is the quantile that the score falls in:
//!
//! ```text
//! l(x0) = mean over noise of  d(x0, E[x0 | x_t])          t = 0.6
//! x0'   = x0 + scale (sigma^2 / alpha) grad_x log p(quantile | x)
//! ```
//!
//! The classifier `p` was taught on noisy pictures with these classes, and is the run's reward; which
//! class it was asked for does not count here. What is hard to restore is rare, or fine in texture.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::classifier_guidance::{FLOOR, reach};
use crate::guide::push::followed;
use crate::guide::{Entry, Guide, number};
use crate::level::{Level, Levels};
use crate::noise::Noise;
use crate::reward::{Classified, slope};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "minority-guidance",
    seam: Seam::Guide,
    title: "Don't Play Favorites: Minority Guidance for Diffusion Models",
    source: "2301.12334",
    year: 2023,
    what: "towards a quantile of how hard samples are to restore",
    aliases: &["minority"],
    ledger: "minority-guidance",
    parts: &[&crate::guide::classifier_guidance::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<MinorityGuidance>()?.checked()?)),
    defaults: defaults_of::<MinorityGuidance>,
    known_failures: &[],
};

/// Minority guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MinorityGuidance {
    /// How strongly the classifier counts. The default, 3.5, is the paper's.
    pub scale: f64,
    /// The quantile, 0 the most common and 1 the rarest. The default, 1, is the paper's (class 99 of
    /// 100).
    pub quantile: f64,
}

impl Default for MinorityGuidance {
    fn default() -> Self {
        Self { scale: 3.5, quantile: 1.0 }
    }
}

impl MinorityGuidance {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        number("minority-guidance:scale", self.scale)?;
        if (0.0..=1.0).contains(&self.quantile) {
            return Ok(self);
        }
        let why = format!("{}, wanted 0 to 1", self.quantile);
        Err(Error::setting("minority-guidance:quantile", why))
    }
}

impl Guide for MinorityGuidance {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let reward = followed("minority-guidance", cond)?;
        let none = || {
            let needs = "a reward that is a classifier of quantiles, taught on noisy samples";
            Error::unsupported("minority-guidance", needs)
        };
        if !reward.reads_noise() {
            return Err(none());
        }
        let slope = slope("minority-guidance", x, |x| {
            let Classified { logits, classes } = reward.classified(x, at)?.ok_or_else(none)?;
            let last = logits.dims()[1].saturating_sub(1) as f64;
            let class = (self.quantile * last).round() as i64;
            let classes = vec![class; classes.len()];
            Ok(Classified { logits, classes }.log_likelihood(1.0, 1.0))
        })?;
        Ok(model.x0(x, at, cond, pass)? + slope.scaled(at, |l| reach(l, FLOOR)) * self.scale)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

/// The minority scores of clean samples: the squared distance, in the space of `features`, of each from
/// its estimate out of its own noisy self at a level, over `draws` draws.
///
/// The paper takes a perceptual distance; with the samples themselves as features it mostly finds
/// contrast.
///
/// # Errors
///
/// What the denoiser, the source of noise or the features say.
pub fn scores(
    model: &dyn Denoiser,
    (x0, cond): (&State, &Cond),
    at: Level,
    (noise, draws): (&mut dyn Noise, usize),
    features: &dyn Fn(&State) -> Result<State>,
) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; x0.batch()];
    let own = features(x0)?;
    for _ in 0..draws {
        let x = x0.clone() * at.alpha + noise.draw(x0)? * at.sigma;
        let mut pass = Pass::single(x0.batch(), at);
        let found = features(&model.x0(&x, &Levels::One(at), cond, &mut pass)?)?;
        for (sum, miss) in sums.iter_mut().zip((found - own.clone()).square_norms()) {
            *sum += miss / draws as f64;
        }
    }
    Ok(sums)
}

/// The class of each score: which of `count` quantiles of equal mass it falls in.
pub fn quantiles(scores: &[f64], count: usize) -> Vec<i64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let mut classes = vec![0; scores.len()];
    for (rank, row) in order.into_iter().enumerate() {
        classes[row] = (rank * count / scores.len()) as i64;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_equal_mass() {
        assert_eq!(quantiles(&[5.0, 1.0, 3.0, 2.0, 9.0, 7.0], 3), [1, 0, 1, 0, 2, 2]);
        assert!(MinorityGuidance { quantile: 1.1, ..Default::default() }.checked().is_err());
    }
}
