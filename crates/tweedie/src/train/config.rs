//! A training run as a TOML file.
//!
//! ```text
//! name = "fashion"            # for the log and the exported folder
//! task = "class-image"        # class-image, autoencoder, text-encoder, text-latent, classifier, experts
//! seed = 1
//! steps = 40000
//! batch = 64                  # rows of a micro-batch
//! accumulate = 1              # micro-batches of a step
//!
//! [data]                      # what the task trains on
//! [network]                   # the fields of the network's config.json; `class` says which network
//! [objective]                 # diffusion tasks: process, prediction, levels, weighting, dropout
//! [optimiser]                 # AdamW, warm-up, decay, clipping
//! [ema]                       # the average of the weights
//! [output]                    # how often to log, sample and save
//! ```
//!
//! A key that nothing goes by is an error that names the nearest one.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::schedule::{EmaSettings, OptimiserSettings};
use crate::catalog::Settings;
use crate::error::{Error, Result};

/// How often a run tells, shows and saves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputSettings {
    /// Steps between two lines of the log.
    pub log: u64,
    /// Steps between two sample grids and measurements; 0 is never.
    pub samples: u64,
    /// Steps between two checkpoints; 0 is only at the end.
    pub checkpoint: u64,
    /// Seconds after which a checkpoint is written even so; 0 is never.
    pub checkpoint_seconds: u64,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self { log: 50, samples: 2000, checkpoint: 2000, checkpoint_seconds: 180 }
    }
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// A class-conditional network over pixels.
    #[default]
    ClassImage,
    /// An autoencoder with a diagonal Gaussian posterior.
    Autoencoder,
    /// A text encoder, from captions and what is true of their scenes.
    TextEncoder,
    /// A network over an autoencoder's latents or over pixels, conditioned on a text encoder that
    /// was trained before or learns with it.
    TextLatent,
    /// A classifier of pictures.
    Classifier,
    /// Experts for noise levels over a classifier, taught by it.
    Experts,
}

/// The settings that stand before the first section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Head {
    name: String,
    task: TaskKind,
    seed: u64,
    steps: u64,
    batch: usize,
    accumulate: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            name: "model".into(),
            task: TaskKind::ClassImage,
            seed: 0,
            steps: 1000,
            batch: 32,
            accumulate: 1,
        }
    }
}

/// A training run.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where it was read from; what it names is relative to that file's folder.
    pub file: PathBuf,
    /// What the model is called.
    pub name: String,
    /// What is trained.
    pub task: TaskKind,
    /// All randomness follows from it.
    pub seed: u64,
    /// Optimiser steps in all.
    pub steps: u64,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step.
    pub accumulate: usize,
    /// AdamW and its learning rate.
    pub optimiser: OptimiserSettings,
    /// The average of the weights.
    pub ema: EmaSettings,
    /// How often to tell, show and save.
    pub output: OutputSettings,
    sections: Map<String, Value>,
}

