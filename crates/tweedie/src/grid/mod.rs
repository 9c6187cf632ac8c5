//! Grids: the levels that a run stops at.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

pub mod beta;
pub mod consistency;
pub mod exponential;
pub mod karras;
pub mod leading;
pub mod linspace;
pub mod listed;
pub mod log_snr;
pub mod shifted;
pub mod spaced;
pub mod trailing;

pub use beta::Beta;
pub use consistency::Consistency;
pub use exponential::Exponential;
pub use karras::Karras;
pub use leading::Leading;
pub use linspace::Linspace;
pub use listed::Listed;
pub use log_snr::LogSnr;
pub use shifted::Shifted;
pub use spaced::{Told, Within};
pub use trailing::Trailing;

use crate::catalog::{Card, Made};
use crate::error::{Error, Result};
use crate::level::Level;
use crate::process::Process;

/// The levels that a run stops at; host numbers only.
pub trait Grid: Debug + Send + Sync {
    /// `steps + 1` levels from noise to data, strictly decreasing in noise, the last one clean
    /// unless the grid says otherwise.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`] for a count of steps that the process cannot give;
    /// [`crate::Error::Unsupported`] where the grid needs what the process lacks.
    fn levels(&self, process: &dyn Process, steps: usize) -> Result<Vec<Level>>;
}

/// Where a grid ends; `final_sigmas_type` and `set_alpha_to_one` in diffusers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Last {
    /// At clean data: `alpha = 1`, `sigma = 0`.
    #[default]
    Clean,
    /// At the cleanest level that the process trains at.
    SigmaMin,
    /// There too, with `alpha = 1`: what remains is `x / alpha`, as diffusers' Euler class leaves it.
    Unscaled,
    /// As `unscaled`, after as many levels as a clean end has before it.
    ThenUnscaled,
    /// As `sigma-min`, after as many levels as a clean end has before it: where these go there
    /// already, the last step goes nowhere.
    Then,
    /// At the last level before the end once more, as diffusers' UniPC and DEIS classes do with spaced
    /// sigmas.
    Again,
}

impl Last {
    /// Whether the end is a level besides those that are laid for the steps.
    fn is_apart(self) -> bool {
        !matches!(self, Self::SigmaMin | Self::Unscaled)
    }

    /// The level at the end, where it does not follow from those before.
    fn level(self, process: &dyn Process, before: Option<&Level>) -> Level {
        let cleanest = process.at(process.ends().0);
        match self {
            Self::Clean => Level::CLEAN,
            Self::SigmaMin | Self::Then => cleanest,
            Self::Unscaled | Self::ThenUnscaled => unscaled(cleanest),
            Self::Again => before.copied().unwrap_or(cleanest),
        }
    }
}

/// The same level of `x / alpha`.
fn unscaled(level: Level) -> Level {
    Level::new(level.t, 1.0, level.sigma_edm())
}

/// The training steps of a table, for grids that count in them.
fn table(process: &dyn Process, part: &str) -> Result<usize> {
    process.table_steps().ok_or_else(|| {
        let needs = "a process that is a table of training steps, as `vp-table`";
        Error::unsupported(format!("grid {part}"), needs)
    })
}

/// How many steps of a table hold at least this `lambda`: the rest is left out.
fn cut(process: &dyn Process, lambda_min: Option<f64>, part: &str) -> Result<usize> {
    let count = table(process, part)?;
    let Some(least) = lambda_min else { return Ok(count) };
    let kept =
        (0..count).filter(|&i| process.at(i as f64 / count as f64).lambda() >= least).count();
    if kept > 0 {
        return Ok(kept);
    }
    Err(Error::setting(format!("grid {part}:lambda_min"), format!("{least} leaves no step")))
}

/// Levels at the given training steps and the last one.
fn at_steps(process: &dyn Process, steps: &[f64], last: Last, part: &str) -> Result<Vec<Level>> {
    let count = table(process, part)? as f64;
    let mut levels: Vec<Level> = steps.iter().map(|tau| process.at(tau / count)).collect();
    levels.push(last.level(process, levels.last()));
    checked(levels, last, part)
}

/// The levels, if noise falls strictly, but for a last step to a noisy end, and everything is finite.
fn checked(levels: Vec<Level>, last: Last, part: &str) -> Result<Vec<Level>> {
    let falls = |pair: &[Level]| pair[0].lambda() < pair[1].lambda();
    let strict = levels.len() - usize::from(last != Last::Clean);
    if levels.iter().all(|l| l.is_finite()) && levels[..strict].windows(2).all(falls) {
        return Ok(levels);
    }
    let why = format!("{} steps do not make a strictly falling grid here", levels.len() - 1);
    Err(Error::setting(format!("grid {part}"), why))
}

/// The ends of a grid in EDM's sigma, `(cleanest, noisiest)`: the settings', else the process's.
fn sigma_ends(
    process: &dyn Process,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    part: &str,
) -> Result<(f64, f64)> {
    let (clean, noisy) = process.ends();
    let low = sigma_min.unwrap_or_else(|| process.at(clean).sigma_edm());
    let high = sigma_max.unwrap_or_else(|| process.at(noisy).sigma_edm());
    if high == f64::INFINITY && sigma_max.is_none() {
        let needs = "a noisiest level that holds some signal, or a noisy end in its settings";
        return Err(Error::unsupported(format!("grid {part}"), needs));
    }
    if low.is_nan() || high.is_nan() || low <= 0.0 || high <= low || high.is_infinite() {
        let why = format!("{low} and {high}, wanted 0 < sigma_min < sigma_max, finite");
        return Err(Error::setting(format!("grid {part}:sigma_min, sigma_max"), why));
    }
    Ok((low, high))
}

/// Levels at the given EDM sigmas, and clean data after them where that is the last.
fn at_sigmas(process: &dyn Process, sigmas: &[f64], last: Last, part: &str) -> Result<Vec<Level>> {
    let mut levels = Vec::with_capacity(sigmas.len() + 1);
    for &sigma in sigmas {
        let level = process.at_lambda(-sigma.ln());
        if (level.sigma_edm() / sigma - 1.0).abs() > 1e-6 {
            let why = format!("the path does not reach {sigma}");
            return Err(Error::setting(format!("grid {part}: sigma"), why));
        }
        levels.push(level);
    }
    if last.is_apart() {
        levels.push(last.level(process, levels.last()));
    } else if last == Last::Unscaled
        && let Some(end) = levels.last_mut()
    {
        *end = unscaled(*end);
    }
    checked(levels, last, part)
}

/// `count` numbers from 0 to 1; just 0 where there is one.
fn ramp(count: usize) -> impl Iterator<Item = f64> {
    let last = count.saturating_sub(1).max(1) as f64;
    (0..count).map(move |i| i as f64 / last)
}

/// The count of levels before the clean one: a level more where the grid ends noisy.
fn points(steps: usize, last: Last, part: &str) -> Result<usize> {
    if steps == 0 {
        return Err(Error::setting(format!("grid {part}: steps"), "0, wanted at least 1"));
    }
    Ok(if last.is_apart() { steps } else { steps + 1 })
}

/// A grid of the catalogue.
pub type Entry = Made<dyn Grid>;

/// Every grid.
pub(crate) const ENTRIES: &[Entry] = &[
    beta::ENTRY,
    consistency::ENTRY,
    exponential::ENTRY,
    karras::ENTRY,
    leading::ENTRY,
    linspace::ENTRY,
    listed::ENTRY,
    log_snr::ENTRY,
    shifted::ENTRY,
    trailing::ENTRY,
];

/// Every grid of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}
