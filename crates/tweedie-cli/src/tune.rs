//! `tweedie tune`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tweedie::catalog::Seam;
use tweedie::data::sets::{self, Split};
use tweedie::engine::{Engine, Generated, Inputs, Measured, Model, apart, generate, part_of, tune};
use tweedie::eval::frechet::frechet;
use tweedie::spec::{Limits, PartSpec, Spec, resolve_sampler};
use tweedie::tune;

use crate::output;
use crate::progress::{self, Watcher};

/// Search the times that a run of few steps stops at, and write them to a file for `--grid`.
///
/// Each trial makes a few pictures of the same seeds and is scored: by how far they are from those of
/// many steps (`distance`; any model), or from real pictures (`frechet`; class-conditional models).
/// What is found is checked on other seeds, because the best of many trials is partly the luckiest.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: `builtin:NAME` or a folder.
    #[arg(default_value = "builtin:fashion")]
    model: String,
    /// Steps of a run.
    #[arg(long, default_value_t = 4)]
    steps: usize,
    /// How to step.
    #[arg(short, long, default_value = "ddim")]
    sampler: String,
    /// The guidance weight; the model's own where nothing is said.
    #[arg(long)]
    guidance: Option<f64>,
    /// The search, with its settings: `autodiffusion:tries=450`.
    #[arg(long, default_value = "autodiffusion")]
    tuner: String,
    /// What a trial is scored by.
    #[arg(long, default_value = "distance", value_parser = ["distance", "frechet"])]
    score: String,
    /// Pictures of a trial.
    #[arg(short, long, default_value_t = 100)]
    count: usize,
    /// Steps that pictures count as converged after.
    #[arg(long, default_value_t = 100)]
    converged: usize,
    /// Classes, in turn; all of them where nothing is said.
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    class: Vec<i64>,
    /// The prompt, for models that take one.
    #[arg(short, long, default_value = "")]
    prompt: String,
    /// The seed of the first picture.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The data set of `--score frechet`.
    #[arg(long, default_value = "fashion-mnist")]
    data: String,
    /// The classifier whose features `--score frechet` is taken in.
    #[arg(long, default_value = "builtin:fashion-features")]
    features: String,
    /// Where the grid goes.
    #[arg(short, long, default_value = "grid.json")]
    out: PathBuf,
    /// Threads.
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let engine = Engine::cpu(args.threads)?;
    let model = Model::open(&args.model, engine.device())?;
    let tuner: PartSpec = args.tuner.parse()?;
    let tuner = tuner.make(tune::entries(), Seam::Tune)?;
    let spec = spec(args, &model)?;
    let bar = progress::bar(0, "steps", true);
    let mut watcher = Watcher::new(bar, progress::stop_flag()?, None);
    // Chosen on the first seeds, held to what is said on others.
    let fresh = Spec { seed: spec.seed.wrapping_add(1 << 32), ..spec.clone() };
    let mut chosen_by = score(args, &engine, &model, &spec)?;
    let mut tried = 0;
    let mut measure = |made: &Generated| {
        let score = chosen_by(made)?;
        tried += 1;
        if tried % 25 == 0 {
            output::warn(&format!("{tried} grids tried"));
        }
        Ok(score)
    };
    let mut found = tune(&engine, &model, &spec, tuner.as_ref(), &mut measure, &mut watcher)?;
    found.grid.tuned_for = format!(
        "{}, {} steps of {}, guidance {}; chosen by {} of {} pictures from seed {} among {} grids",
        model.name,
        spec.steps,
        spec.sampler,
        spec.guidance.unwrap_or(1.0),
        args.score,
        spec.count,
        spec.seed,
        found.tried
    );
    let part = part_of(&found.grid);
    let mut held_by = score(args, &engine, &model, &fresh)?;
    let mut held = |grid: &PartSpec| -> Result<f64> {
        let spec = Spec { grid: Some(grid.clone()), ..fresh.clone() };
        Ok(held_by(&generate(&engine, &model, &spec, &Inputs::default(), &mut watcher)?)?)
    };
    let (own, tuned) = (held(&model.grid)?, held(&part)?);
    output::write(&args.out, (serde_json::to_string_pretty(&part)? + "\n").as_bytes())?;
    output::say(&format!(
        "{}: {} {:.4} where even times have {:.4}; on other seeds {:.4}, and the model's own grid \
         {:.4}",
        args.out.display(),
        args.score,
        found.score,
        found.even,
        tuned,
        own
    ));
    Ok(())
}

fn spec(args: &Args, model: &Model) -> Result<Spec> {
    let classes = match (&model.classes, args.class.is_empty()) {
        (Some(classes), true) => (0..classes.names.len() as i64).collect(),
        _ => args.class.clone(),
    };
    let spec = Spec {
        sampler: resolve_sampler(&args.sampler.parse()?)?.0,
        steps: args.steps,
        guidance: Some(args.guidance.unwrap_or_else(|| model.default_guidance())),
        classes,
        prompt: args.prompt.clone(),
        count: args.count,
        batch: args.count.min(50),
        seed: args.seed,
        ..model.spec()
    };
    spec.validate(&Limits::default())?;
    Ok(spec)
}

type Score<'a> = Box<dyn FnMut(&Generated) -> tweedie::Result<f64> + 'a>;

/// How bad the pictures of a spec's seeds are.
fn score<'a>(args: &Args, engine: &'a Engine, model: &Model, spec: &Spec) -> Result<Score<'a>> {
    if args.score == "distance" {
        let grid = Some(model.grid.clone());
        let many = Spec { steps: args.converged, grid, ..spec.clone() };
        let bar = progress::bar(0, "steps", true);
        let mut watcher = Watcher::new(bar, std::sync::Arc::default(), None);
        let converged = generate(engine, model, &many, &Inputs::default(), &mut watcher)?;
        return Ok(Box::new(move |made| apart(&converged, made)));
    }
    if model.classes.is_none() {
        bail!("{}: takes no classes; `--score distance` needs none", model.name);
    }
    let features = Measured::open(&args.features, engine.device())?;
    let set = sets::named(&args.data)?;
    let real = sets::load(set, Split::Test).with_context(|| args.data.clone())?;
    let (real, _) = engine.install(|| features.look(&real))?;
    Ok(Box::new(move |made| {
        let (found, _) = engine.install(|| features.look(&made.images))?;
        Ok(frechet(&found, &real)?.distance)
    }))
}
