//! Levels from a list: what somebody, or a search, has found to be good.
//!
//! Sabour, Fidler and Kreis, "Align Your Steps", 2024, [arXiv:2404.14507](https://arxiv.org/abs/2404.14507),
//! publish such lists, and use them for another count of steps by interpolating the logarithm of
//! sigma evenly along the list, as is done here.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::{Entry, Grid, Last, at_sigmas, checked, points, ramp, sigma_ends};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "listed",
    seam: Seam::Grid,
    title: "Align Your Steps: Optimizing Sampling Schedules in Diffusion Models",
    source: "2404.14507",
    year: 2024,
    what: "levels from a list, interpolated for another count",
    aliases: &[],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Listed>()?.validated()?)),
    defaults: defaults_of::<Listed>,
    known_failures: &[],
};

/// Levels from a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listed {
    /// The levels by their EDM sigma, falling, the clean end left out. The default is the two ends of
    /// the process.
    pub sigmas: Vec<f64>,
    /// Or by their time, 0 to 1, falling, the clean end left out.
    pub times: Vec<f64>,
    /// What the list was made for, in words; nothing follows from it.
    pub tuned_for: String,
}

impl Listed {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where there are two lists, or one that does not fall.
    pub fn validated(self) -> Result<Self> {
        let wrong = |why: &str| Err(Error::setting("grid listed", why));
        if !self.sigmas.is_empty() && !self.times.is_empty() {
            return wrong("sigmas and times are both given, one of them is wanted");
        }
        for list in [&self.sigmas, &self.times] {
            let falls = list.windows(2).all(|pair| pair[0] > pair[1]);
            if !falls || list.iter().any(|v| !v.is_finite() || *v < 0.0) {
                return wrong("a list that falls and does not go below 0 is wanted");
            }
        }
        // The first step of a table is noisy at a time of 0; a sigma of 0 is the clean end.
        if self.sigmas.contains(&0.0) {
            return wrong("the clean end is left out of sigmas");
        }
        if self.times.first().is_some_and(|t| *t > 1.0) {
            return wrong("times end at 1");
        }
        Ok(self)
    }

    /// How many steps the list is for; `None` for the default.
    pub fn steps(&self) -> Option<usize> {
        let count = self.sigmas.len().max(self.times.len());
        (count > 0).then_some(count)
    }
}

/// `count` values evenly along a list, between its entries on straight lines.
fn along(list: &[f64], count: usize) -> Vec<f64> {
    if count == list.len() {
        return list.to_vec();
    }
    let last = list.len().saturating_sub(1);
    let value = |u: f64| {
        let place = u * last as f64;
        let i = (place as usize).min(last.saturating_sub(1));
        let part = place - i as f64;
        let (a, b) = (list[i], list[(i + 1).min(last)]);
        if part == 1.0 { b } else { a + part * (b - a) }
    };
    ramp(count).map(value).collect()
}

impl Grid for Listed {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        let count = points(steps, Last::Clean, "listed")?;
        if !self.times.is_empty() {
            let mut levels: Vec<Level> =
                along(&self.times, count).into_iter().map(|t| process.at(t)).collect();
            levels.push(Level::CLEAN);
            return checked(levels, Last::Clean, "listed");
        }
        if count == self.sigmas.len() {
            return at_sigmas(process, &self.sigmas, Last::Clean, "listed");
        }
        let logs: Vec<f64> = if self.sigmas.is_empty() {
            let (low, high) = sigma_ends(process, None, None, "listed")?;
            vec![high.ln(), low.ln()]
        } else {
            self.sigmas.iter().map(|s| s.ln()).collect()
        };
        let sigmas: Vec<f64> = along(&logs, count).into_iter().map(f64::exp).collect();
        at_sigmas(process, &sigmas, Last::Clean, "listed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Edm, Flow};

    #[test]
    fn a_list_is_taken_as_it_is_or_interpolated() {
        let sigmas = vec![14.0, 3.5, 0.5];
        let grid = Listed { sigmas: sigmas.clone(), ..Listed::default() }.validated().unwrap();
        let of = |steps: usize| -> Vec<f64> {
            let levels = grid.levels(&Edm::default(), steps).unwrap();
            levels.iter().map(|l| l.sigma).collect()
        };
        assert_eq!(grid.steps(), Some(3));
        let near = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
        };
        assert!(near(&of(3), &[14.0, 3.5, 0.5, 0.0]), "{:?}", of(3));
        let five = [14.0, 7.0, 3.5, (3.5_f64 * 0.5).sqrt(), 0.5, 0.0];
        assert!(near(&of(5), &five), "{:?}", of(5));
        let times = Listed { times: vec![1.0, 0.6, 0.1], ..Listed::default() };
        let levels = times.validated().unwrap().levels(&Flow::default(), 2).unwrap();
        assert!(near(&levels.iter().map(|l| l.t).collect::<Vec<_>>(), &[1.0, 0.1, 0.0]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (sigmas, times) in [
            (vec![1.0], vec![0.5]),
            (vec![1.0, 2.0], vec![]),
            (vec![1.0, 0.0], vec![]),
            (vec![], vec![1.5, 0.5]),
            (vec![f64::NAN], vec![]),
        ] {
            let listed = Listed { sigmas, times, ..Listed::default() };
            assert!(listed.clone().validated().is_err(), "{listed:?}");
        }
        let high = Listed { sigmas: vec![1e9, 1.0], ..Listed::default() };
        assert!(high.levels(&Edm::default(), 2).is_err());
    }
}
