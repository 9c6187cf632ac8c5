//! The catalogue: every method that can be named, read from the folders' own lists.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The seam that a part implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seam {
    /// How data becomes noise.
    Process,
    /// The levels a run stops at.
    Grid,
    /// One step from a level to a cleaner one.
    Sampler,
    /// Combines or corrects evaluations.
    Guide,
    /// Runs around a site inside a network.
    Tap,
    /// From a picture back to what it could have been made from, and forth again.
    Edit,
    /// Finds the settings of a run before it.
    Tune,
    /// What a sample is to score high in.
    Reward,
    /// Spends evaluations on finding a better sample.
    Search,
    /// What training minimises, and its parts.
    Objective,
}

impl Seam {
    /// Every seam, in reading order.
    pub const ALL: [Self; 10] = [
        Self::Process,
        Self::Grid,
        Self::Sampler,
        Self::Guide,
        Self::Tap,
        Self::Edit,
        Self::Tune,
        Self::Reward,
        Self::Search,
        Self::Objective,
    ];

    /// Its name: the folder, the flag and the key in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Grid => "grid",
            Self::Sampler => "sampler",
            Self::Guide => "guide",
            Self::Tap => "tap",
            Self::Edit => "edit",
            Self::Tune => "tune",
            Self::Reward => "reward",
            Self::Search => "search",
            Self::Objective => "objective",
        }
    }
}

/// What the ledger says of a method; it stands in the method's own file.
#[derive(Debug, Serialize)]
pub struct Card {
    /// Kebab-case name; the file's stem with `-` for `_`.
    pub id: &'static str,
    /// The seam that it implements.
    pub seam: Seam,
    /// The paper's title.
    pub title: &'static str,
    /// Where it is to be found: an arXiv number, or a citation where there is none.
    pub source: &'static str,
    /// The year of the paper.
    pub year: u16,
    /// What it does, in a line.
    pub what: &'static str,
    /// Other names that people know it by: A1111's, ComfyUI's, diffusers', sd.cpp's.
    pub aliases: &'static [&'static str],
    /// The row of `ledger/papers.toml` that it answers; empty where it answers none.
    pub ledger: &'static str,
    /// The parts that it is put together from; a name that does not exist does not compile.
    #[serde(skip)]
    pub parts: &'static [&'static Card],
    /// The file that it stands in, from the root of the workspace.
    pub file: &'static str,
}

/// A method as the catalogue hands it out.
#[derive(Debug)]
pub struct Made<T: ?Sized> {
    /// What the ledger says.
    pub card: &'static Card,
    /// Makes one from settings.
    pub make: fn(&Settings) -> Result<Box<T>>,
    /// Its settings with their defaults, as JSON.
    pub defaults: fn() -> Value,
    /// Conformance tests that it is known to fail, and why; one that passes is an error too.
    pub known_failures: &'static [(&'static str, &'static str)],
}

/// The settings of one part, as they stand in a spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Whose they are, for messages: `sampler ddim`.
    pub owner: String,
    /// Key and value.
    pub values: Map<String, Value>,
}

impl Settings {
    /// Reads them into a part's own type; what is not named keeps its default.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] for a key that the part does not have, with the nearest that it has;
    /// [`Error::Setting`] for a value of the wrong kind.
    pub fn read<T: Default + Serialize + DeserializeOwned>(&self) -> Result<T> {
        let defaults = defaults_of::<T>();
        let Value::Object(mut all) = defaults else { return Ok(T::default()) };
        for (key, value) in &self.values {
            if !all.contains_key(key) {
                let known = all.keys().map(String::as_str);
                return Err(Error::unknown(format!("setting of {}", self.owner), key, known));
            }
            all.insert(key.clone(), value.clone());
            serde_json::from_value::<T>(Value::Object(all.clone()))
                .map_err(|e| Error::setting(format!("{}:{key}", self.owner), e.to_string()))?;
        }
        serde_json::from_value(Value::Object(all))
            .map_err(|e| Error::setting(self.owner.clone(), e.to_string()))
    }
}

/// The default settings of a part as JSON.
pub fn defaults_of<T: Default + Serialize>() -> Value {
    serde_json::to_value(T::default()).unwrap_or(Value::Null)
}

/// Finds a method by its id or one of its aliases, letter case aside.
///
/// # Errors
///
/// [`Error::Unknown`] with the nearest names.
pub fn find<T: ?Sized>(
    entries: &'static [Made<T>],
    seam: Seam,
    name: &str,
) -> Result<&'static Made<T>> {
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    let by = |e: &&Made<T>| same(e.card.id) || e.card.aliases.iter().any(|a| same(a));
    entries.iter().find(by).ok_or_else(|| {
        let names = entries
            .iter()
            .flat_map(|e| std::iter::once(e.card.id).chain(e.card.aliases.iter().copied()));
        Error::unknown(seam.name(), name, names)
    })
}

/// Every card, seam by seam.
pub fn cards() -> impl Iterator<Item = &'static Card> {
    crate::process::cards()
        .chain(crate::grid::cards())
        .chain(crate::sampler::cards())
        .chain(crate::guide::cards())
        .chain(crate::tap::cards())
        .chain(crate::edit::cards())
        .chain(crate::tune::cards())
        .chain(crate::reward::cards())
        .chain(crate::search::cards())
        .chain(crate::train::cards())
}
