//! The models that a server has: found by name, opened when they are asked for, closed when the
//! memory is needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tweedie::engine::{Engine, Model, Needs, Table, Texts, bytes, memory, table};
use tweedie::hub::{Embedding, Lora, Parts};
use tweedie::prompt::{Tag, tags};
use tweedie::spec::{
    MemoryMode, {LoraUse, Spec},
};

use crate::refusal::{Kind, Refusal};

type Result<T> = std::result::Result<T, Refusal>;

/// The endings of files of weights, best first.
const ENDINGS: [&str; 4] = ["safetensors", "ckpt", "pt", "bin"];

/// Folders that other programs keep models in, below a folder of models.
const BELOW: [&str; 4] = ["", "checkpoints", "Stable-diffusion", "diffusers"];

/// Encoded prompts that a model keeps.
const PROMPTS: usize = 64;

/// What is known of a model without its weights.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether it takes a prompt.
    pub text: bool,
    /// The names of its classes, where it has such.
    pub classes: Option<Vec<String>>,
    /// Width and height of the pictures that it was trained on.
    pub size: [usize; 2],
    /// What width and height must be multiples of.
    pub multiple: usize,
    /// What a run of it is without further word.
    pub spec: Spec,
    /// The BLAKE3 hash of its weights.
    pub hash: String,
}

/// An open model.
pub struct Opened {
    /// The name under which the server has it.
    pub name: String,
    /// The model.
    pub model: Model,
    /// Its network, shared by the jobs that run at the same time.
    pub table: Table,
    /// What is known of it.
    pub facts: Facts,
    /// Bytes of its weights.
    bytes: u64,
    prompts: Mutex<Vec<(String, Texts)>>,
}

impl Opened {
    /// The encoded prompts of a spec, from those that were encoded lately or anew.
    ///
    /// # Errors
    ///
    /// What the prompts and the encoders say.
    pub fn texts(&self, engine: &Engine, spec: &Spec) -> Result<Option<Texts>> {
        // Everything that decides the embeddings of this model.
        let key = format!(
            "{:?} {:?} {:?} {:?}",
            spec.prompt, spec.negative, spec.clip_skip, spec.emphasis
        );
        {
            let mut kept = lock(&self.prompts);
            if let Some(at) = kept.iter().position(|(k, _)| *k == key) {
                let one = kept.remove(at);
                kept.push(one.clone());
                return Ok(Some(one.1));
            }
        }
        let Some(texts) = engine.encode(&self.model, spec)? else { return Ok(None) };
        let mut kept = lock(&self.prompts);
        if kept.len() >= PROMPTS {
            kept.remove(0);
        }
        kept.push((key, texts.clone()));
        Ok(Some(texts))
    }
}

#[derive(Default)]
struct Entry {
    open: Option<Arc<Opened>>,
    used: Option<Instant>,
}

/// The models that a server has.
pub struct Library {
    engine: Arc<Engine>,
    /// Where each is to be found, by the name under which the server has it.
    places: BTreeMap<String, String>,
    first: String,
    folder: Option<PathBuf>,
    budget: u64,
    /// One lock a model, so that opening one holds up nobody who uses another.
    entries: BTreeMap<String, Mutex<Entry>>,
    facts: BTreeMap<String, OnceLock<Facts>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    /// Models by name and those in a folder; `budget` is the most bytes that the weights of open
    /// ones take together, half of the machine's memory where nothing is said.
    ///
    /// # Errors
    ///
    /// No model at all; two of one name; what the system says of the folder.
    pub fn new(
        engine: Arc<Engine>,
        models: &[String],
        folder: Option<&Path>,
        budget: Option<u64>,
    ) -> Result<Self> {
        let mut places = BTreeMap::new();
        let mut first = None;
        for place in models {
            let name = short(place);
            first.get_or_insert_with(|| name.clone());
            if let Some(other) = places.insert(name.clone(), place.clone())
                && other != *place
            {
                let why = format!("two models are called `{name}`: {other} and {place}");
                return Err(Refusal::field("model", why));
            }
        }
        if let Some(folder) = folder {
            for (name, path) in found_in(folder)? {
                places.entry(name).or_insert(path);
            }
        }
        let Some(first) = first.or_else(|| places.keys().next().cloned()) else {
            return Err(Refusal::field("models", "there is no model to serve"));
        };
        let half = || memory().map_or(4 << 30, |m| m.total / 2);
        Ok(Self {
            engine,
            entries: places.keys().map(|n| (n.clone(), Mutex::default())).collect(),
            facts: places.keys().map(|n| (n.clone(), OnceLock::new())).collect(),
            places,
            first,
            folder: folder.map(Path::to_owned),
            budget: budget.unwrap_or_else(half),
        })
    }

