//! `tweedie edit` and `tweedie invert`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use tweedie::engine::{
    Engine, Generated, Inputs, Model, evaluations, generate, inversion, read_picture,
};
use tweedie::hub::{Dtype, Output, write_safetensors};
use tweedie::media::Format;
use tweedie::spec::{self, Limits, Spec, resolve_grid};

use crate::demands::{Demands, Stored, measured};
use crate::generate::size;
use crate::progress::{self, Watcher};
use crate::save::{Target, save};
use crate::{adapt, output, parts};

/// Change what a picture shows, and keep the rest.
///
/// Says what the picture shows and what it should show:
///
///     tweedie edit shapes.png "a large blue circle" --source "a large red circle"
///     tweedie edit cat.png "a dog on a bench" --source "a cat on a bench" --model DIR --method edict
///
/// The picture is inverted, that is, traced back to what the model could have made it from, and made
/// from there again under the new words. Methods are written `name` or `name:key=value,key=value`;
/// `tweedie methods edit` lists them with their settings. For models of classes the words are the names
/// of classes. With a mask the edit stays inside it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Edit {
    /// The picture (PNG, JPEG or WebP).
    picture: PathBuf,
    /// What it should show.
    prompt: String,
    /// What it shows.
    #[arg(long, visible_alias = "source-prompt", value_name = "PROMPT")]
    source: String,
    /// What it should not show.
    #[arg(short, long, visible_alias = "negative-prompt")]
    negative: Option<String>,
    /// The guidance weight on the way to the edit; the model's own where nothing is said.
    #[arg(long, visible_alias = "cfg-scale")]
    guidance: Option<f64>,
    /// Where the edit may be: white. Black stays as it is.
    #[arg(long, value_name = "IMG")]
    mask: Option<PathBuf>,
    /// Put what the mask keeps back into the result pixel by pixel; softly where it is grey.
    #[arg(long, requires = "mask")]
    keep: bool,
    #[command(flatten)]
    common: Common,
}

