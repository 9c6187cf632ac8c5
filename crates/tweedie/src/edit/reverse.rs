//! Inversion by a sampler's own steps, undone one by one.

use super::{Collecting, Inverted, Scene};
use crate::denoiser::Cost;
use crate::error::Result;
use crate::noise::Silent;
use crate::run::{Observer, Run};
use crate::sampler::Sampler;
use crate::state::State;

/// Walks from the clean samples to the first level, under the source's condition. The run stands there
/// with what the sampler remembers, and the path has every state on the way, noise first.
pub(super) fn back<'m>(
    scene: &Scene<'m>,
    sampler: Box<dyn Sampler>,
    observer: &mut dyn Observer,
) -> Result<(Run<'m>, Vec<State>, Cost)> {
    let parts = scene.parts(sampler, Box::new(Silent))?;
    let mut run = Run::ending_at(parts, scene.x0.clone())?;
    let mut collecting = Collecting { path: vec![scene.x0.clone()], observer };
    while run.done() > scene.first && run.retreat(&mut collecting)? {}
    let mut path = collecting.path;
    path.reverse();
    let cost = run.cost();
    Ok((run, path, cost))
}

/// The same, walked from there by the same steps.
pub(super) fn inverted<'m>(
    scene: Scene<'m>,
    sampler: Box<dyn Sampler>,
    observer: &mut dyn Observer,
) -> Result<Inverted<'m>> {
    let (run, path, cost) = back(&scene, sampler, observer)?;
    Ok(Inverted { run, scene, path, rest: None, beside: None, cost })
}
