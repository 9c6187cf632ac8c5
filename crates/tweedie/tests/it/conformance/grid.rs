//! Every grid on every process: a falling row of levels between the right ends, or a typed refusal.

use tweedie::catalog::Seam;
use tweedie::level::Level;
use tweedie::spec::PartSpec;
use tweedie::{Error, grid, process};

use super::{cases, ensure, hold};

const VARIANTS: &[&str] = &[
    "leading:offset=1,last=sigma-min",
    "leading:drop_last=true,offset=1",
    "linspace:round=false",
    "linspace:drop_last=true",
    "linspace:round=false,drop_last=true",
    "trailing:last=sigma-min",
    "karras:rho=3,last=sigma-min",
    "karras:sigma_min=0.05,sigma_max=8",
    "exponential:last=sigma-min",
    "beta:alpha=1,beta=2",
    "karras:within=linspace",
    "consistency:distilled=100",
    "log-snr:last=sigma-min",
    "log-snr:lambda_min=-2,lambda_max=2",
    "shifted:shift=1",
    "listed:times=[1,0.7,0.02]",
    "shifted:spacing=steps,shift=5",
];

const PROCESSES: &[&str] = &[
    "vp-table:betas=scaled-linear,beta_start=0.00085,beta_end=0.012",
    "zero-terminal-snr",
    "vp-linear",
    "vp-cosine",
    "ve",
    "edm",
    "flow",
    "flow:shift=3",
];

fn parse(text: &str) -> PartSpec {
    text.parse().unwrap()
}

#[test]
fn grids_fall_from_end_to_end() {
    let parts = cases(grid::entries(), VARIANTS);
    hold(grid::entries(), Seam::Grid, &parts, "grid falls", |part| {
        let grid = part.make(grid::entries(), Seam::Grid).unwrap();
        let mut served = 0;
        for path in PROCESSES {
            let process = parse(path).make(process::entries(), Seam::Process).unwrap();
            for steps in [1, 2, 3, 7, 20, 50, 137] {
                let levels = match grid.levels(process.as_ref(), steps) {
                    Ok(levels) => levels,
                    Err(Error::Unsupported { .. }) => break,
                    // One step has no room for a grid that ends where it begins.
                    Err(Error::Setting { .. }) if steps == 1 => continue,
                    Err(Error::Setting { .. }) if part.name == "consistency" && steps > 50 => {
                        continue;
                    }
                    Err(other) => return Err(format!("{path}, {steps} steps: {other}")),
                };
                served += 1;
                let place = || format!("{path}, {steps} steps: {levels:?}");
                ensure(levels.len() == steps + 1, place)?;
                ensure(levels.iter().all(|l| l.is_finite()), place)?;
                ensure(levels.windows(2).all(|p| p[0].lambda() < p[1].lambda()), place)?;
                let text = part.to_string();
                let last = levels[steps];
                if text.contains("sigma-min") {
                    ensure(last.sigma > 0.0, place)?;
                } else {
                    ensure(last == Level::CLEAN, place)?;
                }
                let noisy = process.at(process.ends().1);
                let own_ends = text.contains("sigma_max") || text.contains("lambda_min");
                if part.name != "leading" && !own_ends && steps > 1 {
                    let off = (levels[0].sigma - noisy.sigma).abs();
                    ensure(off < 1e-9 * noisy.sigma, place)?;
                }
            }
        }
        ensure(served > 0, || "no process is served".into())
    });
}

#[test]
fn impossible_counts_are_refused_by_name() {
    let table = parse("vp-table:steps=10").make(process::entries(), Seam::Process).unwrap();
    for (part, steps) in [
        ("leading", 0),
        ("leading", 11),
        ("leading:offset=1", 10),
        ("leading:offset=99", 2),
        ("leading", usize::MAX),
        ("linspace", 0),
        ("linspace", 11),
        ("trailing", 0),
        ("trailing", 11),
        ("karras", 0),
        ("karras:rho=0", 5),
        ("karras:sigma_min=9,sigma_max=8", 5),
        ("karras:sigma_min=-1", 5),
        ("exponential", 0),
        ("log-snr", 0),
    ] {
        let grid = parse(part).make(grid::entries(), Seam::Grid).unwrap();
        match grid.levels(table.as_ref(), steps) {
            Err(Error::Setting { key, .. }) => assert!(key.starts_with("grid "), "{part}: {key}"),
            other => panic!("{part} with {steps} steps: {other:?}"),
        }
    }
}
