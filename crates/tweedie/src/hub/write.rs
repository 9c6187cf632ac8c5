//! Writing a model folder as diffusers lays it out, whole or not at all.
//!
//! ```
//! use tweedie::hub::{Dtype, Folder, ModelFolder, Output, SchedulerClass, SchedulerConfig};
//! use tweedie::model::config::UNet2DConfig;
//!
//! let weight = Output::f32("conv_in.bias", &[2], &[0.5, 1.0], Dtype::F16);
//! let model = ModelFolder::new("DDPMPipeline")
//!     .network("unet", &UNet2DConfig::default(), vec![weight])?
//!     .scheduler(&SchedulerConfig::new(SchedulerClass::DDPMScheduler))?;
//! let path = std::env::temp_dir().join("tweedie-example-model");
//! model.write(&path)?;
//! assert_eq!(Folder::open(&path)?.components().collect::<Vec<_>>(), ["unet", "scheduler"]);
//! # std::fs::remove_dir_all(&path).ok();
//! # Ok::<(), tweedie::Error>(())
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::{DIFFUSERS, is_transformers, to_json};
use super::json::text;
use super::save::{Output, encode_safetensors, write_safetensors};
use super::scheduler::SchedulerConfig;
use super::vocabulary::ClipVocabulary;
use super::{Dtype, atomic, folder};
use crate::model::config::Config;
use crate::weight::Parameters;
use crate::{Error, Result};

/// A model folder that is to be written.
#[derive(Clone, Debug, Default)]
pub struct ModelFolder<'a> {
    /// `model_index.json`; empty for a folder that is a single component.
    index: Map<String, Value>,
    files: BTreeMap<String, Content<'a>>,
}

#[derive(Clone, Debug)]
enum Content<'a> {
    Text(String),
    Weights(Vec<Output<'a>>),
}

impl<'a> ModelFolder<'a> {
    /// A folder with several components, for a pipeline of this class.
    #[must_use]
    pub fn new(class: &str) -> Self {
        let mut index = Map::new();
        index.insert("_class_name".to_owned(), json!(class));
        index.insert("_diffusers_version".to_owned(), json!(DIFFUSERS));
        Self { index, files: BTreeMap::new() }
    }

    /// A folder that is a single network.
    ///
    /// # Errors
    /// The settings are wrong.
    pub fn single<C: Config>(config: &C, weights: Vec<Output<'a>>) -> Result<Self> {
        let mut folder = Self::default();
        folder.put_network("", config, weights)?;
        Ok(folder)
    }

    /// Adds a network: its settings and weights. `name` is what the pipeline calls it.
    ///
    /// # Errors
    /// The settings are wrong, or the name is none or is taken.
    pub fn network<C: Config>(
        mut self,
        name: &str,
        config: &C,
        weights: Vec<Output<'a>>,
    ) -> Result<Self> {
        let library = if is_transformers(C::CLASS) { "transformers" } else { "diffusers" };
        self.list(name, json!([library, C::CLASS]))?;
        self.put_network(&format!("{name}/"), config, weights)?;
        Ok(self)
    }

    /// Adds the scheduler.
    ///
    /// # Errors
    /// Its settings are wrong, or there is one already.
    pub fn scheduler(mut self, config: &SchedulerConfig) -> Result<Self> {
        config.validate()?;
        self.list("scheduler", json!(["diffusers", config.class.name()]))?;
        self.put("scheduler/scheduler_config.json", text(&config.to_json()));
        Ok(self)
    }

    /// Adds CLIP's tokenizer with a vocabulary, for sequences of `length` tokens.
    ///
    /// # Errors
    /// There is one already.
    pub fn tokenizer(mut self, vocabulary: &ClipVocabulary, length: usize) -> Result<Self> {
        self.list("tokenizer", json!(["transformers", "CLIPTokenizer"]))?;
        for (name, content) in vocabulary.files(length) {
            self.put(&format!("tokenizer/{name}"), content);
        }
        Ok(self)
    }

    /// Names a component that the pipeline knows and this model does without.
    ///
    /// # Errors
    /// The name is none or is taken.
    pub fn without(mut self, name: &str) -> Result<Self> {
        self.list(name, json!([null, null]))?;
        Ok(self)
    }

    /// Adds an argument of the pipeline's constructor.
    ///
    /// # Errors
    /// The key is none or is taken.
    pub fn argument(mut self, key: &str, value: Value) -> Result<Self> {
        self.list(key, value)?;
        Ok(self)
    }

    /// Adds another text file, such as a model card (`README.md`).
    ///
    /// # Errors
    /// The path leads out of the folder or is taken.
    pub fn file(mut self, path: &str, content: impl Into<String>) -> Result<Self> {
        if !folder::within(path) || self.files.contains_key(path) || path == folder::INDEX {
            return Err(Error::setting(path, "wanted a new path within the model folder"));
        }
        self.put(path, content.into());
        Ok(self)
    }

