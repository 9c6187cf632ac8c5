//! Training a text-conditional network over an autoencoder's latents or over pixels, together with
//! its text encoder.
//!
//! The latents of all scenes are encoded once and kept, or, without an autoencoder, scenes are drawn
//! as they are needed; captions are drawn afresh each time a scene is shown. The parts are those of latent diffusion (Rombach et al. 2022): the context is the text
//! encoder's last hidden state, and the empty text stands for 'none'. A text encoder that was trained
//! before stays as it is, as in Stable Diffusion; else it learns with the network.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::captions::Captions;
use super::latents::Latents;
use super::network::Trained;
use super::scenes::{SceneSettings, pixels};
use super::{Task, sampling, scheduler};
use crate::data::Images;
use crate::data::shapes::{Caption, Scene, score};
use crate::denoiser::{Cond, NetworkDenoiser};
use crate::error::{Error, Result};
use crate::hub::{Dtype, Folder, ModelFolder, outputs};
use crate::model::config::{AutoencoderKlConfig, Config as _, UNet2DConditionConfig};
use crate::model::{AutoencoderKl, ClipText};
use crate::state::State;
use crate::train::config::Config;
use crate::train::draws::{self, Use};
use crate::train::objective::{Objective, ObjectiveSettings, Place};
use crate::weight::{self, Parameters, Weight, join};

/// The section `autoencoder`; a configuration without it trains over pixels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderSettings {
    /// The folder of the trained autoencoder, relative to the working directory.
    pub folder: PathBuf,
    /// A file that keeps the latents between two parts of a run; none keeps them in memory alone.
    pub cache: Option<PathBuf>,
    /// Whether latents are turned to unit covariance, which the model's own copy of the autoencoder
    /// then does by itself; else they are scaled to unit size. The default is false.
    pub whiten: bool,
}

/// The section `text`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSettings {
    /// Tokens of a sequence, start and end included.
    pub length: usize,
    /// The guidance weight of sample grids and measurements.
    pub guidance: f64,
    /// The folder of a trained text encoder, relative to the working directory, which stays as it
    /// is; without one the section `text_encoder` says what is trained.
    pub encoder: Option<PathBuf>,
}

impl Default for TextSettings {
    fn default() -> Self {
        Self { length: Caption::MOST_WORDS + 2, guidance: 3.0, encoder: None }
    }
}

/// A text-conditional network in training, and its text encoder with it where that is not trained
/// already.
pub struct TextLatent {
    network: Trained,
    text: ClipText,
    captions: Captions,
    settings: TextSettings,
    objective: Objective,
    objective_settings: ObjectiveSettings,
    scenes: SceneSettings,
    space: Space,
    device: Device,
}

/// What the network sees of the scenes.
enum Space {
    /// Their pixels.
    Pixels,
    /// The latents of an autoencoder.
    Latents(Box<AutoencoderKl>, Latents),
}

impl Parameters for TextLatent {
    fn each(&self, path: &str, visit: &mut dyn FnMut(&str, &Weight)) {
        self.network.each(&join(path, self.network.component()), visit);
        if self.settings.encoder.is_none() {
            self.text.each(&join(path, "text_encoder"), visit);
        }
    }

    fn each_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Weight)) {
        self.network.each_mut(&join(path, self.network.component()), visit);
        if self.settings.encoder.is_none() {
            self.text.each_mut(&join(path, "text_encoder"), visit);
        }
    }
}

