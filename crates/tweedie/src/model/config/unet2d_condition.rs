//! Settings of `UNet2DConditionModel`.

use serde::{Deserialize, Serialize};

use super::unet2d::time;
use super::{
    Activation, Config, DownBlock, MAX_CHANNELS, MAX_LAYERS, PerBlock, Side, TimeEmbedding,
    TimeScaleShift, UpBlock, blocks, divides, dropout, norms, only, side, within,
};
use crate::{Error, Result};

/// The middle of a conditional U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrossMidBlock {
    /// Residual block, transformer with cross-attention, residual block.
    UNetMidBlock2DCrossAttn,
}

/// Settings of `UNet2DConditionModel`: a U-Net over latents whose transformers attend to a
/// sequence of embeddings. The defaults are the class's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the published class")]
pub struct UNet2DConditionConfig {
    /// Side of the latents in pixels.
    pub sample_size: Option<Side>,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Maps inputs from [0, 1] to [-1, 1].
    pub center_input_sample: bool,
    /// The time embedding holds the cosines first.
    pub flip_sin_to_cos: bool,
    /// The frequencies of the time embedding fall over `half - freq_shift` steps.
    pub freq_shift: usize,
    /// Blocks on the way down, finest first: with cross-attention, or without any.
    pub down_block_types: Vec<DownBlock>,
    /// The middle; `None` leaves it out.
    pub mid_block_type: Option<CrossMidBlock>,
    /// Blocks on the way up, coarsest first: with cross-attention, or without any.
    pub up_block_types: Vec<UpBlock>,
    /// The first attention of a transformer block looks at the sequence too.
    pub only_cross_attention: PerBlock<bool>,
    /// Channels of each block, finest first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block on the way down; on the way up there is one more.
    pub layers_per_block: PerBlock<usize>,
    /// Padding of the convolutions that halve the size: 1, or 0 for one pixel at the right and
    /// the bottom.
    pub downsample_padding: usize,
    /// What the outputs of the middle are divided by; only 1 is supported.
    pub mid_block_scale_factor: f64,
    /// Dropout, while training.
    pub dropout: f64,
    /// The activation.
    pub act_fn: Activation,
    /// Groups of the norms; `None` (no norm at the end) is not supported.
    pub norm_num_groups: Option<usize>,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Features of the sequence that is attended to.
    pub cross_attention_dim: PerBlock<usize>,
    /// Transformer layers at each attention.
    pub transformer_layers_per_block: PerBlock<usize>,
    /// The same for the way up, where it differs; only `None` is supported.
    pub reverse_transformer_layers_per_block: Option<Vec<PerBlock<usize>>>,
    /// Width of a projection of the sequence; only `None` is supported.
    pub encoder_hid_dim: Option<usize>,
    /// Kind of that projection; only `None` is supported.
    pub encoder_hid_dim_type: Option<String>,
    /// The **number** of attention heads, in spite of its name (the published class swapped the
    /// two and kept it so for the files' sake).
    pub attention_head_dim: PerBlock<usize>,
    /// Must be `None`, as the published class demands.
    pub num_attention_heads: Option<PerBlock<usize>>,
    /// Two cross-attentions; only `false` is supported.
    pub dual_cross_attention: bool,
    /// The transformers' projections are linear layers rather than 1x1 convolutions.
    pub use_linear_projection: bool,
    /// The kind of class embedding: `None` (a table), `timestep`, `identity`, `projection` or
    /// `simple_projection`.
    pub class_embed_type: Option<String>,
    /// More conditions beside the time: `None`, or `text_time` (SDXL's).
    pub addition_embed_type: Option<String>,
    /// Width of those; means nothing without them.
    pub addition_time_embed_dim: Option<usize>,
    /// Rows of the class table; `None` for a network without classes.
    pub num_class_embeds: Option<usize>,
    /// Attention in 32 bits where the network runs in 16; here it always does.
    pub upcast_attention: bool,
    /// How the time enters a residual block.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// An activation before the time enters; only `false` is supported.
    pub resnet_skip_time_act: bool,
    /// What residual blocks divide by; only 1 is supported.
    pub resnet_out_scale_factor: f64,
    /// How the time is embedded; only positional is supported.
    pub time_embedding_type: TimeEmbedding,
    /// Features of the time embedding; by default four times the channels of the first block.
    pub time_embedding_dim: Option<usize>,
    /// An activation on the time embedding; only `None` is supported.
    pub time_embedding_act_fn: Option<String>,
    /// A second one; only `None` is supported.
    pub timestep_post_act: Option<String>,
    /// Width of the guidance weight's embedding, for guidance-distilled models.
    pub time_cond_proj_dim: Option<usize>,
    /// Kernel of the first convolution; only 3 is supported.
    pub conv_in_kernel: usize,
    /// Kernel of the last convolution; only 3 is supported.
    pub conv_out_kernel: usize,
    /// Width of projected class embeddings; means nothing without them.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// The kind of attention; only `default` is supported.
    pub attention_type: String,
    /// Class embeddings beside the time rather than added; only `false` is supported.
    pub class_embeddings_concat: bool,
    /// Means nothing to the middle that is supported.
    pub mid_block_only_cross_attention: Option<bool>,
    /// A norm on the sequence; only `None` is supported.
    pub cross_attention_norm: Option<String>,
    /// Heads of an added text embedding; means nothing without one.
    pub addition_embed_type_num_heads: usize,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        use DownBlock::{CrossAttnDownBlock2D, DownBlock2D};
        use UpBlock::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0,
            down_block_types: vec![
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                DownBlock2D,
            ],
            mid_block_type: Some(CrossMidBlock::UNetMidBlock2DCrossAttn),
            up_block_types: vec![
                UpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
            ],
            only_cross_attention: PerBlock::One(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::One(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: Activation::Silu,
            norm_num_groups: Some(32),
            norm_eps: 1e-5,
            cross_attention_dim: PerBlock::One(1280),
            transformer_layers_per_block: PerBlock::One(1),
            reverse_transformer_layers_per_block: None,
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            attention_head_dim: PerBlock::One(8),
            num_attention_heads: None,
            dual_cross_attention: false,
            use_linear_projection: false,
            class_embed_type: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            num_class_embeds: None,
            upcast_attention: false,
            resnet_time_scale_shift: TimeScaleShift::Default,
            resnet_skip_time_act: false,
            resnet_out_scale_factor: 1.0,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            time_embedding_act_fn: None,
            timestep_post_act: None,
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            projection_class_embeddings_input_dim: None,
            attention_type: "default".to_owned(),
            class_embeddings_concat: false,
            mid_block_only_cross_attention: None,
            cross_attention_norm: None,
            addition_embed_type_num_heads: 64,
        }
    }
}

