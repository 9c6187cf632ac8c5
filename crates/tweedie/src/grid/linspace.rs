//! Training steps, or times, in equal parts from one end to the other.
//!
//! The spacing of improved DDPM (Nichol and Dhariwal 2021), named in Lin et al., "Common Diffusion
//! Noise Schedules and Sample Steps are Flawed", 2023,
//! [arXiv:2305.08891](https://arxiv.org/abs/2305.08891), Table 2.
//!
//! ```text
//! step_k = round((N - 1) k / (steps - 1))          k = steps - 1, ..., 0
//! ```
//!
//! The rounding is that of diffusers 0.42. Its Euler and Heun classes do not round, and take the
//! sigma between two steps of the table linearly in `sigma_edm` (`round=false`); its multistep
//! classes lay one step more and drop the cleanest (`drop_last`). A process in continuous time gets
//! equal parts of `t` between its ends.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::{Entry, Grid, Last, at_steps, checked, cut};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "linspace",
    seam: Seam::Grid,
    title: "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    source: "2305.08891",
    year: 2023,
    what: "training steps or times in equal parts from end to end",
    aliases: &["Uniform", "normal", "LinspaceSpacing"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Linspace>()?)),
    defaults: defaults_of::<Linspace>,
    known_failures: &[],
};

/// Training steps, or times, in equal parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Linspace {
    /// Whether only whole training steps are taken. The default is yes; it means nothing to a
    /// process in continuous time.
    pub round: bool,
    /// Lays one step more and drops the cleanest, as diffusers' multistep classes do. The default
    /// is no.
    pub drop_last: bool,
    /// Steps with a smaller `lambda` are left out, `lambda_min_clipped` in diffusers; none by default.
    pub lambda_min: Option<f64>,
    /// Where the grid ends. The default is clean.
    pub last: Last,
}

impl Default for Linspace {
    fn default() -> Self {
        Self { round: true, drop_last: false, lambda_min: None, last: Last::Clean }
    }
}

impl Grid for Linspace {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        if steps == 0 {
            return Err(Error::setting("grid linspace: steps", "0, wanted at least 1"));
        }
        let points = steps + usize::from(self.drop_last);
        // One point is the cleanest, as in numpy, from which the rounding rules come.
        let share = |k: usize| if points == 1 { 0.0 } else { k as f64 / (points - 1) as f64 };
        let down = (points - steps..points).rev();
        let Some(count) = process.table_steps() else {
            let (clean, noisy) = process.ends();
            let at = |k| {
                process.at(if points == 1 { noisy } else { clean + (noisy - clean) * share(k) })
            };
            let mut levels: Vec<Level> = down.map(at).collect();
            levels.push(self.last.level(process, levels.last()));
            return checked(levels, self.last, "linspace");
        };
        let kept = cut(process, self.lambda_min, "linspace")?;
        let tau = |k| share(k) * (kept - 1) as f64;
        if self.round {
            let taus: Vec<f64> = down.map(|k| tau(k).round_ties_even()).collect();
            return at_steps(process, &taus, self.last, "linspace");
        }
        let mut levels: Vec<Level> = down.map(|k| between(process, tau(k), count)).collect();
        levels.push(self.last.level(process, levels.last()));
        checked(levels, self.last, "linspace")
    }
}

/// The level at a fractional training step whose `sigma_edm` is linear between whole ones.
fn between(process: &dyn Process, tau: f64, count: usize) -> Level {
    let n = count as f64;
    let (low, high) = (process.at(tau.floor() / n), process.at(tau.ceil() / n));
    let w = tau - tau.floor();
    if w == 0.0 || high.alpha == 0.0 {
        return process.at(tau / n);
    }
    let sigma = (1.0 - w) * low.sigma_edm() + w * high.sigma_edm();
    Level { t: tau / n, ..process.at_lambda(-sigma.ln()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::vp_table::{Table, VpTable};

    fn steps(grid: &dyn Grid, count: usize) -> Vec<f64> {
        let path = VpTable::new(&Table::default()).unwrap();
        let levels = grid.levels(&path, count).unwrap();
        levels[..count].iter().map(|l| (l.t * 1000.0 * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn whole_and_fractional_steps() {
        assert_eq!(steps(&Linspace::default(), 3), [999.0, 500.0, 0.0]);
        let plain = Linspace { round: false, ..Linspace::default() };
        assert_eq!(steps(&plain, 3), [999.0, 499.5, 0.0]);
        let multistep = Linspace { drop_last: true, ..Linspace::default() };
        assert_eq!(steps(&multistep, 3), [999.0, 666.0, 333.0]);
    }

    #[test]
    fn between_two_steps_sigma_is_linear() {
        let path = VpTable::new(&Table::default()).unwrap();
        let plain = Linspace { round: false, ..Linspace::default() };
        let found = plain.levels(&path, 3).unwrap()[1].sigma_edm();
        let wanted = 0.5 * (path.at(0.499).sigma_edm() + path.at(0.5).sigma_edm());
        assert!((found - wanted).abs() < 1e-12);
    }
}
