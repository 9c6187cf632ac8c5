//! Any autoencoder: images to latents and back.

use burn::tensor::Tensor;

use super::{AutoencoderKl, AutoencoderTiny};
use crate::error::Result;
use crate::weight::{Parameters, Weight};

/// An autoencoder of a latent model, by class.
#[derive(Clone, Debug)]
pub enum Autoencoder {
    /// `AutoencoderKL`.
    Kl(Box<AutoencoderKl>),
    /// `AutoencoderTiny`.
    Tiny(Box<AutoencoderTiny>),
}

impl Autoencoder {
    /// Latents of images `[batch, channels, height, width]` in the range -1 to 1: their mean, and
    /// their log variance where the class has one.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] for other channels, [`crate::Error::Unsupported`] for an image that
    /// is too small to be halved as often as needed.
    pub fn encode(&self, x: &Tensor<4>) -> Result<(Tensor<4>, Option<Tensor<4>>)> {
        match self {
            Self::Kl(network) => network.encode(x).map(|(mean, logvar)| (mean, Some(logvar))),
            Self::Tiny(network) => network.encode(x).map(|mean| (mean, None)),
        }
    }

    /// The images of latents, `[batch, channels, height, width]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] for other channels.
    pub fn decode(&self, z: &Tensor<4>) -> Result<Tensor<4>> {
        match self {
            Self::Kl(network) => network.decode(z),
            Self::Tiny(network) => network.decode(z),
        }
    }

    /// As [`Autoencoder::encode`], by tiles of about `tile` pixels a side where the class knows how.
    ///
    /// # Errors
    ///
    /// As [`AutoencoderKl::encode_tiled`].
    pub fn encode_tiled(
        &self,
        x: &Tensor<4>,
        tile: usize,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(Tensor<4>, Option<Tensor<4>>)> {
        match self {
            Self::Kl(network) => {
                network.encode_tiled(x, tile, stop).map(|(mean, logvar)| (mean, Some(logvar)))
            }
            Self::Tiny(_) => self.encode(x),
        }
    }

    /// As [`Autoencoder::decode`], by tiles of about `tile` pixels a side where the class knows how.
    ///
    /// # Errors
    ///
    /// As [`AutoencoderKl::decode_tiled`].
    pub fn decode_tiled(
        &self,
        z: &Tensor<4>,
        tile: usize,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor<4>> {
        match self {
            Self::Kl(network) => network.decode_tiled(z, tile, stop),
            Self::Tiny(_) => self.decode(z),
        }
    }

    /// Latents as diffusion sees them: about unit size.
    pub fn to_unit(&self, z: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Kl(network) => network.to_unit(z),
            Self::Tiny(network) => network.to_unit(z),
        }
    }

    /// The inverse of [`Autoencoder::to_unit`], before [`Autoencoder::decode`].
    pub fn of_unit(&self, z: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Kl(network) => network.of_unit(z),
            Self::Tiny(network) => network.of_unit(z),
        }
    }

    /// How many pixels of the image one pixel of the latent stands for, along a side.
    pub fn downsampling(&self) -> usize {
        match self {
            Self::Kl(network) => network.config().downsampling(),
            Self::Tiny(network) => network.config().downsampling(),
        }
    }

    /// Channels of the images that go in.
    pub fn image_channels(&self) -> usize {
        match self {
            Self::Kl(network) => network.config().in_channels,
            Self::Tiny(network) => network.config().in_channels,
        }
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(network) => network.config().latent_channels,
            Self::Tiny(network) => network.config().latent_channels,
        }
    }
}

impl Parameters for Autoencoder {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        match self {
            Self::Kl(network) => network.each(path, visit),
            Self::Tiny(network) => network.each(path, visit),
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        match self {
            Self::Kl(network) => network.each_mut(path, visit),
            Self::Tiny(network) => network.each_mut(path, visit),
        }
    }
}
