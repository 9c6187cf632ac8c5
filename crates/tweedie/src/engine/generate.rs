//! Runs a spec on a model.

use burn::tensor::{Tensor, TensorData};

use crate::data::Images;
use crate::denoiser::Cost;
use crate::engine::Engine;
use crate::engine::cond::{Texts, classes_of, condition};
use crate::engine::open::Model;
use crate::engine::sizes;
use crate::engine::watch::{Forward, Watch};
use crate::error::{Error, Result};
use crate::noise::{DrawnAs, Recorded};
use crate::process::Process;
use crate::run::{Parts, Run};
use crate::spec::Spec;
use crate::state::State;
use crate::{grid, guide, process, sampler, tap};

/// Initial noise from elsewhere: `[count, channels, height, width]` standard normal numbers.
#[derive(Clone, Debug)]
pub struct Noises {
    /// Its shape.
    pub shape: [usize; 4],
    /// The numbers, row-major.
    pub values: Vec<f32>,
}

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
    noises: Option<&Noises>,
    watch: &mut dyn Watch,
) -> Result<Generated> {
    engine.install(|| inside(engine, model, spec, &[], noises, watch))
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
    engine.install(|| inside(engine, model, spec, prompts, None, watch))
}

/// A state on its way as pictures, for previews.
///
/// # Errors
///
/// What the decoder says.
pub fn preview(model: &Model, x0: &State) -> Result<Images> {
    let shown = decoded(model, x0.view::<4>()?.narrow(0, 0, 1))?;
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
    noises: Option<&Noises>,
    watch: &mut dyn Watch,
) -> Result<Generated> {
    let [channels, height, width] = sample_shape(model, spec)?;
    check_noises(noises, [spec.count, channels, height, width])?;
    let process = spec.process.as_ref().unwrap_or(&model.process);
    let process: Box<dyn Process> =
        process.make(process::entries(), crate::catalog::Seam::Process)?;
    let classes = classes_of(model, spec)?;
    let texts = Texts::encode(model, spec, prompts)?;
    let mut denoiser = model.denoiser.clone();
    if let Some(prediction) = spec.prediction {
        denoiser.scaling = crate::denoiser::Scaling::Predict(prediction);
    }
    let mut latents: Vec<f32> = Vec::new();
    let mut pixels: Vec<f32> = Vec::new();
    let mut picture = [0; 3];
    let mut cost = Cost::default();
    let batch = spec.batch.clamp(1, spec.count);
    for first in (0..spec.count).step_by(batch) {
        let last = (first + batch).min(spec.count);
        let rows = last - first;
        let mut cond = condition(model, texts.as_ref(), classes.as_deref(), first, last)?;
        let size = [height, width].map(|side| side * model.scale());
        sizes::tell(&mut cond, &*model.denoiser.network, size)?;
        let mut parts = parts(model, &denoiser, spec, process.as_ref(), cond, first, last)?;
        let like = State::new(Tensor::<4>::zeros([rows, channels, height, width], engine.device()));
        let run = match noises {
            None => Run::from_prior(parts, &like)?,
            Some(noises) => {
                let size = channels * height * width;
                let part = noises.values[first * size..last * size].to_vec();
                let data = TensorData::new(part, [rows, channels, height, width]);
                let start = State::new(Tensor::<4>::from_data(data, engine.device()));
                let mut tape = Recorded::new(vec![start]);
                let level = parts.levels[0];
                // The seed's first draw is skipped, so that later ones are those of a plain run.
                parts.noise.draw(&like)?;
                let x = process.prior(&like, None, level, &mut tape)?;
                Run::new(parts, x)?
            }
        };
        let mut observer = Forward { watch, first, batch: rows, count: spec.count };
        let (x, spent) = run.finish(&mut observer)?;
        cost.forward += spent.forward;
        cost.backward += spent.backward;
        let x: Tensor<4> = x.view()?;
        latents.extend(x.clone().into_data_as::<f32>().iter::<f32>());
        for row in 0..rows {
            // One picture at a time: a decoder's memory is that of one.
            if watch.evaluate().is_break() {
                return Err(Error::Stopped);
            }
            let one = x.clone().narrow(0, row, 1);
            let shown = decoded(model, one)?;
            picture = [shown.dims()[1], shown.dims()[2], shown.dims()[3]];
            pixels.extend(shown.into_data_as::<f32>().iter::<f32>());
        }
    }
    if let Some(bad) = pixels.iter().find(|v| !v.is_finite()) {
        return Err(Error::NotFinite { what: format!("a pixel of the result ({bad})") });
    }
    let [c, h, w] = picture;
    Ok(Generated {
        images: Images::from_f32([spec.count, c, h, w], &pixels)?,
        latents: Noises { shape: [spec.count, channels, height, width], values: latents },
        classes,
        cost,
        spec: model.completed(spec),
    })
}

/// Pictures in -1..1 from what the sampler ends with.
///
/// # Errors
///
/// What the decoder says.
pub(crate) fn decoded(model: &Model, x: Tensor<4>) -> Result<Tensor<4>> {
    match &model.decoder {
        None => Ok(x),
        Some(decoder) => decoder.decode(&decoder.of_unit(x)),
    }
}

fn sample_shape(model: &Model, spec: &Spec) -> Result<[usize; 3]> {
    let scale = model.scale();
    let [channels, height, width] = model.shape;
    let side = |asked: Option<usize>, own: usize, key: &str| match asked {
        None => Ok(own),
        Some(pixels) if pixels % scale == 0 && pixels > 0 => Ok(pixels / scale),
        Some(pixels) => {
            Err(Error::setting(key, format!("{pixels} is not a positive multiple of {scale}")))
        }
    };
    Ok([channels, side(spec.height, height, "height")?, side(spec.width, width, "width")?])
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

fn parts<'m>(
    model: &Model,
    denoiser: &'m crate::denoiser::NetworkDenoiser,
    spec: &Spec,
    process: &'m dyn Process,
    cond: crate::denoiser::Cond,
    first: usize,
    last: usize,
) -> Result<Parts<'m>> {
    use crate::catalog::Seam;
    let grid = spec.grid.as_ref().unwrap_or(&model.grid);
    let levels = grid.make(grid::entries(), Seam::Grid)?.levels(process, spec.steps)?;
    let guides = spec.guide_parts()?;
    let guides = guides.iter().map(|g| g.make(guide::entries(), Seam::Guide));
    let taps =
        spec.taps.iter().map(|t| t.make(tap::entries(), Seam::Tap).map(tap::SharedTap::boxed));
    let seeds = (first..last).map(|k| spec.seed.wrapping_add(k as u64));
    let noise = spec.rng.of_seeds(seeds, DrawnAs::Full);
    Ok(Parts {
        model: denoiser,
        process,
        levels,
        sampler: spec.sampler.make(sampler::entries(), Seam::Sampler)?,
        guides: guides.collect::<Result<_>>()?,
        taps: taps.collect::<Result<_>>()?,
        noise,
        cond,
        requests: (first as u64..last as u64).collect(),
    })
}
