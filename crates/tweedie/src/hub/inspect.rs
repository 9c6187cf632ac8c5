//! What is in a model folder or file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::config;
use super::folder::{Component, Folder};
use super::json::one_line;
use super::parts::{Missing, Parts};
use super::scheduler::{SchedulerClass, SchedulerConfig};
use super::tensor_set::{TensorSet, Wanted};
use crate::Result;
use crate::model::config::{
    AutoencoderKlConfig, AutoencoderTinyConfig, ClipTextConfig, Config, ControlNetConfig,
    DitConfig, PixArtConfig, Transformer2DConfig, UNet2DConditionConfig, UNet2DConfig,
};
use crate::weight::Misfit;

/// What a model folder or file is.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was looked at.
    pub name: String,
    /// The pipeline's class; empty for a single component or file.
    pub class: String,
    /// What it is, in words: `Stable Diffusion XL`.
    pub what: String,
    /// Its parts.
    pub parts: Vec<Part>,
    /// What was decided that the files do not say, and which parts come from elsewhere; a line each.
    pub notes: Vec<String>,
    /// Parts that it needs and that were found nowhere, with the places that were looked at.
    pub missing: Vec<Missing>,
    /// Components that the index leaves out on purpose.
    pub absent: Vec<String>,
    /// Parameters of all parts.
    pub parameters: usize,
    /// Bytes of all parts' weights.
    pub bytes: usize,
}

/// One component, or one file of weights.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Part {
    /// Its name; empty for a single component or file.
    pub name: String,
    /// Its class; empty where nothing says.
    pub class: String,
    /// The settings that differ from the class's defaults, or all of them for an unknown class.
    pub settings: Map<String, Value>,
    /// Its parameters: the numbers in its weights.
    pub parameters: usize,
    /// Its tensors.
    pub tensors: usize,
    /// Bytes of its weights; what else is in their files is not counted.
    pub bytes: usize,
    /// Tensors of each dtype.
    pub dtypes: BTreeMap<String, usize>,
    /// What the writer of the weights left in their header.
    pub metadata: BTreeMap<String, String>,
    /// Every tensor: name, dtype and shape.
    pub listing: Vec<Tensor>,
    /// What is wrong with it, a line each; empty where all is well.
    pub problems: Vec<String>,
    /// Whether this class can be run here.
    pub supported: bool,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// How its numbers are stored: `F16`.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// What a network of this class with these settings wants, as far as the caller can say: the class
/// and the settings of a component in, its tensors out.
pub type Wants<'a> = dyn Fn(&str, &Map<String, Value>) -> Option<Result<Vec<Wanted>>> + 'a;

/// What `path` is: a model folder, a single component's folder, a file of weights (or the index of
/// several), or what else [`Parts`] opens. `wants` says which tensors a network needs; without an
/// answer the weights are listed and not compared.
///
/// # Errors
/// There is nothing there, it is none of these, or a file cannot be read at all. What is wrong or
/// missing is listed among the [problems](Part::problems) and in [`missing`](Report::missing) instead,
/// all of it.
pub fn inspect(path: impl AsRef<Path>, wants: &Wants<'_>) -> Result<Report> {
    inspect_parts(&Parts::new(path.as_ref().display().to_string()), wants)
}

/// As [`inspect`], with parts from elsewhere.
///
/// # Errors
/// As there.
pub fn inspect_parts(parts: &Parts, wants: &Wants<'_>) -> Result<Report> {
    let path = Path::new(parts.name());
    let error = match parts.look() {
        Ok(opened) => {
            let mut report = inspect_folder(&opened.folder, wants)?;
            report.what = opened.what;
            report.notes = opened.notes;
            report.missing = opened.missing;
            return Ok(report);
        }
        Err(error) if path.is_file() => error,
        Err(error) => return Err(error),
    };
    // A file of weights that is none of the known networks is listed all the same.
    let set = TensorSet::open(path)?;
    let mut part = Part { supported: false, ..Part::default() };
    part.weigh(&set);
    let mut report = Report::new(path.display().to_string(), String::new(), vec![part], Vec::new());
    report.notes.push(error.to_string());
    Ok(report)
}