impl TextLatent {
    /// From the sections `data`, `autoencoder`, `text`, `text_encoder`, `network` (of class
    /// `UNet2DConditionModel` where it names none) and `objective`.
    ///
    /// # Errors
    ///
    /// What the sections and the autoencoder's folder say.
    pub fn new(config: &Config, device: &Device) -> Result<Self> {
        config.only(&["data", "autoencoder", "text", "text_encoder", "network", "objective"])?;
        let scenes: SceneSettings = config.section("data")?;
        scenes.validate()?;
        let settings: TextSettings = config.section("text")?;
        let objective_settings: ObjectiveSettings = config.section("objective")?;
        let captions = Captions::new(settings.length)?;
        let text = match &settings.encoder {
            Some(folder) => captions.trained(folder, device)?,
            None => captions.encoder(config, device)?,
        };
        let network = Trained::read(config, UNet2DConditionConfig::CLASS, device)?;
        let space = match config.has("autoencoder") {
            true => Space::encoded(&config.section("autoencoder")?, &scenes, device)?,
            false => Space::Pixels,
        };
        let (found, wanted) = (network.network.asks().channels, space.shape(&scenes)[0]);
        if found != Some(wanted) {
            let why = format!("{}, wanted {wanted}", found.unwrap_or_default());
            return Err(Error::setting("network.in_channels", why));
        }
        Ok(Self {
            network,
            text,
            captions,
            settings,
            objective: Objective::new(&objective_settings)?,
            objective_settings,
            scenes,
            space,
            device: device.clone(),
        })
    }

    fn denoiser(&self) -> NetworkDenoiser {
        NetworkDenoiser {
            network: self.network.network.clone(),
            time: self.objective.time,
            scaling: self.objective.scaling,
        }
    }

    /// The context of texts; on the tape where the encoder's weights are tracked.
    fn context(&self, texts: &[String]) -> Result<Tensor<3>> {
        Ok(self.text.encode(&self.captions.tokens(texts)?, 0)?.hidden)
    }

    /// Pictures of captions, as `[batch, 3, side, side]` values.
    fn draw(&self, captions: &[Caption]) -> Result<Vec<f32>> {
        let texts: Vec<String> = captions.iter().map(|c| c.text.clone()).collect();
        let none = Cond {
            context: Some(self.context(&vec![String::new(); texts.len()])?),
            ..Cond::default()
        };
        let cond = Cond {
            context: Some(self.context(&texts)?),
            negative: Some(Box::new(none)),
            ..Cond::default()
        };
        let [c, h, w] = self.space.shape(&self.scenes);
        let x = Tensor::<4>::zeros([captions.len(), c, h, w], &self.device);
        let process = &*self.objective.process;
        let z = sampling::draw(&self.denoiser(), process, cond, x, self.settings.guidance)?;
        let y = match &self.space {
            Space::Pixels => z.view::<4>()?,
            Space::Latents(autoencoder, _) => {
                autoencoder.decode(&autoencoder.of_unit(z.view::<4>()?))?
            }
        };
        Ok(y.into_data_as::<f32>().iter::<f32>().collect())
    }

    /// Caption `i` of those that are measured on.
    fn held(&self, i: usize) -> Caption {
        self.scenes.caption(&self.scenes.held(i), i as u64)
    }
}

impl Space {
    /// The latents of all scenes, and the autoencoder in the form in which it is published.
    fn encoded(
        from: &AutoencoderSettings,
        scenes: &SceneSettings,
        device: &Device,
    ) -> Result<Self> {
        let (mut autoencoder, mut plain) = open_autoencoder(&from.folder, device)?;
        let mut latents = match &from.cache {
            Some(file) => Latents::cached(file, scenes, &autoencoder, device)?,
            None => Latents::encode(scenes, &autoencoder, device)?,
        };
        plain.scaling_factor = if from.whiten {
            latents.whiten(&mut autoencoder)?;
            1.0
        } else {
            latents.to_unit()
        };
        Ok(Self::Latents(Box::new(rebuilt(&autoencoder, plain, device)?), latents))
    }

    /// Channels, height and width.
    fn shape(&self, scenes: &SceneSettings) -> [usize; 3] {
        match self {
            Self::Pixels => [3, scenes.side, scenes.side],
            Self::Latents(_, latents) => latents.shape,
        }
    }

    fn batch(
        &self,
        examples: &[usize],
        scenes: &SceneSettings,
        device: &Device,
    ) -> Result<Tensor<4>> {
        match self {
            Self::Pixels => {
                let shown: Vec<Scene> = examples.iter().map(|&i| scenes.train(i)).collect();
                pixels(&shown, scenes.side, device)
            }
            Self::Latents(_, latents) => Ok(latents.batch(examples, device)),
        }
    }
}

