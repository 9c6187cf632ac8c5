//! Some of the steps that a consistency model was distilled at.
//!
//! Luo et al., "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step
//! Inference", 2023, [arXiv:2310.04378](https://arxiv.org/abs/2310.04378), section 4.4 (skipping
//! steps).
//!
//! ```text
//! step_k = (m - floor(k m / steps)) floor(N / m) - 1          k = 0, ..., steps - 1
//! ```
//!
//! with `m` distilled steps of a table of `N`.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::{Entry, Grid, Last, at_steps, table};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "consistency",
    seam: Seam::Grid,
    title: "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference",
    source: "2310.04378",
    year: 2023,
    what: "some of the steps that a consistency model was distilled at",
    aliases: &["LCMSpacing"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Consistency>()?)),
    defaults: defaults_of::<Consistency>,
    known_failures: &[],
};

/// Some of the steps that a consistency model was distilled at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consistency {
    /// Distilled steps, `original_inference_steps` in diffusers. The default, 50, is the published
    /// models'.
    pub distilled: usize,
    /// Where the grid ends. The default is clean.
    pub last: Last,
}

impl Default for Consistency {
    fn default() -> Self {
        Self { distilled: 50, last: Last::Clean }
    }
}

impl Grid for Consistency {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        let count = table(process, "consistency")?;
        let stride = count.checked_div(self.distilled).unwrap_or(0);
        if stride == 0 {
            let why = format!("{} of a table of {count}", self.distilled);
            return Err(Error::setting("grid consistency:distilled", why));
        }
        if !(1..=self.distilled).contains(&steps) {
            let why = format!("{steps}, wanted 1 to the {} distilled ones", self.distilled);
            return Err(Error::setting("grid consistency: steps", why));
        }
        let tau = |k: usize| {
            // The product of numpy's linspace, rounding errors and all.
            let skipped = (k as f64 * (self.distilled as f64 / steps as f64)).floor() as usize;
            ((self.distilled - skipped) * stride - 1) as f64
        };
        let taus: Vec<f64> = (0..steps).map(tau).collect();
        at_steps(process, &taus, self.last, "consistency")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::vp_table::{Table, VpTable};

    #[test]
    fn the_four_steps_of_the_papers_models() {
        let path = VpTable::new(&Table::default()).unwrap();
        let levels = Consistency::default().levels(&path, 4).unwrap();
        let taus: Vec<f64> = levels[..4].iter().map(|l| (l.t * 1000.0).round()).collect();
        assert_eq!(taus, [999.0, 759.0, 499.0, 259.0]);
        assert!(Consistency::default().levels(&path, 51).is_err());
    }
}
