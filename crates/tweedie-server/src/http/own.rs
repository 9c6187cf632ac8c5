//! Our own interface, `/api/v1`: a `Spec` in, a job out, its progress as events.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tweedie::catalog::{Made, Seam};
use tweedie::engine::source;
use tweedie::spec::{PartSpec, Spec, resolve_grid, resolve_sampler};
use tweedie::{grid, guide, process, reward, sampler, search, tap};
use utoipa::ToSchema;

use super::body::Body;
use super::events::{self, event};
use super::picture::{of_base64, to_base64};
use super::{Result, Shared, blocking, client_of};
use crate::job::{Door, Live, Pictures, Request, View};
use crate::refusal::Refusal;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/models", get(models))
        .route("/methods", get(methods))
        .route("/limits", get(limits))
        .route("/openapi.json", get(super::document::document))
        .route("/jobs", get(list).post(submit))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/events", get(follow))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/jobs/{id}/delete", post(delete))
        .route("/jobs/{id}/init.png", get(init))
        .route("/jobs/{id}/mask.png", get(mask))
        .route("/jobs/{id}/images/{file}", get(image))
}

/// A job to be done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// What to run. Everything but the model may be left out: what is not said is the model's own,
    /// and the seed is drawn. Samplers and grids go by the names of any program. `strength` may stand
    /// here beside `task.strength`.
    #[schema(value_type = Object)]
    spec: Map<String, Value>,
    /// The picture to start from: PNG, JPEG or WebP in base64, as it is or as a `data:` URL.
    #[serde(default)]
    init: Option<String>,
    /// What of it to repaint: white is repainted.
    #[serde(default)]
    mask: Option<String>,
    /// Whether pictures on the way are wanted.
    #[serde(default)]
    preview: bool,
}

/// A seed that nobody chose, short enough to be written down.
pub(crate) fn drawn_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

/// A value of the type wanted; the error names the field, `within` where it is the whole.
fn typed<T: serde::de::DeserializeOwned>(within: &str, value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        let message = e.inner().to_string();
        let field = super::body::blamed(&message).unwrap_or_else(|| match path.as_str() {
            "." => within.to_owned(),
            path => path.to_owned(),
        });
        Refusal::field(&field, format!("{field}: {message}"))
    })
}

impl Asked {
    fn request(self, service: &Shared, client: String) -> Result<(Request, Pictures)> {
        let mut map = self.spec;
        let field = |key: &str, map: &mut Map<String, Value>| {
            map.shift_remove(key).filter(|value| !value.is_null())
        };
        let (sampler, grid) = (field("sampler", &mut map), field("grid", &mut map));
        let seed = field("seed", &mut map);
        let strength = field("strength", &mut map);
        map.retain(|_, value| !value.is_null());
        let mut spec: Spec = typed("spec", Value::Object(map))?;
        spec.seed = match seed {
            None => drawn_seed(),
            Some(seed) => typed("seed", seed)?,
        };
        if let Some(strength) = strength {
            spec.task.strength = Some(typed("strength", strength)?);
        }
        let name = service.library.name(&spec.model)?.to_owned();
        let facts = service.library.facts(&name)?;
        if spec.model_hash.as_ref().is_some_and(|hash| *hash != facts.hash) {
            let why = format!("model `{name}` here has another hash than `model_hash`");
            return Err(Refusal::field("model_hash", why));
        }
        let grid: Option<PartSpec> = grid.map(|grid| typed("grid", grid)).transpose()?;
        spec.grid = grid.map(|g| resolve_grid(&g)).transpose()?;
        match sampler {
            None => spec.sampler = facts.spec.sampler.clone(),
            Some(sampler) => {
                let (part, implied) = resolve_sampler(&typed("sampler", sampler)?)?;
                spec.sampler = part;
                spec.grid = spec.grid.take().or(implied);
            }
        }
        // What only a finished picture's record says.
        spec.instruction_set.clear();
        spec.version.clear();
        let picture = |param: &str, text: &Option<String>| {
            text.as_ref().map(|text| of_base64(param, text)).transpose()
        };
        let pictures =
            Pictures { init: picture("init", &self.init)?, mask: picture("mask", &self.mask)? };
        // A record names the pictures that were used by their hashes.
        for (key, named, given) in
            [("init", &spec.task.init, &pictures.init), ("mask", &spec.task.mask, &pictures.mask)]
        {
            let Some(named) = named else { continue };
            let why = match given {
                None => "it was used and is not given",
                Some(bytes) if source("".as_ref(), bytes).hash != named.hash => {
                    "it is not the one that was used"
                }
                Some(_) => continue,
            };
            return Err(Refusal::field(key, format!("{key}: {why}")));
        }
        (spec.task.init, spec.task.mask) = (None, None);
        if pictures.mask.is_some() && pictures.init.is_none() {
            return Err(Refusal::field("mask", "mask: it needs a picture to start from, `init`"));
        }
        Ok((Request { spec, preview: self.preview, client, door: Door::Own }, pictures))
    }
}

