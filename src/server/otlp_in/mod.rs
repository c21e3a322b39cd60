//! OTLP from SDKs, profilers and Collectors, by gRPC and by HTTP, each on an address of its own.
//!
//! Comes in: export requests. Goes out: profiles and spans into the store, by the [`Intake`]; to the
//! client the answer in the form it asked in. Metrics and logs are answered with *unimplemented*. Never: a
//! request of someone who may not ask the server either (`server/layers`).

mod grpc;
mod http;

use std::sync::Arc;

use axum::Router;
use axum::middleware::map_response;

use super::{App, layers};

/// What is answered by gRPC.
pub fn grpc_router(app: &Arc<App>) -> Router {
    let router = layers::around_receiver(grpc::router().with_state(Arc::clone(app)), app);
    router.layer(map_response(grpc::as_status))
}

/// What is answered by HTTP.
pub fn http_router(app: &Arc<App>) -> Router {
    layers::around_receiver(http::router().with_state(Arc::clone(app)), app)
}

/// What is said of signals that are not taken in.
fn not_taken_in(signal: &str) -> String {
    format!("{signal} are not taken in, only profiles and traces are")
}
