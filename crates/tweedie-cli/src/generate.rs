//! `tweedie generate`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tweedie::catalog::Seam;
use tweedie::engine::{
    Engine, Inputs, Model, Noises, generate, instruction_set, open_classifier, source,
};
use tweedie::hub::TensorFile;
use tweedie::media::{Format, RECORD, decode_texts};
use tweedie::noise::Rng;
use tweedie::prompt::Emphasis;
use tweedie::search;
use tweedie::spec::{Limits, Spec, resolve_sampler};

use crate::demands::{Demands, Memory, Stored, measured};
use crate::progress::{self, Watcher};
use crate::save::{Target, save, save_latents};
use crate::{adapt, aliases, demo, grid, output, parts, task};

/// Make pictures.
///
/// Without any argument it draws a labelled contact sheet from each model that is part of this
/// program. With a prompt it makes pictures of it:
///
///     tweedie generate "a large red circle on a white background" --count 4
///     tweedie generate sneaker --model builtin:fashion
///     tweedie generate --from out/picture.png
///
/// Samplers, grids, guides and taps are written `name` or `name:key=value,key=value`; the names that
/// other programs use are understood ("DPM++ 2M Karras", `dpmpp_2m`, `k_euler_a`). `tweedie methods`
/// lists them all with their settings.
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, after_long_help = aliases::help())]
pub(crate) struct Args {
    /// What the pictures should be of: a caption, or the name of a class.
    prompt: Option<String>,
    /// The prompt, as an argument with a name.
    #[arg(
        short,
        long = "prompt-text",
        visible_alias = "prompt",
        value_name = "PROMPT",
        conflicts_with = "prompt"
    )]
    prompt_text: Option<String>,
    /// The model: `builtin:NAME`, a folder in the layout of diffusers, a single file of weights, or
    /// `org/name` in the local Hugging Face cache.
    #[arg(short, long, value_name = "NAME|DIR|FILE")]
    model: Option<String>,
    #[command(flatten)]
    parts: parts::PartArgs,
    /// Run even where the machine seems to lack the memory.
    #[arg(long)]
    force: bool,
    /// What the pictures should not be of.
    #[arg(short, long, visible_alias = "negative-prompt")]
    negative: Option<String>,
    /// Which layer of the text encoder to take, counted from the last, which is 1; the model's own
    /// where nothing is said.
    #[arg(long, value_name = "N")]
    clip_skip: Option<usize>,
    /// How weights in prompts act.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Emphasis::NAMES))]
    emphasis: Option<String>,
    #[command(flatten)]
    adapters: adapt::Args,
    /// Classes by number, for class-conditional models; image k takes the k-th, in turn.
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    class: Vec<i64>,
    /// How to step from noise to picture; the model's own where nothing is said.
    #[arg(long, visible_alias = "sampling-method")]
    sampler: Option<String>,
    /// Which levels to stop at: a name, or a file of `tweedie tune`; the model's own where nothing is
    /// said.
    #[arg(short, long, visible_alias = "scheduler")]
    grid: Option<String>,
    /// A second model of the same data, for guides that ask one: `t-stitch`, `autoguidance`.
    #[arg(long, value_name = "MODEL")]
    second: Option<String>,
    /// Steps.
    #[arg(long)]
    steps: Option<usize>,
    /// The guidance weight; 1 is none.
    #[arg(long, visible_alias = "cfg-scale")]
    guidance: Option<f64>,
    /// A further guide, outermost first; may be given several times.
    #[arg(long, value_name = "GUIDE")]
    guide: Vec<String>,
    /// A tap inside the network, such as a cache; may be given several times.
    #[arg(long, value_name = "TAP")]
    tap: Vec<String>,
    /// What the pictures are to score high in, for guides that follow it and searches that choose by
    /// it: a class, a caption's reading, a measurement; several add up.
    #[arg(long, value_name = "REWARD")]
    reward: Vec<String>,
    /// Spend evaluations on finding pictures of higher reward: `noise-search`, `fk-steering`.
    #[arg(long, value_name = "SEARCH")]
    search: Option<String>,
    /// The seed of the first picture; picture k has seed + k.
    #[arg(short, long)]
    seed: Option<u64>,
    /// Whose numbers the seed stands for: `tweedie`, the same along one path however many steps,
    /// `brownian`, or those of torch (diffusers, A1111) on a CPU, `torch-cpu`, or a GPU, `torch-cuda`.
    #[arg(long, value_name = "NAME")]
    rng: Option<String>,
    /// How many pictures.
    #[arg(short, long, visible_short_alias = 'b', visible_alias = "batch-count")]
    count: Option<usize>,
    /// How many pictures go through the network at once; changes the speed and no picture.
    #[arg(long)]
    batch: Option<usize>,
    /// Width and height in pixels; the model's own where nothing is said.
    #[arg(long, value_name = "WxH", value_parser = size, conflicts_with_all = ["width", "height"])]
    size: Option<(usize, usize)>,
    /// Width in pixels.
    #[arg(short = 'W', long)]
    width: Option<usize>,
    /// Height in pixels.
    #[arg(short = 'H', long)]
    height: Option<usize>,
    /// Hold the weights in this type, whatever the files hold: f16 and bf16 take half the memory of
    /// f32, int8 a quarter in linear layers. (Vectors, such as biases, are never narrowed.)
    #[arg(long, value_enum, visible_alias = "type")]
    dtype: Option<Stored>,
    /// How the autoencoder works: `off`, as a whole; a number, by tiles of that many pixels a side,
    /// which takes less memory and more time; `auto`, by tiles of 512 above 1.5 megapixels.
    #[arg(long, visible_alias = "vae-tile-size", value_name = "auto|off|N", value_parser = vae_tile, default_value = "auto")]
    vae_tile: Tiling,
    /// The same as `--vae-tile 512`.
    #[arg(long, conflicts_with = "vae_tile")]
    vae_tiling: bool,
    /// What memory is weighed against time by; changes no picture, except that tiles of an
    /// autoencoder round differently.
    #[arg(long, value_enum, default_value = "auto")]
    memory: Memory,
    #[command(flatten)]
    task: task::Args,
    #[command(flatten)]
    controls: task::Controls,
    /// Threads; as many as there are cores where nothing is said. Changes no picture.
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Where to compute: `cpu`, `vulkan`, `cuda:1` ...; `tweedie devices` lists what there is.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Initial noise from a safetensors file, in place of the seed's: a tensor
    /// [count, channels, height, width] of standard normal numbers.
    #[arg(long, value_name = "FILE")]
    noise: Option<PathBuf>,
    /// Where to save what the sampler ends with, before any decoder, as a safetensors file.
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Where to write: a file for one picture, whose ending says the format, or a folder.
    #[arg(short, long, visible_alias = "output", default_value = "out", value_name = "DIR|FILE")]
    out: PathBuf,
    /// The format: `png`, `jpeg` or `webp`; each carries the record of how it was made.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Repeat the picture of this file, from the record in it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "sampler", "grid", "steps", "seed", "count", "negative", "class", "prompt_text", "size", "width", "height", "guidance", "guide", "tap", "reward", "search", "clip_skip", "emphasis", "dtype"])]
    from: Option<PathBuf>,
    /// Print a report as JSON on standard output and nothing else.
    #[arg(long)]
    json: bool,
    /// Keep a preview of the first picture in the output folder while it is being made.
    #[arg(long)]
    preview: bool,
}

