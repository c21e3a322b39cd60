//! What every request goes through on its way to a handler: one small file a layer.
//!
//! Comes in: requests of anybody. Goes out: to the handlers, requests of those who may ask; to the others,
//! errors of the usual form. Never: what a single route is about. All read the configuration at each request,
//! so that a reload works.
//!
//! From the outside in: counting, headers, the form of errors, panics, compression, other origins (their
//! answer to a browser that asks beforehand carries no token), the rate, the host, the origin, the token, the
//! time.

mod authentication;
mod cors;
mod error_body;
mod host;
mod origin;
mod rate_limit;
mod request_counts;
mod security_headers;
mod time_limit;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::middleware::{from_fn, from_fn_with_state};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};

pub use request_counts::{RequestCounts, RouteSnapshot};

use super::App;

/// The one path that is open to all.
pub const OPEN_PATH: &str = "/healthz";
/// What a request may carry where its route does not say otherwise.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Below this, compression saves nothing.
const MIN_COMPRESSED_BYTES: u64 = 512;

/// Puts the layers around the routes.
pub fn around(router: Router, app: &Arc<App>) -> Router {
    let is_worth_it = SizeAbove::new(MIN_COMPRESSED_BYTES).and(is_compressible);
    router
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(time_limit::time_limit))
        .layer(from_fn_with_state(Arc::clone(app), authentication::authentication))
        .layer(from_fn_with_state(Arc::clone(app), origin::origin))
        .layer(from_fn_with_state(Arc::clone(app), host::host))
        .layer(from_fn_with_state(rate_limit::Limited::new(Arc::clone(app)), rate_limit::rate_limit))
        .layer(from_fn_with_state(Arc::clone(app), cors::cors))
        .layer(CompressionLayer::new().compress_when(is_worth_it))
        .layer(CatchPanicLayer::custom(error_body::of_panic))
        .layer(from_fn(error_body::error_body))
        .layer(from_fn(security_headers::security_headers))
        .layer(from_fn_with_state(Arc::clone(app), request_counts::request_counts))
}

/// Puts around the receivers of OTLP what decides who may ask, as the server itself does.
pub fn around_receiver(router: Router, app: &Arc<App>) -> Router {
    router
        .layer(from_fn_with_state(Arc::clone(app), authentication::authentication))
        .layer(from_fn_with_state(Arc::clone(app), origin::origin))
        .layer(from_fn_with_state(Arc::clone(app), host::host))
        .layer(CatchPanicLayer::custom(error_body::of_panic))
}

/// Text of some kind. What handlers have compressed themselves says so and is let be.
fn is_compressible(_: StatusCode, _: Version, headers: &HeaderMap, _: &axum::http::Extensions) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.starts_with("text/")
        || ["application/json", "application/openmetrics-text", "image/svg+xml"].contains(&kind)
        || kind.starts_with("application/vnd.spanflame")
}

#[cfg(test)]
mod tests {
    use crate::config::{Configuration, Sources};

    /// The configuration of a file with this text.
    pub fn configuration(text: &str) -> Configuration {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it is ours");
        let loaded = Sources::of_process(Some(file.path().to_owned())).load();
        loaded.unwrap_or_else(|errors| panic!("{text}: {errors}")).configuration
    }
}
