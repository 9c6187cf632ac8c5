//! Settings of `ControlNetModel`.

use serde::{Deserialize, Serialize};

use super::{
    Activation, AdditionEmbedding, Config, CrossMidBlock, Depths, DownBlock, MAX_CHANNELS,
    PerBlock, TimeScaleShift, UNet2DConditionConfig, UpBlock, only, within,
};
use crate::{Error, Result};

/// The order of the colours of the picture that a control network looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// Settings of `ControlNetModel`: the first half of a U-Net with cross-attention, which looks at a
/// picture and says what to add to each skip connection of the whole one (Zhang et al., "Adding
/// conditional control to text-to-image diffusion models", arXiv:2302.05543). The defaults are the
/// class's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the published class")]
pub struct ControlNetConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the picture.
    pub conditioning_channels: usize,
    /// The time embedding holds the cosines first.
    pub flip_sin_to_cos: bool,
    /// The frequencies of the time embedding fall over `half - freq_shift` steps.
    pub freq_shift: usize,
    /// Blocks, finest first.
    pub down_block_types: Vec<DownBlock>,
    /// The middle.
    pub mid_block_type: CrossMidBlock,
    /// The first attention of a transformer block looks at the sequence too.
    pub only_cross_attention: PerBlock<bool>,
    /// Channels of each block, finest first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block.
    pub layers_per_block: usize,
    /// Padding of the convolutions that halve the size: 1, or 0 for one pixel at the right and
    /// the bottom.
    pub downsample_padding: usize,
    /// What the outputs of the middle's residual blocks are divided by.
    pub mid_block_scale_factor: f64,
    /// The activation.
    pub act_fn: Activation,
    /// Groups of the norms; `None` is not supported.
    pub norm_num_groups: Option<usize>,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Features of the sequence that is attended to.
    pub cross_attention_dim: usize,
    /// Transformer layers at each attention.
    pub transformer_layers_per_block: PerBlock<usize>,
    /// Width of a projection of the sequence; only `None` is supported.
    pub encoder_hid_dim: Option<usize>,
    /// Kind of that projection; only `None` is supported.
    pub encoder_hid_dim_type: Option<String>,
    /// The **number** of attention heads, in spite of its name.
    pub attention_head_dim: PerBlock<usize>,
    /// The same; counts where it is given.
    pub num_attention_heads: Option<PerBlock<usize>>,
    /// The transformers' projections are linear layers rather than 1x1 convolutions.
    pub use_linear_projection: bool,
    /// The kind of class embedding: `None` (a table), `timestep`, `identity` or `projection`.
    pub class_embed_type: Option<String>,
    /// More conditions beside the time.
    pub addition_embed_type: Option<AdditionEmbedding>,
    /// Features of each embedded size; means nothing without them.
    pub addition_time_embed_dim: Option<usize>,
    /// Rows of the class table; `None` for a network without classes.
    pub num_class_embeds: Option<usize>,
    /// Attention in 32 bits where the network runs in 16; here it always does.
    pub upcast_attention: bool,
    /// How the time enters a residual block.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Width of projected class embeddings and of those beside the time.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// The order of the picture's colours.
    pub controlnet_conditioning_channel_order: ChannelOrder,
    /// Channels of the layers that bring the picture to the size of the latents; each but the first
    /// halves it.
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// What is added is the mean over all pixels.
    pub global_pool_conditions: bool,
    /// Heads of the attention that pools a text; means nothing without one.
    pub addition_embed_type_num_heads: usize,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        let unet = UNet2DConditionConfig::default();
        Self {
            in_channels: 4,
            conditioning_channels: 3,
            flip_sin_to_cos: true,
            freq_shift: 0,
            down_block_types: unet.down_block_types,
            mid_block_type: CrossMidBlock::UNetMidBlock2DCrossAttn,
            only_cross_attention: PerBlock::One(false),
            block_out_channels: unet.block_out_channels,
            layers_per_block: 2,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            act_fn: Activation::Silu,
            norm_num_groups: Some(32),
            norm_eps: 1e-5,
            cross_attention_dim: 1280,
            transformer_layers_per_block: PerBlock::One(1),
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            attention_head_dim: PerBlock::One(8),
            num_attention_heads: None,
            use_linear_projection: false,
            class_embed_type: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            num_class_embeds: None,
            upcast_attention: false,
            resnet_time_scale_shift: TimeScaleShift::Default,
            projection_class_embeddings_input_dim: None,
            controlnet_conditioning_channel_order: ChannelOrder::Rgb,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            global_pool_conditions: false,
            addition_embed_type_num_heads: 64,
        }
    }
}

