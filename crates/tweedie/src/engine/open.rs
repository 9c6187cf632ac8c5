//! A model folder as something that can be run.

use std::sync::{Arc, OnceLock};

use burn::tensor::Device;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::denoiser::{Network, NetworkDenoiser, Scaling, TimeCode};
use crate::error::{Error, Result};
use crate::hub::folder::{Component, Folder};
use crate::hub::{ClipTokenizer, SchedulerConfig, Wanted, builtin, config, schedule};
use crate::model::config::{
    AutoencoderKlConfig, ClipTextConfig, Config, DitConfig, UNet2DConditionConfig, UNet2DConfig,
};
use crate::model::{AutoencoderKl, ClipText, DiT, UNet2D, UNet2DCondition};
use crate::spec::{PartSpec, Spec};
use crate::weight::{self, Parameters, Plan};

/// The classes of a class-conditional model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Their names in order; numbers where the folder gives no names.
    pub names: Vec<String>,
    /// The class that stands for 'none', where the network has learnt one.
    pub none: Option<i64>,
}

/// The text side of a model.
#[derive(Debug)]
pub struct Text {
    /// Words to tokens.
    pub tokenizer: ClipTokenizer,
    /// Tokens to embeddings.
    pub encoder: ClipText,
}

/// A model that can be run: a network, what it was trained with, and what stands around it.
pub struct Model {
    /// Its name: `builtin:shapes`, or the folder's last part.
    pub name: String,
    /// The network as a denoiser.
    pub denoiser: NetworkDenoiser,
    /// The natural shape of one sample of the network: channels, height, width.
    pub shape: [usize; 3],
    /// The decoder from latents to pictures, for latent models.
    pub decoder: Option<AutoencoderKl>,
    /// The text side, for models that take a prompt.
    pub text: Option<Text>,
    /// The classes, for models that take one.
    pub classes: Option<Classes>,
    /// The path that it was trained on.
    pub process: PartSpec,
    /// The grid that its folder asks for.
    pub grid: PartSpec,
    /// The sampler that its folder asks for.
    pub sampler: PartSpec,
    folder: Folder,
    hash: OnceLock<String>,
}

impl Model {
    /// Opens `builtin:NAME` or a model folder in the layout of diffusers.
    ///
    /// # Errors
    ///
    /// What is missing, of another shape or unknown, with the file and the key.
    pub fn open(name: &str, device: &Device) -> Result<Self> {
        Self::from_folder(Folder::resolve(name)?, device)
    }

    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// As [`Model::open`].
    pub fn from_folder(folder: Folder, device: &Device) -> Result<Self> {
        let main =
            ["unet", "transformer"].into_iter().find(|n| folder.components().any(|c| c == *n));
        let Some(main) = main else {
            return Err(Error::format(
                folder.name(),
                "model_index.json",
                "wanted a component `unet` or `transformer`, found neither",
            ));
        };
        let component = folder.component(main)?;
        let (network, shape, class_count) = network(&component, device)?;
        let scheduler = SchedulerConfig::read(&folder.component("scheduler")?)?;
        let parts = schedule::parts(&scheduler)?;
        let has = |name: &str| folder.components().any(|c| c == name);
        let decoder =
            if has("vae") { Some(decoder(&folder.component("vae")?, device)?) } else { None };
        let text = if has("text_encoder") { Some(text(&folder, device)?) } else { None };
        let classes = class_count.map(|count| classes(&folder, count));
        Ok(Self {
            name: short_name(folder.name()),
            denoiser: NetworkDenoiser {
                network,
                time: TimeCode::Steps(parts.train_steps),
                scaling: Scaling::Predict(parts.prediction),
            },
            shape,
            decoder,
            text,
            classes,
            process: parts.process,
            grid: parts.grid,
            sampler: parts.sampler,
            folder,
            hash: OnceLock::new(),
        })
    }

    /// The folder that it was opened from.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The SHA-256 of all its weights, component by component in the order of the index.
    ///
    /// # Errors
    ///
    /// What reading the files says.
    pub fn hash(&self) -> Result<&str> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash);
        }
        let mut sum = Sha256::new();
        let names: Vec<String> = self.folder.components().map(str::to_owned).collect();
        for name in names {
            let component = self.folder.component(&name)?;
            if !component.has_weights() {
                continue;
            }
            let tensors = component.tensors()?;
            for name in tensors.names() {
                sum.update(name.as_bytes());
                sum.update(tensors.raw(name)?);
            }
        }
        let hash: String = sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(self.hash.get_or_init(|| hash))
    }

    /// The guidance weight that its maker recommends: `guidance` in the folder's `tweedie.json`,
    /// else 7.5 for models that take a prompt, as other programs have it, and 1 for all others.
    pub fn default_guidance(&self) -> f64 {
        let own = self.folder.json("tweedie.json").ok();
        let own = own.as_ref().and_then(|o| o.get("guidance")).and_then(Value::as_f64);
        own.unwrap_or(if self.text.is_some() { 7.5 } else { 1.0 })
    }

    /// What a run of this model is without further word: its own path, grid, sampler and guidance,
    /// 20 steps, one picture of seed 0.
    pub fn spec(&self) -> Spec {
        let sampler = self.sampler.clone();
        self.completed(&Spec { sampler, ..Spec::default() })
    }

    /// A spec with everything put in that only the model knows: its name, and the grid and guidance
    /// where nothing was said.
    #[must_use]
    pub fn completed(&self, spec: &Spec) -> Spec {
        Spec {
            model: self.name.clone(),
            grid: Some(spec.grid.clone().unwrap_or_else(|| self.grid.clone())),
            guidance: Some(spec.guidance.unwrap_or_else(|| self.default_guidance())),
            instruction_set: super::instruction_set().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..spec.clone()
        }
    }

    /// Pixels for one position of the network's sample.
    pub fn scale(&self) -> usize {
        self.decoder.as_ref().map_or(1, |d| d.config().downsampling())
    }

    /// The width and height of the pictures that it was trained on.
    pub fn picture_size(&self) -> [usize; 2] {
        [self.shape[2] * self.scale(), self.shape[1] * self.scale()]
    }
}

