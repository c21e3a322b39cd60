//! Without authentication, only names that are surely ours are answered to.
//!
//! A page whose own name its owner makes resolve to 127.0.0.1 (DNS rebinding) is of the same origin as we are
//! to the browser, and could read everything. Its requests carry that name in `Host`. So without a token the
//! host is `localhost`, an IP address or a name of `self_telemetry.allowed_hosts`. With a token the page
//! has none to send.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::SelfTelemetry;
use crate::server::{ApiError, App};

/// Refuses names that are not ours.
pub async fn host(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match check(&app.configuration().self_telemetry, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(host) => ApiError::new(
            StatusCode::FORBIDDEN,
            "without authentication this server answers to localhost, IP addresses and the names in \
             self_telemetry.allowed_hosts only",
        )
        .with_detail("host", host)
        .into_response(),
    }
}

/// The name that is not ours is the error.
fn check(self_telemetry: &SelfTelemetry, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
    if self_telemetry.auth.enabled {
        return Ok(());
    }
    let of_headers = headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or_default());
    let names: Vec<&str> =
        of_headers.chain(uri.authority().map(axum::http::uri::Authority::as_str)).collect();
    if names.is_empty() {
        return Err(String::new());
    }
    match names.iter().find(|name| !is_ours(self_telemetry, name)) {
        None => Ok(()),
        Some(name) => Err((*name).to_owned()),
    }
}

fn is_ours(self_telemetry: &SelfTelemetry, authority: &str) -> bool {
    let Some(host) = without_port(authority) else { return false };
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost"
        || name.parse::<Ipv4Addr>().is_ok()
        || self_telemetry.allowed_hosts.iter().any(|allowed| allowed.as_str() == name)
}

/// `HOST` of `HOST[:PORT]`; nothing if the port is none.
fn without_port(authority: &str) -> Option<&str> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            port.bytes().all(|byte| byte.is_ascii_digit()).then_some(host)
        }
        _ => Some(authority),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn answers(configuration: &str, hosts: &[&str], target: &str) -> bool {
        let self_telemetry = super::super::tests::configuration(configuration).self_telemetry;
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).expect("visible"));
        }
        check(&self_telemetry, &target.parse().expect("a target"), &headers).is_ok()
    }

    #[test]
    fn localhost_and_addresses_are_ours_and_other_names_are_not() {
        for host in
            ["localhost", "localhost:19090", "LOCALHOST.", "127.0.0.1:19090", "10.1.2.3", "[::1]", "[::1]:80"]
        {
            assert!(answers("", &[host], "/"), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:19090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "x@localhost",
            "localhost@evil.example",
            "[::1",
            "::1",
            "[::1].evil",
            "127.1",
            "0x7f000001",
            "localhost:evil",
            "[localhost]",
        ] {
            assert!(!answers("", &[host], "/"), "{host}");
        }
        assert!(!answers("", &[], "/"), "no Host at all");
    }

    #[test]
    fn every_name_in_a_request_must_be_ours() {
        assert!(!answers("", &["localhost", "evil.example"], "/"));
        assert!(!answers("", &["localhost"], "http://evil.example/"));
        assert!(answers("", &["localhost"], "http://127.0.0.1/"));
    }

    #[test]
    fn allowed_names_are_ours_and_with_authentication_all_are() {
        let allowed = "self_telemetry: {allowed_hosts: [spanflame.example.com]}\n";
        assert!(answers(allowed, &["SpanFlame.example.com:443"], "/"));
        assert!(!answers(allowed, &["x.spanflame.example.com"], "/"));
        let auth = "self_telemetry: {auth: {enabled: true, bearer_token: x}}\n";
        assert!(answers(auth, &["anything"], "/"));
    }
}
