//! A model folder as diffusers writes it, seen as a small tree of files.
//!
//! ```text
//! model_index.json                         which component is of which class
//! scheduler/scheduler_config.json
//! unet/config.json, unet/diffusion_pytorch_model[.VARIANT].safetensors
//! text_encoder/config.json, text_encoder/model[.VARIANT].safetensors
//! tokenizer/vocab.json, tokenizer/merges.txt …
//! ```
//!
//! The tree lies on the disk or inside the binary, or it is put together from the parts of a single
//! file and of other places ([`Folder::assembled`]), so that nobody else needs to know where a model
//! came from. A folder without `model_index.json` that holds a `config.json` is a single component.
//! Names that come out of a file are never followed out of the folder. Symbolic links are, where they
//! are the folder's own entries (the Hugging Face cache is made of them); they must end at a plain file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::bytes::Bytes;
use super::json::{self, one_line};
use super::names;
use super::tensor_set::TensorSet;
use super::tensors::{Dtype, TensorFile};
use crate::spec::Storage;
use crate::{Error, Result};

/// Files of a folder that is part of the binary: path within the folder, and content.
pub type Embedded = &'static [(&'static str, &'static [u8])];

/// The index of a folder with several components.
pub(crate) const INDEX: &str = "model_index.json";
/// The names of a component's settings, in order of preference.
const SETTINGS: [&str; 3] = ["config.json", "scheduler_config.json", "preprocessor_config.json"];
/// The stems of a component's weights: diffusers' and transformers'.
pub(crate) const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
/// The same of files that PyTorch wrote.
const OLD_STEMS: [&str; 2] = ["diffusion_pytorch_model", "pytorch_model"];
/// The most files that a listing of a folder on the disk goes through.
const MAX_FILES: usize = 10_000;
/// A text file of a component (vocabulary, merges) is at most this long.
const MAX_TEXT: u64 = 64 << 20;

/// A model folder.
#[derive(Clone, Debug)]
pub struct Folder {
    name: String,
    source: Source,
    index: Option<ModelIndex>,
    /// The type that weights are held in, where it is not to be that of the files.
    dtype: Option<Dtype>,
    /// Whether the linear layers of the denoising network are held in 8 bits.
    int8: bool,
}

#[derive(Clone)]
enum Source {
    Disk(PathBuf),
    Embedded(Embedded),
    /// Components from wherever they are.
    Assembled(Arc<Vec<Component>>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk(path) => write!(f, "Disk({})", path.display()),
            Self::Embedded(files) => write!(f, "Embedded({} files)", files.len()),
            Self::Assembled(parts) => write!(f, "Assembled({} components)", parts.len()),
        }
    }
}

/// What `model_index.json` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelIndex {
    /// The pipeline's class, such as `StableDiffusionPipeline`; empty where none is given.
    pub class: String,
    /// The components that are there: name, library and class, in the order of the file.
    pub components: Vec<ComponentClass>,
    /// The components that are named and left out (`[null, null]`).
    pub absent: Vec<String>,
    /// What else the file holds: arguments of the pipeline's constructor.
    pub arguments: Map<String, Value>,
}

/// A line of `model_index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentClass {
    /// Its name, which is that of its folder: `unet`.
    pub name: String,
    /// The Python package that the class is from: `diffusers`.
    pub library: String,
    /// Its class: `UNet2DConditionModel`.
    pub class: String,
}

/// One part of a model: its class, its settings, and its files.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its name: `unet`; empty for a folder that is a single component.
    pub name: String,
    /// Its class, as the index says or else as its settings say; empty where neither does.
    pub class: String,
    /// Its settings; empty for a component without any, such as a tokenizer.
    pub config: Map<String, Value>,
    /// Where the settings were found, for errors.
    pub config_file: PathBuf,
    folder: Folder,
    /// The folder within that one that holds its files; empty for the folder itself.
    at: String,
    /// The variant of its weights that is taken where it is there.
    variant: Option<String>,
    /// The type that its weights are held in, where it is not to be that of the files.
    dtype: Option<Dtype>,
    /// Whether its linear layers are held in 8 bits, if it is the denoising network.
    pub(crate) int8: bool,
    /// Its files where they are not those of a folder.
    held: Option<Arc<Held>>,
}

/// Files of a component that do not lie in a folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) weights: Option<TensorSet>,
    /// Text files (a tokenizer's): name and content.
    pub(crate) texts: BTreeMap<String, Cow<'static, str>>,
}

