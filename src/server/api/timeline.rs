//! `/api/v1/profiles/timeline`: a value by time.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::body::{Download, accepts_gzip};
use super::moment::{parse_duration, rfc3339};
use super::parameters::Parameters;
use super::presence;
use super::question::{Question, catch_up, nothing};
use super::selector::{RANGE, RangeParameters, SELECTORS, SelectorParameters};
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};
use crate::store::{MAX_POINTS, TimeRange};

const SECOND_NS: u64 = 1_000_000_000;
/// Steps to choose from, seconds: each divides the next or a day, so that points stand at round times.
const STEPS_S: [u64; 14] = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];
/// A time line of a step of our choice has at most so many points.
const CHOSEN_POINTS: u64 = 180;

/// How the steps are described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct TimelineParameters {
    /// Length of a step: seconds, or a number with a unit (`1m`, `500ms`). By default a round one that gives
    /// at most 180 points.
    #[param(pattern = "^([1-9][0-9]{0,6}|[1-9][0-9]{0,5}(ms|s|m|h|d|w))$")]
    step: Option<String>,
}

/// A value by time.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineBody {
    /// What is counted (`cpu`).
    r#type: String,
    /// Its unit (`nanoseconds`).
    unit: String,
    /// Length of a step, seconds.
    step_s: f64,
    /// Start of the first step, RFC 3339.
    from: String,
    /// End of the range that was asked for.
    to: String,
    /// One for each step, those without a value included.
    points: Vec<Point>,
}

/// A step.
#[derive(Debug, Serialize, ToSchema)]
pub struct Point {
    /// Its start, RFC 3339.
    time: String,
    /// The sum of the values in it.
    value: i64,
}

/// A value by time
///
/// Steps begin at multiples of their length. A window that spans several is divided among them by time.
#[utoipa::path(
    get, path = "/api/v1/profiles/timeline", tag = "profiles",
    params(SelectorParameters, RangeParameters, TimelineParameters),
    responses(
        (status = 200, body = TimelineBody),
        (status = 400, description = "A parameter is malformed, or the steps are too many", body = ErrorBody),
        (status = 404, description = "There was no such thing in the range", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn timeline(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &[SELECTORS, RANGE, &["step"]])?;
    let question = Question::new(&parameters)?;
    let step_ns = step(&parameters, question.range)?;
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |cancelled| {
            let Question { selector, range } = question;
            catch_up(&asked, range);
            cancelled.check()?;
            let aligned = aligned(range, step_ns);
            let timeline = asked.store.timeline(&selector, aligned, step_ns)?;
            if !timeline.matched {
                presence::check(&asked, &selector, range, timeline.coverage.windows)?;
            }
            let value_type = timeline.value_type.or_else(|| {
                let empty = nothing(&selector, range);
                empty.value_types.get(empty.default_value).cloned()
            });
            let starts = (0..).map(|step: u64| timeline.from_unix_ns.saturating_add(step * step_ns));
            let body = TimelineBody {
                r#type: value_type.as_ref().map_or(selector.profile_type, |it| it.kind.clone()),
                unit: value_type.map(|it| it.unit).unwrap_or_default(),
                step_s: step_ns as f64 / SECOND_NS as f64,
                from: rfc3339(timeline.from_unix_ns),
                to: rfc3339(range.to_unix_ns),
                points: starts
                    .zip(timeline.values)
                    .map(|(start, value)| Point { time: rfc3339(start), value })
                    .collect(),
            };
            Ok(Download::json(&body).covering(timeline.coverage, None).compress(gzip))
        })
        .await
}

fn step(parameters: &Parameters, range: TimeRange) -> Result<u64, ApiError> {
    let length_ns = range.to_unix_ns - range.from_unix_ns;
    let Some(text) = parameters.get("step") else {
        let enough = |step_s: &&u64| length_ns / (**step_s * SECOND_NS) < CHOSEN_POINTS;
        let longest = STEPS_S[STEPS_S.len() - 1];
        let days = || (length_ns / SECOND_NS / CHOSEN_POINTS / longest + 1) * longest;
        return Ok(STEPS_S.iter().find(enough).copied().unwrap_or_else(days) * SECOND_NS);
    };
    let seconds = text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let step_ns = seconds.and_then(|seconds| seconds.checked_mul(SECOND_NS)).or_else(|| parse_duration(text));
    let Some(step_ns) = step_ns.filter(|&step_ns| step_ns > 0) else {
        let message = format!("step: seconds, or a number with a unit (1m), are expected, not {text:?}");
        return Err(ApiError::invalid("step", message));
    };
    let steps = length_ns.div_ceil(step_ns).saturating_add(1);
    if steps > MAX_POINTS {
        let message = format!("step: that is {steps} steps; {MAX_POINTS} are the most");
        return Err(ApiError::invalid("step", message));
    }
    Ok(step_ns)
}

/// The range, begun at a multiple of the step.
fn aligned(range: TimeRange, step_ns: u64) -> TimeRange {
    TimeRange { from_unix_ns: range.from_unix_ns - range.from_unix_ns % step_ns, ..range }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(length_s: u64, query: &str) -> Result<u64, ApiError> {
        let parameters = Parameters::parse(Some(query), &[&["step"]]).unwrap();
        step(&parameters, TimeRange { from_unix_ns: 7, to_unix_ns: 7 + length_s * SECOND_NS })
    }

    #[test]
    fn steps_are_round_and_points_few() {
        for (length_s, step_s) in
            [(1, 10), (900, 10), (3600, 30), (86_400, 600), (7 * 86_400, 3600), (365 * 86_400, 3 * 86_400)]
        {
            assert_eq!(chosen(length_s, "").unwrap(), step_s * SECOND_NS, "{length_s}");
        }
        // Since 1970.
        let step_ns = chosen(1_800_000_000, "").unwrap();
        assert!(
            1_800_000_000 * SECOND_NS / step_ns <= CHOSEN_POINTS
                && step_ns.is_multiple_of(86_400 * SECOND_NS)
        );
    }

    #[test]
    fn a_step_is_seconds_or_a_stretch_of_time_and_never_nothing_nor_too_many() {
        assert_eq!(chosen(900, "step=15").unwrap(), 15 * SECOND_NS);
        assert_eq!(chosen(900, "step=1m").unwrap(), 60 * SECOND_NS);
        assert_eq!(chosen(900, "step=500ms").unwrap(), SECOND_NS / 2);
        for query in
            ["step=0", "step=", "step=0s", "step=x", "step=1ms", "step=-1m", "step=99999999999999999999"]
        {
            assert_eq!(chosen(900, query).unwrap_err().status(), 400, "{query}");
        }
    }

    #[test]
    fn a_range_begins_at_a_step_and_keeps_its_end() {
        let range = TimeRange { from_unix_ns: 25, to_unix_ns: 47 };
        assert_eq!(aligned(range, 10), TimeRange { from_unix_ns: 20, to_unix_ns: 47 });
    }
}
