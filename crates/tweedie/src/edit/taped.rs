//! Inversion into noises: a sampler is led along a path to the clean samples, and what it had to draw
//! is kept on a tape.

use super::{Collecting, Inverted, Scene};
use crate::error::Result;
use crate::level::Levels;
use crate::noise::{Silent, Tape};
use crate::run::{Observer, Run};
use crate::sampler::{Encode, Sampler, encode::Path};

/// Leads `sampler` along a path of the scene's noise, and gives a run that plays the tape.
pub(super) fn inverted<'m>(
    mut scene: Scene<'m>,
    sampler: Box<dyn Sampler>,
    path: Path,
    observer: &mut dyn Observer,
) -> Result<Inverted<'m>> {
    let tape = Tape::new();
    let endpoint = scene.source.cond.endpoint.clone();
    let at = Levels::One(scene.levels[scene.first]);
    let start = scene.process.perturb(&scene.x0, endpoint.as_ref(), &at, scene.noise.as_mut())?.0;
    let led = Encode::new(sampler.fork(), scene.x0.clone(), path, &tape);
    // The first draw has been taken; the rest of the path draws on.
    let noise = std::mem::replace(&mut scene.noise, Box::new(Silent));
    let parts = scene.parts(Box::new(led), noise)?;
    let mut collecting = Collecting { path: vec![start.clone()], observer };
    let run = Run::starting_at(parts, start.clone(), scene.first)?;
    let (end, cost) = run.finish(&mut collecting)?;
    let mut path = collecting.path;
    if let Some(last) = path.last_mut() {
        *last = scene.x0.clone();
    }
    let rest = Some(scene.x0.clone() - end);
    let parts = scene.parts(sampler, Box::new(tape.play()))?;
    let run = Run::starting_at(parts, start, scene.first)?;
    Ok(Inverted { run, scene, path, rest, beside: None, cost })
}
