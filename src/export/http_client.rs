//! What requests to other servers by HTTP have in common: how a connection is made, and how its failures read.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;

/// Who we are.
pub const USER_AGENT: &str = concat!("spanflame/", env!("CARGO_PKG_VERSION"));

/// TLS cannot be spoken here, and why.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be spoken: {0}; see the package ca-certificates")]
pub struct NoTls(pub String);

/// Makes connections for HTTP/1, by TLS only if `tls`. Servers are trusted whom the system trusts.
///
/// # Errors
/// [`NoTls`]: there are no certificates to compare a server's with.
pub fn connector(tls: bool, connect_timeout: Duration) -> Result<HttpsConnector<HttpConnector>, NoTls> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    let builder = HttpsConnectorBuilder::new();
    let builder = match tls {
        true => builder
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| NoTls(error.to_string()))?
            .https_only(),
        // No certificate is looked at: none need be there.
        false => builder.with_tls_config(without_roots()?).https_or_http(),
    };
    Ok(builder.enable_http1().wrap_connector(connector))
}

/// The configuration of a client that will not speak TLS.
fn without_roots() -> Result<rustls::ClientConfig, NoTls> {
    Ok(rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| NoTls(error.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// Text of the other side on one line, not too long: it goes into logs and answers of ours.
#[must_use]
pub fn one_line(text: &str) -> String {
    const LIMIT: usize = 300;
    let clean = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    let mut line: String = clean.take(LIMIT + 1).collect();
    if line.chars().count() > LIMIT {
        line.pop();
        line.push('…');
    }
    line.trim().to_owned()
}

/// The innermost reason of an error: "connection refused" rather than "transport error".
#[must_use]
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            if let Some(inner) = error.get_ref() {
                cause = inner;
                continue;
            }
            return io_reason(error);
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return one_line(&cause.to_string()),
        }
    }
}

/// A system error in the words of INTERFACE.md.
#[must_use]
pub fn io_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => one_line(&error.to_string()),
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}
