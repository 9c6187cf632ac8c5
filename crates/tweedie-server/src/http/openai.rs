//! OpenAI's interface, `/v1`: images from words, edits, variations, models.
//!
//! Fields of ours stand beside theirs: `seed`, `steps`, `guidance`, `negative_prompt`, `sampler`,
//! `grid`, `strength`, `lora`, `cache`. What is unknown or impossible is refused, and a field that would
//! change nothing is not taken.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Multipart, Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tweedie::media::Format;
use tweedie::spec::Spec;

use super::body::{Body, Field, fields};
use super::events::{self, event};
use super::own::drawn_seed;
use super::picture::{recoded, to_base64, transparent};
use super::{Dialect, Result, Shared, blocking, client_of};
use crate::job::{Door, Job, Live, Pictures, Request, State as Stand, now};
use crate::refusal::{Kind, Refusal};
use crate::service::named;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/models", get(models))
        .route("/models/{*name}", get(model))
        .route("/images/generations", post(generations))
        .route("/images/edits", post(edits))
        .route("/images/variations", post(variations))
}

/// The body of a request for pictures.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    prompt: String,
    model: Option<String>,
    n: Option<usize>,
    size: Option<String>,
    quality: Option<String>,
    response_format: Option<String>,
    output_format: Option<String>,
    output_compression: Option<u8>,
    background: Option<String>,
    moderation: Option<String>,
    input_fidelity: Option<String>,
    style: Option<String>,
    user: Option<String>,
    stream: Option<bool>,
    partial_images: Option<usize>,
    seed: Option<u64>,
    steps: Option<usize>,
    guidance: Option<f64>,
    negative_prompt: Option<String>,
    sampler: Option<String>,
    grid: Option<String>,
    strength: Option<f64>,
    lora: Option<Map<String, Value>>,
    cache: Option<String>,
}

/// How the answer is to look.
#[derive(Clone, Copy, Debug)]
struct Look {
    format: Format,
    /// Base64 and address; both where nothing was said.
    shown: [bool; 2],
    stream: bool,
    partial: usize,
    /// The first half of the names of events.
    event: &'static str,
}

impl Asked {
    /// From the fields of a form.
    fn of_form(fields: &[Field]) -> Result<Self> {
        let mut asked = Self::default();
        for field in fields {
            match field.name.as_str() {
                "prompt" => field.text()?.clone_into(&mut asked.prompt),
                "model" => asked.model = Some(field.text()?.to_owned()),
                "n" => asked.n = Some(field.parse()?),
                "size" => asked.size = Some(field.text()?.to_owned()),
                "quality" => asked.quality = Some(field.text()?.to_owned()),
                "response_format" => asked.response_format = Some(field.text()?.to_owned()),
                "output_format" => asked.output_format = Some(field.text()?.to_owned()),
                "output_compression" => asked.output_compression = Some(field.parse()?),
                "background" => asked.background = Some(field.text()?.to_owned()),
                "moderation" => asked.moderation = Some(field.text()?.to_owned()),
                "input_fidelity" => asked.input_fidelity = Some(field.text()?.to_owned()),
                "style" => asked.style = Some(field.text()?.to_owned()),
                "user" => asked.user = Some(field.text()?.to_owned()),
                "stream" => asked.stream = Some(field.parse()?),
                "partial_images" => asked.partial_images = Some(field.parse()?),
                "seed" => asked.seed = Some(field.parse()?),
                "steps" => asked.steps = Some(field.parse()?),
                "guidance" => asked.guidance = Some(field.parse()?),
                "negative_prompt" => asked.negative_prompt = Some(field.text()?.to_owned()),
                "sampler" => asked.sampler = Some(field.text()?.to_owned()),
                "grid" => asked.grid = Some(field.text()?.to_owned()),
                "strength" => asked.strength = Some(field.parse()?),
                "cache" => asked.cache = Some(field.text()?.to_owned()),
                "image" | "image[]" | "mask" => {}
                other => {
                    let why = format!("unknown parameter: `{other:.40}`");
                    return Err(Refusal::field(other, why));
                }
            }
        }
        Ok(asked)
    }

