//! What to run, as data: one form for the command line, the server, the lab and the metadata of
//! pictures.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::catalog::Seam;
use crate::error::{Error, Result};
use crate::noise::Rng;
use crate::prediction::Prediction;
use crate::prompt::Emphasis;
use crate::{grid, guide, process, reward, sampler, search, tap};

mod names;
mod part;
mod task;

pub use names::{Named, aliases, grid_of_file, resolve_grid, resolve_sampler};
pub use part::PartSpec;
pub use task::{Control, Edit, Task, Upscale};

/// The type that a network computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// 64-bit floating point.
    F64,
}

/// The type that weights are held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// 32-bit floating point.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the range of f32, eight bits of precision.
    Bf16,
    /// The linear layers of the denoising network in 8 bits, with a scale for each output and dynamic
    /// scales of activations for each token; everything else as the files hold it.
    Int8,
}

/// What a run weighs memory against time by. The pictures are the same, except that an autoencoder
/// that works by tiles rounds differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryMode {
    /// Several pictures at once and guidance's branches together where their activations stay below
    /// half a gibibyte; the autoencoder by tiles above 1.5 megapixels.
    #[default]
    Auto,
    /// As little as can be: one picture at a time, one branch of guidance after the other, the
    /// autoencoder by tiles of 256 pixels.
    Small,
    /// As fast as can be: as many pictures at once as half of the free memory has room for (at most
    /// eight), the autoencoder on pictures as a whole.
    Fast,
}

/// A file that a run takes numbers from: its name without folders, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// The file's name, without the folder.
    pub name: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub hash: String,
}

/// A LoRA on the model: its name, what it holds, and how strongly it acts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraUse {
    /// The file's name, without folder and ending.
    pub name: String,
    /// The SHA-256 of its tensors, in hexadecimal.
    pub hash: String,
    /// How strongly it acts; 1 is as it was trained.
    pub weight: f64,
}

/// A learned embedding that prompts may name: its name, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingUse {
    /// What it is called in prompts.
    pub name: String,
    /// The SHA-256 of its vectors, in hexadecimal.
    pub hash: String,
}

