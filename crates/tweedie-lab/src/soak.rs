//! Long runs of what the tests run with reduced counts.

use anyhow::{Result, anyhow, bail};
use tweedie::hub::fuzz;

/// What can be run at length: name, full count, and what it does.
const RUNS: &[(&str, usize, &str)] = &[
    ("safetensors", 20_000, "mutated files of weights: never a panic, always a result or one line"),
    ("settings", 20_000, "mutated settings files, likewise"),
];

/// Runs one by name, or lists them.
pub(crate) fn run(
    name: Option<&str>,
    count: Option<usize>,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let Some(name) = name else {
        for (name, count, what) in RUNS {
            say(format!("{name:16} {count:>7}  {what}"));
        }
        return Ok(());
    };
    let Some((_, full, _)) = RUNS.iter().find(|(n, ..)| *n == name) else {
        return Err(tweedie::Error::unknown("soak", name, RUNS.iter().map(|(n, ..)| *n)).into());
    };
    let count = count.unwrap_or(*full);
    let tally = match name {
        "safetensors" => fuzz::safetensors(count, 1),
        "settings" => fuzz::settings(count, 1),
        _ => bail!("`{name}` is listed and not run"),
    };
    let tally = tally.map_err(|why| anyhow!("{why}"))?;
    say(format!("{name}: {count} cases, {tally:?}"));
    Ok(())
}
