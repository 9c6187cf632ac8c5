//! Sigma in a geometric row.
//!
//! k-diffusion's exponential schedule (Crowson 2022); the limit of EDM's grid for a large `rho`.
//!
//! ```text
//! ln sigma_k = ln sigma_max + k / (n - 1) (ln sigma_min - ln sigma_max)
//! ```
//!
//! in `sigma_edm`. The same levels as `log-snr` between the same ends; both names are in use.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::grid::spaced::{Spaced, Told, Within};
use crate::grid::{Entry, Grid, Last};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "exponential",
    seam: Seam::Grid,
    title: "k-diffusion",
    source: "Crowson, k-diffusion, 2022",
    year: 2022,
    what: "sigma in a geometric row",
    aliases: &["use_exponential_sigmas"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Exponential>()?)),
    defaults: defaults_of::<Exponential>,
    known_failures: &[],
};

/// Sigma in a geometric row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exponential {
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
    /// Where the grid ends. The default is clean.
    pub last: Last,
}

impl Grid for Exponential {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        let spaced = Spaced {
            part: "exponential",
            sigma_min: self.sigma_min,
            sigma_max: self.sigma_max,
            within: self.within,
            offset: self.offset,
            told: self.told,
            last: self.last,
        };
        spaced.levels(process, steps, |low, high, u| (high.ln() + u * (low.ln() - high.ln())).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Edm;

    #[test]
    fn every_sigma_is_the_same_share_of_the_one_before() {
        let levels = Exponential::default().levels(&Edm::default(), 6).unwrap();
        let share = (0.002_f64 / 80.0).powf(0.2);
        for pair in levels[..6].windows(2) {
            assert!((pair[1].sigma / pair[0].sigma - share).abs() < 1e-12);
        }
    }
}
