//! Training steps at an even spacing that begins with the noisiest one.
//!
//! Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023,
//! [arXiv:2305.08891](https://arxiv.org/abs/2305.08891), Table 2 and section 3.3.
//!
//! ```text
//! step_k = round(N - k N / steps) - 1          k = 0, ..., steps - 1
//! ```
//!
//! The rounding is that of diffusers 0.42: halves to even, on numbers that carry the rounding errors
//! of a running sum's step. Where there the errors give one step too many, the surplus is left out
//! here.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::{Entry, Grid, Last, at_steps, cut, table};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "trailing",
    seam: Seam::Grid,
    title: "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    source: "2305.08891",
    year: 2023,
    what: "training steps at an even spacing that begins with the noisiest",
    aliases: &["simple", "TrailingSpacing"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Trailing>()?)),
    defaults: defaults_of::<Trailing>,
    known_failures: &[],
};

/// Training steps at an even spacing that begins with the noisiest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trailing {
    /// Steps with a smaller `lambda` are left out, `lambda_min_clipped` in diffusers, and the run is
    /// shorter by them; none by default.
    pub lambda_min: Option<f64>,
    /// Where the grid ends. The default is clean.
    pub last: Last,
}

impl Grid for Trailing {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        let count = table(process, "trailing")?;
        if !(1..=count).contains(&steps) {
            let why = format!("{steps} steps of a table of {count}");
            return Err(Error::setting("grid trailing: steps", why));
        }
        let n = count as f64;
        let stride = (n - n / steps as f64) - n;
        let kept = cut(process, self.lambda_min, "trailing")? as f64;
        let left = ((kept / -stride).ceil() as usize).clamp(1, steps);
        let tau = |k: usize| (kept + k as f64 * stride).round_ties_even() - 1.0;
        let taus: Vec<f64> = (0..left).map(tau).collect();
        at_steps(process, &taus, self.last, "trailing")
    }
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
    fn table_2_of_the_paper() {
        let wanted: Vec<f64> = (0..10).map(|k| 999.0 - f64::from(k) * 100.0).collect();
        assert_eq!(steps(&Trailing::default(), 10), wanted);
    }

    #[test]
    fn halves_go_to_even() {
        // 1000 - 62.5 is 937.5, which rounds to 938; 1000 - 3 * 62.5 is 812.5, which rounds to 812.
        let found = steps(&Trailing::default(), 16);
        assert_eq!(found[..4], [999.0, 937.0, 874.0, 811.0]);
    }
}
