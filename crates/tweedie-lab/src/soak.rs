//! Long runs of what the tests run with reduced counts.

use anyhow::{Result, anyhow, bail};
use tweedie::hub::fuzz;

/// Counts what is allocated, for the readers' bound.
#[global_allocator]
static ALLOCATED: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// The same as the runs take it.
const MEMORY: fuzz::Memory = fuzz::Memory {
    start: || {
        ALLOCATED.reset_peak_usage();
        ALLOCATED.current_usage()
    },
    most: || ALLOCATED.peak_usage(),
};

/// What can be run at length: name, full count, and what it does.
const RUNS: &[(&str, usize, &str)] = &[
    ("safetensors", 20_000, "mutated files of weights: never a panic, always a result or one line"),
    ("settings", 20_000, "mutated settings files, likewise"),
    ("torch", 20_000, "mutated files of PyTorch, likewise"),
    ("layouts", 20_000, "single files with broken keys and shapes, likewise"),
    ("files", 5_000, "all four, so many of each"),
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
    let runs: &[&str] =
        if name == "files" { &["safetensors", "settings", "torch", "layouts"] } else { &[name] };
    for run in runs {
        // Twice the file, with what a message takes beside it; a damaged file must not cost more.
        let tally = match *run {
            "safetensors" => fuzz::safetensors(count, 1, Some(&MEMORY)),
            "settings" => fuzz::settings(count, 1, Some(&MEMORY)),
            "torch" => fuzz::torch(count, 1, Some(&MEMORY)),
            "layouts" => fuzz::layouts(count, 1, Some(&MEMORY)),
            _ => bail!("`{run}` is listed and not run"),
        };
        let tally = tally.map_err(|why| anyhow!("{run}: {why}"))?;
        say(format!("{run}: {count} cases, {tally:?}"));
    }
    Ok(())
}