/// Takes a job.
#[utoipa::path(post, path = "/api/v1/jobs", request_body = Asked, responses(
    (status = 202, body = View), (status = 400, description = "a field makes no sense"),
    (status = 404, description = "no such model"), (status = 429, description = "the queue is full"),
))]
pub(crate) async fn submit(
    State(service): State<Shared>,
    at: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    Body(asked): Body<Asked>,
) -> Result<Response> {
    let client = client_of(&headers, at.map(|at| at.0.0), None);
    let view = blocking(move || {
        let (request, pictures) = asked.request(&service, client)?;
        let job = service.submit(request, pictures)?;
        Ok(service.view_of(&job))
    })
    .await?;
    let place = [(header::LOCATION, format!("/api/v1/jobs/{}", view.id))];
    Ok((StatusCode::ACCEPTED, place, Json(view)).into_response())
}

/// Which jobs to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Range {
    /// How many, at most 200; 50.
    limit: Option<usize>,
    /// Those that were accepted before this one.
    before: Option<String>,
}

/// Lists jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", params(Range), responses(
    (status = 200, body = Object), (status = 400, description = "a parameter makes no sense"),
    (status = 404, description = "no such job")))]
pub(crate) async fn list(
    State(service): State<Shared>,
    range: std::result::Result<Query<Range>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>> {
    let Query(range) = range.map_err(|e| Refusal::field("query", e.body_text()))?;
    let limit = range.limit.unwrap_or(50).clamp(1, 200);
    let jobs = blocking(move || service.list(limit, range.before.as_deref())).await?;
    Ok(Json(json!({ "jobs": jobs })))
}

/// A job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", params(("id" = String, Path)),
    responses((status = 200, body = View), (status = 404, description = "no such job")))]
pub(crate) async fn job(
    State(service): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<View>> {
    blocking(move || service.view(&id)).await.map(Json)
}

/// Ends a job; the network evaluation under way is the last.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", params(("id" = String, Path)),
    request_body(content = Object), responses((status = 200, body = View),
    (status = 404, description = "no such job"),
    (status = 415, description = "the body is not JSON")))]
pub(crate) async fn cancel(
    State(service): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<View>> {
    blocking(move || service.cancel(&id)).await.map(Json)
}

/// Forgets a job and its pictures; one that runs is cancelled first.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/delete", params(("id" = String, Path)),
    request_body(content = Object), responses((status = 200, body = Object),
    (status = 404, description = "no such job"),
    (status = 415, description = "the body is not JSON")))]
pub(crate) async fn delete(
    State(service): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    service.delete(&id).await?;
    Ok(Json(json!({"deleted": true})))
}

fn png(bytes: Vec<u8>) -> Response {
    let kept = "private, max-age=31536000, immutable";
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, kept)];
    (headers, bytes).into_response()
}

/// A picture.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/images/{file}",
    params(("id" = String, Path), ("file" = String, Path, example = "0.png")),
    responses((status = 200, content_type = "image/png"),
    (status = 404, description = "no such picture")))]
pub(crate) async fn image(
    State(service): State<Shared>,
    Path((id, file)): Path<(String, String)>,
) -> Result<Response> {
    let k = file.strip_suffix(".png").and_then(|k| k.parse().ok()).filter(|k| *k < 1 << 32);
    let Some(k) = k else {
        let why = format!("`{file:.40}` is no picture; they are called 0.png, 1.png, ...");
        return Err(Refusal::new(crate::refusal::Kind::NotFound, why));
    };
    blocking(move || service.store.image(&id, k)).await.map(png)
}

async fn init(State(service): State<Shared>, Path(id): Path<String>) -> Result<Response> {
    blocking(move || service.store.given(&id, false)).await.map(sniffed)
}

async fn mask(State(service): State<Shared>, Path(id): Path<String>) -> Result<Response> {
    blocking(move || service.store.given(&id, true)).await.map(sniffed)
}

