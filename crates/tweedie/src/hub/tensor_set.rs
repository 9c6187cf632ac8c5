//! The weights of a component: one safetensors file, or shards under an index, as one set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::json::{escape, one_line};
use super::tensors::{Dtype, TensorFile, TensorInfo};
use crate::weight::{self, Half, Misfit, Numbers, Parameters, Source};
use crate::{Error, Result};

/// The most shards a set may have.
const MAX_SHARDS: usize = 1000;

/// A tensor that a network wants: its name and shape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
}

impl Wanted {
    /// A wanted tensor.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into() }
    }
}

/// The weights of a component. Cloning shares the files.
#[derive(Clone, Debug)]
pub struct TensorSet {
    name: PathBuf,
    files: Vec<TensorFile>,
    /// Which file holds each tensor, and under which name.
    place: BTreeMap<String, (usize, String)>,
}

impl From<TensorFile> for TensorSet {
    fn from(file: TensorFile) -> Self {
        let place = file.names().map(|n| (n.to_owned(), (0, n.to_owned()))).collect();
        Self { name: file.name().to_owned(), files: vec![file], place }
    }
}

impl TensorSet {
    /// Opens a safetensors file, or the shards under an index (`*.safetensors.index.json`).
    ///
    /// # Errors
    /// Those of [`TensorFile::open`]; an index that names a file outside its folder, or that and
    /// its shards disagree about a tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.extension().is_none_or(|e| e != "json") {
            return Ok(TensorFile::open(path)?.into());
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let index = std::fs::read(path).map_err(Error::io(path))?;
        Self::from_index(path, &index, |shard| TensorFile::open(folder.join(shard)))
    }

    /// Opens the shards that an index names; `open` opens a shard by its file name.
    pub(crate) fn from_index(
        path: &Path,
        index: &[u8],
        open: impl Fn(&str) -> Result<TensorFile>,
    ) -> Result<Self> {
        let index = super::json::object(path, index)?;
        let Some(Value::Object(map)) = index.get("weight_map") else {
            return Err(Error::format(path, "weight_map", "wanted an object of file names"));
        };
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in map {
            let plain = shard.as_str().filter(|s| {
                !s.is_empty()
                    && s.len() < 256
                    && !s.contains(['/', '\\', '\0', ':'])
                    && !s.starts_with('.')
            });
            let Some(shard) = plain else {
                let why = format!(
                    "wanted the name of a file beside the index, found {}",
                    one_line(&shard.to_string())
                );
                return Err(Error::format(path, one_line(tensor), why));
            };
            shards.entry(shard).or_default().push(tensor);
        }
        if shards.len() > MAX_SHARDS {
            let why = format!("{} shards, the limit is {MAX_SHARDS}", shards.len());
            return Err(Error::format(path, "weight_map", why));
        }
        let mut set = Self { name: path.to_owned(), files: Vec::new(), place: BTreeMap::new() };
        for (shard, tensors) in shards {
            let file = open(shard)?;
            for name in tensors {
                if !file.contains(name) {
                    let why = format!("the index places it in {shard}, which has no such tensor");
                    return Err(Error::format(path, one_line(name), why));
                }
                set.place.insert(name.to_owned(), (set.files.len(), name.to_owned()));
            }
            if let Some(name) = file.names().find(|n| !map.contains_key(*n)) {
                let why = format!("{shard} holds this tensor, the index does not name it");
                return Err(Error::format(path, one_line(name), why));
            }
            set.files.push(file);
        }
        Ok(set)
    }

    /// The path of the file or the index, or the name that stands for it.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The files of the set.
    #[must_use]
    pub fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.place.keys().map(String::as_str)
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.place.len()
    }

    /// Whether there is no tensor at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.place.is_empty()
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.place.contains_key(name)
    }

    /// How many bytes the files take, their headers included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.files.iter().map(TensorFile::size).sum()
    }

    /// Dtype and shape of the tensor `name`.
    ///
    /// # Errors
    /// There is no such tensor; the error names the nearest ones.
    pub fn info(&self, name: &str) -> Result<TensorInfo> {
        self.at(name).and_then(|(file, name)| file.info(name))
    }

    /// The tensor `name` as `f32`; see [`TensorFile::read_f32`].
    ///
    /// # Errors
    /// As there.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.at(name).and_then(|(file, name)| file.read_f32(name))
    }

    /// The tensor `name` as `i64`; see [`TensorFile::read_i64`].
    ///
    /// # Errors
    /// As there.
    pub fn read_i64(&self, name: &str) -> Result<Vec<i64>> {
        self.at(name).and_then(|(file, name)| file.read_i64(name))
    }

    /// The stored bytes of the tensor `name`.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn raw(&self, name: &str) -> Result<&[u8]> {
        self.at(name).and_then(|(file, name)| file.raw(name))
    }

    /// The tensor `name` as `f32`, if it has the wanted shape.
    ///
    /// # Errors
    /// Those of [`read_f32`](Self::read_f32), or another shape.
    pub fn read_shaped(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let found = self.info(name)?.shape;
        if found != shape {
            let why = format!("wanted shape {shape:?}, found {found:?}");
            return Err(Error::format(&self.name, one_line(name), why));
        }
        self.read_f32(name)
    }

    /// How the set differs from what is wanted: everything at once.
    #[must_use]
    pub fn compare(&self, wanted: &[Wanted]) -> Misfit {
        let by_name: BTreeMap<&str, &Wanted> = wanted.iter().map(|w| (&*w.name, w)).collect();
        let mut misfit = Misfit::default();
        for (name, want) in &by_name {
            match self.shape(name) {
                None => misfit.missing.push((*name).to_owned()),
                Some(found) if found != want.shape => {
                    misfit.shapes.push(((*name).to_owned(), want.shape.clone(), found));
                }
                Some(_) => {}
            }
        }
        misfit.extra =
            self.names().filter(|n| !by_name.contains_key(n)).map(str::to_owned).collect();
        misfit
    }

    /// Checks that the set is exactly what is wanted.
    ///
    /// # Errors
    /// It is not; the one error names all kinds of misfit, the first few of each kind, and counts
    /// the rest.
    pub fn check(&self, wanted: &[Wanted]) -> Result<()> {
        self.fits(&self.compare(wanted))
    }

    fn fits(&self, misfit: &Misfit) -> Result<()> {
        if misfit.is_empty() {
            return Ok(());
        }
        // The names are a stranger's.
        Err(Error::format(&self.name, "", escape(&misfit.summary())))
    }

    /// The set under other names: `rename` gives each tensor its new name, or `None` to leave it
    /// out. (The same weights go by several names: transformers 4 writes `text_model.embeddings…`
    /// where transformers 5 writes `embeddings…`.)
    ///
    /// # Errors
    /// Two tensors get one name.
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut place = BTreeMap::new();
        for (name, at) in &self.place {
            let Some(new) = rename(name) else { continue };
            if place.insert(new.clone(), at.clone()).is_some() {
                let why = format!("two tensors stand for it, the second is `{}`", one_line(name));
                return Err(Error::format(&self.name, one_line(&new), why));
            }
        }
        Ok(Self { place, ..self.clone() })
    }

    fn at(&self, name: &str) -> Result<(&TensorFile, &str)> {
        let found = self
            .place
            .get(name)
            .and_then(|(file, stored)| Some((self.files.get(*file)?, stored.as_str())));
        found.ok_or_else(|| {
            let kind = format!("tensor of {}", self.name.display());
            Error::unknown(kind, &one_line(name), self.names().filter(|n| n.len() <= 160))
        })
    }
}

