//! The threads that compute: each takes a job, walks it with all others of its model, and keeps what
//! came out.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tweedie::Error;
use tweedie::engine::{
    Generated, Inputs, Model, Stage, Watch, generate, generate_through, preview,
};
use tweedie::media::{Format, PARAMETERS, decode_texts, encode_png};

use crate::job::{Job, Made, State, now};
use crate::library::Opened;
use crate::refusal::{Kind, Refusal};
use crate::service::Service;

/// Takes jobs until the queue is closed.
pub(crate) fn work(service: &Service) {
    while let Some(id) = service.queue.pop() {
        let Some(job) = service.live(&id) else { continue };
        service.begin(&job);
        service.metrics.began(now() - job.created);
        let result = catch_unwind(AssertUnwindSafe(|| run(service, &job)));
        let result = result.unwrap_or_else(|_| Err(Refusal::internal("the job panicked").into()));
        match result {
            Ok(images) => service.end(&job, |live| {
                live.state = State::Done;
                live.images = images;
            }),
            // A server that stops leaves what it could not finish to the next start.
            Err(Ended::Stopped) if service.is_stopping() => service.park(&job),
            Err(Ended::Stopped) => service.end(&job, |live| live.state = State::Cancelled),
            Err(Ended::Failed(refusal)) => service.end(&job, |live| {
                live.state = State::Failed;
                live.error = Some(refusal);
            }),
        }
        service.left();
    }
}

/// How a job ended without pictures.
enum Ended {
    Stopped,
    Failed(Refusal),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::Stopped => Self::Stopped,
            other => Self::Failed(other.into()),
        }
    }
}

fn run(service: &Service, job: &Job) -> Result<Vec<Made>, Ended> {
    let spec = &job.request.spec;
    let opened = service.library.open(&spec.model)?;
    let adapted = service.library.adapted(&opened, spec)?;
    let picture = |key: &str, bytes: &Option<Arc<[u8]>>| {
        bytes.as_ref().map(|bytes| service.decoded(key, bytes)).transpose()
    };
    let mut inputs = Inputs {
        init: picture("init", &job.pictures.init)?,
        mask: picture("mask", &job.pictures.mask)?,
        ..Inputs::default()
    };
    let limit = service.settings.limits.time;
    let begun = Instant::now();
    let mut watch = Watcher { job, opened: &opened, begun, limit, last: None, late: false };
    let made = match &adapted {
        // Its network is not that of the others.
        Some(model) => generate(&service.engine, model, spec, &inputs, &mut watch),
        None => {
            inputs.texts = opened.texts(&service.engine, spec)?;
            let (engine, model) = (&service.engine, &opened.model);
            generate_through(engine, model, &opened.table, spec, &inputs, &mut watch)
        }
    };
    if watch.late {
        let why = format!("it was not done within {} s", limit.as_secs());
        return Err(Refusal::new(Kind::TooLong, why).into());
    }
    let model = adapted.as_ref().unwrap_or(&opened.model);
    pictures(&made?, model, spec.count)
}

fn pictures(made: &Generated, model: &Model, count: usize) -> Result<Vec<Made>, Ended> {
    let one = |k: usize| {
        let png = made.encode(model, k, Format::Png)?;
        let texts = decode_texts("the picture", &png)?;
        let info = texts.into_iter().find(|(key, _)| key == PARAMETERS).map(|(_, text)| text);
        Ok(Made {
            seed: made.spec.seed.wrapping_add(k as u64),
            width: made.images.width,
            height: made.images.height,
            info: info.unwrap_or_default(),
            png: png.into(),
        })
    };
    (0..count).map(one).collect()
}

/// Tells how far a job is, and ends it where it was cancelled or takes too long.
struct Watcher<'a> {
    job: &'a Job,
    opened: &'a Opened,
    begun: Instant,
    limit: Duration,
    /// When the last picture on the way was ready, and how long it took.
    last: Option<(Instant, Duration)>,
    late: bool,
}

impl Watcher<'_> {
    /// A picture on the way, at most every quarter of a second and for at most a tenth of the time.
    fn preview(&mut self, at: &Stage<'_>) {
        let due = self.last.is_none_or(|(ready, took)| {
            ready.elapsed() >= (10 * took).max(Duration::from_millis(250))
        });
        let (Some(x0), true) = (at.progress.x0, due && self.job.request.preview) else { return };
        let begun = Instant::now();
        let png = preview(&self.opened.model, x0).and_then(|shown| encode_png(&shown, 0, &[]));
        if let Ok(png) = png {
            let shown: Arc<[u8]> = png.into();
            self.job.live.send_modify(|live| live.preview = Some((at.first, shown)));
        }
        self.last = Some((Instant::now(), begun.elapsed()));
    }
}

impl Watch for Watcher<'_> {
    fn step(&mut self, at: &Stage<'_>) -> ControlFlow<()> {
        self.preview(at);
        let within = at.progress.done as f64 / at.progress.count.max(1) as f64;
        let fraction = (at.first as f64 + at.batch as f64 * within) / at.count.max(1) as f64;
        let spent = self.begun.elapsed().as_secs_f64();
        let left = spent * (1.0 - fraction) / fraction.max(1e-9);
        self.job.live.send_modify(|live| {
            live.progress.image = at.first;
            live.progress.count = at.count;
            live.progress.step = at.progress.done;
            live.progress.steps = at.progress.count;
            live.progress.fraction = fraction;
            live.progress.seconds_left = Some(left);
        });
        self.evaluate()
    }

    fn evaluate(&mut self) -> ControlFlow<()> {
        self.late |= self.begun.elapsed() > self.limit;
        match self.late || self.job.cancel.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
