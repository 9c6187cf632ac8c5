//! `tweedie devices`.

use anyhow::Result;
use serde_json::json;
use tweedie::engine::{KINDS, built_with, bytes, devices};

use crate::output;

/// List the devices that this program was built for and this machine has.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (built, found) = (built_with(), devices());
    if args.json {
        let report = json!({ "built_with": built, "devices": found });
        output::say(&serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    for device in &found {
        let memory = device.memory.map(|m| format!(", {}", bytes(m))).unwrap_or_default();
        let free = device.available.map(|m| format!(" ({} free)", bytes(m)));
        output::say(&format!(
            "{:10} {}{memory}{}",
            device.name,
            device.what,
            free.unwrap_or_default()
        ));
    }
    let missing: Vec<&str> = KINDS.into_iter().filter(|k| !built.contains(k)).collect();
    if !missing.is_empty() {
        output::warn(&format!(
            "built for {}; a build with `--features {}` reaches more",
            built.join(", "),
            missing.join("|")
        ));
    }
    Ok(())
}
