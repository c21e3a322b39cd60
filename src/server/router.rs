//! All routes, in one list: the router and `/openapi.json` are both made of it.

use std::sync::Arc;

use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::{
    App, admin, api, configuration, debug_pprof, debug_vars, health, layers, metrics_page, openapi, status,
    ui, upload,
};

/// What `/openapi.json` says of the whole.
#[derive(OpenApi)]
#[openapi(info(
    title = "spanflame",
    description = "Where does the time go, and why was this request slow?",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Description;

/// The routes with their handlers, inside the layers that every request goes through.
///
/// # Errors
/// None that can happen: the description of the API cannot be written.
pub fn router(app: &Arc<App>) -> Result<Router, serde_json::Error> {
    let metrics_path = app.configuration().self_telemetry.path.clone();
    let (router, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(health::routes())
        .merge(status::routes())
        .merge(configuration::routes())
        .merge(admin::routes())
        .merge(debug_vars::routes())
        .merge(api::routes())
        .merge(upload::routes())
        .merge(ui::routes())
        .merge(debug_pprof::routes())
        .split_for_parts();
    description.merge(metrics_page::routes().into_openapi());
    let router = router
        .merge(metrics_page::at(metrics_path.as_str()))
        .merge(openapi::route(description, &metrics_path)?);
    Ok(layers::around(router.with_state(Arc::clone(app)), app))
}
