//! Settings of `Transformer2DModel`, as far as it is what `DiTTransformer2DModel` is today.

use serde::{Deserialize, Serialize};

use super::{Config, DitConfig, FeedForward, only};
use crate::{Error, Result};

/// Settings of `Transformer2DModel`, the class that the first diffusion transformers were published
/// under (Peebles and Xie, "Scalable diffusion models with transformers", 2023). The defaults are
/// the class's; only those settings are supported that make it a `DiTTransformer2DModel`, which is
/// what diffusers makes of such a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the published class")]
pub struct Transformer2DConfig {
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Features of each head.
    pub attention_head_dim: usize,
    /// Channels of the input.
    pub in_channels: Option<usize>,
    /// Channels of the output; by default those of the input.
    pub out_channels: Option<usize>,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Dropout, while training.
    pub dropout: f64,
    /// Means nothing to patches.
    pub norm_num_groups: usize,
    /// Features of a sequence that is attended to; only `None` is supported.
    pub cross_attention_dim: Option<usize>,
    /// Whether the attention's query, key and value layers have a bias.
    pub attention_bias: bool,
    /// Side of the latents in pixels.
    pub sample_size: Option<usize>,
    /// Rows of a table of pixels; only `None` is supported.
    pub num_vector_embeds: Option<usize>,
    /// Side of a patch in pixels.
    pub patch_size: Option<usize>,
    /// The feed-forward layers.
    pub activation_fn: FeedForward,
    /// Classes; one more row of the table stands for none.
    pub num_embeds_ada_norm: Option<usize>,
    /// Means nothing to patches.
    pub use_linear_projection: bool,
    /// Only `false` is supported.
    pub only_cross_attention: bool,
    /// Only `false` is supported.
    pub double_self_attention: bool,
    /// Attention in 32 bits where the network runs in 16; here it always does.
    pub upcast_attention: bool,
    /// How the conditions enter; only `ada_norm_zero` is supported.
    pub norm_type: String,
    /// Whether the second norm of each block has weights of its own.
    pub norm_elementwise_affine: bool,
    /// Epsilon of the norms in the blocks.
    pub norm_eps: f64,
    /// The kind of attention; only `default` is supported.
    pub attention_type: String,
    /// Features of captions; only `None` is supported.
    pub caption_channels: Option<usize>,
    /// What positions are divided by; only `None` and 1 are supported.
    pub interpolation_scale: Option<f64>,
    /// More conditions; means nothing to these norms.
    pub use_additional_conditions: Option<bool>,
}

impl Default for Transformer2DConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 88,
            in_channels: None,
            out_channels: None,
            num_layers: 1,
            dropout: 0.0,
            norm_num_groups: 32,
            cross_attention_dim: None,
            attention_bias: false,
            sample_size: None,
            num_vector_embeds: None,
            patch_size: None,
            activation_fn: FeedForward::Geglu,
            num_embeds_ada_norm: None,
            use_linear_projection: false,
            only_cross_attention: false,
            double_self_attention: false,
            upcast_attention: false,
            norm_type: "layer_norm".to_owned(),
            norm_elementwise_affine: true,
            norm_eps: 1e-5,
            attention_type: "default".to_owned(),
            caption_channels: None,
            interpolation_scale: None,
            use_additional_conditions: None,
        }
    }
}

impl Transformer2DConfig {
    /// The same network in the settings of today's class.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first setting that is not one of a diffusion transformer over
    /// patches, what it is and what is wanted.
    pub fn dit(&self) -> Result<DitConfig> {
        let want = |key: &str, value: Option<usize>| {
            value.ok_or_else(|| Error::setting(key, "wanted a number, found null"))
        };
        only("norm_type", &self.norm_type.as_str(), &"ada_norm_zero")?;
        only("cross_attention_dim", &self.cross_attention_dim, &None)?;
        only("num_vector_embeds", &self.num_vector_embeds, &None)?;
        only("only_cross_attention", &self.only_cross_attention, &false)?;
        only("double_self_attention", &self.double_self_attention, &false)?;
        only("attention_type", &self.attention_type.as_str(), &"default")?;
        only("caption_channels", &self.caption_channels, &None)?;
        if self.interpolation_scale != Some(1.0) {
            only("interpolation_scale", &self.interpolation_scale, &None)?;
        }
        let config = DitConfig {
            num_attention_heads: self.num_attention_heads,
            attention_head_dim: self.attention_head_dim,
            in_channels: want("in_channels", self.in_channels)?,
            out_channels: self.out_channels,
            num_layers: self.num_layers,
            dropout: self.dropout,
            norm_num_groups: self.norm_num_groups,
            attention_bias: self.attention_bias,
            sample_size: want("sample_size", self.sample_size)?,
            patch_size: want("patch_size", self.patch_size)?,
            activation_fn: self.activation_fn,
            num_embeds_ada_norm: self.num_embeds_ada_norm,
            upcast_attention: self.upcast_attention,
            norm_type: self.norm_type.clone(),
            norm_elementwise_affine: self.norm_elementwise_affine,
            norm_eps: self.norm_eps,
        };
        config.validate()?;
        Ok(config)
    }
}

impl Config for Transformer2DConfig {
    const CLASS: &'static str = "Transformer2DModel";

    fn validate(&self) -> Result<()> {
        self.dit().map(drop)
    }
}
