//! `tweedie evaluate`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use tweedie::data::sets::{self, Split};
use tweedie::engine::{Engine, Measured, Model, evaluate_captions, evaluate_classes};
use tweedie::eval::Report;
use tweedie::spec::{Limits, Spec, resolve_sampler};

use crate::progress::{self, Watcher};
use crate::{grid, output};

/// Measure a model against real data.
///
/// A class-conditional model is held against the real test pictures of its data set: Frechet and
/// kernel distance, precision and recall in the features of one small classifier, class accuracy by
/// another. A model of the shapes world is asked captions, and its pictures are read back without a
/// network. Every distance stands beside its noise floor.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: `builtin:NAME` or a folder.
    #[arg(default_value = "builtin:fashion")]
    model: String,
    /// The data set that a class-conditional model is held against.
    #[arg(long, default_value = "fashion-mnist")]
    data: String,
    /// How many pictures; 2,000 for classes and 1,000 for captions where nothing is said.
    #[arg(short, long)]
    count: Option<usize>,
    /// Steps; several give one report each.
    #[arg(long, value_delimiter = ',', default_value = "20", value_name = "N,...")]
    steps: Vec<usize>,
    /// How to step.
    #[arg(short, long)]
    sampler: Option<String>,
    /// Which levels to stop at: a name, or a file of `tweedie tune`.
    #[arg(short, long)]
    grid: Option<String>,
    /// Guides, outermost first.
    #[arg(long)]
    guide: Vec<String>,
    /// A second model of the same data, for guides that ask one: `t-stitch`, `autoguidance`.
    #[arg(long, value_name = "MODEL")]
    second: Option<String>,
    /// The guidance weight.
    #[arg(long)]
    guidance: Option<f64>,
    /// The seed of the first picture.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The classifier that says which class a picture shows.
    #[arg(long, default_value = "builtin:fashion-judge")]
    judge: String,
    /// The classifier whose features distances are taken in.
    #[arg(long, default_value = "builtin:fashion-features")]
    features: String,
    /// Threads.
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    /// Write the reports as JSON to this file too.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let engine = Engine::cpu(args.threads)?;
    let mut model = Model::open(&args.model, engine.device())?;
    if let Some(second) = &args.second {
        model = model.with_second(&Model::open(second, engine.device())?)?;
    }
    let captions = model.text.is_some();
    if !captions && model.classes.is_none() {
        bail!("{}: takes neither classes nor captions; there is nothing to ask it", model.name);
    }
    let stop = progress::stop_flag()?;
    let mut reports: Vec<Report> = Vec::new();
    for &steps in &args.steps {
        let spec = spec(args, &model, steps, if captions { 1000 } else { 2000 })?;
        let bar = progress::bar((spec.count * steps) as u64, "steps", args.json);
        bar.set_message(model.name.clone());
        let mut watcher = Watcher::new(bar.clone(), stop.clone(), None);
        let report = if captions {
            evaluate_captions(&engine, &model, &spec, &mut watcher)?
        } else {
            let judge = Measured::open(&args.judge, engine.device())?;
            let features = Measured::open(&args.features, engine.device())?;
            let set = sets::named(&args.data)?;
            let size = model.shape[1];
            let load = |split| -> tweedie::Result<_> {
                let images = sets::load(set, split)?;
                if images.height < size { images.padded(size, size, 0) } else { Ok(images) }
            };
            let (train, test) = (load(Split::Train)?, load(Split::Test)?);
            let networks = [&judge, &features];
            evaluate_classes(&engine, &model, &spec, networks, [&train, &test], &mut watcher)?
        };
        bar.finish_and_clear();
        if !args.json {
            output::say(report.table().trim_end());
        }
        reports.push(report);
    }
    let json = serde_json::to_string_pretty(&reports)?;
    if let Some(path) = &args.out {
        output::write(path, json.as_bytes())?;
    }
    if args.json {
        output::say(&json);
    }
    Ok(())
}

fn spec(args: &Args, model: &Model, steps: usize, count: usize) -> Result<Spec> {
    let mut spec = Spec {
        model: model.name.clone(),
        grid: Some(model.grid.clone()),
        sampler: model.sampler.clone(),
        guidance: Some(args.guidance.unwrap_or_else(|| model.default_guidance())),
        steps,
        count: args.count.unwrap_or(count),
        batch: 50,
        seed: args.seed,
        ..Spec::default()
    };
    if let Some(grid) = &args.grid {
        spec.grid = Some(grid::read(grid)?.0);
    }
    spec.guides = args.guide.iter().map(|g| g.parse()).collect::<Result<_, _>>()?;
    if let Some(sampler) = &args.sampler {
        let (sampler, grid) = resolve_sampler(&sampler.parse()?)?;
        spec.sampler = sampler;
        spec.grid = grid.or(spec.grid);
    }
    spec.validate(&Limits::default())?;
    Ok(spec)
}
