//! `/api/v1/profiles/top`: the functions that took the most.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::body::{Download, accepts_gzip, complete_share};
use super::functions::functions;
use super::moment::rfc3339;
use super::parameters::Parameters;
use super::question::Question;
use super::selector::{RANGE, RangeParameters, SELECTORS, SelectorParameters};
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};
use crate::store::Detail;

const MOST_ROWS: u64 = 1_000_000;

/// How the table is described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct TopParameters {
    /// How many functions at most, those of the largest self value first; all by default.
    #[param(minimum = 1, maximum = 1_000_000)]
    limit: Option<u32>,
}

/// Functions with what they took.
#[derive(Debug, Serialize, ToSchema)]
pub struct Top {
    /// What is counted (`cpu`).
    r#type: String,
    /// Its unit (`nanoseconds`).
    unit: String,
    /// The sum of all samples, those without any frame included.
    total: i64,
    /// Start of what was covered, RFC 3339; of what was asked for if there was no window in it.
    from: String,
    /// Its end.
    to: String,
    /// Windows that were added up.
    windows: u64,
    /// The share of `total` whose stacks are complete; null without any samples.
    complete_share: Option<f64>,
    /// How many functions there are, shown or not.
    functions_total: usize,
    /// The largest self value first.
    functions: Vec<TopFunction>,
}

/// A function with what it took.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopFunction {
    /// Name, or `[module+0xoff]`.
    name: String,
    /// Source file, empty if unknown.
    file: String,
    /// The function's first line, 0 if unknown.
    line: u32,
    /// Path of the object.
    module: String,
    /// The value of stacks that end in it.
    #[serde(rename = "self")]
    value_self: i64,
    /// The value of stacks that it is on.
    total: i64,
}

/// The functions that took the most
///
/// `self` is the value of stacks that end in the function, `total` that of stacks that it is on, once each.
#[utoipa::path(
    get, path = "/api/v1/profiles/top", tag = "profiles",
    params(SelectorParameters, RangeParameters, TopParameters),
    responses(
        (status = 200, body = Top),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 404, description = "There was no such thing in the range", body = ErrorBody),
        (status = 413, description = "More than can be answered at once", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn top(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &[SELECTORS, RANGE, &["limit"]])?;
    let question = Question::new(&parameters)?;
    let limit = parameters.number("limit", 1, MOST_ROWS)?.unwrap_or(MOST_ROWS);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |cancelled| {
            let answer = question.ask(&asked, Detail::Keys(vec!["unwind".to_owned()]), cancelled)?;
            let profile = &answer.profile;
            let value = profile.default_value;
            let value_type = profile.value_types.get(value);
            let rows = functions(profile, value);
            cancelled.check()?;
            let complete_share = complete_share(profile, value);
            let (from, to) = match answer.coverage.windows {
                0 => (question.range.from_unix_ns, question.range.to_unix_ns),
                _ => (answer.coverage.from_unix_ns, answer.coverage.to_unix_ns),
            };
            let top = Top {
                r#type: value_type.map(|value_type| value_type.kind.clone()).unwrap_or_default(),
                unit: value_type.map(|value_type| value_type.unit.clone()).unwrap_or_default(),
                total: profile.total(value),
                from: rfc3339(from),
                to: rfc3339(to),
                windows: answer.coverage.windows,
                complete_share,
                functions_total: rows.len(),
                functions: rows
                    .into_iter()
                    .take(limit)
                    .map(|row| TopFunction {
                        name: row.function.name,
                        file: row.function.file,
                        line: row.function.line,
                        module: row.function.module,
                        value_self: row.value_self,
                        total: row.value_total,
                    })
                    .collect(),
            };
            Ok(Download::json(&top).covering(answer.coverage, complete_share).compress(gzip))
        })
        .await
}
