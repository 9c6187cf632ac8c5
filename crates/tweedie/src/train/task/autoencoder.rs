//! Training an autoencoder with a diagonal Gaussian posterior.
//!
//! ```text
//! z = mean + exp(logvar / 2) eps
//! fit(y, x) = l1 |y - x| + l2 (y - x)^2 + edge |grad y - grad x|
//! loss = fit(decode(z), x) + scale fit(decode(half(z)), half(x)) + kl KL(posterior || N(0, 1))
//! ```
//! each a mean over its numbers (Rombach et al. 2022, without the adversarial and perceptual
//! terms, which need networks trained elsewhere). The edge term compares differences of
//! neighbouring pixels, so that outlines stay sharp. The second fit, of both sides halved by averages
//! of 2x2, is scale equivariance (Skorokhodov et al., "Improving the Diffusability of Autoencoders",
//! 2025, [arXiv:2502.14831](https://arxiv.org/abs/2502.14831), section 4): an average of latents then
//! stands for an average of colours. Without it the latents of flat pictures curl up in few
//! directions, and a diffusion over them sees colours blend through others.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::Task;
use super::scenes::{SceneSettings, pixels};
use crate::data::Images;
use crate::data::shapes::{SIDE, Scene};
use crate::error::{Error, Result};
use crate::hub::{Dtype, ModelFolder, outputs};
use crate::model::AutoencoderKl;
use crate::model::config::AutoencoderKlConfig;
use crate::train::config::Config;
use crate::train::draws::{self, Use};
use crate::train::objective::Place;
use crate::weight::{Parameters, Weight};

/// The section `loss`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossSettings {
    /// Of the absolute error.
    pub l1: f64,
    /// Of the squared error.
    pub l2: f64,
    /// Of the absolute error of the differences of neighbouring pixels.
    pub edge: f64,
    /// Of the fit of halved latents to the halved picture; the paper's 0.25 is a good choice. The
    /// default is 0.
    pub scale: f64,
    /// Of the posterior's divergence from a standard normal; the default, 1e-6, is the paper's.
    pub kl: f64,
}

impl Default for LossSettings {
    fn default() -> Self {
        Self { l1: 1.0, l2: 1.0, edge: 0.0, scale: 0.0, kl: 1e-6 }
    }
}

/// An autoencoder in training on scenes.
pub struct Autoencoder {
    network: AutoencoderKl,
    scenes: SceneSettings,
    loss: LossSettings,
    device: Device,
}

impl Parameters for Autoencoder {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        self.network.each(path, visit);
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        self.network.each_mut(path, visit);
    }
}

impl Autoencoder {
    /// From the sections `data`, `network` and `loss`.
    ///
    /// # Errors
    ///
    /// What the sections say.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        config.only(&["data", "network", "loss"])?;
        let network: AutoencoderKlConfig = config.section("network")?;
        let scenes: SceneSettings = config.section("data")?;
        scenes.validate()?;
        let loss: LossSettings = config.section("loss")?;
        let LossSettings { l1, l2, edge, scale, kl } = loss;
        for (key, value) in [("l1", l1), ("l2", l2), ("edge", edge), ("scale", scale), ("kl", kl)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::setting(format!("loss.{key}"), format!("{value} is below 0")));
            }
        }
        let network = AutoencoderKl::new(network, device)?;
        let latents = SIDE >> network.config().block_out_channels.len().saturating_sub(1);
        if scale > 0.0 && !latents.is_multiple_of(2) {
            let why = format!("latents of {latents} a side cannot be halved");
            return Err(Error::setting("loss.scale", why));
        }
        Ok(Self { network, scenes, loss, device: device.clone() })
    }

    fn noise(&self, place: Place, like: &Tensor<4>) -> Tensor<4> {
        let shape = like.dims();
        let width = shape[1] * shape[2] * shape[3];
        let mut all = Vec::with_capacity(width * shape[0]);
        for i in 0..shape[0] {
            let row = place.first + i;
            let mut generator = draws::generator(place.seed, Use::Posterior, place.step, row);
            all.extend((0..width).map(|_| generator.normal() as f32));
        }
        Tensor::from_data(TensorData::new(all, shape), &self.device).autodiff()
    }

    fn held(&self, count: usize) -> Tensor<4> {
        let scenes: Vec<Scene> = (0..count).map(|i| self.scenes.held(i)).collect();
        pixels(scenes.iter(), &self.device)
    }
}

