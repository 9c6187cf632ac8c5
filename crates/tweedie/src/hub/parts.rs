//! Where the parts of a model come from: the one way to open a model, whatever it is.
//!
//! A model is a folder of diffusers, a single file, a name in the local Hugging Face cache or one that
//! is built in. Parts may be given from elsewhere ([`Parts::vae`] and its kin). What a single file
//! lacks is looked for beside it and, where it stands in a tree of ComfyUI's (`models/checkpoints`,
//! `models/vae`, `models/clip`, `models/text_encoders`, `models/unet`, `models/diffusion_models`), in
//! the folders of that tree.
//!
//! ```no_run
//! use tweedie::hub::Parts;
//!
//! let opened = Parts::new("models/unet/v1-5.safetensors").vae("models/vae/mse.safetensors").open()?;
//! for note in &opened.notes {
//!     println!("{note}");
//! }
//! assert!(opened.folder.component("vae").is_ok());
//! # Ok::<(), tweedie::Error>(())
//! ```

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::builtin;
use super::cache;
use super::folder::{Component, Folder};
use super::json::one_line;
use super::layout::{self, Kind};
use super::scheduler::PredictionType;
use super::single::{self, Fit, Single, Told, Wish, Yaml};
use super::tensor_set::TensorSet;
use crate::spec::Storage;
use crate::{Error, Result};

/// The endings of files of weights.
const ENDINGS: [&str; 6] = ["safetensors", "sft", "ckpt", "pt", "pth", "bin"];
/// The most files of a folder that are looked at for a missing part.
const MAX_LOOKED: usize = 500;

/// Where a model lies, and which of its parts come from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    model: String,
    vae: Option<PathBuf>,
    clip_l: Option<PathBuf>,
    clip_g: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    config: Option<PathBuf>,
    variant: Option<String>,
    prediction: Option<PredictionType>,
    storage: Option<Storage>,
}

/// A model as [`Parts::open`] found it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its components, wherever they come from.
    pub folder: Folder,
    /// What it is, in words.
    pub what: String,
    /// What was decided that the files do not say, and which parts came from elsewhere; a line each.
    pub notes: Vec<String>,
    /// The parts that it needs and that were found nowhere.
    pub missing: Vec<Missing>,
}

/// A part that a model needs and that was found nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The component's name: `text_encoder_2`.
    pub component: String,
    /// What fits.
    pub wanted: String,
    /// Why none was taken; empty where there was none.
    pub why: String,
    /// The option of the command line that gives it.
    pub option: &'static str,
    /// Where was looked.
    pub looked: Vec<String>,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is missing: wanted {} ({})", self.component, self.wanted, self.option)?;
        if !self.why.is_empty() {
            write!(f, "; {}", self.why)?;
        }
        if !self.looked.is_empty() {
            write!(f, "; looked in {}", self.looked.join(", "))?;
        }
        Ok(())
    }
}

