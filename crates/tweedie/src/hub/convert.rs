//! Models from one layout into another: folders, single files, and narrower numbers.
//!
//! Numbers that keep their type keep their bits; a folder and the single file made of it hold the same
//! tensors, bit for bit. A single file has no place for settings, so they go into its header (under
//! `tweedie.config`), where other programs pass over them.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::folder::{Component, Folder, INDEX, STEMS};
use super::json::{one_line, text};
use super::layout::{Names, UNet, Vae, to_open_clip};
use super::save::write_set;
use super::single::SETTINGS;
use super::tensor_set::{Edit, TensorSet};
use super::vocabulary::ClipVocabulary;
use super::{Dtype, atomic, config};
use crate::{Error, Result};

/// What a model is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A folder as diffusers lays it out.
    Folder,
    /// A single file in the original layout of its family.
    File,
}

/// Writes a model to `path`, whole or not at all; what was there before is replaced. Real numbers are
/// stored as `dtype` (f32, f16, bf16, or fp8 E4M3 or E5M2), or as they are. What comes back are notes
/// on what the target has no place for, a line each.
///
/// ```no_run
/// use std::path::Path;
/// use tweedie::hub::{Dtype, Folder, Target, convert};
///
/// let model = Folder::resolve("v1-5-pruned.safetensors")?;
/// convert(&model, Path::new("v1-5"), Target::Folder, Some(Dtype::F16))?;
/// # Ok::<(), tweedie::Error>(())
/// ```
///
/// # Errors
/// A component cannot be read, a finite number is beyond the range of `dtype`, the family has no
/// single-file layout here, or the system refuses.
pub fn convert(
    model: &Folder,
    path: &Path,
    target: Target,
    dtype: Option<Dtype>,
) -> Result<Vec<String>> {
    match target {
        Target::Folder => to_folder(model, path, dtype),
        Target::File => to_file(model, path, dtype),
    }
}

/// The settings of a component as its file holds them.
fn settings(component: &Component) -> Map<String, Value> {
    let mut map = component.config.clone();
    if config::is_transformers(&component.class) {
        map.entry("architectures").or_insert_with(|| json!([component.class]));
        map.entry("model_type").or_insert_with(|| json!("clip_text_model"));
    } else {
        map.entry("_class_name").or_insert_with(|| json!(component.class));
        map.entry("_diffusers_version").or_insert_with(|| json!(config::DIFFUSERS));
    }
    map
}

fn to_folder(model: &Folder, path: &Path, dtype: Option<Dtype>) -> Result<Vec<String>> {
    let names: Vec<String> = model.components().map(str::to_owned).collect();
    let components = names.iter().map(|n| model.component(n)).collect::<Result<Vec<_>>>()?;
    atomic::write_folder(path, |fresh| {
        for component in &components {
            let at = fresh.join(&component.name);
            std::fs::create_dir_all(&at).map_err(Error::io(&at))?;
            write_component(component, &at, dtype)?;
        }
        let Some(index) = model.index() else { return Ok(()) };
        let file = fresh.join(INDEX);
        std::fs::write(&file, text(&index.to_json())).map_err(Error::io(&file))
    })?;
    Ok(Vec::new())
}

fn write_component(component: &Component, at: &Path, dtype: Option<Dtype>) -> Result<()> {
    let put = |name: &str, text: &str| {
        let file = at.join(name);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        std::fs::write(&file, text).map_err(Error::io(&file))
    };
    // Vocabularies, settings, cards: every text that is no list of shards.
    let kept = ["json", "txt", "md"];
    let mut has_settings = false;
    for name in component.files()? {
        let ends = Path::new(&name).extension().and_then(|e| e.to_str()).unwrap_or_default();
        if kept.contains(&ends) && !name.contains(".index.") {
            has_settings |= name == "config.json" || name == "scheduler_config.json";
            put(&name, &component.text(&name)?)?;
        }
    }
    if !component.config.is_empty() && (!has_settings || component.overrides()) {
        let scheduler = component.class.ends_with("Scheduler");
        let name = if scheduler { "scheduler_config.json" } else { "config.json" };
        put(name, &text(&settings(component)))?;
    }
    if component.has_weights() {
        let stem = STEMS[usize::from(config::is_transformers(&component.class))];
        let file = at.join(format!("{stem}.safetensors"));
        write_set(&file, &component.tensors()?, dtype, &[])?;
    }
    Ok(())
}

fn to_file(model: &Folder, path: &Path, dtype: Option<Dtype>) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let mut kept = Map::new();
    let mut all = TensorSet::empty(model.name());
    if let Some(index) = model.index() {
        // What a folder leaves out on purpose a file leaves out anyway.
        let index = super::ModelIndex { absent: Vec::new(), ..index.clone() };
        kept.insert("model_index".to_owned(), Value::Object(index.to_json()));
    }
    let names: Vec<String> = model.components().map(str::to_owned).collect();
    let components = names.iter().map(|n| model.component(n)).collect::<Result<Vec<_>>>()?;
    let places = places(&components);
    for component in &components {
        let key = if component.name.is_empty() { "model" } else { component.name.as_str() };
        if component.name.starts_with("tokenizer") {
            if !is_published(component) {
                notes.push(format!(
                    "the vocabulary of `{key}` is not CLIP's: a single file has no place for it, give it with --tokenizer"
                ));
            }
            continue;
        }
        if !component.has_weights() {
            if !component.config.is_empty() {
                kept.insert(key.to_owned(), Value::Object(settings(component)));
            }
            continue;
        }
        let Some(place) = places.iter().find(|p| p.name == component.name) else {
            let why = "a single file of its family has no place for it: left out";
            notes.push(format!("`{}` ({}): {why}", one_line(key), one_line(&component.class)));
            continue;
        };
        all.add_all(place.prefix, &original(component, place.fused)?)?;
        kept.insert(key.to_owned(), Value::Object(settings(component)));
    }
    if all.is_empty() || (places.is_empty() && !components.is_empty()) {
        let needs = "a model of the Stable Diffusion family for a single file";
        return Err(Error::unsupported(one_line(model.name()), needs));
    }
    let told = sorted(Value::Object(kept)).to_string();
    write_set(path, &all, dtype, &[(SETTINGS, &told)])?;
    Ok(notes)
}

