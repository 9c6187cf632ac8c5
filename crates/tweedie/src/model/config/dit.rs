//! Settings of `DiTTransformer2DModel`.

use serde::{Deserialize, Serialize};

use super::{
    Config, MAX_CHANNELS, MAX_LAYERS, MAX_SIDE, above_zero, divides, dropout, only, within,
};
use crate::{Error, Result};

/// The feed-forward layers of a transformer block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedForward {
    /// GELU between two linear layers.
    Gelu,
    /// Its tanh approximation.
    #[default]
    GeluApproximate,
    /// Gating by GELU (Shazeer, "GLU variants improve transformer", 2020).
    Geglu,
    /// `x sigmoid(1.702 x)` between two linear layers.
    GegluApproximate,
    /// Gating by SiLU.
    Swiglu,
    /// SiLU between two linear layers.
    LinearSilu,
}

/// Settings of `DiTTransformer2DModel`: a transformer over patches of latents, conditioned on the
/// time and a class through its norms (Peebles and Xie, "Scalable diffusion models with
/// transformers", arXiv:2212.09748). The defaults are the class's, which are DiT-XL/2's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DitConfig {
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Features of each head; heads times this is the width of the network.
    pub attention_head_dim: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output; by default those of the input.
    pub out_channels: Option<usize>,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Dropout, while training.
    pub dropout: f64,
    /// Means nothing to this network; the files hold it.
    pub norm_num_groups: usize,
    /// Whether the attention's query, key and value layers have a bias.
    pub attention_bias: bool,
    /// Side of the latents in pixels, which fixes the position embedding.
    pub sample_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// The feed-forward layers.
    pub activation_fn: FeedForward,
    /// Classes; one more row of the table stands for none.
    pub num_embeds_ada_norm: Option<usize>,
    /// Attention in 32 bits where the network runs in 16; here it always does.
    pub upcast_attention: bool,
    /// How the conditions enter; only `ada_norm_zero` is supported.
    pub norm_type: String,
    /// Whether the second norm of each block has weights of its own.
    pub norm_elementwise_affine: bool,
    /// Epsilon of the norms in the blocks.
    pub norm_eps: f64,
}

impl Default for DitConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: None,
            num_layers: 28,
            dropout: 0.0,
            norm_num_groups: 32,
            attention_bias: true,
            sample_size: 32,
            patch_size: 2,
            activation_fn: FeedForward::GeluApproximate,
            num_embeds_ada_norm: Some(1000),
            upcast_attention: false,
            norm_type: "ada_norm_zero".to_owned(),
            norm_elementwise_affine: false,
            norm_eps: 1e-5,
        }
    }
}

impl DitConfig {
    /// The width of the network.
    pub fn width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Channels of the output.
    pub fn output_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }
}

impl Config for DitConfig {
    const CLASS: &'static str = "DiTTransformer2DModel";

    fn validate(&self) -> Result<()> {
        within("num_attention_heads", self.num_attention_heads, MAX_LAYERS)?;
        within("attention_head_dim", self.attention_head_dim, MAX_CHANNELS)?;
        within("num_attention_heads * attention_head_dim", self.width(), MAX_CHANNELS)?;
        // The position embedding is sines and cosines of two coordinates.
        divides("num_attention_heads * attention_head_dim", self.width(), "positions", 4)?;
        within("in_channels", self.in_channels, MAX_CHANNELS)?;
        within("out_channels", self.output_channels(), MAX_CHANNELS)?;
        within("num_layers", self.num_layers, MAX_LAYERS)?;
        within("sample_size", self.sample_size, MAX_SIDE)?;
        within("patch_size", self.patch_size, self.sample_size)?;
        divides("sample_size", self.sample_size, "patch_size", self.patch_size)?;
        dropout("dropout", self.dropout)?;
        above_zero("norm_eps", self.norm_eps)?;
        let Some(classes) = self.num_embeds_ada_norm else {
            return Err(Error::setting("num_embeds_ada_norm", "wanted a number of classes"));
        };
        within("num_embeds_ada_norm", classes, 1 << 24)?;
        only("norm_type", &self.norm_type.as_str(), &"ada_norm_zero")
    }
}
