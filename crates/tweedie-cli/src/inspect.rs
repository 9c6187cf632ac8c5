//! `tweedie inspect`.

use std::path::PathBuf;

use anyhow::Result;
use tweedie::engine::wanted;
use tweedie::hub::{Folder, builtin, inspect, inspect_folder};

use crate::output;

/// Say what a model folder or a file of weights holds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder, a safetensors file, or `builtin:NAME`.
    path: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let name = args.path.to_string_lossy();
    let wants = wanted;
    let report = if name.starts_with(builtin::PREFIX) {
        inspect_folder(&Folder::resolve(&name)?, &wants)?
    } else {
        inspect(&args.path, &wants)?
    };
    if args.json {
        output::say(&serde_json::to_string_pretty(&report)?);
    } else {
        output::say(report.to_string().trim_end());
    }
    Ok(())
}
