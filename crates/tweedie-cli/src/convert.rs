//! `tweedie convert`.

use std::path::PathBuf;

use anyhow::Result;
use tweedie::hub::{Dtype, Target, convert};

use crate::output;
use crate::parts::PartArgs;

/// Write a model in another layout or in narrower numbers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder, a file of weights, `organisation/name` in the Hugging Face cache, or `builtin:NAME`.
    source: String,
    /// Where to write; what is there is replaced, in one piece.
    destination: PathBuf,
    /// Store real numbers as this type; by default they stay as they are, bit for bit.
    #[arg(long, value_enum)]
    dtype: Option<Stored>,
    /// What to write; by default a file where the destination ends in `.safetensors`, else a folder.
    #[arg(long, value_enum)]
    to: Option<Kind>,
    #[command(flatten)]
    parts: PartArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Stored {
    F32,
    F16,
    Bf16,
    /// E4M3, without infinities.
    #[value(alias = "f8", alias = "fp8-e4m3")]
    Fp8,
    #[value(name = "fp8-e5m2")]
    Fp8E5m2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// As diffusers lays it out.
    Folder,
    /// A single file in the original layout.
    File,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dtype = args.dtype.map(|stored| match stored {
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::Bf16 => Dtype::BF16,
        Stored::Fp8 => Dtype::F8_E4M3,
        Stored::Fp8E5m2 => Dtype::F8_E5M2,
    });
    let is_file = args.destination.extension().is_some_and(|e| e == "safetensors" || e == "sft");
    let kind = args.to.unwrap_or(if is_file { Kind::File } else { Kind::Folder });
    let opened = args.parts.of(&args.source).open()?;
    opened.notes.iter().for_each(|note| output::warn(&format!("note: {note}")));
    let target = if kind == Kind::File { Target::File } else { Target::Folder };
    let notes = convert(&opened.folder, &args.destination, target, dtype)?;
    notes.iter().for_each(|note| output::warn(&format!("note: {note}")));
    output::say(&format!("wrote {}", args.destination.display()));
    Ok(())
}
