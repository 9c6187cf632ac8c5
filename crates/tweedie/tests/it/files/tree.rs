//! Parts that lie elsewhere: beside the file, in ComfyUI's tree, or where an option says.

use std::collections::BTreeMap;
use std::path::Path;

use tweedie::engine::wanted;
use tweedie::hub::{Parts, inspect};

use super::listing::{self, Numbers, digest};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The tensors of a file under a prefix, without it.
fn under(tensors: &BTreeMap<String, Numbers>, prefix: &str) -> BTreeMap<String, Numbers> {
    let inner = |(k, v): (&String, &Numbers)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone()));
    tensors.iter().filter_map(inner).collect()
}

#[test]
fn a_file_of_full_size_needs_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let expected = listing::expected();
    for name in ["sd1", "sd2", "sdxl", "refiner"] {
        let path = listing::hollow(root.path(), &listing::shapes(&expected["files"][name]));
        let opened = Parts::new(text(&path)).open().unwrap();
        let tokens = if name == "refiner" { "tokenizer_2" } else { "tokenizer" };
        let tokenizer = opened.folder.component(tokens).unwrap();
        let tokenizer = tweedie::hub::ClipTokenizer::read(&tokenizer).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.length()), (49408, 77));
        let pad = if name == "sd1" || name == "sdxl" { 49407 } else { 0 };
        assert_eq!(tokenizer.special()[2], pad, "{name}");
        let scheduler = opened.folder.component("scheduler").unwrap();
        tweedie::hub::SchedulerConfig::read(&scheduler).unwrap();
        // The networks here want exactly the tensors that the file gives.
        let report = inspect(&path, &wanted).unwrap();
        assert!(report.is_sound(), "{report}");
    }
}

#[test]
fn parts_are_found_in_the_tree_and_by_option() {
    let root = tempfile::tempdir().unwrap();
    let models = root.path().join("models");
    for folder in ["unet/deep", "vae", "text_encoders", "elsewhere"] {
        std::fs::create_dir_all(models.join(folder)).unwrap();
    }
    let file = listing::expected()["files"]["sd1"].clone();
    let all = listing::filled(&listing::shapes(&file));
    let unet = models.join("unet/deep/m.safetensors");
    listing::write(&unet, &under(&all, "model.diffusion_model."));
    let lost = Parts::new(text(&unet)).look().unwrap().missing;
    let names: Vec<&str> = lost.iter().map(|m| m.component.as_str()).collect();
    assert_eq!(names, ["vae", "text_encoder"]);
    let error = Parts::new(text(&unet)).open().unwrap_err().to_string();
    for says in ["vae is missing", "text_encoder is missing", "--clip-l", "models/vae", "deep"] {
        assert!(error.contains(says), "{says}: {error}");
    }
    let vae = under(&all, "first_stage_model.");
    listing::write(&models.join("vae/a.safetensors"), &vae);
    listing::write(
        &models.join("text_encoders/l.safetensors"),
        &under(&all, "cond_stage_model.transformer."),
    );
    let opened = Parts::new(text(&unet)).look().unwrap();
    for part in ["unet", "vae", "text_encoder"] {
        let set = opened.folder.component(part).unwrap().tensors().unwrap();
        assert_eq!(digest(&set, true), file["components"][part]["numbers"], "{part}");
    }
    // Two that fit are a question, unless one has the model's name; an option answers it.
    let mut other = vae.clone();
    other.get_mut("decoder.conv_in.bias").unwrap().1[0] = 7.0;
    listing::write(&models.join("vae/b.safetensors"), &other);
    let lost = Parts::new(text(&unet)).look().unwrap().missing;
    assert!(lost[0].why.contains("2 files fit"), "{lost:?}");
    let first = |parts: Parts| {
        let vae = parts.look().unwrap().folder.component("vae").unwrap().tensors().unwrap();
        vae.read_f32("decoder.conv_in.bias").unwrap()[0]
    };
    let elsewhere = models.join("elsewhere/c.safetensors");
    listing::write(&elsewhere, &other);
    assert_eq!(first(Parts::new(text(&unet)).vae(&elsewhere)), 7.0);
    listing::write(&models.join("unet/deep/m.vae.safetensors"), &other);
    assert_eq!(first(Parts::new(text(&unet))), 7.0);
    let error = Parts::new(text(&unet)).vae(&unet).look().unwrap_err().to_string();
    assert!(error.contains("wanted an autoencoder"), "{error}");
}

#[test]
fn what_is_no_model_is_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x.safetensors");
    let one = |key: &str| BTreeMap::from([(key.to_owned(), (vec![1], vec![0.5]))]);
    listing::write(&path, &one("lora_unet_down_blocks_0.lora_down.weight"));
    let error = Parts::new(text(&path)).open().unwrap_err().to_string();
    assert!(error.contains("looks like a LoRA"), "{error}");
    for name in ["no/such", "no/such/file.safetensors"] {
        let error = Parts::new(name).open().unwrap_err().to_string();
        assert!(error.contains("no/such") || error.contains("no--such"), "{error}");
    }
    // Damaged pieces of a model are one-line errors, not panics.
    let key = "model.diffusion_model.output_blocks.0.0.in_layers.0.weight";
    listing::write(&path, &one(key));
    let error = Parts::new(text(&path)).open().unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
}
