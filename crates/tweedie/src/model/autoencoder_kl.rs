//! `AutoencoderKL`: images to latents and back.

use burn::tensor::{Device, Tensor, TensorData};

use super::attention::{PixelAttention, PixelPlan};
use super::config::{
    Activation, AutoencoderKlConfig, Config, DecoderBlock, EncoderBlock, TimeScaleShift,
};
use super::edge::numbers;
use super::layers::{Conv2d, GroupNorm};
use super::resnet::{Downsample, Resnet, ResnetPlan, Upsample, fits};
use super::site::{Given, Maker, Sited};
use crate::denoiser::Pass;
use crate::error::Result;
use crate::parameters;
use crate::tap::Site;

mod tiled;

/// The log variance is held in this range, as in the published class.
const LOGVAR: [f64; 2] = [-30.0, 20.0];

/// Residual blocks, each followed by attention where there is one.
#[derive(Clone, Debug)]
struct Stack {
    resnets: Vec<Resnet>,
    attentions: Vec<PixelAttention>,
}
parameters!(Stack { resnets, attentions });

/// Residual blocks, then a halved size but in the last level.
#[derive(Clone, Debug)]
struct Down {
    stack: Stack,
    downsamplers: Vec<Downsample>,
}
parameters!(Down { "" => stack, downsamplers });

/// Residual blocks, then a doubled size but in the last level.
#[derive(Clone, Debug)]
struct Up {
    stack: Stack,
    upsamplers: Vec<Upsample>,
}
parameters!(Up { "" => stack, upsamplers });

#[derive(Clone, Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<Down>,
    mid_block: Stack,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
parameters!(Encoder { conv_in, down_blocks, mid_block, conv_norm_out, conv_out });

#[derive(Clone, Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: Stack,
    up_blocks: Vec<Up>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
parameters!(Decoder { conv_in, mid_block, up_blocks, conv_norm_out, conv_out });

/// A convolutional autoencoder with a Gaussian bottleneck (Rombach et al., "High-resolution image
/// synthesis with latent diffusion models", 2022, section 3.1).
///
/// Images are `[batch, channels, height, width]` in the range -1 to 1. Latents are those of the
/// published class; diffusion runs on [`AutoencoderKl::to_unit`] of them.
#[derive(Clone, Debug)]
pub struct AutoencoderKl {
    config: AutoencoderKlConfig,
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
}
parameters!(AutoencoderKl { encoder, quant_conv, post_quant_conv, decoder });

