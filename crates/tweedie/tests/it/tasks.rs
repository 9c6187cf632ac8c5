//! Whole pipelines against diffusers from a seed alone, on one tiny Stable Diffusion with random
//! weights: `tools/parity/pipelines.py --fixture`, which has the same settings.

use std::path::{Path, PathBuf};

use tweedie::data::Images;
use tweedie::engine::{Engine, Inputs, Model, generate, read_picture};
use tweedie::hub::{Parts, TensorFile};
use tweedie::noise::Rng;
use tweedie::spec::{Spec, Storage, Task};

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
    drawn(&folder().join("model"), name, task)
}

fn drawn(
    model: &Path,
    name: &str,
    task: impl FnOnce(&mut Task, &mut Inputs),
) -> (Vec<f32>, Vec<f32>) {
    let engine = Engine::cpu(1).unwrap();
    let model = engine.open(model.to_str().unwrap()).unwrap();
    let mut spec = spec(&model);
    let mut inputs = Inputs::default();
    task(&mut spec.task, &mut inputs);
    let made = generate(&engine, &model, &spec, &inputs, &mut tweedie::engine::Unwatching).unwrap();
    let file = TensorFile::open(folder().join("latents.safetensors")).unwrap();
    (made.latents.values, file.read_f32(name).unwrap())
}

fn check(name: &str, task: impl FnOnce(&mut Task, &mut Inputs)) {
    compare(name, latents(name, task));
}

/// The same with the settings of another scheduler in the folder.
fn check_with(scheduler: &str, task: &str, change: impl FnOnce(&mut Task, &mut Inputs)) {
    let copy = tempfile::tempdir().unwrap();
    for entry in walk(&folder().join("model")) {
        let to = copy.path().join(entry.strip_prefix(folder().join("model")).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&entry, to).unwrap();
    }
    let settings = folder().join("schedulers").join(format!("{scheduler}.json"));
    std::fs::copy(&settings, copy.path().join("scheduler/scheduler_config.json")).unwrap();
    let text = std::fs::read_to_string(&settings).unwrap();
    let class = text.split("\"_class_name\": \"").nth(1).unwrap().split('"').next().unwrap();
    let index = copy.path().join("model_index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("DPMSolverMultistepScheduler", class)).unwrap();
    let name = format!("{task} {scheduler}");
    compare(&name, drawn(copy.path(), &name, change));
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn compare(name: &str, (ours, theirs): (Vec<f32>, Vec<f32>)) {
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
fn a_run_begins_in_the_middle_as_that_scheduler_has_it() {
    check_with("pndm", "image", |task, inputs| start(task, inputs, 0.63));
    check_with("pndm", "image-0.95", |task, inputs| start(task, inputs, 0.95));
    check_with("pndm", "inpaint-0.7", |task, inputs| repaint(task, inputs, 0.7));
    check_with("lms", "image", |task, inputs| start(task, inputs, 0.63));
}

#[test]
fn what_a_step_asks_on_its_way_is_blended_too() {
    check_with("heun", "inpaint", |task, inputs| repaint(task, inputs, 1.0));
}

#[test]
fn another_strength_is_another_picture() {
    let (ours, theirs) = latents("image", |task, inputs| start(task, inputs, 0.5));
    assert!(ours.iter().zip(&theirs).any(|(a, b)| (a - b).abs() > 0.1));
}

#[test]
fn weights_held_narrower_change_the_picture_a_little() {
    let engine = Engine::cpu(1).unwrap();
    let name = folder().join("model").to_str().unwrap().to_owned();
    let drawn = |parts: Parts| {
        let model = engine.open_folder(parts.open().unwrap().folder).unwrap();
        let hash = engine.hash(&model).unwrap().to_owned();
        let nobody = &mut tweedie::engine::Unwatching;
        let made = generate(&engine, &model, &spec(&model), &Inputs::default(), nobody).unwrap();
        (made.latents.values, hash)
    };
    let (own, hash) = drawn(Parts::new(&*name));
    let (wide, same) = drawn(Parts::new(&*name).dtype(Storage::F32));
    assert!(own == wide, "f16 widened is f16");
    let (narrow, too) = drawn(Parts::new(&*name).dtype(Storage::Bf16));
    // However they are held, it is the same model.
    assert!(hash == same && hash == too);
    let apart = own.iter().zip(&narrow).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    let size = own.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    assert!(apart > 0.0 && apart < 0.5 * size, "{apart} of {size}");
}