/// The weights of a component, and whether the variant asked for was there.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The weights.
    pub tensors: TensorSet,
    /// Whether they are those of the variant; `false` where the plain ones stand in for it.
    pub variant: bool,
}

impl Folder {
    /// Opens the folder at `path`: one with a `model_index.json`, or with a `config.json`.
    ///
    /// # Errors
    /// There is no such folder, it holds neither file, or the index is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let about = std::fs::metadata(path).map_err(Error::io(path))?;
        if !about.is_dir() {
            return Err(Error::format(path, "", "wanted a model folder, found a file"));
        }
        Self::new(path.display().to_string(), Source::Disk(path.to_owned()))
    }

    /// A folder that is part of the binary. `name` stands for it in errors.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn embedded(name: impl Into<String>, files: Embedded) -> Result<Self> {
        Self::new(name.into(), Source::Embedded(files))
    }

    fn new(name: String, source: Source) -> Result<Self> {
        let mut folder = Self { name, source, index: None, dtype: None, int8: false };
        if folder.exists(INDEX) {
            let file = folder.file(INDEX);
            let map = json::object(&file, folder.read(INDEX)?.as_slice())?;
            folder.index = Some(ModelIndex::read(&file, map)?);
        } else if !SETTINGS.iter().any(|s| folder.exists(s)) {
            let why = format!("not a model folder: it holds neither {INDEX} nor {}", SETTINGS[0]);
            return Err(Error::format(folder.name, "", why));
        }
        Ok(folder)
    }

    /// A model that is put together: its pipeline's class, its components in order, the arguments of
    /// the pipeline's constructor. `name` stands for it in errors.
    pub(crate) fn assembled(
        name: impl Into<String>,
        class: &str,
        components: Vec<Component>,
        arguments: Map<String, Value>,
    ) -> Self {
        let lines = components.iter().map(|c| {
            let library =
                if super::config::is_transformers(&c.class) { "transformers" } else { "diffusers" };
            ComponentClass { name: c.name.clone(), library: library.into(), class: c.class.clone() }
        });
        let mut index = ModelIndex { class: class.to_owned(), arguments, ..ModelIndex::default() };
        index.components = lines.collect();
        // One component without a name is the folder of a single component.
        let single = components.iter().any(|c| c.name.is_empty());
        let source = Source::Assembled(Arc::new(components));
        Self {
            name: name.into(),
            source,
            index: (!single).then_some(index),
            dtype: None,
            int8: false,
        }
    }

    /// The same model with the weights of all its components held in another type; see
    /// [`TensorSet::held_as`].
    #[must_use]
    pub fn held_as(mut self, dtype: Dtype) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// The same model held as a run asks for: all weights in another type ([`Folder::held_as`]), or the
    /// linear layers of the denoising network in 8 bits and the rest as it is.
    #[must_use]
    pub fn stored_as(mut self, storage: Storage) -> Self {
        match storage {
            Storage::F32 => self.held_as(Dtype::F32),
            Storage::F16 => self.held_as(Dtype::F16),
            Storage::Bf16 => self.held_as(Dtype::BF16),
            Storage::Int8 => {
                self.int8 = true;
                self
            }
        }
    }

    /// What stands for the folder in errors: its path, or `builtin:NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index, where the folder has several components.
    #[must_use]
    pub fn index(&self) -> Option<&ModelIndex> {
        self.index.as_ref()
    }

    /// Whether the folder holds the file `path`. Paths out of the folder do not exist.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        within(path)
            && match &self.source {
                Source::Disk(root) => root.join(path).is_file(),
                Source::Embedded(files) => files.iter().any(|(name, _)| *name == path),
                Source::Assembled(parts) => of_part(parts, path).is_some_and(|(c, f)| c.exists(f)),
            }
    }

    /// The files of the folder, in order.
    ///
    /// # Errors
    /// The system refuses, or there are more than ten thousand.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut out = Vec::new();
        match &self.source {
            Source::Embedded(files) => out.extend(files.iter().map(|(n, _)| (*n).to_owned())),
            Source::Disk(root) => walk(root, "", 0, &mut out)?,
            Source::Assembled(parts) => {
                for part in parts.iter() {
                    let prefix = if part.name.is_empty() {
                        String::new()
                    } else {
                        format!("{}/", part.name)
                    };
                    out.extend(part.files()?.into_iter().map(|f| format!("{prefix}{f}")));
                }
            }
        }
        out.sort();
        Ok(out)
    }

    /// The text of a small file (settings, a vocabulary) of at most 64 MiB.
    ///
    /// # Errors
    /// There is no such file, it is too long, or it is not UTF-8.
    pub fn text(&self, path: &str) -> Result<Cow<'static, str>> {
        let file = self.file(path);
        if let Source::Assembled(parts) = &self.source {
            let found = of_part(parts, path).filter(|(c, f)| c.exists(f));
            let missing = || Error::io(&file)(std::io::ErrorKind::NotFound.into());
            let (part, file) = found.ok_or_else(missing)?;
            return part.text(file);
        }
        if let Source::Disk(_) = self.source
            && std::fs::metadata(&file).is_ok_and(|m| m.len() > MAX_TEXT)
        {
            return Err(Error::format(file, "", format!("longer than {MAX_TEXT} bytes")));
        }
        let bytes = self.read(path)?;
        if let Bytes::Static(bytes) = bytes
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Ok(Cow::Borrowed(text));
        }
        match std::str::from_utf8(bytes.as_slice()) {
            Ok(text) => Ok(Cow::Owned(text.to_owned())),
            Err(e) => Err(Error::format(file, "", format!("wanted UTF-8, found {e}"))),
        }
    }

    /// The JSON object in the file `path`.
    ///
    /// # Errors
    /// There is no such file, or it is not a JSON object.
    pub fn json(&self, path: &str) -> Result<Map<String, Value>> {
        if let Source::Assembled(_) = self.source {
            return json::object(&self.file(path), self.text(path)?.as_bytes());
        }
        json::object(&self.file(path), self.read(path)?.as_slice())
    }

    /// The safetensors file `path`.
    ///
    /// # Errors
    /// There is no such file, or those of [`TensorFile::open`].
    pub fn tensor_file(&self, path: &str) -> Result<TensorFile> {
        TensorFile::new(self.file(path), self.read(path)?)
    }

    /// The SHA-256 of the model, in hexadecimal: over the settings, vocabularies and weights of its
    /// index and components, each with its path, in order. It is the same on the disk and in the
    /// binary, and a card or a log beside them does not change it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn sha256(&self) -> Result<String> {
        let mut digest = Sha256::new();
        if let Source::Assembled(parts) = &self.source {
            // There are no files of its own: the tensors stand for them.
            for set in parts.iter().filter(|p| p.has_weights()).map(Component::tensors) {
                let set = set?;
                for name in set.names() {
                    digest.update((name.len() as u64).to_le_bytes());
                    digest.update(name);
                    digest.update(&*set.raw(name)?);
                }
            }
        }
        for path in self.files()?.iter().filter(|p| belongs(p)) {
            if let Source::Assembled(_) = self.source {
                digest.update(path);
                digest.update(self.text(path)?.as_bytes());
                continue;
            }
            let bytes = self.read(path)?;
            digest.update((path.len() as u64).to_le_bytes());
            digest.update(path);
            digest.update((bytes.as_slice().len() as u64).to_le_bytes());
            digest.update(bytes.as_slice());
        }
        let mut hex = String::new();
        for byte in digest.finalize() {
            let _ = write!(hex, "{byte:02x}");
        }
        Ok(hex)
    }

    /// The names of the components that are there, in order. A folder that is a single component
    /// has one, without a name.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        let single = if self.index.is_none() { Some("") } else { None };
        let listed = self.index.iter().flat_map(|i| i.components.iter().map(|c| c.name.as_str()));
        single.into_iter().chain(listed)
    }

    /// The component `name`; the empty name stands for that of a folder which is a single one.
    ///
    /// # Errors
    /// There is no such component (the error says so where the index leaves it out on purpose), or
    /// its settings are not JSON.
    pub fn component(&self, name: &str) -> Result<Component> {
        if let Source::Assembled(parts) = &self.source
            && let Some(part) = parts.iter().find(|p| p.name == name)
        {
            let dtype = self.dtype.or(part.dtype);
            return Ok(Component { dtype, int8: self.int8 || part.int8, ..part.clone() });
        }
        let listed = self.index.as_ref().map(|i| i.find(&self.name, name)).transpose()?;
        if listed.is_none() && !name.is_empty() {
            let kind = format!("component of {}", self.name);
            return Err(Error::unknown(kind, &one_line(name), []));
        }
        let prefix = if name.is_empty() { String::new() } else { format!("{name}/") };
        let found = SETTINGS.iter().map(|s| format!("{prefix}{s}")).find(|f| self.exists(f));
        let config = found.as_ref().map(|f| self.json(f)).transpose()?.unwrap_or_default();
        let config_file = self.file(found.as_deref().unwrap_or(&prefix));
        let class = match listed {
            Some(line) => line.class.clone(),
            None => class_of(&config).unwrap_or_default().to_owned(),
        };
        Ok(Component {
            name: name.to_owned(),
            class,
            config,
            config_file,
            folder: self.clone(),
            at: name.to_owned(),
            variant: None,
            dtype: self.dtype,
            int8: self.int8,
            held: None,
        })
    }

    /// The file `path` of the folder as errors name it.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        match &self.source {
            Source::Disk(root) => root.join(path),
            Source::Embedded(_) | Source::Assembled(_) => {
                PathBuf::from(format!("{}/{path}", self.name))
            }
        }
    }

    fn read(&self, path: &str) -> Result<Bytes> {
        let file = self.file(path);
        if !within(path) {
            return Err(Error::format(&*self.name, one_line(path), "a path out of the folder"));
        }
        match &self.source {
            Source::Disk(_) => Bytes::open(&file),
            Source::Assembled(_) => Err(Error::io(file)(std::io::ErrorKind::NotFound.into())),
            Source::Embedded(files) => files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, bytes)| Bytes::Static(bytes))
                .ok_or_else(|| Error::io(file)(std::io::ErrorKind::NotFound.into())),
        }
    }
}