impl Args {
    fn demands(&self) -> Demands {
        Demands { batch: self.batch, force: self.force, quiet: self.json }
    }

    /// Whether nothing was asked for in particular.
    fn bare(&self) -> bool {
        self.prompt.is_none()
            && self.prompt_text.is_none()
            && !self.task.is_given()
            && self.model.is_none()
            && self.from.is_none()
            && self.class.is_empty()
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let engine = Engine::on(&args.device, args.threads)?.keeping_hashes(kept_hashes());
    if args.bare() && args.sampler.is_none() && args.steps.is_none() {
        return demo::run(&engine, &args.out, args.json);
    }
    let (name, mut spec) = match &args.from {
        Some(picture) => recorded(picture, args.model.as_deref())?,
        None => asked(args)?,
    };
    if let Some(batch) = args.batch {
        spec.batch = batch;
    }
    if args.from.is_none() {
        spec.memory = args.memory.mode();
        spec.vae_tile = if args.vae_tiling { Some(Spec::TILE) } else { args.vae_tile.0 };
    }
    let mut inputs = args.task.read(&mut spec, args.from.as_deref())?;
    inputs.controls = args.controls.read(&engine, &mut spec, args.from.as_deref())?;
    inputs.noise = noises(args, &mut spec)?;
    classifiers(&engine, &mut spec, &mut inputs)?;
    spec.validate(&Limits::default())?;
    if args.from.is_none() {
        spec.dtype = args.dtype.map(Stored::storage);
    }
    let mut parts = args.parts.of(&name);
    if let Some(storage) = spec.dtype {
        parts = parts.dtype(storage);
    }
    let opened = parts.open()?;
    let needs = measured(&args.demands(), &mut spec, &opened)?;
    let mut model = args.adapters.put(engine.open_folder(opened.folder)?, &mut spec)?;
    if let Some(second) = &args.second {
        model = model.with_second(&engine.open(second)?)?;
    }
    if args.from.is_some() {
        announce(&spec);
    }
    complete(&engine, &mut spec, &model, args)?;
    let ready = start.elapsed();
    inputs.texts = engine.encode(&model, &spec)?;
    model.release_text();
    let encoded = start.elapsed();
    let target = Target::new(&args.out, args.format, spec.count)?;
    let stop = progress::stop_flag()?;
    let walks = walks(&spec)?;
    let evaluations = ((spec.count * spec.steps) as f64 * walks).round() as u64;
    if let Some(search) = spec.search.as_ref().filter(|_| !args.json) {
        output::warn(&format!(
            "search {search}: costs {walks} times what a picture costs without it"
        ));
    }
    let bar = progress::bar(evaluations, "steps", args.json);
    bar.set_message(model.name.clone());
    let preview = args.preview.then(|| (target.folder.join("preview.png"), &model));
    let mut watcher = Watcher::new(bar.clone(), stop, preview);
    let made = generate(&engine, &model, &spec, &inputs, &mut watcher);
    bar.finish_and_clear();
    let made = made.inspect_err(|_| target.take_back())?;
    // Taken here, on all threads; the pictures record it.
    engine.hash(&model)?;
    let files = save(&target, &spec, &model, &made)?;
    if let Some(path) = &args.save_latents {
        save_latents(path, &made.latents)?;
    }
    let time = start.elapsed();
    if args.json {
        let report = json!({
            "files": files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>(),
            "seconds": time.as_secs_f64(),
            // Since the start: when all components were built and checked, when the prompts were
            // encoded.
            "opened": ready.as_secs_f64(),
            "encoded": encoded.as_secs_f64(),
            "evaluations": made.cost.forward,
            "classes": made.classes,
            "memory": needs,
            "spec": made.spec,
        });
        output::say(&serde_json::to_string_pretty(&report)?);
    } else {
        for file in &files {
            output::say(&file.display().to_string());
        }
        let per_image = made.cost.forward / spec.count.max(1);
        output::warn(&format!(
            "{} picture(s) of {} in {}, {per_image} evaluations of the network each",
            spec.count,
            model.name,
            output::seconds(time),
        ));
    }
    Ok(())
}

/// Where the hashes of weights are kept between two calls.
fn kept_hashes() -> Option<PathBuf> {
    tweedie::data::root::cache_folder().map(|folder| folder.join("hashes"))
}

/// Opens the classifiers in folders that rewards name, and calls them by the folder's last part.
fn classifiers(engine: &Engine, spec: &mut Spec, inputs: &mut Inputs) -> Result<()> {
    for part in &mut spec.rewards {
        let Some(folder) = part.settings.get("model").and_then(Value::as_str) else { continue };
        if folder.starts_with("builtin:") {
            continue;
        }
        let classifier = open_classifier(folder, engine.device())?;
        let name = Path::new(folder).file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        part.settings.insert("model".to_owned(), name.clone().into());
        inputs.classifiers.insert(name, classifier);
    }
    Ok(())
}

/// How many walks of one candidate a picture costs.
fn walks(spec: &Spec) -> Result<f64> {
    let Some(part) = &spec.search else { return Ok(1.0) };
    Ok(part.make(search::entries(), Seam::Search)?.walks(spec.steps))
}

/// The spec that the arguments ask for, and the model to open.
fn asked(args: &Args) -> Result<(String, Spec)> {
    let name = args.model.clone().unwrap_or_else(|| "builtin:shapes".to_owned());
    let (width, height) = args.size.unzip();
    let mut spec = Spec {
        prompt: args.prompt.clone().or_else(|| args.prompt_text.clone()).unwrap_or_default(),
        negative: args.negative.clone().unwrap_or_default(),
        clip_skip: args.clip_skip,
        classes: args.class.clone(),
        seed: args.seed.unwrap_or_default(),
        count: args.count.unwrap_or(1),
        guidance: args.guidance,
        width: width.or(args.width),
        height: height.or(args.height),
        ..Spec::default()
    };
    if let Some(rng) = &args.rng {
        spec.rng = Rng::find(rng)?;
    }
    if let Some(steps) = args.steps {
        spec.steps = steps;
    }
    if let Some(name) = &args.emphasis {
        spec.emphasis = name.parse()?;
    }
    if let Some(grid) = &args.grid {
        let (grid, steps) = grid::read(grid)?;
        spec.grid = Some(grid);
        spec.steps = args.steps.or(steps).unwrap_or(spec.steps);
    }
    if let Some(sampler) = &args.sampler {
        let (sampler, grid) = resolve_sampler(&sampler.parse()?)?;
        spec.sampler = sampler;
        spec.grid = spec.grid.or(grid);
    }
    spec.guides = args.guide.iter().map(|g| g.parse()).collect::<Result<_, _>>()?;
    spec.taps = args.tap.iter().map(|t| t.parse()).collect::<Result<_, _>>()?;
    spec.rewards = args.reward.iter().map(|r| r.parse()).collect::<Result<_, _>>()?;
    spec.search = args.search.as_ref().map(|s| s.parse()).transpose()?;
    Ok((name, spec))
}

/// The spec in a picture. The model in it is a name and a hash; only built-in models are found by
/// name alone, so that a picture from a stranger opens nothing of this machine.
fn recorded(picture: &Path, model: Option<&str>) -> Result<(String, Spec)> {
    let name = picture.display().to_string();
    let bytes = std::fs::read(picture).with_context(|| name.clone())?;
    let texts = decode_texts(&name, &bytes)?;
    let Some((_, record)) = texts.iter().find(|(keyword, _)| keyword == RECORD) else {
        bail!("{name}: the picture holds no record of this program (wanted the text `{RECORD}`)");
    };
    let spec = Spec::from_json(record, &Limits::default()).with_context(|| name.clone())?;
    let model = match model {
        Some(model) => model.to_owned(),
        None if spec.model.starts_with("builtin:") => spec.model.clone(),
        None => bail!("{name}: made with model `{}`; say where it is with --model DIR", spec.model),
    };
    Ok((model, spec))
}

/// Says what a record from a picture is about to run.
fn announce(spec: &Spec) {
    let grid = spec.grid.as_ref().map_or_else(|| "model".to_owned(), ToString::to_string);
    output::warn(&format!(
        "repeating: model {}, seed {}, {} steps of {} on grid {grid}, prompt {:?}",
        spec.model, spec.seed, spec.steps, spec.sampler, spec.prompt
    ));
    if spec.instruction_set != instruction_set() {
        output::warn(&format!(
            "the picture was made on {}, this is {}: it agrees within 2/255, not bit for bit",
            spec.instruction_set,
            instruction_set()
        ));
    }
}

/// Puts in what only the model knows.
fn complete(engine: &Engine, spec: &mut Spec, model: &Model, args: &Args) -> Result<()> {
    if args.from.is_some() {
        let hash = engine.hash(model)?;
        if let Some(wanted) = spec.model_hash.as_ref().filter(|h| *h != hash) {
            bail!(
                "model `{}` is not the one that the picture was made with: its hash is {hash:.12}, the picture's {wanted:.12}",
                model.name
            );
        }
    } else if args.sampler.is_none() {
        spec.sampler = model.sampler.clone();
    }
    *spec = model.completed(spec);
    Ok(())
}

/// Reads the file of initial noise and notes it in the spec.
fn noises(args: &Args, spec: &mut Spec) -> Result<Option<Noises>> {
    let Some(path) = &args.noise else {
        if let Some(noise) = &spec.noise {
            bail!(
                "the picture was made from the noise file `{}`: give it with --noise",
                noise.name
            );
        }
        return Ok(None);
    };
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let file = source(path, &bytes);
    if let Some(noise) = &spec.noise
        && noise.hash != file.hash
    {
        bail!("{}: not the noise that the picture was made from", path.display());
    }
    spec.noise = Some(file);
    let file = TensorFile::from_bytes(bytes, path.clone())?;
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let [tensor] = names.as_slice() else {
        bail!("{}: wanted one tensor of noise, found {}", path.display(), names.len());
    };
    let shape = file.info(tensor)?.shape.clone();
    let Ok(shape) = <[usize; 4]>::try_from(shape.as_slice()) else {
        bail!(
            "{}: `{tensor}`: wanted [count, channels, height, width], found {shape:?}",
            path.display()
        );
    };
    Ok(Some(Noises { shape, values: file.read_f32(tensor)? }))
}

/// What `--vae-tile` asks for.
#[derive(Clone, Copy, Debug)]
struct Tiling(Option<usize>);

fn vae_tile(text: &str) -> Result<Tiling, String> {
    Ok(Tiling(match text {
        "auto" => None,
        "off" => Some(0),
        number => match number.parse() {
            Ok(side @ 1..) => Some(side),
            _ => return Err(format!("`{text}`: wanted auto, off or pixels a side")),
        },
    }))
}

/// A size as people write it: `512x768`.
pub(crate) fn size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once(['x', 'X', '*']);
    let sides = sides.and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
    sides.ok_or_else(|| format!("`{text}`: wanted WIDTHxHEIGHT, as in 512x768"))
}
