//! Prompts through the text side of tiny pipelines, against diffusers where there is no markup and
//! against A1111's published formula where there is.
//!
//! The fixtures are written by `tools/parity/tiny.py` and `tools/parity/prompts.py`.

use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use tweedie::engine::{Model, Reading, Text};
use tweedie::hub::TensorFile;

use crate::pipelines::{data, pipeline};

/// The largest error that is let pass, in units of the largest number.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Case {
    model: String,
    prompt: String,
    negative: String,
    how: String,
    clip_skip: Option<usize>,
}

fn fixture() -> (TensorFile, Vec<Case>) {
    let file = TensorFile::open(data("prompts.safetensors")).unwrap();
    let cases = serde_json::from_str(&file.metadata()["cases"]).unwrap();
    (file, cases)
}

fn text(model: &str) -> Text {
    let model = Model::open(&pipeline(model).to_string_lossy(), &Device::flex()).unwrap();
    model.text.clone().unwrap()
}

fn reading(case: &Case) -> Reading {
    Reading { emphasis: case.how.parse().unwrap(), clip_skip: case.clip_skip }
}

fn numbers<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data_as::<f32>().iter::<f32>().collect()
}

fn check<const D: usize>(file: &TensorFile, name: &str, found: &Tensor<D>, case: &Case) {
    if !file.contains(name) {
        return;
    }
    let (found, wanted) = (numbers(found), file.read_f32(name).unwrap());
    assert_eq!(found.len(), wanted.len(), "{name}: {}", case.prompt);
    let scale = wanted.iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
    let error =
        found.iter().zip(&wanted).fold(0.0_f64, |m, (a, b)| m.max(f64::from((a - b).abs())));
    assert!(error <= TOLERANCE * scale, "{name} of {:?} is off by {error:e}", case.prompt);
}

/// Checks every case of a model, and says how many there are.
fn compare(model: &str) -> usize {
    let text = text(model);
    let (file, cases) = fixture();
    let mut count = 0;
    for (at, case) in cases.iter().enumerate().filter(|(_, c)| c.model == model) {
        let made = text.encode(&[&case.prompt, &case.negative], reading(case)).unwrap();
        let negative = if text.zeros_for_empty && case.negative.is_empty() {
            made[1].zeros_like()
        } else {
            made[1].clone()
        };
        check(&file, &format!("{at}.context"), &made[0].context, case);
        check(&file, &format!("{at}.negative"), &negative.context, case);
        check(&file, &format!("{at}.pooled"), &made[0].pooled, case);
        check(&file, &format!("{at}.negative_pooled"), &negative.pooled, case);
        count += 1;
    }
    count
}

#[test]
fn prompts_of_one_encoder_as_elsewhere() {
    assert_eq!(compare("one"), 12);
}

#[test]
fn prompts_of_two_encoders_as_elsewhere() {
    assert_eq!(compare("two"), 4);
}

#[test]
fn a_prompt_without_markup_is_the_encoders_own_bit_for_bit() {
    let text = text("one");
    let part = &text.parts[0];
    for prompt in ["a red circle on a white background", "", "two stars, x-ray"] {
        let plain = part.encoder.encode(&[part.tokenizer.encode(prompt).unwrap().ids], 0).unwrap();
        // Beside a longer one, too: only the windows behind it are others.
        let long = "a red circle ".repeat(20);
        let made = text.encode(&[prompt, &long], Reading::default()).unwrap();
        let first = made[0].context.clone().narrow(1, 0, part.tokenizer.length());
        assert_eq!(numbers(&first), numbers(&plain.hidden), "{prompt}");
        assert_eq!(made[0].context.dims()[1], 3 * part.tokenizer.length());
        let alone = text.encode(&[prompt], Reading::default()).unwrap();
        assert_eq!(numbers(&alone[0].context), numbers(&plain.hidden), "{prompt}");
    }
}

#[test]
fn a_layer_that_is_not_there_is_an_error() {
    let text = text("one");
    for (skip, fits) in [(0, false), (1, true), (3, true), (4, false)] {
        let reading = Reading { clip_skip: Some(skip), ..Reading::default() };
        let made = text.encode(&["a"], reading);
        assert_eq!(made.is_ok(), fits, "{skip}");
        if let Err(error) = made {
            assert!(error.to_string().contains("`clip_skip`"), "{error}");
        }
    }
}
