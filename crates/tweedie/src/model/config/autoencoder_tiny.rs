//! Settings of `AutoencoderTiny`.

use serde::{Deserialize, Serialize};

use super::{Activation, Config, MAX_CHANNELS, MAX_LAYERS, above_zero, only, within};
use crate::{Error, Result};

/// Settings of `AutoencoderTiny`: a small autoencoder without a variance, distilled from a large one
/// (Bohan, "TAESD", 2023). The defaults are the class's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderTinyConfig {
    /// Channels of the images that go in.
    pub in_channels: usize,
    /// Channels of the images that come out.
    pub out_channels: usize,
    /// Channels of each stage of the encoder, which are all the same.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of each stage of the decoder, which are all the same.
    pub decoder_block_out_channels: Vec<usize>,
    /// The activation between convolutions.
    pub act_fn: Activation,
    /// How the decoder enlarges; only `nearest` is supported.
    pub upsample_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// By how much each stage of the decoder but the last enlarges.
    pub upsampling_scaling_factor: usize,
    /// Blocks of each stage of the encoder; each stage but the first halves the size.
    pub num_encoder_blocks: Vec<usize>,
    /// Blocks of each stage of the decoder.
    pub num_decoder_blocks: Vec<usize>,
    /// Half the range of the latents where they are kept in bytes, which nothing does here.
    pub latent_magnitude: f64,
    /// The middle of that range.
    pub latent_shift: f64,
    /// Decodes in 32 bits where the pipeline runs in 16; here it always does.
    pub force_upcast: bool,
    /// What the latents are multiplied by before diffusion.
    pub scaling_factor: f64,
    /// What is taken from the latents before that.
    pub shift_factor: f64,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: Activation::Relu,
            upsample_fn: "nearest".to_owned(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            force_upcast: false,
            scaling_factor: 1.0,
            shift_factor: 0.0,
        }
    }
}

impl AutoencoderTinyConfig {
    /// How many pixels of the image one pixel of the latent stands for, along a side.
    pub fn downsampling(&self) -> usize {
        1 << self.num_encoder_blocks.len().saturating_sub(1)
    }
}

impl Config for AutoencoderTinyConfig {
    const CLASS: &'static str = "AutoencoderTiny";
    // The class writes its decoder's channels once more.
    const IGNORED: &'static [&'static str] = &["block_out_channels"];

    fn validate(&self) -> Result<()> {
        within("in_channels", self.in_channels, MAX_CHANNELS)?;
        within("out_channels", self.out_channels, MAX_CHANNELS)?;
        within("latent_channels", self.latent_channels, MAX_CHANNELS)?;
        within("upsampling_scaling_factor", self.upsampling_scaling_factor, 16)?;
        stages("encoder", &self.encoder_block_out_channels, &self.num_encoder_blocks)?;
        stages("decoder", &self.decoder_block_out_channels, &self.num_decoder_blocks)?;
        above_zero("scaling_factor", self.scaling_factor)?;
        for (key, value) in
            [("shift_factor", self.shift_factor), ("latent_shift", self.latent_shift)]
        {
            if !value.is_finite() {
                return Err(Error::setting(key, format!("wanted a finite number, found {value}")));
            }
        }
        only("upsample_fn", &self.upsample_fn.as_str(), &"nearest")
    }
}

/// The stages of encoder or decoder: as many counts as channels, and channels all the same,
/// since no layer changes them.
fn stages(side: &str, channels: &[usize], counts: &[usize]) -> Result<()> {
    let key = format!("{side}_block_out_channels");
    within(&format!("{key} (their number)"), channels.len(), 16)?;
    if counts.len() != channels.len() {
        let (wanted, found) = (channels.len(), counts.len());
        let why = format!("wanted {wanted} as `{key}` has, found {found}");
        return Err(Error::setting(format!("num_{side}_blocks"), why));
    }
    channels.iter().try_for_each(|n| within(&key, *n, MAX_CHANNELS))?;
    if let Some(other) = channels.iter().find(|n| **n != channels[0]) {
        let why = format!("wanted all the same, found {} and {other}", channels[0]);
        return Err(Error::setting(key, why));
    }
    match counts.iter().find(|n| **n > MAX_LAYERS) {
        Some(n) => {
            let why = format!("wanted at most {MAX_LAYERS}, found {n}");
            Err(Error::setting(format!("num_{side}_blocks"), why))
        }
        None => Ok(()),
    }
}
