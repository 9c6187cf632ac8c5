//! The interfaces: what clients send, put into jobs, and jobs put into what they expect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tokio::net::TcpListener;

use crate::refusal::{Kind, Refusal};
use crate::service::Service;
use crate::settings::Settings;

pub(crate) mod a1111;
mod answer;
mod body;
mod document;
mod events;
mod guard;
mod openai;
mod own;
mod page;
mod picture;

pub(crate) use answer::Dialect;

type Shared = Arc<Service>;
type Result<T> = std::result::Result<T, Refusal>;

/// Everything that the server answers.
pub fn router(service: Shared) -> Router {
    let limit = service.settings.limits.upload;
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(page::routes())
        .nest("/api/v1", own::routes())
        .nest("/v1", openai::routes())
        .nest("/sdapi/v1", a1111::routes())
        .fallback(|| async { Refusal::new(Kind::NotFound, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(Kind::WrongMethod, "this path takes another method")
        })
        .layer(DefaultBodyLimit::max(limit))
        .layer(middleware::from_fn_with_state(service.clone(), guard::guard))
        .layer(middleware::from_fn(answer::in_dialect))
        .with_state(service)
}

async fn ready(state: axum::extract::State<Shared>) -> Result<&'static str> {
    if state.is_stopping() {
        return Err(Refusal::new(Kind::Stopping, "the server is stopping"));
    }
    let service = state.0;
    blocking(move || service.store.check()).await?;
    Ok("ready\n")
}

async fn metrics(state: axum::extract::State<Shared>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.page(&state)).into_response()
}

/// Runs what may wait for a disk or a model beside the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Refusal::internal("a request panicked")))
}

/// Who asks, for the fairness of the queue: what the client calls itself, else its address.
pub(crate) fn client_of(headers: &HeaderMap, at: Option<SocketAddr>, user: Option<&str>) -> String {
    let named = headers.get("x-client-id").and_then(|v| v.to_str().ok()).or(user);
    match named.filter(|n| !n.is_empty()) {
        Some(name) => name.chars().take(64).collect(),
        None => at.map_or_else(String::new, |at| at.ip().to_string()),
    }
}

/// Serves until `stop` is ready, then lets running jobs finish. `ready` is told the address.
///
/// # Errors
///
/// What the settings, the models, the store and the system say.
pub async fn serve(
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
    ready: impl FnOnce(SocketAddr),
) -> Result<()> {
    let address = SocketAddr::new(settings.host, settings.port);
    let service = blocking(move || Service::start(settings)).await?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Refusal::internal(format!("{address}: {e}")))?;
    let bound = listener.local_addr().map_err(Refusal::internal)?;
    // Models that were named are opened before anybody asks for them.
    let first = service.clone();
    tokio::task::spawn_blocking(move || {
        for name in first.settings.models.clone() {
            let opened = first.library.name(&name).and_then(|name| first.library.open(name));
            if let Err(refusal) = opened {
                tracing::warn!("{name}: {refusal}");
            }
        }
    });
    ready(bound);
    let app = router(service.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let (stopped, mut until) = tokio::sync::watch::channel(false);
    let ending = service.clone();
    tokio::spawn(async move {
        stop.await;
        tracing::info!("stopping");
        ending.stop().await;
        let _ = stopped.send(true);
    });
    let mut again = until.clone();
    let served = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = until.wait_for(|stopped| *stopped).await;
    });
    tokio::select! {
        result = served => result.map_err(Refusal::internal),
        // Connections that stay open are not waited for.
        () = async move {
            let _ = again.wait_for(|stopped| *stopped).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        } => Ok(()),
    }
}
