//! `/openapi.json`: the description of the API, made of the routes themselves.
//!
//! What every route has in common (who may ask, what the layers answer) is added here, so that no handler
//! has to repeat it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::routing::get;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, Header, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::error::ErrorBody;
use super::layers::OPEN_PATH;
use super::{App, metrics_page};
use crate::config::UrlPath;

/// Where the description is.
const PATH: &str = "/openapi.json";
/// What the layers answer instead of a route: status, what it means, and the header that goes with it.
const OF_LAYERS: [(u16, &str, Option<&str>); 7] = [
    (400, "What was asked cannot be understood.", None),
    (401, "Authentication is needed.", Some("WWW-Authenticate")),
    (403, "The host or the origin is not one that may ask.", None),
    (413, "The body is too large.", None),
    (429, "There are too many requests.", Some("Retry-After")),
    (500, "spanflame has failed.", None),
    (503, "Not now.", Some("Retry-After")),
];

/// The description as it is served. It says what is needed at present, and authentication can be turned on
/// and off by a reload, so there are two.
struct Descriptions {
    open: String,
    with_token: String,
}

/// The route that serves the description, which is completed for that; it is not in it.
///
/// # Errors
/// None that can happen: the description is plain data.
pub fn route(api: OpenApi, metrics_path: &UrlPath) -> Result<Router<Arc<App>>, serde_json::Error> {
    let descriptions = Arc::new(Descriptions {
        open: complete(api.clone(), metrics_path, false).to_pretty_json()?,
        with_token: complete(api, metrics_path, true).to_pretty_json()?,
    });
    let answer = move |State(app): State<Arc<App>>| async move {
        let text = match app.configuration().self_telemetry.auth.enabled {
            true => descriptions.with_token.clone(),
            false => descriptions.open.clone(),
        };
        ([(header::CONTENT_TYPE, "application/json")], text)
    };
    Ok(Router::new().route(PATH, get(answer)))
}

fn complete(mut api: OpenApi, metrics_path: &UrlPath, needs_token: bool) -> OpenApi {
    api.info.version = env!("CARGO_PKG_VERSION").to_owned();
    if let Some(metrics) = api.paths.paths.remove(metrics_page::PATH) {
        api.paths.paths.insert(metrics_path.to_string(), metrics);
    }
    let components = api.components.get_or_insert_with(Components::new);
    components.schemas.insert(ErrorBody::name().into_owned(), ErrorBody::schema());
    if needs_token {
        for (name, scheme) in [("bearer", HttpAuthScheme::Bearer), ("basic", HttpAuthScheme::Basic)] {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
    }
    for (path, item) in &mut api.paths.paths {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete, &mut item.head];
        for operation in operations.into_iter().flatten() {
            complete_operation(operation, path == OPEN_PATH, needs_token);
        }
    }
    api
}

fn complete_operation(operation: &mut Operation, is_open: bool, needs_token: bool) {
    if needs_token && !is_open {
        let requirement = |name| SecurityRequirement::new::<_, [String; 0], String>(name, []);
        // Either of them.
        operation.security = Some(vec![requirement("bearer"), requirement("basic")]);
    }
    for (status, description, header) in OF_LAYERS {
        if is_open && [401, 429].contains(&status) {
            continue;
        }
        let reference = RefOr::Ref(Ref::from_schema_name(ErrorBody::name()));
        let mut response = ResponseBuilder::new()
            .description(description)
            .content("application/json", Content::new(Some(reference)));
        if let Some(header) = header {
            response = response.header(header, Header::new(String::schema()));
        }
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_string()).or_insert_with(|| RefOr::T(response.build()));
    }
}
