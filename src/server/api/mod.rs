//! `/api/v1`: what was stored, as lists, tables, time lines and flame graphs.
//!
//! Comes in: selectors and ranges ([`selector`]). Goes out: JSON in the shapes of INTERFACE.md, and every
//! format of `export/`. Never: samples that are taken for a request (that is `debug_pprof/`); a query
//! outside of [`gate`], which bounds how many run at once.

mod body;
pub mod flamegraph;
mod functions;
pub mod gate;
mod lists;
pub mod moment;
pub mod parameters;
pub mod presence;
mod profile_spans;
pub mod question;
pub mod selector;
mod span_filter;
mod span_flamegraph;
mod timeline;
mod top;
pub mod traces;
mod verdicts;
mod windows;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
pub use body::{Download, accepts_gzip, complete_share};
pub use gate::QueryGate;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(lists::services))
        .routes(routes!(lists::types))
        .routes(routes!(top::top))
        .routes(routes!(timeline::timeline))
        .routes(routes!(windows::windows))
        .routes(routes!(flamegraph::flamegraph))
        .routes(routes!(verdicts::verdicts))
        .routes(routes!(traces::traces))
        .routes(routes!(traces::trace))
        .routes(routes!(traces::spans))
        .routes(routes!(span_flamegraph::span_flamegraph))
        .routes(routes!(profile_spans::profile_spans))
}
