//! The one sampling loop, as an object that can be held, advanced, forked and resampled.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use crate::denoiser::{Branch, Cond, Cost, Denoiser, Memo, Pass, Row};
use crate::error::{Error, Result};
use crate::guide::{Guide, through};
use crate::level::{Level, Levels};
use crate::noise::Noise;
use crate::prediction::{free_of_anchor, with_anchor};
use crate::process::Process;
use crate::sampler::{Estimate, Eval, Sampler, Step};
use crate::state::State;
use crate::tap::SharedTap;

/// Watches a run: previews, progress, metrics, cancelling.
pub trait Observer {
    /// Told after every step; `Break` ends the run there.
    fn step(&mut self, progress: &Progress<'_>) -> ControlFlow<()>;

    /// Asked before every evaluation of the network; `Break` ends the run at once with
    /// [`Error::Stopped`].
    fn evaluate(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What an observer is told.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Steps taken.
    pub done: usize,
    /// Steps in all.
    pub count: usize,
    /// Where the state is now.
    pub at: Level,
    /// The state.
    pub x: &'a State,
    /// The last estimate of the clean sample.
    pub x0: Option<&'a State>,
    /// What the run has cost.
    pub cost: Cost,
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Observer for Unwatched {
    fn step(&mut self, _progress: &Progress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What a run is put together from.
pub struct Parts<'m> {
    /// The network.
    pub model: &'m dyn Denoiser,
    /// The path.
    pub process: &'m dyn Process,
    /// The levels to stop at, noise first.
    pub levels: Vec<Level>,
    /// How to step.
    pub sampler: Box<dyn Sampler>,
    /// Guides, outermost first.
    pub guides: Vec<Box<dyn Guide>>,
    /// Taps, outermost first.
    pub taps: Vec<SharedTap>,
    /// Noise for the steps.
    pub noise: Box<dyn Noise>,
    /// What the samples should be of.
    pub cond: Cond,
    /// A name a row, for what taps remember; unlike for runs that share a call.
    pub requests: Vec<u64>,
}

/// A sampling run: hold it, advance it, fork it, resample it, drop it.
///
/// Given the second endpoint, `x - anchor y` is an ordinary diffusion of `x0`. So the run takes the
/// endpoint's share off before a step and puts it back after, and around every evaluation: samplers
/// walk bridges and residual processes without knowing of them.
pub struct Run<'m> {
    parts: Parts<'m>,
    x: State,
    x0: Option<State>,
    done: usize,
    cost: Cost,
    memo: Arc<Mutex<Memo>>,
    levels: Arc<[Level]>,
    sequential: bool,
}

impl<'m> Run<'m> {
    /// A run from its first state.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a grid that has no step, rises in noise or is not finite;
    /// [`Error::Shape`] where the requests do not match the batch.
    pub fn new(mut parts: Parts<'m>, x: State) -> Result<Self> {
        if parts.levels.len() < 2 {
            return Err(Error::setting(
                "grid",
                format!("a run needs two levels, this has {}", parts.levels.len()),
            ));
        }
        if let Some(bad) = parts.levels.iter().find(|l| !l.is_finite()) {
            return Err(Error::setting(
                "grid",
                format!("the level at t = {} is not finite", bad.t),
            ));
        }
        if parts.requests.len() != x.batch() {
            return Err(Error::Shape {
                what: "requests, one a row".into(),
                wanted: vec![x.batch()],
                found: vec![parts.requests.len()],
            });
        }
        parts.sampler.reset();
        for guide in &mut parts.guides {
            guide.reset();
        }
        let (memo, levels) = (Arc::default(), Arc::from(parts.levels.as_slice()));
        Ok(Self {
            parts,
            x,
            x0: None,
            done: 0,
            cost: Cost::default(),
            memo,
            levels,
            sequential: false,
        })
    }

    /// A run that starts before step `first` of its grid with a state at that level: image to image.
    /// Samplers count their steps as in the whole run, so that what depends on the count of steps
    /// stays.
    ///
    /// # Errors
    ///
    /// As [`Run::new`]; [`Error::Setting`] where the grid has no such step.
    pub fn starting_at(parts: Parts<'m>, x: State, first: usize) -> Result<Self> {
        let mut run = Self::new(parts, x)?;
        if first >= run.count() {
            let why = format!("{first}, the grid has {} steps", run.count());
            return Err(Error::setting("first step", why));
        }
        run.done = first;
        Ok(run)
    }

    /// The same, with guidance's branches asked one after the other: less memory, the same numbers.
    #[must_use]
    pub fn sequential(self, sequential: bool) -> Self {
        Self { sequential, ..self }
    }

    /// A run that stands at the end of its grid, with the state that it ended with there: for walking
    /// the other way, [`Run::retreat`].
    ///
    /// # Errors
    ///
    /// As [`Run::new`].
    pub fn ending_at(parts: Parts<'m>, x: State) -> Result<Self> {
        let mut run = Self::new(parts, x)?;
        run.done = run.count();
        Ok(run)
    }

    /// Draws the first state from the process's prior.
    ///
    /// # Errors
    ///
    /// As [`Run::new`], and what the prior says.
    pub fn from_prior(mut parts: Parts<'m>, like: &State) -> Result<Self> {
        let Some(first) = parts.levels.first().copied() else {
            return Err(Error::setting("grid", "a run needs two levels, this has none"));
        };
        let endpoint = parts.cond.endpoint.clone();
        let x = parts.process.prior(like, endpoint.as_ref(), first, parts.noise.as_mut())?;
        Self::new(parts, x)
    }

    /// The state.
    pub fn x(&self) -> &State {
        &self.x
    }

    /// The last estimate of the clean sample.
    pub fn x0(&self) -> Option<&State> {
        self.x0.as_ref()
    }

    /// Where the state is.
    pub fn at(&self) -> Level {
        self.parts.levels[self.done]
    }

    /// Steps taken.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Steps in all.
    pub fn count(&self) -> usize {
        self.parts.levels.len() - 1
    }

    /// What the run has cost so far.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Replaces the state, for drivers that edit it between steps.
    pub fn set_x(&mut self, x: State) {
        self.x = x;
    }

    /// Goes on under another condition and other guides, from the state and with the sampler's memory
    /// as they are.
    pub fn turn(&mut self, cond: Cond, guides: Vec<Box<dyn Guide>>) {
        self.parts.cond = cond;
        self.parts.guides = guides;
        for guide in &mut self.parts.guides {
            guide.reset();
        }
    }

    /// Takes one step; `false` where none was left.
    ///
    /// # Errors
    ///
    /// What a part says; [`Error::Stopped`] where the observer ended the run. The run stays where
    /// it was.
    pub fn advance(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        if self.done == self.count() {
            return Ok(false);
        }
        let (from, to) = (self.parts.levels[self.done], self.parts.levels[self.done + 1]);
        let (index, count) = (self.done, self.count());
        let step = Step { from, to, index, count, process: self.parts.process };
        let pass = self.pass(index, from);
        let endpoint = self.parts.cond.endpoint.as_ref();
        let free = free_of_anchor(&self.x, endpoint, &Levels::One(from));
        let mut asked = Asked {
            model: self.parts.model,
            guides: &mut self.parts.guides,
            cond: &self.parts.cond,
            pass,
            last: None,
            observer,
        };
        let stepped = self.parts.sampler.step(&mut asked, free, &step, self.parts.noise.as_mut());
        let (spent, last) = (asked.pass.cost, asked.last.take());
        self.cost.forward += spent.forward;
        self.cost.backward += spent.backward;
        let mut after = with_anchor(stepped?, self.parts.cond.endpoint.as_ref(), &Levels::One(to));
        // The innermost guide is the nearest to the network.
        for guide in self.parts.guides.iter_mut().rev() {
            after = guide.settled(from, to, after)?;
        }
        for guide in &mut self.parts.guides {
            guide.stepped(from, to, &self.x, &after)?;
        }
        self.x = after;
        self.x0 = last.or(self.x0.take());
        self.done += 1;
        let progress = Progress {
            done: self.done,
            count,
            at: to,
            x: &self.x,
            x0: self.x0.as_ref(),
            cost: self.cost,
        };
        if observer.step(&progress).is_break() {
            return Err(Error::Stopped);
        }
        Ok(true)
    }

    /// Undoes the step before, by the sampler's own [`Invert`](crate::sampler::Invert); `false` at the
    /// start of the grid. Guides are asked as on the way back to data, but not told of the step: it
    /// goes against the way that they follow.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the sampler's steps cannot be undone; else as [`Run::advance`].
    pub fn retreat(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        if self.done == 0 {
            return Ok(false);
        }
        let (index, count) = (self.done - 1, self.count());
        let (from, to) = (self.parts.levels[index], self.parts.levels[self.done]);
        let step = Step { from, to, index, count, process: self.parts.process };
        let pass = self.pass(index, from);
        let endpoint = self.parts.cond.endpoint.as_ref();
        let free = free_of_anchor(&self.x, endpoint, &Levels::One(to));
        let Some(sampler) = self.parts.sampler.invertible() else {
            let needs = "a sampler whose steps can be undone: ddim with eta = 0, or coupled";
            return Err(Error::unsupported("walking back to noise", needs));
        };
        let mut asked = Asked {
            model: self.parts.model,
            guides: &mut self.parts.guides,
            cond: &self.parts.cond,
            pass,
            last: None,
            observer,
        };
        let before = sampler.unstep(&mut asked, free, &step);
        let (spent, last) = (asked.pass.cost, asked.last.take());
        self.cost.forward += spent.forward;
        self.cost.backward += spent.backward;
        self.x = with_anchor(before?, endpoint, &Levels::One(from));
        self.x0 = last.or(self.x0.take());
        self.done = index;
        let progress = Progress {
            done: count - index,
            count,
            at: from,
            x: &self.x,
            x0: self.x0.as_ref(),
            cost: self.cost,
        };
        if observer.step(&progress).is_break() {
            return Err(Error::Stopped);
        }
        Ok(true)
    }

    /// What the evaluations of a step carry.
    fn pass(&self, index: usize, level: Level) -> Pass {
        let steps = self.count();
        let row = |&request| Row { request, branch: Branch::Cond, step: index, steps, level };
        let rows = self.parts.requests.iter().map(row).collect();
        let mut pass = Pass::new(rows, self.parts.taps.clone())
            .remembering(Arc::clone(&self.memo), Arc::clone(&self.levels));
        pass.sequential = self.sequential;
        pass
    }

    /// Advances to the end.
    ///
    /// # Errors
    ///
    /// As [`Run::advance`].
    pub fn finish(mut self, observer: &mut dyn Observer) -> Result<(State, Cost)> {
        while self.advance(observer)? {}
        Ok((self.x, self.cost))
    }

    /// A run with the same past and an independent future. Taps are given anew, because what they
    /// remember belongs to one run.
    #[must_use]
    pub fn fork(&self, branch: u64, taps: Vec<SharedTap>) -> Self {
        let parts = Parts {
            model: self.parts.model,
            process: self.parts.process,
            levels: self.parts.levels.clone(),
            sampler: self.parts.sampler.fork(),
            guides: self.parts.guides.iter().map(|g| g.fork()).collect(),
            taps,
            noise: self.parts.noise.fork(branch),
            cond: self.parts.cond.clone(),
            requests: self.parts.requests.clone(),
        };
        Self {
            parts,
            x: self.x.clone(),
            x0: self.x0.clone(),
            done: self.done,
            cost: self.cost,
            memo: Arc::default(),
            levels: Arc::clone(&self.levels),
            sequential: self.sequential,
        }
    }

    /// Resamples the population: row `i` goes on as a descendant of row `rows[i]`.
    pub fn select(&mut self, rows: &[usize]) {
        self.x = self.x.select(rows);
        self.x0 = self.x0.as_ref().map(|x0| x0.select(rows));
        self.parts.cond = self.parts.cond.select(rows);
        self.parts.noise.select(rows);
        self.parts.sampler.select(rows);
        for guide in &mut self.parts.guides {
            guide.select(rows);
        }
    }
}

/// The step that a run of image to image starts with, as every pipeline of diffusers counts it: of
/// `steps` steps the last `floor(steps strength)` are walked.
///
/// The start is `process.perturb` of the picture at `levels[first_step]`, and [`Run::starting_at`]
/// walks from there.
///
/// # Errors
///
/// [`Error::Setting`] for a strength outside 0 to 1, or one that leaves no step.
pub fn first_step(steps: usize, strength: f64) -> Result<usize> {
    if !(0.0..=1.0).contains(&strength) {
        return Err(Error::setting("strength", format!("{strength}, wanted 0 to 1")));
    }
    // The product is taken in 64 bits and cut, as there.
    let walked = ((steps as f64 * strength) as usize).min(steps);
    if walked == 0 {
        let why = format!("{strength} of {steps} steps is less than one step");
        return Err(Error::setting("strength", why));
    }
    Ok(steps - walked)
}

/// The guided network as the sampler sees it.
struct Asked<'a> {
    model: &'a dyn Denoiser,
    guides: &'a mut [Box<dyn Guide>],
    cond: &'a Cond,
    pass: Pass,
    last: Option<State>,
    observer: &'a mut dyn Observer,
}

impl Asked<'_> {
    fn ask(&mut self, x: &State, at: &Levels) -> Result<State> {
        self.proceed(at)?;
        self.pass.apart = None;
        let x = &with_anchor(x.clone(), self.cond.endpoint.as_ref(), at);
        let x0 = through(self.guides, self.model, x, at, self.cond, &mut self.pass)?;
        self.last = Some(x0.clone());
        Ok(x0)
    }

    fn proceed(&mut self, at: &Levels) -> Result<()> {
        for (i, row) in self.pass.rows.iter_mut().enumerate() {
            row.level = at.row(i);
        }
        if self.observer.evaluate().is_break() { Err(Error::Stopped) } else { Ok(()) }
    }
}

impl Eval for Asked<'_> {
    fn x0(&mut self, x: &State, at: &Levels) -> Result<State> {
        let x0 = self.ask(x, at)?;
        if self.pass.apart.take().is_some() {
            let needs = "a sampler that goes on along it: ddim, euler or euler-ancestral";
            return Err(Error::unsupported("the noise of another estimate", needs));
        }
        Ok(x0)
    }

    fn estimate(&mut self, x: &State, level: Level) -> Result<Estimate> {
        self.pass.uncorrected = None;
        let x0 = self.ask(x, &Levels::One(level))?;
        let before = self.pass.uncorrected.take().unwrap_or_else(|| x0.clone());
        Ok(Estimate { x0, before, apart: self.pass.apart.take() })
    }

    fn jump(&mut self, x: &State, from: Level, to: Level) -> Result<Option<State>> {
        self.proceed(&Levels::One(from))?;
        let endpoint = self.cond.endpoint.as_ref();
        let x = with_anchor(x.clone(), endpoint, &Levels::One(from));
        let jumped = self.model.jump(&x, from, to, self.cond, &mut self.pass)?;
        Ok(jumped.map(|x| free_of_anchor(&x, endpoint, &Levels::One(to))))
    }
}
