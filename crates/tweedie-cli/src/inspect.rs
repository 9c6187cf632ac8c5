//! `tweedie inspect`.

use anyhow::Result;
use tweedie::engine::wanted;
use tweedie::hub::inspect_parts;

use crate::output;
use crate::parts::PartArgs;

/// Say what a model folder or a file of weights is, and all that it lacks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder, a file of weights, `organisation/name` in the Hugging Face cache, or `builtin:NAME`.
    path: String,
    /// Print as JSON, every tensor included.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parts: PartArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let report = inspect_parts(&args.parts.of(&args.path), &wanted)?;
    if args.json {
        output::say(&serde_json::to_string_pretty(&report)?);
    } else {
        output::say(report.to_string().trim_end());
    }
    Ok(())
}
