//! `AutoencoderTiny`: images to latents and back, by a few convolutions.

use burn::tensor::{Device, Tensor};

use super::config::{Activation, AutoencoderTinyConfig, Config};
use super::edge::numbers;
use super::layers::Conv2d;
use super::ops;
use super::site::{Given, Maker, Sited, around};
use crate::denoiser::Pass;
use crate::error::{Error, Result};
use crate::parameters;
use crate::tap::{Site, SiteKind};
use crate::weight::{Parameters, Weight};

/// Latents beyond this are bent back before they are decoded, as in the published class.
const BOUND: f64 = 3.0;

/// Three convolutions beside a shortcut.
#[derive(Clone, Debug)]
struct Block {
    first: Conv2d,
    second: Conv2d,
    third: Conv2d,
    activation: Activation,
    site: Site,
}
parameters!(Block { "conv.0" => first, "conv.2" => second, "conv.4" => third });

/// What stands in the sequence of an encoder or a decoder.
#[derive(Clone, Debug)]
enum Step {
    Conv(Conv2d),
    Act(Activation),
    Block(Box<Block>),
    Enlarge(usize),
}

impl Parameters for Step {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Conv(part) => part.each(path, visit),
            Self::Block(part) => part.each(path, visit),
            Self::Act(_) | Self::Enlarge(_) => {}
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Conv(part) => part.each_mut(path, visit),
            Self::Block(part) => part.each_mut(path, visit),
            Self::Act(_) | Self::Enlarge(_) => {}
        }
    }
}

/// A small autoencoder without a variance (Bohan, "TAESD", 2023, in the form of diffusers'
/// `AutoencoderTiny`).
///
/// Images are `[batch, channels, height, width]` in the range -1 to 1.
#[derive(Clone, Debug)]
pub struct AutoencoderTiny {
    config: AutoencoderTinyConfig,
    encoder: Vec<Step>,
    decoder: Vec<Step>,
}
parameters!(AutoencoderTiny { "encoder.layers" => encoder, "decoder.layers" => decoder });

impl AutoencoderTiny {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn new(config: AutoencoderTinyConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let mut maker = Maker::new("vae", device);
        let encoder = encoder(&mut maker, &config);
        let decoder = decoder(&mut maker, &config);
        Ok(Self { config, encoder, decoder })
    }

    /// Its settings.
    pub fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    /// The latents of images `[batch, channels, height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for other channels.
    pub fn encode(&self, x: &Tensor<4>) -> Result<Tensor<4>> {
        self.encode_in(x, &mut Pass::default())
    }

    /// As [`AutoencoderTiny::encode`], with taps.
    ///
    /// # Errors
    ///
    /// As [`AutoencoderTiny::encode`], and what a tap says.
    pub fn encode_in(&self, x: &Tensor<4>, pass: &mut Pass) -> Result<Tensor<4>> {
        let x = numbers("image for the encoder", x, self.config.in_channels, self.weight()?)?;
        run(&self.encoder, (x + 1.0) / 2.0, pass)
    }

    /// The images of latents, `[batch, channels, height, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for other channels.
    pub fn decode(&self, z: &Tensor<4>) -> Result<Tensor<4>> {
        self.decode_in(z, &mut Pass::default())
    }

    /// As [`AutoencoderTiny::decode`], with taps.
    ///
    /// # Errors
    ///
    /// As [`AutoencoderTiny::decode`], and what a tap says.
    pub fn decode_in(&self, z: &Tensor<4>, pass: &mut Pass) -> Result<Tensor<4>> {
        let channels = self.config.latent_channels;
        let z = numbers("latents for the decoder", z, channels, self.weight()?)?;
        let x = run(&self.decoder, (z / BOUND).tanh() * BOUND, pass)?;
        Ok(x * 2.0 - 1.0)
    }

    /// Latents as diffusion sees them.
    pub fn to_unit(&self, z: Tensor<4>) -> Tensor<4> {
        (z - self.config.shift_factor) * self.config.scaling_factor
    }

    /// The inverse of [`AutoencoderTiny::to_unit`], before [`AutoencoderTiny::decode`].
    pub fn of_unit(&self, z: Tensor<4>) -> Tensor<4> {
        z / self.config.scaling_factor + self.config.shift_factor
    }

