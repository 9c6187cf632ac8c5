//! Settings of `UNet2DModel`.

use serde::{Deserialize, Serialize};

use super::{
    Activation, Config, DownBlock, MAX_CHANNELS, MAX_LAYERS, Side, TimeEmbedding, TimeScaleShift,
    UpBlock, above_zero, blocks, divides, dropout, norms, side, within,
};
use crate::{Error, Result};

/// The middle of an unconditional U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlock {
    /// Residual block, self-attention, residual block.
    UNetMidBlock2D,
}

/// How a block with self-attention changes the size of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResampleKind {
    /// By a convolution.
    #[default]
    Conv,
    /// By a residual block.
    Resnet,
}

/// Settings of `UNet2DModel`: a U-Net over images, conditioned on the time and, if it has class
/// embeddings, on a class. The defaults are the class's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UNet2DConfig {
    /// Side of the images in pixels.
    pub sample_size: Option<Side>,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Maps inputs from [0, 1] to [-1, 1].
    pub center_input_sample: bool,
    /// How the time is embedded.
    pub time_embedding_type: TimeEmbedding,
    /// Features of the time embedding; by default four times the channels of the first block.
    pub time_embedding_dim: Option<usize>,
    /// The frequencies of the time embedding fall over `half - freq_shift` steps.
    pub freq_shift: usize,
    /// The time embedding holds the cosines first.
    pub flip_sin_to_cos: bool,
    /// Blocks on the way down, finest first.
    pub down_block_types: Vec<DownBlock>,
    /// The middle; `None` leaves it out.
    pub mid_block_type: Option<MidBlock>,
    /// Blocks on the way up, coarsest first.
    pub up_block_types: Vec<UpBlock>,
    /// Channels of each block, finest first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block on the way down; on the way up there is one more.
    pub layers_per_block: usize,
    /// What the outputs of the middle are divided by.
    pub mid_block_scale_factor: f64,
    /// Padding of the convolutions that halve the size: 1, or 0 for one pixel at the right and
    /// the bottom.
    pub downsample_padding: usize,
    /// How blocks with self-attention halve the size; the others have convolutions.
    pub downsample_type: ResampleKind,
    /// How blocks with self-attention double the size; the others have convolutions.
    pub upsample_type: ResampleKind,
    /// Dropout inside residual blocks, while training.
    pub dropout: f64,
    /// The activation.
    pub act_fn: Activation,
    /// Channels of each attention head; `None` is a single head.
    pub attention_head_dim: Option<usize>,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Groups of the norm in the middle's attention; by default those of the other norms, and no norm
    /// where `resnet_time_scale_shift` is not `default`.
    pub attn_norm_num_groups: Option<usize>,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// How the time enters a residual block.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Whether the middle has its attention.
    pub add_attention: bool,
    /// The kind of class embedding: `None` (a table), `timestep` (as a time is embedded) or
    /// `identity` (a vector of the condition as it is).
    pub class_embed_type: Option<String>,
    /// Rows of the class table; `None` for a network without classes.
    pub num_class_embeds: Option<usize>,
    /// Rows of a learned time table; means nothing to other embeddings.
    pub num_train_timesteps: Option<usize>,
}

impl Default for UNet2DConfig {
    fn default() -> Self {
        use DownBlock::{AttnDownBlock2D, DownBlock2D};
        use UpBlock::{AttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            freq_shift: 0,
            flip_sin_to_cos: true,
            down_block_types: vec![DownBlock2D, AttnDownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
            mid_block_type: Some(MidBlock::UNetMidBlock2D),
            up_block_types: vec![AttnUpBlock2D, AttnUpBlock2D, AttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: ResampleKind::Conv,
            upsample_type: ResampleKind::Conv,
            dropout: 0.0,
            act_fn: Activation::Silu,
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
        }
    }
}

impl UNet2DConfig {
    /// Features of the time embedding.
    pub fn time_embed_dim(&self) -> usize {
        let first = self.block_out_channels.first().copied().unwrap_or(0);
        self.time_embedding_dim.unwrap_or(first * 4)
    }
}

impl Config for UNet2DConfig {
    const CLASS: &'static str = "UNet2DModel";

    fn validate(&self) -> Result<()> {
        let channels = &self.block_out_channels;
        side("sample_size", self.sample_size)?;
        within("in_channels", self.in_channels, MAX_CHANNELS)?;
        within("out_channels", self.out_channels, MAX_CHANNELS)?;
        blocks(channels, self.down_block_types.len(), self.up_block_types.len())?;
        norms(channels, self.norm_num_groups, self.norm_eps)?;
        within("layers_per_block", self.layers_per_block, MAX_LAYERS)?;
        time(channels, self.freq_shift, self.time_embed_dim())?;
        dropout("dropout", self.dropout)?;
        if let Some(classes) = self.num_class_embeds {
            within("num_class_embeds", classes, 1 << 24)?;
        }
        if self.downsample_padding > 1 {
            let why = format!("wanted 0 or 1, found {}", self.downsample_padding);
            return Err(Error::setting("downsample_padding", why));
        }
        self.heads()?;
        let cross = self.down_block_types.contains(&DownBlock::CrossAttnDownBlock2D)
            || self.up_block_types.contains(&UpBlock::CrossAttnUpBlock2D);
        if cross {
            let why = "cross-attention needs a `UNet2DConditionModel`";
            return Err(Error::setting("down_block_types", why));
        }
        above_zero("mid_block_scale_factor", self.mid_block_scale_factor)?;
        if self.time_embedding_type == TimeEmbedding::Learned {
            let Some(rows) = self.num_train_timesteps else {
                let why = "is wanted by `time_embedding_type` \"learned\"";
                return Err(Error::setting("num_train_timesteps", why));
            };
            within("num_train_timesteps", rows, 1 << 24)?;
        }
        if let (Some(groups), Some(last)) = (self.attn_norm_num_groups, channels.last()) {
            within("attn_norm_num_groups", groups, MAX_CHANNELS)?;
            divides("block_out_channels", *last, "attn_norm_num_groups", groups)?;
        }
        match self.class_embed_type.as_deref() {
            None | Some("timestep" | "identity") => Ok(()),
            Some(other) => Err(Error::unknown("class_embed_type", other, ["timestep", "identity"])),
        }
    }
}

impl UNet2DConfig {
    /// Every block with attention has at least one head.
    fn heads(&self) -> Result<()> {
        let Some(head) = self.attention_head_dim else { return Ok(()) };
        within("attention_head_dim", head, MAX_CHANNELS)?;
        let channels = &self.block_out_channels;
        let down = self.down_block_types.iter().map(|b| *b == DownBlock::AttnDownBlock2D);
        let up = self.up_block_types.iter().rev().map(|b| *b == UpBlock::AttnUpBlock2D);
        let deepest = channels.len().saturating_sub(1);
        let mid = self.mid_block_type.is_some() && self.add_attention;
        for (i, ((channels, down), up)) in channels.iter().zip(down).zip(up).enumerate() {
            if down || up || (mid && i == deepest) {
                within("attention_head_dim", head, *channels)?;
            }
        }
        Ok(())
    }
}

/// Checks the sines and cosines of the time and the layers behind them.
pub(super) fn time(channels: &[usize], freq_shift: usize, dim: usize) -> Result<()> {
    let first = channels.first().copied().unwrap_or(0);
    if freq_shift.saturating_mul(2) >= first {
        let why = format!("wanted less than half of the first block's {first}, found {freq_shift}");
        return Err(Error::setting("freq_shift", why));
    }
    within("time_embedding_dim", dim, MAX_CHANNELS * 4)
}