impl Parts {
    /// The model at `model`: `builtin:NAME`, the path of a folder or of a file of weights, or
    /// `organisation/name` in the local Hugging Face cache.
    #[must_use]
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }

    /// The model's name or path, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.model
    }

    /// Takes the autoencoder from a file, or from a folder with its `config.json`.
    #[must_use]
    pub fn vae(mut self, path: impl Into<PathBuf>) -> Self {
        self.vae = Some(path.into());
        self
    }

    /// Takes the first text encoder (CLIP-L; in Stable Diffusion 2 the only one) from a file or folder.
    #[must_use]
    pub fn clip_l(mut self, path: impl Into<PathBuf>) -> Self {
        self.clip_l = Some(path.into());
        self
    }

    /// Takes the second text encoder (OpenCLIP-bigG) from a file or folder.
    #[must_use]
    pub fn clip_g(mut self, path: impl Into<PathBuf>) -> Self {
        self.clip_g = Some(path.into());
        self
    }

    /// Takes every tokenizer's vocabulary from a folder (`vocab.json` and `merges.txt`, or
    /// `tokenizer.json`).
    #[must_use]
    pub fn tokenizer(mut self, folder: impl Into<PathBuf>) -> Self {
        self.tokenizer = Some(folder.into());
        self
    }

    /// Takes the settings of a single file's components from a model folder (its weights are not
    /// read), in the place of those that are read off the shapes.
    #[must_use]
    pub fn config(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config = Some(folder.into());
        self
    }

    /// Takes the weights of a variant (`fp16`) where a component of a folder has them.
    #[must_use]
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// Says what the network predicts, against what the files say or seem to say.
    #[must_use]
    pub fn prediction(mut self, prediction: PredictionType) -> Self {
        self.prediction = Some(prediction);
        self
    }

    /// Holds the weights in this type, whatever the files hold: half the memory, or
    /// twice; or the linear layers of the denoising network in 8 bits. Vectors are never narrowed; see [`TensorSet::held_as`].
    #[must_use]
    pub fn dtype(mut self, storage: Storage) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Opens the model.
    ///
    /// # Errors
    /// There is no such model, it is none that is known, or parts of it are missing: the one error
    /// names them all and where was looked.
    pub fn open(&self) -> Result<Opened> {
        let opened = self.look()?;
        if opened.missing.is_empty() {
            return Ok(opened);
        }
        let all: Vec<String> = opened.missing.iter().map(Missing::to_string).collect();
        Err(Error::format(&*self.model, "", format!("{}: {}", opened.what, all.join("; "))))
    }

    /// As [`open`](Self::open), but what is missing is listed in place of an error.
    ///
    /// # Errors
    /// There is no such model, or it is none that is known.
    pub fn look(&self) -> Result<Opened> {
        let mut opened = self.found()?;
        if let Some(storage) = self.storage {
            opened.folder = opened.folder.stored_as(storage);
        }
        Ok(opened)
    }

    /// The model, its weights as in the files.
    fn found(&self) -> Result<Opened> {
        if self.model.starts_with(builtin::PREFIX) {
            return self.folder(builtin::named(&self.model)?);
        }
        let path = Path::new(&self.model);
        match std::fs::metadata(path) {
            Ok(about) if about.is_dir() => self.folder(Folder::open(path)?),
            Ok(_) => self.file(path),
            Err(_) if cache::parse(&self.model).is_some() => {
                let nowhere = || Error::format(path, "", "no such file or folder");
                let root = cache::root(cache::environment).ok_or_else(nowhere)?;
                self.folder(Folder::open(cache::find(&root, &self.model)?)?)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let known = builtin::names();
                let known = known.iter().map(String::as_str);
                Err(Error::unknown("model folder or built-in model", &one_line(&self.model), known))
            }
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    /// A folder, with parts from elsewhere where they are given.
    fn folder(&self, folder: Folder) -> Result<Opened> {
        let what = folder.index().map_or_else(
            || "one component".to_owned(),
            |i| format!("a model folder of the class {}", i.class),
        );
        let mut opened = Opened { folder, what, notes: Vec::new(), missing: Vec::new() };
        let elsewhere = self.vae.is_some() || self.clip_l.is_some() || self.clip_g.is_some();
        if !elsewhere
            && self.tokenizer.is_none()
            && self.variant.is_none()
            && self.prediction.is_none()
        {
            return Ok(opened);
        }
        let names: Vec<String> = opened.folder.components().map(str::to_owned).collect();
        let mut components = Vec::new();
        let mut found = self.variant.is_none();
        for name in &names {
            let component = opened.folder.component(name)?;
            let (component, of_variant) = self.varied(component, &mut opened.notes)?;
            found |= of_variant;
            components.push(component);
        }
        if !found {
            let variant = self.variant.as_deref().unwrap_or_default();
            let why = format!("no component has weights of the variant `{}`", one_line(variant));
            return Err(Error::format(opened.folder.name(), "", why));
        }
        let factor = |c: &[Component]| {
            let vae = c.iter().find(|c| c.name == "vae")?;
            let number = |key: &str| vae.config.get(key).and_then(Value::as_f64);
            Some((number("scaling_factor").unwrap_or(0.18215), number("shift_factor")))
        };
        let factor = factor(&components).unwrap_or((0.18215, None));
        self.replace(&mut components, factor, &mut opened.notes)?;
        if let Some(prediction) = self.prediction {
            predict(&mut components, prediction);
        }
        let index = opened.folder.index().cloned().unwrap_or_default();
        let name = opened.folder.name().to_owned();
        opened.folder = Folder::assembled(name, &index.class, components, index.arguments);
        Ok(opened)
    }

    /// A component with the weights of the variant; says whether it has some.
    fn varied(&self, component: Component, notes: &mut Vec<String>) -> Result<(Component, bool)> {
        let Some(variant) = self.variant.as_deref() else { return Ok((component, true)) };
        if !component.has_weights() {
            return Ok((component, false));
        }
        let is = component.weights(Some(variant))?.variant;
        if !is {
            notes.push(format!(
                "{} has no weights `{variant}`: the plain ones are taken",
                component.name
            ));
        }
        Ok((component.of_variant(Some(variant)), is))
    }

    /// Puts the parts that are given in the place of the model's own.
    fn replace(
        &self,
        components: &mut Vec<Component>,
        factor: (f64, Option<f64>),
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let has = |components: &[Component], name: &str| components.iter().any(|c| c.name == name);
        let first = if has(components, "text_encoder") || !has(components, "text_encoder_2") {
            "text_encoder"
        } else {
            "text_encoder_2"
        };
        let any = |open, projected| Fit::Text { width: None, projected, open };
        let given = [
            ("vae", &self.vae, Fit::Vae(4)),
            (first, &self.clip_l, any(false, first != "text_encoder")),
            ("text_encoder_2", &self.clip_g, any(true, true)),
        ];
        for (name, path, fit) in given {
            let Some(path) = path else { continue };
            let wish = Wish { name, fit };
            let found = part(path, &wish, factor)?.ok_or_else(|| {
                Error::format(path, "", format!("wanted {} for `{name}`", fit.words()))
            })?;
            notes.push(format!("{name} from {}", path.display()));
            put(components, found);
        }
        if let Some(folder) = &self.tokenizer {
            let names: Vec<&'static str> =
                ["tokenizer", "tokenizer_2"].into_iter().filter(|n| has(components, n)).collect();
            // That of the first text encoder where there is none yet.
            let none = if has(components, "text_encoder") { "tokenizer" } else { "tokenizer_2" };
            for name in if names.is_empty() { vec![none] } else { names } {
                put(components, tokenizer(folder)?.named(name));
            }
            notes.push(format!("the vocabulary from {}", folder.display()));
        }
        Ok(())
    }

    /// A single file.
    fn file(&self, path: &Path) -> Result<Opened> {
        let set = TensorSet::open(path)?;
        let told = Told { prediction: self.prediction, yaml: beside_yaml(path) };
        if let Some(folder) = own_folder(path, &set)? {
            return self.folder(folder);
        }
        let mut single = single::read(path, &set, &told)?;
        let factor = single.factor.unwrap_or((0.18215, None));
        if let Some(config) = &self.config {
            settings(&mut single, config)?;
        }
        let name = self.model.clone();
        if single.pipeline.is_empty() {
            let folder = Folder::assembled(name, "", single.components, Map::new());
            return Ok(Opened {
                folder,
                what: single.what,
                notes: single.notes,
                missing: Vec::new(),
            });
        }
        self.replace(&mut single.components, factor, &mut single.notes)?;
        let mut missing = Vec::new();
        for wish in std::mem::take(&mut single.missing) {
            if single.components.iter().any(|c| c.name == wish.name) {
                continue;
            }
            if let (Fit::Tokenizer, Some(folder)) = (wish.fit, &self.tokenizer) {
                put(&mut single.components, tokenizer(folder)?.named(wish.name));
                continue;
            }
            match search(path, &wish, factor) {
                Ok((component, from)) => {
                    single.notes.push(format!("{} from {}", wish.name, from.display()));
                    put(&mut single.components, component);
                }
                Err(lack) => missing.push(lack),
            }
        }
        order(&mut single.components);
        let folder = Folder::assembled(name, &single.pipeline, single.components, single.arguments);
        Ok(Opened { folder, what: single.what, notes: single.notes, missing })
    }
}

/// The components of a model in the order of diffusers' index.
fn order(components: &mut [Component]) {
    const ORDER: [&str; 7] =
        ["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler"];
    components.sort_by_key(|c| ORDER.iter().position(|n| *n == c.name).unwrap_or(ORDER.len()));
}

/// Puts a component into its place, new or taken.
fn put(components: &mut Vec<Component>, component: Component) {
    match components.iter_mut().find(|c| c.name == component.name) {
        Some(place) => *place = component,
        None => components.push(component),
    }
}

fn predict(components: &mut [Component], prediction: PredictionType) {
    for component in components.iter_mut().filter(|c| c.name == "scheduler") {
        component.config.insert("prediction_type".to_owned(), json!(prediction));
    }
}

/// The YAML file of the same name beside a file of weights.
fn beside_yaml(path: &Path) -> Option<Yaml> {
    let yaml = path.with_extension("yaml");
    let about = std::fs::metadata(&yaml).ok()?;
    if !about.is_file() || about.len() > 1 << 20 {
        return None;
    }
    std::fs::read_to_string(yaml).ok().map(|text| Yaml::read(&text))
}

/// The folder that a file is the weights of, where a `config.json` of its class stands beside it and
/// the file is under the names of diffusers or transformers.
fn own_folder(path: &Path, set: &TensorSet) -> Result<Option<Folder>> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stem = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let usual = ["diffusion_pytorch_model.", "model.", "pytorch_model."];
    if !usual.iter().any(|s| stem.starts_with(s)) || !folder.join("config.json").is_file() {
        return Ok(None);
    }
    let component = Folder::open(folder)?;
    if component.index().is_some() {
        return Ok(None);
    }
    let found = component.component("")?;
    let tensors = super::names::usual(&found.class, set.clone())?;
    let held = super::folder::Held { weights: Some(tensors), ..Default::default() };
    let only = Component::held("", &found.class, found.config, path, held);
    Ok(Some(Folder::assembled(path.display().to_string(), "", vec![only], Map::new())))
}

