//! `tweedie generate` without arguments: a contact sheet from each built-in model.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;
use tweedie::engine::{Engine, Generated, Model};
use tweedie::hub::builtin;
use tweedie::media::{Panel, Sheet, encode_png};
use tweedie::spec::Spec;

use crate::output;
use crate::progress::{self, Watcher};

/// What the sheet of a model that takes captions shows.
const CAPTIONS: [&str; 12] = [
    "a large red circle on a white background",
    "a small blue square on a black background",
    "a large yellow star on a gray background",
    "a green triangle in the center",
    "a large purple ring",
    "a small orange diamond on a white background",
    "a red square to the left of a blue circle",
    "a yellow circle above a green square",
    "a blue star to the right of a red triangle",
    "a large green cross",
    "a purple diamond below an orange ring",
    "a small cyan circle on a black background",
];

/// Steps of the demonstration.
const STEPS: usize = 20;

pub(crate) fn run(engine: &Engine, out: &Path, quiet: bool) -> Result<()> {
    let start = Instant::now();
    let stop = progress::stop_flag()?;
    let mine = |n: &String| ["builtin:fashion", "builtin:shapes"].contains(&n.as_str());
    let names: Vec<String> = builtin::names().into_iter().filter(mine).collect();
    if names.is_empty() {
        bail!("this program was built without its models");
    }
    let mut files = Vec::new();
    for name in names {
        let begun = Instant::now();
        let model = Model::open(&name, engine.device())?;
        let works = works(&model);
        let images: usize = works.iter().map(|w| w.spec.count).sum();
        let bar = progress::bar((images * STEPS) as u64, "steps", quiet);
        bar.set_message(model.name.clone());
        let mut panels = Vec::new();
        for work in &works {
            let offset = bar.position();
            let inner = progress::bar(0, "", true);
            let mut watcher = Watcher::new(inner, stop.clone(), None);
            let made = engine.generate(&model, &work.spec, &mut watcher)?;
            bar.set_position(offset + (work.spec.count * STEPS) as u64);
            panels.extend(work.panels(&model, &made));
        }
        bar.finish_and_clear();
        let width = panels.first().map_or(32, |p| p.image.width);
        let sheet = Sheet {
            title: format!("{}: trained by this project from scratch, {STEPS} steps", model.name),
            columns: if width < 64 { 10 } else { 8 },
            zoom: if width < 64 { 3 } else { 2 },
            label_lines: if width < 64 { 1 } else { 4 },
        };
        let path = out.join(format!("{}.png", name.trim_start_matches(builtin::PREFIX)));
        output::write(&path, &encode_png(&sheet.draw(&panels)?, 0, &[])?)?;
        if !quiet {
            output::say(&format!(
                "{}  ({images} pictures, {})",
                path.display(),
                output::seconds(begun.elapsed())
            ));
        }
        files.push(path.display().to_string());
    }
    if quiet {
        let report = json!({ "files": files, "seconds": start.elapsed().as_secs_f64() });
        output::say(&serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    output::say(&format!("done in {}. Try next:", output::seconds(start.elapsed())));
    if files.iter().any(|f| f.contains("shapes")) {
        output::say("  tweedie generate \"a large red circle on a white background\" --count 4");
    } else {
        output::say("  tweedie generate bag --model builtin:fashion --count 4");
    }
    output::say("  tweedie generate sneaker --model builtin:fashion --sampler euler --steps 10");
    output::say("  tweedie methods");
    Ok(())
}

/// One call of the generator for a sheet.
struct Work {
    spec: Spec,
    label: Option<&'static str>,
}

impl Work {
    fn panels(&self, model: &Model, made: &Generated) -> Vec<Panel> {
        let label = |k: usize| match (self.label, &made.classes, &model.classes) {
            (Some(label), ..) => label.to_owned(),
            (None, Some(classes), Some(known)) => {
                known.names.get(classes[k] as usize).cloned().unwrap_or_default()
            }
            _ => String::new(),
        };
        let panel = |k| Panel { image: made.images.clone(), index: k, label: label(k) };
        (0..made.images.n).map(panel).collect()
    }
}

fn works(model: &Model) -> Vec<Work> {
    let base = Spec {
        model: model.name.clone(),
        grid: Some(model.grid.clone()),
        guidance: Some(model.default_guidance()),
        steps: STEPS,
        batch: 10,
        ..Spec::default()
    };
    if model.text.is_none() {
        return vec![Work { spec: Spec { count: 40, ..base }, label: None }];
    }
    let of = |(i, caption): (usize, &&'static str)| Work {
        spec: Spec {
            prompt: (*caption).to_owned(),
            count: 2,
            seed: 100 * i as u64,
            ..base.clone()
        },
        label: Some(caption),
    };
    CAPTIONS.iter().enumerate().map(of).collect()
}