    fn look(&self, event: &'static str) -> Result<Look> {
        let one_of = |param: &str, value: &Option<String>, known: &[&str]| match value {
            Some(value) if !known.contains(&value.as_str()) => {
                let why = format!("{param}: `{value:.40}`, wanted one of {}", known.join(", "));
                Err(Refusal::field(param, why))
            }
            _ => Ok(()),
        };
        one_of("background", &self.background, &["auto", "opaque"])?;
        one_of("moderation", &self.moderation, &["auto", "low"])?;
        let qualities = ["auto", "low", "medium", "high", "standard", "hd"];
        one_of("quality", &self.quality, &qualities)?;
        one_of("input_fidelity", &self.input_fidelity, &["low", "high"])?;
        one_of("response_format", &self.response_format, &["b64_json", "url"])?;
        one_of("output_format", &self.output_format, &["png", "jpeg", "webp"])?;
        for (param, there) in [
            ("style", self.style.is_some()),
            ("output_compression", self.output_compression.is_some()),
        ] {
            if there {
                return Err(Refusal::field(param, format!("{param}: nothing here depends on it")));
            }
        }
        let format = self.output_format.as_deref().unwrap_or("png").parse()?;
        let shown = match self.response_format.as_deref() {
            Some("b64_json") => [true, false],
            Some(_) => [false, true],
            None => [true, true],
        };
        let partial = self.partial_images.unwrap_or(0);
        if partial > 3 {
            return Err(Refusal::field("partial_images", "partial_images: at most 3"));
        }
        let stream = self.stream.unwrap_or(false);
        if partial > 0 && !stream {
            return Err(Refusal::field("partial_images", "partial_images: it needs `stream`"));
        }
        if stream && shown == [false, true] {
            let why = "response_format: a stream has no addresses";
            return Err(Refusal::field("response_format", why));
        }
        Ok(Look { format, shown, stream, partial, event })
    }

    /// What is to be run. `starts` says whether there is a picture to start from.
    fn spec(&self, service: &Shared, starts: bool) -> Result<Spec> {
        let n = self.n.unwrap_or(1);
        let most = service.settings.limits.count;
        if n == 0 || n > most {
            return Err(Refusal::field("n", format!("n: {n}, wanted 1 to {most}")));
        }
        let model = service.library.name(self.model.as_deref().unwrap_or_default())?.to_owned();
        let own = &service.library.facts(&model)?.spec;
        let (width, height) = match self.size.as_deref() {
            None | Some("auto") => (None, None),
            Some(size) => {
                let sides = size
                    .split_once('x')
                    .and_then(|(w, h)| Some((w.parse::<usize>().ok()?, h.parse::<usize>().ok()?)));
                let Some((w, h)) = sides else {
                    let why = format!("size: `{size:.40}`, wanted WIDTHxHEIGHT or auto");
                    return Err(Refusal::field("size", why));
                };
                (Some(w), Some(h))
            }
        };
        let steps = match self.quality.as_deref() {
            Some("low") => 10,
            Some("high" | "hd") => 50,
            _ => own.steps,
        };
        let mut prompt = self.prompt.clone();
        for (name, weight) in self.lora.iter().flatten() {
            let Some(weight) = weight.as_f64() else {
                let why = format!("lora: the weight of `{name:.40}` is no number");
                return Err(Refusal::field("lora", why));
            };
            prompt.push_str(&format!("<lora:{name}:{weight}>"));
        }
        let mut spec = Spec {
            model,
            prompt,
            negative: self.negative_prompt.clone().unwrap_or_default(),
            steps: self.steps.unwrap_or(steps),
            guidance: self.guidance,
            seed: self.seed.unwrap_or_else(drawn_seed),
            count: n,
            width,
            height,
            ..Spec::default()
        };
        named(&mut spec, own, self.sampler.as_deref(), self.grid.as_deref())?;
        if let Some(cache) = &self.cache {
            let tap = cache
                .parse()
                .map_err(|e: tweedie::Error| Refusal::field("cache", format!("cache: {e}")))?;
            spec.taps.push(tap);
        }
        spec.task.strength = match (self.strength, self.input_fidelity.as_deref()) {
            (None, Some("high")) => Some(0.5),
            (strength, _) => strength,
        };
        if !starts && (self.strength.is_some() || self.input_fidelity.is_some()) {
            return Err(Refusal::field("strength", "strength: there is no picture to start from"));
        }
        Ok(spec)
    }
}

