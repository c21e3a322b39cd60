//! `/debug/vars`: how this process was started and what memory it has, with the keys of Go's expvar.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::{ApiError, App};
use crate::metrics::memory;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(vars))
}

/// Facts of this process.
#[derive(Debug, Serialize, ToSchema)]
struct Variables {
    /// Program and arguments; there is no argument that takes a secret.
    cmdline: Vec<String>,
    memstats: MemoryStatistics,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
struct MemoryStatistics {
    /// Bytes that are allocated now.
    alloc: u64,
    /// Bytes that were ever allocated.
    total_alloc: u64,
    /// Bytes that the allocator has of the system.
    sys: u64,
}

/// How this process was started and what memory it has
#[utoipa::path(get, path = "/debug/vars", tag = "debug", responses(
    (status = 200, body = Variables),
    (status = 404, description = "`self_telemetry.debug` is false.", body = ErrorBody),
))]
async fn vars(State(app): State<Arc<App>>) -> Result<Json<Variables>, ApiError> {
    app.debug_is_on()?;
    let heap = memory::heap();
    Ok(Json(Variables {
        cmdline: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        memstats: MemoryStatistics {
            alloc: heap.allocated_bytes,
            total_alloc: memory::ever_allocated_bytes(),
            sys: heap.system_bytes,
        },
    }))
}
