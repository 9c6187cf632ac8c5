//! The training loop: draw, forward, backward, reduce, clip, step, average; tell, show, save.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::checkpoint::{self, Position};
use super::config::Config;
use super::crew::Crew;
use super::draws::Order;
use super::gradients::{Sum, gradients, untrack};
use super::log::{Line, Log};
use super::objective::Place;
use super::optimiser::{Optimiser, clipped, norm, swap_in};
use super::reduce::{Alone, Reduce};
use super::sheet;
use super::task::Task;
use crate::error::{Error, Result};
use crate::hub::atomic;
use crate::weight;

/// Watches a training run: a progress bar, a stop flag.
pub trait Watch {
    /// Told after every step; `Break` saves a checkpoint and ends the run there.
    fn step(&mut self, _done: u64, _steps: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Told of every line of the log.
    fn line(&mut self, _line: &Line) {}

    /// Told of every file written: a checkpoint, a sample grid.
    fn wrote(&mut self, _file: &Path) {}
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are taken.
    Finished,
    /// The watch ended it; it can be resumed.
    Stopped,
}

/// What one step was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The mean loss of its rows.
    pub loss: f64,
    /// The norm of the gradients before clipping.
    pub gradient: f64,
    /// Its learning rate.
    pub lr: f64,
}

/// A training run in a folder of its own: `checkpoint.safetensors`, `log.jsonl` and sample grids.
pub struct Trainer {
    config: Config,
    task: Box<dyn Task>,
    optimiser: Optimiser,
    position: Position,
    order: Order,
    reduce: Box<dyn Reduce>,
    crew: Option<Crew>,
    folder: PathBuf,
    log: Log,
}

/// The checkpoint's name in the folder of a run.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The log's name in the folder of a run.
pub const LOG: &str = "log.jsonl";

impl Trainer {
    /// A run from freshly drawn weights.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the folder already holds a run; what the system says.
    pub fn fresh(config: Config, mut task: Box<dyn Task>, folder: &Path) -> Result<Self> {
        if folder.join(CHECKPOINT).exists() {
            let why =
                format!("{} already holds a run; resume it or name another", folder.display());
            return Err(Error::setting("folder", why));
        }
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        weight::draw(&mut *task, config.seed)?;
        let optimiser = Optimiser::new(&*task);
        let position = Position { config: config.hash(), ..Position::default() };
        let log = Log::fresh(&folder.join(LOG))?;
        Ok(Self::of_parts(config, task, (optimiser, position), folder, log))
    }

    /// A run that goes on where its last checkpoint was written.
    ///
    /// # Errors
    ///
    /// As [`checkpoint::load`]; what the system says.
    pub fn resumed(config: Config, mut task: Box<dyn Task>, folder: &Path) -> Result<Self> {
        let state = checkpoint::load(&folder.join(CHECKPOINT), &mut *task, &config.hash())?;
        let log = Log::resumed(&folder.join(LOG), state.1.step)?;
        Ok(Self::of_parts(config, task, state, folder, log))
    }

    fn of_parts(
        config: Config,
        task: Box<dyn Task>,
        (optimiser, position): (Optimiser, Position),
        folder: &Path,
        log: Log,
    ) -> Self {
        let order = Order::new(config.seed, task.examples());
        let reduce = Box::new(Alone);
        let folder = folder.to_owned();
        Self { config, task, optimiser, position, order, reduce, crew: None, folder, log }
    }

    /// The same run with its gradients reduced over several workers.
    #[must_use]
    pub fn with_reduce(mut self, reduce: Box<dyn Reduce>) -> Self {
        self.reduce = reduce;
        self
    }

    /// The same run with its micro-batches computed side by side; the result is the same.
    #[must_use]
    pub fn with_crew(mut self, crew: Crew) -> Self {
        self.crew = Some(crew);
        self
    }

    /// Where the run stands.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// What is trained.
    pub fn task(&self) -> &dyn Task {
        &*self.task
    }

    /// The count of numbers that are trained.
    pub fn weights(&self) -> usize {
        let mut count = 0;
        self.task.each("", &mut |_, weight| count += weight.count());
        count
    }