/// Puts the settings of a model folder over those that were read off the shapes.
fn settings(single: &mut Single, folder: &Path) -> Result<()> {
    let folder = Folder::open(folder)?;
    for component in &mut single.components {
        let name = if folder.index().is_some() { component.name.as_str() } else { "" };
        if let Ok(own) = folder.component(name)
            && !own.config.is_empty()
        {
            component.config = own.config;
            component.config_file = own.config_file;
            component.class = own.class;
        }
    }
    for wish in std::mem::take(&mut single.missing) {
        match folder.component(wish.name) {
            Ok(own) if wish.fit == Fit::Tokenizer => single.components.push(own),
            _ => single.missing.push(wish),
        }
    }
    Ok(())
}

/// A tokenizer's folder, or the folder `tokenizer` of a model.
fn tokenizer(folder: &Path) -> Result<Component> {
    let inner = folder.join("tokenizer");
    let at = if inner.is_dir() { inner } else { folder.to_owned() };
    let mut texts = std::collections::BTreeMap::new();
    let files = [
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ];
    for name in files {
        let file = at.join(name);
        if let Ok(about) = std::fs::metadata(&file) {
            if about.len() > 64 << 20 || !about.is_file() {
                return Err(Error::format(file, "", "wanted a plain file of at most 64 MiB"));
            }
            let text = std::fs::read_to_string(&file).map_err(Error::io(&file))?;
            texts.insert(name.to_owned(), text.into());
        }
    }
    if texts.is_empty() {
        let why = format!("no tokenizer: wanted {}", files[..3].join(", "));
        return Err(Error::format(at, "", why));
    }
    let held = super::folder::Held { texts, weights: None };
    Ok(Component::held("tokenizer", "CLIPTokenizer", Map::new(), &at, held))
}