impl Source for TensorSet {
    fn names(&self) -> Vec<String> {
        self.place.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.place.contains_key(name).then(|| self.info(name).ok().map(|i| i.shape))?
    }

    /// Sixteen-bit numbers stay as they are, everything else becomes `f32`.
    fn read(&self, name: &str) -> Result<Numbers> {
        let half = match self.info(name)?.dtype {
            Dtype::F16 => Half::F16,
            Dtype::BF16 => Half::Bf16,
            _ => return self.read_f32(name).map(Numbers::F32),
        };
        let bits = self.raw(name)?.as_chunks::<2>().0;
        Ok(Numbers::Bits(bits.iter().map(|b| u16::from_le_bytes(*b)).collect(), half))
    }
}

/// Loads every weight of a network from a set; 16-bit weights stay in 16 bits.
///
/// # Errors
/// Network and set do not fit: the one error names the file and everything missing, extra or of
/// another shape, and nothing is loaded then.
pub fn load(network: &mut (impl Parameters + ?Sized), set: &TensorSet) -> Result<()> {
    set.fits(&weight::misfit(network, set))?;
    weight::load(network, set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Output, encode_safetensors, write_safetensors};
    use crate::weight::{Initial, Weight};
    use burn::tensor::Device;

    fn file(names: &[&str]) -> TensorFile {
        let tensors: Vec<_> =
            names.iter().map(|n| Output::f32(n, &[2], &[1.0, 2.0], Dtype::F32)).collect();
        let bytes = encode_safetensors(&tensors, &BTreeMap::new()).unwrap();
        TensorFile::from_bytes(bytes, "m.safetensors").unwrap()
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let set = TensorSet::from(file(&["a", "b", "x", "y"]));
        assert!(set.check(&["a", "b", "x", "y"].map(|n| Wanted::new(n, [2]))).is_ok());
        let wanted = [Wanted::new("a", [2]), Wanted::new("b", [1, 2]), Wanted::new("c", [3])];
        let error = set.check(&wanted).unwrap_err().to_string();
        assert_eq!(
            error,
            "m.safetensors: 1 tensors missing: c; 2 tensors not wanted: x, y; \
             1 tensors of another shape: b (wanted [1, 2], found [2])"
        );
        let many: Vec<Wanted> = (0..20).map(|i| Wanted::new(format!("t{i:02}"), [1])).collect();
        assert!(set.check(&many).unwrap_err().to_string().contains("and 17 more"));
        let odd = TensorSet::from(file(&["a\nb"]));
        assert!(!odd.check(&[]).unwrap_err().to_string().contains('\n'));
        assert!(set.read_shaped("a", &[1, 2]).unwrap_err().to_string().contains("wanted shape"));
    }

    #[test]
    fn shards_are_one_set() {
        let folder = tempfile::tempdir().unwrap();
        let none = BTreeMap::new();
        for (shard, name, v) in [("s-1.safetensors", "a", 1.0), ("s-2.safetensors", "b", 2.0)] {
            let values = [v];
            let tensor = Output::f32(name, &[1], &values, Dtype::F32);
            write_safetensors(folder.path().join(shard), &[tensor], &none).unwrap();
        }
        let index = folder.path().join("m.safetensors.index.json");
        let open = |map: &str| {
            std::fs::write(&index, format!("{{\"metadata\":{{}},\"weight_map\":{map}}}")).unwrap();
            TensorSet::open(&index)
        };
        let set = open(r#"{"a":"s-1.safetensors","b":"s-2.safetensors"}"#).unwrap();
        assert_eq!(set.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(set.read_f32("b").unwrap(), [2.0]);
        for (map, says) in [
            (r#"{"a":"s-1.safetensors","b":"s-1.safetensors"}"#, "no such tensor"),
            (r#"{"a":"s-1.safetensors","b":"s-3.safetensors"}"#, "s-3.safetensors"),
            (r#"{"a":"../s-1.safetensors"}"#, "beside the index"),
            (r#"{"a":"/etc/passwd"}"#, "beside the index"),
            (r#"{"a":3}"#, "beside the index"),
            ("[]", "weight_map"),
        ] {
            let error = open(map).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
        let both = [("a", 1.0), ("c", 2.0)];
        let both: Vec<_> = both
            .iter()
            .map(|(n, v)| Output::f32(n, &[1], std::slice::from_ref(v), Dtype::F32))
            .collect();
        write_safetensors(folder.path().join("s-1.safetensors"), &both, &none).unwrap();
        let error = open(r#"{"a":"s-1.safetensors"}"#).unwrap_err().to_string();
        assert!(error.contains("`c`"), "{error}");
    }

    struct Layer {
        weight: Weight,
    }

    crate::parameters!(Layer { weight });

    #[test]
    fn a_network_is_loaded_from_a_set() {
        let device = Device::flex();
        let mut layer = Layer { weight: Weight::new([2], Initial::Zeros, &device) };
        let stored = |name: &str, dtype: Dtype| {
            let tensor = Output::f32(name, &[2], &[0.5, -3.0], dtype);
            let bytes = encode_safetensors(&[tensor], &BTreeMap::new()).unwrap();
            TensorSet::from(TensorFile::from_bytes(bytes, "layer.safetensors").unwrap())
        };
        for (dtype, bytes) in [(Dtype::F32, 8), (Dtype::F16, 4), (Dtype::BF16, 4)] {
            load(&mut layer, &stored("weight", dtype)).unwrap();
            assert_eq!(layer.weight.to_vec(), [0.5, -3.0]);
            assert_eq!(layer.weight.bytes(), bytes);
        }
        let error = load(&mut layer, &stored("bias", Dtype::F32)).unwrap_err().to_string();
        assert_eq!(
            error,
            "layer.safetensors: 1 tensors missing: weight; 1 tensors not wanted: bias"
        );
    }

    #[test]
    fn tensors_go_by_other_names() {
        let set = TensorSet::from(file(&["text_model.a", "text_model.b", "position_ids"]));
        let short = set.renamed(|n| n.strip_prefix("text_model.").map(str::to_owned)).unwrap();
        assert_eq!(short.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(short.read_f32("a").unwrap(), [1.0, 2.0]);
        assert!(set.renamed(|_| Some("same".to_owned())).is_err());
    }
}