fn short_name(name: &str) -> String {
    if name.starts_with(builtin::PREFIX) {
        return name.to_owned();
    }
    let last = std::path::Path::new(name).file_name();
    last.map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
}

/// The network of a component by the class in its file, with the shape of a sample and its classes.
fn network(
    component: &Component,
    device: &Device,
) -> Result<(Arc<dyn Network>, [usize; 3], Option<usize>)> {
    match component.class.as_str() {
        "UNet2DModel" => {
            let config: UNet2DConfig = config::read(component)?;
            let (channels, side) = (config.in_channels, config.sample_size);
            let classes = config.num_class_embeds;
            let network = loaded(UNet2D::new(config, device)?, component)?;
            Ok((Arc::new(network), shape(component, channels, side)?, classes))
        }
        "UNet2DConditionModel" => {
            let config: UNet2DConditionConfig = config::read(component)?;
            let (channels, side) = (config.in_channels, config.sample_size);
            let network = loaded(UNet2DCondition::new(config, device)?, component)?;
            Ok((Arc::new(network), shape(component, channels, side)?, None))
        }
        "DiTTransformer2DModel" => {
            let config: DitConfig = config::read(component)?;
            let side = crate::model::config::Side::Square(config.sample_size);
            let channels = config.in_channels;
            let classes = config.num_embeds_ada_norm.map(|n| n + 1);
            let network = loaded(DiT::new(config, device)?, component)?;
            Ok((Arc::new(network), shape(component, channels, Some(side))?, classes))
        }
        other => {
            let known = ["UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel"];
            Err(Error::unknown("network class", other, known))
        }
    }
}

fn shape(
    component: &Component,
    channels: usize,
    side: Option<crate::model::config::Side>,
) -> Result<[usize; 3]> {
    let Some(side) = side else {
        return Err(Error::format(
            component.config_file.clone(),
            "sample_size",
            "wanted the size of a sample, found null",
        ));
    };
    let [height, width] = side.height_width();
    Ok([channels, height, width])
}

/// The tensors that a network of this class and these settings wants, for inspection; `None` for
/// classes that are not known here.
pub fn wanted(class: &str, config: &Map<String, Value>) -> Option<Result<Vec<Wanted>>> {
    fn of<C: Config, T: Parameters>(
        config: &Map<String, Value>,
        make: impl Fn(C, &Device) -> Result<T>,
    ) -> Result<Vec<Wanted>> {
        let config: C = config::parse(std::path::Path::new("config.json"), config)?;
        let mut wanted = Vec::new();
        make(config, &Device::flex())?.each("", &mut |path, weight| {
            wanted.push(Wanted::new(path, weight.shape().to_vec()));
        });
        Ok(wanted)
    }
    Some(match class {
        "UNet2DModel" => of(config, UNet2D::new),
        "UNet2DConditionModel" => of(config, UNet2DCondition::new),
        "DiTTransformer2DModel" => of(config, DiT::new),
        "AutoencoderKL" => of(config, AutoencoderKl::new),
        "CLIPTextModel" => of(config, ClipText::new),
        _ => return None,
    })
}

/// Loads and prepares a network.
fn loaded<T: Parameters>(mut network: T, component: &Component) -> Result<T> {
    let tensors = component.tensors()?;
    let misfit = weight::misfit(&network, &tensors);
    if !misfit.is_empty() {
        return Err(Error::format(tensors.name(), "", misfit.summary()));
    }
    weight::load(&mut network, &tensors)?;
    weight::prepare(&mut network, &Plan { expand: true });
    Ok(network)
}

fn decoder(component: &Component, device: &Device) -> Result<AutoencoderKl> {
    let config: AutoencoderKlConfig = config::read(component)?;
    loaded(AutoencoderKl::new(config, device)?, component)
}

fn text(folder: &Folder, device: &Device) -> Result<Text> {
    let component = folder.component("text_encoder")?;
    let config: ClipTextConfig = config::read(&component)?;
    let encoder = loaded(ClipText::new(config, device)?, &component)?;
    let tokenizer = ClipTokenizer::read(&folder.component("tokenizer")?)?;
    Ok(Text { tokenizer, encoder })
}

/// Names from `id2label` of the index; the class behind the last name stands for 'none'.
fn classes(folder: &Folder, count: usize) -> Classes {
    let labels =
        folder.index().and_then(|i| i.arguments.get("id2label")).and_then(|l| l.as_object());
    let name = |i: usize| {
        let label = labels.and_then(|l| l.get(&i.to_string())).and_then(|v| v.as_str());
        label.map(str::to_owned)
    };
    let named = (0..count).take_while(|&i| name(i).is_some()).count();
    if named == 0 {
        return Classes { names: (0..count).map(|i| i.to_string()).collect(), none: None };
    }
    let names = (0..named).filter_map(name).collect();
    Classes { names, none: (named < count).then_some(named as i64) }
}
