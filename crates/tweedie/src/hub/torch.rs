//! Files of `torch.save`, read without running any of Python: `.bin`, `.ckpt`, `.pt`, `.pth`.
//!
//! Two formats: since PyTorch 1.6 a zip of stored entries (`NAME/data.pkl`, a pickle, and
//! `NAME/data/KEY`, one for each storage), and before that five pickles one after the other with the
//! storages behind them. The pickle goes through [`pickle`](super::pickle), which builds data and
//! nothing else. What comes out is the same as the header of a safetensors file: name, dtype, shape
//! and place of each tensor, so that the numbers are read from the memory map.
//!
//! Which tensors there are: those of the dictionary, or of its entry `state_dict`; of dictionaries
//! within, under names joined by a dot. Anything else beside them is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;

use super::header::{Entry, Header, MAX_NAME, MAX_TENSORS};
use super::json::one_line;
use super::pickle::{self, Id, Pickle, Tensor, Value};
use crate::{Error, Result};

/// The first bytes of a zip entry.
const LOCAL: u32 = 0x0403_4b50;
/// The first bytes of an entry of a zip's directory.
const CENTRAL: u32 = 0x0201_4b50;
/// The first bytes of the end of a zip's directory.
const END: u32 = 0x0605_4b50;
/// The same with 64-bit sizes; [`LOCATOR_64`] begins what says where that is.
const END_64: u32 = 0x0606_4b50;
/// See there.
const LOCATOR_64: u32 = 0x0706_4b50;
/// What the first pickle of the old format holds: 0x1950a86a20f9469cfc6c, lowest byte first.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// How deep dictionaries within dictionaries are searched for tensors.
const DEPTH: usize = 4;

/// Whether a file begins as those of `torch.save` do. (A safetensors file begins with the length of
/// its header and a brace.)
pub(crate) fn is_torch(bytes: &[u8]) -> bool {
    let zip = number::<4>(bytes, 0) == Some(u64::from(LOCAL)) && bytes.get(8) != Some(&b'{');
    zip || matches!(bytes, [0x80, 2..=5, 0x8a, 10, rest @ ..] if rest.starts_with(&MAGIC))
}

/// The tensors of such a file; `file` is named in errors.
///
/// # Errors
/// It is damaged, compressed, or its pickle asks for anything but data.
pub(crate) fn read(file: &Path, bytes: &[u8]) -> Result<Header> {
    if bytes.first() == Some(&0x80) { read_old(file, bytes) } else { read_zip(file, bytes) }
}

fn read_zip(file: &Path, bytes: &[u8]) -> Result<Header> {
    let entries = directory(file, bytes)?;
    let fail = |why: &str| Error::format(file, "", why);
    let pickle = entries
        .keys()
        .find(|name| name.strip_suffix("/data.pkl").is_some_and(|folder| !folder.contains('/')));
    let Some(pickle) = pickle else {
        return Err(fail("a zip without `data.pkl`: not a file of weights of PyTorch"));
    };
    let folder = pickle.trim_end_matches("data.pkl");
    if let Some(order) = entries.get(format!("{folder}byteorder").as_str())
        && bytes.get(order.clone()) == Some(b"big".as_slice())
    {
        return Err(fail("its numbers are stored highest byte first, which is not supported"));
    }
    let range = entries.get(pickle).cloned().unwrap_or_default();
    let pickle = pickle::run(file, bytes, range)?;
    collect(file, &pickle, |tensor| {
        let key = pickle.text(tensor.storage.key)?;
        entries.get(format!("{folder}data/{key}").as_str()).cloned()
    })
}

