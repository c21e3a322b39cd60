//! Pages of other origins that may read answers, as configured. Credentials that a browser remembers are
//! never among what they may use: such a page sends the token itself.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::Cors;
use crate::server::App;

/// What a browser remembers of an answer to its question beforehand.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Says which pages may read. Made anew for each request, since a reload may change who that is.
pub async fn cors(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let configuration = app.configuration();
    let cors = configuration.self_telemetry.cors.clone();
    if !cors.enabled {
        return next.run(request).await;
    }
    let allow_origin = match cors.allowed_origins.iter().any(crate::config::WebOrigin::is_any) {
        true => AllowOrigin::any(),
        false => AllowOrigin::predicate(move |origin, _| {
            origin.to_str().is_ok_and(|origin| is_allowed(&cors, origin))
        }),
    };
    let layer = CorsLayer::new()
        .allow_origin(allow_origin)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::CONTENT_ENCODING])
        .expose_headers([
            header::RETRY_AFTER,
            header::CONTENT_DISPOSITION,
            HeaderName::from_static("x-go-pprof"),
            HeaderName::from_static("x-spanflame-covered-from"),
            HeaderName::from_static("x-spanflame-covered-to"),
            HeaderName::from_static("x-spanflame-covered-seconds"),
            HeaderName::from_static("x-spanflame-windows"),
            HeaderName::from_static("x-spanflame-complete-share"),
        ])
        .max_age(REMEMBERED);
    match layer.layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Whether a page of this origin may read.
pub(super) fn is_allowed(cors: &Cors, origin: &str) -> bool {
    cors.enabled && cors.allowed_origins.iter().any(|allowed| allowed.is_any() || allowed.as_str() == origin)
}