type At = Option<Extension<ConnectInfo<SocketAddr>>>;

async fn generations(
    State(service): State<Shared>,
    at: At,
    headers: HeaderMap,
    Body(asked): Body<Asked>,
) -> Result<Response> {
    if asked.prompt.is_empty() {
        return Err(Refusal::field("prompt", "prompt: it is missing"));
    }
    let look = asked.look("image_generation")?;
    let client = client_of(&headers, at.map(|at| at.0.0), asked.user.as_deref());
    let shared = service.clone();
    let job = blocking(move || {
        let spec = asked.spec(&shared, false)?;
        submit(&shared, spec, Pictures::default(), client, look)
    })
    .await?;
    answer(service, job, look, &headers).await
}

async fn edits(
    State(service): State<Shared>,
    at: At,
    headers: HeaderMap,
    form: Multipart,
) -> Result<Response> {
    started(service, at, headers, form, true).await
}

async fn variations(
    State(service): State<Shared>,
    at: At,
    headers: HeaderMap,
    form: Multipart,
) -> Result<Response> {
    started(service, at, headers, form, false).await
}

/// Pictures that start from a picture; edits want a prompt, variations have none.
async fn started(
    service: Shared,
    at: At,
    headers: HeaderMap,
    form: Multipart,
    edits: bool,
) -> Result<Response> {
    let limits = &service.settings.limits;
    let fields = fields(form, limits.upload).await?;
    let asked = Asked::of_form(&fields)?;
    if edits && asked.prompt.is_empty() {
        return Err(Refusal::field("prompt", "prompt: it is missing"));
    }
    let look = asked.look("image_edit")?;
    let file = |names: &[&str]| -> Vec<Arc<[u8]>> {
        let of = fields.iter().filter(|f| names.contains(&f.name.as_str()));
        of.map(|f| Arc::from(f.bytes.as_slice())).collect()
    };
    let (images, masks) = (file(&["image", "image[]"]), file(&["mask"]));
    let [init] = images.as_slice() else {
        let why = format!("image: {} pictures, wanted one", images.len());
        return Err(Refusal::field("image", why));
    };
    let (init, limits) = (init.clone(), limits.of_picture());
    let client = client_of(&headers, at.map(|at| at.0.0), asked.user.as_deref());
    let shared = service.clone();
    let job = blocking(move || {
        let spec = asked.spec(&shared, true)?;
        // Without a mask the transparent part of the picture itself is what is to be painted.
        let mask = match masks.as_slice() {
            [] => transparent("image", &init, &limits)?,
            [mask] => {
                let found = transparent("mask", mask, &limits)?;
                let none = || {
                    let why = "mask: it has no transparent part, and that is what is painted";
                    Refusal::field("mask", why)
                };
                Some(found.ok_or_else(none)?)
            }
            more => {
                let why = format!("mask: {} masks, wanted one", more.len());
                return Err(Refusal::field("mask", why));
            }
        };
        let mask = mask.filter(|_| edits);
        submit(&shared, spec, Pictures { init: Some(init), mask }, client, look)
    })
    .await?;
    answer(service, job, look, &headers).await
}