/// What to run.
///
/// Everything that decides the pictures stands here by name or hash and never as a path, so that a
/// spec can be published with them. Image `k` is of seed `seed + k` and of class
/// `classes[k % classes.len()]`, whatever the batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// The model's name: `builtin:shapes`, or that of a folder without its path.
    pub model: String,
    /// The hash of the model's weights, in hexadecimal, once it is known
    /// ([`Model::hash`](crate::engine::Model::hash)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_hash: Option<String>,
    /// What the pictures should be of.
    pub prompt: String,
    /// What they should not be of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub negative: String,
    /// How the weights in prompts act.
    #[serde(skip_serializing_if = "is_default")]
    pub emphasis: Emphasis,
    /// Which layer of the text encoder the picture is made from, counted from the last, which is 1;
    /// the model's own where nothing is said. (For models that take the last but one, 2 is that
    /// one.) It holds for the negative prompt too, as in A1111, ComfyUI and sd.cpp; diffusers,
    /// which counts from 0 and from the model's own, skips no layer there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
    /// LoRAs, in the order in which they were put on the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraUse>,
    /// Learned embeddings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub embeddings: Vec<EmbeddingUse>,
    /// A second model, for guides that ask one beside the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second: Option<SourceFile>,
    /// Classes, where the model has such; image `k` takes the one at `k` modulo their count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<i64>,
    /// The path, where it is not to be the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<PartSpec>,
    /// What the output means, where it is not to be the model's own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
    /// How to step. The default, DPM-Solver++(2M), is the project's choice (docs/choosing.md).
    pub sampler: PartSpec,
    /// Where to stop; the model's own grid where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<PartSpec>,
    /// Steps, by default 20.
    pub steps: usize,
    /// The guidance weight: 1 is the condition as it is, 0 ignores it; the model's own default
    /// where nothing is said. It becomes the `weight` of the guides, see [`Spec::guide_parts`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// Guides, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guides: Vec<PartSpec>,
    /// Taps, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taps: Vec<PartSpec>,
    /// What the pictures are to score high in; several add up. Guides follow it, a search chooses by
    /// it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rewards: Vec<PartSpec>,
    /// How evaluations are spent on finding a picture of higher reward; none where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<PartSpec>,
    /// The seed of the first image.
    pub seed: u64,
    /// Whose numbers the seed stands for: this program's, or torch's on a CPU or a GPU.
    #[serde(skip_serializing_if = "is_default")]
    pub rng: Rng,
    /// How many images.
    pub count: usize,
    /// How many images go through the network at once; it changes the speed and no picture.
    pub batch: usize,
    /// Width in pixels; the model's own where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Height in pixels; the model's own where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Pixels a side of the tiles that the autoencoder works by; 0 is the picture as a whole. Where
    /// nothing is said, pictures of more than [`Spec::WHOLE`] pixels are worked by tiles of
    /// [`Spec::TILE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae_tile: Option<usize>,
    /// What memory is weighed against time by.
    #[serde(skip_serializing_if = "is_default")]
    pub memory: MemoryMode,
    /// The type that the weights are held in; that of the files where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Storage>,
    /// The type that the network computes in.
    pub precision: Precision,
    /// A file that the initial noise comes from, in place of the seed's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<SourceFile>,
    /// What it starts from besides noise, and what else it looks at.
    #[serde(skip_serializing_if = "Task::is_plain")]
    pub task: Task,
    /// The instruction set that the pictures were made with; they repeat bit for bit on the same.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instruction_set: String,
    /// The version of the program that made them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            model: String::new(),
            model_hash: None,
            prompt: String::new(),
            negative: String::new(),
            emphasis: Emphasis::default(),
            clip_skip: None,
            loras: Vec::new(),
            embeddings: Vec::new(),
            second: None,
            classes: Vec::new(),
            process: None,
            prediction: None,
            sampler: PartSpec::named("dpmpp-2m"),
            grid: None,
            steps: 20,
            guidance: None,
            guides: Vec::new(),
            taps: Vec::new(),
            rewards: Vec::new(),
            search: None,
            seed: 0,
            rng: Rng::Tweedie,
            count: 1,
            batch: 1,
            width: None,
            height: None,
            vae_tile: None,
            memory: MemoryMode::Auto,
            dtype: None,
            precision: Precision::F32,
            noise: None,
            task: Task::default(),
            instruction_set: String::new(),
            version: String::new(),
        }
    }
}

/// What a spec may ask for; the defaults are the program's, a server may set its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The most steps.
    pub steps: usize,
    /// The most images.
    pub count: usize,
    /// The most images at once.
    pub batch: usize,
    /// What width and height are multiples of; the model knows.
    pub multiple_of: usize,
    /// The longest side in pixels.
    pub side: usize,
    /// The most characters of a prompt.
    pub prompt: usize,
    /// The most guides, taps and rewards, of each.
    pub parts: usize,
    /// The largest guidance weight, either way.
    pub guidance: f64,
    /// The most walks that a search may pay for, a picture.
    pub walks: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 10_000,
            count: 4_096,
            batch: 4_096,
            multiple_of: 1,
            side: 16_384,
            prompt: 65_536,
            parts: 16,
            guidance: 1e4,
            walks: 65_536.0,
        }
    }
}

impl Spec {
    /// Pixels of the largest picture that an autoencoder works on as a whole unasked: 1.5 times
    /// those of 1024 by 1024. The published autoencoders hold some 1.6 KiB a pixel there.
    pub const WHOLE: usize = 3 << 19;

    /// Pixels a side of a tile where nothing is said.
    pub const TILE: usize = 512;

    /// Pixels a side of a tile where memory is to be saved.
    pub const SMALL_TILE: usize = 256;

    /// The tile of a picture of this height and width in pixels; `None` for the picture as a whole.
    pub fn tile(&self, [height, width]: [usize; 2]) -> Option<usize> {
        match (self.vae_tile, self.memory) {
            (None, MemoryMode::Auto) => (height * width > Self::WHOLE).then_some(Self::TILE),
            (None, MemoryMode::Small) => {
                (height.max(width) > Self::SMALL_TILE).then_some(Self::SMALL_TILE)
            }
            (None, MemoryMode::Fast) | (Some(0), _) => None,
            (Some(side), _) => Some(side),
        }
    }

