//! Classifier-free guidance, rescaled to the spread of the conditional output.
//!
//! Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023,
//! [arXiv:2305.08891](https://arxiv.org/abs/2305.08891), section 3.4, equations 14 to 16.
//!
//! ```text
//! g = u + weight (c - u)
//! g = phi g std(c) / std(g) + (1 - phi) g
//! ```
//!
//! where `c` and `u` are the network's outputs with and without the condition and `std` runs over a
//! whole sample. Rescaling is not affine: the result depends on what the output means. The paper's
//! network predicts `v`; `space` says which meaning is taken.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Branch, Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::cfg::both;
use crate::guide::{Entry, Guide, weight};
use crate::level::Levels;
use crate::prediction::Prediction;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "cfg-rescale",
    seam: Seam::Guide,
    title: "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    source: "2305.08891",
    year: 2023,
    what: "guidance rescaled to the spread of the conditional output",
    aliases: &["guidance_rescale", "RescaleCFG"],
    ledger: "",
    parts: &[&crate::guide::cfg::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<CfgRescale>()?.checked()?)),
    defaults: defaults_of::<CfgRescale>,
    known_failures: &[],
};

/// Classifier-free guidance with rescaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CfgRescale {
    /// The guidance weight. The default, 7.5, is the paper's.
    pub weight: f64,
    /// How far the spread is put back, from 0 to 1. The default, 0.7, is the paper's.
    pub phi: f64,
    /// The meaning in which the spread is taken. The default, `v`, is the paper's.
    pub space: Prediction,
}

impl Default for CfgRescale {
    fn default() -> Self {
        Self { weight: 7.5, phi: 0.7, space: Prediction::V }
    }
}

impl CfgRescale {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        weight("cfg-rescale", self.weight)?;
        if (0.0..=1.0).contains(&self.phi) {
            return Ok(self);
        }
        Err(Error::setting("cfg-rescale:phi", format!("{}, wanted 0 to 1", self.phi)))
    }
}

impl Guide for CfgRescale {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        if self.weight == 1.0 {
            return pass.on_branch(Branch::Cond, at, |pass| model.x0(x, at, cond, pass));
        }
        let (with, without) = both("cfg-rescale", model, x, at, cond, pass)?;
        let guided = without.clone() + (with.clone() - without) * self.weight;
        let c = self.space.from_x0(&with, x, at)?;
        let g = self.space.from_x0(&guided, x, at)?;
        let phi = self.phi;
        let rescaled = g.zip(&c, |g, c| {
            let spread = |t: &burn::tensor::Tensor<2>| {
                let centred = t.clone() - t.clone().mean_dim(1);
                (centred.clone() * centred).mean_dim(1).sqrt()
            };
            // A sample without any spread stays as it is.
            let wide = spread(&g);
            let flat = wide.clone().equal_elem(0.0);
            let ratio = (spread(&c) / wide).mask_fill(flat, 1.0);
            g * (ratio * phi + (1.0 - phi))
        });
        self.space.x0(&rescaled, x, at)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::testing::{Says, ask};
    use crate::level::Level;

    #[test]
    fn the_spread_is_the_conditional_ones() {
        // In x0: 1, 2 and 0.5, 3 with weight 3 give 2, 0, whose spread is twice that of 1, 2.
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let mut guide = CfgRescale { weight: 3.0, phi: 1.0, space: Prediction::X0 };
        assert_eq!(ask(&mut guide, &model, Level::vp(0.5, 0.0)).0, [1.0, 0.0]);
    }

    #[test]
    fn a_flat_sample_stays_a_number() {
        let model = Says([1.0, 1.0], [0.5, 0.5]);
        let mut guide = CfgRescale { weight: 3.0, phi: 0.7, space: Prediction::X0 };
        let found = ask(&mut guide, &model, Level::vp(0.5, 0.0)).0;
        assert!(found.iter().all(|v| (v - 2.0).abs() < 1e-14), "{found:?}");
    }
}
