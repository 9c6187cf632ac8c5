//! Every inversion with every part of the other seams: it ends finite, the part changes the edit, or it is
//! refused with a reason that the page of refusals knows.

use std::sync::Arc;

use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Denoiser};
use tweedie::edit::{self, Scene, Side, Under};
use tweedie::noise::Seeded;
use tweedie::prediction::Prediction;
use tweedie::run::Unwatched;
use tweedie::spec::PartSpec;
use tweedie::state::State;
use tweedie::tap::{Record, Recorder, SharedTap, record};
use tweedie::{grid, process, tap};

use super::pairwise::{guides, reason, values};
use super::tiny::{Tiny, start};

/// A case: process, grid, prediction, guide, tap.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    process: &'a str,
    grid: &'a str,
    prediction: &'a str,
    guide: &'a str,
    tap: &'a str,
}

const BASE: Case<'_> =
    Case { process: "vp-table", grid: "linspace", prediction: "v", guide: "cfg", tap: "none" };

fn edited(method: &str, case: Case<'_>) -> Result<State> {
    let process = PartSpec::named(case.process).make(process::entries(), Seam::Process)?;
    let grid = PartSpec::named(case.grid).make(grid::entries(), Seam::Grid)?;
    let levels = grid.levels(process.as_ref(), 8)?;
    let prediction = Prediction::find(case.prediction)?;
    let model = Tiny::new(1, prediction).attending();
    let weak: Arc<dyn Denoiser> = Arc::new(Tiny::new(2, prediction).attending());
    let side = |class, guides| Side { cond: Cond::of_class(vec![class; 2]), guides };
    let taps = || -> Result<Vec<SharedTap>> {
        Ok(match case.tap {
            "none" => Vec::new(),
            "record" => {
                let record = Record::default();
                vec![SharedTap::new(Recorder::new(record::Settings::default(), &record))]
            }
            other => vec![SharedTap::from(PartSpec::named(other).make(tap::entries(), Seam::Tap)?)],
        })
    };
    let scene = Scene {
        model: &model,
        process: process.as_ref(),
        first: 2,
        levels,
        x0: start(2),
        source: side(0, Vec::new()),
        target: side(2, guides(case.guide, &weak)?),
        words: None,
        noise: Box::new(Seeded::new(3, 2)),
        taps: Box::new(taps),
        requests: vec![0, 1],
    };
    let inverted =
        PartSpec::named(method).make(edit::entries(), Seam::Edit)?.invert(scene, &mut Unwatched)?;
    Ok(inverted.walk(Under::Target, None, &mut Unwatched)?.0)
}

#[test]
fn inversions_combine_with_every_part() {
    let [processes, grids, predictions, _, guides, taps, _] = values();
    let mut cases: Vec<(&str, Case)> = Vec::new();
    for process in processes {
        let grid = if process == "flow" { "shifted" } else { "linspace" };
        cases.push((process, Case { process, grid, ..BASE }));
    }
    cases.extend(grids.into_iter().map(|grid| {
        let process = if grid == "shifted" { "flow" } else { BASE.process };
        (grid, Case { process, grid, ..BASE })
    }));
    cases.extend(predictions.into_iter().map(|p| (p, Case { prediction: p, ..BASE })));
    cases.extend(guides.into_iter().map(|guide| (guide, Case { guide, ..BASE })));
    cases.extend(taps.into_iter().map(|tap| (tap, Case { tap, ..BASE })));
    // These leave the result as it is: they watch, guide over all levels as the base, or are the base.
    let still = ["vp-table", "linspace", "v", "cfg", "interval", "none", "record"];
    let mut wrong = Vec::new();
    for entry in edit::entries() {
        let id = entry.card.id;
        let base = edited(id, BASE).unwrap().to_rows().concat();
        for (part, case) in &cases {
            match edited(id, *case) {
                Ok(x) => {
                    let x = x.to_rows().concat();
                    if x.iter().any(|v| !v.is_finite()) {
                        wrong.push(format!("{id} with {part} ends at {x:?}"));
                    }
                    let moved = x.iter().zip(&base).any(|(a, b)| (a - b).abs() > 1e-9);
                    if !moved && !still.contains(part) {
                        wrong.push(format!("{id} with {part} changes nothing"));
                    }
                }
                Err(error) if reason(&error).is_some() => {}
                Err(error) => wrong.push(format!("{id} with {part}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