/// The part at `path` for a place in a model; `None` where it is another kind of network or does not
/// fit.
fn part(path: &Path, wish: &Wish, factor: (f64, Option<f64>)) -> Result<Option<Component>> {
    if path.is_dir() {
        let folder = Folder::open(path)?;
        let name = if folder.index().is_some() { wish.name } else { "" };
        return Ok(Some(folder.component(name)?.named(wish.name)));
    }
    let set = TensorSet::open(path)?;
    if let Some(folder) = own_folder(path, &set)? {
        return Ok(Some(folder.component("")?.named(wish.name)));
    }
    for found in layout::find(&set)? {
        if let Some(component) = single::fitting(path, &found, wish, factor)? {
            return Ok(Some(component));
        }
    }
    Ok(None)
}

/// Looks for a part beside a file and in the folders of ComfyUI's tree around it. It is an error if
/// there is none, or if several fit.
fn search(
    path: &Path,
    wish: &Wish,
    factor: (f64, Option<f64>),
) -> Result<(Component, PathBuf), Missing> {
    let option = match (wish.fit, wish.name) {
        (Fit::Vae(_), _) => "--vae",
        (Fit::Tokenizer, _) => "--tokenizer",
        (_, "text_encoder_2") => "--clip-g",
        _ => "--clip-l",
    };
    let mut lack = Missing {
        component: wish.name.to_owned(),
        wanted: wish.fit.words(),
        why: String::new(),
        option,
        looked: Vec::new(),
    };
    if wish.fit == Fit::Tokenizer {
        let beside = path.parent().map(|p| p.join("tokenizer")).filter(|p| p.is_dir());
        lack.looked.push(path.with_file_name("tokenizer").display().to_string());
        let found = beside.and_then(|at| Some((tokenizer(&at).ok()?.named(wish.name), at)));
        return found.ok_or(lack);
    }
    for place in places(path, wish) {
        lack.looked.push(place.display().to_string());
        let mut fits: Vec<(Component, PathBuf)> = Vec::new();
        for file in files(&place).into_iter().filter(|f| f != path) {
            // A file that cannot be read is not the one that is looked for.
            let Ok(set) = TensorSet::open(&file) else { continue };
            let Ok(found) = layout::find(&set) else { continue };
            let [only] = found.as_slice() else { continue };
            let known =
                matches!(only.kind, Kind::Vae | Kind::UsualVae | Kind::Clip | Kind::OpenClip);
            if let (true, Ok(Some(component))) = (known, single::fitting(&file, only, wish, factor))
            {
                fits.push((component, file));
            }
        }
        // `NAME.vae.safetensors` beside `NAME.safetensors` is meant for it.
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let named = fits.iter().position(|(_, file)| {
            let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            !stem.is_empty() && name.starts_with(&format!("{stem}."))
        });
        match (named, fits.len()) {
            (Some(named), _) => return Ok(fits.swap_remove(named)),
            (None, 1) => return Ok(fits.swap_remove(0)),
            (None, 0) => {}
            (None, count) => {
                let names = fits.iter().map(|(_, f)| f.display().to_string());
                let names: Vec<String> = names.take(4).collect();
                lack.why = format!("{count} files fit, say which: {}", names.join(", "));
                return Err(lack);
            }
        }
    }
    Err(lack)
}

