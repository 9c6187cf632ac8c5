//! A1111's options: which model its requests mean, and how deep the text encoder goes.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use tweedie::engine;

use crate::http::body::Body;
use crate::http::{Result, Shared, blocking};
use crate::refusal::Refusal;

/// What requests of this interface take where they say nothing.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The model; empty for the server's first.
    pub model: String,
    /// As the spec's.
    pub clip_skip: Option<usize>,
}

/// Keys that clients set and that change nothing in a picture.
const HARMLESS: [&str; 8] = [
    "samples_save",
    "grid_save",
    "samples_format",
    "grid_format",
    "save_images_add_number",
    "live_previews_enable",
    "show_progress_every_n_steps",
    "return_grid",
];

/// `name [hash]`, as A1111 titles models.
pub(super) fn title(name: &str, hash: &str) -> String {
    format!("{name} [{hash:.10}]")
}

/// The options with some of them set otherwise.
pub(super) fn with(service: &Shared, over: &Map<String, Value>) -> Result<Options> {
    let mut options = service.options();
    for (key, value) in over {
        let wrong = || Refusal::field(key, format!("{key}: {value} makes no sense"));
        match key.as_str() {
            "sd_model_checkpoint" => {
                let text = value.as_str().ok_or_else(wrong)?;
                // A title, or a name alone; names of files have endings.
                let name = text.rsplit_once(" [").map_or(text, |(name, _)| name);
                let stem = name.strip_suffix(".safetensors").or(name.strip_suffix(".ckpt"));
                let found = service.library.name(name);
                let found = found.or_else(|e| service.library.name(stem.ok_or(e)?));
                found?.clone_into(&mut options.model);
            }
            "CLIP_stop_at_last_layers" => {
                let layers = value.as_u64().filter(|n| (1..=12).contains(n)).ok_or_else(wrong)?;
                options.clip_skip = (layers > 1).then_some(layers as usize);
            }
            "sd_vae" if value.as_str().is_some_and(|v| v == "Automatic" || v == "None") => {}
            harmless if HARMLESS.contains(&harmless) => {}
            _ => return Err(Refusal::field(key, format!("{key}: this server has no such option"))),
        }
    }
    service.library.name(&options.model)?.to_owned().clone_into(&mut options.model);
    Ok(options)
}

pub(super) async fn read(State(service): State<Shared>) -> Result<Json<Value>> {
    blocking(move || {
        let options = with(&service, &Map::new())?;
        let hash = &service.library.facts(&options.model)?.hash;
        Ok(Json(json!({
            "sd_model_checkpoint": title(&options.model, hash),
            "sd_checkpoint_hash": hash,
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": options.clip_skip.unwrap_or(1),
            "samples_format": "png",
        })))
    })
    .await
}

pub(super) async fn change(
    State(service): State<Shared>,
    Body(over): Body<Map<String, Value>>,
) -> Result<Json<Value>> {
    blocking(move || {
        let options = with(&service, &over)?;
        // Opened now, so that the request that comes next does not wait for it.
        service.library.open(&options.model)?;
        service.set_options(options);
        Ok(Json(Value::Null))
    })
    .await
}

pub(super) async fn flags(State(service): State<Shared>) -> Json<Value> {
    let settings = &service.settings;
    Json(json!({
        "api": true,
        "nowebui": false,
        "port": settings.port,
        "listen": !settings.host.is_loopback(),
        "cors_allow_origins": settings.origins.join(","),
        "skip_torch_cuda_test": true,
    }))
}

pub(super) async fn memory() -> Json<Value> {
    let ram = engine::memory()
        .map(|m| json!({"free": m.available, "used": m.total - m.available, "total": m.total}));
    Json(json!({"ram": ram, "cuda": {"error": "computes on the CPU"}}))
}
