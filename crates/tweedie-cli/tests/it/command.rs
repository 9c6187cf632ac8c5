//! The command line as a person or a script meets it, on tiny models with drawn weights.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use serde_json::json;
use tweedie::hub::{ClipVocabulary, Dtype, ModelFolder, SchedulerClass, SchedulerConfig, outputs};
use tweedie::model::config::{
    AutoencoderKlConfig, ClipTextConfig, Config, UNet2DConditionConfig, UNet2DConfig,
};
use tweedie::model::{AutoencoderKl, ClipText, UNet2D, UNet2DCondition};
use tweedie::random::Key;
use tweedie::weight::Parameters;

/// Weights that make a network say something: a fresh one says zero.
fn drawn<T: Parameters>(mut network: T) -> T {
    let mut index = 0;
    network.each_mut("", &mut |_, weight| {
        index += 1;
        let mut generator = Key::new(5, 0, index).generator();
        let values = (0..weight.count()).map(|_| 0.15 * generator.normal() as f32).collect();
        weight.set_vec(values).unwrap();
    });
    network
}

fn config<C: Config>(settings: serde_json::Value) -> C {
    let mut all = serde_json::to_value(C::default()).unwrap();
    for (key, value) in settings.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

fn scheduler() -> SchedulerConfig {
    let mut scheduler = SchedulerConfig::new(SchedulerClass::DPMSolverMultistepScheduler);
    scheduler.timestep_spacing = tweedie::hub::scheduler::TimestepSpacing::Trailing;
    scheduler
}

/// A class-conditional model over 8x8 pixels.
pub(crate) fn pixels(folder: &Path) -> PathBuf {
    let config: UNet2DConfig = config(json!({
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "num_class_embeds": 4,
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1,
        "norm_num_groups": 4, "attention_head_dim": 8,
    }));
    let network = drawn(UNet2D::new(config.clone(), &Device::flex()).unwrap());
    let place = folder.join("pixels");
    ModelFolder::new("DDPMPipeline")
        .argument("id2label", json!({"0": "shirt", "1": "shoe", "2": "bag"}))
        .unwrap()
        .network("unet", &config, outputs(&network, Dtype::F16))
        .unwrap()
        .scheduler(&scheduler())
        .unwrap()
        .write(&place)
        .unwrap();
    place
}

/// A Stable Diffusion in miniature: 4x4 latents of 8x8 pictures.
pub(crate) fn latents(folder: &Path) -> PathBuf {
    latents_of(folder, 4)
}

/// The same, whose network sees further channels beside the four of the state.
pub(crate) fn latents_of(folder: &Path, channels: usize) -> PathBuf {
    let device = Device::flex();
    let vocabulary = ClipVocabulary::from_words(["red", "circle", "blue", "square", "a"]).unwrap();
    let [_, end] = vocabulary.special();
    let unet: UNet2DConditionConfig = config(json!({
        "sample_size": 4, "in_channels": channels, "out_channels": 4, "cross_attention_dim": 16,
        "block_out_channels": [8, 16], "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "layers_per_block": 1,
        "norm_num_groups": 4, "attention_head_dim": 2,
    }));
    let vae: AutoencoderKlConfig = config(json!({
        "sample_size": 8, "latent_channels": 4, "block_out_channels": [8, 8], "norm_num_groups": 4,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "layers_per_block": 1,
    }));
    let text: ClipTextConfig = config(json!({
        "vocab_size": vocabulary.len(), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16,
        "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end,
    }));
    let networks = (
        drawn(UNet2DCondition::new(unet.clone(), &device).unwrap()),
        drawn(AutoencoderKl::new(vae.clone(), &device).unwrap()),
        drawn(ClipText::new(text.clone(), &device).unwrap()),
    );
    let name = if channels == 4 { "latents".to_owned() } else { format!("latents-{channels}") };
    let place = folder.join(name);
    ModelFolder::new("StableDiffusionPipeline")
        .network("unet", &unet, outputs(&networks.0, Dtype::F16))
        .unwrap()
        .network("vae", &vae, outputs(&networks.1, Dtype::F16))
        .unwrap()
        .network("text_encoder", &text, outputs(&networks.2, Dtype::F16))
        .unwrap()
        .tokenizer(&vocabulary, 16)
        .unwrap()
        .scheduler(&scheduler())
        .unwrap()
        .write(&place)
        .unwrap();
    place
}

pub(crate) fn tweedie(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tweedie")).args(args).output().unwrap()
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs and returns the pixels of every PNG in the output folder, by name.
pub(crate) fn pictures(args: &[&str], out: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = args.to_vec();
    all.extend(["--out", path(out)]);
    let output = tweedie(&all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut files: Vec<_> = std::fs::read_dir(out)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| !path(p).contains("sheet"))
        .collect();
    files.sort();
    let read = |p: PathBuf| {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        (name, image::open(&p).unwrap().to_rgb8().into_raw())
    };
    files.into_iter().map(read).collect()
}

#[test]
fn a_seed_is_the_same_picture_at_any_batch_and_count_of_threads() {
    let temp = tempfile::tempdir().unwrap();
    for (model, what) in [(pixels(temp.path()), None), (latents(temp.path()), Some("a red circle"))]
    {
        let run = |batch: &str, threads: &str, count: &str, seed: &str| {
            let mut args =
                vec!["generate", "--model", path(&model), "--steps", "4", "--guidance", "2"];
            args.extend(["--count", count, "--seed", seed, "--batch", batch, "--threads", threads]);
            args.extend(what);
            let out = tempfile::tempdir().unwrap();
            pictures(&args, out.path())
        };
        let alone = run("1", "1", "8", "3");
        assert_eq!(alone.len(), 8);
        assert_ne!(alone[0].1, alone[1].1, "seeds differ");
        for (batch, threads) in [("3", "1"), ("8", "2"), ("1", "2"), ("8", "1")] {
            assert_eq!(run(batch, threads, "8", "3"), alone, "batch {batch}, threads {threads}");
        }
        // Nor does it hang on what memory is weighed against time by.
        for memory in ["small", "fast"] {
            let mut args = vec!["generate", "--model", path(&model), "--steps", "4"];
            args.extend(["--guidance", "2", "--count", "8", "--seed", "3", "--memory", memory]);
            args.extend(what);
            let out = tempfile::tempdir().unwrap();
            assert_eq!(pictures(&args, out.path()), alone, "memory {memory}");
        }
        if what.is_some() {
            let five = run("1", "1", "1", "5").remove(0);
            assert!(alone.contains(&five), "picture 2 of seed 3 is seed 5: {}", five.0);
        }
    }
}

#[test]
fn a_picture_repeats_from_its_own_record() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let (out, again) = (temp.path().join("out"), temp.path().join("again"));
    let mut args = vec!["generate", "a blue square", "--model", path(&model), "--steps", "3"];
    args.extend([
        "--negative",
        "red",
        "--sampler",
        "euler_a",
        "--grid",
        "karras:rho=5",
        "--count",
        "2",
    ]);
    let made = pictures(&args, &out);
    let second = out.join(&made[1].0);
    let args = ["generate", "--from", path(&second), "--model", path(&model)];
    let repeated = pictures(&args, &again);
    assert_eq!(repeated, made[1..]);
    assert_eq!(std::fs::read(&second).unwrap(), std::fs::read(again.join(&made[1].0)).unwrap());
    // The record names no path, and a model of another hash is refused.
    let bytes = std::fs::read(&second).unwrap();
    let folder = path(temp.path()).as_bytes();
    assert!(!bytes.windows(folder.len()).any(|w| w == folder));
    let other = pixels(temp.path());
    refused(&["generate", "--from", path(&second), "--model", path(&other)], "hash");
    refused(&["generate", "--from", path(&second)], "--model");
}

/// A refusal: a non-zero exit, one line that names the culprit, no panic.
pub(crate) fn refused(args: &[&str], culprit: &str) {
    let output = tweedie(args);
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter(|l| l.starts_with("error: ")).collect();
    assert!(!output.status.success(), "{args:?} went through");
    assert_eq!(errors.len(), 1, "{args:?}: {said}");
    assert!(errors[0].contains(culprit), "{args:?}: wanted `{culprit}` in: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let temp = tempfile::tempdir().unwrap();
    let model = pixels(temp.path());
    let out = temp.path().join("never");
    let with = |more: &[&str], culprit: &str| {
        let mut args = vec!["generate", "--model", path(&model), "--out", path(&out)];
        args.extend(more);
        refused(&args, culprit);
    };
    with(&["--sampler", "eulr"], "euler");
    with(&["--sampler", "ddim:etta=1"], "eta");
    with(&["--grid", "karas"], "karras");
    with(&["--steps", "0"], "steps");
    with(&["--steps", "100000000"], "steps");
    with(&["--count", "0"], "count");
    with(&["--width", "0"], "width");
    with(&["--guidance", "inf"], "guidance");
    with(&["--class", "77"], "77");
    with(&["trousers"], "trousers");
    with(&["--noise", path(&model.join("model_index.json"))], "model_index.json");
    with(&["--guide", "cfgg"], "cfg");
    refused(&["generate", "--model", "builtin:nothing"], "builtin:nothing");
    refused(&["generate", "--model", path(&temp.path().join("no"))], "no");
    refused(&["generate", "--from", path(&model.join("model_index.json"))], "PNG");
    refused(&["methods", "eulr"], "euler");
    refused(&["inspect", path(&temp.path().join("no"))], "no");
    refused(&["train", path(&temp.path().join("no.toml"))], "no.toml");
    assert!(!out.exists(), "nothing was written");
}

#[test]
fn a_broken_model_folder_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let model = pixels(temp.path());
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    let settings = model.join("unet/config.json");
    let (whole, text) =
        (std::fs::read(&weights).unwrap(), std::fs::read_to_string(&settings).unwrap());
    let broken = |weights_now: &[u8], settings_now: &str, culprit: &str| {
        std::fs::write(&weights, weights_now).unwrap();
        std::fs::write(&settings, settings_now).unwrap();
        let out = temp.path().join("never");
        refused(&["generate", "--model", path(&model), "--out", path(&out)], culprit);
    };
    broken(&whole[..whole.len() / 2], &text, "diffusion_pytorch_model.safetensors");
    let mut claims = whole.clone();
    claims[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    broken(&claims, &text, "diffusion_pytorch_model.safetensors");
    broken(&whole, &text.replace("\"layers_per_block\": 1", "\"layers_per_block\": 2"), "missing");
    broken(
        &whole,
        &text.replace("\"layers_per_block\"", "\"layers_per_blok\""),
        "layers_per_block",
    );
    broken(&whole, &text.replace("\"sample_size\": 8", "\"sample_size\": 0"), "sample_size");
    broken(&whole, "{", "config.json");
}

#[test]
fn reports_are_json_on_request() {
    let temp = tempfile::tempdir().unwrap();
    let model = pixels(temp.path());
    let out = temp.path().join("one.png");
    let args = [
        "generate",
        "shoe",
        "--model",
        path(&model),
        "--steps",
        "2",
        "--json",
        "--out",
        path(&out),
    ];
    let output = tweedie(&args);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["classes"], json!([1]));
    assert_eq!(report["evaluations"], 2);
    assert!(out.is_file());
    let listed = tweedie(&["methods", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(list.as_array().unwrap().iter().any(|m| m["card"]["id"] == "unipc"));
    let seen = tweedie(&["inspect", path(&model), "--json"]);
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen["class"], "DDPMPipeline");
}
