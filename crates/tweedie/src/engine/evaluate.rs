//! Measures a model: against real pictures for class-conditional ones, against what was asked for
//! models of the shapes world.

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use crate::data::Images;
use crate::data::shapes::{Asked, Caption, Picture, Scene, Split, score};
use crate::engine::component;
use crate::engine::generate::{generate, generate_each};
use crate::engine::watch::Watch;
use crate::engine::{Engine, Inputs, Model};
use crate::error::{Error, Result};
use crate::eval::accuracy::{Confusion, proportion};
use crate::eval::frechet::frechet;
use crate::eval::gaussian_baseline::PixelGaussian;
use crate::eval::psnr::psnr_each;
use crate::eval::{Better, CompareOptions, Features, Measure, Report, compare};
use crate::hub::Folder;
use crate::model::classifier::Classifier;
use crate::spec::Spec;

/// Pictures that a classifier looks at in one call.
const BATCH: usize = 50;

/// A classifier that judges pictures, or whose features they are compared in.
pub struct Measured {
    /// Its name, for the report.
    pub name: String,
    network: Classifier,
    device: Device,
}

impl Measured {
    /// Opens a classifier: `builtin:NAME` or a folder.
    ///
    /// # Errors
    ///
    /// What is missing or wrong in the folder.
    pub fn open(name: &str, device: &Device) -> Result<Self> {
        let network = component::classifier(&Folder::resolve(name)?, device)?;
        Ok(Self { name: name.to_owned(), network, device: device.clone() })
    }

    /// Features and most likely classes of pictures, which are cut or padded to its own size.
    ///
    /// # Errors
    ///
    /// Where the pictures have other channels.
    pub fn look(&self, images: &Images) -> Result<(Features, Vec<u32>)> {
        let side = self.network.config().sample_size;
        let images = fitted(images, side)?;
        let [channels, height, width] = images.shape();
        let (mut features, mut classes) = (Vec::new(), Vec::new());
        for first in (0..images.n).step_by(BATCH) {
            let rows: Vec<usize> = (first..(first + BATCH).min(images.n)).collect();
            let data =
                TensorData::new(images.gather_f32(&rows)?, [rows.len(), channels, height, width]);
            let seen = self.network.forward(Tensor::from_data(data, &self.device))?;
            features.extend(seen.features.into_data_as::<f32>().iter::<f32>());
            let logits: Vec<f32> = seen.logits.into_data_as::<f32>().iter::<f32>().collect();
            let best = |row: &[f32]| {
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter().position(|v| *v == most).unwrap_or(0) as u32
            };
            classes.extend(logits.chunks(logits.len() / rows.len()).map(best));
        }
        let width = features.len() / images.n.max(1);
        Ok((Features::new(images.n, width, features)?, classes))
    }
}

fn fitted(images: &Images, side: usize) -> Result<Images> {
    let images = if images.height > side { images.cropped(side, side)? } else { images.clone() };
    if images.height < side { images.padded(side, side, 0) } else { Ok(images) }
}

/// Measures a class-conditional model against real pictures.
///
/// `judge` says which class a picture shows, `features` is the space that distances are taken in;
/// neither may have taken part in training or guiding the model. `train` are the pictures that the
/// pixel Gaussian of the comparison is fitted to, `test` those that the samples are held against.
///
/// # Errors
///
/// What generating or measuring says.
pub fn evaluate_classes(
    engine: &Engine,
    model: &Model,
    spec: &Spec,
    [judge, features]: [&Measured; 2],
    [train, test]: [&Images; 2],
    watch: &mut dyn Watch,
) -> Result<Report> {
    let made = generate(engine, model, spec, &Inputs::default(), watch)?;
    engine.install(|| {
        let asked: Vec<u32> = made.classes.iter().flatten().map(|&c| c as u32).collect();
        let (_, found) = judge.look(&made.images)?;
        let kinds = test.class_count();
        let confusion = Confusion::of(kinds, &asked, &found)?;
        let (ours, _) = features.look(&made.images)?;
        let (real, _) = features.look(test)?;
        let title = format!(
            "{}: {} samples, {} steps of {}, guidance {}, {} evaluations each",
            model.name,
            spec.count,
            spec.steps,
            spec.sampler,
            spec.guidance.unwrap_or(1.0),
            made.cost.forward / spec.count.max(1),
        );
        let options =
            CompareOptions { title, features: features.name.clone(), ..CompareOptions::default() };
        let mut report = compare(&ours, &real, &options)?;
        let fitted = PixelGaussian::fit(train)?.sample(report.samples, spec.seed)?;
        let (blurred, _) = features.look(&fitted)?;
        let reference: Vec<usize> = (0..report.samples.min(real.len())).collect();
        let gaussian = frechet(&blurred, &real.select(&reference)?)?.distance;
        report.measures.push(Measure::new(
            "frechet distance of a pixel gaussian",
            gaussian,
            Better::Higher,
        ));
        report.measures.insert(0, Measure::share("class accuracy", &confusion.accuracy()));
        report.notes.push(format!("the judge is {}", judge.name));
        report.notes.push(confusion.table(&test.classes));
        Ok(report)
    })
}

/// One group of captions in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What it is called.
    pub name: &'static str,
    /// Where its scenes come from.
    pub split: Split,
    /// Objects in each scene; as the split draws them where it is 0.
    pub objects: usize,
    /// Its share of the captions, in tenths.
    pub tenths: usize,
}

