//! Runs a spec on a model.

use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::ThreadPool;

use crate::data::Images;
use crate::denoiser::{Batched, Cond, Cost, Denoiser, NetworkDenoiser, Pass};
use crate::engine::Engine;
use crate::engine::autoencode::{decoded, pixels};
use crate::engine::cond::{Texts, classes_of, condition};
use crate::engine::edit::{Batch, Trace, append, guides, inversion};
use crate::engine::inputs::{Inputs, Noises};
use crate::engine::keep::put_back;
use crate::engine::machine;
use crate::engine::open::Model;
use crate::engine::reward::Rewards;
use crate::engine::search::Searched;
use crate::engine::sizes;
use crate::engine::task::Plan;
use crate::engine::watch::{Forward, Unwatching, Watch};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::model::{Control, Controlled};
use crate::noise::DrawnAs;
use crate::process::Process;
use crate::run::{Parts, Run};
use crate::spec::Spec;
use crate::state::State;
use crate::{grid, process, sampler, tap};

/// What came out.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The pictures.
    pub images: Images,
    /// What the sampler ended with, before any decoder: `[count, channels, height, width]`.
    pub latents: Noises,
    /// The class of each picture, for models that take one.
    pub classes: Option<Vec<i64>>,
    /// What it cost: evaluations of the network, a row each.
    pub cost: Cost,
    /// For edits, what the inversion found.
    pub trace: Option<Trace>,
    /// What was run, with everything put in that only the model knows.
    pub spec: Spec,
}

/// Makes the pictures that a spec asks for.
///
/// Image `k` depends on the spec and on `k`, never on the batch or the count of threads.
///
/// # Errors
///
/// [`Error::Stopped`] where the watcher said so; [`Error::Setting`] for what does not fit the
/// model; what a part says.
pub fn generate(
    engine: &Engine,
    model: &Model,
    spec: &Spec,
    inputs: &Inputs,
    watch: &mut dyn Watch,
) -> Result<Generated> {
    engine.install(|| inside(engine, model, spec, &[], (inputs, None), watch))
}

/// A model's network, shared by the runs that go on at the same time.
pub type Table = Batched<Pooled>;

/// A network that computes on threads of its own, whoever asks: what its calls need of memory is needed
/// there once, and not by each of those who ask in turn.
pub struct Pooled {
    denoiser: NetworkDenoiser,
    pool: ThreadPool,
}

impl Denoiser for Pooled {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        self.pool.install(|| self.denoiser.x0(x, at, cond, pass))
    }

    fn jump(
        &self,
        x: &State,
        from: Level,
        to: Level,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<Option<State>> {
        self.pool.install(|| self.denoiser.jump(x, from, to, cond, pass))
    }

    fn is_told_guidance(&self) -> bool {
        self.denoiser.is_told_guidance()
    }
}

/// The table of a model; the states of no call have more numbers together than `room`, unless a run
/// asks for more by itself.
///
/// # Errors
///
/// [`Error::Setting`] where the system starts no more threads.
pub fn table(engine: &Engine, model: &Model, room: usize) -> Result<Table> {
    let pool = machine::pool(engine.threads())?;
    Ok(Batched::with_room(Pooled { denoiser: model.denoiser.clone(), pool }, room))
}

/// As [`generate`], its calls gathered with those of other runs of the same model that go through
/// the same table at the same time; the pictures are the same. A run that changes the network (a
/// control network, another prediction) goes by itself.
///
/// # Errors
///
/// As [`generate`].
pub fn generate_through(
    engine: &Engine,
    model: &Model,
    table: &Table,
    spec: &Spec,
    inputs: &Inputs,
    watch: &mut dyn Watch,
) -> Result<Generated> {
    engine.install(|| inside(engine, model, spec, &[], (inputs, Some(table)), watch))
}