impl ModelIndex {
    /// Reads the object in `model_index.json`.
    pub(crate) fn read(file: &Path, map: Map<String, Value>) -> Result<Self> {
        let mut index = Self::default();
        for (key, value) in map {
            match value {
                Value::String(class) if key == "_class_name" => index.class = class,
                // Custom pipelines name a file and a class here; the class is what says what to do.
                Value::Array(pair) if key == "_class_name" => {
                    let last = pair.last().and_then(Value::as_str).unwrap_or_default();
                    last.clone_into(&mut index.class);
                }
                _ if key.starts_with('_') => {}
                Value::Array(pair) if !key.is_empty() => match pair.as_slice() {
                    [Value::Null, Value::Null] => index.absent.push(key),
                    [Value::String(library), Value::String(class)] => {
                        if !within(&key) || key.contains('/') {
                            let why = "wanted the name of a folder beside the index";
                            return Err(Error::format(file, one_line(&key), why));
                        }
                        let (name, library, class) = (key, library.clone(), class.clone());
                        index.components.push(ComponentClass { name, library, class });
                    }
                    _ => {
                        index.arguments.insert(key, Value::Array(pair));
                    }
                },
                other => {
                    index.arguments.insert(key, other);
                }
            }
        }
        Ok(index)
    }

    /// The object of a `model_index.json` that says the same.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("_class_name".to_owned(), self.class.as_str().into());
        map.insert("_diffusers_version".to_owned(), super::config::DIFFUSERS.into());
        for line in &self.components {
            let pair = vec![line.library.as_str().into(), line.class.as_str().into()];
            map.insert(line.name.clone(), Value::Array(pair));
        }
        for name in &self.absent {
            map.insert(name.clone(), Value::Array(vec![Value::Null; 2]));
        }
        map.extend(self.arguments.clone());
        map
    }

    fn find(&self, folder: &str, name: &str) -> Result<&ComponentClass> {
        if let Some(line) = self.components.iter().find(|c| c.name == name) {
            return Ok(line);
        }
        if self.absent.iter().any(|a| a == name) {
            return Err(Error::format(folder, one_line(name), format!("{INDEX} leaves it out")));
        }
        let known = self.components.iter().map(|c| c.name.as_str());
        Err(Error::unknown(format!("component of {folder}"), &one_line(name), known))
    }
}

