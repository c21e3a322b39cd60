//! All routes, in one list: the router and `/openapi.json` are both made of it.

use std::sync::Arc;

use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::App;
use super::{api, debug_pprof, health, ui};

/// What `/openapi.json` says of the whole.
#[derive(OpenApi)]
#[openapi(info(
    title = "spanflame",
    description = "Where does the time go, and why was this request slow?",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Description;

/// The routes with their handlers, before the layers that every request goes through.
pub fn router(app: Arc<App>) -> Router {
    let (router, _description) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(health::routes())
        .merge(api::routes())
        .merge(ui::routes())
        .merge(debug_pprof::routes())
        .with_state(app)
        .split_for_parts();
    router
}