/// As [`generate`], with a prompt of its own for each picture: picture `k` is of
/// `prompts[k % prompts.len()]`.
///
/// # Errors
///
/// As [`generate`].
pub fn generate_each(
    engine: &Engine,
    model: &Model,
    spec: &Spec,
    prompts: &[String],
    watch: &mut dyn Watch,
) -> Result<Generated> {
    engine.install(|| inside(engine, model, spec, prompts, (&Inputs::default(), None), watch))
}

/// Whether a model can run a spec, as far as that can be told before anything is computed: classes,
/// sizes, every part with its settings, the grid's levels.
///
/// # Errors
///
/// What [`generate`] would say of it.
pub fn check(model: &Model, spec: &Spec) -> Result<()> {
    let spec = &model.completed(spec);
    classes_of(model, spec)?;
    let process = spec.process.as_ref().unwrap_or(&model.process);
    let process = process.make(process::entries(), crate::catalog::Seam::Process)?;
    let one = spec.count.min(1);
    if let Some(edit) = &spec.task.edit {
        inversion(edit)?;
    }
    parts_of(model, &model.denoiser, spec, process.as_ref(), Cond::default(), 0, one)?;
    Ok(())
}

/// A state on its way as pictures, for previews.
///
/// # Errors
///
/// What the decoder says.
pub fn preview(model: &Model, x0: &State) -> Result<Images> {
    let one = x0.view::<4>()?.narrow(0, 0, 1);
    let shown = decoded(model, &Spec::default(), one, &mut Unwatching)?;
    let shape = shown.dims();
    let values = shown.into_data_as::<f32>();
    let values: Vec<f32> = values.iter::<f32>().map(|v| if v.is_nan() { 0.0 } else { v }).collect();
    Images::from_f32(shape, &values)
}