/// The component of an assembled folder that a path is in, and the rest of the path.
fn of_part<'a, 'p>(parts: &'a [Component], path: &'p str) -> Option<(&'a Component, &'p str)> {
    let (name, file) = path.split_once('/')?;
    Some((parts.iter().find(|p| p.name == name)?, file))
}

impl Component {
    /// A component that is not that of a folder; `source` stands for where it is from in errors.
    pub(crate) fn held(
        name: &str,
        class: &str,
        config: Map<String, Value>,
        source: &Path,
        held: Held,
    ) -> Self {
        let folder = Folder {
            name: source.display().to_string(),
            source: Source::Assembled(Arc::new(Vec::new())),
            index: None,
            dtype: None,
            int8: false,
        };
        Self {
            name: name.to_owned(),
            class: class.to_owned(),
            config,
            config_file: source.to_owned(),
            folder,
            at: String::new(),
            variant: None,
            dtype: None,
            int8: false,
            held: Some(Arc::new(held)),
        }
    }

    /// The same component under another name.
    pub(crate) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same component, whose weights are those of a variant where it has them.
    pub(crate) fn of_variant(mut self, variant: Option<&str>) -> Self {
        self.variant = variant.map(str::to_owned);
        self
    }

    /// Whether its settings are not those of its file.
    pub(crate) fn overrides(&self) -> bool {
        let file = self.config_file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        self.json(file).is_ok_and(|own| own != self.config)
    }

