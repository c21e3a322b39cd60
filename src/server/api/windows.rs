//! `/api/v1/profiles/windows`: which windows have something of what is selected, and how much.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{Download, accepts_gzip};
use super::moment::rfc3339;
use super::parameters::Parameters;
use super::question::{Question, nothing};
use super::selector::{RANGE, RangeParameters, SELECTORS, SelectorParameters};
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};

/// The windows that have something of what is selected.
#[derive(Debug, Serialize, ToSchema)]
pub struct WindowsBody {
    /// What is counted (`cpu`).
    r#type: String,
    /// Its unit (`nanoseconds`).
    unit: String,
    /// Start of the range that was asked for, RFC 3339.
    from: String,
    /// Its end.
    to: String,
    /// By time. Uploads may overlap each other and what was recorded here.
    windows: Vec<Window>,
}

/// A window: to ask for this range is to ask for it, and for those that it overlaps.
#[derive(Debug, Serialize, ToSchema)]
pub struct Window {
    /// Its start, RFC 3339.
    from: String,
    /// Its end.
    to: String,
    /// How much it has.
    value: i64,
}

/// The windows that have something of what is selected
///
/// What the recorder keeps has windows of ten seconds, or shorter where a query or a flush has cut them; each upload is
/// a window.
#[utoipa::path(
    get, path = "/api/v1/profiles/windows", tag = "profiles",
    params(SelectorParameters, RangeParameters),
    responses(
        (status = 200, body = WindowsBody),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 404, description = "There was no such thing in the range", body = ErrorBody),
        (status = 413, description = "More windows than can be listed", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn windows(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &[SELECTORS, RANGE])?;
    let question = Question::new(&parameters)?;
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |cancelled| {
            let found = question.windows(&asked, cancelled)?;
            let Question { selector, range } = question;
            let value_type = found.value_type.or_else(|| {
                let empty = nothing(&selector, range);
                empty.value_types.get(empty.default_value).cloned()
            });
            let windows = found.windows.iter().map(|window| Window {
                from: rfc3339(window.start_unix_ns),
                to: rfc3339(window.start_unix_ns.saturating_add(window.duration_ns)),
                value: window.value,
            });
            let body = WindowsBody {
                r#type: value_type.as_ref().map_or(selector.profile_type, |it| it.kind.clone()),
                unit: value_type.map(|it| it.unit).unwrap_or_default(),
                from: rfc3339(range.from_unix_ns),
                to: rfc3339(range.to_unix_ns),
                windows: windows.collect(),
            };
            Ok(Download::json(&body).covering(found.coverage, None).compress(gzip))
        })
        .await
}