    /// Reads a spec from JSON and checks it.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for what is not a spec; as [`Spec::validate`].
    pub fn from_json(text: &str, limits: &Limits) -> Result<Self> {
        let wrong = |e: serde_json::Error| Error::setting("spec", e.to_string());
        let value: Value = serde_json::from_str(text).map_err(wrong)?;
        // A derived reader takes a list for an object whose keys it knows.
        if !value.is_object() {
            return Err(Error::setting("spec", "wanted an object in braces"));
        }
        let spec: Self = serde_json::from_value(value).map_err(wrong)?;
        spec.validate(limits)?;
        Ok(spec)
    }

    /// Checks every limit, and that every part exists and takes its settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with the key, what was found and what is allowed; [`Error::Unknown`] for
    /// a part or a setting that does not exist, with the nearest that does;
    /// [`Error::Unsupported`] for a part that cannot be made from a spec.
    pub fn validate(&self, limits: &Limits) -> Result<()> {
        within("steps", self.steps, limits.steps)?;
        within("count", self.count, limits.count)?;
        within("batch", self.batch, limits.batch)?;
        for (key, side) in [("width", self.width), ("height", self.height)] {
            let Some(side) = side else { continue };
            within(key, side, limits.side)?;
            if !side.is_multiple_of(limits.multiple_of.max(1)) {
                let why = format!("{side} is not a multiple of {}", limits.multiple_of);
                return Err(Error::setting(key, why));
            }
        }
        for (key, text) in [("prompt", &self.prompt), ("negative", &self.negative)] {
            if text.len() > limits.prompt {
                let why = format!("{} characters, at most {}", text.len(), limits.prompt);
                return Err(Error::setting(key, why));
            }
        }
        if let Some(lora) = self.loras.iter().find(|l| !l.weight.is_finite()) {
            return Err(Error::setting(
                "loras",
                format!("the weight of `{}` is no number", lora.name),
            ));
        }
        for (key, count) in [
            ("guides", self.guides.len()),
            ("taps", self.taps.len()),
            ("rewards", self.rewards.len()),
            ("loras", self.loras.len()),
        ] {
            if count > limits.parts {
                return Err(Error::setting(key, format!("{count}, at most {}", limits.parts)));
            }
        }
        if self.clip_skip == Some(0) {
            return Err(Error::setting("clip_skip", "0, the last layer is 1"));
        }
        if self.classes.len() > limits.count {
            let why = format!("{}, at most {}", self.classes.len(), limits.count);
            return Err(Error::setting("classes", why));
        }
        if let Some(weight) = self.guidance
            && (!weight.is_finite() || weight.abs() > limits.guidance)
        {
            let why = format!("{weight} is not a finite number of at most {}", limits.guidance);
            return Err(Error::setting("guidance", why));
        }
        if let Some(tile) = self.vae_tile.filter(|t| *t > limits.side) {
            return Err(Error::setting("vae_tile", format!("{tile}, at most {}", limits.side)));
        }
        if self.noise.is_some() && self.task.edit.is_some() {
            let why = "an edit begins with what its picture is inverted to";
            return Err(Error::setting("noise", why));
        }
        if self.search.is_some() && self.task.edit.is_some() {
            let why = "an edit walks from what its picture is inverted to, which has no candidates";
            return Err(Error::setting("search", why));
        }
        if let Some(part) = &self.search {
            let walks = part.make(search::entries(), Seam::Search)?.walks(self.steps);
            if walks > limits.walks {
                let why = format!("{walks} walks a picture, at most {}", limits.walks);
                return Err(Error::setting(format!("search {}", part.name), why));
            }
        }
        self.task.validate(limits)?;
        self.check_names()?;
        self.make_parts()
    }

