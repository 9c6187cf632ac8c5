//! Whole runs of tiny pipelines from a seed alone, with one and two text encoders and with LoRAs,
//! against the latents of diffusers.
//!
//! The fixtures are written by `tools/parity/pictures.py`.

use serde::Deserialize;
use tweedie::engine::{Engine, Model, Unwatching};
use tweedie::hub::{Lora, TensorFile};
use tweedie::noise::Rng;
use tweedie::spec::Spec;

use crate::pipelines::{data, pipeline};

/// The largest error that is let pass, in units of the largest number.
const TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Case {
    model: String,
    negative: String,
    loras: Vec<(String, f64)>,
}

#[derive(Deserialize)]
struct Settings {
    prompt: String,
    steps: usize,
    seed: u64,
    count: usize,
    guidance: f64,
}

fn latents(model: &Model, spec: &Spec) -> Vec<f32> {
    let engine = Engine::cpu(1).unwrap();
    tweedie::engine::generate_each(&engine, model, spec, &[], &mut Unwatching)
        .unwrap()
        .latents
        .values
}

fn off(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let scale = wanted.iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
    let pairs = found.iter().zip(wanted);
    pairs.fold(0.0_f64, |m, (a, b)| m.max(f64::from((a - b).abs()))) / scale
}

#[test]
fn a_seed_draws_what_diffusers_draws() {
    let file = TensorFile::open(data("pictures.safetensors")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&file.metadata()["cases"]).unwrap();
    let settings: Settings = serde_json::from_str(&file.metadata()["settings"]).unwrap();
    let device = Engine::cpu(1).unwrap().device().clone();
    for (at, case) in cases.iter().enumerate() {
        let plain = Model::open(&pipeline(&case.model).to_string_lossy(), &device).unwrap();
        let open = |(name, _): &(String, f64)| Lora::open(data("adapters").join(name)).unwrap();
        let loras: Vec<Lora> = case.loras.iter().map(open).collect();
        let weights = case.loras.iter().map(|(_, weight)| *weight);
        let weighed: Vec<(&Lora, f64)> = loras.iter().zip(weights).collect();
        let (model, _) = plain.with_loras(&weighed, false).unwrap();
        let spec = Spec {
            prompt: settings.prompt.clone(),
            negative: case.negative.clone(),
            steps: settings.steps,
            seed: settings.seed,
            count: settings.count,
            batch: settings.count,
            guidance: Some(settings.guidance),
            rng: Rng::TorchCpu,
            ..model.spec()
        };
        let wanted = file.read_f32(&at.to_string()).unwrap();
        let error = off(&latents(&model, &spec), &wanted);
        println!("{} with {:?}: off by {error:e}", case.model, case.loras);
        assert!(error <= TOLERANCE, "{} with {:?} is off by {error:e}", case.model, case.loras);
        // One at a time is the same, bit for bit.
        let alone = Spec { batch: 1, ..spec.clone() };
        assert_eq!(latents(&model, &alone), latents(&model, &spec));
        // And a LoRA that is asked for and not there is an error, never left out.
        if !loras.is_empty() {
            let engine = Engine::cpu(1).unwrap();
            let made = tweedie::engine::generate_each(&engine, &plain, &spec, &[], &mut Unwatching);
            assert!(made.unwrap_err().to_string().contains("`loras`"));
        }
    }
}