    /// The files of the component.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        if let Some(held) = &self.held {
            return Ok(held.texts.keys().cloned().collect());
        }
        let prefix = self.path("");
        let all = self.folder.files()?.into_iter();
        Ok(all.filter_map(|f| f.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    /// Whether the component has weights, of any variant.
    #[must_use]
    pub fn has_weights(&self) -> bool {
        if let Some(held) = &self.held {
            return held.weights.is_some();
        }
        self.first(&forms("")).is_some() || STEMS.iter().any(|s| self.variants(s).next().is_some())
    }

    /// The weights: those of the variant that was asked for when the model was opened, else the plain
    /// ones, in the type that was asked for then.
    ///
    /// # Errors
    /// There are none (the error names what was looked for), or they are wrong.
    pub fn tensors(&self) -> Result<TensorSet> {
        self.stored().map(|set| set.held_as(self.dtype))
    }

    /// As [`tensors`](Self::tensors), in the type of the files.
    ///
    /// # Errors
    /// As there.
    pub fn stored(&self) -> Result<TensorSet> {
        if self.held.is_none() && self.variant.is_none() && self.first(&forms("")).is_none() {
            // Nothing but variants: the half-width one that most folders have, else the first.
            let mut variants: Vec<String> = STEMS.iter().flat_map(|s| self.variants(s)).collect();
            variants.sort_by_key(|v| (v != "fp16", v.clone()));
            if let Some(variant) = variants.first() {
                return self.weights(Some(variant)).map(|w| w.tensors);
            }
        }
        self.weights(self.variant.as_deref()).map(|w| w.tensors)
    }

    /// The weights of a variant (`fp16`), or the plain ones where the component has none of it, under
    /// the names that the network has ([`names::usual`]). A `.safetensors` file goes before a `.bin`.
    ///
    /// # Errors
    /// There are neither, or they are wrong.
    pub fn weights(&self, variant: Option<&str>) -> Result<Weights> {
        if let Some(held) = &self.held {
            let tensors = held.weights.clone().ok_or_else(|| self.without("has no weights"))?;
            return Ok(Weights { tensors, variant: variant.is_none() });
        }
        if let Some(v) = variant
            && (v.is_empty() || !v.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)))
        {
            let why = format!("`{}` is no name of a variant", one_line(v));
            return Err(Error::setting("variant", why));
        }
        let of_variant = variant.and_then(|v| self.first(&forms(v)));
        let found = of_variant.is_some();
        if let Some(file) = of_variant.or_else(|| self.first(&forms(""))) {
            let tensors = names::usual(&self.class, self.open(&file)?)?;
            return Ok(Weights { tensors, variant: found });
        }
        let mut others: Vec<String> = STEMS.iter().flat_map(|s| self.variants(s)).collect();
        others.dedup();
        let mut why = format!("no weights: wanted {}", forms("").join(" or "));
        if !others.is_empty() {
            let _ = write!(why, "; there are variants: {}", one_line(&others.join(", ")));
        }
        Err(self.without(&why))
    }

    fn without(&self, why: &str) -> Error {
        Error::format(self.folder.file(&self.at), "", why)
    }

    /// The first of these files that is there.
    fn first(&self, names: &[String]) -> Option<String> {
        names.iter().find(|n| self.exists(n)).cloned()
    }

    /// Whether the component's folder holds `file`.
    #[must_use]
    pub fn exists(&self, file: &str) -> bool {
        if let Some(held) = &self.held {
            return held.texts.contains_key(file);
        }
        self.folder.exists(&self.path(file))
    }

    /// The text of a file in the component's folder; see [`Folder::text`].
    ///
    /// # Errors
    /// As there.
    pub fn text(&self, file: &str) -> Result<Cow<'static, str>> {
        if let Some(text) = self.held.as_ref().and_then(|h| h.texts.get(file)) {
            return Ok(text.clone());
        }
        self.folder.text(&self.path(file))
    }

    /// The JSON object in a file of the component's folder.
    ///
    /// # Errors
    /// There is no such file, or it is not a JSON object.
    pub fn json(&self, file: &str) -> Result<Map<String, Value>> {
        if let Some(text) = self.held.as_ref().and_then(|h| h.texts.get(file)) {
            return json::object(&self.file(file), text.as_bytes());
        }
        self.folder.json(&self.path(file))
    }

    /// The path of a file of the component, as errors name it.
    #[must_use]
    pub fn file(&self, file: &str) -> PathBuf {
        self.folder.file(&self.path(file))
    }

    fn path(&self, file: &str) -> String {
        if self.at.is_empty() { file.to_owned() } else { format!("{}/{file}", self.at) }
    }

    /// The files of other variants of `stem`, in order.
    fn variants(&self, stem: &str) -> impl Iterator<Item = String> {
        let prefix = self.path(&format!("{stem}."));
        let files = self.folder.files().unwrap_or_default().into_iter();
        let rest = files.filter_map(move |f| f.strip_prefix(&prefix).map(str::to_owned));
        rest.filter(|r| r.len() < 64 && !r.contains('/')).filter_map(|r| {
            let name = r.strip_suffix(".safetensors").or_else(|| r.strip_suffix(".bin"))?;
            // `fp16-00001-of-00002` is a shard of the variant `fp16`.
            let name = name.split_once("-0").map_or(name, |(variant, _)| variant);
            Some(name.to_owned())
        })
    }

    fn open(&self, file: &str) -> Result<TensorSet> {
        let path = self.path(file);
        let has_extension = |ext: &str| Path::new(file).extension().is_some_and(|e| e == ext);
        if !has_extension("json") {
            return self.folder.tensor_file(&path).map(TensorSet::from);
        }
        let index = self.folder.read(&path)?;
        TensorSet::from_index(&self.folder.file(&path), index.as_slice(), |shard| {
            self.folder.tensor_file(&self.path(shard))
        })
    }
}