    /// The moments and averages.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// Runs until all steps are taken or the watch ends it, and saves in either case.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] where the loss is not a number; the last checkpoint stays. What the
    /// network and the system say.
    pub fn run(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let mut since = Since::now();
        let mut saved = Instant::now();
        let output = self.config.output.clone();
        while self.position.step < self.config.steps {
            let report = self.step()?;
            since.add(&report);
            let step = self.position.step;
            let last = step == self.config.steps;
            let stop = watch.step(step, self.config.steps).is_break();
            let shows = due(step, output.samples) || (last && output.samples > 0);
            if due(step, output.log) || shows || stop || last {
                let measures = if shows { self.show(step, watch)? } else { Vec::new() };
                let line = self.line(&mut since, &report, measures);
                self.log.write(&line)?;
                watch.line(&line);
            }
            let waited = output.checkpoint_seconds > 0
                && saved.elapsed().as_secs() >= output.checkpoint_seconds;
            if due(step, output.checkpoint) || waited || last || stop {
                self.position.seconds += since.uncounted();
                self.save()?;
                watch.wrote(&self.folder.join(CHECKPOINT));
                saved = Instant::now();
            }
            if stop && !last {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// Takes one step.
    ///
    /// # Errors
    ///
    /// As [`Trainer::run`]; the weights are unchanged then.
    pub fn step(&mut self) -> Result<StepReport> {
        let step = self.position.step;
        let (batch, rows) = (self.config.batch, self.config.rows());
        let part = |part: usize| {
            let first = part * batch;
            let shown = self.position.shown + first as u64;
            let examples: Vec<usize> =
                (0..batch as u64).map(|i| self.order.example(shown + i)).collect();
            (examples, Place { seed: self.config.seed, step, first, rows })
        };
        let mut parts = (0..self.config.accumulate).map(part).collect::<Vec<_>>().into_iter();
        let mut sum = Sum::default();
        let side_by_side = self.crew.as_ref().map_or(0, Crew::len);
        while let Some((examples, place)) = parts.next() {
            match &self.crew {
                Some(crew) => {
                    let rest = parts.by_ref().take(side_by_side - 1);
                    let wave = [(examples, place)].into_iter().chain(rest).collect();
                    crew.gradients(&*self.task, wave)?.into_iter().for_each(|part| sum.add(part));
                }
                None => sum.add(gradients(&mut *self.task, &examples, place)?),
            }
        }
        let (loss, gradients) = sum.mean(self.config.accumulate);
        let gradients = self.reduce.reduce(gradients)?;
        let gradient = norm(&gradients);
        if !loss.is_finite() || !gradient.is_finite() {
            return Err(Error::NotFinite { what: format!("the loss of training step {step}") });
        }
        let settings = &self.config.optimiser;
        let lr = settings.rate(step, self.config.steps);
        let gradients = clipped(gradients, gradient, settings.clip);
        let at = (step, lr);
        self.optimiser.step(&mut *self.task, gradients, settings, &self.config.ema, at)?;
        self.position.step += 1;
        self.position.shown += rows as u64;
        Ok(StepReport { loss, gradient, lr })
    }

    /// Writes the checkpoint.
    ///
    /// # Errors
    ///
    /// What the system says; the last one stays then.
    pub fn save(&self) -> Result<()> {
        let file = self.folder.join(CHECKPOINT);
        checkpoint::save(&file, &*self.task, &self.optimiser, &self.position)
    }

    /// Writes the model with the averaged weights, a whole folder or nothing.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn export(&mut self, folder: &Path) -> Result<()> {
        self.averaged(|task| task.export(folder))
    }

    /// Does something with the averaged weights, and gives the others back.
    fn averaged<T>(&mut self, f: impl FnOnce(&mut dyn Task) -> Result<T>) -> Result<T> {
        if self.config.ema.decay == 0.0 {
            untrack(&mut *self.task);
            return f(&mut *self.task);
        }
        let averages = self.optimiser.slots().iter().map(|s| s.ema.clone());
        let held = swap_in(&mut *self.task, averages)?;
        let result = f(&mut *self.task);
        swap_in(&mut *self.task, held)?;
        result
    }

    fn show(&mut self, step: u64, watch: &mut dyn Watch) -> Result<Vec<(String, f64)>> {
        let (images, measures) = self.averaged(|task| Ok((task.samples()?, task.measure()?)))?;
        if let Some(images) = images {
            let file = self.folder.join(format!("samples-{step:07}.png"));
            let png = sheet::png(&images)?;
            atomic::write_file(&file, |out| out.write_all(&png))?;
            watch.wrote(&file);
        }
        Ok(measures)
    }

    fn line(
        &mut self,
        since: &mut Since,
        report: &StepReport,
        measures: Vec<(String, f64)>,
    ) -> Line {
        self.position.seconds += since.uncounted();
        let (loss, gradient, seconds, steps) = since.take();
        Line {
            step: self.position.step,
            steps: self.config.steps,
            loss,
            gradient,
            lr: report.lr,
            rate: (steps * self.config.rows() as u64) as f64 / seconds.max(1e-9),
            seconds: self.position.seconds,
            measures,
        }
    }
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// What happened since the last line of the log.
struct Since {
    start: Instant,
    /// Seconds of it that the run's total has already.
    counted: f64,
    loss: f64,
    gradient: f64,
    steps: u64,
}

impl Since {
    fn now() -> Self {
        Self { start: Instant::now(), counted: 0.0, loss: 0.0, gradient: 0.0, steps: 0 }
    }

    fn add(&mut self, report: &StepReport) {
        self.loss += report.loss;
        self.gradient += report.gradient;
        self.steps += 1;
    }

    /// Means, seconds and steps; begins anew.
    fn take(&mut self) -> (f64, f64, f64, u64) {
        let n = self.steps.max(1) as f64;
        let seconds = self.start.elapsed().as_secs_f64();
        let taken = (self.loss / n, self.gradient / n, seconds, self.steps);
        *self = Self::now();
        taken
    }

    /// Seconds that the run's total does not have yet; it has them now.
    fn uncounted(&mut self) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64();
        let new = seconds - self.counted;
        self.counted = seconds;
        new
    }
}
