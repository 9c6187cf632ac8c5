//! The options that say where a model's parts come from.

use std::path::PathBuf;

use tweedie::hub::Parts;
use tweedie::hub::scheduler::PredictionType;

/// Where parts of the model come from, in the place of its own.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Parts of the model")]
pub(crate) struct PartArgs {
    /// Take the autoencoder from this file or folder.
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,
    /// Take the first text encoder (CLIP-L; that of Stable Diffusion 2) from this file or folder.
    #[arg(long, alias = "clip_l", value_name = "PATH")]
    clip_l: Option<PathBuf>,
    /// Take the second text encoder (OpenCLIP-bigG) from this file or folder.
    #[arg(long, alias = "clip_g", value_name = "PATH")]
    clip_g: Option<PathBuf>,
    /// Take the tokenizers' vocabulary from this folder.
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,
    /// Take the settings of a single file's parts from this model folder.
    #[arg(long, value_name = "FOLDER")]
    config: Option<PathBuf>,
    /// Take the weights of this variant (`fp16`) where a folder has them.
    #[arg(long)]
    variant: Option<String>,
    /// What the network predicts, where the files do not say it right.
    #[arg(long, value_enum)]
    prediction: Option<Prediction>,
}

/// What a network predicts.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Prediction {
    /// The noise.
    Epsilon,
    /// `v = alpha eps - sigma x0`.
    #[value(alias = "v_prediction")]
    V,
    /// The clean sample.
    Sample,
}

impl PartArgs {
    /// The model `name` with these parts.
    pub(crate) fn of(&self, name: &str) -> Parts {
        let mut parts = Parts::new(name);
        for (path, set) in [
            (&self.vae, Parts::vae as fn(Parts, PathBuf) -> Parts),
            (&self.clip_l, Parts::clip_l),
            (&self.clip_g, Parts::clip_g),
            (&self.tokenizer, Parts::tokenizer),
            (&self.config, Parts::config),
        ] {
            if let Some(path) = path {
                parts = set(parts, path.clone());
            }
        }
        if let Some(variant) = &self.variant {
            parts = parts.variant(variant.clone());
        }
        match self.prediction {
            Some(Prediction::Epsilon) => parts.prediction(PredictionType::Epsilon),
            Some(Prediction::V) => parts.prediction(PredictionType::VPrediction),
            Some(Prediction::Sample) => parts.prediction(PredictionType::Sample),
            None => parts,
        }
    }
}