    /// Names and hashes are what they claim to be, and never paths.
    fn check_names(&self) -> Result<()> {
        let files: Vec<(&str, &SourceFile)> =
            self.noise.iter().map(|n| ("noise", n)).chain(self.task.files()).collect();
        let second = self.second.iter().map(|s| ("second", &s.name, &s.hash));
        let files = files.iter().map(|(key, file)| (*key, &file.name, &file.hash));
        let loras = self.loras.iter().map(|l| ("loras", &l.name, &l.hash));
        let embeddings = self.embeddings.iter().map(|e| ("embeddings", &e.name, &e.hash));
        let files: Vec<(&str, &String, &String)> =
            files.chain(loras).chain(embeddings).chain(second).collect();
        let own = ("model_hash", self.model_hash.as_deref());
        let hashes = files.iter().map(|(key, _, hash)| (*key, Some(hash.as_str())));
        for (key, hash) in std::iter::once(own).chain(hashes) {
            if let Some(hash) = hash
                && (hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()))
            {
                let why = format!("`{hash}` is no SHA-256 in hexadecimal");
                return Err(Error::setting(key, why));
            }
        }
        let names = files.iter().map(|(key, name, _)| (*key, *name));
        for part in &self.rewards {
            let model = part.settings.get("model").and_then(Value::as_str).unwrap_or_default();
            if model.contains(['/', '\\', '\0']) || model == ".." || model.len() > 255 {
                let why = format!("`{model}` is a path, a name is wanted");
                return Err(Error::setting(format!("{}:model", part.name), why));
            }
        }
        for (key, name) in std::iter::once(("model", &self.model)).chain(names) {
            if name.contains(['/', '\\', '\0']) || name == ".." || name.len() > 255 {
                return Err(Error::setting(key, format!("`{name}` is a path, a name is wanted")));
            }
        }
        Ok(())
    }

    /// Makes every part once, for the errors.
    fn make_parts(&self) -> Result<()> {
        if let Some(process) = &self.process {
            process.make(process::entries(), Seam::Process)?;
        }
        if let Some(grid) = &self.grid {
            grid.make(grid::entries(), Seam::Grid)?;
        }
        self.sampler.make(sampler::entries(), Seam::Sampler)?;
        for guide in self.guide_parts()? {
            guide.make(guide::entries(), Seam::Guide)?;
        }
        for tap in &self.taps {
            tap.make(tap::entries(), Seam::Tap)?;
        }
        for part in &self.rewards {
            part.make(reward::entries(), Seam::Reward)?;
        }
        if let Some(part) = &self.search {
            part.make(search::entries(), Seam::Search)?;
            if self.rewards.is_empty() {
                return Err(Error::unsupported(&part.name, "a reward to choose by"));
            }
        }
        Ok(())
    }

    /// The guides that the run has, outermost first, with the guidance weight put in.
    ///
    /// The weight goes to every guide that has a setting `weight` and does not set it; where no
    /// guide has one, classifier-free guidance is put innermost, unless the weight is 1 or nothing
    /// was said; with an image guidance weight it is guidance by words and picture.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] for a guide that does not exist.
    pub fn guide_parts(&self) -> Result<Vec<PartSpec>> {
        let mut parts = self.guides.clone();
        let Some(weight) = self.guidance else { return Ok(parts) };
        let mut takes = false;
        for part in &mut parts {
            let entry = crate::catalog::find(guide::entries(), Seam::Guide, &part.name)?;
            if (entry.defaults)().get("weight").is_some() {
                takes = true;
                if !part.settings.contains_key("weight") {
                    part.settings.insert("weight".to_owned(), weight.into());
                }
            }
        }
        if let (false, Some(image)) = (takes, self.task.image_guidance) {
            parts.push(PartSpec::named("instruct").with("weight", weight).with("image", image));
        } else if !takes && weight != 1.0 {
            parts.push(PartSpec::named("cfg").with("weight", weight));
        }
        Ok(parts)
    }

    /// As JSON on one line, keys in a fixed order.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] for a number that JSON cannot hold.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|_| Error::NotFinite { what: "the spec".into() })
    }

    /// A SHA-256 in hexadecimal of what decides the pictures.
    ///
    /// The batch, the version and the instruction set are left out: two specs of one hash ask for
    /// the same pictures. The order of a part's settings does not count.
    ///
    /// # Errors
    ///
    /// As [`Spec::to_json`].
    pub fn hash(&self) -> Result<String> {
        let asked = Self {
            batch: 1,
            version: String::new(),
            instruction_set: String::new(),
            ..self.clone()
        };
        let value = serde_json::to_value(&asked)
            .map_err(|_| Error::NotFinite { what: "the spec".into() })?;
        let mut text = String::new();
        sorted(&value, &mut text);
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(text.as_bytes()) {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Ok(hex)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn within(key: &str, found: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::setting(key, format!("{found}, wanted 1 to {most}")))
}

/// JSON with the keys of every object in order.
fn sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                let _ = write!(out, "{}:", Value::String(key.clone()));
                sorted(&map[key], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                sorted(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

#[cfg(test)]
mod tests;