/// What a model folder is, one in the binary too; see [`inspect`].
///
/// # Errors
/// None today: what is wrong inside the folder is listed.
pub fn inspect_folder(folder: &Folder, wants: &Wants<'_>) -> Result<Report> {
    let names: Vec<String> = folder.components().map(str::to_owned).collect();
    let parts = names.iter().map(|name| inspect_part(folder, name, wants)).collect();
    let (class, absent) =
        folder.index().map(|i| (i.class.clone(), i.absent.clone())).unwrap_or_default();
    Ok(Report::new(folder.name().to_owned(), class, parts, absent))
}

fn inspect_part(folder: &Folder, name: &str, wants: &Wants<'_>) -> Part {
    let mut part = Part { name: name.to_owned(), ..Part::default() };
    let component = match folder.component(name) {
        Ok(component) => component,
        Err(error) => {
            part.problems.push(error.to_string());
            return part;
        }
    };
    part.class.clone_from(&component.class);
    match settings(&component) {
        Ok((settings, supported)) => {
            part.settings = settings;
            part.supported = supported;
        }
        Err(error) => part.problems.push(error.to_string()),
    }
    let weightless = part.class.ends_with("Scheduler")
        || ["Tokenizer", "Processor", "Extractor", "TokenizerFast"]
            .iter()
            .any(|end| part.class.ends_with(end));
    if weightless && !component.has_weights() {
        if part.class == "CLIPTokenizer" {
            part.supported = true;
            let read = super::ClipTokenizer::read(&component);
            part.problems.extend(read.err().map(|e| e.to_string()));
        }
        return part;
    }
    match component.tensors() {
        Err(error) => part.problems.push(error.to_string()),
        Ok(set) => {
            part.weigh(&set);
            match wants(&component.class, &component.config) {
                None => {}
                Some(Err(error)) => part.problems.push(error.to_string()),
                Some(Ok(wanted)) => part.compare(&set, &set.compare(&wanted)),
            }
        }
    }
    part
}

/// Reads the settings of a component as those of one class.
type ReadSettings = fn(&Component) -> Result<Map<String, Value>>;

/// The settings worth showing, and whether the class can be run here.
fn settings(component: &Component) -> Result<(Map<String, Value>, bool)> {
    fn changed<C: Config>(component: &Component) -> Result<Map<String, Value>> {
        let (found, default) =
            (config::fields(&config::read::<C>(component)?), config::fields(&C::default()));
        Ok(found.into_iter().filter(|(k, v)| default.get(k) != Some(v)).collect())
    }
    let known: &[(&str, ReadSettings)] = &[
        (UNet2DConfig::CLASS, changed::<UNet2DConfig>),
        (UNet2DConditionConfig::CLASS, changed::<UNet2DConditionConfig>),
        (ControlNetConfig::CLASS, changed::<ControlNetConfig>),
        (DitConfig::CLASS, changed::<DitConfig>),
        (PixArtConfig::CLASS, changed::<PixArtConfig>),
        (Transformer2DConfig::CLASS, changed::<Transformer2DConfig>),
        (AutoencoderKlConfig::CLASS, changed::<AutoencoderKlConfig>),
        (AutoencoderTinyConfig::CLASS, changed::<AutoencoderTinyConfig>),
        (ClipTextConfig::CLASS, changed::<ClipTextConfig>),
        (ClipTextConfig::WITH_PROJECTION, changed::<ClipTextConfig>),
    ];
    let class = component.class.as_str();
    if let Some((_, read)) = known.iter().find(|(name, _)| *name == class) {
        return Ok((read(component)?, true));
    }
    if let Some(kind) = SchedulerClass::ALL.into_iter().find(|c| c.name() == class) {
        let (found, default) =
            (SchedulerConfig::read(component)?.to_json(), SchedulerConfig::new(kind).to_json());
        let differs = |(k, v): &(String, Value)| default.get(k) != Some(v);
        return Ok((found.into_iter().filter(differs).collect(), true));
    }
    let plain = component.config.iter().filter(|(k, _)| !k.starts_with('_'));
    Ok((plain.map(|(k, v)| (k.clone(), v.clone())).collect(), false))
}

