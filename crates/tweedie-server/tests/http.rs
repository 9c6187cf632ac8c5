//! The server as its clients see it, without a network: requests go straight into the router.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests stand outside the test functions"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tweedie::data::picture::{Limits as PictureLimits, Target, from_bytes};
use tweedie::engine::{Engine, Unwatching};
use tweedie::spec::Spec;
use tweedie_server::{Limits, Service, Settings, router};

const SHAPES: &str = "builtin:shapes";
const FASHION: &str = "builtin:fashion";

struct Server {
    service: Arc<Service>,
    app: Router,
}

fn started(change: impl FnOnce(&mut Settings)) -> Server {
    let mut settings = Settings { threads: 1, at_once: 4, ..Settings::default() };
    change(&mut settings);
    let service = Service::start(settings).unwrap();
    Server { app: router(service.clone()), service }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The threads that compute end with the queue.
        let service = self.service.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(service.stop());
        });
    }
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Server {
    async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header(header::HOST, "localhost");
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn form(&self, path: &str, fields: &[(&str, &[u8])]) -> Answer {
        let mut body = Vec::new();
        for (name, bytes) in fields {
            let file = if name.starts_with("image") || *name == "mask" {
                "; filename=\"a.png\""
            } else {
                ""
            };
            body.extend(
                format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
                    .bytes(),
            );
            body.extend(*bytes);
            body.extend(b"\r\n");
        }
        body.extend(b"--x--\r\n");
        let request = Request::post(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// The job once it has ended.
    async fn ended(&self, id: &str) -> Value {
        let begun = Instant::now();
        loop {
            let job = self.get(&format!("/api/v1/jobs/{id}")).await.json();
            if !["queued", "running"].contains(&job["state"].as_str().unwrap()) {
                return job;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{job}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn is_asset(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|e| e == "js" || e == "css")
}

/// The pixels of a PNG.
fn pixels(png: &[u8]) -> (usize, usize, Vec<u8>) {
    let image =
        from_bytes("png".as_ref(), png, &Target::default(), &PictureLimits::default()).unwrap();
    (image.width, image.height, image.get(0).unwrap().to_vec())
}

/// What the command line would draw: the picture of the library's plainest call.
fn drawn(spec: &Spec) -> Vec<u8> {
    let engine = Engine::cpu(1).unwrap();
    let model = engine.open(&spec.model).unwrap();
    let made = engine.generate(&model, spec, &mut Unwatching).unwrap();
    pixels(&made.encode(&model, 0, tweedie::media::Format::Png).unwrap()).2
}

fn base64_png(side: u32, alpha: Option<u8>) -> String {
    STANDARD.encode(png(side, alpha))
}

/// A small picture; with `alpha` its left half is that transparent.
fn png(side: u32, alpha: Option<u8>) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    let picture = match alpha {
        None => image::DynamicImage::from(image::RgbImage::from_fn(side, side, |x, y| {
            image::Rgb([(x * 3) as u8, (y * 3) as u8, 90])
        })),
        Some(alpha) => image::DynamicImage::from(image::RgbaImage::from_fn(side, side, |x, _| {
            image::Rgba([200, 30, 30, if x < side / 2 { alpha } else { 255 }])
        })),
    };
    picture.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_at_the_same_time_draw_what_each_would_alone() {
    let server = started(|_| {});
    let mut asked = Vec::new();
    for (i, (model, sampler, grid, steps)) in [
        (SHAPES, "dpmpp-2m", "karras", 5),
        (SHAPES, "euler-ancestral", "leading", 7),
        (FASHION, "ddim:eta=0.5", "trailing", 4),
        (SHAPES, "heun", "karras", 3),
        (FASHION, "unipc", "leading", 6),
        (SHAPES, "DPM++ 2M SDE Karras", "", 5),
    ]
    .into_iter()
    .enumerate()
    {
        let prompt = if model == SHAPES { "a red circle and a blue star" } else { "sneaker" };
        let mut spec = json!({
            "model": model, "prompt": prompt, "sampler": sampler, "steps": steps, "seed": 40 + i,
            "guidance": 2.0 + i as f64,
        });
        if !grid.is_empty() {
            spec["grid"] = grid.into();
        }
        let answer = server.post("/api/v1/jobs", &json!({ "spec": spec })).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
        let job = answer.json();
        assert_eq!(
            answer.headers[header::LOCATION],
            format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())
        );
        asked.push(job);
    }
    let mut together = 0;
    for job in &asked {
        let id = job["id"].as_str().unwrap();
        let ended = server.ended(id).await;
        assert_eq!(ended["state"], "done", "{ended}");
        assert_eq!(ended["progress"]["fraction"], 1.0);
        let url = ended["images"][0]["url"].as_str().unwrap();
        let png = server.get(url).await;
        assert_eq!(png.headers[header::CONTENT_TYPE], "image/png");
        let spec: Spec = serde_json::from_value(job["spec"].clone()).unwrap();
        assert!(pixels(&png.body).2 == drawn(&spec), "{spec:?}");
        let texts = tweedie::media::decode_texts("png", &png.body).unwrap();
        assert!(texts.iter().any(|(k, t)| k == "parameters" && t.contains("Seed: 4")));
        together += 1;
    }
    assert_eq!(together, 6);
    // The record in a picture, sent as it is, draws the picture again.
    let first = server
        .get(&format!("/api/v1/jobs/{}/images/0.png", asked[0]["id"].as_str().unwrap()))
        .await;
    let texts = tweedie::media::decode_texts("png", &first.body).unwrap();
    let record = texts.iter().find(|(k, _)| k == tweedie::media::RECORD).unwrap();
    let record: Value = serde_json::from_str(&record.1).unwrap();
    let answer = server.post("/api/v1/jobs", &json!({ "spec": record })).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    let again = server.ended(answer.json()["id"].as_str().unwrap()).await;
    let again = server.get(again["images"][0]["url"].as_str().unwrap()).await;
    assert!(again.body == first.body);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    server.post(&format!("/api/v1/jobs/{id}/delete"), &json!({})).await;
    // Calls were shared: fewer than the runs' own evaluations together.
    let shapes = server.service.library.open(SHAPES).unwrap();
    let [calls, rows] = shapes.table.calls();
    assert!(calls < rows, "{calls} calls of {rows} rows");
    let list = server.get("/api/v1/jobs?limit=4").await.json();
    let ids: Vec<&str> =
        list["jobs"].as_array().unwrap().iter().map(|j| j["id"].as_str().unwrap()).collect();
    let newest: Vec<&str> = asked.iter().rev().take(4).map(|j| j["id"].as_str().unwrap()).collect();
    assert_eq!(ids, newest);
    let more = server.get(&format!("/api/v1/jobs?before={}", ids[3])).await.json();
    assert_eq!(more["jobs"].as_array().unwrap().len(), 2);
    let gone = server.post(&format!("/api/v1/jobs/{}/delete", ids[0]), &json!({})).await;
    assert_eq!(gone.json()["deleted"], true);
    assert_eq!(server.get(&format!("/api/v1/jobs/{}", ids[0])).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_steps_and_the_end_and_a_job_is_cancelled() {
    let server = started(|_| {});
    let spec = json!({"model": SHAPES, "prompt": "a red circle", "steps": 8, "seed": 3});
    let job = server.post("/api/v1/jobs", &json!({"spec": spec, "preview": true})).await.json();
    let id = job["id"].as_str().unwrap();
    let events = server.get(&format!("/api/v1/jobs/{id}/events")).await;
    assert_eq!(events.headers[header::CONTENT_TYPE], "text/event-stream");
    let text = events.text();
    assert!(text.contains("event: progress") && text.contains("event: end"), "{text}");
    let last = text.rsplit("data: ").next().unwrap().trim();
    let end: Value = serde_json::from_str(last).unwrap();
    assert_eq!((&end["state"], &end["id"]), (&json!("done"), &json!(id)));
    // A stream of what has ended is its end.
    let again = server.get(&format!("/api/v1/jobs/{id}/events")).await.text();
    assert!(again.starts_with("event: end"), "{again}");

    let long = json!({"spec": {"model": SHAPES, "prompt": "a red circle", "steps": 1000}});
    let job = server.post("/api/v1/jobs", &long).await.json();
    let id = job["id"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let answer = server.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(server.ended(&id).await["state"], "cancelled");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_with_the_field() {
    let server = started(|s| s.limits = Limits { prompt: 100, count: 4, ..Limits::default() });
    let job = |change: Value| {
        let mut spec = json!({"model": SHAPES, "prompt": "a red circle"});
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({ "spec": spec })
    };
    for (change, status, param) in [
        (json!({"model": "builtin:shape"}), 404, "model"),
        (json!({"model": "/etc/passwd"}), 404, "model"),
        (json!({"sampler": "eular"}), 400, "sampler"),
        (json!({"sampler": "euler:eta=x"}), 400, "setting"),
        (json!({"grid": "karas"}), 400, "grid"),
        (json!({"steps": 0}), 400, "steps"),
        (json!({"steps": 100_000}), 400, "steps"),
        (json!({"steps": -1}), 400, "steps"),
        (json!({"steps": "many"}), 400, "steps"),
        (json!({"stepps": 5}), 400, "stepps"),
        (json!({"count": 5}), 400, "count"),
        (json!({"width": 65}), 400, "width"),
        (json!({"height": 1 << 20}), 400, "height"),
        (json!({"guidance": 1e9}), 400, "guidance"),
        (json!({"prompt": "x".repeat(101)}), 400, "prompt"),
        (json!({"prompt": "a <lora:ink:1>"}), 400, "prompt"),
        (json!({"classes": [3]}), 400, "classes"),
        (json!({"strength": 0.5}), 400, "strength"),
        (json!({"model_hash": "0".repeat(64)}), 400, "model_hash"),
        (json!({"noise": {"name": "n", "hash": "0".repeat(64)}}), 400, "spec"),
        (json!({"task": {"init": {"name": "n", "hash": "0".repeat(64)}}}), 400, "init"),
        (json!({"loras": [{"name": "ink", "hash": "0".repeat(64), "weight": 1}]}), 400, "prompt"),
        (json!({"embeddings": [{"name": "ink", "hash": "0".repeat(64)}]}), 400, "embeddings"),
        (json!({"dtype": "f16"}), 400, "dtype"),
    ] {
        let answer = server.post("/api/v1/jobs", &job(change.clone())).await;
        let error = &answer.json()["error"];
        assert_eq!(answer.status.as_u16(), status, "{change} {error}");
        assert_eq!(error["param"], param, "{change} {error}");
        assert!(!error["message"].as_str().unwrap().contains('\n'));
    }
    for (body, param) in [
        (json!({"spec": {"model": SHAPES}, "init": "not base64!"}), "init"),
        (json!({"spec": {"model": SHAPES}, "init": STANDARD.encode("no picture")}), "init"),
        (json!({"spec": {"model": SHAPES}, "mask": base64_png(8, None)}), "mask"),
    ] {
        let answer = server.post("/api/v1/jobs", &body).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["param"]),
            (400, &json!(param))
        );
    }
    for body in ["", "{", "[]", "{\"spec\": 3}", "{\"spec\": {}, \"more\": 1}", "null"] {
        let request = Request::post("/api/v1/jobs")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        let answer = server.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {}", answer.text());
    }
    assert_eq!(server.get("/api/v1/jobs/nothing").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/api/v1/jobs?limit=x").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(server.get("/nothing").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/api/v1/jobs/x/cancel").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let jobs = server.get("/api/v1/jobs").await.json();
    assert_eq!(jobs["jobs"], json!([]), "nothing that was refused is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_when_to_come_back() {
    let server = started(|s| {
        s.at_once = 1;
        s.limits.queue = 2;
    });
    let long = json!({"spec": {"model": SHAPES, "prompt": "a red circle", "steps": 1000}});
    let mut refused = None;
    let mut accepted = Vec::new();
    for _ in 0..5 {
        let answer = server.post("/api/v1/jobs", &long).await;
        match answer.status {
            StatusCode::ACCEPTED => accepted.push(answer.json()["id"].as_str().unwrap().to_owned()),
            _ => refused = Some(answer),
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert!(accepted.len() <= 3);
    let page = server.get("/metrics").await.text();
    assert!(
        page.contains("tweedie_jobs_refused_total") && page.contains("tweedie_jobs_waiting 2"),
        "{page}"
    );
    for id in accepted {
        server.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
        assert_eq!(server.ended(&id).await["state"], "cancelled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_finished_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let spec = json!({"model": SHAPES, "prompt": "a red circle", "steps": 4, "seed": 9});
    let id = {
        let server = started(|s| {
            s.state = Some(dir.path().to_owned());
            s.grace = Duration::ZERO;
            s.at_once = 1;
        });
        let mut slow = spec.clone();
        slow["steps"] = 1000.into();
        server.post("/api/v1/jobs", &json!({ "spec": slow })).await;
        let id = server.post("/api/v1/jobs", &json!({ "spec": spec })).await.json()["id"].clone();
        server.service.stop().await;
        assert_eq!(server.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
        let late = server.post("/api/v1/jobs", &json!({ "spec": spec })).await;
        assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
        id.as_str().unwrap().to_owned()
    };
    let server = started(|s| s.state = Some(dir.path().to_owned()));
    let all = server.get("/api/v1/jobs").await.json();
    assert_eq!(all["jobs"].as_array().unwrap().len(), 2, "{all}");
    let ended = server.ended(&id).await;
    assert_eq!(ended["state"], "done", "{ended}");
    let url = ended["images"][0]["url"].as_str().unwrap();
    let spec: Spec = serde_json::from_value(ended["spec"].clone()).unwrap();
    assert!(pixels(&server.get(url).await.body).2 == drawn(&spec));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_s_clients_get_what_they_expect() {
    let server = started(|_| {});
    let models = server.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], SHAPES);
    assert_eq!(server.get("/v1/models/builtin:fashion").await.json()["object"], "model");
    assert_eq!(server.get("/v1/models/none").await.status, StatusCode::NOT_FOUND);
    let asked = json!({
        "prompt": "a red circle", "model": SHAPES, "n": 2, "size": "64x64", "steps": 3, "seed": 5,
        "response_format": "b64_json",
    });
    let answer = server.post("/v1/images/generations", &asked).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let made = answer.json();
    let data = made["data"].as_array().unwrap();
    assert_eq!((data.len(), &data[1]["seed"], &made["seed"]), (2, &json!(6), &json!(5)));
    let first = STANDARD.decode(data[0]["b64_json"].as_str().unwrap()).unwrap();
    let spec = Spec {
        model: SHAPES.into(),
        prompt: "a red circle".into(),
        steps: 3,
        seed: 5,
        sampler: server.service.library.facts(SHAPES).unwrap().spec.sampler.clone(),
        ..Spec::default()
    };
    assert!(pixels(&first).2 == drawn(&spec));
    // Addresses, other formats, a stream.
    let mut other = asked.clone();
    (other["response_format"], other["output_format"]) = ("url".into(), "webp".into());
    let made = server.post("/v1/images/generations", &other).await.json();
    let url = made["data"][0]["url"].as_str().unwrap();
    assert_eq!(
        server.get(url.strip_prefix("http://localhost").unwrap()).await.status,
        StatusCode::OK
    );
    let stream = json!({
        "prompt": "a red circle", "steps": 40, "seed": 5, "stream": true, "partial_images": 2,
    });
    let text = server.post("/v1/images/generations", &stream).await.text();
    assert!(text.contains("event: image_generation.completed"), "{text:.300}");
    assert!(text.matches("event: image_generation.partial_image").count() <= 2);
    // Edits: what is transparent is painted; what is opaque stays.
    let (picture, mask) = (png(64, None), png(64, Some(0)));
    let fields: [(&str, &[u8]); 6] = [
        ("image", &picture),
        ("mask", &mask),
        ("prompt", b"a red circle"),
        ("steps", b"4"),
        ("seed", b"1"),
        ("response_format", b"b64_json"),
    ];
    let edited = server.form("/v1/images/edits", &fields).await;
    assert_eq!(edited.status, StatusCode::OK, "{}", edited.text());
    assert_eq!(edited.json()["data"].as_array().unwrap().len(), 1);
    let varied =
        server.form("/v1/images/variations", &[("image", &picture), ("steps", b"3")]).await;
    assert_eq!(varied.status, StatusCode::OK, "{}", varied.text());
    for (bad, param) in [
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": "x", "n": 0}), "n"),
        (json!({"prompt": "x", "size": "big"}), "size"),
        (json!({"prompt": "x", "size": "63x64"}), "width"),
        (json!({"prompt": "x", "style": "vivid"}), "style"),
        (json!({"prompt": "x", "background": "transparent"}), "background"),
        (json!({"prompt": "x", "sampler": "eular"}), "sampler"),
        (json!({"prompt": "x", "fast": true}), "fast"),
        (json!({"prompt": "x", "partial_images": 2}), "partial_images"),
    ] {
        let answer = server.post("/v1/images/generations", &bad).await;
        let error = &answer.json()["error"];
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad} {error}");
        assert_eq!(
            (&error["param"], &error["type"]),
            (&json!(param), &json!("invalid_request_error"))
        );
    }
    let opaque = [("image", picture.as_slice()), ("mask", picture.as_slice()), ("prompt", b"x")];
    let refused = server.form("/v1/images/edits", &opaque).await;
    assert_eq!(refused.json()["error"]["param"], "mask");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1111_s_clients_get_what_they_expect() {
    let server = started(|_| {});
    let asked = json!({
        "prompt": "a red circle", "negative_prompt": "", "seed": 11, "steps": 3, "cfg_scale": 3.0,
        "width": 64, "height": 64, "batch_size": 2, "n_iter": 1, "sampler_name": "Euler a",
        "scheduler": "karras", "restore_faces": false, "styles": [], "alwayson_scripts": {},
        "denoising_strength": 0.7, "enable_hr": false, "eta": 1.0, "s_noise": 1,
    });
    let answer = server.post("/sdapi/v1/txt2img", &asked).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let made = answer.json();
    assert_eq!(made["images"].as_array().unwrap().len(), 2);
    assert_eq!(made["parameters"]["steps"], 3);
    let info: Value = serde_json::from_str(made["info"].as_str().unwrap()).unwrap();
    assert_eq!((&info["seed"], &info["all_seeds"]), (&json!(11), &json!([11, 12])));
    assert!(info["infotexts"][0].as_str().unwrap().contains("Steps: 3"), "{info}");
    // What a picture says of itself.
    let png = made["images"][0].clone();
    let said = server.post("/sdapi/v1/png-info", &json!({ "image": png })).await.json();
    assert_eq!(said["info"], info["infotexts"][0]);
    assert_eq!(said["parameters"]["Seed"], "11");
    // Image to image with a mask, and its inverse.
    let mut edit = asked.clone();
    edit["init_images"] = json!([png]);
    edit["mask"] = json!(base64_png(64, None));
    edit["inpaint_full_res"] = json!(true);
    edit["batch_size"] = json!(1);
    let one = server.post("/sdapi/v1/img2img", &edit).await;
    assert_eq!(one.status, StatusCode::OK, "{}", one.text());
    edit["inpainting_mask_invert"] = json!(1);
    let other = server.post("/sdapi/v1/img2img", &edit).await.json();
    assert_ne!(one.json()["images"], other["images"]);
    // Lists and options.
    let models = server.get("/sdapi/v1/sd-models").await.json();
    let title = models[1]["title"].as_str().unwrap().to_owned();
    assert!(title.starts_with("builtin:fashion ["), "{title}");
    let set = server.post("/sdapi/v1/options", &json!({"sd_model_checkpoint": title})).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text());
    assert_eq!(server.get("/sdapi/v1/options").await.json()["sd_model_checkpoint"], json!(title));
    let fashion = json!({"prompt": "sneaker", "width": 32, "height": 32, "steps": 2, "seed": 1});
    let made = server.post("/sdapi/v1/txt2img", &fashion).await.json();
    let info: Value = serde_json::from_str(made["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["sd_model_name"], FASHION);
    let progress = server.get("/sdapi/v1/progress?skip_current_image=true").await.json();
    assert_eq!((&progress["progress"], &progress["state"]["job_count"]), (&json!(0.0), &json!(0)));
    for path in [
        "samplers",
        "schedulers",
        "upscalers",
        "loras",
        "embeddings",
        "cmd-flags",
        "memory",
        "scripts",
        "sd-vae",
        "hypernetworks",
        "face-restorers",
        "latent-upscale-modes",
    ] {
        assert_eq!(server.get(&format!("/sdapi/v1/{path}")).await.status, StatusCode::OK, "{path}");
    }
    let larger = json!({"image": png, "upscaler_1": "Lanczos", "upscaling_resize": 2});
    let larger = server.post("/sdapi/v1/extra-single-image", &larger).await.json();
    let bytes = STANDARD.decode(larger["image"].as_str().unwrap()).unwrap();
    assert_eq!(pixels(&bytes).0, 128);
    for (change, param) in [
        (json!({"restore_faces": true}), "restore_faces"),
        (json!({"sampler_name": "Eular"}), "sampler"),
        (json!({"override_settings": {"sd_model_checkpoint": SHAPES}, "width": 63}), "width"),
        (json!({"s_churn": 3, "sampler_name": "DPM++ 2M"}), "s_churn"),
        (json!({"override_settings": {"sd_model_checkpoint": "none"}}), "model"),
    ] {
        let mut bad = fashion.clone();
        for (key, value) in change.as_object().unwrap() {
            bad[key] = value.clone();
        }
        let answer = server.post("/sdapi/v1/txt2img", &bad).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{change}: {}", answer.text());
        assert!(answer.json()["detail"].as_str().unwrap().contains(param), "{}", answer.text());
    }
    // An interrupted request answers.
    let mut long = fashion.clone();
    long["steps"] = json!(1000);
    let (answer, ()) = tokio::join!(server.post("/sdapi/v1/txt2img", &long), async {
        while server.service.running() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(server.get("/sdapi/v1/progress").await.json()["progress"].as_f64().unwrap() > 0.0);
        assert_eq!(server.post("/sdapi/v1/interrupt", &json!({})).await.status, StatusCode::OK);
    });
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let info: Value = serde_json::from_str(answer.json()["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["interrupted"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_and_the_document_are_there() {
    let server = started(|_| {});
    let page = server.get("/").await;
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(
        page.headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap()
            .contains("default-src 'self'")
    );
    let text = page.text();
    for outside in ["src=\"http", "href=\"http", "src=\"//", "@import", " style=\"", " onclick="] {
        assert!(!text.contains(outside), "{outside}");
    }
    // Every file that the page names is there.
    for part in text.split(['"', '\'']).filter(|p| is_asset(p)) {
        let path = format!("/{}", part.trim_start_matches(['.', '/']));
        assert_eq!(server.get(&path).await.status, StatusCode::OK, "{path}");
    }
    let document = server.get("/api/v1/openapi.json").await.json();
    assert!(document["paths"]["/api/v1/jobs"]["post"].is_object(), "{document}");
    let methods = server.get("/api/v1/methods").await.json();
    assert!(methods["methods"].as_array().unwrap().len() > 20);
    let models = server.get("/api/v1/models").await.json();
    assert_eq!(
        (&models["models"][0]["name"], &models["models"][1]["text"]),
        (&json!(SHAPES), &json!(false))
    );
    assert_eq!(server.get("/healthz").await.text(), "ok\n");
    assert_eq!(server.get("/readyz").await.status, StatusCode::OK);
}
