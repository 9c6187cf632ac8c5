//! Networks with sites, in the configuration and naming of the published classes.
//!
//! Read [`config`] first, then [`unet`] (the recursive body), [`site`] (how blocks announce
//! themselves) and one network. [`build`] makes a denoising network from its class and settings.

use burn::tensor::Device;

use crate::denoiser::Network;
use crate::error::{Error, Result};

pub mod attention;
mod autoencoder;
mod autoencoder_kl;
mod autoencoder_tiny;
pub mod classifier;
mod clip_text;
mod conditioning;
pub mod config;
mod controlnet;
mod dit;
pub mod edge;
pub mod embed;
pub mod experts;
mod feed_forward;
pub mod layers;
pub mod norms;
pub mod ops;
mod patches;
mod pixart;
pub mod resnet;
pub mod site;
pub mod transformer;
pub mod unet;
mod unet2d;
mod unet2d_condition;

pub use autoencoder::Autoencoder;
pub use autoencoder_kl::AutoencoderKl;
pub use autoencoder_tiny::AutoencoderTiny;
pub use clip_text::{ClipText, EncodedText};
pub use controlnet::{Control, ControlNet, Controlled, Residuals};
pub use dit::DiT;
pub use pixart::PixArt;
pub use unet2d::UNet2D;
pub use unet2d_condition::UNet2DCondition;

use config::{Config, DitConfig, PixArtConfig, UNet2DConditionConfig, UNet2DConfig};

/// The settings of a denoising network, by class.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// `UNet2DModel`.
    UNet2D(UNet2DConfig),
    /// `UNet2DConditionModel`.
    UNet2DCondition(Box<UNet2DConditionConfig>),
    /// `DiTTransformer2DModel`.
    DiT(DitConfig),
    /// `PixArtTransformer2DModel`.
    PixArt(PixArtConfig),
}

impl ModelConfig {
    /// The classes that there are.
    pub const CLASSES: [&'static str; 4] =
        [UNet2DConfig::CLASS, UNet2DConditionConfig::CLASS, DitConfig::CLASS, PixArtConfig::CLASS];

    /// The published class.
    pub fn class(&self) -> &'static str {
        match self {
            Self::UNet2D(_) => UNet2DConfig::CLASS,
            Self::UNet2DCondition(_) => UNet2DConditionConfig::CLASS,
            Self::DiT(_) => DitConfig::CLASS,
            Self::PixArt(_) => PixArtConfig::CLASS,
        }
    }

    /// The default settings of a class.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] for a class that is no denoising network here.
    pub fn of_class(class: &str) -> Result<Self> {
        match class {
            UNet2DConfig::CLASS => Ok(Self::UNet2D(UNet2DConfig::default())),
            UNet2DConditionConfig::CLASS => Ok(Self::UNet2DCondition(Box::default())),
            DitConfig::CLASS => Ok(Self::DiT(DitConfig::default())),
            PixArtConfig::CLASS => Ok(Self::PixArt(PixArtConfig::default())),
            other => Err(Error::unknown("class of network", other, Self::CLASSES)),
        }
    }
}

/// A denoising network without numbers yet: draw or load them.
///
/// # Errors
///
/// [`Error::Setting`] where the settings are not valid.
pub fn build(config: &ModelConfig, device: &Device) -> Result<Box<dyn Network>> {
    Ok(match config {
        ModelConfig::UNet2D(config) => Box::new(UNet2D::new(config.clone(), device)?),
        ModelConfig::UNet2DCondition(config) => {
            Box::new(UNet2DCondition::new((**config).clone(), device)?)
        }
        ModelConfig::DiT(config) => Box::new(DiT::new(config.clone(), device)?),
        ModelConfig::PixArt(config) => Box::new(PixArt::new(config.clone(), device)?),
    })
}