impl Part {
    fn weigh(&mut self, set: &TensorSet) {
        for file in set.files() {
            self.metadata.extend(file.metadata().clone());
        }
        for (name, info) in set.names().filter_map(|n| Some((n, set.info(n).ok()?))) {
            self.tensors += 1;
            self.parameters += info.elements();
            self.bytes += info.bytes;
            let dtype = format!("{:?}", info.dtype);
            *self.dtypes.entry(dtype.clone()).or_default() += 1;
            self.listing.push(Tensor { name: name.to_owned(), dtype, shape: info.shape });
        }
    }

    fn compare(&mut self, set: &TensorSet, misfit: &Misfit) {
        let file = set.name().display();
        let missing =
            misfit.missing.iter().map(|n| format!("{file}: `{}` is missing", one_line(n)));
        let extra = misfit.extra.iter().map(|n| format!("{file}: `{}` is not wanted", one_line(n)));
        let shapes = misfit.shapes.iter().map(|(n, wanted, found)| {
            format!("{file}: `{}` wanted {wanted:?}, found {found:?}", one_line(n))
        });
        self.problems.extend(missing.chain(shapes).chain(extra));
    }
}

impl Report {
    fn new(name: String, class: String, parts: Vec<Part>, absent: Vec<String>) -> Self {
        let parameters = parts.iter().map(|p| p.parameters).sum();
        let bytes = parts.iter().map(|p| p.bytes).sum();
        let (what, notes, missing) = (String::new(), Vec::new(), Vec::new());
        Self { name, class, what, parts, notes, missing, absent, parameters, bytes }
    }

