//! How exactly pictures come back after they were inverted, where the sampler runs.

use anyhow::{Context, Result};
use tweedie::data::Images;
use tweedie::data::sets::{Split, load, named};
use tweedie::data::shapes::{Asked, Change, ChangeKind};
use tweedie::edit;
use tweedie::engine::{Engine, Inputs, Model, Unwatching, generate};
use tweedie::spec::{Edit, PartSpec, SourceFile, Spec};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pictures of each world.
    #[arg(long, default_value_t = 8)]
    count: usize,
    /// Steps of the grid; the method's own where nothing is said.
    #[arg(long)]
    steps: Option<usize>,
    /// The guidance weight, on both ways.
    #[arg(long, default_value_t = 3.0)]
    guidance: f64,
    /// The share of the steps that is walked.
    #[arg(long, default_value_t = 0.8)]
    strength: f64,
    /// Only this method.
    #[arg(long)]
    method: Option<String>,
}

/// A picture and what it shows.
type Shown = (Images, String);

pub(crate) fn run(args: &Args, say: &mut dyn FnMut(String)) -> Result<()> {
    let engine = Engine::cpu(2)?;
    let worlds =
        [("builtin:fashion", fashion(args.count)?), ("builtin:shapes", shapes(args.count)?)];
    say(format!("{:16} {:16} {:>10} {:>10}", "model", "method", "largest", "mean rms"));
    for (name, pictures) in &worlds {
        let model = engine.open(name)?;
        let all = edit::entries().iter().map(|e| e.card.id);
        for method in all.filter(|m| args.method.as_deref().is_none_or(|only| only == *m)) {
            let (mut largest, mut rms) = (0.0_f64, 0.0);
            for (seed, (picture, text)) in pictures.iter().enumerate() {
                let (most, root) =
                    apart(&engine, &model, args, method, (picture, text), seed as u64)?;
                largest = largest.max(most);
                rms += root / pictures.len() as f64;
            }
            say(format!("{name:16} {method:16} {largest:10.2e} {rms:10.2e}"));
        }
    }
    Ok(())
}

/// The largest and the root of the mean squared difference of a picture and what comes back.
fn apart(
    engine: &Engine,
    model: &Model,
    args: &Args,
    method: &str,
    (picture, text): (&Images, &String),
    seed: u64,
) -> Result<(f64, f64)> {
    let edit = Edit {
        method: PartSpec::named(method),
        source: text.clone(),
        source_guidance: Some(args.guidance),
        reconstruct: true,
    };
    let usual = tweedie::engine::inversion(&edit)?.usual().steps;
    let mut spec = Spec {
        prompt: text.clone(),
        steps: args.steps.unwrap_or(usual),
        seed,
        guidance: Some(args.guidance),
        ..Spec::default()
    };
    spec.task.init = Some(SourceFile { name: "picture".into(), hash: "0".repeat(64) });
    spec.task.strength = Some(args.strength);
    spec.task.edit = Some(edit);
    let inputs = Inputs { init: Some(picture.clone()), ..Inputs::default() };
    let made = generate(engine, model, &spec, &inputs, &mut Unwatching)?;
    let trace = made.trace.context("an edit leaves a trace")?;
    let pairs = trace.source.values.iter().zip(&made.latents.values);
    let differences: Vec<f64> = pairs.map(|(a, b)| f64::from((a - b).abs())).collect();
    let squares: f64 = differences.iter().map(|d| d * d).sum();
    let largest = differences.iter().copied().fold(0.0, f64::max);
    Ok((largest, (squares / differences.len() as f64).sqrt()))
}

/// Real pictures that no training saw.
fn fashion(count: usize) -> Result<Vec<Shown>> {
    let set = load(named("fashion-mnist")?, Split::Test)?.padded(32, 32, 0)?;
    let labels = set.labels.clone().context("the set has labels")?;
    let one = |i: usize| -> Result<Shown> {
        let picture = set.get(i).context("a picture")?.to_vec();
        let name = set.classes[labels[i] as usize].clone();
        Ok((Images::new([1, set.channels, set.height, set.width], picture)?, name))
    };
    (0..count.min(set.n)).map(one).collect()
}

fn shapes(count: usize) -> Result<Vec<Shown>> {
    let one = |i: usize| -> Result<Shown> {
        let scene = Change::sample(7, i as u64, ChangeKind::Recolour).source;
        let picture = scene.render();
        let shape = [1, 3, picture.height(), picture.width()];
        Ok((Images::from_f32(shape, &picture.to_f32_chw())?, Asked::all_of(&scene).text()))
    };
    (0..count).map(one).collect()
}
