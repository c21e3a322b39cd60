//! `/config`: what is in effect, without its secrets.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, MODE};
use crate::config::Configuration;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(config))
}

/// The configuration, nested as in the file. Secrets read `[redacted]`.
#[derive(Serialize, ToSchema)]
struct Shown {
    /// `agent`.
    mode: &'static str,
    /// Every key with its value.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    configuration: Configuration,
}

/// The configuration that is in effect
#[utoipa::path(get, path = "/config", tag = "configuration", responses((status = 200, body = Shown)))]
async fn config(State(app): State<Arc<App>>) -> Json<Shown> {
    Json(Shown { mode: MODE, configuration: Configuration::clone(&app.configuration()) })
}
