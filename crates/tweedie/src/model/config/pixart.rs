//! Settings of `PixArtTransformer2DModel`.

use serde::{Deserialize, Serialize};

use super::{
    Config, FeedForward, MAX_CHANNELS, MAX_LAYERS, MAX_SIDE, above_zero, divides, dropout, only,
    within,
};
use crate::Result;

/// The side from which on the published networks are told resolution and aspect ratio, where the
/// settings do not say.
const TOLD_SIZES: usize = 128;

/// Settings of `PixArtTransformer2DModel`: a transformer over patches of latents, told the time
/// through its norms and attending to a text (Chen et al., "PixArt-alpha", arXiv:2310.00426). The
/// defaults are the class's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PixArtConfig {
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Features of each head; heads times this is the width of the network.
    pub attention_head_dim: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output, twice those of the input where a variance comes with it; by default
    /// those of the input.
    pub out_channels: Option<usize>,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Dropout, while training.
    pub dropout: f64,
    /// Means nothing to this network; the files hold it.
    pub norm_num_groups: usize,
    /// Features of the sequence that the blocks attend to; by default the width of the network.
    pub cross_attention_dim: Option<usize>,
    /// Whether the attention's query, key and value layers have a bias.
    pub attention_bias: bool,
    /// Side of the latents in pixels, which fixes the position embedding.
    pub sample_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// The feed-forward layers.
    pub activation_fn: FeedForward,
    /// Means nothing to these norms but must be there; the files hold it.
    pub num_embeds_ada_norm: Option<usize>,
    /// Attention in 32 bits where the network runs in 16; here it always does.
    pub upcast_attention: bool,
    /// How the time enters; only `ada_norm_single` is supported.
    pub norm_type: String,
    /// Whether the norms of the blocks have weights of their own; only `false` is supported.
    pub norm_elementwise_affine: bool,
    /// Epsilon of the norms in the blocks.
    pub norm_eps: f64,
    /// What positions are divided by; by default the side in units of 64, and at least 1.
    pub interpolation_scale: Option<f64>,
    /// Whether the network is told resolution and aspect ratio, which is not supported; by default
    /// it is from a side of 128 on.
    pub use_additional_conditions: Option<bool>,
    /// Features of the text, where it is projected to the width of the network first.
    pub caption_channels: Option<usize>,
    /// The kind of attention; only `default` is supported.
    pub attention_type: Option<String>,
}

impl Default for PixArtConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: Some(8),
            num_layers: 28,
            dropout: 0.0,
            norm_num_groups: 32,
            cross_attention_dim: Some(1152),
            attention_bias: true,
            sample_size: TOLD_SIZES,
            patch_size: 2,
            activation_fn: FeedForward::GeluApproximate,
            num_embeds_ada_norm: Some(1000),
            upcast_attention: false,
            norm_type: "ada_norm_single".to_owned(),
            norm_elementwise_affine: false,
            norm_eps: 1e-6,
            interpolation_scale: None,
            use_additional_conditions: None,
            caption_channels: None,
            attention_type: Some("default".to_owned()),
        }
    }
}

impl PixArtConfig {
    /// The width of the network.
    pub fn width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Channels of the output.
    pub fn output_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Features of the sequence that the blocks attend to.
    pub fn cross_width(&self) -> usize {
        self.cross_attention_dim.unwrap_or_else(|| self.width())
    }

    /// The side in patches that positions are brought to.
    pub fn base(&self) -> f64 {
        let scale = self.interpolation_scale.unwrap_or((self.sample_size / 64).max(1) as f64);
        (self.sample_size / self.patch_size) as f64 / scale
    }
}

impl Config for PixArtConfig {
    const CLASS: &'static str = "PixArtTransformer2DModel";

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
        within("cross_attention_dim", self.cross_width(), MAX_CHANNELS)?;
        within("caption_channels", self.caption_channels.unwrap_or(1), MAX_CHANNELS)?;
        if self.caption_channels.is_some() {
            // What is projected has the width of the network, and is attended to as it is.
            only("cross_attention_dim", &self.cross_width(), &self.width())?;
        }
        dropout("dropout", self.dropout)?;
        above_zero("norm_eps", self.norm_eps)?;
        above_zero("interpolation_scale", self.interpolation_scale.unwrap_or(1.0))?;
        only("norm_type", &self.norm_type.as_str(), &"ada_norm_single")?;
        only("norm_elementwise_affine", &self.norm_elementwise_affine, &false)?;
        only("attention_type", &self.attention_type.as_deref().unwrap_or("default"), &"default")?;
        let told = self.use_additional_conditions.unwrap_or(self.sample_size == TOLD_SIZES);
        only("use_additional_conditions", &told, &false)
    }
}
