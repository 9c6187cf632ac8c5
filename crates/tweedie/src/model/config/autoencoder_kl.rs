//! Settings of `AutoencoderKL`.

use serde::{Deserialize, Serialize};

use super::{
    Activation, Config, MAX_CHANNELS, MAX_LAYERS, Side, above_zero, blocks, norms, side, within,
};
use crate::{Error, Result};

/// The blocks of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncoderBlock {
    /// Residual blocks, and a convolution that halves the size (but in the last one).
    DownEncoderBlock2D,
    /// The same with attention behind each residual block.
    AttnDownEncoderBlock2D,
}

/// The blocks of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecoderBlock {
    /// Residual blocks, and a convolution that doubles the size (but in the last one).
    UpDecoderBlock2D,
    /// The same with attention behind each residual block.
    AttnUpDecoderBlock2D,
}

/// Settings of `AutoencoderKL`: a convolutional autoencoder with a Gaussian bottleneck (Rombach et
/// al., "High-resolution image synthesis with latent diffusion models", arXiv:2112.10752, section
/// 3.1). The defaults are the class's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the published class")]
pub struct AutoencoderKlConfig {
    /// Channels of the images that go in.
    pub in_channels: usize,
    /// Channels of the images that come out.
    pub out_channels: usize,
    /// Blocks of the encoder, finest first.
    pub down_block_types: Vec<EncoderBlock>,
    /// Blocks of the decoder, coarsest first.
    pub up_block_types: Vec<DecoderBlock>,
    /// Channels of each block, finest first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// The activation.
    pub act_fn: Activation,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Side of the images in pixels; matters to tiling only.
    pub sample_size: Side,
    /// What the latents are multiplied by before diffusion, so that they are of unit size.
    pub scaling_factor: f64,
    /// What is taken from the latents before that; `None` is 0.
    pub shift_factor: Option<f64>,
    /// A mean for each latent channel, which is taken from the latents before diffusion where
    /// there is a deviation too.
    pub latents_mean: Option<Vec<f64>>,
    /// A deviation for each latent channel, which the latents are divided by.
    pub latents_std: Option<Vec<f64>>,
    /// Decodes in 32 bits where the pipeline runs in 16; here it always does.
    pub force_upcast: bool,
    /// Whether a 1x1 convolution ends the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution begins the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middles of encoder and decoder have attention.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![EncoderBlock::DownEncoderBlock2D],
            up_block_types: vec![DecoderBlock::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: Side::Square(32),
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl AutoencoderKlConfig {
    /// The epsilon of every norm, which the published class fixes.
    pub const NORM_EPS: f64 = 1e-6;

    /// How many pixels of the image one pixel of the latent stands for, along a side.
    pub fn downsampling(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }
}

impl Config for AutoencoderKlConfig {
    const CLASS: &'static str = "AutoencoderKL";

    fn validate(&self) -> Result<()> {
        let channels = &self.block_out_channels;
        within("in_channels", self.in_channels, MAX_CHANNELS)?;
        within("out_channels", self.out_channels, MAX_CHANNELS)?;
        blocks(channels, self.down_block_types.len(), self.up_block_types.len())?;
        norms(channels, self.norm_num_groups, Self::NORM_EPS)?;
        within("layers_per_block", self.layers_per_block, MAX_LAYERS)?;
        within("latent_channels", self.latent_channels, MAX_CHANNELS)?;
        side("sample_size", Some(self.sample_size))?;
        above_zero("scaling_factor", self.scaling_factor)?;
        if let Some(shift) = self.shift_factor
            && !shift.is_finite()
        {
            let why = format!("wanted a finite number, found {shift}");
            return Err(Error::setting("shift_factor", why));
        }
        for (key, values) in
            [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)]
        {
            let Some(values) = values else { continue };
            if values.len() != self.latent_channels || values.iter().any(|v| !v.is_finite()) {
                let (wanted, found) = (self.latent_channels, values.len());
                let why = format!("wanted {wanted} finite numbers, one a channel, found {found}");
                return Err(Error::setting(key, why));
            }
        }
        self.latents_std.iter().flatten().try_for_each(|v| above_zero("latents_std", *v))
    }
}
