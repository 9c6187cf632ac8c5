//! EDM's grid: sigma in equal parts of its `1 / rho`-th power.
//!
//! Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
//! [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), equation 5.
//!
//! ```text
//! sigma_k = (sigma_max^(1/rho) + k / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho
//! ```
//!
//! in `sigma_edm`, on any path. The ends are those that the process trains at; a path that begins
//! without signal has no finite `sigma_max` and needs one given.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::spaced::{Spaced, Told, Within};
use crate::grid::{Entry, Grid, Last};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "karras",
    seam: Seam::Grid,
    title: "Elucidating the Design Space of Diffusion-Based Generative Models",
    source: "2206.00364",
    year: 2022,
    what: "sigma in equal parts of its 1/rho-th power",
    aliases: &["use_karras_sigmas"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Karras>()?)),
    defaults: defaults_of::<Karras>,
    known_failures: &[],
};

/// EDM's grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Karras {
    /// The exponent. The default, 7, is the paper's.
    pub rho: f64,
    /// The cleanest sigma before the clean end; the process's own by default.
    pub sigma_min: Option<f64>,
    /// The noisiest sigma; the process's own by default.
    pub sigma_max: Option<f64>,
    /// Whose ends it has, where they are not said. The default is the process's.
    pub within: Within,
    /// The offset of `leading` there. The default is 0.
    pub offset: usize,
    /// What the network is told. The default is the time between the trained steps.
    pub told: Told,
    /// Where the grid ends. The default, clean, is the paper's.
    pub last: Last,
}

impl Default for Karras {
    fn default() -> Self {
        Self {
            rho: 7.0,
            sigma_min: None,
            sigma_max: None,
            within: Within::Process,
            offset: 0,
            told: Told::Exact,
            last: Last::Clean,
        }
    }
}

impl Grid for Karras {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        if !self.rho.is_finite() || self.rho <= 0.0 {
            let why = format!("{}, wanted a positive number", self.rho);
            return Err(Error::setting("grid karras:rho", why));
        }
        let spaced = Spaced {
            part: "karras",
            sigma_min: self.sigma_min,
            sigma_max: self.sigma_max,
            within: self.within,
            offset: self.offset,
            told: self.told,
            last: self.last,
        };
        spaced.levels(process, steps, |low, high, u| {
            let (a, b) = (high.powf(1.0 / self.rho), low.powf(1.0 / self.rho));
            (a + u * (b - a)).powf(self.rho)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Edm;

    #[test]
    fn the_papers_grid_of_18_steps() {
        let levels = Karras::default().levels(&Edm::default(), 18).unwrap();
        let (a, b) = (80.0_f64.powf(1.0 / 7.0), 0.002_f64.powf(1.0 / 7.0));
        assert!((levels[0].sigma - 80.0).abs() < 1e-9);
        assert!((levels[1].sigma - (a + (b - a) / 17.0).powi(7)).abs() < 1e-9);
        assert!((levels[17].sigma - 0.002).abs() < 1e-12);
    }

    #[test]
    fn with_rho_1_sigma_falls_evenly() {
        let grid = Karras { rho: 1.0, ..Karras::default() };
        let levels = grid.levels(&Edm::default(), 5).unwrap();
        let gaps: Vec<f64> = levels[..5].windows(2).map(|p| p[0].sigma - p[1].sigma).collect();
        assert!(gaps.iter().all(|g| (g - gaps[0]).abs() < 1e-12));
    }

    #[test]
    fn whole_steps_need_a_table() {
        let grid = Karras { told: Told::Nearest, ..Karras::default() };
        assert!(matches!(grid.levels(&Edm::default(), 5), Err(Error::Unsupported { .. })));
    }
}
