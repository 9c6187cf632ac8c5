//! Settings of `CLIPTextModel`.

use serde::{Deserialize, Serialize};

use super::{Config, MAX_CHANNELS, MAX_LAYERS, above_zero, divides, dropout, within};
use crate::{Error, Result};

/// The activation of the feed-forward layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenActivation {
    /// `x sigmoid(1.702 x)`.
    #[default]
    QuickGelu,
    /// `x Phi(x)`, with the normal distribution function.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// The same with tanh for the distribution function.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast", alias = "gelu_accurate")]
    GeluNew,
    /// `x sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// Settings of `CLIPTextModel`: a causal transformer over tokens (Radford et al., "Learning
/// transferable visual models from natural language supervision", arXiv:2103.00020, section 2.4).
/// The defaults are the class's in transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipTextConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// The width of the network.
    pub hidden_size: usize,
    /// The width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Width of the projection of the class that has one; the files of the other hold it too.
    pub projection_dim: Option<usize>,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// The activation.
    pub hidden_act: HiddenActivation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// Dropout of the attention, while training.
    pub attention_dropout: f64,
    /// Deviation of fresh weights.
    pub initializer_range: f64,
    /// A factor on the deviation of fresh weights.
    pub initializer_factor: f64,
    /// The token that fills sequences up; the tokenizer's own settings decide.
    pub pad_token_id: Option<usize>,
    /// The token that begins a sequence.
    pub bos_token_id: Option<usize>,
    /// The token that ends a sequence, whose position the pooled output is taken from. The value 2
    /// stands for the token with the highest id: old files hold it by mistake.
    pub eos_token_id: Option<usize>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: Some(512),
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: HiddenActivation::QuickGelu,
            layer_norm_eps: 1e-5,
            attention_dropout: 0.0,
            initializer_range: 0.02,
            initializer_factor: 1.0,
            pad_token_id: Some(1),
            bos_token_id: Some(49406),
            eos_token_id: Some(49407),
        }
    }
}

impl ClipTextConfig {
    /// The class with a projection of the pooled output, which has the same settings.
    pub const WITH_PROJECTION: &'static str = "CLIPTextModelWithProjection";
}

impl Config for ClipTextConfig {
    const CLASS: &'static str = "CLIPTextModel";
    const OTHERS: &'static [&'static str] = &[Self::WITH_PROJECTION];
    const IGNORED: &'static [&'static str] =
        &["architectures", "dropout", "dtype", "model_type", "torch_dtype", "transformers_version"];

    fn validate(&self) -> Result<()> {
        within("vocab_size", self.vocab_size, 1 << 22)?;
        within("hidden_size", self.hidden_size, MAX_CHANNELS)?;
        within("intermediate_size", self.intermediate_size, MAX_CHANNELS * 4)?;
        within("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS)?;
        within("num_attention_heads", self.num_attention_heads, MAX_LAYERS)?;
        let heads = self.num_attention_heads;
        divides("hidden_size", self.hidden_size, "num_attention_heads", heads)?;
        within("max_position_embeddings", self.max_position_embeddings, 1 << 16)?;
        above_zero("layer_norm_eps", self.layer_norm_eps)?;
        dropout("attention_dropout", self.attention_dropout)?;
        if let Some(dim) = self.projection_dim {
            within("projection_dim", dim, MAX_CHANNELS)?;
        }
        for (key, id) in [("bos_token_id", self.bos_token_id), ("eos_token_id", self.eos_token_id)]
        {
            // The published default of these is that of the full vocabulary, whatever the size of
            // the table; only a value that is neither is a mistake.
            let default = [49406, 49407];
            if let Some(id) = id
                && id >= self.vocab_size
                && !default.contains(&id)
            {
                let why =
                    format!("wanted less than the {} of `vocab_size`, found {id}", self.vocab_size);
                return Err(Error::setting(key, why));
            }
        }
        Ok(())
    }
}
