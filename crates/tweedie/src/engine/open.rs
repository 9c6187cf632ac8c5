//! A model folder as something that can be run.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn::tensor::Device;
use serde_json::Value;

use super::{component, stamp};
use crate::denoiser::{AskedClass, Asks, Network, NetworkDenoiser};
use crate::engine::text::{Text, TextPart};
use crate::error::{Error, Result};
use crate::hub::folder::{Component, Folder};
use crate::hub::{ClipTokenizer, SchedulerConfig, builtin, schedule};
use crate::model::Autoencoder;
use crate::spec::{LoraUse, PartSpec, SourceFile, Spec, resolve_sampler};

/// The classes of a class-conditional model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Their names in order; numbers where the folder gives no names.
    pub names: Vec<String>,
    /// The class that stands for 'none', where the network has learnt one.
    pub none: Option<i64>,
}

/// A model that can be run: a network, what it was trained with, and what stands around it. A clone
/// shares the weights.
#[derive(Clone)]
pub struct Model {
    /// Its name: `builtin:shapes`, or the folder's last part.
    pub name: String,
    /// The network as a denoiser.
    pub denoiser: NetworkDenoiser,
    /// The natural shape of one sample: channels (of the latents where there are latents), height,
    /// width.
    pub shape: [usize; 3],
    /// The decoder from latents to pictures, for latent models.
    pub decoder: Option<Autoencoder>,
    /// The text side, for models that take a prompt.
    pub text: Option<Text>,
    /// The classes, for models that take one.
    pub classes: Option<Classes>,
    /// The path that it was trained on.
    pub process: PartSpec,
    /// The grid that its folder asks for.
    pub grid: PartSpec,
    /// The sampler that its maker recommends: `sampler` in the folder's `tweedie.json`, else that of its
    /// scheduler.
    pub sampler: PartSpec,
    /// The LoRAs that act on it, see [`Model::with_loras`].
    pub loras: Vec<LoraUse>,
    /// Guides that clip what the network says, outside all others, where its folder asks for them.
    pub corrections: Vec<PartSpec>,
    /// A second model for guides that ask one, see [`Model::with_second`].
    pub second: Option<Second>,
    folder: Folder,
    device: Device,
    hash: OnceLock<String>,
}

/// A second model beside a first: a weaker or a smaller one of the same data.
#[derive(Clone)]
pub struct Second {
    /// Its name and hash, for the record.
    pub file: SourceFile,
    /// Its network.
    pub denoiser: Arc<NetworkDenoiser>,
}

