//! A picture inverted, and walked again under another condition.

use burn::tensor::Tensor;

use crate::catalog::Seam;
use crate::denoiser::{Cond, Cost};
use crate::edit::{self, Evaluations, Inversion, Scene, Side, Under};
use crate::engine::cond::{Texts, classes_of, condition};
use crate::engine::generate::Made;
use crate::engine::inputs::Noises;
use crate::engine::open::Model;
use crate::engine::sizes;
use crate::engine::task::Plan;
use crate::engine::watch::Forward;
use crate::error::{Error, Result};
use crate::guide::{self, Guide};
use crate::run::{Observer, Parts, Progress, first_step};
use crate::spec::{Edit, PartSpec, Spec};
use crate::state::State;
use crate::tap::{self, SharedTap};

/// What an inversion found, beside the picture that came of it.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The picture as the network knows it, `[count, channels, height, width]`.
    pub source: Noises,
    /// The states that the walks began with, of the same shape.
    pub start: Noises,
    /// What the inversions cost.
    pub cost: Cost,
}

/// The inversion that a spec asks for.
///
/// # Errors
///
/// [`Error::Unknown`] for a method or a setting that does not exist.
pub fn inversion(edit: &Edit) -> Result<Box<dyn Inversion>> {
    edit.method.make(edit::entries(), Seam::Edit)
}

/// What a picture of an edit costs, where that can be told: the guides of both sides are none, or
/// classifier-free guidance.
///
/// # Errors
///
/// As [`inversion`], and [`Error::Setting`] for a strength that leaves no step.
pub fn evaluations(spec: &Spec) -> Result<Option<Evaluations>> {
    let Some(edit) = &spec.task.edit else { return Ok(None) };
    let walked = spec.steps - first_step(spec.steps, spec.task.effective_strength())?;
    let target =
        if edit.reconstruct { sides(spec, edit)?.guide_parts()? } else { spec.guide_parts()? };
    let (source, target) = (asked(&sides(spec, edit)?.guide_parts()?), asked(&target));
    let method = inversion(edit)?;
    Ok(source.zip(target).map(|(source, target)| method.evaluations(walked, source, target)))
}

/// Evaluations of an estimate through these guides.
fn asked(guides: &[PartSpec]) -> Option<usize> {
    match guides {
        [] => Some(1),
        [one] if one.name == guide::cfg::CARD.id => {
            let weight = one.settings.get("weight").and_then(serde_json::Value::as_f64)?;
            Some(if weight == 0.0 || weight == 1.0 { 1 } else { 2 })
        }
        _ => None,
    }
}

/// The spec of the source's side: its caption and its guidance.
pub(super) fn sides(spec: &Spec, edit: &Edit) -> Result<Spec> {
    let weight = edit.source_guidance.or(inversion(edit)?.usual().source_guidance);
    let guidance = weight.or(spec.guidance);
    Ok(Spec { prompt: edit.source.clone(), classes: Vec::new(), guidance, ..spec.clone() })
}

/// Puts in what the method has of its own: how it steps, its strength, its guidance of the source.
pub(super) fn complete(spec: &mut Spec) {
    let Some(edit) = &mut spec.task.edit else { return };
    // A method that does not exist is an error where the spec is run.
    let Ok(method) = inversion(edit) else { return };
    let usual = method.usual();
    edit.source_guidance = edit.source_guidance.or(usual.source_guidance);
    spec.task.strength = spec.task.strength.or(Some(usual.strength));
    spec.sampler = method.sampler();
}

/// Which pictures of a run are edited, and how.
pub(super) struct Batch<'a> {
    pub(super) model: &'a Model,
    pub(super) spec: &'a Spec,
    pub(super) edit: &'a Edit,
    pub(super) plan: &'a Plan,
    pub(super) texts: Option<&'a Texts>,
}

