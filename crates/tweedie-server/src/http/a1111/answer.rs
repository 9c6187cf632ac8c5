//! What A1111's clients read in an answer.

use serde_json::{Map, Value, json};

use crate::http::Result;
use crate::http::picture::to_base64;
use crate::job::{Job, Live};
use crate::refusal::Refusal;

/// The pictures, the fields that were asked, and `info` as JSON in a text.
///
/// An interrupted job has the picture on the way in place of those that it did not finish.
pub(super) fn of(
    job: &Job,
    live: &Live,
    asked: &Map<String, Value>,
    model_hash: &str,
) -> Result<Value> {
    let spec = &job.request.spec;
    let mut images: Vec<String> = live.images.iter().map(|m| to_base64(&m.png)).collect();
    if let (true, Some((_, png))) = (images.is_empty(), &live.preview) {
        images.push(to_base64(png));
    }
    let all = spec.count;
    let seeds: Vec<u64> = (0..all as u64).map(|k| spec.seed.wrapping_add(k)).collect();
    let first = live.images.first();
    let infotexts: Vec<&str> = live.images.iter().map(|m| m.info.as_str()).collect();
    let size = [
        first.map_or(spec.width.unwrap_or(0), |m| m.width),
        first.map_or(spec.height.unwrap_or(0), |m| m.height),
    ];
    let batch = asked.get("batch_size").and_then(Value::as_u64).unwrap_or(1);
    let info = json!({
        "prompt": spec.prompt,
        "all_prompts": vec![&spec.prompt; all],
        "negative_prompt": spec.negative,
        "all_negative_prompts": vec![&spec.negative; all],
        "seed": spec.seed,
        "all_seeds": seeds,
        "subseed": spec.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": size[0],
        "height": size[1],
        "sampler_name": asked.get("sampler_name").filter(|s| !s.is_null()).cloned()
            .unwrap_or_else(|| spec.sampler.to_string().into()),
        "cfg_scale": spec.guidance,
        "steps": spec.steps,
        "batch_size": batch,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": spec.model,
        "sd_model_hash": format!("{model_hash:.10}"),
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": spec.task.strength,
        "extra_generation_params": {
            "Schedule type": spec.grid.as_ref().map(ToString::to_string),
        },
        "index_of_first_image": 0,
        "infotexts": infotexts,
        "styles": [],
        "job_timestamp": job.created.to_string(),
        "clip_skip": spec.clip_skip.unwrap_or(1),
        "is_using_inpainting_conditioning": false,
        "version": concat!("tweedie ", env!("CARGO_PKG_VERSION")),
        "interrupted": live.images.len() < all,
    });
    // The fields come back without the pictures, as there.
    let mut parameters = asked.clone();
    for key in ["init_images", "mask"] {
        if parameters.contains_key(key) {
            parameters.insert(key.to_owned(), Value::Null);
        }
    }
    let wanted = asked.get("send_images") != Some(&Value::Bool(false));
    let info = serde_json::to_string(&info).map_err(Refusal::internal)?;
    Ok(json!({
        "images": if wanted { images } else { Vec::new() },
        "parameters": parameters,
        "info": info,
    }))
}
