//! A1111's interface, `/sdapi/v1`, as its clients use it.
//!
//! Fields that it does not know are passed over, as there; those that would change the picture and
//! mean nothing here are refused with the reason.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Query, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::Body;
use super::picture::{of_base64, to_base64};
use super::{Result, Shared, blocking, client_of};
use crate::job::{Door, Job, State as Stand};
use crate::refusal::{Kind, Refusal};

mod answer;
mod asked;
mod extras;
mod lists;
pub(crate) mod options;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/txt2img", post(txt2img))
        .route("/img2img", post(img2img))
        .route("/progress", get(progress))
        .route("/interrupt", post(interrupt))
        .route("/skip", post(interrupt))
        .route("/png-info", post(png_info))
        .route("/extra-single-image", post(extras::single))
        .route("/extra-batch-images", post(extras::batch))
        .route("/options", get(options::read).post(options::change))
        .route("/cmd-flags", get(options::flags))
        .route("/memory", get(options::memory))
        .merge(lists::routes())
}

type At = Option<Extension<ConnectInfo<SocketAddr>>>;

async fn txt2img(
    service: State<Shared>,
    at: At,
    headers: HeaderMap,
    Body(asked): Body<Map<String, Value>>,
) -> Result<Json<Value>> {
    made(service.0, client_of(&headers, at.map(|at| at.0.0), None), asked, false).await
}

async fn img2img(
    service: State<Shared>,
    at: At,
    headers: HeaderMap,
    Body(asked): Body<Map<String, Value>>,
) -> Result<Json<Value>> {
    made(service.0, client_of(&headers, at.map(|at| at.0.0), None), asked, true).await
}

async fn made(
    service: Shared,
    client: String,
    asked: Map<String, Value>,
    starts: bool,
) -> Result<Json<Value>> {
    let shared = service.clone();
    let fields = asked.clone();
    let job = blocking(move || {
        let (mut request, pictures) = asked::request(&shared, &fields, starts)?;
        request.client = client;
        shared.submit(request, pictures)
    })
    .await?;
    let live = job.ended().await;
    // An interrupted job answers with what it has, as there.
    if live.state != Stand::Cancelled
        && let Some(refusal) = super::openai::failure(&live)
    {
        return Err(refusal);
    }
    let model_hash = service.library.known(&job.request.spec.model).map(|f| f.hash.clone());
    answer::of(&job, &live, &asked, model_hash.as_deref().unwrap_or_default()).map(Json)
}

/// The jobs of this interface that are not done, those that run first.
fn open(service: &Shared) -> Vec<Arc<Job>> {
    let mut jobs = service.all_live();
    jobs.retain(|job| job.request.door == Door::A1111);
    jobs.sort_by_key(|job| job.live.borrow().state != Stand::Running);
    jobs
}

#[derive(Deserialize)]
struct Look {
    #[serde(default)]
    skip_current_image: bool,
}

type Asking = std::result::Result<Query<Look>, axum::extract::rejection::QueryRejection>;

async fn progress(State(service): State<Shared>, look: Asking) -> Json<Value> {
    let jobs = open(&service);
    let live = jobs.first().map(|job| job.now()).filter(|live| live.state == Stand::Running);
    let skip = look.is_ok_and(|l| l.skip_current_image);
    let progress = live.as_ref().map(|l| l.progress).unwrap_or_default();
    let shown = live.as_ref().and_then(|l| l.preview.as_ref()).filter(|_| !skip);
    let cancelled = jobs.first().is_some_and(|job| job.cancel.is_cancelled());
    Json(json!({
        "progress": progress.fraction,
        "eta_relative": progress.seconds_left.unwrap_or(0.0),
        "state": {
            "skipped": false,
            "interrupted": cancelled,
            "stopping_generation": cancelled,
            "job": jobs.first().map_or("", |job| job.id.as_str()),
            "job_count": jobs.len(),
            "job_timestamp": jobs.first().map_or(0.0, |job| job.created).to_string(),
            "job_no": 0,
            "sampling_step": progress.step,
            "sampling_steps": progress.steps,
        },
        "current_image": shown.map(|(_, png)| to_base64(png)),
        "textinfo": null,
    }))
}

/// Ends what runs, as there: whoever asked for it. What waits goes on waiting.
async fn interrupt(State(service): State<Shared>) -> Result<Json<Value>> {
    blocking(move || {
        for job in open(&service) {
            if job.live.borrow().state == Stand::Running {
                service.cancel(&job.id)?;
            }
        }
        Ok(Json(json!({})))
    })
    .await
}

#[derive(Deserialize)]
struct Picture {
    image: String,
}

/// What stands in a picture: A1111's line of parameters, from PNG, JPEG and WebP.
async fn png_info(Body(asked): Body<Picture>) -> Result<Json<Value>> {
    let bytes = of_base64("image", &asked.image)?;
    let texts = tweedie::media::decode_texts("image", &bytes)
        .map_err(|e| Refusal::field("image", e.to_string()))?;
    let items: Map<String, Value> =
        texts.iter().map(|(key, text)| (key.clone(), text.clone().into())).collect();
    let info = texts.iter().find(|(key, _)| key == tweedie::media::PARAMETERS);
    let info = info.map_or("", |(_, text)| text.as_str());
    let parsed = tweedie::media::Infotext::parse(info);
    let mut parameters: Map<String, Value> =
        parsed.fields.into_iter().map(|(name, value)| (name, value.into())).collect();
    if !info.is_empty() {
        parameters.insert("Prompt".into(), parsed.prompt.into());
        parameters.insert("Negative prompt".into(), parsed.negative.into());
    }
    Ok(Json(json!({"info": info, "items": items, "parameters": parameters})))
}

/// What belongs to A1111 and not to this server.
fn lacking(what: &str) -> Refusal {
    Refusal::new(Kind::Invalid, format!("this server has no {what}"))
}
