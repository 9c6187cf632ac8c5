//! Files that are made of committed lists of keys and shapes (`tests/data/layouts`, written by
//! `tools/parity/layouts.py`), and digests of what is read from them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tweedie::hub::{Opened, Parts, TensorSet};

/// A tensor of a file: its shape and its numbers, row after row.
pub(crate) type Numbers = (Vec<usize>, Vec<f32>);

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/layouts")
}

/// What the reference says of every file.
pub(crate) fn expected() -> Value {
    let text = std::fs::read_to_string(data().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The keys and shapes of a list, `prefix` before each.
pub(crate) fn list(name: &str, prefix: &str) -> BTreeMap<String, Vec<usize>> {
    let text = std::fs::read_to_string(data().join(format!("{name}.txt"))).unwrap();
    let mut out = BTreeMap::new();
    for line in text.lines() {
        let (key, shape) = line.rsplit_once(' ').unwrap();
        let bias = shape.ends_with('+');
        let dims = shape.trim_end_matches('+').split('x').filter(|d| *d != "-");
        let dims: Vec<usize> = dims.map(|d| d.parse().unwrap()).collect();
        if bias {
            let module = key.strip_suffix(".weight").unwrap();
            out.insert(format!("{prefix}{module}.bias"), vec![dims[0]]);
        }
        out.insert(format!("{prefix}{key}"), dims);
    }
    out
}

/// The keys and shapes of one of the reference's files.
pub(crate) fn shapes(file: &Value) -> BTreeMap<String, Vec<usize>> {
    let parts = file["parts"].as_array().unwrap();
    parts.iter().flat_map(|p| list(p[0].as_str().unwrap(), p[1].as_str().unwrap())).collect()
}

/// The header of a safetensors file of these shapes in f32, and how many bytes follow it.
fn header<'a>(shapes: impl Iterator<Item = (&'a String, &'a Vec<usize>)>) -> (Vec<u8>, u64) {
    let mut map = serde_json::Map::new();
    let mut at = 0_u64;
    for (key, shape) in shapes {
        let end = at + 4 * shape.iter().product::<usize>() as u64;
        let entry =
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] });
        map.insert(key.clone(), entry);
        at = end;
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    (out, at)
}

/// A file of full size whose numbers are all zero and take no room on the disk.
pub(crate) fn hollow(folder: &Path, shapes: &BTreeMap<String, Vec<usize>>) -> PathBuf {
    let path = folder.join("hollow.safetensors");
    let (head, length) = header(shapes.iter());
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&head).unwrap();
    file.set_len(head.len() as u64 + length).unwrap();
    path
}

/// The tensors of a small model of the same kind: each dimension that 32 divides is smaller by 32, and
/// each number a function of its key and place, as in the script.
pub(crate) fn filled(shapes: &BTreeMap<String, Vec<usize>>) -> BTreeMap<String, Numbers> {
    let small = |n: &usize| if n.is_multiple_of(32) { n / 32 } else { *n };
    let tensor = |(key, shape): (&String, &Vec<usize>)| {
        let shape: Vec<usize> = shape.iter().map(small).collect();
        let start = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        }) as u32;
        let number = |i: usize| {
            let mixed = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(start);
            (mixed >> 8) as f32 / 16_777_216.0 - 0.5
        };
        let count = shape.iter().product();
        (key.clone(), (shape, (0..count).map(number).collect()))
    };
    shapes.iter().map(tensor).collect()
}

/// Writes tensors as a safetensors file.
pub(crate) fn write(path: &Path, tensors: &BTreeMap<String, Numbers>) {
    let (mut out, _) = header(tensors.iter().map(|(k, (s, _))| (k, s)));
    for (_, numbers) in tensors.values() {
        out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    }
    std::fs::write(path, out).unwrap();
}

/// Opens a file, whatever it lacks.
pub(crate) fn look(path: &Path) -> Opened {
    Parts::new(path.to_str().unwrap()).look().unwrap()
}

/// The digest of names and shapes, and with `numbers` of the stored bytes.
pub(crate) fn digest(set: &TensorSet, numbers: bool) -> String {
    let mut sum = Sha256::new();
    for name in set.names() {
        let shape = format!("{:?}", set.info(name).unwrap().shape).replace(' ', "");
        sum.update(format!("{name}{shape}\n"));
        if numbers {
            sum.update(&*set.raw(name).unwrap());
        }
    }
    sum.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
