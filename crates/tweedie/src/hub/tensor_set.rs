//! The weights of a component: one file of weights, or shards under an index, as one set, under the
//! names and in the shapes that the network wants.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::decode;
use super::json::{escape, one_line};
use super::narrow;
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
    /// How each tensor is made of those in the files.
    place: BTreeMap<String, Place>,
    /// The type that real numbers are given in, where it is not to be that of the files.
    held_as: Option<Dtype>,
}

/// How a tensor is made of stored ones.
#[derive(Clone, Debug)]
struct Place {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Stored tensors that follow each other along the first dimension; mostly one.
    pieces: Vec<Piece>,
}

/// A stored tensor, or some rows of it.
#[derive(Clone, Debug)]
struct Piece {
    file: usize,
    name: String,
    /// Its rows: the first and how many, out of how many; `None` for all.
    rows: Option<[usize; 3]>,
    /// The two dimensions are exchanged.
    turned: Option<[usize; 2]>,
}

/// What is done to a stored tensor so that it fits a network that names its weights otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Nothing.
    Keep,
    /// One of several equal parts along the first dimension: which, and of how many. (Fused
    /// projections hold those of query, key and value on top of each other.)
    Part(usize, usize),
    /// A matrix with its dimensions exchanged.
    Turn,
    /// The same numbers in another shape: a 1x1 convolution is a linear layer.
    Shape(Vec<usize>),
}

impl From<TensorFile> for TensorSet {
    fn from(file: TensorFile) -> Self {
        let place = file.names().filter_map(|n| Some((n.to_owned(), Place::of(&file, 0, n)?)));
        Self {
            name: file.name().to_owned(),
            place: place.collect(),
            files: vec![file],
            held_as: None,
        }
    }
}

