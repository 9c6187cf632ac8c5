//! What a run takes: the type of weights and the machine's memory.

use anyhow::{Context, Result};
use tweedie::engine::Needs;
use tweedie::hub::Opened;
use tweedie::spec::{MemoryMode, Spec, Storage};

use crate::output;

/// What weights are held in.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Stored {
    F32,
    F16,
    Bf16,
    /// The linear layers of the denoising network in 8 bits, a quarter of their memory; the rest stays as it is.
    Int8,
}

impl Stored {
    pub(crate) fn storage(self) -> Storage {
        match self {
            Self::F32 => Storage::F32,
            Self::F16 => Storage::F16,
            Self::Bf16 => Storage::Bf16,
            Self::Int8 => Storage::Int8,
        }
    }
}

/// What `--memory` asks for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Memory {
    /// Several pictures at once where their activations stay below half a gibibyte; the autoencoder by tiles
    /// above 1.5 megapixels.
    Auto,
    /// One picture at a time, one branch of guidance after the other, the autoencoder by tiles of 256 pixels.
    Small,
    /// As many pictures at once as half of the free memory holds, at most eight; no tiles.
    Fast,
}

impl Memory {
    pub(crate) fn mode(self) -> MemoryMode {
        match self {
            Self::Auto => MemoryMode::Auto,
            Self::Small => MemoryMode::Small,
            Self::Fast => MemoryMode::Fast,
        }
    }
}

/// What was said of memory.
pub(crate) struct Demands {
    /// How many pictures go through the network at once.
    pub(crate) batch: Option<usize>,
    /// Run even where the machine seems to lack the memory.
    pub(crate) force: bool,
    /// Say nothing that is not asked for.
    pub(crate) quiet: bool,
}

/// What the run will need of memory; chooses the batch by it where nothing was said, and refuses
/// what the machine does not have.
pub(crate) fn measured(said: &Demands, spec: &mut Spec, opened: &Opened) -> Result<Needs> {
    for note in &opened.notes {
        output::warn(note);
    }
    if opened.folder.components().any(|c| c == "safety_checker") {
        output::warn("the model's safety_checker is not run: this program does not judge pictures");
    }
    let needs = Needs::of(&opened.folder, spec)?;
    if said.batch.is_none() {
        spec.batch = needs.batch(spec.memory).min(spec.count);
    }
    if !said.quiet {
        output::warn(&format!("memory: {needs}"));
    }
    if !said.force {
        needs.check(spec.batch).context("--force runs it all the same")?;
    }
    Ok(needs)
}
