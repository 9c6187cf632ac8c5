//! Training an autoencoder with a diagonal Gaussian posterior.
//!
//! ```text
//! z = mean + exp(logvar / 2) eps + noise u eps',  u uniform in (0, 1), one for a picture
//! fit(y, x) = l1 |y - x| + l2 (y - x)^2 + edge |grad y - grad x|
//! loss = fit(decode(z), x) + scale fit(decode(half(z)), half(x)) + kl KL(posterior || N(0, 1))
//!      + colours (mean[first three channels] - x averaged over a latent's cell)^2
//! ```
//! each a mean over its numbers (Rombach et al. 2022, without the adversarial and perceptual
//! terms, which need networks trained elsewhere). The edge term compares differences of
//! neighbouring pixels, so that outlines stay sharp. The second fit, of both sides halved by averages
//! of 2x2, is scale equivariance (Skorokhodov et al., "Improving the Diffusability of Autoencoders",
//! 2025, [arXiv:2502.14831](https://arxiv.org/abs/2502.14831), section 4): an average of latents then
//! stands for an average of colours. Without it the latents of flat pictures curl up in few
//! directions, and a diffusion over them sees colours blend through others. The last term says which
//! directions: the first three channels are a small picture, and the others hold what it lacks. The
//! noise makes of the decoder a denoiser, which forgives a diffusion its small errors (Yang et al.,
//! "Latent Denoising Makes Good Tokenizers", 2025, [arXiv:2507.15856](https://arxiv.org/abs/2507.15856),
//! section 3, there mixed in and with masks).

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::Task;
use super::scenes::{SceneSettings, pixels};
use crate::data::Images;
use crate::data::shapes::Scene;
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
    /// Of the squared error of the first three latent channels as red, green and blue of a small
    /// picture. The default is 0.
    pub colours: f64,
    /// The largest deviation of the noise that is added to latents for the decoder to take away. The
    /// default is 0.
    pub noise: f64,
    /// Of the posterior's divergence from a standard normal; the default, 1e-6, is the paper's.
    pub kl: f64,
}