/// The same with the keys of all objects in order, so that one model gives one file.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(k, v)| (k, sorted(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// Where a component stands in a single file.
struct Place {
    name: String,
    prefix: &'static str,
    /// The text encoder is in the names of OpenCLIP.
    fused: bool,
}

/// The places of a model's components in the layout of its family.
fn places(components: &[Component]) -> Vec<Place> {
    let place = |name: &str, prefix, fused| Place { name: name.to_owned(), prefix, fused };
    if let [only] = components
        && only.name.is_empty()
    {
        let control = only.class == "ControlNetModel";
        return vec![place("", if control { "control_model." } else { "" }, false)];
    }
    let unet = components.iter().find(|c| c.name == "unet" && c.class == "UNet2DConditionModel");
    let Some(unet) = unet else { return Vec::new() };
    let is = |key: &str, value: Value| unet.config.get(key) == Some(&value);
    let mut out = vec![
        place("unet", "model.diffusion_model.", false),
        place("vae", "first_stage_model.", false),
    ];
    let has = |name: &str| components.iter().any(|c| c.name == name);
    if is("addition_embed_type", json!("text_time")) {
        if has("text_encoder") {
            out.push(place("text_encoder", "conditioner.embedders.0.transformer.", false));
            out.push(place("text_encoder_2", "conditioner.embedders.1.model.", true));
        } else {
            out.push(place("text_encoder_2", "conditioner.embedders.0.model.", true));
        }
    } else if is("use_linear_projection", json!(true)) {
        out.push(place("text_encoder", "cond_stage_model.model.", true));
    } else {
        out.push(place("text_encoder", "cond_stage_model.transformer.", false));
    }
    out
}

/// The tensors of a component in its original layout.
fn original(component: &Component, fused: bool) -> Result<TensorSet> {
    let set = component.tensors()?;
    match component.class.as_str() {
        "UNet2DConditionModel" | "ControlNetModel" => {
            renamed(&set, &UNet::usual(&set)?.names().reversed())
        }
        "AutoencoderKL" => renamed(&set, &Vae::usual(&set)?.names().reversed()),
        _ if fused => to_open_clip(&set),
        _ => Ok(set),
    }
}

/// A set under original names. An autoencoder's middle attends through 1x1 convolutions there.
fn renamed(set: &TensorSet, names: &Names) -> Result<TensorSet> {
    let mut out = set.bare();
    for name in set.names() {
        let to = names.translate(name).ok_or_else(|| {
            let why = "the original layout has no name for it";
            Error::format(set.name(), one_line(name), why)
        })?;
        let shape = set.shape_of(name).unwrap_or_default();
        let edit = match *shape {
            [a, b] if to.contains(".mid.attn_1.") => Edit::Shape(vec![a, b, 1, 1]),
            _ => Edit::Keep,
        };
        out.add(to, set, name, &edit)?;
    }
    Ok(out)
}

/// Whether a tokenizer's vocabulary is CLIP's, which every reader of single files has.
fn is_published(tokenizer: &Component) -> bool {
    let known = |of: &str| {
        super::ClipTokenizer::read(tokenizer)
            .is_ok_and(|t| t.vocab_size() == 49408 && t.ids(of).is_ok())
    };
    // The same words and the same size: the merges are compared where they are a file of their own.
    let Ok(published) = ClipVocabulary::published() else { return false };
    match tokenizer.text("merges.txt") {
        Ok(merges) => {
            let own = |text: &str| -> Vec<String> {
                text.lines()
                    .filter(|l| !l.starts_with("#version") && !l.is_empty())
                    .map(str::to_owned)
                    .collect()
            };
            let files = published.files(77);
            files.iter().any(|(name, text)| *name == "merges.txt" && own(text) == own(&merges))
        }
        Err(_) => known("a"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{ModelFolder, Output, Parts};
    use crate::model::config::AutoencoderKlConfig;

    #[test]
    fn what_has_no_single_file_is_said() {
        let root = tempfile::tempdir().unwrap();
        let weights = vec![Output::f32("a", &[1], &[0.5], Dtype::F32)];
        let model = root.path().join("model");
        ModelFolder::new("X")
            .network("vae", &AutoencoderKlConfig::default(), weights)
            .unwrap()
            .write(&model)
            .unwrap();
        let folder = Parts::new(model.to_str().unwrap()).open().unwrap().folder;
        let to = root.path().join("m.safetensors");
        let error = convert(&folder, &to, Target::File, None).unwrap_err().to_string();
        assert!(error.contains("Stable Diffusion family"), "{error}");
        assert!(!to.exists());
        let copy = root.path().join("copy");
        convert(&folder, &copy, Target::Folder, Some(Dtype::F16)).unwrap();
        let folder = Folder::open(&copy).unwrap();
        let vae = folder.component("vae").unwrap();
        assert_eq!(vae.tensors().unwrap().info("a").unwrap().dtype, Dtype::F16);
        assert_eq!(vae.config["latent_channels"], 4);
    }
}