    /// The names of all models, the default one first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let others = self.places.keys().filter(|n| **n != self.first);
        std::iter::once(&self.first).chain(others).map(String::as_str)
    }

    /// The name of the model that a request means: its own, letter case aside; the default one where
    /// it names none.
    ///
    /// # Errors
    ///
    /// 404 with the nearest names.
    pub fn name(&self, asked: &str) -> Result<&str> {
        if asked.is_empty() {
            return Ok(&self.first);
        }
        if let Some(name) = self.places.keys().find(|n| n.eq_ignore_ascii_case(asked)) {
            return Ok(name);
        }
        let error = tweedie::Error::unknown("model", asked, self.names());
        Err(Refusal { kind: Kind::NotFound, ..Refusal::from(error) })
    }

    /// Whether a model is open at the moment.
    pub fn is_open(&self, name: &str) -> bool {
        // One that is being opened is not open yet.
        let entry = self.entries.get(name).and_then(|e| e.try_lock().ok());
        entry.is_some_and(|e| e.open.is_some())
    }

    /// Bytes of the weights of open models, and how many there are.
    pub fn held(&self) -> (u64, usize) {
        let open = self.entries.values().filter_map(|e| e.try_lock().ok());
        open.filter_map(|e| e.open.as_ref().map(|o| o.bytes))
            .fold((0, 0), |(sum, count), bytes| (sum + bytes, count + 1))
    }

    /// What is known of a model; it is opened for that once.
    ///
    /// # Errors
    ///
    /// As [`Library::open`].
    pub fn facts(&self, name: &str) -> Result<&Facts> {
        let Some(cell) = self.facts.get(name) else {
            return Err(self.name(name).map_or_else(|e| e, |_| Refusal::internal(name)));
        };
        if let Some(facts) = cell.get() {
            return Ok(facts);
        }
        let facts = self.open(name)?.facts.clone();
        Ok(cell.get_or_init(|| facts))
    }

    /// What is known of a model that has been opened before.
    pub fn known(&self, name: &str) -> Option<&Facts> {
        self.facts.get(name).and_then(OnceLock::get)
    }

    /// The model of that name, open. Others are closed where its weights need the room and nobody
    /// uses them.
    ///
    /// # Errors
    ///
    /// What opening it says.
    pub fn open(&self, name: &str) -> Result<Arc<Opened>> {
        let Some(entry) = self.entries.get(name) else {
            return Err(Refusal::new(Kind::NotFound, format!("no model is called `{name}`")));
        };
        let mut entry = lock(entry);
        entry.used = Some(Instant::now());
        if let Some(open) = &entry.open {
            return Ok(open.clone());
        }
        let opened = Arc::new(self.opened(name)?);
        entry.open = Some(opened.clone());
        Ok(opened)
    }

    fn opened(&self, name: &str) -> Result<Opened> {
        let place = self.places.get(name).map_or(name, String::as_str);
        let ours = |e: tweedie::Error| {
            // What is wrong with a model here is no fault of the request.
            Refusal { kind: Kind::Internal, ..Refusal::from(e) }
        };
        let folder = Parts::new(place).open().map_err(ours)?.folder;
        let needs = Needs::of(&folder, &Spec::default()).map_err(ours)?;
        let wanted = needs.weights + needs.text;
        self.make_room(name, wanted);
        tracing::info!("opening {name} ({})", bytes(wanted));
        let mut model = self.engine.open_folder(folder).map_err(ours)?;
        let words = self.embeddings();
        if !words.is_empty()
            && let Ok(with) = model.with_embeddings(&words)
        {
            model = with;
        }
        let hash = self.engine.hash(&model).map_err(ours)?.to_owned();
        let facts = Facts {
            text: model.text.is_some(),
            classes: model.classes.as_ref().map(|c| c.names.clone()),
            size: model.picture_size(),
            multiple: model.multiple(),
            spec: model.spec(),
            hash,
        };
        // Rows of its natural size, those of guidance included.
        let rows = 4 * needs.batch(MemoryMode::Auto);
        let room = rows * model.shape.iter().product::<usize>();
        Ok(Opened {
            name: name.to_owned(),
            table: table(&self.engine, &model, room).map_err(ours)?,
            model,
            facts,
            bytes: wanted,
            prompts: Mutex::default(),
        })
    }

    /// Closes models that nobody uses, the one that was used longest ago first, until `wanted` more
    /// bytes fit the budget.
    fn make_room(&self, name: &str, wanted: u64) {
        loop {
            let (held, _) = self.held();
            if held + wanted <= self.budget {
                return;
            }
            let mut oldest: Option<(Instant, &str)> = None;
            for (other, entry) in self.entries.iter().filter(|(n, _)| *n != name) {
                let Ok(entry) = entry.try_lock() else { continue };
                let Some(open) = &entry.open else { continue };
                let Some(used) = entry.used else { continue };
                // Ours is the only handle where nobody uses it.
                if Arc::strong_count(open) == 1 && oldest.is_none_or(|(at, _)| used < at) {
                    oldest = Some((used, other));
                }
            }
            let Some((_, oldest)) = oldest else { return };
            tracing::info!("closing {oldest}");
            if let Some(Ok(mut entry)) = self.entries.get(oldest).map(Mutex::try_lock) {
                entry.open = None;
            }
        }
    }

    /// The names of what prompts may name: `loras` or `embeddings`.
    pub fn beside(&self, kind: &str) -> Vec<String> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let mut names: Vec<String> = files(&folder.join(kind))
            .iter()
            .filter_map(|f| f.file_stem().map(|s| s.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn embeddings(&self) -> Vec<Embedding> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let open = |file: &PathBuf| Embedding::open(file, None).ok();
        files(&folder.join("embeddings")).iter().filter_map(open).collect()
    }

    /// The model with the LoRAs that the prompts or the record name; `None` where they name none.
    ///
    /// # Errors
    ///
    /// A name that no file goes by; a LoRA that is not the recorded one, or does not fit.
    pub fn adapted(&self, opened: &Opened, spec: &Spec) -> Result<Option<Model>> {
        let recorded = spec.loras.iter().map(|l| Tag { name: l.name.clone(), weight: l.weight });
        let mut wanted: Vec<Tag> = recorded.collect();
        wanted.extend(tags(&spec.prompt)?.1);
        wanted.extend(tags(&spec.negative)?.1);
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut loras: Vec<(Lora, f64)> = Vec::new();
        let known = self.beside("loras");
        for tag in &wanted {
            if loras.iter().any(|(lora, _)| lora.name() == tag.name) {
                continue;
            }
            // Only names that were found in the folder reach the file system.
            let file = match known.contains(&tag.name) {
                true => self.folder.iter().flat_map(|f| files(&f.join("loras"))).find(|f| {
                    f.file_stem().is_some_and(|s| s.to_string_lossy() == tag.name.as_str())
                }),
                false => None,
            };
            let Some(file) = file else {
                let names = known.iter().map(String::as_str);
                let error = tweedie::Error::unknown("lora", &tag.name, names);
                return Err(Refusal { param: Some("prompt".into()), ..Refusal::from(error) });
            };
            let lora = Lora::open(&file)?;
            let same = |l: &LoraUse| l.name != tag.name || l.hash == lora.hash();
            if !spec.loras.iter().all(same) {
                let why = format!("loras: `{}` here is not the recorded one", tag.name);
                return Err(Refusal::field("loras", why));
            }
            loras.push((lora, tag.weight));
        }
        let weighed: Vec<(&Lora, f64)> = loras.iter().map(|(l, w)| (l, *w)).collect();
        Ok(Some(opened.model.with_loras(&weighed, false)?.0))
    }
}