impl LossSettings {
    /// How far a picture is from another, given their difference.
    fn fit(&self, error: Tensor<4>) -> Tensor<1> {
        let mut loss = error.clone().square().mean() * self.l2;
        if self.edge > 0.0 {
            loss = loss + edges(&error) * self.edge;
        }
        if self.l1 > 0.0 {
            loss = loss + error.abs().mean() * self.l1;
        }
        loss
    }
}

/// Averages of 2x2.
fn half(x: &Tensor<4>) -> Tensor<4> {
    let [n, c, height, width] = x.dims();
    let split: Tensor<6> = x.clone().reshape([n, c, height / 2, 2, width / 2, 2]);
    split.mean_dim(5).mean_dim(3).reshape([n, c, height / 2, width / 2])
}

/// Differences of neighbours along both sides of a picture, as one mean of absolute values.
fn edges(error: &Tensor<4>) -> Tensor<1> {
    let [_, _, height, width] = error.dims();
    let down = error.clone().narrow(2, 1, height - 1) - error.clone().narrow(2, 0, height - 1);
    let right = error.clone().narrow(3, 1, width - 1) - error.clone().narrow(3, 0, width - 1);
    down.abs().mean() + right.abs().mean()
}

impl Task for Autoencoder {
    fn examples(&self) -> usize {
        self.scenes.scenes
    }

    fn loss(&mut self, examples: &[usize], place: Place) -> Result<Tensor<1>> {
        let scenes: Vec<Scene> = examples.iter().map(|&i| self.scenes.train(i)).collect();
        let x = pixels(scenes.iter(), &self.device).autodiff();
        let (mean, logvar) = self.network.encode(&x)?;
        let z = mean.clone() + (logvar.clone() * 0.5).exp() * self.noise(place, &mean);
        let settings = &self.loss;
        let kl = (mean.square() + logvar.clone().exp() - logvar - 1.0).mean() * 0.5;
        let mut loss = settings.fit(self.network.decode(&z)? - x.clone()) + kl * settings.kl;
        if settings.scale > 0.0 {
            let halved = self.network.decode(&half(&z))? - half(&x);
            loss = loss + settings.fit(halved) * settings.scale;
        }
        Ok(loss)
    }

    /// Pairs of a held-out scene and its reconstruction.
    fn samples(&mut self) -> Result<Option<Images>> {
        let x = self.held(18);
        let y = self.network.decode(&self.network.encode(&x)?.0)?;
        let both: Tensor<4> = Tensor::stack::<5>(vec![x, y], 1).reshape([36, 3, SIDE, SIDE]);
        let values: Vec<f32> = both.into_data_as::<f32>().iter::<f32>().collect();
        Images::from_f32([36, 3, SIDE, SIDE], &values).map(Some)
    }

    /// The mean PSNR over scenes that are not trained on, and the latents' deviation.
    fn measure(&mut self) -> Result<Vec<(String, f64)>> {
        let (mut psnr, mut square, mut count) = (0.0, 0.0, 0.0);
        for start in (0..self.scenes.test).step_by(16) {
            let end = self.scenes.test.min(start + 16);
            let scenes: Vec<Scene> = (start..end).map(|i| self.scenes.held(i)).collect();
            let x = pixels(scenes.iter(), &self.device);
            let mean = self.network.encode(&x)?.0;
            let y = self.network.decode(&mean)?.clamp(-1.0, 1.0);
            let errors: Vec<f32> = (y - x).into_data_as::<f32>().iter::<f32>().collect();
            for row in errors.chunks(3 * SIDE * SIDE) {
                // The range is 2, so that a full error squares to 4.
                let sum: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
                psnr += 10.0 * (4.0 * row.len() as f64 / sum).log10();
            }
            let latents = mean.into_data_as::<f32>();
            for v in latents.iter::<f32>() {
                square += f64::from(v) * f64::from(v);
                count += 1.0;
            }
        }
        let rows = self.scenes.test.max(1) as f64;
        let size = f64::sqrt(square / f64::max(count, 1.0));
        Ok(vec![("psnr".into(), psnr / rows), ("latent_size".into(), size)])
    }

    fn export(&mut self, folder: &Path) -> Result<()> {
        let weights = outputs(&self.network, Dtype::F16);
        ModelFolder::single(self.network.config(), weights)?.write(folder)
    }
}