/// The names that weights may have, best first: those of diffusers and transformers, in one file or as
/// the index of several, in safetensors and then as PyTorch writes them; with a variant the ways that
/// it was put into the names over time.
fn forms(variant: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (extension, stems) in [("safetensors", STEMS), ("bin", OLD_STEMS)] {
        for stem in stems {
            if variant.is_empty() {
                out.push(format!("{stem}.{extension}"));
                out.push(format!("{stem}.{extension}.index.json"));
            } else {
                out.push(format!("{stem}.{variant}.{extension}"));
                out.push(format!("{stem}.{extension}.index.{variant}.json"));
                out.push(format!("{stem}.{extension}.{variant}.index.json"));
            }
        }
    }
    out
}

/// The class that a component's own settings name: diffusers' `_class_name`, or the first of
/// transformers' `architectures`.
#[must_use]
pub fn class_of(config: &Map<String, Value>) -> Option<&str> {
    let named = config.get("_class_name").and_then(Value::as_str);
    named.or_else(|| config.get("architectures")?.get(0)?.as_str())
}

/// Whether the file `path` is part of the model rather than beside it: at the root the index, the
/// settings and weights; in a component's folder all settings, vocabularies and weights.
fn belongs(path: &str) -> bool {
    let is = |end: &str| Path::new(path).extension().is_some_and(|e| e == end);
    match path.split_once('/') {
        None => [INDEX, SETTINGS[0]].contains(&path) || is("safetensors"),
        Some((_, name)) => {
            !name.contains('/')
                && (is("json") || is("bin") || is("safetensors") || name == "merges.txt")
        }
    }
}

/// Whether `path` stays within its folder: plain names between single slashes.
pub(crate) fn within(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 512
        && !path.contains(['\\', '\0', ':'])
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn walk(root: &Path, at: &str, depth: usize, out: &mut Vec<String>) -> Result<()> {
    let here = root.join(at);
    for entry in std::fs::read_dir(&here).map_err(Error::io(&here))? {
        let entry = entry.map_err(Error::io(&here))?;
        // A name that is not UTF-8 is none that a model has.
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let path = if at.is_empty() { name } else { format!("{at}/{name}") };
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_folder && depth < 4 {
            walk(root, &path, depth + 1, out)?;
        } else if !is_folder {
            out.push(path);
        }
        if out.len() > MAX_FILES {
            return Err(Error::format(root, "", format!("more than {MAX_FILES} files")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