impl Default for LossSettings {
    fn default() -> Self {
        Self { l1: 1.0, l2: 1.0, edge: 0.0, scale: 0.0, colours: 0.0, noise: 0.0, kl: 1e-6 }
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
        let LossSettings { l1, l2, edge, scale, colours, noise, kl } = loss;
        let fits = [("l1", l1), ("l2", l2), ("edge", edge), ("scale", scale)];
        for (key, value) in
            fits.into_iter().chain([("colours", colours), ("noise", noise), ("kl", kl)])
        {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::setting(format!("loss.{key}"), format!("{value} is below 0")));
            }
        }
        let network = AutoencoderKl::new(network, device)?;
        let latents = scenes.side >> network.config().block_out_channels.len().saturating_sub(1);
        if scale > 0.0 && !latents.is_multiple_of(2) {
            let why = format!("latents of {latents} a side cannot be halved");
            return Err(Error::setting("loss.scale", why));
        }
        let channels = network.config().latent_channels;
        if colours > 0.0 && channels < 3 {
            let why = format!("{channels} latent channels hold no red, green and blue");
            return Err(Error::setting("loss.colours", why));
        }
        Ok(Self { network, scenes, loss, device: device.clone() })
    }

    /// A sample of the posterior, and noise of up to the deviation that the settings name.
    fn sample(&self, place: Place, mean: &Tensor<4>, logvar: &Tensor<4>) -> Tensor<4> {
        let shape = mean.dims();
        let width = shape[1] * shape[2] * shape[3];
        let (mut own, mut added) = (Vec::new(), Vec::new());
        for row in place.first..place.first + shape[0] {
            let mut generator = draws::generator(place.seed, Use::Posterior, place.step, row);
            own.extend((0..width).map(|_| generator.normal() as f32));
            if self.loss.noise > 0.0 {
                let size = self.loss.noise * generator.uniform();
                added.extend((0..width).map(|_| (size * generator.normal()) as f32));
            }
        }
        let tensor =
            |all| Tensor::<4>::from_data(TensorData::new(all, shape), &self.device).autodiff();
        let z = mean.clone() + (logvar.clone() * 0.5).exp() * tensor(own);
        if added.is_empty() { z } else { z + tensor(added) }
    }

    fn held(&self, count: usize) -> Result<Tensor<4>> {
        let scenes: Vec<Scene> = (0..count).map(|i| self.scenes.held(i)).collect();
        pixels(&scenes, self.scenes.side, &self.device)
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
        let x = pixels(&scenes, self.scenes.side, &self.device)?.autodiff();
        let (mean, logvar) = self.network.encode(&x)?;
        let z = self.sample(place, &mean, &logvar);
        let settings = &self.loss;
        let kl = (mean.clone().square() + logvar.clone().exp() - logvar - 1.0).mean() * 0.5;
        let mut loss = settings.fit(self.network.decode(&z)? - x.clone()) + kl * settings.kl;
        if settings.scale > 0.0 {
            let halved = self.network.decode(&half(&z))? - half(&x);
            loss = loss + settings.fit(halved) * settings.scale;
        }
        if settings.colours > 0.0 {
            let mut small = x;
            while small.dims()[3] > mean.dims()[3] {
                small = half(&small);
            }
            loss = loss + (mean.narrow(1, 0, 3) - small).square().mean() * settings.colours;
        }
        Ok(loss)
    }

    /// Pairs of a held-out scene and its reconstruction.
    fn samples(&mut self) -> Result<Option<Images>> {
        let (x, side) = (self.held(18)?, self.scenes.side);
        let y = self.network.decode(&self.network.encode(&x)?.0)?;
        let both: Tensor<4> = Tensor::stack::<5>(vec![x, y], 1).reshape([36, 3, side, side]);
        let values: Vec<f32> = both.into_data_as::<f32>().iter::<f32>().collect();
        Images::from_f32([36, 3, side, side], &values).map(Some)
    }

    /// The mean PSNR over scenes that are not trained on, and the latents' deviation.
    fn measure(&mut self) -> Result<Vec<(String, f64)>> {
        let (mut psnr, mut square, mut count) = (0.0, 0.0, 0.0);
        for start in (0..self.scenes.test).step_by(16) {
            let end = self.scenes.test.min(start + 16);
            let scenes: Vec<Scene> = (start..end).map(|i| self.scenes.held(i)).collect();
            let x = pixels(&scenes, self.scenes.side, &self.device)?;
            let mean = self.network.encode(&x)?.0;
            let y = self.network.decode(&mean)?.clamp(-1.0, 1.0);
            let errors: Vec<f32> = (y - x).into_data_as::<f32>().iter::<f32>().collect();
            for row in errors.chunks(3 * self.scenes.side.pow(2)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn task(loss: &str, levels: usize) -> Result<Autoencoder> {
        let list = |word: &str| vec![word; levels].join(", ");
        let text = format!(
            "task = \"autoencoder\"\n[data]\nscenes = 4\n[network]\nnorm_num_groups = 4\n\
             block_out_channels = [{}]\ndown_block_types = [{}]\nup_block_types = [{}]\n\
             layers_per_block = 1\nmid_block_add_attention = false\n[loss]\n{loss}\n",
            list("8"),
            list("\"DownEncoderBlock2D\""),
            list("\"UpDecoderBlock2D\""),
        );
        let config = Config::parse(&text, Path::new("run.toml"))?;
        let mut task = Autoencoder::new(&config, &Device::flex())?;
        crate::weight::draw(&mut task, 3)?;
        Ok(task)
    }

    #[test]
    fn halves_are_averages() {
        let x: Vec<f32> = (0..16).map(|i| (i * i) as f32).collect();
        let x = Tensor::from_data(TensorData::new(x, [1, 1, 4, 4]), &Device::flex());
        let halves = half(&x).into_data_as::<f32>();
        let wanted = [42, 98, 458, 642];
        assert_eq!(halves.iter::<f32>().collect::<Vec<_>>(), wanted.map(|v| v as f32 / 4.0));
    }

    /// The loss on two scenes.
    fn loss(settings: &str) -> f64 {
        let place = Place { seed: 1, step: 0, first: 0, rows: 2 };
        let loss = task(settings, 3).unwrap().loss(&[0, 1], place).unwrap().without_autodiff();
        f64::from(loss.into_data_as::<f32>().iter::<f32>().next().unwrap())
    }

    #[test]
    fn terms_add_to_the_loss_in_proportion() {
        for key in ["scale", "colours"] {
            let [none, one, two] =
                [String::new(), format!("{key} = 0.25"), format!("{key} = 0.5")].map(|s| loss(&s));
            assert!(one > none, "{key}: {none} {one}");
            assert!(((two - none) / (one - none) - 2.0).abs() < 1e-3, "{key}: {none} {one} {two}");
        }
        // Latents of one number a side have no half.
        let error = task("scale = 0.25", 7).err().unwrap().to_string();
        assert!(error.contains("loss.scale"), "{error}");
        assert!(task("", 7).is_ok());
    }

    #[test]
    fn the_small_picture_is_in_the_first_channels() {
        let task = task("colours = 1.0", 3).unwrap();
        let x = task.held(2).unwrap();
        let small = half(&half(&x));
        let mean = task.network.encode(&x).unwrap().0;
        let wanted: f32 = (mean.narrow(1, 0, 3) - small).square().mean().into_scalar();
        let added = loss("colours = 1.0") - loss("");
        // Not the same scenes; the same weights and the same size.
        assert!(wanted > 0.0 && (added / f64::from(wanted) - 1.0).abs() < 0.5, "{wanted} {added}");
    }

    #[test]
    fn noise_reaches_the_decoder() {
        let (none, little, much) = (loss(""), loss("noise = 1e-6"), loss("noise = 3.0"));
        assert!(
            (none - little).abs() < 1e-4 && (none - much).abs() > 1e-4,
            "{none} {little} {much}"
        );
    }
}