/// The stored entries of a zip and their bytes.
fn directory<'a>(file: &Path, bytes: &'a [u8]) -> Result<BTreeMap<&'a str, Range<usize>>> {
    let fail = |why: &str| Error::format(file, "", why);
    let broken = || fail("a damaged or truncated zip");
    let last = bytes.len().checked_sub(22).ok_or_else(broken)?;
    let end = (last.saturating_sub(0xffff)..=last)
        .rev()
        .find(|at| number::<4>(bytes, *at) == Some(u64::from(END)))
        .ok_or_else(|| fail("truncated: a zip without its directory"))?;
    let mut count = number::<2>(bytes, end + 10).ok_or_else(broken)?;
    let mut start = number::<4>(bytes, end + 16).ok_or_else(broken)?;
    if let Some(at) = end.checked_sub(20)
        && number::<4>(bytes, at) == Some(u64::from(LOCATOR_64))
    {
        let at = number::<8>(bytes, at + 8).and_then(|n| usize::try_from(n).ok());
        let at = at.filter(|at| number::<4>(bytes, *at) == Some(u64::from(END_64)));
        let at = at.ok_or_else(broken)?;
        let wide = |offset: usize| at.checked_add(offset).and_then(|at| number::<8>(bytes, at));
        count = wide(32).ok_or_else(broken)?;
        start = wide(48).ok_or_else(broken)?;
    }
    // An entry of the directory takes at least 46 bytes.
    if count > (bytes.len() / 46) as u64 || count > 2 * MAX_TENSORS as u64 {
        return Err(fail(&format!("a zip that claims {count} entries")));
    }
    let mut at = usize::try_from(start).map_err(|_| broken())?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let (name, range, next) = central_entry(file, bytes, at)?;
        entries.insert(name, range);
        at = next;
    }
    Ok(entries)
}

/// The entry of the directory at `at`: its name, its bytes, and where the next one begins.
fn central_entry<'a>(
    file: &Path,
    bytes: &'a [u8],
    at: usize,
) -> Result<(&'a str, Range<usize>, usize)> {
    let broken = || Error::format(file, "", "a damaged or truncated zip");
    let field = |from: usize| at.checked_add(from).ok_or_else(broken);
    let small =
        |from: usize| number::<2>(bytes, field(from)?).map(|n| n as usize).ok_or_else(broken);
    let wide = |from: usize| number::<4>(bytes, field(from)?).ok_or_else(broken);
    if wide(0)? != u64::from(CENTRAL) {
        return Err(broken());
    }
    let (method, name, extra, comment) = (small(10)?, small(28)?, small(30)?, small(32)?);
    let (mut packed, mut size, mut local) = (wide(20)?, wide(24)?, wide(42)?);
    let (name_at, extra_at) = (field(46)?, field(46 + name)?);
    let extra_end = field(46 + name + extra)?;
    let name = bytes.get(name_at..extra_at).and_then(|n| std::str::from_utf8(n).ok());
    let name = name.ok_or_else(broken)?;
    // Fields of 64 bits stand in the extra block, in this order, for those that are all ones.
    let mut at = extra_at;
    while at + 4 <= extra_end {
        let (Some(kind), Some(length)) = (number::<2>(bytes, at), number::<2>(bytes, at + 2))
        else {
            return Err(broken());
        };
        let mut value = at + 4;
        at = value + length as usize;
        if kind == 1 {
            for field in [&mut size, &mut packed, &mut local] {
                if *field == 0xffff_ffff && value + 8 <= at.min(extra_end) {
                    *field = number::<8>(bytes, value).ok_or_else(broken)?;
                    value += 8;
                }
            }
        }
    }
    if method != 0 || packed != size {
        let why = "it is compressed; files of weights are stored as they are";
        return Err(Error::format(file, one_line(name), why));
    }
    let local = usize::try_from(local).map_err(|_| broken())?;
    if number::<4>(bytes, local) != Some(u64::from(LOCAL)) {
        return Err(broken());
    }
    let head =
        |from: usize| number::<2>(bytes, local + from).map(|n| n as usize).ok_or_else(broken);
    let from = local + 30 + head(26)? + head(28)?;
    let size = usize::try_from(size).map_err(|_| broken())?;
    let to = from.checked_add(size).filter(|to| *to <= bytes.len());
    let to = to.ok_or_else(|| {
        let why = format!("truncated: {size} bytes from {from} on, the file holds {}", bytes.len());
        Error::format(file, one_line(name), why)
    })?;
    Ok((name, from..to, extra_end + comment))
}

