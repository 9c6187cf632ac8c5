//! The state of a run in one file: weights, average, moments, step and data position.
//!
//! Everything is stored under the parameter's path, as `weight:PATH`, `ema:PATH`, `first:PATH` and
//! `second:PATH`, so that a moment can never be lost silently: each that is stored must find its
//! parameter and each parameter its four tensors, or nothing is resumed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::optimiser::{Optimiser, Slot, beside};
use crate::error::{Error, Result};
use crate::hub::{Dtype, Output, TensorFile, write_safetensors};
use crate::weight::Parameters;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Position {
    /// Steps taken.
    pub step: u64,
    /// Examples shown.
    pub shown: u64,
    /// Seconds trained, over all parts of the run.
    pub seconds: f64,
    /// The configuration's hash.
    pub config: String,
}

const KINDS: [&str; 4] = ["weight", "ema", "first", "second"];
const VERSION: &str = "1";

/// Writes a checkpoint, whole or not at all.
///
/// # Errors
///
/// What the system says; the file that was there before stays then.
pub fn save(
    file: &Path,
    network: &(impl Parameters + ?Sized),
    optimiser: &Optimiser,
    position: &Position,
) -> Result<()> {
    let mut held: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    network.each("", &mut |path, weight| {
        held.push((format!("weight:{path}"), weight.shape().to_vec(), weight.to_vec()));
    });
    for slot in optimiser.slots() {
        let tensors = [("ema", &slot.ema), ("first", &slot.first), ("second", &slot.second)];
        for (kind, tensor) in tensors {
            let data = tensor.clone().into_data_as::<f32>();
            let name = format!("{kind}:{}", slot.path);
            held.push((name, slot.shape.clone(), data.iter::<f32>().collect()));
        }
    }
    let tensors: Vec<Output<'_>> =
        held.iter().map(|(n, s, v)| Output::f32(n, s, v, Dtype::F32)).collect();
    let metadata = BTreeMap::from([
        ("tweedie.checkpoint".to_owned(), VERSION.to_owned()),
        ("step".to_owned(), position.step.to_string()),
        ("shown".to_owned(), position.shown.to_string()),
        ("seconds".to_owned(), format!("{:.3}", position.seconds)),
        ("config".to_owned(), position.config.clone()),
    ]);
    write_safetensors(file, &tensors, &metadata)
}

/// Reads a checkpoint into a network, and returns what stands beside it.
///
/// # Errors
///
/// [`Error::Format`] where the file is no checkpoint, is of another configuration, holds a tensor
/// that no parameter answers to, or lacks one; the network is unchanged then.
pub fn load(
    file: &Path,
    network: &mut (impl Parameters + ?Sized),
    config: &str,
) -> Result<(Optimiser, Position)> {
    let tensors = TensorFile::open(file)?;
    let position = position(file, &tensors)?;
    if position.config != config {
        let why = format!(
            "is of another configuration ({}, wanted {config}): seed, batch, data, network or \
             objective have changed",
            position.config
        );
        return Err(Error::format(file, "config", why));
    }
    check(file, &tensors, network)?;
    let mut slots = Vec::new();
    let mut result = Ok(());
    network.each_mut("", &mut |path, weight| {
        if result.is_err() {
            return;
        }
        result = (|| {
            let read = |kind: &str| tensors.read_f32(&format!("{kind}:{path}"));
            let (value, ema) = (read("weight")?, read("ema")?);
            let (first, second) = (read("first")?, read("second")?);
            weight.set_vec(value)?;
            let like = weight.value();
            slots.push(Slot {
                path: path.to_owned(),
                shape: weight.shape().to_vec(),
                first: beside(&like, first),
                second: beside(&like, second),
                ema: beside(&like, ema),
            });
            Ok(())
        })();
    });
    result.map(|()| (Optimiser::of_slots(slots), position))
}

/// Only the weights of a checkpoint, or their average, without the rest: for judging and for
/// starting another run.
///
/// # Errors
///
/// As [`load`], but for the configuration.
pub fn load_weights(
    file: &Path,
    network: &mut (impl Parameters + ?Sized),
    average: bool,
) -> Result<Position> {
    let tensors = TensorFile::open(file)?;
    let position = position(file, &tensors)?;
    check(file, &tensors, network)?;
    let kind = if average { "ema" } else { "weight" };
    let mut result = Ok(());
    network.each_mut("", &mut |path, weight| {
        if result.is_ok() {
            result = tensors.read_f32(&format!("{kind}:{path}")).and_then(|v| weight.set_vec(v));
        }
    });
    result.map(|()| position)
}

