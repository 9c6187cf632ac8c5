//! Who may ask at all.
//!
//! A page of a stranger that is open in a browser on this machine can reach a server on loopback. It
//! cannot set another host, cannot hide its origin, and cannot send JSON without asking first; so
//! the host must be ours, the origin ours or allowed, and what changes something must be JSON or a
//! form with files. (A request to change something that has no body at all, as clients of A1111 send
//! to interrupt, must come from no page: browsers name the origin of every such request.)

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::{Result, Shared};
use crate::refusal::{Kind, Refusal};
use crate::settings::Settings;

/// Paths that tell nothing that is worth a key: the page itself, and whether the server is up.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/healthz" | "/readyz") || super::page::is_asset(path)
}

pub(crate) async fn guard(State(service): State<Shared>, request: Request, next: Next) -> Response {
    let settings = &service.settings;
    let origin = text(request.headers(), &header::ORIGIN);
    let allowed = origin.filter(|o| settings.origins.iter().any(|a| a == o)).map(str::to_owned);
    if let Err(refusal) = check(settings, request.method(), request.uri(), request.headers()) {
        return refusal.into_response();
    }
    if request.method() == Method::OPTIONS {
        return preflight(allowed.as_deref());
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(origin) = allowed.and_then(|o| HeaderValue::from_str(&o).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn preflight(allowed: Option<&str>) -> Response {
    let Some(origin) = allowed.and_then(|o| HeaderValue::from_str(o).ok()) else {
        return Refusal::new(Kind::Forbidden, "no page of this origin may use the server")
            .into_response();
    };
    let mut response = ().into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-client-id"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
        (header::VARY, "Origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn check(settings: &Settings, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<()> {
    let forbidden = |why: String| Err(Refusal::new(Kind::Forbidden, why));
    let host = text(headers, &header::HOST).or_else(|| uri.authority().map(|a| a.as_str()));
    let Some(host) = host else { return forbidden("the request names no host".into()) };
    let name = without_port(host);
    if !is_ours(settings, name) {
        let shown: String = name.chars().take(64).collect();
        return forbidden(format!("`{shown}` is no name of this server; --allow-host adds one"));
    }
    if let Some(origin) = text(headers, &header::ORIGIN) {
        let same = origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host));
        if !same && !settings.origins.iter().any(|o| o == origin) {
            return forbidden("no page of another origin may use the server".into());
        }
    } else if headers.contains_key(header::ORIGIN) {
        return forbidden("the origin is no text".into());
    }
    if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        let kind = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let empty = !headers.contains_key(header::CONTENT_TYPE)
            && !headers.contains_key(header::ORIGIN)
            && !headers.contains_key(header::TRANSFER_ENCODING)
            && text(headers, &header::CONTENT_LENGTH).is_none_or(|length| length == "0");
        if !empty && kind != "application/json" && kind != "multipart/form-data" {
            let why = format!(
                "the content type is `{kind:.64}`, wanted application/json or multipart/form-data"
            );
            return Err(Refusal::new(Kind::WrongType, why));
        }
    }
    match &settings.key {
        Some(key) if *method != Method::OPTIONS && !is_open(uri.path()) => {
            let given = text(headers, &header::AUTHORIZATION).unwrap_or_default();
            // Clients of A1111 send a name and a password.
            let password = given.strip_prefix("Basic ").and_then(|code| {
                let plain = String::from_utf8(STANDARD.decode(code).ok()?).ok()?;
                plain.split_once(':').map(|(_, password)| password.to_owned())
            });
            let given = given.strip_prefix("Bearer ").unwrap_or(password.as_deref().unwrap_or(""));
            match bool::from(given.as_bytes().ct_eq(key.as_bytes())) {
                true => Ok(()),
                false => {
                    let why = "the key is missing or wrong; wanted `Authorization: Bearer KEY`";
                    Err(Refusal::new(Kind::Unauthorized, why))
                }
            }
        }
        _ => Ok(()),
    }
}

/// `name:port` and `[::1]:port` without the port.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, _)) => inner,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_ours(settings: &Settings, name: &str) -> bool {
    let ours = settings.host.to_string();
    ["localhost", "127.0.0.1", "::1", &ours].iter().any(|n| name.eq_ignore_ascii_case(n))
        || settings.hosts.iter().any(|n| name.eq_ignore_ascii_case(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(settings: &Settings, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        check(settings, &method, &path.parse().unwrap(), &map).map_or_else(|r| r.status(), |()| 200)
    }

    #[test]
    fn hosts_origins_and_content_types_are_looked_at() {
        let settings = Settings {
            hosts: vec!["pictures.example".into()],
            origins: vec!["https://app.example".into()],
            ..Settings::default()
        };
        let get = |headers: &[(&str, &str)]| status(&settings, "GET", "/api/v1/models", headers);
        for host in ["localhost:7860", "127.0.0.1", "[::1]:7860", "Pictures.example:80"] {
            assert_eq!(get(&[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:7860", "[::2]:7860", ""] {
            assert_eq!(get(&[("host", host)]), 403, "{host}");
        }
        assert_eq!(get(&[]), 403);
        let from = |origin| get(&[("host", "localhost:7860"), ("origin", origin)]);
        assert_eq!(from("http://localhost:7860"), 200);
        assert_eq!(from("https://app.example"), 200);
        for origin in ["http://localhost:9000", "https://evil.example", "null"] {
            assert_eq!(from(origin), 403, "{origin}");
        }
        let post = |kind: &str| {
            let headers = [("host", "localhost:7860"), ("content-type", kind)];
            status(&settings, "POST", "/api/v1/jobs", &headers)
        };
        assert_eq!(post("application/json; charset=utf-8"), 200);
        assert_eq!(post("multipart/form-data; boundary=x"), 200);
        for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
            assert_eq!(post(kind), 415, "{kind}");
        }
        let bare = |more: &[(&str, &str)]| {
            let headers = [&[("host", "localhost:7860")], more].concat();
            status(&settings, "POST", "/sdapi/v1/interrupt", &headers)
        };
        assert_eq!(bare(&[("content-length", "0")]), 200);
        assert_eq!(bare(&[("content-length", "5")]), 415);
        assert_eq!(bare(&[("origin", "http://localhost:7860")]), 415, "a page sends a body");
    }

    #[test]
    fn a_key_is_wanted_where_there_is_one() {
        let settings = Settings { key: Some("secret".into()), ..Settings::default() };
        let get = |path: &str, key: &str| {
            let headers = [("host", "localhost"), ("authorization", key)];
            status(&settings, "GET", path, &headers)
        };
        assert_eq!(get("/api/v1/jobs", "Bearer secret"), 200);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(get("/sdapi/v1/samplers", &basic("anybody:secret")), 200);
        assert_eq!(get("/sdapi/v1/samplers", &basic("secret:other")), 401);
        for key in ["Bearer secre", "Bearer secrets", "", "Basic secret", "Basic !"] {
            assert_eq!(get("/api/v1/jobs", key), 401, "{key}");
        }
        assert_eq!(get("/", ""), 200);
        assert_eq!(get("/healthz", ""), 200);
        assert_eq!(get("/metrics", ""), 401);
    }
}
