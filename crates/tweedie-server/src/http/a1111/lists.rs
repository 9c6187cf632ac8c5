//! A1111's lists: models, samplers, schedulers, and what this server has none of.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tweedie::catalog::Made;
use tweedie::{grid, sampler};

use super::{extras, lacking, options};
use crate::http::{Result, Shared, blocking};

pub(super) fn routes() -> Router<Shared> {
    let mut router = Router::new()
        .route("/sd-models", get(models))
        .route("/samplers", get(samplers))
        .route("/schedulers", get(schedulers))
        .route("/loras", get(loras))
        .route("/embeddings", get(embeddings))
        .route("/upscalers", get(extras::upscalers))
        .route("/latent-upscale-modes", get(|| async { Json(json!([{"name": "Latent"}])) }))
        .route("/scripts", get(|| async { Json(json!({"txt2img": [], "img2img": []})) }))
        .route("/refresh-checkpoints", post(|| async { Json(Value::Null) }))
        .route("/refresh-loras", post(|| async { Json(Value::Null) }))
        .route("/interrogate", post(|| async { lacking("model that describes pictures") }))
        .route("/unload-checkpoint", post(|| async { Json(json!({})) }))
        .route("/reload-checkpoint", post(|| async { Json(json!({})) }));
    for none in [
        "/sd-vae",
        "/hypernetworks",
        "/face-restorers",
        "/realesrgan-models",
        "/prompt-styles",
        "/script-info",
        "/extensions",
    ] {
        router = router.route(none, get(|| async { Json(json!([])) }));
    }
    router
}

async fn models(State(service): State<Shared>) -> Result<Json<Value>> {
    blocking(move || {
        let one = |name: &str| {
            let hash = service.library.facts(name).map(|f| f.hash.clone()).unwrap_or_default();
            json!({
                "title": options::title(name, &hash),
                "model_name": name,
                "hash": format!("{hash:.10}"),
                "sha256": hash,
                // Clients see no paths.
                "filename": name,
                "config": null,
            })
        };
        Ok(Json(service.library.names().map(one).collect()))
    })
    .await
}

/// How A1111 spells the names that differ from ours in capitals alone.
const SPELT: [&str; 10] =
    ["Euler", "Heun", "DDIM", "DDPM", "LMS", "UniPC", "DPM2", "LCM", "DEIS", "TCD"];

/// The name that A1111's users know a method by: its own in their spelling, or the first of its
/// other names that is written as theirs are, with capitals; else its own.
fn label<T: ?Sized>(entry: &Made<T>) -> &'static str {
    let theirs =
        |a: &&&str| a.starts_with(|c: char| c.is_ascii_uppercase()) && !a.ends_with("Scheduler");
    let spelt = SPELT.iter().find(|name| name.eq_ignore_ascii_case(entry.card.id));
    spelt.or_else(|| entry.card.aliases.iter().find(theirs)).map_or(entry.card.id, |name| *name)
}

async fn samplers() -> Json<Value> {
    let one = |entry: &Made<dyn sampler::Sampler>| json!({"name": label(entry), "aliases": [entry.card.id], "options": {}});
    Json(sampler::entries().iter().map(one).collect())
}

async fn schedulers() -> Json<Value> {
    let automatic = json!({
        "name": "automatic", "label": "Automatic", "aliases": null, "default_rho": -1,
        "need_inner_model": false,
    });
    let one = |entry: &Made<dyn grid::Grid>| {
        let rho = (entry.defaults)().get("rho").and_then(Value::as_f64).unwrap_or(-1.0);
        json!({
            "name": entry.card.id, "label": label(entry), "aliases": entry.card.aliases,
            "default_rho": rho, "need_inner_model": false,
        })
    };
    Json(std::iter::once(automatic).chain(grid::entries().iter().map(one)).collect())
}

async fn loras(State(service): State<Shared>) -> Json<Value> {
    let one = |name: String| json!({"name": name, "alias": name, "path": name, "metadata": {}});
    Json(service.library.beside("loras").into_iter().map(one).collect())
}

async fn embeddings(State(service): State<Shared>) -> Json<Value> {
    let none = json!({
        "step": null, "sd_checkpoint": null, "sd_checkpoint_name": null, "shape": null,
        "vectors": null,
    });
    let names = service.library.beside("embeddings");
    let loaded: Map<String, Value> = names.into_iter().map(|n| (n, none.clone())).collect();
    Json(json!({"loaded": loaded, "skipped": {}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_go_by_the_names_that_a1111_has() {
        let names: Vec<&str> = sampler::entries().iter().map(label).collect();
        for wanted in ["Euler a", "Euler", "DPM++ 2M", "Heun", "DDIM", "UniPC"] {
            assert!(names.contains(&wanted), "{wanted}: {names:?}");
        }
        for name in names {
            let part = tweedie::spec::PartSpec::named(name);
            tweedie::spec::resolve_sampler(&part).unwrap();
        }
    }
}