impl ControlNetConfig {
    /// How many pixels of the picture one pixel of the latents stands for, along a side.
    pub fn downsampling(&self) -> usize {
        1 << self.conditioning_embedding_out_channels.len().saturating_sub(1)
    }

    /// The U-Net that this is the first half of. Its way up mirrors the way down.
    pub fn unet(&self) -> UNet2DConditionConfig {
        let up = self.down_block_types.iter().rev().map(|down| match down {
            DownBlock::DownBlock2D => UpBlock::UpBlock2D,
            DownBlock::ResnetDownsampleBlock2D => UpBlock::ResnetUpsampleBlock2D,
            DownBlock::AttnDownBlock2D => UpBlock::AttnUpBlock2D,
            DownBlock::CrossAttnDownBlock2D => UpBlock::CrossAttnUpBlock2D,
        });
        let heads = self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim);
        UNet2DConditionConfig {
            in_channels: self.in_channels,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            down_block_types: self.down_block_types.clone(),
            mid_block_type: Some(self.mid_block_type),
            up_block_types: up.collect(),
            only_cross_attention: self.only_cross_attention.clone(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: PerBlock::One(self.layers_per_block),
            downsample_padding: self.downsample_padding,
            mid_block_scale_factor: self.mid_block_scale_factor,
            act_fn: self.act_fn,
            norm_num_groups: self.norm_num_groups,
            norm_eps: self.norm_eps,
            cross_attention_dim: PerBlock::One(self.cross_attention_dim),
            transformer_layers_per_block: match &self.transformer_layers_per_block {
                PerBlock::One(n) => Depths::One(*n),
                PerBlock::Each(each) => {
                    Depths::Each(each.iter().map(|n| PerBlock::One(*n)).collect())
                }
            },
            attention_head_dim: heads.clone(),
            use_linear_projection: self.use_linear_projection,
            class_embed_type: self.class_embed_type.clone(),
            addition_embed_type: self.addition_embed_type,
            addition_time_embed_dim: self.addition_time_embed_dim,
            num_class_embeds: self.num_class_embeds,
            upcast_attention: self.upcast_attention,
            resnet_time_scale_shift: self.resnet_time_scale_shift,
            projection_class_embeddings_input_dim: self.projection_class_embeddings_input_dim,
            addition_embed_type_num_heads: self.addition_embed_type_num_heads,
            ..UNet2DConditionConfig::default()
        }
    }
}

impl Config for ControlNetConfig {
    const CLASS: &'static str = "ControlNetModel";

    fn validate(&self) -> Result<()> {
        only("encoder_hid_dim", &self.encoder_hid_dim, &None)?;
        only("encoder_hid_dim_type", &self.encoder_hid_dim_type, &None)?;
        match self.class_embed_type.as_deref() {
            None | Some("timestep" | "identity" | "projection") => {}
            Some(other) => {
                let known = ["timestep", "identity", "projection"];
                return Err(Error::unknown("class_embed_type", other, known));
            }
        }
        within("conditioning_channels", self.conditioning_channels, MAX_CHANNELS)?;
        let key = "conditioning_embedding_out_channels";
        within(
            &format!("{key} (their number)"),
            self.conditioning_embedding_out_channels.len(),
            16,
        )?;
        self.conditioning_embedding_out_channels
            .iter()
            .try_for_each(|n| within(key, *n, MAX_CHANNELS))?;
        self.unet().validate()
    }
}