fn open_autoencoder(
    folder: &Path,
    device: &Device,
) -> Result<(AutoencoderKl, AutoencoderKlConfig)> {
    let component = Folder::open(folder)?.component("")?;
    let config: AutoencoderKlConfig = crate::hub::config::read(&component)?;
    let mut network = AutoencoderKl::new(config.clone(), device)?;
    weight::load(&mut network, &component.tensors()?)?;
    Ok((network, config))
}

/// The same weights under other settings.
fn rebuilt(
    old: &AutoencoderKl,
    config: AutoencoderKlConfig,
    device: &Device,
) -> Result<AutoencoderKl> {
    let mut network = AutoencoderKl::new(config, device)?;
    let mut values = Vec::new();
    old.each("", &mut |_, weight| values.push(weight.value()));
    let mut values = values.into_iter();
    let mut result = Ok(());
    network.each_mut("", &mut |_, weight| {
        if let (Some(value), Ok(())) = (values.next(), &result) {
            result = weight.set(value);
        }
    });
    result.map(|()| network)
}

impl Task for TextLatent {
    fn examples(&self) -> usize {
        self.scenes.scenes
    }

    fn loss(&mut self, examples: &[usize], place: Place) -> Result<Tensor<1>> {
        let text = |(i, &example): (usize, &usize)| {
            if self.objective.drops(place, i) {
                return String::new();
            }
            let row = place.first + i;
            let draw = draws::generator(place.seed, Use::Caption, place.step, row).bits();
            self.scenes.caption(&self.scenes.train(example), draw).text
        };
        let texts: Vec<String> = examples.iter().enumerate().map(text).collect();
        let context = self.context(&texts)?;
        // What comes from a frozen encoder joins the tape here.
        let context = if self.settings.encoder.is_some() { context.autodiff() } else { context };
        let cond = Cond { context: Some(context), ..Cond::default() };
        let x0 = State::new(self.space.batch(examples, &self.scenes, &self.device)?);
        self.objective.loss(&self.denoiser(), &x0, &cond, place)
    }

    fn samples(&mut self) -> Result<Option<Images>> {
        let captions: Vec<Caption> = (0..25).map(|i| self.held(i)).collect();
        let values = self.draw(&captions)?;
        let side = self.scenes.side;
        Images::from_f32([captions.len(), 3, side, side], &values).map(Some)
    }

    /// The share of captions of which everything that they ask for is in the picture.
    fn measure(&mut self) -> Result<Vec<(String, f64)>> {
        use crate::data::shapes::Picture;
        let side = self.scenes.side;
        let mut right = [0.0; 2];
        let mut count = [0.0_f64; 2];
        for start in (0..self.scenes.test).step_by(16) {
            let range = start..self.scenes.test.min(start + 16);
            let captions: Vec<Caption> = range.clone().map(|i| self.held(i)).collect();
            let values = self.draw(&captions)?;
            for ((i, caption), pixels) in range.zip(&captions).zip(values.chunks(3 * side * side)) {
                let picture = Picture::from_f32_chw(side, side, pixels)?;
                right[i % 2] += f64::from(u8::from(score(&picture, &caption.asked).all_right()));
                count[i % 2] += 1.0;
            }
        }
        let share = |i: usize| right[i] / count[i].max(1.0);
        Ok(vec![("right".into(), share(0)), ("right_held_out".into(), share(1))])
    }

    fn export(&mut self, folder: &Path) -> Result<()> {
        let latent = matches!(self.space, Space::Latents(..));
        let mut model = ModelFolder::new(self.network.text_pipeline(latent));
        if let Space::Latents(autoencoder, _) = &self.space {
            let weights = outputs(&**autoencoder, Dtype::F16);
            model = model.network("vae", autoencoder.config(), weights)?;
        }
        model =
            model.network("text_encoder", self.text.config(), outputs(&self.text, Dtype::F16))?;
        model = self
            .network
            .put(model)?
            .tokenizer(&self.captions.vocabulary, self.captions.length)?
            .scheduler(&scheduler::of(&self.objective_settings)?)?;
        if latent && self.network.component() == "unet" {
            // What the published pipeline knows beside.
            model = model
                .without("safety_checker")?
                .without("feature_extractor")?
                .argument("requires_safety_checker", json!(false))?;
        }
        model.write(folder)
    }
}
