//! Requests that change something are refused when a page of another origin sends them.
//!
//! A browser sends some of them without asking first, and adds the credentials it remembers for us; so this
//! holds with authentication too. Browsers name the page in `Origin`; programs do not send one.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::Cors;
use crate::server::{ApiError, App};

/// Refuses what pages of other origins send.
pub async fn origin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let configuration = app.configuration();
    if only_reads || is_permitted(&configuration.self_telemetry.cors, request.headers()) {
        return next.run(request).await;
    }
    ApiError::new(
        StatusCode::FORBIDDEN,
        "a page of another origin may not send this; self_telemetry.cors.allowed_origins permits origins",
    )
    .into_response()
}

fn is_permitted(cors: &Cors, headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter().map(|value| value.to_str().unwrap_or("null"));
    origins.all(|origin| super::cors::is_allowed(cors, origin) || is_own(origin, headers))
}

/// Whether the page is one of ours: its origin is the host that the request names.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port_that_goes_without_saying = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let host = host.strip_suffix(port_that_goes_without_saying).unwrap_or(host);
    authority.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn permitted(cors: &str, host: &str, origins: &[&str]) -> bool {
        let text = format!("self_telemetry: {{cors: {cors}, auth: {{enabled: true, bearer_token: x}}}}\n");
        let configuration = super::super::tests::configuration(&text);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("visible"));
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_str(origin).expect("visible"));
        }
        is_permitted(&configuration.self_telemetry.cors, &headers)
    }

    #[test]
    fn programs_and_our_own_page_may_send_and_others_may_not() {
        let nobody = "{}";
        assert!(permitted(nobody, "localhost:19090", &[]));
        assert!(permitted(nobody, "localhost:19090", &["http://localhost:19090"]));
        assert!(permitted(nobody, "sf.example", &["https://sf.example"]), "behind a proxy that speaks TLS");
        assert!(permitted(nobody, "sf.example:443", &["https://sf.example"]));
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://localhost",
            "http://localhost:3000",
            "http://localhost:19090.evil.example",
            "file://localhost:19090",
            "localhost:19090",
        ] {
            assert!(!permitted(nobody, "localhost:19090", &[origin]), "{origin}");
        }
        assert!(!permitted(nobody, "localhost:1", &["http://localhost:1", "http://evil.example"]));
    }

    #[test]
    fn origins_that_may_read_may_send() {
        let cors = "{enabled: true, allowed_origins: ['http://localhost:3000']}";
        assert!(permitted(cors, "localhost:19090", &["http://localhost:3000"]));
        assert!(!permitted(cors, "localhost:19090", &["http://localhost:3001"]));
    }
}