fn inside(
    engine: &Engine,
    model: &Model,
    spec: &Spec,
    prompts: &[String],
    (inputs, table): (&Inputs, Option<&Table>),
    watch: &mut dyn Watch,
) -> Result<Generated> {
    let spec = &model.completed(spec);
    let plan = Plan::new(model, spec, inputs)?;
    let [channels, height, width] = plan.shape;
    check_noises(inputs.noise.as_ref(), [spec.count, channels, height, width])?;
    let process = spec.process.as_ref().unwrap_or(&model.process);
    let process: Box<dyn Process> =
        process.make(process::entries(), crate::catalog::Seam::Process)?;
    let classes = classes_of(model, spec)?;
    let texts = match &inputs.texts {
        Some(texts) => Some(texts.clone()),
        None => Texts::encode(model, spec, prompts)?,
    };
    let size = [height, width].map(|side| side * model.scale());
    let rewards = Rewards::open(model, spec, inputs, prompts, size)?;
    if let (Some(search), Some(_)) = (&spec.search, &inputs.noise) {
        return Err(Error::unsupported(&search.name, "noise of its own, and none from a file"));
    }
    let mut denoiser = model.denoiser.clone();
    if let Some(prediction) = spec.prediction {
        denoiser.scaling = crate::denoiser::Scaling::Predict(prediction);
    }
    if !inputs.controls.is_empty() {
        let strengths = spec.task.controls.iter().map(|c| c.strength);
        let controls = inputs.controls.iter().zip(strengths);
        let controls =
            controls.map(|(c, scale)| Control { scale, ..Control::new(c.network.clone()) });
        let controlled = Controlled::new(denoiser.network.clone(), controls.collect())?;
        denoiser.network = Arc::new(controlled);
    }
    let table = table.filter(|_| spec.prediction.is_none() && inputs.controls.is_empty());
    let mut out = Made::default();
    let batch = spec.batch.clamp(1, spec.count);
    for first in (0..spec.count).step_by(batch) {
        let last = (first + batch).min(spec.count);
        let mut cond = condition(model, texts.as_ref(), classes.as_deref(), first, last)?;
        if let Some(rewards) = &rewards {
            cond.reward = Some(rewards.of(classes.as_deref(), first, last)?);
        }
        let given = inputs.noise.as_ref().map(|noise| noise.rows(first, last, engine.device()));
        let mut observer = Forward { watch, first, batch: last - first, count: spec.count };
        let mut x = {
            // Held while the run walks, and not while pictures are encoded or decoded.
            let seat = table.map(Table::seat);
            let (through, names): (&dyn Denoiser, u64) = match &seat {
                Some(seat) => (seat, seat.number() << 32),
                None => (&denoiser, 0),
            };
            if let Some(search) = &spec.search {
                let process = process.as_ref();
                let ground =
                    Searched { model, spec, plan: &plan, process, denoiser: through, names };
                let mut rows = Vec::with_capacity(last - first);
                for row in 0..last - first {
                    let cond = cond.select(&[row]);
                    let found = ground.picture(search, first + row, &cond, &mut observer)?;
                    out.cost.forward += found.cost.forward;
                    out.cost.backward += found.cost.backward;
                    rows.push(found.x.view::<4>()?);
                }
                Tensor::cat(rows, 0)
            } else {
                let mut parts =
                    parts_of(model, through, spec, process.as_ref(), cond.clone(), first, last)?;
                parts.requests.iter_mut().for_each(|request| *request += names);
                match &spec.task.edit {
                    Some(edit) => {
                        let batch = Batch { model, spec, edit, plan: &plan, texts: texts.as_ref() };
                        batch.walk(parts, (first, last), &mut observer, &mut out)?
                    }
                    None => walk(model, &plan, parts, given, &mut observer, &mut out.cost)?,
                }
            }
        };
        if let Some(upscale) = spec.task.upscale {
            let mut passes = Vec::with_capacity(last - first);
            for row in 0..last - first {
                // One picture at a time: each has a plan of its own.
                let one = x.clone().narrow(0, row, 1);
                let shown = decoded(model, spec, one, observer.watch)?;
                let plan = enlarged(model, spec, inputs, shown, upscale.factor)?;
                let (k, cond) = (first + row, cond.select(&[row]));
                let mut parts = parts_of(model, &denoiser, spec, process.as_ref(), cond, k, k + 1)?;
                // The first pass has had the seed's own draws.
                parts.noise = parts.noise.fork(SECOND_PASS);
                let mut observer =
                    Forward { watch: observer.watch, first: k, batch: 1, count: spec.count };
                passes.push(walk(model, &plan, parts, None, &mut observer, &mut out.cost)?);
            }
            x = Tensor::cat(passes, 0);
        }
        out.add(model, spec, x, watch)?;
    }
    let mut generated = out.finish(spec, classes)?;
    put_back(spec, inputs, &mut generated.images)?;
    Ok(generated)
}

/// The stream of a second pass.
const SECOND_PASS: u64 = 2;

/// Walks one batch from where its plan starts it.
fn walk(
    model: &Model,
    plan: &Plan,
    mut parts: Parts<'_>,
    given: Option<State>,
    observer: &mut Forward<'_>,
    cost: &mut Cost,
) -> Result<Tensor<4>> {
    let [channels, height, width] = plan.shape;
    let shape = [parts.requests.len(), channels, height, width];
    let like = State::new(Tensor::<4>::zeros(shape, model.device()));
    let size = [height, width].map(|side| side * model.scale());
    sizes::tell(&mut parts.cond, &*model.denoiser.network, size)?;
    let (x, first) = plan.start(model, &mut parts, &like, given)?;
    let run = Run::starting_at(parts, x, first)?.sequential(plan.sequential);
    let (x, spent) = run.finish(observer)?;
    cost.forward += spent.forward;
    cost.backward += spent.backward;
    x.view()
}

/// The plan of a second pass over a picture in -1..1, `[1, channels, height, width]`.
fn enlarged(
    model: &Model,
    spec: &Spec,
    inputs: &Inputs,
    shown: Tensor<4>,
    factor: f64,
) -> Result<Plan> {
    let [_, channels, height, width] = shown.dims();
    let unit = model.multiple();
    let side = |pixels: usize| {
        let wanted = (pixels as f64 * factor / unit as f64).round() as usize;
        wanted.max(1) * unit
    };
    let values: Vec<f32> = shown.into_data_as::<f32>().iter::<f32>().collect();
    let picture = Images::from_f32([1, channels, height, width], &values)?;
    let pixels = pixels(model, &picture, [side(height), side(width)])?;
    Plan::second(model, spec, inputs, &pixels)
}

