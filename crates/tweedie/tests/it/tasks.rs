//! Whole pipelines against diffusers from a seed alone, on one tiny Stable Diffusion with random
//! weights: `tools/parity/pipelines.py --fixture`, which has the same settings.

use std::path::Path;

use tweedie::data::Images;
use tweedie::engine::{Engine, Inputs, Model, generate, read_picture};
use tweedie::hub::TensorFile;
use tweedie::noise::Rng;
use tweedie::spec::{Spec, Task};

/// Largest difference of the final latents after ten steps.
const BOUND: f64 = 1e-3;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tasks"))
}

fn spec(model: &Model) -> Spec {
    Spec {
        prompt: "a red circle".into(),
        negative: "blue".into(),
        guidance: Some(3.0),
        steps: 10,
        seed: 11,
        rng: Rng::TorchCpu,
        count: 2,
        batch: 2,
        ..model.spec()
    }
}

/// The latents that this program ends with, and those of diffusers.
fn latents(name: &str, task: impl FnOnce(&mut Task, &mut Inputs)) -> (Vec<f32>, Vec<f32>) {
    let engine = Engine::cpu(1).unwrap();
    let model = engine.open(folder().join("model").to_str().unwrap()).unwrap();
    let mut spec = spec(&model);
    let mut inputs = Inputs::default();
    task(&mut spec.task, &mut inputs);
    let made = generate(&engine, &model, &spec, &inputs, &mut tweedie::engine::Unwatching).unwrap();
    let file = TensorFile::open(folder().join("latents.safetensors")).unwrap();
    (made.latents.values, file.read_f32(name).unwrap())
}

fn check(name: &str, task: impl FnOnce(&mut Task, &mut Inputs)) {
    let (ours, theirs) = latents(name, task);
    assert_eq!(ours.len(), theirs.len());
    let apart = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
    let error = ours.iter().zip(&theirs).map(apart).fold(0.0, f64::max);
    let size = theirs.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    assert!(size > 1.0, "{name}: latents that say nothing");
    assert!(error < BOUND, "{name}: {error} apart, the largest is {size}");
}

fn picture(file: &str) -> (tweedie::spec::SourceFile, Images) {
    read_picture(&folder().join(file)).unwrap()
}

fn start(task: &mut Task, inputs: &mut Inputs, strength: f64) {
    let (name, images) = picture("init.png");
    (task.init, inputs.init) = (Some(name), Some(images));
    task.strength = Some(strength);
}

fn repaint(task: &mut Task, inputs: &mut Inputs, strength: f64) {
    start(task, inputs, strength);
    let (name, images) = picture("mask.png");
    (task.mask, inputs.mask) = (Some(name), Some(images));
}

#[test]
fn text_to_image_is_that_of_diffusers() {
    check("text", |_, _| {});
}

#[test]
fn image_to_image_is_that_of_diffusers() {
    check("image", |task, inputs| start(task, inputs, 0.63));
}

#[test]
fn inpainting_is_that_of_diffusers() {
    check("inpaint", |task, inputs| repaint(task, inputs, 1.0));
    check("inpaint-0.7", |task, inputs| repaint(task, inputs, 0.7));
}

#[test]
fn another_strength_is_another_picture() {
    let (ours, theirs) = latents("image", |task, inputs| start(task, inputs, 0.5));
    assert!(ours.iter().zip(&theirs).any(|(a, b)| (a - b).abs() > 0.1));
}