/// A picture of the kind that its first bytes say.
fn sniffed(bytes: Vec<u8>) -> Response {
    let kind = match bytes.as_slice() {
        [0xff, 0xd8, ..] => "image/jpeg",
        [b'R', b'I', b'F', b'F', ..] => "image/webp",
        _ => "image/png",
    };
    ([(header::CONTENT_TYPE, kind)], bytes).into_response()
}

/// A picture on the way.
#[derive(Serialize)]
struct Preview {
    image: usize,
    png: String,
}

/// The events of a job: `state`, `progress`, `preview`, and at last `end`.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", params(("id" = String, Path)),
    responses((status = 200, content_type = "text/event-stream"),
    (status = 404, description = "no such job")))]
pub(crate) async fn follow(
    State(service): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response> {
    let Some(job) = service.live(&id) else {
        // It has ended: its end is all there is to tell.
        let view = blocking(move || service.view(&id)).await?;
        let line: events::Line = Ok(event("end", &view));
        let stream = tokio_stream::iter([line]);
        return Ok(axum::response::sse::Sse::new(stream).into_response());
    };
    let of = job.clone();
    let tell = move |before: Option<&Live>, now: &Live| {
        let mut list = Vec::new();
        // Of what has ended only the view is told; a stream that ends with the server too.
        let mut view = service.view_of(&of);
        view.state = now.state;
        if before.is_none_or(|b| b.state != now.state) && !now.state.is_final() {
            list.push(event("state", &view));
        }
        if before.is_some_and(|b| b.progress != now.progress) {
            list.push(event("progress", &now.progress));
        }
        let shown = |live: &Live| live.preview.as_ref().map(|(_, png)| png.as_ptr());
        if let Some((image, png)) = &now.preview
            && before.is_none_or(|b| shown(b) != shown(now))
        {
            list.push(event("preview", &Preview { image: *image, png: to_base64(png) }));
        }
        if now.state.is_final() {
            list.push(event("end", &view));
        }
        list
    };
    Ok(events::follow(job, tell).into_response())
}

/// The models, with what a run of each is without further word.
#[utoipa::path(get, path = "/api/v1/models", responses((status = 200, body = Object)))]
pub(crate) async fn models(State(service): State<Shared>) -> Result<Json<Value>> {
    let list = blocking(move || {
        let one = |name: &str| {
            let Ok(facts) = service.library.facts(name) else {
                // It cannot be opened; the log has said why.
                return json!({"name": name, "loaded": false, "broken": true});
            };
            let spec = &facts.spec;
            json!({
                "name": name,
                "loaded": service.library.is_open(name),
                "text": facts.text,
                "classes": facts.classes,
                "width": facts.size[0],
                "height": facts.size[1],
                "multiple": facts.multiple,
                "steps": spec.steps,
                "guidance": spec.guidance,
                "sampler": spec.sampler.to_string(),
                "grid": spec.grid.as_ref().map(ToString::to_string),
                // Every kind of model that can be opened can start from a picture.
                "images": true,
                "hash": facts.hash,
            })
        };
        Ok(service.library.names().map(one).collect::<Vec<_>>())
    })
    .await?;
    Ok(Json(json!({ "models": list })))
}

/// The catalogue: every method that can be named, with its settings.
#[utoipa::path(get, path = "/api/v1/methods", responses((status = 200, body = Object)))]
pub(crate) async fn methods() -> Json<Value> {
    fn of<T: ?Sized>(entries: &'static [Made<T>]) -> impl Iterator<Item = Value> {
        entries.iter().map(|entry| {
            let card = entry.card;
            json!({
                "id": card.id, "seam": card.seam.name(), "title": card.title,
                "source": card.source, "year": card.year, "what": card.what,
                "aliases": card.aliases, "settings": (entry.defaults)(),
            })
        })
    }
    let list: Vec<Value> = of(process::entries())
        .chain(of(grid::entries()))
        .chain(of(sampler::entries()))
        .chain(of(guide::entries()))
        .chain(of(tap::entries()))
        .chain(of(reward::entries()))
        .chain(of(search::entries()))
        .collect();
    Json(json!({ "methods": list, "seams": Seam::ALL.map(Seam::name) }))
}

/// What requests may ask for.
#[utoipa::path(get, path = "/api/v1/limits", responses((status = 200, body = Object)))]
pub(crate) async fn limits(State(service): State<Shared>) -> Json<Value> {
    let limits = &service.settings.limits;
    Json(json!({
        "side": limits.side, "steps": limits.steps, "count": limits.count,
        "prompt": limits.prompt, "upload": limits.upload, "queue": limits.queue,
        "seconds": limits.time.as_secs(),
    }))
}