impl AutoencoderKl {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`] where the settings are not valid.
    pub fn new(config: AutoencoderKlConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let mut maker = Maker::new("vae", device);
        let latent = config.latent_channels;
        let point = |channels: usize| Conv2d::new(channels, channels, 1, device);
        Ok(Self {
            encoder: Encoder::new(&mut maker, &config),
            quant_conv: config.use_quant_conv.then(|| point(2 * latent)),
            post_quant_conv: config.use_post_quant_conv.then(|| point(latent)),
            decoder: Decoder::new(&mut maker, &config),
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// Mean and log variance of the latents of images `[batch, channels, height, width]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] for other channels, [`crate::Error::Unsupported`] for an image that is too small
    /// to be halved as often as needed.
    pub fn encode(&self, x: &Tensor<4>) -> Result<(Tensor<4>, Tensor<4>)> {
        self.encode_in(x, &mut Pass::default())
    }

    /// As [`AutoencoderKl::encode`], with taps.
    ///
    /// # Errors
    ///
    /// As [`AutoencoderKl::encode`], and what a tap says.
    pub fn encode_in(&self, x: &Tensor<4>, pass: &mut Pass) -> Result<(Tensor<4>, Tensor<4>)> {
        let x = numbers("image for the encoder", x, self.config.in_channels, self.weight())?;
        let [_, _, height, width] = x.dims();
        self.encoder.fits([height, width])?;
        let moments = self.encoder.forward(x, pass)?;
        let moments = match &self.quant_conv {
            Some(layer) => layer.forward(moments),
            None => moments,
        };
        let latent = self.config.latent_channels;
        let mean = moments.clone().narrow(1, 0, latent);
        let logvar = moments.narrow(1, latent, latent).clamp(LOGVAR[0], LOGVAR[1]);
        Ok((mean, logvar))
    }

    /// The images of latents, `[batch, channels, height, width]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] for other channels.
    pub fn decode(&self, z: &Tensor<4>) -> Result<Tensor<4>> {
        self.decode_in(z, &mut Pass::default())
    }

    /// As [`AutoencoderKl::decode`], with taps.
    ///
    /// # Errors
    ///
    /// As [`AutoencoderKl::decode`], and what a tap says.
    pub fn decode_in(&self, z: &Tensor<4>, pass: &mut Pass) -> Result<Tensor<4>> {
        let latent = self.config.latent_channels;
        let z = numbers("latents for the decoder", z, latent, self.weight())?;
        let z = match &self.post_quant_conv {
            Some(layer) => layer.forward(z),
            None => z,
        };
        self.decoder.forward(z, pass)
    }

    /// Latents as diffusion sees them: about unit size, by the factor and shift of the settings or
    /// by the mean and deviation of each channel.
    pub fn to_unit(&self, z: Tensor<4>) -> Tensor<4> {
        let scale = self.config.scaling_factor;
        match self.channels(&z) {
            Some([mean, std]) => (z - mean) * scale / std,
            None => (z - self.config.shift_factor.unwrap_or(0.0)) * scale,
        }
    }

    /// The inverse of [`AutoencoderKl::to_unit`], before [`AutoencoderKl::decode`].
    pub fn of_unit(&self, z: Tensor<4>) -> Tensor<4> {
        let scale = self.config.scaling_factor;
        match self.channels(&z) {
            Some([mean, std]) => z * std / scale + mean,
            None => z / scale + self.config.shift_factor.unwrap_or(0.0),
        }
    }

    /// Mean and deviation of each latent channel, where the settings have both.
    fn channels(&self, beside: &Tensor<4>) -> Option<[Tensor<4>; 2]> {
        let (mean, std) = (self.config.latents_mean.as_ref()?, self.config.latents_std.as_ref()?);
        let tensor = |values: &Vec<f64>| {
            let data = TensorData::new(values.clone(), [1, values.len(), 1, 1]);
            Tensor::from_data(data, (&beside.device(), beside.dtype()))
        };
        Some([tensor(mean), tensor(std)])
    }

    /// Every site of [`AutoencoderKl::encode_in`] and then of [`AutoencoderKl::decode_in`].
    pub fn sites(&self) -> (Vec<Site>, Vec<Site>) {
        let (mut encoder, mut decoder) = (Vec::new(), Vec::new());
        for down in &self.encoder.down_blocks {
            down.stack.sites(&mut encoder);
        }
        self.encoder.mid_block.sites(&mut encoder);
        encoder.extend(self.encoder.conv_norm_out.site().cloned());
        self.decoder.mid_block.sites(&mut decoder);
        for up in &self.decoder.up_blocks {
            up.stack.sites(&mut decoder);
        }
        decoder.extend(self.decoder.conv_norm_out.site().cloned());
        (encoder, decoder)
    }

    fn weight(&self) -> &crate::weight::Weight {
        self.decoder.conv_in.weight()
    }
}

fn plan(config: &AutoencoderKlConfig) -> ResnetPlan {
    ResnetPlan {
        time: None,
        groups: config.norm_num_groups,
        eps: AutoencoderKlConfig::NORM_EPS,
        shift: TimeScaleShift::Default,
        activation: config.act_fn,
        activates_time: true,
        scale: 1.0,
    }
}

impl Stack {
    /// At `path`: `layers` residual blocks, the first from `inputs` channels, the first `attends` of
    /// them followed by attention.
    fn new(
        maker: &mut Maker<'_>,
        path: &str,
        [inputs, outputs]: [usize; 2],
        [layers, attends]: [usize; 2],
        plan: &ResnetPlan,
    ) -> Self {
        let pixels = PixelPlan { head: outputs, norm: Some((plan.groups, plan.eps)), scale: 1.0 };
        let (mut resnets, mut attentions) = (Vec::new(), Vec::new());
        for j in 0..layers {
            let from = if j == 0 { inputs } else { outputs };
            let at = format!("{path}.resnets.{j}");
            resnets.push(Resnet::new(maker, &at, from, outputs, plan));
            if j < attends {
                let at = format!("{path}.attentions.{j}");
                attentions.push(PixelAttention::new(maker, &at, outputs, &pixels));
            }
        }
        Self { resnets, attentions }
    }

    /// The middle of encoder or decoder: attention between two residual blocks.
    fn mid(maker: &mut Maker<'_>, path: &str, config: &AutoencoderKlConfig) -> Self {
        let channels = config.block_out_channels.last().copied().unwrap_or(0);
        let layers = [2, usize::from(config.mid_block_add_attention)];
        let path = format!("{path}.mid_block");
        Self::new(maker, &path, [channels; 2], layers, &plan(config))
    }

    fn forward(&self, x: Tensor<4>, pass: &mut Pass) -> Result<Tensor<4>> {
        let given = Given::default();
        let mut x = x;
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, &given, pass)?;
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x, &given, pass)?;
            }
        }
        Ok(x)
    }
}

