//! Equal steps of the log-SNR.
//!
//! Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10
//! Steps", 2022, [arXiv:2206.00927](https://arxiv.org/abs/2206.00927), section 3.4.
//!
//! ```text
//! lambda_k = lambda_min + k / n (lambda_max - lambda_min)
//! ```
//!
//! The paper's grid ends at `lambda_max` (`last=sigma-min`); by default a step to clean data follows.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::grid::{Entry, Grid, Last, at_sigmas, points, ramp, sigma_ends};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "log-snr",
    seam: Seam::Grid,
    title: "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",
    source: "2206.00927",
    year: 2022,
    what: "equal steps of the log-SNR",
    aliases: &["logSNR", "use_lu_lambdas", "uniform-log-snr"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<LogSnr>()?)),
    defaults: defaults_of::<LogSnr>,
    known_failures: &[],
};

/// Equal steps of the log-SNR.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSnr {
    /// `lambda` of the noisiest level; the process's own by default.
    pub lambda_min: Option<f64>,
    /// `lambda` of the cleanest level before the clean end; the process's own by default.
    pub lambda_max: Option<f64>,
    /// Where the grid ends. The default is clean.
    pub last: Last,
}

impl Grid for LogSnr {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        let sigma = |lambda: Option<f64>| lambda.map(|l| (-l).exp());
        let (low, high) =
            sigma_ends(process, sigma(self.lambda_max), sigma(self.lambda_min), "log-snr")?;
        let (from, to) = (-high.ln(), -low.ln());
        let sigmas: Vec<f64> = ramp(points(steps, self.last, "log-snr")?)
            .map(|u| (-(from + u * (to - from))).exp())
            .collect();
        at_sigmas(process, &sigmas, self.last, "log-snr")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::VpLinear;

    #[test]
    fn the_papers_grid_ends_at_its_cleanest_level() {
        let path = VpLinear::default();
        let grid = LogSnr { last: Last::SigmaMin, ..LogSnr::default() };
        let levels = grid.levels(&path, 10).unwrap();
        let (a, b) = (path.at(1.0).lambda(), path.at(1e-3).lambda());
        for (i, level) in levels.iter().enumerate() {
            assert!((level.lambda() - (a + (b - a) * i as f64 / 10.0)).abs() < 1e-9);
        }
    }

    #[test]
    fn its_own_ends_may_be_set() {
        let grid = LogSnr { lambda_min: Some(-2.0), lambda_max: Some(1.0), last: Last::Clean };
        let levels = grid.levels(&VpLinear::default(), 4).unwrap();
        assert!((levels[0].lambda() + 2.0).abs() < 1e-9 && (levels[3].lambda() - 1.0).abs() < 1e-9);
    }
}
