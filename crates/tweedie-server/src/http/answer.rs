//! Refusals in the words of each interface.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::refusal::{Kind, Refusal};

/// How an interface says that something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Own,
    OpenAi,
    A1111,
}

impl Dialect {
    fn of(path: &str) -> Self {
        if path.starts_with("/v1/") {
            Self::OpenAi
        } else if path.starts_with("/sdapi/") {
            Self::A1111
        } else {
            Self::Own
        }
    }

    /// The body of a refusal.
    pub(crate) fn body(self, refusal: &Refusal) -> Value {
        let (message, param, code) = (&refusal.message, &refusal.param, refusal.code());
        match self {
            Self::Own => json!({"error": {"message": message, "param": param, "code": code}}),
            Self::OpenAi => {
                let kind = match refusal.kind {
                    Kind::Internal | Kind::Stopping => "server_error",
                    Kind::Busy(_) => "rate_limit_error",
                    Kind::Unauthorized => "authentication_error",
                    _ => "invalid_request_error",
                };
                json!({
                    "error": {"message": message, "type": kind, "param": param, "code": code}
                })
            }
            Self::A1111 => {
                json!({"error": code, "detail": message, "body": "", "errors": message})
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.kind == Kind::Internal {
            tracing::error!("{self}");
        }
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, Json(Dialect::Own.body(&self))).into_response();
        if let Kind::Busy(seconds) = self.kind {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == Kind::Unauthorized {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Says a refusal as the interface of the path does.
pub(crate) async fn in_dialect(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    let mut response = next.run(request).await;
    let Some(refusal) = response.extensions_mut().remove::<Refusal>() else { return response };
    if dialect == Dialect::Own {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = Json(dialect.body(&refusal)).into_response().into_body();
    Response::from_parts(parts, body)
}