/// The folders to look in: the file's own, then those of the tree that it is in.
fn places(path: &Path, wish: &Wish) -> Vec<PathBuf> {
    const TREE: [&str; 5] =
        ["checkpoints", "unet", "diffusion_models", "Stable-diffusion", "stable-diffusion"];
    let folders: &[&str] =
        if matches!(wish.fit, Fit::Vae(_)) { &["vae", "VAE"] } else { &["text_encoders", "clip"] };
    let here = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut out = vec![here.to_owned()];
    let full = std::fs::canonicalize(here).unwrap_or_else(|_| here.to_owned());
    // A checkpoint may stand some folders below `checkpoints`.
    let tree = full
        .ancestors()
        .take(4)
        .find(|a| a.file_name().and_then(|n| n.to_str()).is_some_and(|n| TREE.contains(&n)));
    if let Some(root) = tree.and_then(Path::parent) {
        out.extend(folders.iter().map(|f| root.join(f)).filter(|f| f.is_dir()));
    }
    out.dedup();
    out
}

/// The files of weights in a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut out: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().and_then(|e| e.to_str()).is_some_and(|e| ENDINGS.contains(&e)))
        .filter(|p| p.is_file())
        .take(MAX_LOOKED)
        .collect();
    out.sort();
    out
}
