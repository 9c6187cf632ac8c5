//! The world that checks of editing share: changes of scenes with their exact masks and pictures, on the
//! built-in model of that world.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Tensor, TensorData};
use tweedie::catalog::Seam;
use tweedie::data::Images;
use tweedie::data::shapes::{Asked, Change, ChangeKind, Picture, score};
use tweedie::denoiser::Cond;
use tweedie::engine::{Engine, Generated, Inputs, Model, Reading, Unwatching, generate};
use tweedie::guide::Cfg;
use tweedie::noise::Silent;
use tweedie::process::Process;
use tweedie::run::Parts;
use tweedie::sampler::Sampler;
use tweedie::spec::{Edit, PartSpec, SourceFile, Spec};
use tweedie::state::State;
use tweedie::{Error, Result, grid, process};

/// What the world is called in records.
pub(crate) const NAME: &str = "scenes of the shapes world with one thing changed, builtin:shapes";

/// The model, and two workers of one thread each.
pub(crate) struct Bench {
    engine: Engine,
    model: Model,
}

/// How many scenes are worked on at the same time; it changes no figure.
const WORKERS: usize = 2;

/// How pictures are edited.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    /// The method; none is the picture noised and denoised (SDEdit).
    pub(crate) method: Option<PartSpec>,
    /// How the picture is denoised where there is no method; by default DDPM's steps.
    pub(crate) sampler: Option<PartSpec>,
    /// Steps of the grid; the method's own where nothing is said.
    pub(crate) steps: Option<usize>,
    /// The share of them that is walked.
    pub(crate) strength: Option<f64>,
    /// The guidance weight of the target's side.
    pub(crate) guidance: Option<f64>,
    /// The guidance weight of the source's side.
    pub(crate) source_guidance: Option<f64>,
}

impl How {
    /// By that method, all else its own.
    pub(crate) fn by(method: &str) -> Result<Self> {
        Ok(Self { method: Some(method.parse()?), ..Self::default() })
    }
}

/// What became of one change.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// What was changed.
    pub(crate) kind: ChangeKind,
    /// Whether the reader finds everything as it should be, and nothing more.
    pub(crate) right: bool,
    /// The peak signal-to-noise ratio outside the mask, in dB, to the picture that was edited.
    pub(crate) psnr: f64,
    /// Evaluations of the network.
    pub(crate) evaluations: usize,
}

impl Bench {
    /// Opens the model.
    pub(crate) fn open() -> Result<Self> {
        let engine = Engine::cpu(1)?;
        let model = engine.open("builtin:shapes")?;
        Ok(Self { engine, model })
    }

