use std::collections::BTreeMap;

use super::*;
use crate::hub::{Dtype, Output, encode_safetensors};

const INDEX_TEXT: &[u8] = br#"{"_class_name":"StableDiffusionPipeline",
    "_diffusers_version":"0.42.0","unet":["diffusers","UNet2DConditionModel"],
    "scheduler":["diffusers","DDIMScheduler"],"safety_checker":[null,null],
    "requires_safety_checker":false}"#;

fn weights(value: f32) -> Vec<u8> {
    let tensor = [value];
    let tensor = Output::f32("w", &[1], &tensor, Dtype::F32);
    encode_safetensors(&[tensor], &BTreeMap::new()).unwrap()
}

fn model() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: &[u8]| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    put("model_index.json", INDEX_TEXT);
    put("scheduler/scheduler_config.json", b"{\"_class_name\":\"DDIMScheduler\"}");
    put("unet/config.json", b"{\"_class_name\":\"UNet2DConditionModel\",\"in_channels\":4}");
    put("unet/diffusion_pytorch_model.safetensors", &weights(1.0));
    root
}

#[test]
fn a_folder_on_the_disk() {
    let root = model();
    let folder = Folder::open(root.path()).unwrap();
    let index = folder.index().unwrap();
    assert_eq!(index.class, "StableDiffusionPipeline");
    assert_eq!(index.absent, ["safety_checker"]);
    assert_eq!(index.arguments["requires_safety_checker"], false);
    assert_eq!(folder.components().collect::<Vec<_>>(), ["unet", "scheduler"]);
    let unet = folder.component("unet").unwrap();
    assert_eq!(
        (unet.class.as_str(), &unet.config["in_channels"]),
        ("UNet2DConditionModel", &4.into())
    );
    assert_eq!(unet.tensors().unwrap().read_f32("w").unwrap(), [1.0]);
    assert!(!folder.component("scheduler").unwrap().has_weights());
    assert_eq!(folder.files().unwrap().len(), 4);
    let error = |name: &str| folder.component(name).unwrap_err().to_string();
    assert!(error("unett").contains("did you mean `unet`"));
    assert!(error("safety_checker").contains("leaves it out"));
    assert!(folder.component("scheduler").unwrap().tensors().is_err());
}

#[test]
fn variants_fall_back_to_plain_weights() {
    let root = model();
    let unet = root.path().join("unet");
    let component = || Folder::open(root.path()).unwrap().component("unet").unwrap();
    let read = |v: Option<&str>| {
        let weights = component().weights(v).unwrap();
        (weights.tensors.read_f32("w").unwrap()[0], weights.variant)
    };
    assert_eq!(read(Some("fp16")), (1.0, false));
    std::fs::write(unet.join("diffusion_pytorch_model.fp16.safetensors"), weights(2.0)).unwrap();
    assert_eq!(read(Some("fp16")), (2.0, true));
    assert_eq!(read(None), (1.0, false));
    std::fs::remove_file(unet.join("diffusion_pytorch_model.fp16.safetensors")).unwrap();
    // Shards of a variant, in the new form and in the old one.
    std::fs::write(unet.join("part.safetensors"), weights(3.0)).unwrap();
    let index = br#"{"metadata":{"total_size":4},"weight_map":{"w":"part.safetensors"}}"#;
    for name in ["index.fp16.json", "fp16.index.json"] {
        let path = unet.join(format!("diffusion_pytorch_model.safetensors.{name}"));
        std::fs::write(&path, index).unwrap();
        assert_eq!(read(Some("fp16")), (3.0, true));
        std::fs::remove_file(path).unwrap();
    }
    std::fs::rename(
        unet.join("diffusion_pytorch_model.safetensors"),
        unet.join("diffusion_pytorch_model.bf16.safetensors"),
    )
    .unwrap();
    let error = component().weights(Some("fp16")).unwrap_err().to_string();
    assert!(error.contains("variants: bf16"), "{error}");
    assert!(component().has_weights());
    assert!(component().weights(Some("../x")).is_err());
}

#[test]
fn a_folder_in_the_binary_and_a_single_component() {
    let bytes: &'static [u8] = weights(4.0).leak();
    let files: Embedded = vec![
        ("config.json", b"{\"architectures\":[\"CLIPTextModel\"]}".as_slice()),
        ("model.safetensors", bytes),
    ]
    .leak();
    let folder = Folder::embedded("builtin:x", files).unwrap();
    assert_eq!(folder.components().collect::<Vec<_>>(), [""]);
    let only = folder.component("").unwrap();
    assert_eq!(only.class, "CLIPTextModel");
    assert_eq!(only.tensors().unwrap().read_f32("w").unwrap(), [4.0]);
    assert!(folder.component("unet").is_err());
    let error = only.json("none.json").unwrap_err().to_string();
    assert!(error.starts_with("builtin:x/none.json: "), "{error}");
}

#[test]
fn a_model_has_one_hash() {
    let (one, two) = (model(), model());
    let hash = |root: &tempfile::TempDir| Folder::open(root.path()).unwrap().sha256().unwrap();
    std::fs::write(one.path().join("README.md"), "a card").unwrap();
    assert_eq!(hash(&one), hash(&two));
    assert_eq!(hash(&one).len(), 64);
    std::fs::write(two.path().join("unet/config.json"), "{}").unwrap();
    assert_ne!(hash(&one), hash(&two));
}

#[test]
fn nothing_leads_out_of_a_folder() {
    let root = model();
    std::fs::write(root.path().join("unet/secret.json"), "{}").unwrap();
    let inner = Folder::open(root.path().join("scheduler")).unwrap();
    for path in
        ["../unet/secret.json", "/etc/passwd", "a/../../unet/secret.json", "..\\x", "", "a//b"]
    {
        assert!(!inner.exists(path) && inner.text(path).is_err() && inner.json(path).is_err());
    }
    let index = r#"{"_class_name":"X","../unet":["diffusers","UNet2DModel"]}"#;
    std::fs::write(root.path().join("model_index.json"), index).unwrap();
    let error = Folder::open(root.path()).unwrap_err().to_string();
    assert!(error.contains("`../unet`"), "{error}");
}

#[test]
fn what_is_no_model_folder() {
    let root = tempfile::tempdir().unwrap();
    let error = Folder::open(root.path()).unwrap_err().to_string();
    assert!(error.contains("neither model_index.json nor config.json"), "{error}");
    assert!(Folder::open(root.path().join("no")).is_err());
    std::fs::write(root.path().join("model_index.json"), "{\"unet\":[").unwrap();
    let error = Folder::open(root.path()).unwrap_err().to_string();
    assert!(error.contains("model_index.json: not valid JSON"), "{error}");
}
