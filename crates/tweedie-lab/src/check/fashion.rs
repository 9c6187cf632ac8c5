//! The world of checks on a trained model: samples of `builtin:fashion` and how far they are from
//! real pictures.

use std::sync::OnceLock;

use tweedie::data::Images;
use tweedie::data::sets::{self, SETS, Split};
use tweedie::engine::{Engine, Generated, Inputs, Measured, Model, Unwatching, generate};
use tweedie::eval::Features;
use tweedie::eval::frechet::frechet;
use tweedie::spec::{PartSpec, Spec};
use tweedie::{Error, Result};

use crate::record;

/// What the world is called in records.
pub(crate) const NAME: &str = "builtin:fashion, its own path, Fashion-MNIST's test pictures";

/// What is open during a run of checks.
struct World {
    engine: Engine,
    model: Model,
    features: Measured,
    real: Features,
}

fn world() -> Result<&'static World> {
    static WORLD: OnceLock<World> = OnceLock::new();
    if WORLD.get().is_none() {
        let engine = Engine::cpu(1)?;
        let model = engine.open("builtin:fashion")?;
        let features = Measured::open("builtin:fashion-features", engine.device())?;
        let set = SETS.iter().find(|s| s.name == "fashion-mnist");
        let set = set.ok_or_else(|| Error::unknown("data set", "fashion-mnist", []))?;
        let test = sets::load(set, Split::Test)?;
        let (real, _) = engine.install(|| features.look(&test))?;
        let _ = WORLD.set(World { engine, model, features, real });
    }
    WORLD.get().ok_or_else(|| Error::unsupported("the check", "an open model"))
}

/// One run: the parts by name, the steps, the guidance weight and how many samples, classes in turn.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) sampler: &'a str,
    pub(crate) grid: &'a str,
    pub(crate) steps: usize,
    pub(crate) guidance: f64,
    pub(crate) count: usize,
}

/// Samples of the model.
pub(crate) fn samples(asked: Asked<'_>, seed: u64) -> Result<Generated> {
    of(&world()?.model, asked, &[], seed)
}

/// Which of two models walks.
#[derive(Clone, Copy)]
pub(crate) enum Walks {
    /// The transformer of the bench, which is the faster one.
    Transformer,
    /// The transformer in this share of the time, from noise on, then the U-Net.
    TransformerFirst(f64),
    /// The U-Net in this share of the time, then the transformer.
    UNetFirst(f64),
}

/// Samples of two models that walk one way.
pub(crate) fn walked(walks: Walks, asked: Asked<'_>, seed: u64) -> Result<Generated> {
    let world = world()?;
    let folder = record::root().join("models/bench/fashion-dit");
    let transformer = world.engine.open(&folder.display().to_string())?;
    let unet = &world.model;
    let guide = |share: f64| [PartSpec::named("t-stitch").with("share", share)];
    match walks {
        Walks::Transformer => of(&transformer, asked, &[], seed),
        Walks::TransformerFirst(share) => {
            of(&unet.with_second(&transformer)?, asked, &guide(share), seed)
        }
        Walks::UNetFirst(share) => of(&transformer.with_second(unet)?, asked, &guide(share), seed),
    }
}

fn of(model: &Model, asked: Asked<'_>, guides: &[PartSpec], seed: u64) -> Result<Generated> {
    let world = world()?;
    let part = |text: &str| text.parse::<PartSpec>();
    let spec = Spec {
        sampler: part(asked.sampler)?,
        grid: Some(part(asked.grid)?),
        steps: asked.steps,
        guidance: Some(asked.guidance),
        classes: (0..10).collect(),
        count: asked.count,
        batch: 50,
        guides: guides.to_vec(),
        // Runs of different seeds share no picture.
        seed: seed * 1_000_000,
        ..model.spec()
    };
    generate(&world.engine, model, &spec, &Inputs::default(), &mut Unwatching)
}

/// The Frechet distance of pictures from the real ones in the features of a classifier.
pub(crate) fn distance(images: &Images) -> Result<f64> {
    let world = world()?;
    let (found, _) = world.engine.install(|| world.features.look(images))?;
    Ok(frechet(&found, &world.real)?.distance)
}