/// A name without folders: clients see no paths.
fn short(place: &str) -> String {
    if place.starts_with("builtin:") {
        return place.to_owned();
    }
    let path = Path::new(place);
    let name = if path.is_file() { path.file_stem() } else { path.file_name() };
    // Of `org/name` in the local cache the last part.
    name.map_or_else(|| place.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn found_in(folder: &Path) -> Result<Vec<(String, String)>> {
    if !folder.is_dir() {
        return Err(Refusal::field("models", format!("{}: is no folder", folder.display())));
    }
    let mut found = Vec::new();
    for below in BELOW {
        let at = folder.join(below);
        for file in files(&at) {
            found.push((short(&file.to_string_lossy()), file.to_string_lossy().into_owned()));
        }
        for inner in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = inner.path();
            if path.join("model_index.json").is_file() {
                found.push((short(&path.to_string_lossy()), path.to_string_lossy().into_owned()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The files of weights right in a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let is = |p: &PathBuf| {
        let ending = p.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        p.is_file() && ENDINGS.contains(&ending.as_str())
    };
    let inside = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let mut list: Vec<PathBuf> = inside.filter(is).collect();
    list.sort();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(budget: u64) -> Library {
        let engine = Arc::new(Engine::cpu(1).unwrap());
        let models = ["builtin:fashion".to_owned(), "builtin:shapes".to_owned()];
        Library::new(engine, &models, None, Some(budget)).unwrap()
    }

    #[test]
    fn models_are_found_by_name_and_never_by_path() {
        let library = library(1 << 30);
        assert_eq!(library.names().collect::<Vec<_>>(), ["builtin:fashion", "builtin:shapes"]);
        assert_eq!(library.name("").unwrap(), "builtin:fashion");
        assert_eq!(library.name("BUILTIN:shapes").unwrap(), "builtin:shapes");
        for bad in ["builtin:shape", "/etc/passwd", "../models", "builtin:fashion-judge"] {
            assert_eq!(library.name(bad).unwrap_err().status(), 404, "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("checkpoints")).unwrap();
        std::fs::create_dir_all(dir.path().join("loras")).unwrap();
        std::fs::write(dir.path().join("checkpoints/old.safetensors"), b"x").unwrap();
        std::fs::write(dir.path().join("loras/ink.safetensors"), b"x").unwrap();
        std::fs::write(dir.path().join("notes.txt"), b"x").unwrap();
        let engine = Arc::new(Engine::cpu(1).unwrap());
        let library = Library::new(engine.clone(), &[], Some(dir.path()), None).unwrap();
        assert_eq!(library.names().collect::<Vec<_>>(), ["old"]);
        assert_eq!(library.beside("loras"), ["ink"]);
        assert_eq!(library.open("old").err().unwrap().status(), 500, "a broken file of ours");
        assert!(Library::new(engine, &[], None, None).is_err());
    }

    #[test]
    fn the_model_that_was_used_longest_ago_makes_room() {
        let library = library(1);
        let first = library.open("builtin:fashion").unwrap();
        library.open("builtin:shapes").unwrap();
        assert!(library.is_open("builtin:fashion"), "it is in use");
        drop(first);
        library.entries["builtin:shapes"].lock().unwrap().open = None;
        library.open("builtin:shapes").unwrap();
        assert!(!library.is_open("builtin:fashion") && library.is_open("builtin:shapes"));
        assert_eq!(library.held().1, 1);
        assert!(library.known("builtin:fashion").is_none());
        assert!(library.facts("builtin:fashion").unwrap().classes.is_some());
        assert!(library.known("builtin:fashion").is_some());
    }
}