/// Find what a picture could have been made from, and make it from that.
///
/// Writes the picture that comes of it, and says how far it is from the one that went in:
///
///     tweedie invert shapes.png "a large red circle"
///     tweedie invert shapes.png "a large red circle" --method ddim-inversion --save-latents latents.safetensors
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Invert {
    /// The picture (PNG, JPEG or WebP).
    picture: PathBuf,
    /// What it shows.
    source: String,
    /// Where to save the latents as a safetensors file: `source`, the picture as the network knows it;
    /// `start`, what the walk back to it begins with; `latents`, what it ends with.
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// What both take.
#[derive(Debug, clap::Args)]
struct Common {
    /// The model: `builtin:NAME`, a folder in the layout of diffusers, a single file of weights, or
    /// `org/name` in the local Hugging Face cache.
    #[arg(short, long, value_name = "NAME|DIR|FILE", default_value = "builtin:shapes")]
    model: String,
    #[command(flatten)]
    parts: parts::PartArgs,
    #[command(flatten)]
    adapters: adapt::Args,
    /// The method.
    #[arg(long, default_value = DEFAULT)]
    method: String,
    /// Steps of the grid; the method's own where nothing is said.
    #[arg(long)]
    steps: Option<usize>,
    /// The share of the steps that is walked, 0 to 1: what an edit may change grows with it; the
    /// method's own where nothing is said.
    #[arg(long)]
    strength: Option<f64>,
    /// The guidance weight on the way back to what the picture was made from; the method's own where
    /// nothing is said.
    #[arg(long, value_name = "WEIGHT")]
    source_guidance: Option<f64>,
    /// Which levels to stop at; the model's own where nothing is said.
    #[arg(short, long)]
    grid: Option<String>,
    /// The seed, for methods that draw noise.
    #[arg(short, long, default_value_t = 0)]
    seed: u64,
    /// How many, each with the next seed.
    #[arg(short, long, default_value_t = 1)]
    count: usize,
    /// Width and height in pixels; the picture's own, rounded to what the model can have, where nothing
    /// is said.
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<(usize, usize)>,
    /// Hold the weights in this type, whatever the files hold.
    #[arg(long, value_enum)]
    dtype: Option<Stored>,
    /// Threads; as many as there are cores where nothing is said. Changes no picture.
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Where to compute: `cpu`, `vulkan`, `cuda:1` ...; `tweedie devices` lists what there is.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Where to write: a file for one picture, whose ending says the format, or a folder.
    #[arg(short, long, default_value = "out", value_name = "DIR|FILE")]
    out: PathBuf,
    /// The format: `png`, `jpeg` or `webp`; each carries the record of how it was made, from which
    /// `tweedie generate --from` makes it again.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Run even where the machine seems to lack the memory.
    #[arg(long)]
    force: bool,
    /// Print a report as JSON on standard output and nothing else.
    #[arg(long)]
    json: bool,
}

/// The method where nothing is said; docs/choosing.md has the measurement.
const DEFAULT: &str = "infedit:cross=0,own=0";

/// A run and what it is told about.
struct Done {
    made: Generated,
    files: Vec<PathBuf>,
    seconds: f64,
    /// Evaluations, as they were known before.
    known: Option<tweedie::edit::Evaluations>,
}

impl Common {
    /// The spec of an edit of this picture.
    fn spec(&self, picture: &Path, source: &str) -> Result<(Spec, Inputs)> {
        let edit = spec::Edit {
            method: self.method.parse()?,
            source: source.to_owned(),
            source_guidance: self.source_guidance,
            reconstruct: false,
        };
        let usual = inversion(&edit)?.usual();
        let (file, images) = read_picture(picture)?;
        let (width, height) = self.size.unzip();
        let mut spec = Spec {
            steps: self.steps.unwrap_or(usual.steps),
            seed: self.seed,
            count: self.count,
            width,
            height,
            dtype: self.dtype.map(Stored::storage),
            ..Spec::default()
        };
        if let Some(grid) = &self.grid {
            spec.grid = Some(resolve_grid(&grid.parse()?)?);
        }
        spec.task.init = Some(file);
        spec.task.strength = self.strength;
        spec.task.edit = Some(edit);
        Ok((spec, Inputs { init: Some(images), ..Inputs::default() }))
    }

    /// Opens the model, runs the spec, writes the pictures.
    fn run(&self, mut spec: Spec, mut inputs: Inputs) -> Result<Done> {
        let start = Instant::now();
        let engine = Engine::on(&self.device, self.threads)?;
        spec.validate(&Limits::default())?;
        let mut parts = self.parts.of(&self.model);
        if let Some(storage) = spec.dtype {
            parts = parts.dtype(storage);
        }
        let opened = parts.open()?;
        let demands = Demands { batch: None, force: self.force, quiet: self.json };
        measured(&demands, &mut spec, &opened)?;
        let mut model: Model = self.adapters.put(engine.open_folder(opened.folder)?, &mut spec)?;
        spec = model.completed(&spec);
        let known = evaluations(&spec)?;
        if let (Some(known), false) = (known, self.json) {
            output::warn(&format!(
                "{} evaluations of the network each: {} to invert, {} to walk",
                known.invert + known.walk,
                known.invert,
                known.walk
            ));
        }
        inputs.texts = engine.encode(&model, &spec)?;
        model.release_text();
        let target = Target::new(&self.out, self.format, spec.count)?;
        let stop = progress::stop_flag()?;
        let bar = progress::bar((2 * spec.count * spec.steps) as u64, "steps", self.json);
        bar.set_message(model.name.clone());
        let mut watcher = Watcher::new(bar.clone(), stop, None);
        let made = generate(&engine, &model, &spec, &inputs, &mut watcher);
        bar.finish_and_clear();
        let made = made.inspect_err(|_| target.take_back())?;
        engine.hash(&model)?;
        let files = save(&target, &spec, &model, &made)?;
        Ok(Done { made, files, seconds: start.elapsed().as_secs_f64(), known })
    }

    /// Says what was done.
    fn report(&self, done: &Done, more: serde_json::Value, line: &str) -> Result<()> {
        let Done { made, files, seconds, known } = done;
        let each = made.cost.forward / made.spec.count.max(1);
        if !self.json {
            files.iter().for_each(|file| output::say(&file.display().to_string()));
            output::warn(&format!(
                "{line}, {each} evaluations of the network each, {seconds:.1} s"
            ));
            return Ok(());
        }
        let mut report = json!({
            "files": files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>(),
            "seconds": seconds,
            "evaluations": made.cost.forward,
            "evaluations_known_before": known.map(|k| (k.invert + k.walk) * made.spec.count),
            "spec": made.spec,
        });
        if let (Some(report), serde_json::Value::Object(more)) = (report.as_object_mut(), more) {
            report.extend(more);
        }
        output::say(&serde_json::to_string_pretty(&report)?);
        Ok(())
    }
}

pub(crate) fn edit(args: &Edit) -> Result<()> {
    let (mut spec, mut inputs) = args.common.spec(&args.picture, &args.source)?;
    spec.prompt.clone_from(&args.prompt);
    spec.negative = args.negative.clone().unwrap_or_default();
    spec.guidance = args.guidance;
    spec.task.keep = args.keep;
    if let Some(mask) = &args.mask {
        let (file, images) = read_picture(mask)?;
        (spec.task.mask, inputs.mask) = (Some(file), Some(images));
    }
    let done = args.common.run(spec, inputs)?;
    let line = format!("{} edit(s) by {}", done.made.spec.count, args.common.method);
    args.common.report(&done, json!({}), &line)
}

pub(crate) fn invert(args: &Invert) -> Result<()> {
    let (mut spec, inputs) = args.common.spec(&args.picture, &args.source)?;
    spec.prompt.clone_from(&args.source);
    if let Some(edit) = &mut spec.task.edit {
        edit.reconstruct = true;
    }
    let done = args.common.run(spec, inputs)?;
    let Some(trace) = &done.made.trace else {
        anyhow::bail!("the run kept no trace of its inversion");
    };
    let error = Apart::of(&trace.source.values, &done.made.latents.values);
    if let Some(path) = &args.save_latents {
        let all =
            [("source", &trace.source), ("start", &trace.start), ("latents", &done.made.latents)];
        let tensors: Vec<Output> = all
            .iter()
            .map(|(name, x)| Output::f32(name, &x.shape, &x.values, Dtype::F32))
            .collect();
        write_safetensors(path, &tensors, &std::collections::BTreeMap::new())?;
    }
    let more = json!({ "error": { "largest": error.largest, "rms": error.rms } });
    let line = format!(
        "inverted by {}: comes back to {:.2e} at most and {:.2e} on the root mean square, where the sampler runs",
        args.common.method, error.largest, error.rms
    );
    args.common.report(&done, more, &line)
}

/// How far two sets of numbers are apart.
struct Apart {
    largest: f64,
    rms: f64,
}

impl Apart {
    fn of(a: &[f32], b: &[f32]) -> Self {
        let differences = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs()));
        let (mut largest, mut squares) = (0.0_f64, 0.0);
        for difference in differences {
            largest = largest.max(difference);
            squares += difference * difference;
        }
        Self { largest, rms: (squares / a.len().max(1) as f64).sqrt() }
    }
}