fn position(file: &Path, tensors: &TensorFile) -> Result<Position> {
    let metadata = tensors.metadata();
    let text = |key: &str| {
        metadata.get(key).ok_or_else(|| Error::format(file, key, "is no training checkpoint"))
    };
    let version = text("tweedie.checkpoint")?;
    if version != VERSION {
        let why = format!("wanted version {VERSION}, found {version}");
        return Err(Error::format(file, "tweedie.checkpoint", why));
    }
    let number = |key: &str| {
        let found = text(key)?;
        found.parse().map_err(|_| Error::format(file, key, format!("`{found}` is no count")))
    };
    let seconds = text("seconds")?;
    let seconds = seconds.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0);
    Ok(Position {
        step: number("step")?,
        shown: number("shown")?,
        seconds: seconds.ok_or_else(|| Error::format(file, "seconds", "is no duration"))?,
        config: text("config")?.clone(),
    })
}

/// Every tensor must find its parameter and every parameter its tensors.
fn check(file: &Path, tensors: &TensorFile, network: &(impl Parameters + ?Sized)) -> Result<()> {
    let mut wanted = BTreeSet::new();
    let mut result = Ok(());
    network.each("", &mut |path, weight| {
        for kind in KINDS {
            let name = format!("{kind}:{path}");
            if result.is_ok() {
                result = match tensors.info(&name) {
                    Ok(info) if info.shape == weight.shape() => Ok(()),
                    Ok(info) => Err(Error::format(
                        file,
                        &name,
                        format!("wanted shape {:?}, found {:?}", weight.shape(), info.shape),
                    )),
                    Err(_) => Err(Error::format(file, &name, "is missing")),
                };
            }
            wanted.insert(name);
        }
    });
    result?;
    match tensors.names().find(|n| !wanted.contains(*n)) {
        None => Ok(()),
        Some(odd) => Err(Error::format(file, odd, "finds no parameter of the network")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight::{Initial, Weight};
    use burn::tensor::Device;

    struct Net {
        a: Weight,
        b: Weight,
    }
    crate::parameters!(Net { a, "c.b" => b });

    fn net(rows: usize) -> Net {
        let device = Device::flex();
        let mut net = Net {
            a: Weight::new([rows, 3], Initial::Normal(1.0), &device),
            b: Weight::new([3], Initial::Uniform(0.5), &device),
        };
        crate::weight::draw(&mut net, 4).unwrap();
        net
    }

    struct Alone {
        a: Weight,
    }
    crate::parameters!(Alone { a });

    #[test]
    fn what_is_saved_comes_back_and_nothing_else_fits() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.safetensors");
        let saved = net(2);
        let optimiser = Optimiser::new(&saved);
        let position = Position { step: 9, shown: 72, seconds: 1.5, config: "abc".to_owned() };
        save(&file, &saved, &optimiser, &position).unwrap();
        let mut back = net(2);
        back.a.set_vec(vec![0.0; 6]).unwrap();
        let (optimiser, found) = load(&file, &mut back, "abc").unwrap();
        assert_eq!(found, position);
        assert_eq!(back.a.to_vec(), saved.a.to_vec());
        assert_eq!(optimiser.slots()[1].path, "c.b");
        let other = load(&file, &mut back, "abd").unwrap_err().to_string();
        assert!(other.contains("another configuration"), "{other}");
        let shape = load(&file, &mut net(4), "abc").unwrap_err().to_string();
        assert!(shape.contains("`weight:a`: wanted shape [4, 3], found [2, 3]"), "{shape}");
        let mut alone = Alone { a: saved.a.clone() };
        let orphan = load(&file, &mut alone, "abc").unwrap_err().to_string();
        assert!(orphan.contains("c.b`: finds no parameter"), "{orphan}");
        save(&file, &alone, &Optimiser::new(&alone), &position).unwrap();
        let missing = load(&file, &mut back, "abc").unwrap_err().to_string();
        assert!(missing.contains("`weight:c.b`: is missing"), "{missing}");
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.safetensors");
        let plain = [1.0_f32; 6];
        let tensors = [Output::f32("a", &[2, 3], &plain, Dtype::F32)];
        write_safetensors(&file, &tensors, &BTreeMap::new()).unwrap();
        let said = load(&file, &mut net(2), "").unwrap_err().to_string();
        assert!(said.contains("is no training checkpoint"), "{said}");
        std::fs::write(&file, b"junk").unwrap();
        assert!(load(&file, &mut net(2), "").is_err());
    }
}