/// The groups of captions: one and two objects of known combinations, and held-out ones.
pub const GROUPS: [Group; 4] = [
    Group { name: "one object", split: Split::Test, objects: 1, tenths: 3 },
    Group { name: "two objects", split: Split::Test, objects: 2, tenths: 3 },
    Group { name: "one object, held out", split: Split::HeldOut, objects: 1, tenths: 2 },
    Group { name: "two objects, held out", split: Split::HeldOut, objects: 2, tenths: 2 },
];

/// Measures how much of what captions of the shapes world ask a model draws; and, for a latent
/// model, how well its autoencoder keeps held-out scenes.
///
/// # Errors
///
/// What generating or reading says.
pub fn evaluate_captions(
    engine: &Engine,
    model: &Model,
    spec: &Spec,
    watch: &mut dyn Watch,
) -> Result<Report> {
    let mut report = Report {
        title: format!(
            "{}: {} captions, {} steps of {}, guidance {}",
            model.name,
            spec.count,
            spec.steps,
            spec.sampler,
            spec.guidance.unwrap_or(1.0)
        ),
        features: "the reader of the shapes world".to_owned(),
        samples: spec.count,
        measures: Vec::new(),
        notes: Vec::new(),
    };
    for (i, group) in GROUPS.iter().enumerate() {
        let count = spec.count * group.tenths / 10;
        if count == 0 {
            continue;
        }
        let captions = captions(group, spec.seed, count);
        let prompts: Vec<String> = captions.iter().map(|c| c.text.clone()).collect();
        let mut part = spec.clone();
        part.count = count;
        part.seed = spec.seed.wrapping_add((i * spec.count) as u64);
        let made = generate_each(engine, model, &part, &prompts, watch)?;
        let asked: Vec<&Asked> = captions.iter().map(|c| &c.asked).collect();
        report.measures.extend(group_measures(group.name, &made.images, &asked)?);
    }
    if model.decoder.is_some() {
        report
            .measures
            .extend(engine.install(|| reconstruction(model, spec.seed, 64, engine.device()))?);
    }
    Ok(report)
}

fn captions(group: &Group, seed: u64, count: usize) -> Vec<Caption> {
    let one = |index: usize| {
        let index = index as u64;
        let scene = if group.objects == 0 {
            Scene::sample(seed, index, group.split)
        } else {
            Scene::sample_with(seed, index, group.split, group.objects)
        };
        Caption::sample(&scene, seed, index)
    };
    (0..count).map(one).collect()
}

fn group_measures(name: &str, images: &Images, asked: &[&Asked]) -> Result<Vec<Measure>> {
    let (mut right, mut shapes, mut colours, mut objects, mut unreadable) = (0, 0, 0, 0, 0);
    for (k, asked) in asked.iter().enumerate() {
        let values = images.gather_f32(&[k])?;
        let picture = Picture::from_f32_chw(images.width, images.height, &values)?;
        let score = score(&picture, asked);
        right += u64::from(score.all_right());
        unreadable += u64::from(score.unreadable.is_some());
        for object in &score.objects {
            objects += 1;
            shapes += u64::from(object.shape);
            colours += u64::from(object.colour != Some(false));
        }
    }
    let of = asked.len() as u64;
    let share =
        |what: &str, hits, of| Measure::share(format!("{name}: {what}"), &proportion(hits, of));
    Ok(vec![
        share("everything right", right, of),
        share("shape of an object", shapes, objects),
        share("colour of an object", colours, objects),
        share("readable", of - unreadable, of),
    ])
}

/// Held-out scenes through the autoencoder: the mean peak signal-to-noise ratio, and the share of
/// which the reader still says what their captions say, which bounds what a model over these
/// latents can reach.
fn reconstruction(model: &Model, seed: u64, count: usize, device: &Device) -> Result<[Measure; 2]> {
    let Some(decoder) = &model.decoder else {
        return Err(Error::unsupported("reconstruction", "a model with an autoencoder"));
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut shape = [count, 3, 0, 0];
    let mut right = 0;
    for index in 0..count as u64 {
        let scene = Scene::sample(seed, index, Split::HeldOut);
        let picture = scene.render();
        let values = picture.to_f32_chw();
        shape = [count, 3, picture.height(), picture.width()];
        let data = TensorData::new(values.clone(), [1, 3, picture.height(), picture.width()]);
        let (mean, _) = decoder.encode(&Tensor::from_data(data, device))?;
        let decoded = decoder.decode(&mean)?.into_data_as::<f32>();
        let decoded: Vec<f32> = decoded.iter::<f32>().collect();
        let asked = Caption::sample(&scene, seed, index).asked;
        let read = Picture::from_f32_chw(picture.width(), picture.height(), &decoded)?;
        right += u64::from(score(&read, &asked).all_right());
        after.extend(decoded);
        before.extend(values);
    }
    let (a, b) = (Images::from_f32(shape, &before)?, Images::from_f32(shape, &after)?);
    let each = psnr_each(&a, &b)?;
    let mean = each.iter().sum::<f64>() / each.len().max(1) as f64;
    Ok([
        Measure::new("autoencoder on held-out scenes, dB", mean, Better::Higher),
        Measure::share(
            "autoencoder on held-out scenes: everything right",
            &proportion(right, count as u64),
        ),
    ])
}
