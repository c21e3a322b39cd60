//! `/api/v1/services` and `/api/v1/profiles/types`: what there is to ask for.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{Download, accepts_gzip};
use super::moment::{now_unix_ns, rfc3339};
use super::parameters::Parameters;
use super::question::catch_up;
use super::selector::{RANGE, RangeParameters, range};
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};
use crate::store::TimeRange;

/// Services with samples in a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct Services {
    /// By name.
    services: Vec<Service>,
    /// Start of the range that was asked for, RFC 3339.
    from: String,
    /// Its end.
    to: String,
}

/// A service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Service {
    /// Its name; empty for samples of none, such as those of kernel threads.
    name: String,
    /// Samples of all types.
    samples: i64,
    /// Names of the types it has.
    types: Vec<String>,
}

/// Types of which there are profiles in a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProfileTypes {
    /// Those that a profile shows by default come first.
    types: Vec<ProfileTypeName>,
    /// Start of the range that was asked for, RFC 3339.
    from: String,
    /// Its end.
    to: String,
}

/// A type.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProfileTypeName {
    /// Name, as `type=` takes it.
    name: String,
    /// Unit of its values.
    unit: String,
    /// Whether it is what a profile shows by default.
    default: bool,
}

/// Services that have samples in the range
#[utoipa::path(
    get, path = "/api/v1/services", tag = "profiles", params(RangeParameters),
    responses(
        (status = 200, body = Services),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn services(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let range = range_only(query.as_deref())?;
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |_| {
            catch_up(&asked, range);
            let mut kept = asked.store.services(range)?;
            // What has no name, the kernel's threads mostly, comes last.
            kept.sort_by_key(|service| service.name.is_empty());
            let services = kept.into_iter().map(|service| Service {
                name: service.name,
                samples: service.samples,
                types: service.types.into_iter().map(|value_type| value_type.kind).collect(),
            });
            let (from, to) = (rfc3339(range.from_unix_ns), rfc3339(range.to_unix_ns));
            Ok(Download::json(&Services { services: services.collect(), from, to }).compress(gzip))
        })
        .await
}

/// Types of which there are profiles in the range
#[utoipa::path(
    get, path = "/api/v1/profiles/types", tag = "profiles", params(RangeParameters),
    responses(
        (status = 200, body = ProfileTypes),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn types(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let range = range_only(query.as_deref())?;
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |_| {
            catch_up(&asked, range);
            let kept = asked.store.types(range)?;
            let types = kept.into_iter().map(|kept| ProfileTypeName {
                name: kept.value_type.kind,
                unit: kept.value_type.unit,
                default: kept.is_default,
            });
            let (from, to) = (rfc3339(range.from_unix_ns), rfc3339(range.to_unix_ns));
            Ok(Download::json(&ProfileTypes { types: types.collect(), from, to }).compress(gzip))
        })
        .await
}

fn range_only(query: Option<&str>) -> Result<TimeRange, ApiError> {
    range(&Parameters::parse(query, &[RANGE])?, now_unix_ns())
}
