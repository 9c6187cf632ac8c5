//! The grid of flow models: equal parts of time, shifted towards noise.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024,
//! [arXiv:2403.03206](https://arxiv.org/abs/2403.03206), equation 23.
//!
//! ```text
//! sigma_k = shift u_k / (1 + (shift - 1) u_k)          u_k from 1 down
//! ```
//!
//! The network is told the shifted time. Which `u` are laid differs between programs:
//! `spacing=table` goes from 1 to the shifted last of 1000 training steps, as diffusers'
//! FlowMatchEuler class does of itself (the shift counts twice at the clean end);
//! `spacing=steps` goes from 1 to `1 / steps`, as pipelines do that hand it their own sigmas.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::{Entry, Grid, Last, checked, ramp};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "shifted",
    seam: Seam::Grid,
    title: "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
    source: "2403.03206",
    year: 2024,
    what: "equal parts of a flow's time, shifted towards noise",
    aliases: &["flow_shift", "use_flow_sigmas"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Shifted>()?)),
    defaults: defaults_of::<Shifted>,
    known_failures: &[],
};

/// Which times are laid before the shift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spacing {
    /// From 1 to the shifted last training step.
    #[default]
    Table,
    /// From 1 to `1 / steps`.
    Steps,
}

/// Equal parts of time, shifted towards noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shifted {
    /// How far; 1 is not at all. The default, 3, is the paper's for pictures of 1024x1024.
    pub shift: f64,
    /// Which times are laid. The default is the training table's.
    pub spacing: Spacing,
    /// Training steps, for the table's spacing. The default is 1000.
    pub train_steps: usize,
}

impl Default for Shifted {
    fn default() -> Self {
        Self { shift: 3.0, spacing: Spacing::Table, train_steps: 1000 }
    }
}

impl Shifted {
    fn shifted(&self, u: f64) -> f64 {
        self.shift * u / (1.0 + (self.shift - 1.0) * u)
    }
}

impl Grid for Shifted {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        if !self.shift.is_finite() || self.shift <= 0.0 {
            let why = format!("{}, wanted a positive number", self.shift);
            return Err(Error::setting("grid shifted:shift", why));
        }
        if steps == 0 || self.train_steps < 2 {
            let why = format!("{steps} of {}, wanted at least 1 of 2", self.train_steps);
            return Err(Error::setting("grid shifted: steps, train_steps", why));
        }
        let straight = |t: f64| (process.at(t).alpha + process.at(t).sigma - 1.0).abs() < 1e-12;
        if !straight(0.25) || !straight(0.75) {
            return Err(Error::unsupported("grid shifted", "the straight path of `flow`"));
        }
        let lowest = match self.spacing {
            Spacing::Table => self.shifted(1.0 / self.train_steps as f64),
            Spacing::Steps => 1.0 / steps as f64,
        };
        let level = |u: f64| {
            let sigma = self.shifted(1.0 + u * (lowest - 1.0));
            let near = process.at(sigma);
            // On a path that is bent itself, sigma is not the time.
            if (near.sigma - sigma).abs() < 1e-15 {
                return near;
            }
            process.at_lambda(((1.0 - sigma) / sigma).ln())
        };
        let mut levels: Vec<Level> = ramp(steps).map(level).collect();
        levels.push(Level::CLEAN);
        checked(levels, Last::Clean, "shifted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Flow;

    #[test]
    fn half_of_the_way_shifted_by_three_is_three_quarters() {
        let grid = Shifted { spacing: Spacing::Steps, ..Shifted::default() };
        let found: Vec<f64> =
            grid.levels(&Flow::default(), 2).unwrap().iter().map(|l| l.sigma).collect();
        assert_eq!(found, [1.0, 0.75, 0.0]);
    }

    #[test]
    fn of_itself_diffusers_shifts_the_clean_end_twice() {
        let levels = Shifted::default().levels(&Flow::default(), 5).unwrap();
        let once = 3.0 * 0.001 / 1.002;
        assert!((levels[4].sigma - 3.0 * once / (1.0 + 2.0 * once)).abs() < 1e-15);
    }

    #[test]
    fn a_path_that_is_bent_itself_gets_the_same_noise() {
        let bent = Flow { shift: 2.0, ..Flow::default() };
        let (a, b) = (
            Shifted::default().levels(&bent, 5).unwrap(),
            Shifted::default().levels(&Flow::default(), 5).unwrap(),
        );
        assert!(a.iter().zip(&b).all(|(a, b)| (a.sigma - b.sigma).abs() < 1e-14));
        assert!((a[1].t - b[1].t).abs() > 0.01);
    }
}