/// Sections that every task has.
const COMMON: [&str; 3] = ["optimiser", "ema", "output"];

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and as [`Config::parse`].
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
        Self::parse(&text, file)
    }

    /// Reads a text; `file` is named in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] where it is no TOML; [`Error::Unknown`] with the nearest name for a key;
    /// [`Error::Setting`] for a value out of its range.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let bad = |e: toml::de::Error| Error::format(file, "", one_line(&e));
        let value: Map<String, Value> = toml::from_str(text).map_err(bad)?;
        let (sections, head): (Map<_, _>, Map<_, _>) =
            value.into_iter().partition(|(_, v)| v.is_object());
        let head: Head = typed("the configuration", &head)?;
        let mut config = Self {
            file: file.to_owned(),
            name: head.name,
            task: head.task,
            seed: head.seed,
            steps: head.steps,
            batch: head.batch,
            accumulate: head.accumulate,
            optimiser: OptimiserSettings::default(),
            ema: EmaSettings::default(),
            output: OutputSettings::default(),
            sections,
        };
        config.optimiser = config.section("optimiser")?;
        config.ema = config.section("ema")?;
        config.output = config.section("output")?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        let range = |key: &str, value: u64, most: u64| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(Error::setting(key, format!("{value} is not in 1..={most}"))),
        };
        range("steps", self.steps, 1 << 32)?;
        range("batch", self.batch as u64, 1 << 16)?;
        range("accumulate", self.accumulate as u64, 1 << 8)?;
        range("output.log", self.output.log, 1 << 32)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return Err(Error::setting("name", "letters, digits, `-`, `_` and `.` are wanted"));
        }
        self.optimiser.validate()?;
        self.ema.validate()
    }

    /// Reads a section into a task's own type; a section that is absent is all defaults.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] and [`Error::Setting`], as [`Settings::read`].
    pub fn section<T: Default + Serialize + DeserializeOwned>(&self, name: &str) -> Result<T> {
        match self.sections.get(name) {
            Some(Value::Object(values)) => typed(&format!("section `{name}`"), values),
            _ => Ok(T::default()),
        }
    }

    /// The text under a key of a section, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for another value than a text.
    pub fn text(&self, section: &str, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.sections.get(section).and_then(|s| s.get(key)) else {
            return Ok(None);
        };
        let wrong =
            || Error::setting(format!("{section}.{key}"), format!("{value}, wanted a text"));
        value.as_str().map(Some).ok_or_else(wrong)
    }

    /// As [`Config::section`], less one key that says of what type the others are.
    ///
    /// # Errors
    ///
    /// As [`Config::section`].
    pub fn fields<T: Default + Serialize + DeserializeOwned>(
        &self,
        name: &str,
        without: &str,
    ) -> Result<T> {
        let Some(Value::Object(values)) = self.sections.get(name) else { return Ok(T::default()) };
        let mut values = values.clone();
        values.remove(without);
        typed(&format!("section `{name}`"), &values)
    }

    /// Whether the file has a section.
    pub fn has(&self, section: &str) -> bool {
        self.sections.contains_key(section)
    }

    /// Refuses sections that the task does not read.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] with the nearest section.
    pub fn only(&self, own: &[&'static str]) -> Result<()> {
        let known = || COMMON.iter().chain(own).copied();
        match self.sections.keys().find(|k| !known().any(|n| n == k.as_str())) {
            None => Ok(()),
            Some(odd) => Err(Error::unknown("section of the configuration", odd, known())),
        }
    }

    /// A path as it stands in the file, relative to the file's folder.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.file.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    /// Rows of one step.
    pub fn rows(&self) -> usize {
        self.batch * self.accumulate
    }

    /// A hash of what makes two runs the same run: task, seed, batch and the task's own sections.
    ///
    /// Steps, optimiser, averaging and output may change between two parts of a run.
    pub fn hash(&self) -> String {
        let mut own = self.sections.clone();
        own.retain(|k, _| !COMMON.contains(&k.as_str()));
        let identity = serde_json::json!({
            "task": self.task,
            "seed": self.seed,
            "batch": self.batch,
            "accumulate": self.accumulate,
            "sections": sorted(&Value::Object(own)),
        });
        let digest = Sha256::digest(identity.to_string().as_bytes());
        digest.iter().take(12).map(|b| format!("{b:02x}")).collect()
    }
}

/// The same value with all keys in alphabetical order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(k, _)| k.as_str());
            Value::Object(pairs.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn typed<T: Default + Serialize + DeserializeOwned>(
    owner: &str,
    values: &Map<String, Value>,
) -> Result<T> {
    Settings { owner: owner.to_owned(), values: values.clone() }.read()
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("dir/x.toml"))
    }

    #[derive(Default, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Data {
        folder: String,
        count: usize,
    }

    #[test]
    fn sections_are_read_with_their_defaults() {
        let c =
            parse("steps = 7\nbatch = 4\naccumulate = 3\n[ema]\ndecay = 0.5\n[data]\ncount = 2")
                .unwrap();
        assert_eq!((c.steps, c.rows(), c.ema.decay), (7, 12, 0.5));
        assert_eq!(c.section::<Data>("data").unwrap(), Data { folder: String::new(), count: 2 });
        assert_eq!(c.section::<Data>("none").unwrap(), Data::default());
        assert_eq!(c.beside(Path::new("y")), Path::new("dir/y"));
        assert!(c.only(&["data"]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_the_nearest() {
        for (text, said) in [
            ("step = 7", "no setting of the configuration is called `step`; did you mean"),
            ("[optimiser]\nlearning = 1", "section `optimiser`"),
            ("steps = 0", "`steps`: 0 is not in"),
            ("steps = -1", "steps"),
            ("batch = \"x\"", "batch"),
            ("task = \"clasifier\"", "task"),
            ("[optimiser]\nlr = 0", "`optimiser.lr`"),
            ("[ema]\ndecay = 2", "`ema.decay`"),
            ("name = \"a/b\"", "`name`"),
            ("steps = ", "dir/x.toml"),
        ] {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.contains(said) && !e.contains('\n'), "{text}: {e}");
        }
        let odd = parse("[dta]\na = 1").unwrap().only(&["data"]).unwrap_err().to_string();
        assert!(odd.contains("did you mean `data`?"), "{odd}");
    }

    #[test]
    fn the_hash_holds_what_makes_the_run_and_nothing_else() {
        let base = parse("seed = 1\n[data]\ncount = 2\nfolder = \"f\"").unwrap().hash();
        for same in [
            "seed = 1\nsteps = 99\n[data]\nfolder = \"f\"\ncount = 2",
            "seed = 1\nname = \"z\"\n[ema]\ndecay = 0.2\n[data]\ncount = 2\nfolder = \"f\"",
        ] {
            assert_eq!(parse(same).unwrap().hash(), base);
        }
        for other in ["seed = 2\n[data]\ncount = 2\nfolder = \"f\"", "seed = 1\n[data]\ncount = 3"]
        {
            assert_ne!(parse(other).unwrap().hash(), base);
        }
    }
}
