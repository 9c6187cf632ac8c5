//! What the loop trains: a network, its data, its loss, and what can be said of it on the way.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::config::{Config, TaskKind};
use super::objective::Place;
use crate::data::Images;
use crate::error::Result;
use crate::weight::Parameters;

mod autoencoder;
mod captions;
mod class_image;
mod classifier;
mod experts;
mod latents;
mod network;
mod pictures;
mod questions;
mod sampling;
mod scenes;
mod scheduler;
mod text_encoder;
mod text_latent;
mod whitening;

pub use autoencoder::{Autoencoder, LossSettings};
pub use class_image::ClassImage;
pub use classifier::ClassifierTask;
pub use experts::{ExpertsSettings, ExpertsTask};
pub use network::network;
pub use pictures::{PictureSettings, Pictures};
pub use scenes::SceneSettings;
pub use text_encoder::TextEncoder;
pub use text_latent::{AutoencoderSettings, TextLatent, TextSettings};

/// What the loop trains.
pub trait Task: Parameters {
    /// Examples of one epoch.
    fn examples(&self) -> usize;

    /// The loss of a batch, a tensor of one number on the tape of the tracked weights: the mean
    /// over the given examples.
    ///
    /// # Errors
    ///
    /// What the network says.
    fn loss(&mut self, examples: &[usize], place: Place) -> Result<Tensor<1>>;

    /// A grid of samples, or of reconstructions, with the weights as they are now; `None` where
    /// there is nothing to show.
    ///
    /// # Errors
    ///
    /// What the network says.
    fn samples(&mut self) -> Result<Option<Images>> {
        Ok(None)
    }

    /// Figures on data that is not trained on, with the weights as they are now.
    ///
    /// # Errors
    ///
    /// What the network says.
    fn measure(&mut self) -> Result<Vec<(String, f64)>> {
        Ok(Vec::new())
    }

    /// Writes the model, with the weights as they are now, as a whole folder or not at all; what
    /// was there before is replaced.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn export(&mut self, folder: &Path) -> Result<()>;
}

/// The task that a configuration names, its data read.
///
/// # Errors
///
/// What the sections and the readers say.
pub fn open(config: &Config, device: &Device) -> Result<Box<dyn Task>> {
    Ok(match config.task {
        TaskKind::ClassImage => Box::new(ClassImage::new(config, device)?),
        TaskKind::Classifier => Box::new(ClassifierTask::new(config, device)?),
        TaskKind::Experts => Box::new(ExpertsTask::new(config, device)?),
        TaskKind::Autoencoder => Box::new(Autoencoder::new(config, device)?),
        TaskKind::TextEncoder => Box::new(TextEncoder::new(config, device)?),
        TaskKind::TextLatent => Box::new(TextLatent::new(config, device)?),
    })
}
