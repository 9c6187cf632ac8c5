//! Tuners on models: what a grid is worth is said by the pictures of runs on it.

use serde_json::Value;

use crate::catalog::Seam;
use crate::engine::generate::generate;
use crate::engine::watch::Watch;
use crate::engine::{Engine, Generated, Inputs, Model};
use crate::error::{Error, Result};
use crate::grid::Listed;
use crate::process::{self, Process};
use crate::spec::{PartSpec, Spec};
use crate::tune::{Ground, Tuned, Tuner};

/// Searches the best grid for a spec's sampler and count of steps; `measure` says how bad pictures
/// are. Every run has the spec's seed.
///
/// # Errors
///
/// What the tuner, a run or the measure says.
pub fn tune(
    engine: &Engine,
    model: &Model,
    spec: &Spec,
    tuner: &dyn Tuner,
    measure: &mut dyn FnMut(&Generated) -> Result<f64>,
    watch: &mut dyn Watch,
) -> Result<Tuned> {
    let process = spec.process.as_ref().unwrap_or(&model.process);
    let process = process.make(process::entries(), Seam::Process)?;
    tuner.tune(&mut Trials { engine, model, spec: spec.clone(), process, measure, watch })
}

/// The root of the mean squared distance between the ends of two runs of the same seeds, before
/// anything is decoded.
///
/// # Errors
///
/// [`Error::Shape`] where they are of other sizes.
pub fn apart(a: &Generated, b: &Generated) -> Result<f64> {
    let (a, b) = (&a.latents, &b.latents);
    if a.shape != b.shape {
        let (wanted, found) = (a.shape.to_vec(), b.shape.to_vec());
        return Err(Error::Shape { what: "ends of a run".into(), wanted, found });
    }
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    let sum: f64 = a.values.iter().zip(&b.values).map(square).sum();
    Ok((sum / a.values.len().max(1) as f64).sqrt())
}

/// A list of levels as the part of a spec.
pub fn part_of(grid: &Listed) -> PartSpec {
    let mut part = PartSpec::named("listed");
    if let Ok(Value::Object(settings)) = serde_json::to_value(grid) {
        let empty = |v: &Value| v.as_array().is_some_and(Vec::is_empty) || v.as_str() == Some("");
        part.settings.extend(settings.into_iter().filter(|(_, v)| !empty(v)));
    }
    part
}

struct Trials<'a> {
    engine: &'a Engine,
    model: &'a Model,
    spec: Spec,
    process: Box<dyn Process>,
    measure: &'a mut dyn FnMut(&Generated) -> Result<f64>,
    watch: &'a mut dyn Watch,
}

impl Ground for Trials<'_> {
    fn process(&self) -> &dyn Process {
        self.process.as_ref()
    }

    fn steps(&self) -> usize {
        self.spec.steps
    }

    fn score(&mut self, grid: &Listed) -> Result<f64> {
        let spec = Spec { grid: Some(part_of(grid)), ..self.spec.clone() };
        match generate(self.engine, self.model, &spec, &Inputs::default(), self.watch) {
            Ok(made) => (self.measure)(&made),
            // A grid on which nothing finite comes out is a bad one.
            Err(Error::NotFinite { .. }) => Ok(f64::INFINITY),
            Err(other) => Err(other),
        }
    }
}