/// The format before PyTorch 1.6: magic number, version, machine, the object, the keys of the
/// storages; then for each key the count of its numbers in 8 bytes, and the numbers.
fn read_old(file: &Path, bytes: &[u8]) -> Result<Header> {
    let fail = |why: &str| Error::format(file, "", why);
    let whole = bytes.len();
    let mut at = 0;
    for what in ["magic number", "version"] {
        let pickle = pickle::run(file, bytes, at..whole)?;
        let right = match pickle.get(pickle.root) {
            Value::Long(from, 10) => bytes.get(*from..from + 10) == Some(MAGIC.as_slice()),
            Value::Int(1001) => what == "version",
            _ => false,
        };
        if !right {
            return Err(fail(&format!("not a file of PyTorch: another {what}")));
        }
        at = pickle.end;
    }
    let machine = pickle::run(file, bytes, at..whole)?;
    if let Value::Dict(about) = machine.get(machine.root)
        && let Some(little) = machine.entry(about, "little_endian")
        && *machine.get(little) == Value::Bool(false)
    {
        return Err(fail("its numbers are stored highest byte first, which is not supported"));
    }
    let object = pickle::run(file, bytes, machine.end..whole)?;
    let keys = pickle::run(file, bytes, object.end..whole)?;
    let Value::List(list) = keys.get(keys.root) else {
        return Err(fail("wanted the keys of its storages"));
    };
    // The width of each storage's numbers stands in the object alone.
    let mut widths: BTreeMap<&str, usize> = BTreeMap::new();
    for value in object.values() {
        if let Value::Storage(storage) = value
            && let Some(key) = object.text(storage.key)
        {
            widths.insert(key, storage.dtype.unwrap_or(Dtype::U8).bitsize() >> 3);
        }
    }
    let mut places: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut at = keys.end;
    for id in list {
        let truncated = || fail("truncated: a storage ends behind the file");
        let key = keys.text_of(*id).ok_or_else(|| fail("wanted the key of a storage"))?;
        let count = number::<8>(bytes, at).and_then(|n| usize::try_from(n).ok());
        let count = count.ok_or_else(truncated)?;
        // A storage that nothing refers to has an unknown width, and nothing behind it can be found.
        let Some(width) = widths.get(key) else { break };
        let from = at + 8;
        let to = count.checked_mul(*width).and_then(|n| from.checked_add(n));
        let to = to.filter(|to| *to <= whole).ok_or_else(truncated)?;
        places.insert(key, from..to);
        at = to;
    }
    collect(file, &object, |tensor| {
        let key = object.text(tensor.storage.key)?;
        let width = tensor.storage.dtype.unwrap_or(Dtype::U8).bitsize() >> 3;
        let range = places.get(key)?;
        let from = range.start.checked_add(tensor.storage.offset.checked_mul(width)?)?;
        Some(from.min(range.end)..range.end)
    })
}

