//! Files to folders and back.

use serde_json::{Map, Value};
use tweedie::hub::{Dtype, Folder, Target, convert};

use super::listing::{self, digest, look};

/// Settings without the writers' notes.
fn plain(config: &Map<String, Value>) -> Map<String, Value> {
    let note = |k: &str| k.starts_with('_') || ["architectures", "model_type"].contains(&k);
    config.iter().filter(|(k, _)| !note(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[test]
fn there_and_back_keeps_every_bit() {
    let expected = listing::expected();
    for name in ["sd1", "sd2", "sdxl", "refiner", "controlnet"] {
        let root = tempfile::tempdir().unwrap();
        let at = |file: &str| root.path().join(file);
        let file = &expected["files"][name];
        listing::write(&at("one.safetensors"), &listing::filled(&listing::shapes(file)));
        let one = look(&at("one.safetensors")).folder;
        convert(&one, &at("folder"), Target::Folder, None).unwrap();
        let folder = Folder::open(at("folder")).unwrap();
        convert(&folder, &at("two.safetensors"), Target::File, None).unwrap();
        let two = look(&at("two.safetensors")).folder;
        for (part, wanted) in file["components"].as_object().unwrap() {
            for model in [&folder, &two] {
                let component = model.component(part).unwrap();
                let found = digest(&component.tensors().unwrap(), true);
                assert_eq!(found, wanted["numbers"], "{name}/{part} of {}", model.name());
                assert_eq!(plain(&component.config), plain(&one.component(part).unwrap().config));
            }
        }
        convert(&two, &at("again"), Target::Folder, None).unwrap();
        convert(&Folder::open(at("again")).unwrap(), &at("three.safetensors"), Target::File, None)
            .unwrap();
        let bytes = |f: &str| std::fs::read(at(f)).unwrap();
        assert!(bytes("two.safetensors") == bytes("three.safetensors"), "{name}");
        // The file has the original keys: everything of the first that is used, under the same name.
        let [first, second] = ["one.safetensors", "two.safetensors"]
            .map(|f| tweedie::hub::TensorFile::open(at(f)).unwrap());
        for key in second.names() {
            assert_eq!(first.raw(key).unwrap(), second.raw(key).unwrap(), "{name}: {key}");
            assert_eq!(first.info(key).unwrap().shape, second.info(key).unwrap().shape);
        }
    }
}

#[test]
fn numbers_become_narrower() {
    let expected = listing::expected();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("one.safetensors");
    let tensors = listing::filled(&listing::shapes(&expected["files"]["controlnet"]));
    listing::write(&path, &tensors);
    let model = look(&path).folder;
    let original = model.component("").unwrap().tensors().unwrap();
    for (dtype, most) in [
        (Dtype::F16, 2.5e-4),
        (Dtype::BF16, 2e-3),
        (Dtype::F8_E4M3, 0.032),
        (Dtype::F8_E5M2, 0.063),
    ] {
        let to = root.path().join(format!("{dtype:?}.safetensors"));
        convert(&model, &to, Target::File, Some(dtype)).unwrap();
        let narrow = look(&to).folder.component("").unwrap().tensors().unwrap();
        let mut worst = 0.0_f32;
        for name in original.names() {
            assert_eq!(narrow.info(name).unwrap().dtype, dtype);
            let [a, b] = [&original, &narrow].map(|s| s.read_f32(name).unwrap());
            worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
        }
        assert!(worst > 0.0 && worst <= most, "{dtype:?}: {worst}");
    }
}