    /// Writes the folder: into a temporary sibling, which then takes the name. A folder that is
    /// already there is replaced.
    ///
    /// # Errors
    /// A tensor cannot be stored as asked, or the system refuses; what was there before stays.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        atomic::write_folder(path, |fresh| {
            for (name, content) in &self.files {
                let file = fresh.join(name);
                if let Some(folder) = file.parent() {
                    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
                }
                match content {
                    Content::Text(text) => {
                        std::fs::write(&file, text).map_err(Error::io(&file))?;
                    }
                    Content::Weights(weights) => {
                        write_safetensors(&file, weights, &BTreeMap::new())?;
                    }
                }
            }
            if self.index.is_empty() {
                return Ok(());
            }
            let file = fresh.join(folder::INDEX);
            std::fs::write(&file, text(&self.index)).map_err(Error::io(&file))
        })
    }

    /// The files of the folder in memory: path and content, in order.
    ///
    /// # Errors
    /// A tensor cannot be stored as asked.
    pub fn encode(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut out = BTreeMap::new();
        for (name, content) in &self.files {
            let bytes = match content {
                Content::Text(text) => text.clone().into_bytes(),
                Content::Weights(weights) => encode_safetensors(weights, &BTreeMap::new())?,
            };
            out.insert(name.clone(), bytes);
        }
        if !self.index.is_empty() {
            out.insert(folder::INDEX.to_owned(), text(&self.index).into_bytes());
        }
        Ok(out)
    }

    fn put(&mut self, path: &str, text: String) {
        self.files.insert(path.to_owned(), Content::Text(text));
    }

    fn put_network<C: Config>(
        &mut self,
        prefix: &str,
        config: &C,
        weights: Vec<Output<'a>>,
    ) -> Result<()> {
        config.validate()?;
        self.put(&format!("{prefix}config.json"), text(&to_json(config)));
        let stem = folder::STEMS[usize::from(is_transformers(C::CLASS))];
        self.files.insert(format!("{prefix}{stem}.safetensors"), Content::Weights(weights));
        Ok(())
    }

    fn list(&mut self, name: &str, entry: Value) -> Result<()> {
        let plain = folder::within(name) && !name.contains('/') && !name.starts_with(['_', '.']);
        if self.index.is_empty() || !plain || self.index.contains_key(name) {
            return Err(Error::setting(name, "wanted a new name of a component"));
        }
        self.index.insert(name.to_owned(), entry);
        Ok(())
    }
}

/// The weights of a network to be written, under the paths of the published files.
#[must_use]
pub fn outputs(network: &(impl Parameters + ?Sized), dtype: Dtype) -> Vec<Output<'static>> {
    let mut out = Vec::new();
    network.each("", &mut |path, weight| {
        let values = super::Values::F32(weight.to_vec().into());
        let (name, shape) = (path.to_owned().into(), weight.shape().to_vec());
        out.push(Output { name, shape, values, dtype });
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{ClipTokenizer, Folder, SchedulerClass, config};
    use crate::model::config::{AutoencoderKlConfig, ClipTextConfig, UNet2DConditionConfig};

    fn model() -> Result<ModelFolder<'static>> {
        let weight = |name: &'static str| vec![Output::f32(name, &[2], &[0.5, -1.5], Dtype::F16)];
        let vocabulary = ClipVocabulary::from_words(["red", "circle"])?;
        let text = ClipTextConfig {
            vocab_size: vocabulary.len(),
            bos_token_id: Some(vocabulary.special()[0]),
            eos_token_id: Some(vocabulary.special()[1]),
            ..ClipTextConfig::default()
        };
        ModelFolder::new("StableDiffusionPipeline")
            .network("unet", &UNet2DConditionConfig::default(), weight("a"))?
            .network("vae", &AutoencoderKlConfig::default(), weight("b"))?
            .network("text_encoder", &text, weight("c"))?
            .scheduler(&SchedulerConfig::new(SchedulerClass::DPMSolverMultistepScheduler))?
            .tokenizer(&vocabulary, 16)?
            .without("safety_checker")?
            .argument("requires_safety_checker", json!(false))?
            .file("README.md", "A model.\n")
    }

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        model().unwrap().write(&path).unwrap();
        model().unwrap().write(&path).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        let folder = Folder::open(&path).unwrap();
        let unet = folder.component("unet").unwrap();
        let config: UNet2DConditionConfig = config::read(&unet).unwrap();
        assert_eq!(config, UNet2DConditionConfig::default());
        assert_eq!(unet.tensors().unwrap().read_f32("a").unwrap(), [0.5, -1.5]);
        let text = folder.component("text_encoder").unwrap();
        assert!(text.exists("model.safetensors"));
        let encoder: ClipTextConfig = config::read(&text).unwrap();
        let tokenizer = ClipTokenizer::read(&folder.component("tokenizer").unwrap()).unwrap();
        assert_eq!(encoder.vocab_size, tokenizer.vocab_size());
        let scheduler = SchedulerConfig::read(&folder.component("scheduler").unwrap()).unwrap();
        assert_eq!(scheduler.class, SchedulerClass::DPMSolverMultistepScheduler);
        assert!(config::read::<AutoencoderKlConfig>(&unet).is_err());
        for (name, bytes) in model().unwrap().encode().unwrap() {
            assert_eq!(std::fs::read(path.join(&name)).unwrap(), bytes, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        let weight = Output::f32("w", &[1], &[1e6], Dtype::F16);
        let config = AutoencoderKlConfig::default();
        let folder = ModelFolder::single(&config, vec![weight]).unwrap();
        assert!(folder.write(&path).is_err());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        let wrong = AutoencoderKlConfig { latent_channels: 0, ..config };
        assert!(ModelFolder::single(&wrong, vec![]).is_err());
        let new = || ModelFolder::new("X");
        assert!(new().without("../x").is_err() && new().without("_class_name").is_err());
        assert!(new().file("../x", "").is_err() && new().file("model_index.json", "").is_err());
        assert!(new().without("a").unwrap().without("a").is_err());
        std::fs::write(&path, "a file").unwrap();
        let error = model().unwrap().write(&path).unwrap_err().to_string();
        assert!(error.contains("found a file"), "{error}");
    }
}