impl Batch<'_> {
    /// Inverts the picture for the rows `from..to` of the spec, whose parts under the prompt are given,
    /// and walks.
    ///
    /// # Errors
    ///
    /// What the method and the parts say.
    pub(super) fn walk(
        &self,
        mut parts: Parts<'_>,
        (from, to): (usize, usize),
        observer: &mut Forward<'_>,
        made: &mut Made,
    ) -> Result<Tensor<4>> {
        let Self { model, spec, edit, plan, .. } = *self;
        let method = inversion(edit)?;
        let Some((x0, mask)) = plan.clean(model, to - from) else {
            return Err(Error::setting("edit", "it needs a picture, `init`"));
        };
        let first = first_step(parts.levels.len() - 1, plan.strength())?;
        let mut source = self.source(from, to)?;
        let [_, height, width] = plan.shape;
        let size = [height, width].map(|side| side * model.scale());
        for cond in [&mut parts.cond, &mut source.cond] {
            sizes::tell(cond, &*model.denoiser.network, size)?;
        }
        let taps = || {
            let make = |t: &PartSpec| t.make(tap::entries(), Seam::Tap).map(SharedTap::boxed);
            spec.taps.iter().map(make).collect::<Result<Vec<_>>>()
        };
        let scene = Scene {
            model: parts.model,
            process: parts.process,
            levels: parts.levels,
            first,
            x0: x0.clone(),
            source,
            target: Side { cond: parts.cond, guides: parts.guides },
            words: self.texts.and_then(Texts::words),
            noise: parts.noise,
            taps: Box::new(taps),
            requests: parts.requests,
        };
        let under = if edit.reconstruct { Under::Source } else { Under::Target };
        // Both ways as one.
        let mut both = Both { observer, before: 0, ways: 2 };
        let inverted = method.invert(scene, &mut both)?;
        both.before = 1;
        let (x, cost) = inverted.walk(under, mask.as_ref(), &mut both)?;
        made.trace(&x0, inverted.x(), inverted.cost())?;
        made.spent(inverted.cost());
        made.spent(cost);
        x.view()
    }

    /// The source's side.
    fn source(&self, from: usize, to: usize) -> Result<Side> {
        let Self { model, spec, edit, .. } = *self;
        let spec = sides(spec, edit)?;
        let classes = classes_of(model, &spec)?;
        let texts = self.texts.and_then(Texts::of_source);
        let cond: Cond = condition(model, texts.as_ref(), classes.as_deref(), from, to)?;
        Ok(Side { cond, guides: guides(model, &spec)? })
    }
}

/// The guides of a spec on a model, outermost first.
pub(super) fn guides(model: &Model, spec: &Spec) -> Result<Vec<Box<dyn Guide>>> {
    let guides = spec.guide_parts()?;
    let all = model.corrections.iter().chain(&guides);
    all.map(|part| {
        let mut guide = part.make(guide::entries(), Seam::Guide)?;
        if guide.wants_second() {
            let Some(second) = &model.second else {
                let needs = "a second model, which the run does not name (`--second`)";
                return Err(Error::unsupported(&part.name, needs));
            };
            guide.give_second(second.denoiser.clone());
        }
        Ok(guide)
    })
    .collect()
}

/// Several walks of one length as one, for those who watch.
struct Both<'a, 'b> {
    observer: &'a mut Forward<'b>,
    /// Walks before this one.
    before: usize,
    /// Walks in all.
    ways: usize,
}

impl Observer for Both<'_, '_> {
    fn step(&mut self, progress: &Progress<'_>) -> std::ops::ControlFlow<()> {
        let done = self.before * progress.count + progress.done;
        let count = self.ways * progress.count;
        self.observer.step(&Progress { done, count, ..*progress })
    }

    fn evaluate(&mut self) -> std::ops::ControlFlow<()> {
        self.observer.evaluate()
    }
}

/// The numbers of a state behind those that are there.
pub(super) fn append(noises: &mut Noises, x: &State) -> Result<()> {
    let x: Tensor<4> = x.view()?;
    let [rows, channels, height, width] = x.dims();
    noises.shape = [noises.shape[0] + rows, channels, height, width];
    noises.values.extend(x.into_data_as::<f32>().iter::<f32>());
    Ok(())
}