impl UNet2DConditionConfig {
    /// Features of the time embedding.
    pub fn time_embed_dim(&self) -> usize {
        let first = self.block_out_channels.first().copied().unwrap_or(0);
        self.time_embedding_dim.unwrap_or(first * 4)
    }

    /// The lists that go with the blocks: their lengths and bounds.
    fn per_block(&self) -> Result<()> {
        let n = self.block_out_channels.len();
        for (key, values, most) in [
            ("layers_per_block", &self.layers_per_block, MAX_LAYERS),
            ("cross_attention_dim", &self.cross_attention_dim, MAX_CHANNELS),
            ("transformer_layers_per_block", &self.transformer_layers_per_block, MAX_LAYERS),
            ("attention_head_dim", &self.attention_head_dim, MAX_LAYERS),
        ] {
            values.spread(key, n)?.into_iter().try_for_each(|v| within(key, v, most))?;
        }
        let heads = self.attention_head_dim.spread("attention_head_dim", n)?;
        let down = self.down_block_types.iter().map(|b| *b == DownBlock::CrossAttnDownBlock2D);
        let up = self.up_block_types.iter().rev().map(|b| *b == UpBlock::CrossAttnUpBlock2D);
        let blocks = self.block_out_channels.iter().zip(heads).zip(down).zip(up);
        for (i, (((channels, heads), down), up)) in blocks.enumerate() {
            if down || up || (i + 1 == n && self.mid_block_type.is_some()) {
                divides("block_out_channels", *channels, "attention_head_dim", heads)?;
            }
        }
        Ok(())
    }

    /// What the network here does in one way only.
    fn supported(&self) -> Result<()> {
        if self.down_block_types.contains(&DownBlock::AttnDownBlock2D) {
            let why = "\"AttnDownBlock2D\" is not supported here, only in a `UNet2DModel`";
            return Err(Error::setting("down_block_types", why));
        }
        if self.up_block_types.contains(&UpBlock::AttnUpBlock2D) {
            let why = "\"AttnUpBlock2D\" is not supported here, only in a `UNet2DModel`";
            return Err(Error::setting("up_block_types", why));
        }
        only("mid_block_scale_factor", &self.mid_block_scale_factor, &1.0)?;
        let reversed = &self.reverse_transformer_layers_per_block;
        only("reverse_transformer_layers_per_block", reversed, &None)?;
        only("encoder_hid_dim", &self.encoder_hid_dim, &None)?;
        only("encoder_hid_dim_type", &self.encoder_hid_dim_type, &None)?;
        only("num_attention_heads", &self.num_attention_heads, &None)?;
        only("dual_cross_attention", &self.dual_cross_attention, &false)?;
        only("resnet_skip_time_act", &self.resnet_skip_time_act, &false)?;
        only("resnet_out_scale_factor", &self.resnet_out_scale_factor, &1.0)?;
        only("time_embedding_type", &self.time_embedding_type, &TimeEmbedding::Positional)?;
        only("time_embedding_act_fn", &self.time_embedding_act_fn, &None)?;
        only("timestep_post_act", &self.timestep_post_act, &None)?;
        only("conv_in_kernel", &self.conv_in_kernel, &3)?;
        only("conv_out_kernel", &self.conv_out_kernel, &3)?;
        only("attention_type", &self.attention_type.as_str(), &"default")?;
        only("class_embeddings_concat", &self.class_embeddings_concat, &false)?;
        only("cross_attention_norm", &self.cross_attention_norm, &None)
    }
}

impl Config for UNet2DConditionConfig {
    const CLASS: &'static str = "UNet2DConditionModel";

    fn validate(&self) -> Result<()> {
        let channels = &self.block_out_channels;
        side("sample_size", self.sample_size)?;
        within("in_channels", self.in_channels, MAX_CHANNELS)?;
        within("out_channels", self.out_channels, MAX_CHANNELS)?;
        blocks(channels, self.down_block_types.len(), self.up_block_types.len())?;
        let Some(groups) = self.norm_num_groups else {
            return Err(Error::setting("norm_num_groups", "None is not supported"));
        };
        norms(channels, groups, self.norm_eps)?;
        time(channels, self.freq_shift, self.time_embed_dim())?;
        dropout("dropout", self.dropout)?;
        if let Some(classes) = self.num_class_embeds {
            within("num_class_embeds", classes, 1 << 24)?;
        }
        if self.downsample_padding > 1 {
            let why = format!("wanted 0 or 1, found {}", self.downsample_padding);
            return Err(Error::setting("downsample_padding", why));
        }
        self.per_block()?;
        self.supported()
    }
}