impl TensorSet {
    /// The files that it is in, by the names that they were opened by.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(TensorFile::name)
    }

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
        let mut set = Self::empty(path);
        for (shard, tensors) in shards {
            let file = open(shard)?;
            for name in tensors {
                if !file.contains(name) {
                    let why = format!("the index places it in {shard}, which has no such tensor");
                    return Err(Error::format(path, one_line(name), why));
                }
                if let Some(place) = Place::of(&file, set.files.len(), name) {
                    set.place.insert(name.to_owned(), place);
                }
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

    /// Gives the pages of the mapped files back to the system; they are read again when touched.
    /// Whoever walks through a large set once keeps its memory small by this.
    pub fn release(&self) {
        self.files.iter().for_each(TensorFile::release);
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.place.keys().map(String::as_str)
    }

    /// The names from `start` on, in order.
    pub(crate) fn names_from(&self, start: &str) -> impl Iterator<Item = &str> {
        self.place
            .range::<str, _>((std::ops::Bound::Included(start), std::ops::Bound::Unbounded))
            .map(|(n, _)| n.as_str())
    }

    /// What the writer of the files left in their headers under `key`.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.files.iter().find_map(|f| f.metadata().get(key)).map(String::as_str)
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
        let place = self.at(name)?;
        let dtype = self.told(place);
        let mut info = TensorInfo { dtype, shape: place.shape.clone(), bytes: 0 };
        info.bytes = (info.elements() * dtype.bitsize()).div_ceil(8);
        Ok(info)
    }

    /// The shape of the tensor `name`, where there is one.
    pub(crate) fn shape_of(&self, name: &str) -> Option<Vec<usize>> {
        self.place.get(name).map(|p| p.shape.clone())
    }

    /// The tensor `name` as `f32`; see [`TensorFile::read_f32`].
    ///
    /// # Errors
    /// As there.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let dtype = self.told(self.at(name)?);
        decode::to_f32(dtype, &self.raw(name)?).ok_or_else(|| {
            let why = format!("wanted real numbers, found {dtype:?}");
            Error::format(&self.name, one_line(name), why)
        })
    }

    /// The tensor `name` as `i64`; see [`TensorFile::read_i64`].
    ///
    /// # Errors
    /// As there.
    pub fn read_i64(&self, name: &str) -> Result<Vec<i64>> {
        let dtype = self.told(self.at(name)?);
        decode::to_i64(dtype, &self.raw(name)?).ok_or_else(|| {
            let why = format!("wanted whole numbers within 64 bits, found {dtype:?}");
            Error::format(&self.name, one_line(name), why)
        })
    }

    /// The stored bytes of the tensor `name`, little endian, row after row: those of the file
    /// itself, unless the tensor is made of several stored ones, turned or of another type.
    ///
    /// # Errors
    /// There is no such tensor; a number of it is beyond the range of the type of
    /// [`held_as`](Self::held_as).
    pub fn raw(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        let place = self.at(name)?;
        let stored = self.stored(place)?;
        let told = self.told(place);
        if told == place.dtype {
            return Ok(stored);
        }
        // In blocks of whole numbers of either type.
        let size = place.dtype.bitsize() >> 3;
        let blocks = stored.par_chunks(size << 16);
        let blocks = blocks.map(|block| narrow::convert(place.dtype, block, told));
        let whole: std::result::Result<Vec<_>, String> = blocks.collect();
        let whole = whole.map_err(|why| Error::format(&self.name, one_line(name), why))?;
        Ok(Cow::Owned(whole.concat()))
    }

    /// The bytes of a tensor in the type of its file.
    fn stored(&self, place: &Place) -> Result<Cow<'_, [u8]>> {
        if let [piece] = place.pieces.as_slice() {
            return self.piece(piece, place.dtype);
        }
        let mut all = Vec::new();
        for piece in &place.pieces {
            all.extend_from_slice(&self.piece(piece, place.dtype)?);
        }
        Ok(Cow::Owned(all))
    }

    /// The bytes of the tensor `name` in their file, without a copy, where it is a whole stored one.
    fn share(&self, name: &str, align: usize) -> Option<burn::tensor::Bytes> {
        let place = self.place.get(name)?;
        if self.told(place) != place.dtype {
            return None;
        }
        match place.pieces.as_slice() {
            [Piece { file, name, rows: None, turned: None }] => {
                self.files.get(*file)?.share(name, align)
            }
            _ => None,
        }
    }

    fn piece(&self, piece: &Piece, dtype: Dtype) -> Result<Cow<'_, [u8]>> {
        let short = || Error::format(&self.name, one_line(&piece.name), "the file has changed");
        let file = self.files.get(piece.file).ok_or_else(short)?;
        let mut bytes = file.raw(&piece.name)?;
        if let Some([height, width]) = piece.turned {
            let size = dtype.bitsize() >> 3;
            // Read with the strides of the turned matrix.
            bytes = super::torch::gather(&bytes, size, &[width, height], &[1, width])
                .map(Cow::Owned)
                .ok_or_else(short)?;
        }
        let Some([from, count, of]) = piece.rows else { return Ok(bytes) };
        let row = bytes.len().checked_div(of).unwrap_or(0);
        let range = from * row..(from + count) * row;
        match bytes {
            Cow::Borrowed(bytes) => bytes.get(range).map(Cow::Borrowed),
            Cow::Owned(bytes) => bytes.get(range).map(|b| Cow::Owned(b.to_vec())),
        }
        .ok_or_else(short)
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

    /// The set with its real numbers in another type, each tensor converted when it is read. Vectors
    /// (biases, the scales of norms) are widened but never narrowed: they weigh nothing, and what is
    /// lost in them is not made up for by anything.
    #[must_use]
    pub fn held_as(&self, dtype: Option<Dtype>) -> Self {
        Self { held_as: dtype, ..self.clone() }
    }

    /// The type that a tensor is given in.
    fn told(&self, place: &Place) -> Dtype {
        match self.held_as {
            Some(dtype)
                if narrow::is_real(place.dtype)
                    && (place.shape.len() > 1 || dtype.bitsize() > place.dtype.bitsize()) =>
            {
                dtype
            }
            _ => place.dtype,
        }
    }

    /// An empty set; `name` stands for it in errors.
    pub(crate) fn empty(name: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), files: Vec::new(), place: BTreeMap::new(), held_as: None }
    }

    /// A set without tensors over the files of this one, to be filled by [`add`](Self::add).
    pub(crate) fn bare(&self) -> Self {
        Self { place: BTreeMap::new(), ..self.clone() }
    }

    /// Adds the tensor `from` of the set `of` (over the same files) as `name`, edited.
    ///
    /// # Errors
    /// There is no such tensor, the name is taken, or the edit does not fit its shape.
    pub(crate) fn add(&mut self, name: String, of: &Self, from: &str, edit: &Edit) -> Result<()> {
        let mut place = of.at(from)?.clone();
        let found = place.shape.clone();
        let unfit = |why: String| Error::format(&of.name, one_line(from), why);
        match edit {
            Edit::Keep => {}
            Edit::Part(which, parts) => {
                let rows = place.shape.first().copied().unwrap_or(0);
                let [piece] = place.pieces.as_mut_slice() else {
                    return Err(unfit(
                        "wanted a stored tensor, found one that is put together".into(),
                    ));
                };
                if *parts == 0
                    || which >= parts
                    || !rows.is_multiple_of(*parts)
                    || piece.rows.is_some()
                {
                    let why = format!("wanted {parts} equal parts, found the shape {found:?}");
                    return Err(unfit(why));
                }
                let count = rows / parts;
                piece.rows = Some([which * count, count, rows]);
                place.shape[0] = count;
            }
            Edit::Turn => {
                let [height, width] = *place.shape else {
                    return Err(unfit(format!("wanted a matrix, found the shape {found:?}")));
                };
                let [piece] = place.pieces.as_mut_slice() else {
                    return Err(unfit(
                        "wanted a stored tensor, found one that is put together".into(),
                    ));
                };
                if piece.rows.is_some() || piece.turned.is_some() {
                    return Err(unfit("wanted a stored tensor, found a part of one".into()));
                }
                piece.turned = Some([height, width]);
                place.shape = vec![width, height];
            }
            Edit::Shape(shape) => {
                let count = |s: &[usize]| s.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
                if count(shape) != count(&found) {
                    return Err(unfit(format!("wanted the shape {shape:?}, found {found:?}")));
                }
                place.shape.clone_from(shape);
            }
        }
        self.put(name, place, from)
    }

    /// Adds the tensors `from` of `of`, one below the other along the first dimension, as `name`.
    ///
    /// # Errors
    /// There is no such tensor, the name is taken, or their shapes and dtypes do not agree.
    pub(crate) fn add_joined(&mut self, name: String, of: &Self, from: &[String]) -> Result<()> {
        let mut joined: Option<Place> = None;
        for one in from {
            let next = of.at(one)?.clone();
            match &mut joined {
                None => joined = Some(next),
                Some(first) => {
                    let fits =
                        first.dtype == next.dtype && first.shape.get(1..) == next.shape.get(1..);
                    let (Some(rows), Some(more), true) =
                        (first.shape.first_mut(), next.shape.first(), fits)
                    else {
                        let why = "its shape or dtype is not that of the tensors it is joined with";
                        return Err(Error::format(&of.name, one_line(one), why));
                    };
                    *rows += more;
                    first.pieces.extend(next.pieces);
                }
            }
        }
        let joined = joined.ok_or_else(|| Error::format(&of.name, one_line(&name), "no parts"))?;
        self.put(name, joined, "")
    }

    /// Adds all tensors of another set, which may lie in other files, `prefix` before their names.
    ///
    /// # Errors
    /// A name is taken.
    pub(crate) fn add_all(&mut self, prefix: &str, other: &Self) -> Result<()> {
        let shift = self.files.len();
        self.files.extend(other.files.iter().cloned());
        for (name, place) in &other.place {
            let mut place = place.clone();
            for piece in &mut place.pieces {
                piece.file += shift;
            }
            self.put(format!("{prefix}{name}"), place, name)?;
        }
        Ok(())
    }

    fn put(&mut self, name: String, place: Place, from: &str) -> Result<()> {
        if self.place.contains_key(&name) {
            let why = format!("two tensors stand for it, the second is `{}`", one_line(from));
            return Err(Error::format(&self.name, one_line(&name), why));
        }
        self.place.insert(name, place);
        Ok(())
    }

    fn at(&self, name: &str) -> Result<&Place> {
        self.place.get(name).ok_or_else(|| {
            let kind = format!("tensor of {}", self.name.display());
            Error::unknown(kind, &one_line(name), self.names().filter(|n| n.len() <= 160))
        })
    }
}

