//! What grids of sigmas have in common: their ends, what the network is told, and where they end.

use serde::{Deserialize, Serialize};

use super::{Grid as _, Last, Leading, Linspace, Trailing, at_sigmas, points, ramp, sigma_ends};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::process::Process;

/// Whose ends a grid of sigmas has, where its settings do not say them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Within {
    /// The process's: all that a network was trained at.
    #[default]
    Process,
    /// Those of as many steps of the grid `linspace`, unrounded, as diffusers' Euler classes.
    Linspace,
    /// Those of as many steps of the grid `leading`.
    Leading,
    /// Those of as many steps of the grid `trailing`.
    Trailing,
}

/// What the network is told of a sigma that is none of the trained ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// The time between the trained steps.
    #[default]
    Exact,
    /// The nearest training step, as diffusers' multistep classes; the sigma stays.
    Nearest,
    /// The training step below, where diffusers cuts to whole numbers; the sigma stays.
    Below,
    /// The times of the grid that lends its ends, whatever the sigma.
    Lent,
}

/// The settings of a grid of sigmas.
pub(crate) struct Spaced<'a> {
    pub(crate) part: &'a str,
    pub(crate) sigma_min: Option<f64>,
    pub(crate) sigma_max: Option<f64>,
    pub(crate) within: Within,
    pub(crate) offset: usize,
    pub(crate) told: Told,
    pub(crate) last: Last,
}

impl Spaced<'_> {
    /// The levels at `sigma(low, high, u)` for even `u` from 0, the noisy end, to 1.
    pub(crate) fn levels(
        &self,
        process: &dyn Process,
        steps: usize,
        sigma: impl Fn(f64, f64, f64) -> f64,
    ) -> Result<Vec<Level>> {
        let count = points(steps, self.last, self.part)?;
        let lent = self.lent(process, steps)?;
        let ends = lent.as_ref().and_then(|l| Some((l.get(steps - 1)?, l.first()?)));
        let (low, high) = match ends.filter(|_| self.told != Told::Lent) {
            Some((low, high)) => {
                let low = self.sigma_min.unwrap_or_else(|| low.sigma_edm());
                let high = self.sigma_max.unwrap_or_else(|| high.sigma_edm());
                if high.is_infinite() {
                    let needs =
                        "a noisiest level that holds some signal, or a noisy end in its settings";
                    return Err(Error::unsupported(format!("grid {}", self.part), needs));
                }
                (low, high)
            }
            None => sigma_ends(process, self.sigma_min, self.sigma_max, self.part)?,
        };
        let sigmas: Vec<f64> = ramp(count).map(|u| sigma(low, high, u)).collect();
        let mut levels = at_sigmas(process, &sigmas, self.last, self.part)?;
        self.tell(process, &mut levels, lent.as_deref())?;
        Ok(levels)
    }

    /// The grid that lends its ends.
    fn lent(&self, process: &dyn Process, steps: usize) -> Result<Option<Vec<Level>>> {
        let last = Last::Clean;
        Ok(match self.within {
            Within::Process => None,
            Within::Linspace => {
                let grid = Linspace { round: false, last, ..Linspace::default() };
                Some(grid.levels(process, steps)?)
            }
            Within::Leading => {
                let grid = Leading { offset: self.offset, last, ..Leading::default() };
                Some(grid.levels(process, steps)?)
            }
            Within::Trailing => {
                Some(Trailing { last, ..Trailing::default() }.levels(process, steps)?)
            }
        })
    }

    fn tell(
        &self,
        process: &dyn Process,
        levels: &mut [Level],
        lent: Option<&[Level]>,
    ) -> Result<()> {
        let rounded: fn(f64) -> f64 = match self.told {
            Told::Exact => return Ok(()),
            Told::Nearest => f64::round_ties_even,
            Told::Below => f64::floor,
            Told::Lent => {
                for (level, lent) in levels.iter_mut().zip(lent.unwrap_or_default()) {
                    level.t = lent.t;
                }
                return Ok(());
            }
        };
        let Some(count) = process.table_steps() else {
            let part = format!("grid {}:told", self.part);
            return Err(Error::unsupported(part, "a table of training steps"));
        };
        let n = count as f64;
        for level in levels {
            // A whole step stays whole though `t n` is off by a last bit.
            let step = level.t * n;
            let near = step.round();
            let whole = (step - near).abs() < 1e-12 * n;
            level.t = if whole { near } else { rounded(step) } / n;
        }
        Ok(())
    }
}
