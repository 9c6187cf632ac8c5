//! Micro-batches of one step side by side, each on threads of its own.
//!
//! One micro-batch seldom fills all cores: between two parallel kernels stands what only one thread
//! does. Two micro-batches on one thread each have no such gaps. The gradients are added in the order
//! of the micro-batches, so a run with a crew is the run without, bit for bit.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use burn::tensor::{Device, Tensor};
use rayon::ThreadPoolBuilder;

use super::config::Config;
use super::gradients::{LossAndGradients, gradients};
use super::objective::Place;
use super::optimiser::swap_in;
use super::task::{self, Task};
use crate::error::{Error, Result};

/// One micro-batch: the weights in the order of the walk, its examples, its place in the step.
struct Part {
    weights: Vec<Tensor<1>>,
    examples: Vec<usize>,
    place: Place,
}

/// A thread with a task of its own.
struct Worker {
    parts: Option<Sender<Part>>,
    answers: Receiver<Result<LossAndGradients>>,
    handle: Option<JoinHandle<()>>,
}

/// Workers that compute the micro-batches of a step at the same time. Each holds the task (network,
/// data) once more; the weights are those of the run.
pub struct Crew {
    workers: Vec<Worker>,
}

impl Crew {
    /// As many workers as asked for, with `threads` threads each.
    ///
    /// # Errors
    ///
    /// What opening the task says; [`Error::Setting`] where the system starts no more threads.
    pub fn new(config: &Config, device: &Device, workers: usize, threads: usize) -> Result<Self> {
        let start = |_| Worker::start(config.clone(), device.clone(), threads);
        let workers = (0..workers.max(1)).map(start).collect::<Result<Vec<_>>>()?;
        for worker in &workers {
            // The first answer, without a part, says that the task is open.
            worker.answer()?;
        }
        Ok(Self { workers })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Never: there is one at least.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The loss and the gradients of each part, in their order; at most [`Crew::len`] parts.
    ///
    /// # Errors
    ///
    /// What the first part that failed says.
    pub(super) fn gradients(
        &self,
        task: &dyn Task,
        parts: Vec<(Vec<usize>, Place)>,
    ) -> Result<Vec<LossAndGradients>> {
        let mut weights = Vec::new();
        task.each("", &mut |_, weight| weights.push(weight.value().without_autodiff()));
        let count = parts.len();
        for (worker, (examples, place)) in self.workers.iter().zip(parts) {
            let part = Part { weights: weights.clone(), examples, place };
            if let Some(parts) = &worker.parts {
                parts.send(part).map_err(|_| ended())?;
            }
        }
        // All are waited for before one error ends the step, so that no answer is left over.
        let answers: Vec<_> = self.workers.iter().take(count).map(Worker::answer).collect();
        answers.into_iter().collect()
    }
}

impl Worker {
    fn start(config: Config, device: Device, threads: usize) -> Result<Self> {
        let (parts, orders) = channel();
        let (results, answers) = channel();
        let work = move || serve(&config, &device, threads, orders, results);
        let handle = thread::Builder::new().name("tweedie-crew".into()).spawn(work);
        let handle = handle.map_err(|e| Error::setting("workers", e.to_string()))?;
        Ok(Self { parts: Some(parts), answers, handle: Some(handle) })
    }

    fn answer(&self) -> Result<LossAndGradients> {
        self.answers.recv().map_err(|_| ended())?
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without a sender the loop of the thread ends.
        self.parts = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

fn ended() -> Error {
    Error::setting("workers", "a worker ended before its time")
}

/// What the thread of a worker does until nobody sends parts: all of it on threads of its own.
fn serve(
    config: &Config,
    device: &Device,
    threads: usize,
    parts: Receiver<Part>,
    results: Sender<Result<LossAndGradients>>,
) {
    let pool = match ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool,
        Err(error) => {
            return drop(results.send(Err(Error::setting("workers", error.to_string()))));
        }
    };
    pool.install(move || {
        let mut task = match task::open(config, device) {
            Ok(task) => task,
            Err(error) => return drop(results.send(Err(error))),
        };
        let mut answer = Ok((0.0, Vec::new()));
        while results.send(answer).is_ok() {
            let Ok(Part { weights, examples, place }) = parts.recv() else { return };
            answer =
                swap_in(&mut *task, weights).and_then(|_| gradients(&mut *task, &examples, place));
        }
    });
}