impl Sited for Stack {
    fn sites(&self, list: &mut Vec<Site>) {
        for (i, resnet) in self.resnets.iter().enumerate() {
            resnet.sites(list);
            if let Some(attention) = self.attentions.get(i) {
                attention.sites(list);
            }
        }
    }
}

impl Encoder {
    fn new(maker: &mut Maker<'_>, config: &AutoencoderKlConfig) -> Self {
        let (channels, plan) = (&config.block_out_channels, plan(config));
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let mut down_blocks = Vec::with_capacity(channels.len());
        let mut inputs = first;
        for (i, &outputs) in channels.iter().enumerate() {
            let path = format!("encoder.down_blocks.{i}");
            let layers = config.layers_per_block;
            let attends = match config.down_block_types[i] {
                EncoderBlock::DownEncoderBlock2D => 0,
                EncoderBlock::AttnDownEncoderBlock2D => layers,
            };
            let stack = Stack::new(maker, &path, [inputs, outputs], [layers, attends], &plan);
            let halve = (i + 1 < channels.len()).then(|| Downsample::new(maker, outputs, 0));
            down_blocks.push(Down { stack, downsamplers: halve.into_iter().collect() });
            inputs = outputs;
        }
        let device = maker.device;
        let mid_block = Stack::mid(maker, "encoder", config);
        let norm = GroupNorm::new(plan.groups, last, plan.eps, device);
        Self {
            conv_in: Conv2d::new(config.in_channels, first, 3, device),
            down_blocks,
            mid_block,
            conv_norm_out: norm.at(maker, "encoder.conv_norm_out"),
            conv_out: Conv2d::new(last, 2 * config.latent_channels, 3, device),
        }
    }

    fn fits(&self, size: [usize; 2]) -> Result<()> {
        let halve = self.down_blocks.iter().flat_map(|down| &down.downsamplers);
        fits("encoder", halve, size)
    }

    fn forward(&self, x: Tensor<4>, pass: &mut Pass) -> Result<Tensor<4>> {
        let given = Given::default();
        let mut x = self.conv_in.forward(x);
        for down in &self.down_blocks {
            x = down.stack.forward(x, pass)?;
            for halve in &down.downsamplers {
                x = halve.forward(x, &given, pass)?;
            }
        }
        let x = self.mid_block.forward(x, pass)?;
        let x = self.conv_norm_out.run(x, Some(Activation::Silu), pass)?;
        Ok(self.conv_out.forward(x))
    }
}

impl Decoder {
    fn new(maker: &mut Maker<'_>, config: &AutoencoderKlConfig) -> Self {
        let (channels, plan) = (&config.block_out_channels, plan(config));
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let mid_block = Stack::mid(maker, "decoder", config);
        let mut up_blocks = Vec::with_capacity(channels.len());
        let mut inputs = last;
        for (i, &outputs) in channels.iter().rev().enumerate() {
            let path = format!("decoder.up_blocks.{i}");
            let layers = config.layers_per_block + 1;
            let attends = match config.up_block_types[i] {
                DecoderBlock::UpDecoderBlock2D => 0,
                DecoderBlock::AttnUpDecoderBlock2D => layers,
            };
            let stack = Stack::new(maker, &path, [inputs, outputs], [layers, attends], &plan);
            let double = (i + 1 < channels.len()).then(|| Upsample::new(maker, outputs));
            up_blocks.push(Up { stack, upsamplers: double.into_iter().collect() });
            inputs = outputs;
        }
        let device = maker.device;
        let norm = GroupNorm::new(plan.groups, first, plan.eps, device);
        Self {
            conv_in: Conv2d::new(config.latent_channels, last, 3, device),
            mid_block,
            up_blocks,
            conv_norm_out: norm.at(maker, "decoder.conv_norm_out"),
            conv_out: Conv2d::new(first, config.out_channels, 3, device),
        }
    }

    fn forward(&self, z: Tensor<4>, pass: &mut Pass) -> Result<Tensor<4>> {
        let given = Given::default();
        let mut x = self.mid_block.forward(self.conv_in.forward(z), pass)?;
        for up in &self.up_blocks {
            x = up.stack.forward(x, pass)?;
            for double in &up.upsamplers {
                let [_, _, height, width] = x.dims();
                x = double.forward(x, [2 * height, 2 * width], &given, pass)?;
            }
        }
        let x = self.conv_norm_out.run(x, Some(Activation::Silu), pass)?;
        Ok(self.conv_out.forward(x))
    }
}