    /// Whether nothing is missing or wrong with any part.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.parts.iter().all(|p| p.problems.is_empty())
    }

    /// The table of all tensors, a line each.
    #[must_use]
    pub fn listing(&self) -> String {
        let rows = self.parts.iter().flat_map(|p| p.listing.iter().map(move |t| (p, t)));
        let line = |(part, t): (&Part, &Tensor)| {
            let path = if part.name.is_empty() { String::new() } else { format!("{}/", part.name) };
            format!("{path}{}  {}  {:?}\n", one_line(&t.name), t.dtype, t.shape)
        };
        rows.map(line).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = if self.class.is_empty() {
            String::new()
        } else {
            format!("  {}", one_line(&self.class))
        };
        writeln!(f, "{}{class}", self.name)?;
        if !self.what.is_empty() {
            writeln!(f, "  {}", one_line(&self.what))?;
        }
        let mut rows = vec![
            ["part", "class", "parameters", "tensors", "bytes", "stored as"].map(str::to_owned),
        ];
        for part in &self.parts {
            let dtypes: Vec<String> =
                part.dtypes.iter().map(|(d, n)| format!("{d} x{n}")).collect();
            let weight = |n: usize| if part.tensors == 0 { "-".to_owned() } else { grouped(n) };
            rows.push([
                if part.name.is_empty() { "-".to_owned() } else { one_line(&part.name) },
                if part.class.is_empty() { "-".to_owned() } else { one_line(&part.class) },
                weight(part.parameters),
                weight(part.tensors),
                weight(part.bytes),
                dtypes.join(", "),
            ]);
        }
        if self.parts.len() > 1 {
            let tensors = self.parts.iter().map(|p| p.tensors).sum();
            rows.push([
                "all".to_owned(),
                String::new(),
                grouped(self.parameters),
                grouped(tensors),
                grouped(self.bytes),
                String::new(),
            ]);
        }
        let width: Vec<usize> =
            (0..6).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
        for row in &rows {
            let cells = row.iter().zip(&width).enumerate().map(|(c, (cell, w))| {
                if (2..5).contains(&c) { format!("{cell:>w$}") } else { format!("{cell:<w$}") }
            });
            writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        if !self.absent.is_empty() {
            writeln!(f, "  left out: {}", one_line(&self.absent.join(", ")))?;
        }
        for part in self.parts.iter().filter(|p| !p.settings.is_empty()) {
            let of = if part.name.is_empty() { "settings" } else { part.name.as_str() };
            writeln!(f, "  {}:", one_line(of))?;
            for (key, value) in &part.settings {
                writeln!(f, "    {} = {}", one_line(key), one_line(&value.to_string()))?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        for missing in &self.missing {
            writeln!(f, "  missing: {missing}")?;
        }
        for problem in self.parts.iter().flat_map(|p| &p.problems) {
            writeln!(f, "  problem: {problem}")?;
        }
        Ok(())
    }
}

/// A number with a comma at every third digit.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Dtype, ModelFolder, Output};
    use serde_json::json;

    fn nothing(_: &str, _: &Map<String, Value>) -> Option<Result<Vec<Wanted>>> {
        None
    }

    fn folder() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let vae = AutoencoderKlConfig { latent_channels: 8, ..AutoencoderKlConfig::default() };
        let weights = vec![
            Output::f32("a", &[2, 600], &[0.0; 1200], Dtype::F16),
            Output::f32("b", &[2], &[0.0; 2], Dtype::F32),
        ];
        ModelFolder::new("StableDiffusionPipeline")
            .network("vae", &vae, weights)
            .unwrap()
            .scheduler(&SchedulerConfig::new(SchedulerClass::DDIMScheduler))
            .unwrap()
            .without("safety_checker")
            .unwrap()
            .write(root.path().join("model"))
            .unwrap();
        root
    }

    #[test]
    fn a_folder_is_told() {
        let root = folder();
        let report = inspect(root.path().join("model"), &nothing).unwrap();
        assert!(report.is_sound());
        assert_eq!((report.parameters, report.parts.len()), (1202, 2));
        assert_eq!(report.parts[0].settings, *json!({"latent_channels": 8}).as_object().unwrap());
        let table = report.to_string();
        for says in [
            "StableDiffusionPipeline",
            "AutoencoderKL",
            "1,202",
            "F16 x1, F32 x1",
            "latent_channels = 8",
            "left out: safety_checker",
        ] {
            assert!(table.contains(says), "{says}: {table}");
        }
        assert_eq!(report.listing(), "vae/a  F16  [2, 600]\nvae/b  F32  [2]\n");
        assert!(serde_json::to_string(&report).unwrap().contains("\"parameters\":1202"));
        let file = root.path().join("model/vae/diffusion_pytorch_model.safetensors");
        let file = inspect(file, &nothing).unwrap();
        // A file of the usual name is told by the settings beside it.
        assert_eq!((file.parameters, file.parts[0].class.as_str()), (1202, "AutoencoderKL"));
        let odd = root.path().join("odd.safetensors");
        let one = [Output::f32("a", &[2], &[0.5, 1.0], Dtype::F32)];
        crate::hub::write_safetensors(&odd, &one, &BTreeMap::new()).unwrap();
        let odd = inspect(odd, &nothing).unwrap();
        assert_eq!((odd.parameters, odd.notes.len()), (2, 1));
    }

    #[test]
    fn everything_that_is_wrong_is_listed() {
        let root = folder();
        let model = root.path().join("model");
        let wants = |class: &str, _: &Map<String, Value>| {
            (class == "AutoencoderKL")
                .then(|| Ok(vec![Wanted::new("b", [3]), Wanted::new("c", [1])]))
        };
        std::fs::write(model.join("scheduler/scheduler_config.json"), "{\"beta_strt\":1}").unwrap();
        let report = inspect(&model, &wants).unwrap();
        let problems: Vec<&String> = report.parts.iter().flat_map(|p| &p.problems).collect();
        assert_eq!(problems.len(), 4, "{problems:?}");
        for (problem, says) in problems.iter().zip([
            "`c` is missing",
            "`b` wanted [3], found [2]",
            "`a` is not wanted",
            "beta_strt",
        ]) {
            assert!(problem.contains(says), "{problem}");
        }
        std::fs::write(model.join("vae/diffusion_pytorch_model.safetensors"), "short").unwrap();
        let report = inspect(&model, &wants).unwrap();
        assert!(report.parts[0].problems[0].contains("not even a header"));
        assert!(inspect(root.path().join("none"), &nothing).is_err());
        assert!(inspect(root.path(), &nothing).is_err());
    }
}
