//! The network that a diffusion task trains: which class it is of, and its weights.

use std::sync::Arc;

use burn::tensor::Device;

use crate::denoiser::Network;
use crate::error::{Error, Result};
use crate::hub::{Dtype, ModelFolder, outputs};
use crate::model::{ModelConfig, build};
use crate::train::config::Config;
use crate::weight::{Parameters, Weight};

/// The section `network`: its key `class` is the published class, `default` where there is none; the
/// others are the fields of the class's configuration.
///
/// # Errors
///
/// [`Error::Unknown`] for a class or a key, [`Error::Setting`] for a value.
pub fn network(config: &Config, default: &str) -> Result<ModelConfig> {
    let class = config.text("network", "class")?.unwrap_or(default);
    Ok(match ModelConfig::of_class(class)? {
        ModelConfig::UNet2D(_) => ModelConfig::UNet2D(config.fields("network", "class")?),
        ModelConfig::UNet2DCondition(_) => {
            ModelConfig::UNet2DCondition(Box::new(config.fields("network", "class")?))
        }
        ModelConfig::DiT(_) => ModelConfig::DiT(config.fields("network", "class")?),
        ModelConfig::PixArt(_) => ModelConfig::PixArt(config.fields("network", "class")?),
    })
}

/// A denoising network in training, of the class that the section `network` names.
pub(crate) struct Trained {
    /// The network; nobody else holds it between two passes.
    pub(crate) network: Arc<dyn Network>,
    config: ModelConfig,
}

impl Parameters for Trained {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        self.network.each(path, visit);
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        if Arc::get_mut(&mut self.network).is_none()
            && let Some(copy) = self.network.copied()
        {
            self.network = copy.into();
        }
        if let Some(network) = Arc::get_mut(&mut self.network) {
            network.each_mut(path, visit);
        }
    }
}

impl Trained {
    /// As the section `network` says, see [`network`].
    ///
    /// # Errors
    ///
    /// As [`network`]; what the network says of its settings.
    pub(crate) fn read(config: &Config, default: &str, device: &Device) -> Result<Self> {
        let config = network(config, default)?;
        let network = build(&config, device)?;
        if network.copied().is_none() {
            return Err(Error::unsupported("training", "a network that can be copied"));
        }
        Ok(Self { network: network.into(), config })
    }

    /// The key of the configuration that says how many classes there are.
    pub(crate) fn class_key(&self) -> &'static str {
        match self.config {
            ModelConfig::DiT(_) => "network.num_embeds_ada_norm",
            _ => "network.num_class_embeds",
        }
    }

    /// What pipelines call a network of its class.
    pub(crate) fn component(&self) -> &'static str {
        match self.config {
            ModelConfig::UNet2D(_) | ModelConfig::UNet2DCondition(_) => "unet",
            ModelConfig::DiT(_) | ModelConfig::PixArt(_) => "transformer",
        }
    }

    /// The folder with the network in 16 bits, under the name that pipelines of its class have for it.
    pub(crate) fn put<'a>(&self, folder: ModelFolder<'a>) -> Result<ModelFolder<'a>> {
        let weights = outputs(&*self.network, Dtype::F16);
        let name = self.component();
        match &self.config {
            ModelConfig::UNet2D(config) => folder.network(name, config, weights),
            ModelConfig::UNet2DCondition(config) => folder.network(name, &**config, weights),
            ModelConfig::DiT(config) => folder.network(name, config, weights),
            ModelConfig::PixArt(config) => folder.network(name, config, weights),
        }
    }

    /// The pipeline that samples of classes are made with.
    pub(crate) fn class_pipeline(&self) -> &'static str {
        match self.config {
            ModelConfig::DiT(_) => "DiTPipeline",
            _ => "DDPMPipeline",
        }
    }

    /// The pipeline that samples of texts are made with; the general one over pixels, which no
    /// published pipeline of these classes goes without an autoencoder for.
    pub(crate) fn text_pipeline(&self, latent: bool) -> &'static str {
        match self.config {
            _ if !latent => "DiffusionPipeline",
            ModelConfig::PixArt(_) => "PixArtAlphaPipeline",
            _ => "StableDiffusionPipeline",
        }
    }
}
