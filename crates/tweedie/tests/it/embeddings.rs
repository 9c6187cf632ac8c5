//! Learned embeddings of every layout in prompts, against diffusers.
//!
//! The fixtures are written by `tools/parity/tiny.py` and `tools/parity/embeddings.py`.

use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use tweedie::engine::{Model, Reading};
use tweedie::hub::{Embedding, TensorFile};

use crate::pipelines::{data, pipeline};

#[derive(Deserialize)]
struct Case {
    model: String,
    prompt: String,
    files: Vec<String>,
}

fn numbers<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data_as::<f32>().iter::<f32>().collect()
}

fn model(name: &str) -> Model {
    Model::open(&pipeline(name).to_string_lossy(), &Device::flex()).unwrap()
}

fn embedding(file: &str, name: Option<&str>) -> Embedding {
    Embedding::open(data("embeddings").join(file), name).unwrap()
}

fn compare(name: &str) -> usize {
    let file = TensorFile::open(data("embeddings/references.safetensors")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&file.metadata()["cases"]).unwrap();
    let plain = model(name);
    let mut count = 0;
    for (at, case) in cases.iter().enumerate().filter(|(_, c)| c.model == name) {
        let files: Vec<Embedding> = case.files.iter().map(|f| embedding(f, None)).collect();
        let model = plain.with_embeddings(&files).unwrap();
        let of = |model: &Model| {
            let text = model.text.as_ref().unwrap();
            text.encode(&[&case.prompt], Reading::default()).unwrap().remove(0)
        };
        let made = of(&model);
        let near = |key: String, found: Vec<f32>| {
            let wanted = file.read_f32(&key).unwrap();
            assert_eq!(found.len(), wanted.len());
            let error = found.iter().zip(&wanted).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(error < 2e-5, "{:?} is off by {error:e}", case.prompt);
        };
        near(format!("{at}.context"), numbers(&made.context));
        if file.contains(&format!("{at}.pooled")) {
            near(format!("{at}.pooled"), numbers(&made.pooled));
        }
        assert_ne!(numbers(&of(&plain).context), numbers(&made.context));
        count += 1;
    }
    count
}

#[test]
fn embeddings_of_every_layout_as_elsewhere() {
    assert_eq!(compare("one"), 4);
}

#[test]
fn embeddings_of_two_encoders_as_elsewhere() {
    assert_eq!(compare("two"), 1);
}

#[test]
fn a_name_that_is_given_counts_and_weights_act() {
    let plain = model("one");
    let text = |files: &[Embedding], prompt: &str| {
        let model = plain.with_embeddings(files).unwrap();
        let text = model.text.as_ref().unwrap();
        numbers(&text.encode(&[prompt], Reading::default()).unwrap()[0].context)
    };
    let ink = [embedding("ink.safetensors", None)];
    let drawn = [embedding("ink.safetensors", Some("drawn-style"))];
    let wanted = text(&ink, "a star, ink");
    assert_eq!(text(&drawn, "a star, DRAWN-style"), wanted);
    assert_eq!(text(&drawn, "a star, embedding:drawn-style"), wanted);
    assert_ne!(text(&drawn, "a star, ink"), wanted);
    assert_ne!(text(&ink, "a star, (ink:1.3)"), wanted);
    // Three vectors take three of the window's 22 places.
    let words = "red ".repeat(20);
    let model = plain.with_embeddings(&ink).unwrap();
    let made = model.text.as_ref().unwrap().encode(&[&format!("{words}ink")], Reading::default());
    assert_eq!(made.unwrap()[0].context.dims()[1], 48);
}

#[test]
fn another_width_names_file_key_found_and_wanted() {
    let error = model("one").with_embeddings(&[embedding("pair.safetensors", None)]);
    let error = error.map(|_| ()).unwrap_err().to_string();
    for part in ["pair.safetensors", "`clip_g`", "width 16 for text_encoder", "found width 12"] {
        assert!(error.contains(part), "{error}");
    }
}
