//! Training steps at an even integer spacing, the noisiest ones left out.
//!
//! The spacing of DDPM and DDIM, named in Lin et al., "Common Diffusion Noise Schedules and Sample
//! Steps are Flawed", 2023, [arXiv:2305.08891](https://arxiv.org/abs/2305.08891), Table 2.
//!
//! ```text
//! step_k = k floor(N / steps) + offset          k = steps - 1, ..., 0
//! ```
//!
//! The rounding is that of diffusers 0.42. Its multistep classes divide by `steps + 1` and drop the
//! cleanest step (`drop_last`). Stable latent diffusion has `offset = 1`.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::{Entry, Grid, Last, at_steps, cut, table};
use crate::level::Level;
use crate::process::Process;

pub(crate) const CARD: Card = Card {
    id: "leading",
    seam: Seam::Grid,
    title: "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    source: "2305.08891",
    year: 2023,
    what: "training steps at an even integer spacing, the noisiest left out",
    aliases: &["LeadingSpacing", "DDIM Uniform"],
    ledger: "",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Leading>()?)),
    defaults: defaults_of::<Leading>,
    known_failures: &[],
};

/// Training steps at an even integer spacing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leading {
    /// Added to every step, `steps_offset` in diffusers. The default is 0.
    pub offset: usize,
    /// Lays one step more and drops the cleanest, as diffusers' multistep classes do. The default
    /// is no.
    pub drop_last: bool,
    /// Steps with a smaller `lambda` are left out, `lambda_min_clipped` in diffusers; none by default.
    pub lambda_min: Option<f64>,
    /// Where the grid ends. The default is clean.
    pub last: Last,
}

impl Grid for Leading {
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>> {
        let count = table(process, "leading")?;
        let drop = usize::from(self.drop_last);
        let kept = cut(process, self.lambda_min, "leading")?;
        let ratio = kept.checked_div(steps.saturating_add(drop)).unwrap_or(0);
        if ratio == 0 || steps == 0 {
            let why = format!("{steps} steps of a table of {count}");
            return Err(Error::setting("grid leading: steps", why));
        }
        let at = |k: usize| (k + drop) * ratio + self.offset;
        if at(steps - 1) >= count {
            let why = format!("{}, the table ends at {}", at(steps - 1), count - 1);
            return Err(Error::setting("grid leading:offset", why));
        }
        let taus: Vec<f64> = (0..steps).rev().map(|k| at(k) as f64).collect();
        at_steps(process, &taus, self.last, "leading")
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
        let wanted: Vec<f64> = (0..10).rev().map(|k| f64::from(k) * 100.0 + 1.0).collect();
        assert_eq!(steps(&Leading { offset: 1, ..Leading::default() }, 10), wanted);
        let multistep = Leading { drop_last: true, ..Leading::default() };
        assert_eq!(steps(&multistep, 3), [750.0, 500.0, 250.0]);
    }

    #[test]
    fn the_end_may_be_the_tables_first_step() {
        let path = VpTable::new(&Table::default()).unwrap();
        let grid = Leading { offset: 1, last: Last::SigmaMin, ..Leading::default() };
        assert_eq!(grid.levels(&path, 10).unwrap()[10], path.at(0.0));
    }
}
