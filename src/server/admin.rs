//! `/admin/reload` and `/admin/flush`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::reload::ReloadError;
use super::{ApiError, App, off_the_executor};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(reload)).routes(routes!(flush))
}

/// What a reload has done.
#[derive(Debug, Serialize, ToSchema)]
struct ReloadAnswer {
    /// `ok`.
    status: &'static str,
    /// For a person.
    message: String,
    details: ReloadDetails,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReloadDetails {
    /// Keys that have another value now.
    changed: Vec<String>,
    /// Keys that are changed in the file and take a restart.
    need_restart: Vec<String>,
    /// What is right and yet probably not meant.
    warnings: Vec<String>,
}

/// Reads the configuration again
///
/// A configuration that is wrong changes nothing. `SIGHUP` does the same.
#[utoipa::path(post, path = "/admin/reload", tag = "admin", responses(
    (status = 200, body = ReloadAnswer),
    (status = 400, description = "The configuration is wrong; the old one is in effect.", body = ErrorBody),
    (status = 500, description = "It could not be applied; the old one is in effect.", body = ErrorBody),
))]
async fn reload(State(app): State<Arc<App>>) -> Result<Json<ReloadAnswer>, ApiError> {
    let result = off_the_executor(move || app.reload_and_log()).await?;
    let reloaded = result.map_err(|error| match error {
        ReloadError::Wrong(errors) => {
            let problems: Vec<String> = errors.problems.iter().map(ToString::to_string).collect();
            ApiError::new(StatusCode::BAD_REQUEST, errors.to_string()).with_detail("errors", problems)
        }
        ReloadError::Export(_) => ApiError::new(StatusCode::BAD_REQUEST, error.to_string()),
        ReloadError::Store(_) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    })?;
    let mut message = "Configuration reloaded".to_owned();
    if !reloaded.need_restart.is_empty() {
        message.push_str("; a restart is needed for ");
        message.push_str(&reloaded.need_restart.join(", "));
    }
    let (changed, need_restart, warnings) = (reloaded.changed, reloaded.need_restart, reloaded.warnings);
    Ok(Json(ReloadAnswer {
        status: "ok",
        message,
        details: ReloadDetails { changed, need_restart, warnings },
    }))
}

/// What a flush has sent.
#[derive(Debug, Serialize, ToSchema)]
struct FlushAnswer {
    /// `ok`.
    status: &'static str,
    flushed: FlushedCounts,
}

#[derive(Debug, Serialize, ToSchema)]
struct FlushedCounts {
    /// Spans that were exported.
    traces: u64,
    /// Metrics that were exported.
    metrics: u64,
    /// Logs that were exported: none.
    logs: u64,
    /// Profiles that were exported.
    profiles: u64,
    /// Windows that were open or waited, and are in the store now.
    windows: u64,
}

/// Empties all queues
///
/// When it answers, everything that was sampled before can be queried, and what waited for export was sent.
#[utoipa::path(post, path = "/admin/flush", tag = "admin", responses(
    (status = 200, body = FlushAnswer),
    (status = 503, description = "The open window, or spans that wait, could not be kept in time.", body = ErrorBody),
))]
async fn flush(State(app): State<Arc<App>>) -> Result<Json<FlushAnswer>, ApiError> {
    off_the_executor(move || {
        let exported = app.export_status();
        let mut windows = 0;
        if let Some(recorder) = &app.recorder {
            let before = recorder.status().kept_windows;
            recorder.flush().map_err(|error| ApiError::unavailable(error.to_string(), 10))?;
            windows = recorder.status().kept_windows.saturating_sub(before);
        }
        let is_traced = app.tracer.as_ref().is_none_or(|tracer| tracer.flush());
        if !is_traced || !app.spans.flush() {
            return Err(ApiError::unavailable("spans that wait could not be kept in time", 10));
        }
        let flushed = app.flush_exports(&exported);
        let (traces, metrics, profiles) = (flushed.traces, flushed.metrics, flushed.profiles);
        Ok(Json(FlushAnswer {
            status: "ok",
            flushed: FlushedCounts { traces, metrics, logs: 0, profiles, windows },
        }))
    })
    .await?
}
