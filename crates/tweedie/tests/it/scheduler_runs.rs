//! Whole runs of diffusers' schedulers against the parts that their files mean: what the network is
//! given at every call, and where the run ends (`tools/parity/scheduler_runs.py`).
//!
//! `TWEEDIE_SCHEDULER_RUNS=FILE` compares the runs of another file of that script, such as random
//! configurations.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};
use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Network, NetworkDenoiser, Pass, Times};
use tweedie::hub::{SchedulerConfig, schedule};
use tweedie::level::Levels;
use tweedie::noise::{Noise, Recorded};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::state::State;
use tweedie::tap::Site;
use tweedie::weight::{Parameters, Weight};
use tweedie::{Result, grid, guide, process, sampler};

const START: [f64; 2] = [0.8, -1.3];

/// The closed-form network of the script; it keeps what it was given.
#[derive(Default)]
struct Formula {
    calls: Mutex<Vec<[f64; 3]>>,
}

impl Parameters for Formula {
    fn each(&self, _path: &str, _visit: &mut dyn FnMut(&str, &Weight)) {}

    fn each_mut(&mut self, _path: &str, _visit: &mut dyn FnMut(&str, &mut Weight)) {}
}

impl Network for Formula {
    fn forward(&self, x: &State, time: &Times, _: &Cond, _: &mut Pass) -> Result<State> {
        let row = x.to_rows().remove(0);
        let (a, b, t) = (row[0], row[1], time.values[0]);
        self.calls.lock().unwrap().push([t, a, b]);
        let one = 0.7 * (0.9 * a - 0.4 * b + 0.3 * (0.005 * t).cos()).tanh() + 0.1 * a;
        let two = 0.6 * (0.3 * a + 0.8 * b - 0.2 * (0.007 * t).sin()).tanh() - 0.1;
        x.filled_like(&[one, two])
    }

    fn sites(&self) -> Vec<Site> {
        Vec::new()
    }
}

fn state(values: [f64; 2]) -> State {
    let data = TensorData::new(values.to_vec(), [1, 2, 1, 1]);
    State::new(Tensor::<4>::from_data(data, (&Device::flex(), burn::tensor::DType::F64)))
}

/// Draw `k` of the steps.
fn fresh(k: usize) -> [f64; 2] {
    [0.0, 1.0].map(|j| (1.3 * (k as f64 + 1.0) + 0.7 * j).sin() * 1.2)
}

struct Ours {
    calls: Vec<[f64; 3]>,
    end: Vec<f64>,
}

fn run(case: &Value) -> Result<Ours> {
    let mut map = case["config"].as_object().unwrap().clone();
    map.insert("_class_name".to_owned(), case["class"].clone());
    let config = SchedulerConfig::parse(Path::new("scheduler_config.json"), &map)?;
    let parts = schedule::parts(&config)?;
    let steps = case["steps"].as_u64().unwrap() as usize;
    let first = case["first"].as_u64().unwrap() as usize;
    let process = parts.process.make(process::entries(), Seam::Process)?;
    let levels = parts.grid.make(grid::entries(), Seam::Grid)?.levels(process.as_ref(), steps)?;
    let guides = parts.corrections.iter().map(|g| g.make(guide::entries(), Seam::Guide));
    let network = Arc::new(Formula::default());
    let denoiser =
        NetworkDenoiser { network: network.clone(), time: parts.time, scaling: parts.scaling };
    let tape = |draws: Vec<State>| -> Box<dyn Noise> { Box::new(Recorded::new(draws)) };
    let draws = (0..60).map(|k| state(fresh(k))).collect();
    let at = levels[first];
    let start = if first > 0 {
        let noise = state(fresh(50));
        let clean = state(START.map(|v| v * 0.5));
        process.perturb(&clean, None, &Levels::One(at), tape(vec![noise]).as_mut())?.0
    } else {
        process.prior(&state([0.0; 2]), None, at, tape(vec![state(START)]).as_mut())?
    };
    let parts = Parts {
        model: &denoiser,
        process: process.as_ref(),
        levels,
        sampler: parts.sampler.make(sampler::entries(), Seam::Sampler)?,
        guides: guides.collect::<Result<_>>()?,
        taps: Vec::new(),
        noise: tape(draws),
        cond: Cond::default(),
        requests: vec![0],
    };
    let run = Run::starting_at(parts, start, first)?;
    let (end, _) = run.finish(&mut Unwatched)?;
    let calls = network.calls.lock().unwrap().clone();
    Ok(Ours { calls, end: end.to_rows().remove(0) })
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// How far the runs are apart, in units of the largest number of the theirs; where.
fn compared(case: &Value) -> std::result::Result<f64, String> {
    let ours = run(case).map_err(|e| e.to_string())?;
    let theirs: Vec<Vec<f64>> = case["calls"].as_array().unwrap().iter().map(numbers).collect();
    let mut worst = 0.0_f64;
    for (i, (a, b)) in ours.calls.iter().zip(&theirs).enumerate() {
        // Times between steps hang on the last bits of 32 where the table is flat.
        let slack = if b[0].fract() == 0.0 { 1e-3 } else { 2e-3 * b[0].abs().max(1.0) };
        if (a[0] - b[0]).abs() > slack {
            return Err(format!("call {i}: time {}, wanted {}", a[0], b[0]));
        }
        let scale = b[1].abs().max(b[2].abs()).max(1e-3);
        let off = (a[1] - b[1]).abs().max((a[2] - b[2]).abs()) / scale;
        if off > 1e-4 {
            return Err(format!("call {i} at {}: {off:.1e}, {a:?} for {b:?}", b[0]));
        }
        worst = worst.max(off);
    }
    if ours.calls.len() != theirs.len() {
        return Err(format!("{} calls, wanted {}", ours.calls.len(), theirs.len()));
    }
    let end = numbers(&case["end"]);
    let scale = end[0].abs().max(end[1].abs());
    let off = (0..2).map(|i| (ours.end[i] - end[i]).abs()).fold(0.0, f64::max) / scale;
    if off.is_nan() || off > 1e-4 {
        return Err(format!("end: {off:.1e}, {:?} for {end:?}", ours.end));
    }
    Ok(worst.max(off))
}

#[test]
fn runs_are_those_of_diffusers() {
    let text = match std::env::var("TWEEDIE_SCHEDULER_RUNS") {
        Ok(path) => std::fs::read_to_string(path).unwrap(),
        Err(_) => include_str!("../data/scheduler_runs.json").to_owned(),
    };
    let all: Value = serde_json::from_str(&text).unwrap();
    let cases = all["cases"].as_array().unwrap();
    let (mut worst, mut failed) = (0.0_f64, Vec::new());
    let mut classes = std::collections::BTreeMap::new();
    for case in cases {
        let count: &mut [usize; 2] = classes.entry(case["class"].to_string()).or_default();
        count[0] += 1;
        match compared(case) {
            Ok(off) => {
                worst = worst.max(off);
            }
            Err(why) => {
                count[1] += 1;
                let place = json!([case["class"], case["steps"], case["first"], case["config"]]);
                failed.push(format!("{place}: {why}"));
            }
        }
    }
    println!("{} runs, off by at most {worst:.1e}; runs and failures: {classes:?}", cases.len());
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
