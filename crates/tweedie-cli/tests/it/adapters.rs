//! LoRAs and learned embeddings on the command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use tweedie::hub::{Dtype, Output, write_safetensors};

use crate::command::{latents, path, pictures, refused};

const VALUES: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v";

/// A file of tensors whose numbers are loud.
fn file(at: PathBuf, tensors: &[(String, Vec<usize>)]) -> PathBuf {
    let values: Vec<Vec<f32>> = tensors
        .iter()
        .map(|(_, shape)| (0..shape.iter().product()).map(|i| (i as f32).sin() * 2.0).collect())
        .collect();
    let outputs: Vec<Output<'_>> = tensors
        .iter()
        .zip(&values)
        .map(|((name, shape), values)| Output::f32(name, shape, values, Dtype::F32))
        .collect();
    write_safetensors(&at, &outputs, &std::collections::BTreeMap::new()).unwrap();
    at
}

fn lora(folder: &Path, name: &str, module: &str) -> PathBuf {
    let tensors = [
        (format!("{module}.lora_down.weight"), vec![2, 8]),
        (format!("{module}.lora_up.weight"), vec![8, 2]),
    ];
    file(folder.join(format!("{name}.safetensors")), &tensors)
}

fn joined<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [first, more].concat()
}

#[test]
fn a_lora_acts_is_recorded_and_repeats() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let loras = temp.path().join("loras");
    std::fs::create_dir(&loras).unwrap();
    let ink = lora(&loras, "ink", VALUES);
    let strong = format!("{}:2", path(&ink));
    let made = |name: &str, prompt: &str, more: &[&str]| {
        let mut args = vec!["generate", prompt, "--model", path(&model), "--steps", "2"];
        args.extend(more);
        let out = temp.path().join(name);
        (pictures(&args, &out).remove(0).1, out.join("latents-0.png"))
    };
    let (plain, _) = made("plain", "a red circle", &[]);
    let (once, _) = made("once", "a red circle", &["--lora", path(&ink)]);
    let (twice, picture) = made("twice", "a red circle", &["--lora", &strong]);
    assert!(plain != once && once != twice);
    assert_eq!(made("off", "a red circle", &["--lora", &format!("{}:0", path(&ink))]).0, plain);
    let tag = "a red circle <lora:ink:2>";
    assert_eq!(made("tag", tag, &["--lora-dir", path(&loras)]).0, twice);
    // The record has the name and the hash, and no path.
    let bytes = std::fs::read(&picture).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(has("Lora hashes: ") && has("\"loras\"") && !has(path(temp.path())));
    let again = ["generate", "--from", path(&picture), "--model", path(&model)];
    refused(&again, "--lora");
    for (name, more) in [("file", ["--lora", path(&ink)]), ("dir", ["--lora-dir", path(&loras)])] {
        let repeated = pictures(&joined(&again, &more), &temp.path().join(format!("again-{name}")));
        assert_eq!(repeated[0].1, twice, "{name}");
    }
    // Another file of the same name is another LoRA.
    let other = lora(temp.path(), "ink", &VALUES.replace("to_v", "to_k"));
    refused(&joined(&again, &["--lora", path(&other)]), "ink");
}

#[test]
fn a_lora_that_does_not_fit_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let out = temp.path().join("never");
    let with = |prompt: &str, more: &[&str], culprit: &str| {
        let mut args =
            vec!["generate", prompt, "--model", path(&model), "--out", path(&out), "--steps", "1"];
        args.extend(more);
        refused(&args, culprit);
    };
    let stranger = lora(temp.path(), "stranger", "lora_unet_nothing_of_the_model");
    with("a", &["--lora", path(&stranger), "--lora-partial"], "stranger.safetensors");
    let wide = lora(temp.path(), "wide", &VALUES.replace("attn1_to_v", "attn2_to_k"));
    with("a", &["--lora", path(&wide)], "attn2_to_k.lora_down.weight");
    with("a", &["--lora", "no/such.safetensors"], "no/such.safetensors");
    with("a <lora:ink>", &[], "--lora-dir");
    with("a <lora:ink>", &["--lora-dir", path(temp.path())], "ink");
    with("a <lora:ink:x>", &[], "<lora:ink");
    with("a", &["--clip-skip", "40"], "clip_skip");
    with("a (b:1e9", &["--emphasis", "loud"], "loud");
    // With a part that fits it is an error that says how to allow it, and counts when it is allowed.
    let tensors = [VALUES, "lora_unet_nothing_of_the_model"].iter().flat_map(|module| {
        [
            (format!("{module}.lora_A.weight"), vec![2, 8]),
            (format!("{module}.lora_B.weight"), vec![8, 2]),
        ]
    });
    let tensors: Vec<_> = tensors.collect();
    let half = file(temp.path().join("half.safetensors"), &tensors);
    with("a", &["--lora", path(&half)], "--lora-partial");
    let output = Command::new(env!("CARGO_BIN_EXE_tweedie"))
        .args(["generate", "a", "--model", path(&model), "--steps", "1"])
        .args(["--out", path(&out), "--lora", path(&half), "--lora-partial"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 of 2 modules matched (1 in unet"), "{said}");
    assert!(said.contains("1 entries unmatched"), "{said}");
}

#[test]
fn a_learned_word_acts_is_recorded_and_repeats() {
    let temp = tempfile::tempdir().unwrap();
    let model = latents(temp.path());
    let word =
        file(temp.path().join("glow.safetensors"), &[("emb_params".to_owned(), vec![2, 16])]);
    let named = format!("{}:shine", path(&word));
    let made = |name: &str, prompt: &str, more: &[&str]| {
        let mut args = vec!["generate", prompt, "--model", path(&model), "--steps", "2"];
        args.extend(more);
        let out = temp.path().join(name);
        (pictures(&args, &out).remove(0).1, out.join("latents-0.png"))
    };
    let (plain, _) = made("plain", "a red glow", &[]);
    let (with, picture) = made("with", "a red glow", &["--embedding", path(&word)]);
    assert_ne!(plain, with);
    assert_eq!(made("named", "a red shine", &["--embedding", &named]).0, with);
    let again = ["generate", "--from", path(&picture), "--model", path(&model)];
    refused(&again, "--embedding");
    let more = [&again[..], &["--embedding", path(&word)]].concat();
    assert_eq!(pictures(&more, &temp.path().join("again"))[0].1, with);
    let wide =
        file(temp.path().join("wide.safetensors"), &[("emb_params".to_owned(), vec![2, 20])]);
    let out = temp.path().join("never");
    refused(
        &[
            "generate",
            "a",
            "--model",
            path(&model),
            "--out",
            path(&out),
            "--embedding",
            path(&wide),
        ],
        "width 16",
    );
}
