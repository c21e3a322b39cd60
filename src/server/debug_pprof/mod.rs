//! `/debug/pprof/`: profiles by URL, as Go programs serve them, for `go tool pprof` and its like.
//!
//! Comes in: selectors, and either a range of what is stored or for how long to look on. Goes out: pprof,
//! or text with `debug=1`. `self/` is this process. Never: a sample of a capture in the store. Errors are
//! plain text with the header by which the tool knows that they are for a person ([`GoError`]).
//! `self_telemetry.debug: false` turns all of it off.

mod answer;
mod capture;
mod index;
mod legacy_text;
mod own;
mod own_heap;
mod own_profile;
mod own_threads;
mod profile;
mod symbol;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, App};
pub use answer::GoError;

/// Captures that may run at the same time (INTERFACE.md).
const CAPTURES_AT_ONCE: usize = 8;

/// What bounds captures.
#[derive(Debug)]
pub struct DebugState {
    /// Of other processes and of the host.
    pub captures: Arc<Semaphore>,
    /// Of this process: there is one timer.
    pub own_profile: Arc<Semaphore>,
}

impl Default for DebugState {
    fn default() -> Self {
        Self {
            captures: Arc::new(Semaphore::new(CAPTURES_AT_ONCE)),
            own_profile: Arc::new(Semaphore::new(1)),
        }
    }
}

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(index::without_slash))
        .routes(routes!(index::index))
        .routes(routes!(index::others))
        .routes(routes!(profile::profile))
        .routes(routes!(symbol::symbol, symbol::post_symbol))
        .routes(routes!(own::cmdline))
        .routes(routes!(own::own_cmdline))
        .routes(routes!(own::own_profile))
        .routes(routes!(own::own_heap))
        .routes(routes!(own::own_threads))
        .routes(routes!(symbol::own_symbol, symbol::post_own_symbol))
        .routes(routes!(own::own_others))
}

/// That the configuration has `/debug/` on: handlers take it first.
#[derive(Debug)]
pub struct DebugIsOn;

impl FromRequestParts<Arc<App>> for DebugIsOn {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if app.configuration().self_telemetry.debug {
            return Ok(Self);
        }
        Err(ApiError::not_found("self_telemetry.debug is off, and /debug/ with it"))
    }
}
