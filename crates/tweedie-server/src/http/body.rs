//! Bodies of requests, with errors in words.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::{Result, Shared};
use crate::refusal::{Kind, Refusal};

/// A body of JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Shared) -> Result<Self> {
        let limit = state.settings.limits.upload;
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refused(&rejection, limit)),
        }
    }
}

fn refused(rejection: &JsonRejection, limit: usize) -> Refusal {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            Refusal::new(Kind::WrongType, "wanted a body of application/json")
        }
        JsonRejection::BytesRejection(inner) if inner.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            too_large(limit)
        }
        other => {
            let message = other.body_text().replace('\n', " ");
            Refusal { param: blamed(&message), ..Refusal::new(Kind::Invalid, message) }
        }
    }
}

/// The field that a message of serde's blames: one that is unknown or missing stands in backquotes,
/// of a value the path stands before the reason.
pub(crate) fn blamed(message: &str) -> Option<String> {
    let quoted = |before: &str| {
        let (_, rest) = message.split_once(before)?;
        rest.split_once('`').map(|(name, _)| name.to_owned())
    };
    let path = || {
        let (_, rest) = message.split_once("into the target type: ")?;
        let (path, _) = rest.split_once(": ")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.[]".contains(c);
        path.chars().all(plain).then(|| path.to_owned())
    };
    quoted("unknown field `").or_else(|| quoted("missing field `")).or_else(path)
}

pub(crate) fn too_large(limit: usize) -> Refusal {
    Refusal::new(Kind::TooLarge, format!("the request has more than {limit} bytes"))
}

/// One field of a form.
pub(crate) struct Field {
    /// Its name.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Field {
    /// Its bytes as text.
    pub(crate) fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.bytes)
            .map_err(|_| Refusal::field(&self.name, format!("{}: is no text", self.name)))
    }

    /// Its text as a value.
    pub(crate) fn parse<T: std::str::FromStr>(&self) -> Result<T> {
        let text = self.text()?;
        text.trim().parse().map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            Refusal::field(&self.name, format!("{}: `{shown}` makes no sense", self.name))
        })
    }
}

/// The fields of a form with files; at most so many.
pub(crate) async fn fields(mut form: Multipart, limit: usize) -> Result<Vec<Field>> {
    const MOST: usize = 64;
    let wrong = |e: &axum::extract::multipart::MultipartError| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(limit),
        _ => Refusal::new(Kind::Invalid, format!("the form: {}", e.body_text())),
    };
    let mut all = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|e| wrong(&e))? {
        if all.len() == MOST {
            return Err(Refusal::new(Kind::Invalid, format!("more than {MOST} fields")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|e| wrong(&e))?.to_vec();
        all.push(Field { name, bytes });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_serde_name_a_field() {
        let said = |message: &str| blamed(message);
        let about = "Failed to deserialize the JSON body into the target type: ";
        assert_eq!(said(&format!("{about}steps: invalid type: string")).as_deref(), Some("steps"));
        assert_eq!(said("unknown field `a`, expected `b`").as_deref(), Some("a"));
        assert_eq!(
            said(&format!("{about}missing field `spec` at line 1")).as_deref(),
            Some("spec")
        );
        assert_eq!(said("expected value at line 1 column 1"), None);
    }
}
