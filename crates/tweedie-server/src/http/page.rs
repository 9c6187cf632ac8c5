//! The page at `/`: its files are part of the program.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Shared;

include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// What the page may load: itself.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; \
                      script-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Whether a path is a file of the page.
pub(crate) fn is_asset(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|name| PAGE.iter().any(|(file, _)| *file == name))
}

pub(super) fn routes() -> Router<Shared> {
    let mut router = Router::new().route("/", get(|| async { file("index.html") }));
    for (name, _) in PAGE {
        router = router.route(&format!("/{name}"), get(move || async move { file(name) }));
    }
    router
}

fn file(name: &str) -> Response {
    let bytes = PAGE.iter().find(|(file, _)| *file == name).map_or(&[][..], |(_, bytes)| bytes);
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, bytes).into_response()
}
