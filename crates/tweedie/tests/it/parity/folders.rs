//! Components of every family, opened as the folders of users are and run as `tweedie forward` runs
//! them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tweedie::engine::{Engine, forward};
use tweedie::hub::{Dtype, Folder, Output, TensorFile, TensorSet, Values, write_safetensors};

/// The largest error that is let pass, in units of the largest output.
const TOLERANCE: f64 = 2e-5;

fn cases() -> Vec<(String, TensorFile)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let name = |p: &Path| p.file_stem().unwrap().to_string_lossy().into_owned();
    let folders = paths.iter().filter(|p| name(p).starts_with("folder_"));
    folders.map(|p| (name(p), TensorFile::open(p).unwrap())).collect()
}

/// The tensors of a fixture whose names begin with `prefix`, without it.
fn part(file: &TensorFile, prefix: &str) -> Vec<Output<'static>> {
    let names = file.names().filter_map(|n| n.strip_prefix(prefix));
    let one = |name: &str| {
        let full = format!("{prefix}{name}");
        let info = file.info(&full).unwrap();
        let whole = matches!(info.dtype, Dtype::I64);
        let values = if whole {
            Values::I64(file.read_i64(&full).unwrap().into())
        } else {
            Values::F32(file.read_f32(&full).unwrap().into())
        };
        Output { name: name.to_owned().into(), shape: info.shape, values, dtype: info.dtype }
    };
    names.map(one).collect()
}

/// A fixture as a folder on the disk, with its weights in `dtype`.
fn laid_out(file: &TensorFile, place: &Path, dtype: Dtype) -> (Folder, TensorSet) {
    let config = &file.metadata()["config"];
    std::fs::write(place.join("config.json"), config).unwrap();
    let stem = if config.contains("_class_name") { "diffusion_pytorch_model" } else { "model" };
    let weights: Vec<Output<'_>> =
        part(file, "weight.").into_iter().map(|w| Output { dtype, ..w }).collect();
    let none = BTreeMap::new();
    write_safetensors(place.join(format!("{stem}.safetensors")), &weights, &none).unwrap();
    let inputs = place.join("inputs.safetensors");
    write_safetensors(&inputs, &part(file, "input."), &none).unwrap();
    (Folder::open(place).unwrap(), TensorSet::open(inputs).unwrap())
}

#[test]
fn components_from_folders_as_published() {
    let engine = Engine::cpu(1).unwrap();
    let cases = cases();
    let mut families = BTreeMap::new();
    for (case, file) in &cases {
        let place = tempfile::tempdir().unwrap();
        let (folder, inputs) = laid_out(file, place.path(), Dtype::F32);
        let component = &file.metadata()["component"];
        let done =
            forward(&engine, &folder, component, &inputs).unwrap_or_else(|e| panic!("{case}: {e}"));
        *families.entry(done.class.clone()).or_insert(0) += 1;
        for wanted in part(file, "output.") {
            let found = done.outputs.iter().find(|o| o.name == wanted.name);
            let found = found.unwrap_or_else(|| panic!("{case}: no output `{}`", wanted.name));
            assert_eq!(found.shape, wanted.shape, "{case}: {}", wanted.name);
            let error = relative(found, &wanted);
            println!("{case}: {} is off by {error:.1e}", wanted.name);
            assert!(error <= TOLERANCE, "{case}: {} is off by {error:e}", wanted.name);
        }
    }
    for class in ["UNet2DModel", "UNet2DConditionModel", "ControlNetModel", "AutoencoderTiny"] {
        assert!(families[class] >= 3, "{class}");
    }
    assert_eq!(families.len(), 9, "{families:?}");
}

/// The largest difference over the largest wanted number.
fn relative(found: &Output<'_>, wanted: &Output<'_>) -> f64 {
    let (Values::F32(found), Values::F32(wanted)) = (&found.values, &wanted.values) else {
        panic!("real numbers");
    };
    let scale = wanted.iter().fold(0.0_f64, |m, v| m.max(f64::from(*v).abs()));
    assert!(scale > 0.02, "too quiet to tell: {scale}");
    let differences = found.iter().zip(wanted.iter()).map(|(a, b)| f64::from(*a) - f64::from(*b));
    differences.fold(0.0_f64, |m, d| m.max(d.abs())) / scale
}

/// The weights of the fixtures fit into 16 bits, so that both widths give the same bits.
#[test]
fn the_width_of_storage_does_not_matter() {
    let engine = Engine::cpu(1).unwrap();
    let cases = cases();
    for (case, file) in cases.iter().filter(|(case, _)| case.contains("sizes")) {
        let run = |dtype| {
            let place = tempfile::tempdir().unwrap();
            let (folder, inputs) = laid_out(file, place.path(), dtype);
            let component = &file.metadata()["component"];
            forward(&engine, &folder, component, &inputs).unwrap().outputs
        };
        for (a, b) in run(Dtype::F32).iter().zip(&run(Dtype::F16)) {
            assert_eq!(relative(a, b), 0.0, "{case}: {}", a.name);
        }
    }
}