    /// Edits the first `count` changes of a kind each, in the order of the kinds.
    pub(crate) fn outcomes(
        &self,
        how: &How,
        kinds: &[ChangeKind],
        count: usize,
        seed: u64,
    ) -> Result<Vec<Outcome>> {
        let all: Vec<(ChangeKind, u64)> =
            kinds.iter().flat_map(|k| (0..count as u64).map(move |i| (*k, i))).collect();
        let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![None; all.len()]));
        let work = || -> Result<()> {
            loop {
                let i = next.fetch_add(1, Ordering::SeqCst);
                let Some(&(kind, index)) = all.get(i) else { return Ok(()) };
                let outcome =
                    self.outcome(how, &Change::sample(seed, index, kind), seed ^ index)?;
                if let Ok(mut done) = done.lock() {
                    done[i] = Some(outcome);
                }
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            let lost = || Error::unsupported("the world of changes", "workers that end");
            workers.into_iter().try_for_each(|w| w.join().map_err(|_| lost())?)
        })?;
        let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(done.into_iter().flatten().collect())
    }

    /// The picture that came of a change.
    pub(crate) fn edited(&self, how: &How, change: &Change, seed: u64) -> Result<(Picture, usize)> {
        let made = self.made(how, change, seed, false)?;
        let (width, height) = (made.images.width, made.images.height);
        let picture = Picture::from_f32_chw(width, height, &made.images.gather_f32(&[0])?)?;
        Ok((picture, made.cost.forward))
    }

    /// The largest difference between the latents of a scene and what they come back as.
    pub(crate) fn reconstruction(&self, how: &How, change: &Change, seed: u64) -> Result<f64> {
        let made = self.made(how, change, seed, true)?;
        let Some(trace) = made.trace else {
            return Err(Error::unsupported("a reconstruction", "a method that inverts"));
        };
        let pairs = trace.source.values.iter().zip(&made.latents.values);
        Ok(pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max))
    }

    /// The parts of walks over a scene's latents under its own words, by a sampler of its own.
    pub(crate) fn parts<'m>(
        &'m self,
        process: &'m dyn Process,
        change: &Change,
        sampler: Box<dyn Sampler>,
        (steps, guidance): (usize, f64),
    ) -> Result<(Parts<'m>, State)> {
        let lacks = |what: &str| Error::unsupported("the world of changes", what);
        let text = self.model.text.as_ref().ok_or_else(|| lacks("a text encoder"))?;
        let decoder = self.model.decoder.as_ref().ok_or_else(|| lacks("an autoencoder"))?;
        let words = change.source_text();
        let encoded = text.encode(&[&words, ""], Reading::default())?;
        let of = |i: usize| encoded.get(i).map(|e| e.context.clone());
        let negative = Cond { context: of(1), ..Cond::default() };
        let cond = Cond { context: of(0), negative: Some(Box::new(negative)), ..Cond::default() };
        let picture = change.source.render();
        let shape = [1, 3, picture.height(), picture.width()];
        let pixels = TensorData::new(picture.to_f32_chw(), shape);
        let pixels = Tensor::<4>::from_data(pixels, self.model.device());
        let x0 = State::new(decoder.to_unit(decoder.encode(&pixels)?.0));
        let grid = self.model.grid.make(grid::entries(), Seam::Grid)?;
        let parts = Parts {
            model: &self.model.denoiser,
            process,
            levels: grid.levels(process, steps)?,
            sampler,
            guides: vec![Box::new(Cfg { weight: guidance })],
            taps: Vec::new(),
            noise: Box::new(Silent),
            cond,
            requests: vec![0],
        };
        Ok((parts, x0))
    }

    /// The model's path.
    pub(crate) fn process(&self) -> Result<Box<dyn Process>> {
        self.model.process.make(process::entries(), Seam::Process)
    }

    fn made(&self, how: &How, change: &Change, seed: u64, reconstruct: bool) -> Result<Generated> {
        let picture = change.source.render();
        let (width, height) = (picture.width(), picture.height());
        let image = Images::from_f32([1, 3, height, width], &picture.to_f32_chw())?;
        let mut spec = Spec {
            prompt: change.target_text(),
            guidance: how.guidance,
            seed,
            sampler: how
                .sampler
                .clone()
                .unwrap_or_else(|| PartSpec::named("ddim").with("eta", 1.0)),
            steps: how.steps.unwrap_or(100),
            ..Spec::default()
        };
        spec.task.init = Some(SourceFile { name: "scene".into(), hash: "0".repeat(64) });
        spec.task.strength = how.strength;
        spec.task.edit = how.method.clone().map(|method| Edit {
            method,
            source: change.source_text(),
            source_guidance: how.source_guidance,
            reconstruct,
        });
        if let (Some(edit), None) = (&spec.task.edit, how.steps) {
            spec.steps = tweedie::engine::inversion(edit)?.usual().steps;
        }
        let inputs = Inputs { init: Some(image), ..Inputs::default() };
        generate(&self.engine, &self.model, &spec, &inputs, &mut Unwatching)
    }

    fn outcome(&self, how: &How, change: &Change, seed: u64) -> Result<Outcome> {
        let (picture, evaluations) = self.edited(how, change, seed)?;
        let right = score(&picture, &Asked::all_of(&change.target)).all_named_right();
        let psnr = outside(&change.source.render(), &picture, &change.mask());
        Ok(Outcome { kind: change.kind, right, psnr, evaluations })
    }
}

/// The peak signal-to-noise ratio of two pictures where the mask is false.
fn outside(a: &Picture, b: &Picture, mask: &[bool]) -> f64 {
    let pixels = a.data().chunks_exact(3).zip(b.data().chunks_exact(3)).zip(mask);
    let (mut sum, mut count) = (0.0, 0_usize);
    for ((a, b), _) in pixels.filter(|(_, mask)| !**mask) {
        for (a, b) in a.iter().zip(b) {
            sum += (f64::from(*a) - f64::from(*b)).powi(2);
            count += 1;
        }
    }
    10.0 * (255.0 * 255.0 * count as f64 / sum.max(1e-9)).log10()
}

/// The share that is right with at least so many dB outside the mask.
pub(crate) fn kept(outcomes: &[Outcome], least: f64) -> f64 {
    let kept = outcomes.iter().filter(|o| o.right && o.psnr >= least).count();
    kept as f64 / outcomes.len().max(1) as f64
}

/// The share that is right.
pub(crate) fn right(outcomes: &[Outcome]) -> f64 {
    outcomes.iter().filter(|o| o.right).count() as f64 / outcomes.len().max(1) as f64
}

/// The mean ratio outside the masks, in dB.
pub(crate) fn psnr(outcomes: &[Outcome]) -> f64 {
    outcomes.iter().map(|o| o.psnr).sum::<f64>() / outcomes.len().max(1) as f64
}
