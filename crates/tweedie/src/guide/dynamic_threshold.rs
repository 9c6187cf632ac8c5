//! The estimate of the clean sample, clipped to a quantile of its own and scaled back.
//!
//! Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",
//! 2022, [arXiv:2205.11487](https://arxiv.org/abs/2205.11487), section 2.3 (dynamic thresholding).
//!
//! ```text
//! s   = min(max(quantile of |x0| over a sample, 1), most)
//! x0' = min(max(x0, -s), s) / s
//! ```

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::{Entry, Guide};
use crate::level::Levels;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dynamic-threshold",
    seam: Seam::Guide,
    title: "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",
    source: "2205.11487",
    year: 2022,
    what: "the estimate clipped to a quantile of its own and scaled back",
    aliases: &["thresholding"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<DynamicThreshold>()?.checked()?)),
    defaults: defaults_of::<DynamicThreshold>,
    known_failures: &[],
};

/// Dynamic thresholding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynamicThreshold {
    /// The quantile, `dynamic_thresholding_ratio` in diffusers. The default, 0.995, is the paper's.
    pub quantile: f64,
    /// The largest threshold, `sample_max_value` in diffusers. The default is 1, as there, with which
    /// this is plain clipping.
    pub most: f64,
}

impl Default for DynamicThreshold {
    fn default() -> Self {
        Self { quantile: 0.995, most: 1.0 }
    }
}

impl DynamicThreshold {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        if !(0.0..=1.0).contains(&self.quantile) {
            let why = format!("{}, wanted 0 to 1", self.quantile);
            return Err(Error::setting("dynamic-threshold:quantile", why));
        }
        if !self.most.is_finite() || self.most < 1.0 {
            let why = format!("{}, wanted at least 1", self.most);
            return Err(Error::setting("dynamic-threshold:most", why));
        }
        Ok(self)
    }

    /// The threshold of one sample; between two numbers of the sample the quantile is linear.
    fn of(&self, row: &[f64]) -> f64 {
        let mut sizes: Vec<f64> = row.iter().map(|v| v.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let at = self.quantile * sizes.len().saturating_sub(1) as f64;
        let size = |i: usize| sizes.get(i).or(sizes.last()).copied().unwrap_or(1.0);
        let (low, high) = (size(at.floor() as usize), size(at.ceil() as usize));
        (low + at.fract() * (high - low)).clamp(1.0, self.most)
    }
}

impl Guide for DynamicThreshold {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let x0 = model.x0(x, at, cond, pass)?;
        pass.uncorrected.get_or_insert_with(|| x0.clone());
        let limits: Vec<f64> = x0.to_rows().iter().map(|row| self.of(row)).collect();
        let rows = limits.len();
        Ok(x0.map(|x| {
            let data = TensorData::new(limits.clone(), [rows, 1]);
            let limit = Tensor::<2>::from_data(data, (&x.device(), x.dtype()));
            let width = x.dims()[1];
            (x / limit.expand([rows, width])).clamp(-1.0, 1.0)
        }))
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
    fn the_quantile_is_linear_between_two_numbers() {
        let threshold = DynamicThreshold { quantile: 0.75, most: 3.0 };
        assert!((threshold.of(&[-2.0, 1.0]) - 1.75).abs() < 1e-15);
        assert_eq!(threshold.of(&[0.2, 0.1]), 1.0);
        assert_eq!(threshold.of(&[9.0, 8.0]), 3.0);
    }

    #[test]
    fn what_is_beyond_the_quantile_becomes_one() {
        let model = Says([2.0, -1.0], [0.0, 0.0]);
        let mut guide = DynamicThreshold { quantile: 0.5, most: 3.0 };
        let found = ask(&mut guide, &model, Level::vp(0.5, 0.0)).0;
        assert!((found[0] - 1.0).abs() < 1e-15 && (found[1] + 2.0 / 3.0).abs() < 1e-15);
    }
}
