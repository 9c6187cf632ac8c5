//! A job: what was asked, and how far it is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tweedie::engine::Cancel;
use tweedie::spec::Spec;
use utoipa::ToSchema;

use crate::refusal::Refusal;

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// Whose door a job came through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// `/api/v1`.
    #[default]
    Own,
    /// `/v1`.
    OpenAi,
    /// `/sdapi/v1`.
    A1111,
}

/// What was asked, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What to run; its model is the name under which the server has it.
    pub spec: Spec,
    /// Whether pictures on the way are wanted.
    pub preview: bool,
    /// Who asked, for fairness.
    pub client: String,
    /// Which interface it came through.
    pub door: Door,
}

/// The pictures that came with a request, as files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pictures {
    /// What to start from.
    pub init: Option<Arc<[u8]>>,
    /// What of it to repaint.
    pub mask: Option<Arc<[u8]>>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits.
    #[default]
    Queued,
    /// It is computed.
    Running,
    /// Its pictures are there.
    Done,
    /// It ended with an error.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    /// Its name, as it is kept and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// How far a running job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Progress {
    /// Pictures that are finished.
    pub image: usize,
    /// Pictures in all.
    pub count: usize,
    /// Steps of the present batch that are taken.
    pub step: usize,
    /// Steps of a batch.
    pub steps: usize,
    /// The share that is done, 0 to 1.
    pub fraction: f64,
    /// Seconds that it will still take, once that can be told.
    pub seconds_left: Option<f64>,
}

/// A finished picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Its seed.
    pub seed: u64,
    /// Its width in pixels.
    pub width: usize,
    /// Its height in pixels.
    pub height: usize,
    /// A1111's line of parameters.
    pub info: String,
    /// The PNG.
    pub png: Arc<[u8]>,
}

/// What changes of a job.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Where it stands.
    pub state: State,
    /// When it began to compute.
    pub started: Option<f64>,
    /// When it ended.
    pub finished: Option<f64>,
    /// How far it is.
    pub progress: Progress,
    /// The picture on the way: which one, and its PNG.
    pub preview: Option<(usize, Arc<[u8]>)>,
    /// The finished pictures.
    pub images: Vec<Made>,
    /// Why it failed.
    pub error: Option<Refusal>,
}

/// A job that is waited for or computed.
pub struct Job {
    /// Its name.
    pub id: String,
    /// When it was accepted.
    pub created: f64,
    /// What was asked.
    pub request: Request,
    /// The pictures that came with it.
    pub pictures: Pictures,
    /// Ends it.
    pub cancel: Cancel,
    /// What changes of it.
    pub live: watch::Sender<Live>,
}

impl Job {
    /// A job that waits.
    pub fn new(id: String, created: f64, request: Request, pictures: Pictures) -> Self {
        let steps = request.spec.steps;
        let progress = Progress { count: request.spec.count, steps, ..Progress::default() };
        let live = watch::Sender::new(Live { progress, ..Live::default() });
        Self { id, created, request, pictures, cancel: Cancel::new(), live }
    }

    /// What it is at the moment.
    pub fn now(&self) -> Live {
        self.live.borrow().clone()
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> Live {
        let mut seen = self.live.subscribe();
        // The sender lives as long as this job does.
        let _ = seen.wait_for(|live| live.state.is_final()).await;
        self.now()
    }
}

/// A job as clients see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct View {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// How many jobs are before it, while it waits.
    pub position: Option<usize>,
    /// When it was accepted, in seconds since 1970.
    pub created: f64,
    /// When it began to compute.
    pub started: Option<f64>,
    /// When it ended.
    pub finished: Option<f64>,
    /// The seed of the first picture.
    pub seed: u64,
    /// What was asked.
    #[schema(value_type = Object)]
    pub spec: Value,
    /// Whether it starts from a picture.
    pub init: bool,
    /// Whether it repaints a part of it.
    pub mask: bool,
    /// How far it is.
    pub progress: Progress,
    /// Its pictures.
    pub images: Vec<ImageView>,
    /// Why it failed, in words.
    pub error: Option<String>,
}

/// A picture as clients see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ImageView {
    /// Where it is to be fetched.
    pub url: String,
    /// Its seed.
    pub seed: u64,
    /// Its width in pixels.
    pub width: usize,
    /// Its height in pixels.
    pub height: usize,
}

impl View {
    /// Of what is kept or live.
    pub fn new(
        id: &str,
        created: f64,
        request: &Request,
        [init, mask]: [bool; 2],
        live: &Live,
    ) -> Self {
        let mut progress = live.progress;
        if live.state == State::Done {
            let (count, steps) = (request.spec.count, request.spec.steps);
            progress = Progress { image: count, count, step: steps, steps, ..progress };
            (progress.fraction, progress.seconds_left) = (1.0, None);
        }
        let image = |(k, made): (usize, &Made)| ImageView {
            url: format!("/api/v1/jobs/{id}/images/{k}.png"),
            seed: made.seed,
            width: made.width,
            height: made.height,
        };
        Self {
            id: id.to_owned(),
            state: live.state,
            position: None,
            created,
            started: live.started,
            finished: live.finished,
            seed: request.spec.seed,
            spec: serde_json::to_value(&request.spec).unwrap_or_default(),
            init,
            mask,
            progress,
            images: live.images.iter().enumerate().map(image).collect(),
            error: live.error.as_ref().map(ToString::to_string),
        }
    }
}
