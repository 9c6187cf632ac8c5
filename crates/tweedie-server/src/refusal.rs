//! Why a request is refused, in words for people.

use std::fmt;

use tweedie::Error;

/// What kind of refusal it is; the HTTP status follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: what was asked makes no sense or is beyond the limits.
    Invalid,
    /// 401: the key is missing or wrong.
    Unauthorized,
    /// 403: from a place that is not trusted.
    Forbidden,
    /// 404.
    NotFound,
    /// 405: the path is there and takes another method.
    WrongMethod,
    /// 408: it took longer than the server allows.
    TooLong,
    /// 413: too many bytes.
    TooLarge,
    /// 415: neither JSON nor a form with files.
    WrongType,
    /// 429: the queue is full; worth trying again after so many seconds.
    Busy(u64),
    /// 503: the server is stopping.
    Stopping,
    /// 500: a fault of ours.
    Internal,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind.
    pub kind: Kind,
    /// One line for people.
    pub message: String,
    /// The field that is to blame.
    pub param: Option<String>,
}

impl Refusal {
    /// Of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None }
    }

    /// A field that is wrong.
    pub fn field(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(Kind::Invalid, message) }
    }

    /// A fault of ours.
    pub fn internal(what: impl fmt::Display) -> Self {
        Self::new(Kind::Internal, what.to_string())
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self.kind {
            Kind::Invalid => 400,
            Kind::Unauthorized => 401,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::WrongMethod => 405,
            Kind::TooLong => 408,
            Kind::TooLarge => 413,
            Kind::WrongType => 415,
            Kind::Busy(_) => 429,
            Kind::Stopping => 503,
            Kind::Internal => 500,
        }
    }

    /// A short name for programs.
    pub fn code(&self) -> &'static str {
        match self.kind {
            Kind::Invalid => "invalid_value",
            Kind::Unauthorized => "invalid_api_key",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not_found",
            Kind::WrongMethod => "method_not_allowed",
            Kind::TooLong => "timeout",
            Kind::TooLarge => "too_large",
            Kind::WrongType => "unsupported_media_type",
            Kind::Busy(_) => "queue_full",
            Kind::Stopping => "stopping",
            Kind::Internal => "internal_error",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Error> for Refusal {
    /// What the library says of a request; only what has to do with files and memory is our fault.
    fn from(error: Error) -> Self {
        let message = error.to_string().replace('\n', " ");
        match error {
            Error::Setting { key, .. } => Self::field(&key, message),
            Error::Unknown { kind, .. } => {
                Self::field(kind.split(' ').next().unwrap_or(&kind), message)
            }
            Error::Io { .. } => Self::internal(message),
            _ => Self::new(Kind::Invalid, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_s_errors_name_the_field() {
        let refused = Refusal::from(Error::setting("steps", "0, wanted 1 to 9"));
        assert_eq!((refused.status(), refused.param.as_deref()), (400, Some("steps")));
        let refused = Refusal::from(Error::unknown("sampler", "eular", ["euler"]));
        assert_eq!((refused.status(), refused.param.as_deref()), (400, Some("sampler")));
        assert!(refused.message.contains("euler"));
    }
}
