//! Exact parity with reference code: numbers of diffusers' schedulers on a closed-form network,
//! written by `tools/parity/schedulers.py`; the version stands in the file's header.

use burn::tensor::Device;
use serde_json::Value;
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::level::{Level, Levels};
use tweedie::noise::Recorded;
use tweedie::process::Process;
use tweedie::sampler::{Eval, Sampler, Step};
use tweedie::spec::{PartSpec, resolve_sampler};
use tweedie::state::State;
use tweedie::{grid, process, sampler};

fn data() -> Value {
    serde_json::from_str(include_str!("../data/schedulers.json")).unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn rows(value: &Value) -> State {
    let rows: Vec<Vec<f64>> = value.as_array().unwrap().iter().map(list).collect();
    State::from_f64(rows.concat(), &[rows.len(), rows[0].len()], &Device::flex()).unwrap()
}

/// The path that a scheduler's configuration means.
fn path(class: &str, config: &Value) -> Box<dyn Process> {
    let part = if class.starts_with("FlowMatch") {
        PartSpec::named("flow")
    } else {
        let betas = config["beta_schedule"].as_str().unwrap_or("linear").replace('_', "-");
        let mut part = PartSpec::named("vp-table").with("betas", betas);
        for key in ["beta_start", "beta_end"] {
            if let Some(value) = config[key].as_f64() {
                part = part.with(key, value);
            }
        }
        part.with("zero_terminal_snr", config["rescale_betas_zero_snr"] == true)
    };
    part.make(process::entries(), Seam::Process).unwrap()
}

/// The grid that a scheduler's class and configuration mean.
fn spacing(class: &str, config: &Value) -> PartSpec {
    let multistep = class.starts_with("DPMSolver") || class.starts_with("UniPC");
    let on = |key: &str| config[key] == true;
    let last = config["final_sigmas_type"] == "sigma_min" || config["set_alpha_to_one"] == false;
    let last = if last { "sigma-min" } else { "clean" };
    let default = if class.starts_with("DDIM") { "leading" } else { "linspace" };
    if class.starts_with("FlowMatch") {
        return PartSpec::named("shifted").with("shift", config["shift"].as_f64().unwrap());
    }
    if on("use_karras_sigmas") {
        return PartSpec::named("karras").with("told", if multistep { "nearest" } else { "exact" });
    }
    if on("use_exponential_sigmas") {
        return PartSpec::named("exponential");
    }
    if on("use_lu_lambdas") {
        return PartSpec::named("log-snr");
    }
    match config["timestep_spacing"].as_str().unwrap_or(default) {
        "leading" => PartSpec::named("leading")
            .with("offset", config["steps_offset"].as_u64().unwrap_or(0))
            .with("drop_last", multistep)
            .with("last", last),
        "trailing" => PartSpec::named("trailing").with("last", last),
        _ => PartSpec::named("linspace")
            .with("round", !class.starts_with("Euler"))
            .with("drop_last", multistep)
            .with("last", last),
    }
}

#[test]
fn grids_are_those_of_diffusers() {
    let mut worst = 0.0_f64;
    let all = data();
    let grids = all["grids"].as_array().unwrap();
    assert!(grids.len() > 50);
    for case in grids {
        let (class, config) = (case["class"].as_str().unwrap(), &case["config"]);
        let steps = case["steps"].as_u64().unwrap() as usize;
        let process = path(class, config);
        let part = spacing(class, config);
        let grid = part.make(grid::entries(), Seam::Grid).unwrap();
        let levels = grid.levels(process.as_ref(), steps).unwrap();
        let place = format!("{class} {config} {steps} steps as {part}");
        let (times, sigmas) = (list(&case["timesteps"]), list(&case["sigmas"]));
        assert_eq!((times.len(), sigmas.len()), (steps, steps + 1), "{place}");
        let whole = times.iter().all(|t| t.fract() == 0.0);
        for (time, level) in times.iter().zip(&levels) {
            let found = level.t * 1000.0;
            // diffusers cuts the times of its Lu grid to whole steps without rounding the sigma.
            let slack = if config["use_lu_lambdas"] == true {
                1.0
            } else if whole {
                1e-9
            } else {
                // A 32-bit table moves the time of a sigma where the table is flat.
                2e-3
            };
            assert!((time - found).abs() <= slack, "{place}: time {time}, found {found}");
        }
        for (sigma, level) in sigmas.iter().zip(&levels) {
            let found = if class.starts_with("Flow") { level.sigma } else { level.sigma_edm() };
            if *sigma > 4000.0 {
                assert!(level.alpha < 1e-3, "{place}: {sigma} for {level:?}");
                continue;
            }
            // The cumulative products of diffusers have 32 bits; 1 minus them fewer.
            let off = (sigma - found).abs() / sigma.max(1e-3);
            assert!(off < 1e-4, "{place}: sigma {sigma}, found {found}");
            worst = worst.max(off);
        }
    }
    println!("{} grids, sigmas off by at most {worst:.1e}", grids.len());
}

/// The closed-form network of the script.
struct Network;

impl Eval for Network {
    fn x0(&mut self, x: &State, at: &Levels) -> Result<State> {
        let l = at.single("golden")?;
        if l.alpha == 0.0 {
            return Ok(x.map(|x| x.tanh() * 0.3));
        }
        let s = l.sigma_edm() / (1.0 + l.sigma_edm());
        let eps = x.map(|x| (x * 0.7 + 0.3 * s).tanh() * (0.4 + 0.5 * s));
        Ok((x.clone() - eps * l.sigma) * (1.0 / l.alpha))
    }
}

/// The noise of the script.
fn tape(like: &State) -> Recorded {
    let draw = |k: usize| {
        let width = like.real_features() * like.batch();
        let value = |j: usize| (1.3 * (k + 1) as f64 + 0.7 * j as f64).sin() * 1.2;
        like.filled_like(&(0..width).map(value).collect::<Vec<_>>()).unwrap()
    };
    Recorded::new((0..50).map(draw).collect())
}

/// The sampler that a scheduler's class and configuration mean.
fn method(class: &str, config: &Value, step: &Value) -> Box<dyn Sampler> {
    let sde = config["algorithm_type"] == "sde-dpmsolver++";
    let name = if sde { "DPM++ 2M SDE" } else { class };
    let (mut part, _) = resolve_sampler(&PartSpec::named(name)).unwrap();
    if let Some(eta) = step["eta"].as_f64() {
        part = part.with("eta", eta);
    }
    if config["variance_type"] == "fixed_large" {
        part = part.with("variance", "large");
    }
    if let Some(kind) = config["solver_type"].as_str() {
        part = part.with(if class.starts_with("UniPC") { "variant" } else { "solver" }, kind);
    }
    if let Some(order) = config["solver_order"].as_u64() {
        part = part.with("order", order);
    }
    for key in ["lower_order_final", "disable_corrector"] {
        if !config[key].is_null() {
            part = part.with(key, config[key].clone());
        }
    }
    part.make(sampler::entries(), Seam::Sampler).unwrap()
}

#[test]
fn samplers_are_those_of_diffusers() {
    let all = data();
    let start = rows(&all["header"]["x"]);
    let runs = all["runs"].as_array().unwrap();
    assert!(runs.len() > 30);
    let mut worst = 0.0_f64;
    for case in runs {
        let (class, config) = (case["class"].as_str().unwrap(), &case["config"]);
        let process = path(class, config);
        let level = |sigma: &f64| {
            if case["flow"] == true {
                return Level::new(*sigma, 1.0 - sigma, *sigma);
            }
            Level::vp(0.5, -sigma.ln())
        };
        let levels: Vec<Level> = list(&case["levels"]).iter().map(level).collect();
        let mut sampler = method(class, config, &case["step"]);
        let mut noise = tape(&start);
        let mut x = start.clone();
        let count = levels.len() - 1;
        for index in 0..count {
            let (from, to) = (levels[index], levels[index + 1]);
            let step = Step { from, to, index, count, process: process.as_ref() };
            x = sampler.step(&mut Network, x, &step, &mut noise).unwrap();
        }
        // These classes keep 64 bits; the others round the state to 32 at every step.
        let exact = ["DDIM", "DDPM", "UniPC"].iter().any(|c| class.starts_with(c));
        let slack = if exact { 1e-9 } else { 2e-6 };
        let (found, wanted) = (x.to_rows().concat(), rows(&case["x"]).to_rows().concat());
        let off = |(a, b): (&f64, &f64)| (a - b).abs() / (1.0 + b.abs());
        let off = found.iter().zip(&wanted).map(off).fold(0.0, f64::max);
        let place = format!("{class} {config} {}", case["step"]);
        assert!(off < slack, "{place}: off by {off:e}, {found:?} {wanted:?}");
        if exact {
            worst = worst.max(off);
        }
    }
    println!("{} runs, off by at most {worst:.1e} where the reference has 64 bits", runs.len());
}