fn submit(
    service: &Shared,
    spec: Spec,
    pictures: Pictures,
    client: String,
    look: Look,
) -> Result<Arc<Job>> {
    let preview = look.stream && look.partial > 0;
    service.submit(Request { spec, preview, client, door: Door::OpenAi }, pictures)
}

/// Why a job that has ended has no pictures.
pub(super) fn failure(live: &Live) -> Option<Refusal> {
    match live.state {
        Stand::Done => None,
        Stand::Cancelled => Some(Refusal::new(Kind::Invalid, "the job was cancelled")),
        _ => Some(live.error.clone().unwrap_or_else(|| Refusal::internal("the job failed"))),
    }
}

async fn answer(
    service: Shared,
    job: Arc<Job>,
    look: Look,
    headers: &HeaderMap,
) -> Result<Response> {
    if look.stream {
        return Ok(stream(job, look).into_response());
    }
    let live = job.ended().await;
    if let Some(refusal) = failure(&live) {
        return Err(refusal);
    }
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let (id, host) = (job.id.clone(), host.to_owned());
    let one = move |(k, made): (usize, &crate::job::Made)| -> Result<Value> {
        let mut entry = json!({"seed": made.seed});
        if look.shown[0] {
            entry["b64_json"] = to_base64(&recoded(&made.png, look.format)?).into();
        }
        if look.shown[1] {
            entry["url"] = format!("http://{host}/api/v1/jobs/{id}/images/{k}.png").into();
        }
        Ok(entry)
    };
    let images = live.images.clone();
    let data = blocking(move || images.iter().enumerate().map(one).collect::<Result<Vec<_>>>());
    let data = data.await?;
    let spec = &job.request.spec;
    drop(service);
    Ok(Json(json!({
        "created": job.created as u64,
        "data": data,
        "output_format": look.format.to_string(),
        "size": live.images.first().map(|i| format!("{}x{}", i.width, i.height)),
        "background": "opaque",
        "seed": spec.seed,
        "model": spec.model,
        "job": job.id,
    }))
    .into_response())
}

/// Pictures on the way at even distances, then the pictures.
fn stream(job: Arc<Job>, look: Look) -> events::Stream {
    let mut sent = 0;
    let tell = move |_: Option<&Live>, now_: &Live| {
        let mut list = Vec::new();
        let created = now() as u64;
        let due = (sent + 1) as f64 / (look.partial + 1) as f64;
        if let Some((_, png)) = &now_.preview
            && sent < look.partial
            && now_.progress.fraction >= due
            && let Ok(bytes) = recoded(png, look.format)
        {
            let name = format!("{}.partial_image", look.event);
            list.push(event(
                &name,
                &json!({
                    "type": name, "b64_json": to_base64(&bytes), "partial_image_index": sent,
                    "created_at": created, "output_format": look.format.to_string(),
                    "background": "opaque",
                }),
            ));
            sent += 1;
        }
        if !now_.state.is_final() {
            return list;
        }
        if let Some(refusal) = failure(now_) {
            let mut body = Dialect::OpenAi.body(&refusal);
            body["type"] = "error".into();
            list.push(event("error", &body));
            return list;
        }
        for made in &now_.images {
            let name = format!("{}.completed", look.event);
            let bytes = recoded(&made.png, look.format).unwrap_or_default();
            list.push(event(
                &name,
                &json!({
                    "type": name, "b64_json": to_base64(&bytes), "created_at": created,
                    "output_format": look.format.to_string(), "background": "opaque",
                    "size": format!("{}x{}", made.width, made.height), "seed": made.seed,
                }),
            ));
        }
        list
    };
    events::follow(job, tell)
}

fn model_of(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "tweedie"})
}

async fn models(State(service): State<Shared>) -> Json<Value> {
    let data: Vec<Value> = service.library.names().map(model_of).collect();
    Json(json!({"object": "list", "data": data}))
}

async fn model(State(service): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>> {
    Ok(Json(model_of(service.library.name(&name)?)))
}