/// The sampler in the folder's `tweedie.json`, if there is one.
fn recommended_sampler(folder: &Folder) -> Result<Option<PartSpec>> {
    let Ok(own) = folder.json("tweedie.json") else { return Ok(None) };
    let Some(name) = own.get("sampler") else { return Ok(None) };
    let wrong = |why: String| Error::format("tweedie.json", "sampler", why);
    let text = name.as_str().ok_or_else(|| wrong(format!("{name}, wanted a name")))?;
    let part: PartSpec = text.parse().map_err(|e: Error| wrong(e.to_string()))?;
    let (sampler, _) = resolve_sampler(&part).map_err(|e| wrong(e.to_string()))?;
    Ok(Some(sampler))
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
        let main = folder.component(main)?;
        let network = component::denoising(&main, device)?;
        let mut shape = input_shape(&main, &*network)?;
        let class_count = match network.asks() {
            Asks { class: AskedClass::Label(count), context: None, .. } => Some(count),
            _ => None,
        };
        let scheduler = SchedulerConfig::read(&folder.component("scheduler")?)?;
        let parts = schedule::parts(&scheduler)?;
        let sampler = recommended_sampler(&folder)?.unwrap_or(parts.sampler);
        let has = |name: &str| folder.components().any(|c| c == name);
        let decoder = match has("vae") {
            true => Some(component::autoencoder(&folder.component("vae")?, device)?),
            false => None,
        };
        if let Some(decoder) = &decoder {
            // The rest of the network's channels come with the condition.
            shape[0] = shape[0].min(decoder.latent_channels());
        }
        let text = text(&folder, &network.asks(), device)?;
        let classes = class_count.map(|count| classes(&folder, count));
        Ok(Self {
            name: short_name(folder.name()),
            denoiser: NetworkDenoiser { network, time: parts.time, scaling: parts.scaling },
            shape,
            decoder,
            text,
            classes,
            process: parts.process,
            grid: parts.grid,
            sampler,
            loras: Vec::new(),
            corrections: parts.corrections,
            second: None,
            folder,
            device: device.clone(),
            hash: OnceLock::new(),
        })
    }

    /// The same model with another one beside it, for guides that ask two ([`Spec::second`]).
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where both are not told the same things of the same state: the path, the
    /// shape of a sample, the classes or the width of the context.
    pub fn with_second(&self, second: &Self) -> Result<Self> {
        let (ours, theirs) = (self.denoiser.network.asks(), second.denoiser.network.asks());
        let pairs = [
            ("on the same path", self.process == second.process),
            ("over samples of the same shape", self.shape == second.shape),
            ("with the same classes", ours.class == theirs.class),
            ("that attends to the same texts", ours.context == theirs.context),
        ];
        if let Some((what, _)) = pairs.iter().find(|(_, same)| !same) {
            let needs = format!("a second model {what}, which `{}` is not", second.name);
            return Err(Error::unsupported(&self.name, needs));
        }
        let file = SourceFile { name: second.name.clone(), hash: second.hash()?.to_owned() };
        let denoiser = Arc::new(second.denoiser.clone());
        Ok(Self { second: Some(Second { file, denoiser }), ..self.clone() })
    }

    /// The folder that it was opened from.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The BLAKE3 hash of all its weights, component by component in the order of the index, each
    /// tensor after its name. (SHA-256 would take seconds for a model of some gigabytes.)
    /// [`Engine::hash`](super::Engine::hash) takes it on several threads.
    ///
    /// # Errors
    ///
    /// What reading the files says.
    pub fn hash(&self) -> Result<&str> {
        self.hashed(|sum, bytes| {
            sum.update(bytes);
        })
    }

    /// As [`Model::hash`], on the threads of the pool that this thread is in.
    /// `kept` is a folder of hashes that were taken before.
    pub(super) fn hash_in_pool(&self, kept: Option<&Path>) -> Result<&str> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash);
        }
        let place = kept.and_then(|folder| Some(folder.join(stamp::stamp(&self.folder)?)));
        if let Some(hash) = place.as_deref().and_then(stamp::read) {
            return Ok(self.hash.get_or_init(|| hash));
        }
        let hash = self.hashed(|sum, bytes| {
            sum.update_rayon(bytes);
        })?;
        if let Some(place) = place {
            stamp::write(&place, hash);
        }
        Ok(hash)
    }

    fn hashed(&self, update: impl Fn(&mut blake3::Hasher, &[u8])) -> Result<&str> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash);
        }
        let mut sum = blake3::Hasher::new();
        let names: Vec<String> = self.folder.components().map(str::to_owned).collect();
        for name in names {
            let component = self.folder.component(&name)?;
            if !component.has_weights() {
                continue;
            }
            // In the type of the files: however it is held, it is the same model.
            let tensors = component.stored()?;
            for name in tensors.names() {
                update(&mut sum, name.as_bytes());
                update(&mut sum, &tensors.raw(name)?);
                // These pages are not the network's; without this all weights were held twice.
                tensors.release();
            }
        }
        let hash = sum.finalize().to_hex();
        Ok(self.hash.get_or_init(|| hash.as_str().to_owned()))
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

    /// A spec with everything put in that only the model knows: its name, its LoRAs and learned
    /// embeddings, and the grid and guidance where nothing was said. A network that was taught
    /// guidance is told its weight.
    #[must_use]
    pub fn completed(&self, spec: &Spec) -> Spec {
        let mut task = spec.task.clone();
        if task.image_guidance.is_none()
            && task.init.is_some()
            && !task.repaints()
            && self.beside() == self.shape[0]
        {
            task.image_guidance = Some(crate::guide::Instruct::default().image);
        }
        let told = self.denoiser.network.asks().guidance.is_some() && spec.guides.is_empty();
        let guides = if told { vec![PartSpec::named("distilled")] } else { spec.guides.clone() };
        let mut completed = Spec {
            guides,
            task,
            model: self.name.clone(),
            loras: if spec.loras.is_empty() { self.loras.clone() } else { spec.loras.clone() },
            embeddings: match spec.embeddings.as_slice() {
                [] => self.embeddings(),
                asked => asked.to_vec(),
            },
            second: spec.second.clone().or_else(|| self.second.as_ref().map(|s| s.file.clone())),
            grid: Some(spec.grid.clone().unwrap_or_else(|| self.grid.clone())),
            guidance: Some(spec.guidance.unwrap_or_else(|| self.default_guidance())),
            instruction_set: super::instruction_set().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..spec.clone()
        };
        super::edit::complete(&mut completed);
        completed
    }

    /// Pixels for one position of the network's sample.
    pub fn scale(&self) -> usize {
        self.decoder.as_ref().map_or(1, |d| d.downsampling())
    }

    /// Drops the text encoders: what a run needs of them is in its encoded prompts.
    pub fn release_text(&mut self) {
        self.text = None;
    }

    /// What width and height in pixels must be multiples of.
    pub fn multiple(&self) -> usize {
        self.scale() * self.denoiser.network.multiple()
    }

    /// Channels that the network sees beside those of the state: a mask, a picture.
    pub fn beside(&self) -> usize {
        self.denoiser.network.asks().channels.unwrap_or(self.shape[0]).saturating_sub(self.shape[0])
    }

    /// The device that it lies on.
    pub fn device(&self) -> &Device {
        &self.device
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

/// The natural shape of the network's input, from its settings.
fn input_shape(component: &Component, network: &dyn Network) -> Result<[usize; 3]> {
    match network.sample_shape().as_deref() {
        Some(&[channels, height, width]) => Ok([channels, height, width]),
        _ => Err(Error::format(
            component.config_file.clone(),
            "sample_size",
            "wanted the size of a sample, found null",
        )),
    }
}

/// The text side: one encoder or two. A network that asks for a pooled text beside the sequence
/// attends to the layer before the last (Podell et al., "SDXL", 2023, section 2.1).
fn text(folder: &Folder, asks: &Asks, device: &Device) -> Result<Option<Text>> {
    const PARTS: [(&str, &str); 2] =
        [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];
    let mut parts = Vec::new();
    for (name, tokenizer) in PARTS {
        if folder.components().any(|c| c == name) {
            let encoder = component::text_encoder(&folder.component(name)?, device)?;
            let tokenizer = ClipTokenizer::read(&folder.component(tokenizer)?)?;
            parts.push(TextPart { name, tokenizer, encoder });
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let inner = asks.sizes.is_some();
    // The pipeline's own default is yes.
    let zeros = folder.index().and_then(|i| i.arguments.get("force_zeros_for_empty_prompt"));
    let zeros = inner && zeros.and_then(Value::as_bool).unwrap_or(true);
    Ok(Some(Text { parts, inner, zeros_for_empty: zeros, learned: Vec::new() }))
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