impl Place {
    /// The tensor `name` of a file, whole.
    fn of(file: &TensorFile, number: usize, name: &str) -> Option<Self> {
        let TensorInfo { dtype, shape, .. } = file.info(name).ok()?;
        let piece = Piece { file: number, name: name.to_owned(), rows: None, turned: None };
        Some(Self { dtype, shape, pieces: vec![piece] })
    }
}

impl Source for TensorSet {
    fn names(&self) -> Vec<String> {
        self.place.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shape_of(name)
    }

    /// Sixteen-bit numbers stay as they are, everything else becomes `f32`. What lies in a mapped file as
    /// it is wanted stays there, and the system reads it when it is used.
    fn read(&self, name: &str) -> Result<Numbers> {
        let dtype = self.info(name)?.dtype;
        let half = match dtype {
            Dtype::F16 => Some(Half::F16),
            Dtype::BF16 => Some(Half::Bf16),
            _ => None,
        };
        let plain = dtype == Dtype::F32;
        if (plain || half.is_some())
            && let Some(bytes) = self.share(name, 4)
        {
            return Ok(Numbers::Bytes(bytes, half));
        }
        let numbers = match half {
            None => Numbers::F32(self.read_f32(name)?),
            Some(_) => {
                let bytes = self.raw(name)?.into_owned();
                Numbers::Bytes(burn::tensor::Bytes::from_bytes_vec(bytes), half)
            }
        };
        if self.held_as.is_some() {
            // A copy stands for it now; with all pages of the file beside all copies, a load would
            // take the memory of both.
            self.release();
        }
        Ok(numbers)
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

    #[test]
    fn matrices_are_held_in_another_type_and_vectors_are_not_narrowed() {
        let matrix = [1.0, 1.0 + 2.0_f32.powi(-12), -3.25, 7e-6];
        let tensors = [
            Output::f32("bias", &[2], &[0.1, 0.2], Dtype::F32),
            Output::f32("weight", &[2, 2], &matrix, Dtype::F32),
        ];
        let bytes = encode_safetensors(&tensors, &BTreeMap::new()).unwrap();
        let set = TensorSet::from(TensorFile::from_bytes(bytes, "m.safetensors").unwrap());
        for (dtype, half) in [(Dtype::F16, Half::F16), (Dtype::BF16, Half::Bf16)] {
            let held = set.held_as(Some(dtype));
            let info = held.info("weight").unwrap();
            assert_eq!((info.dtype, info.bytes), (dtype, 8));
            assert_eq!(held.info("bias").unwrap().dtype, Dtype::F32);
            assert_eq!(held.read_f32("bias").unwrap(), [0.1, 0.2]);
            let round = |v: f32| match half {
                Half::F16 => half::f16::from_f32(v).to_f32(),
                Half::Bf16 => half::bf16::from_f32(v).to_f32(),
            };
            assert_eq!(held.read_f32("weight").unwrap(), matrix.map(round));
            assert_ne!(held.read_f32("weight").unwrap(), matrix);
            let Numbers::Bytes(bits, Some(found)) = Source::read(&held, "weight").unwrap() else {
                panic!("not narrow");
            };
            assert_eq!((bits.len(), found), (8, half));
        }
        // What the type has no number for is an error that names the tensor.
        let large = Output::f32("weight", &[1, 1], &[7e4], Dtype::F32);
        let bytes = encode_safetensors(&[large], &BTreeMap::new()).unwrap();
        let set = TensorSet::from(TensorFile::from_bytes(bytes, "m.safetensors").unwrap());
        let error = set.held_as(Some(Dtype::F16)).read_f32("weight").unwrap_err().to_string();
        assert!(error.contains("weight") && error.contains("beyond the range"), "{error}");
        assert_eq!(set.held_as(Some(Dtype::BF16)).info("weight").unwrap().bytes, 2);
        // Widening takes the vectors too.
        let narrow = Output::f32("bias", &[2], &[0.5, 2.0], Dtype::F16);
        let bytes = encode_safetensors(&[narrow], &BTreeMap::new()).unwrap();
        let set = TensorSet::from(TensorFile::from_bytes(bytes, "m.safetensors").unwrap());
        let wide = set.held_as(Some(Dtype::F32));
        assert_eq!(wide.info("bias").unwrap().dtype, Dtype::F32);
        assert_eq!(wide.read_f32("bias").unwrap(), [0.5, 2.0]);
        assert!(matches!(Source::read(&wide, "bias").unwrap(), Numbers::F32(_)));
    }
}
