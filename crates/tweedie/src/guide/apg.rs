//! Adaptive projected guidance: without the part of the guidance that lies along the estimate.
//!
//! Sadat et al., "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion
//! Models", 2024, [arXiv:2410.02416](https://arxiv.org/abs/2410.02416), Algorithm 1.
//!
//! With the estimates `c` and `u` of the clean sample with and without the condition, of a whole
//! sample:
//!
//! ```text
//! d  = (c - u) + momentum d_last
//! d  = d min(1, threshold / |d|)
//! p  = (d . c) / (c . c) c
//! x0 = c + (weight - 1) (d - p + eta p)
//! ```
//!
//! The part along `c` is what saturates. A negative momentum takes back what the last evaluations
//! pushed. The norm is that of all numbers of a sample, and grows with their count.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::cfg::both;
use crate::guide::memory::Memory;
use crate::guide::{Entry, Guide, weight};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "apg",
    seam: Seam::Guide,
    title: "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models",
    source: "2410.02416",
    year: 2024,
    what: "guidance without the part that lies along the estimate",
    aliases: &["AdaptiveProjectedGuidance"],
    ledger: "",
    parts: &[&crate::guide::cfg::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Apg::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of adaptive projected guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The guidance weight; 1 is the condition as it is. The default, 7.5, is the field's.
    pub weight: f64,
    /// How much of the part along the estimate stays; 1 leaves all of it. The default, 0, is the
    /// paper's.
    pub eta: f64,
    /// The largest norm of the guidance, `r` in the paper; none is no limit. The default, 15, is the
    /// paper's for latents of 128x128.
    pub threshold: Option<f64>,
    /// How much of the last guidance is added. The default, -0.5, is the paper's.
    pub momentum: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { weight: 7.5, eta: 0.0, threshold: Some(15.0), momentum: -0.5 }
    }
}

/// Adaptive projected guidance.
#[derive(Clone, Debug)]
pub struct Apg {
    settings: Settings,
    /// The guidance of the evaluations before.
    last: Memory,
}

impl Apg {
    /// A guide.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        weight("apg", settings.weight)?;
        for (key, value) in [("eta", settings.eta), ("momentum", settings.momentum)] {
            if !value.is_finite() {
                let why = format!("{value}, wanted a finite number");
                return Err(Error::setting(format!("apg:{key}"), why));
            }
        }
        match settings.threshold {
            Some(t) if t.is_nan() || t <= 0.0 => {
                Err(Error::setting("apg:threshold", format!("{t}, wanted more than 0")))
            }
            _ => Ok(Self { settings, last: Memory::default() }),
        }
    }
}

impl Guide for Apg {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let Settings { weight, eta, threshold, momentum } = self.settings;
        if weight == 1.0 {
            return pass.on_branch(Branch::Cond, at, |pass| model.x0(x, at, cond, pass));
        }
        let (with, without) = both("apg", model, x, at, cond, pass)?;
        let mut guidance = with.clone() - without;
        if momentum != 0.0 {
            if let Some(last) = self.last.of(pass) {
                guidance = guidance + last * momentum;
            }
            self.last.keep(pass, guidance.clone());
        }
        if let Some(most) = threshold {
            let fits =
                |square: &f64| if *square > most * most { most / square.sqrt() } else { 1.0 };
            let factors: Vec<f64> = guidance.square_norms().iter().map(fits).collect();
            guidance = guidance.scaled_rows(&factors);
        }
        let (dots, norms) = (guidance.dots(&with), with.square_norms());
        let share = |(dot, norm): (&f64, &f64)| if *norm > 0.0 { dot / norm } else { 0.0 };
        let along: Vec<f64> = dots.iter().zip(&norms).map(share).collect();
        let along = with.scaled_rows(&along);
        Ok(with + (guidance - along * (1.0 - eta)) * (weight - 1.0))
    }

    fn reset(&mut self) {
        self.last.clear();
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.last.select(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::testing::{Says, ask};
    use crate::level::Level;

    fn asked(settings: Settings, times: usize) -> Vec<f64> {
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let mut guide = Apg::new(settings).unwrap();
        let mut found = Vec::new();
        for _ in 0..times {
            found = ask(&mut guide, &model, Level::vp(0.5, 0.0)).0;
        }
        found
    }

    #[test]
    fn the_numbers_are_diffusers() {
        // diffusers 0.42, normalized_guidance in its original form: the second of two calls.
        let (weight, momentum) = (4.0, -0.5);
        let found = asked(Settings { weight, eta: 0.3, threshold: Some(0.4), momentum }, 2);
        for (found, wanted) in found.iter().zip(DIFFUSERS) {
            assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }
    }

    const DIFFUSERS: [f64; 2] = [1.762_051_966_731_928, 1.377_478_675_064_058];

    #[test]
    fn with_all_of_it_left_it_is_cfg() {
        let (weight, momentum) = (3.0, 0.0);
        let found = asked(Settings { weight, eta: 1.0, threshold: None, momentum }, 3);
        assert!((found[0] - 2.0).abs() < 1e-14 && found[1].abs() < 1e-14, "{found:?}");
    }

    #[test]
    fn bad_settings_are_refused() {
        for bad in [
            Settings { weight: f64::NAN, ..Settings::default() },
            Settings { eta: f64::INFINITY, ..Settings::default() },
            Settings { threshold: Some(0.0), ..Settings::default() },
        ] {
            assert!(Apg::new(bad).is_err());
        }
    }
}
