//! The OpenAPI document, made from the code.

use axum::Json;
use utoipa::OpenApi;

use super::own;

/// Our own interface. Those of OpenAI and A1111 are documented by them.
#[derive(OpenApi)]
#[openapi(
    info(title = "tweedie", description = "Jobs of a diffusion engine."),
    paths(
        own::submit,
        own::list,
        own::job,
        own::cancel,
        own::delete,
        own::image,
        own::follow,
        own::models,
        own::methods,
        own::limits,
    )
)]
struct Document;

pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
