//! `/healthz`: the process lives. `/ready`: it does what it is for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::exports::ExportHealth;
use super::{ApiError, App, off_the_executor};
use crate::profile::ProfilerState;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(ready))
}

/// That the process lives.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = Health)))]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether it does what it is for.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// `ready` or `not_ready`.
    status: &'static str,
    checks: Checks,
}

/// Each is `ok`, `disabled`, which does not hold readiness back, or `failed: ` and the reason.
#[derive(Debug, Serialize, ToSchema)]
struct Checks {
    /// Whether samples are taken.
    ebpf: String,
    /// Whether what is exported is taken.
    otlp: String,
    /// Whether processes and their services can be seen.
    discovery: String,
}

/// Whether it does what it is for
#[utoipa::path(get, path = "/ready", tag = "health", responses(
    (status = 200, description = "Every check is `ok` or `disabled`.", body = Readiness),
    (status = 503, description = "A check has failed.", body = Readiness),
))]
async fn ready(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let checks = off_the_executor(move || [ebpf(&app), otlp(app.export_health()), discovery()]).await?;
    let is_ready = !checks.iter().any(|check| check.starts_with("failed"));
    let [ebpf, otlp, discovery] = checks;
    let (code, status) =
        if is_ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    let body = Readiness { status, checks: Checks { ebpf, otlp, discovery } };
    let mut response = (code, Json(body)).into_response();
    if !is_ready {
        response.headers_mut().insert(axum::http::header::RETRY_AFTER, axum::http::HeaderValue::from(5));
    }
    Ok(response)
}

fn ebpf(app: &App) -> String {
    match app.recorder.as_ref().map(|recorder| recorder.status().profiler.state) {
        None | Some(ProfilerState::Paused) => "disabled".to_owned(),
        Some(ProfilerState::Running(_)) => "ok".to_owned(),
        Some(ProfilerState::Failed(reason)) => format!("failed: {reason}"),
    }
}

fn otlp(health: ExportHealth) -> String {
    match health {
        ExportHealth::Disabled => "disabled".to_owned(),
        ExportHealth::Ok => "ok".to_owned(),
        ExportHealth::Failed(reason) => format!("failed: {reason}"),
    }
}

/// Services are named from `/proc`.
fn discovery() -> String {
    match std::fs::read_dir("/proc").map(|mut entries| entries.next()) {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("failed: /proc: {error}"),
    }
}