    /// Every site of [`AutoencoderTiny::encode_in`] and then of [`AutoencoderTiny::decode_in`].
    pub fn sites(&self) -> (Vec<Site>, Vec<Site>) {
        let of = |steps: &[Step]| {
            let mut list = Vec::new();
            for step in steps {
                if let Step::Block(block) = step {
                    block.sites(&mut list);
                }
            }
            list
        };
        (of(&self.encoder), of(&self.decoder))
    }

    fn weight(&self) -> Result<&Weight> {
        match self.decoder.first() {
            Some(Step::Conv(conv)) => Ok(conv.weight()),
            _ => Err(Error::unsupported("decoder", "a first convolution")),
        }
    }
}

/// Convolutions without a bias halve the size; blocks stand behind each convolution but the last.
fn encoder(maker: &mut Maker<'_>, config: &AutoencoderTinyConfig) -> Vec<Step> {
    let mut steps = Vec::new();
    let stages = config.encoder_block_out_channels.iter().zip(&config.num_encoder_blocks);
    let mut last = 0;
    for (i, (&channels, &blocks)) in stages.enumerate() {
        let device = maker.device;
        steps.push(Step::Conv(match i {
            0 => Conv2d::new(config.in_channels, channels, 3, device),
            _ => Conv2d::new(channels, channels, 3, device).striding(2, [1; 4]).plain(),
        }));
        for _ in 0..blocks {
            let path = format!("encoder.layers.{}", steps.len());
            steps.push(Step::Block(Box::new(Block::new(maker, &path, channels, config.act_fn))));
        }
        last = channels;
    }
    steps.push(Step::Conv(Conv2d::new(last, config.latent_channels, 3, maker.device)));
    steps
}

/// Each stage is blocks, an enlargement and a convolution; the last one does not enlarge.
fn decoder(maker: &mut Maker<'_>, config: &AutoencoderTinyConfig) -> Vec<Step> {
    let first = config.decoder_block_out_channels[0];
    let conv = Conv2d::new(config.latent_channels, first, 3, maker.device);
    let mut steps = vec![Step::Conv(conv), Step::Act(config.act_fn)];
    let count = config.num_decoder_blocks.len();
    let stages = config.decoder_block_out_channels.iter().zip(&config.num_decoder_blocks);
    for (i, (&channels, &blocks)) in stages.enumerate() {
        for _ in 0..blocks {
            let path = format!("decoder.layers.{}", steps.len());
            steps.push(Step::Block(Box::new(Block::new(maker, &path, channels, config.act_fn))));
        }
        let device = maker.device;
        if i + 1 < count {
            steps.push(Step::Enlarge(config.upsampling_scaling_factor));
            steps.push(Step::Conv(Conv2d::new(channels, channels, 3, device).plain()));
        } else {
            steps.push(Step::Conv(Conv2d::new(channels, config.out_channels, 3, device)));
        }
    }
    steps
}

fn run(steps: &[Step], x: Tensor<4>, pass: &mut Pass) -> Result<Tensor<4>> {
    let mut x = x;
    // What the convolution behind it enlarges by as it reads.
    let mut enlarge = 1;
    for step in steps {
        x = match step {
            Step::Conv(conv) => {
                let [_, _, height, width] = x.dims();
                let by = std::mem::replace(&mut enlarge, 1);
                conv.enlarged(x, [by * height, by * width])
            }
            Step::Act(by) => ops::activate(x, *by),
            Step::Block(block) => block.forward(x, pass)?,
            Step::Enlarge(factor) => {
                enlarge *= factor;
                x
            }
        };
    }
    Ok(x)
}

impl Block {
    fn new(maker: &mut Maker<'_>, path: &str, channels: usize, activation: Activation) -> Self {
        let conv = || Conv2d::new(channels, channels, 3, maker.device);
        let (first, second, third) = (conv(), conv(), conv());
        Self { first, second, third, activation, site: maker.site(path, SiteKind::Block) }
    }

    /// Images, keeping the shape.
    fn forward(&self, x: Tensor<4>, pass: &mut Pass) -> Result<Tensor<4>> {
        around(pass, &self.site, x, &Given::default(), |_, x, _| {
            let y = ops::activate(self.first.forward(x.clone()), self.activation);
            let y = ops::activate(self.second.forward(y), self.activation);
            Ok(ops::activate(self.third.forward(y) + x, Activation::Relu))
        })
    }
}

impl Sited for Block {
    fn sites(&self, list: &mut Vec<Site>) {
        list.push(self.site.clone());
    }
}