/// What the batches add up to.
#[derive(Default)]
pub(super) struct Made {
    latents: Vec<f32>,
    pixels: Vec<f32>,
    latent: [usize; 3],
    picture: [usize; 3],
    cost: Cost,
    trace: Option<Trace>,
}

impl Made {
    /// Counts what was spent.
    pub(super) fn spent(&mut self, cost: Cost) {
        self.cost.forward += cost.forward;
        self.cost.backward += cost.backward;
    }

    /// Notes what an inversion found.
    pub(super) fn trace(&mut self, source: &State, start: &State, cost: Cost) -> Result<()> {
        let trace = self.trace.get_or_insert_with(Trace::default);
        append(&mut trace.source, source)?;
        append(&mut trace.start, start)?;
        trace.cost.forward += cost.forward;
        trace.cost.backward += cost.backward;
        Ok(())
    }

    /// Decodes what a batch ended with, one picture at a time: a decoder's memory is that of one.
    fn add(
        &mut self,
        model: &Model,
        spec: &Spec,
        x: Tensor<4>,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let [rows, channels, height, width] = x.dims();
        self.latent = [channels, height, width];
        self.latents.extend(x.clone().into_data_as::<f32>().iter::<f32>());
        for row in 0..rows {
            if watch.evaluate().is_break() {
                return Err(Error::Stopped);
            }
            let shown = decoded(model, spec, x.clone().narrow(0, row, 1), watch)?;
            self.picture = [shown.dims()[1], shown.dims()[2], shown.dims()[3]];
            self.pixels.extend(shown.into_data_as::<f32>().iter::<f32>());
        }
        Ok(())
    }

    fn finish(self, spec: &Spec, classes: Option<Vec<i64>>) -> Result<Generated> {
        if let Some(bad) = self.pixels.iter().find(|v| !v.is_finite()) {
            return Err(Error::NotFinite { what: format!("a pixel of the result ({bad})") });
        }
        let ([c, h, w], [lc, lh, lw]) = (self.picture, self.latent);
        Ok(Generated {
            images: Images::from_f32([spec.count, c, h, w], &self.pixels)?,
            latents: Noises { shape: [spec.count, lc, lh, lw], values: self.latents },
            classes,
            cost: self.cost,
            trace: self.trace,
            spec: spec.clone(),
        })
    }
}

fn check_noises(noises: Option<&Noises>, wanted: [usize; 4]) -> Result<()> {
    match noises {
        Some(noises) if noises.shape != wanted => Err(Error::Shape {
            what: "initial noise".into(),
            wanted: wanted.to_vec(),
            found: noises.shape.to_vec(),
        }),
        _ => Ok(()),
    }
}

pub(super) fn parts_of<'m>(
    model: &Model,
    denoiser: &'m dyn Denoiser,
    spec: &Spec,
    process: &'m dyn Process,
    cond: Cond,
    first: usize,
    last: usize,
) -> Result<Parts<'m>> {
    use crate::catalog::Seam;
    let grid = spec.grid.as_ref().unwrap_or(&model.grid);
    let levels = grid.make(grid::entries(), Seam::Grid)?.levels(process, spec.steps)?;
    let taps =
        spec.taps.iter().map(|t| t.make(tap::entries(), Seam::Tap).map(tap::SharedTap::boxed));
    let seeds = (first..last).map(|k| spec.seed.wrapping_add(k as u64));
    let noise = spec.rng.of_seeds(seeds, DrawnAs::Full);
    Ok(Parts {
        model: denoiser,
        process,
        levels,
        sampler: spec.sampler.make(sampler::entries(), Seam::Sampler)?,
        guides: guides(model, spec)?,
        taps: taps.collect::<Result<_>>()?,
        noise,
        cond,
        requests: (first as u64..last as u64).collect(),
    })
}