/// Gathers the tensors that a pickle built; `place` gives the bytes of a tensor's storage.
fn collect(
    file: &Path,
    pickle: &Pickle<'_>,
    place: impl Fn(&Tensor) -> Option<Range<usize>>,
) -> Result<Header> {
    let mut header = Header { tensors: BTreeMap::new(), metadata: BTreeMap::new() };
    let mut failed = None;
    visit(pickle, &mut |name, tensor| {
        let added = add(file, &mut header, name, tensor, place(tensor));
        failed = added.err();
        failed.is_none()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    if let Value::Dict(root) = pickle.get(pickle.root)
        && let Some(step) = pickle.entry(root, "global_step")
        && let Value::Int(step) = pickle.get(step)
    {
        header.metadata.insert("global_step".to_owned(), step.to_string());
    }
    Ok(header)
}

fn add(
    file: &Path,
    header: &mut Header,
    name: &str,
    tensor: &Tensor,
    storage: Option<Range<usize>>,
) -> Result<()> {
    let fail = |why: String| Error::format(file, one_line(name), why);
    if name.is_empty() || name.len() > MAX_NAME || header.tensors.len() == MAX_TENSORS {
        return Err(fail(format!(
            "wanted at most {MAX_TENSORS} tensors with names of 1 to {MAX_NAME} bytes"
        )));
    }
    let storage = storage.ok_or_else(|| fail("its storage is not in the file".to_owned()))?;
    let Tensor { dtype, shape, strides, offset, .. } = tensor;
    let size = dtype.bitsize() >> 3;
    let (held, whole) = (storage.len(), || format!("shape {shape:?}, strides {strides:?}"));
    let bytes = shape.iter().try_fold(size, |n, d| n.checked_mul(*d));
    // More numbers than the storage has would be copies of the same ones; a small file could ask for
    // any amount of memory that way.
    let bytes = bytes.filter(|n| *n <= held).ok_or_else(|| {
        fail(format!("{} takes more than the {held} bytes of its storage", whole()))
    })?;
    let span = span(shape, strides).and_then(|n| n.checked_mul(size));
    let from = offset.checked_mul(size);
    let end = span.zip(from).and_then(|(n, from)| n.checked_add(from)).filter(|end| *end <= held);
    let (Some(end), Some(from)) = (end, from) else {
        return Err(fail(format!(
            "{} at {offset} leaves the {held} bytes of its storage",
            whole()
        )));
    };
    let plain = bytes == end - from && is_plain(shape, strides);
    let entry = Entry {
        dtype: *dtype,
        shape: shape.clone(),
        range: storage.start + from..storage.start + end,
        strides: (!plain).then(|| strides.clone()),
    };
    // Of two entries under one key the later one counts, and that one was shown first.
    header.tensors.entry(name.to_owned()).or_insert(entry);
    Ok(())
}

/// How many numbers lie between the first and the last of a tensor, both included.
fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let steps = shape.iter().zip(strides).map(|(n, s)| (n - 1).checked_mul(*s));
    steps.into_iter().try_fold(1_usize, |sum, step| sum.checked_add(step?))
}

/// Whether the numbers lie row after row.
fn is_plain(shape: &[usize], strides: &[usize]) -> bool {
    let mut wanted = 1;
    shape.iter().zip(strides).rev().all(|(n, s)| {
        let right = *n == 1 || *s == wanted;
        wanted *= (*n).max(1);
        right
    })
}

/// The numbers of a tensor with strides, row after row; each takes `size` bytes. `None` where they
/// leave `bytes`.
pub(crate) fn gather(
    bytes: &[u8],
    size: usize,
    shape: &[usize],
    strides: &[usize],
) -> Option<Vec<u8>> {
    let count = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))?;
    if count == 0 {
        return Some(Vec::new());
    }
    let mut out = Vec::with_capacity(count.checked_mul(size)?.min(bytes.len()));
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at: usize = index.iter().zip(strides).map(|(i, s)| i * s).sum();
        out.extend_from_slice(bytes.get(at * size..(at + 1) * size)?);
        for (i, n) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *n {
                break;
            }
            *i = 0;
        }
    }
    Some(out)
}

/// Shows every tensor of a pickle with its name, until `show` says no.
fn visit(pickle: &Pickle<'_>, show: &mut dyn FnMut(&str, &Tensor) -> bool) {
    let mut root = pickle.root;
    if let Value::Dict(items) = pickle.get(root)
        && let Some(inner) = pickle.entry(items, "state_dict")
        && matches!(pickle.get(inner), Value::Dict(_))
    {
        root = inner;
    }
    // Each dictionary once: one may hold itself.
    let mut seen: BTreeSet<Id> = BTreeSet::new();
    let mut open: Vec<(String, Id, usize)> = vec![(String::new(), root, 0)];
    while let Some((prefix, id, depth)) = open.pop() {
        match pickle.get(id) {
            Value::Tensor(tensor) => {
                let name = if prefix.is_empty() { "tensor" } else { &prefix };
                if !show(name, tensor) {
                    return;
                }
            }
            Value::Dict(items) if depth < DEPTH && seen.insert(id) => {
                for (key, value) in items {
                    let Some(key) = pickle.text_of(*key).filter(|k| k.len() <= MAX_NAME) else {
                        continue;
                    };
                    if !matches!(pickle.get(*value), Value::Tensor(_) | Value::Dict(_)) {
                        continue;
                    }
                    // A container of parameters is the dictionary that it holds.
                    let name = match (prefix.as_str(), key) {
                        ("", key) => key.to_owned(),
                        (prefix, "_parameters") => prefix.to_owned(),
                        (prefix, key) => format!("{prefix}.{key}"),
                    };
                    open.push((name, *value, depth + 1));
                }
            }
            _ => {}
        }
    }
}

/// The number in `N` bytes at `at`, lowest first.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let found = bytes.get(at..at.checked_add(N)?)?;
    Some(found.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b)))
}
