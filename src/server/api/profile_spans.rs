//! `/api/v1/profiles/spans`: from a frame of a flame graph to the spans that ran it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::body::{Download, accepts_gzip};
use super::moment::rfc3339;
use super::parameters::Parameters;
use super::question::Question;
use super::selector::{RANGE, RangeParameters, SELECTORS, SelectorParameters};
use super::span_filter::{span_id, trace_id};
use super::traces::Span;
use crate::export::frame_text::frames_of_location;
use crate::model::span::{SpanId, TraceId};
use crate::model::{Label, LabelValue, Profile};
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};
use crate::store::Detail;

const MOST_SPANS: u64 = 1000;
const DEFAULT_SPANS: u64 = 100;

/// Which function.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct FunctionParameters {
    /// Name of the function, as flame graphs and tables show it.
    #[param(min_length = 1)]
    function: String,
    /// How many spans at most, those of the largest value first; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The spans that ran a function.
#[derive(Debug, Serialize, ToSchema)]
pub struct FunctionSpans {
    /// What is counted (`cpu`).
    r#type: String,
    /// Its unit (`nanoseconds`).
    unit: String,
    /// The function that was asked for.
    function: String,
    /// The value of all stacks that it is on.
    total: i64,
    /// The part of that which ran for a span.
    stamped: i64,
    /// How many spans there are, shown or not.
    spans_total: usize,
    /// The largest value first.
    spans: Vec<FunctionSpan>,
    /// Start of what was covered, RFC 3339; of what was asked for if there was no window in it.
    from: String,
    /// Its end.
    to: String,
}

/// A span that ran it.
#[derive(Debug, Serialize, ToSchema)]
pub struct FunctionSpan {
    /// 32 hexadecimal digits.
    trace_id: String,
    /// 16 hexadecimal digits.
    span_id: String,
    /// The value of its stacks that the function is on.
    value: i64,
    /// How many samples that is.
    samples: i64,
    /// What it was; null if the span is not stored.
    span: Option<Span>,
}

/// The spans that ran a function
///
/// By the samples that carry a span and have the function on their stack.
#[utoipa::path(
    get, path = "/api/v1/profiles/spans", tag = "profiles",
    params(SelectorParameters, RangeParameters, FunctionParameters),
    responses(
        (status = 200, body = FunctionSpans),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 404, description = "There was no such thing in the range", body = ErrorBody),
        (status = 413, description = "More than can be answered at once", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn profile_spans(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &[SELECTORS, RANGE, &["function", "limit"]])?;
    let question = Question::new(&parameters)?;
    let function = parameters.get("function").unwrap_or_default().to_owned();
    if function.is_empty() {
        return Err(ApiError::invalid("function", "function: the name of a function is needed"));
    }
    let limit = parameters.number("limit", 1, MOST_SPANS)?.unwrap_or(DEFAULT_SPANS);
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |cancelled| {
            let detail = Detail::Keys(vec!["trace_id".to_owned(), "span_id".to_owned()]);
            let answer = question.ask(&asked, detail, cancelled)?;
            let profile = &answer.profile;
            let found = spans_of(profile, &function);
            cancelled.check()?;
            let spans_total = found.spans.len();
            let shown: Vec<_> =
                found.spans.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect();
            let ids: Vec<(TraceId, SpanId)> = shown.iter().map(|span| span.id).collect();
            let summaries = asked.store.span_summaries(&ids)?;
            // Under the name that it is stored by now: an SDK may have told of it after the sample was taken.
            let spans = shown.into_iter().zip(summaries).map(|(ran, summary)| FunctionSpan {
                trace_id: summary.as_ref().map_or(ran.id.0, |span| span.trace_id).to_string(),
                span_id: summary.as_ref().map_or(ran.id.1, |span| span.span_id).to_string(),
                value: ran.value,
                samples: ran.samples,
                span: summary.map(Span::of),
            });
            let value_type = profile.value_types.get(profile.default_value);
            let (from, to) = match answer.coverage.windows {
                0 => (question.range.from_unix_ns, question.range.to_unix_ns),
                _ => (answer.coverage.from_unix_ns, answer.coverage.to_unix_ns),
            };
            let body = FunctionSpans {
                r#type: value_type.map(|value_type| value_type.kind.clone()).unwrap_or_default(),
                unit: value_type.map(|value_type| value_type.unit.clone()).unwrap_or_default(),
                total: found.total,
                stamped: found.stamped,
                spans_total,
                spans: spans.collect(),
                from: rfc3339(from),
                to: rfc3339(to),
                function,
            };
            Ok(Download::json(&body).covering(answer.coverage, None).compress(gzip))
        })
        .await
}

#[derive(Debug, PartialEq, Eq)]
struct Ran {
    id: (TraceId, SpanId),
    value: i64,
    samples: i64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    total: i64,
    stamped: i64,
    /// The largest value first.
    spans: Vec<Ran>,
}

/// The spans of the samples whose stack has this function on it. Linear in the profile.
fn spans_of(profile: &Profile, function: &str) -> Found {
    let is_it = |location| frames_of_location(profile, location).iter().any(|frame| frame.name == function);
    let has_it: Vec<bool> = profile.locations.iter().map(is_it).collect();
    let on_stack: Vec<bool> = profile
        .stacks
        .iter()
        .map(|stack| stack.iter().any(|&at| has_it.get(at as usize).copied().unwrap_or(false)))
        .collect();
    let ids: Vec<Option<(TraceId, SpanId)>> = profile.label_sets.iter().map(|labels| id_of(labels)).collect();
    let samples_value = profile.value_index("samples");
    let mut found = Found::default();
    let mut sums: HashMap<(TraceId, SpanId), (i64, i64)> = HashMap::new();
    for sample in &profile.samples {
        if !on_stack.get(sample.stack as usize).copied().unwrap_or(false) {
            continue;
        }
        let value = sample.values.get(profile.default_value).copied().unwrap_or(0);
        found.total = found.total.saturating_add(value);
        let Some(id) = ids.get(sample.labels as usize).copied().flatten() else { continue };
        found.stamped = found.stamped.saturating_add(value);
        let samples = samples_value.and_then(|index| sample.values.get(index)).copied().unwrap_or(1);
        let (of_value, of_samples) = sums.entry(id).or_default();
        *of_value = of_value.saturating_add(value);
        *of_samples = of_samples.saturating_add(samples);
    }
    found.spans = sums.into_iter().map(|(id, (value, samples))| Ran { id, value, samples }).collect();
    found.spans.sort_by_key(|ran| (std::cmp::Reverse(ran.value), ran.id));
    found
}

fn id_of(labels: &[Label]) -> Option<(TraceId, SpanId)> {
    let text = |key: &str| {
        labels.iter().find(|label| label.key == key).and_then(|label| match &label.value {
            LabelValue::Text(text) => Some(text.as_str()),
            LabelValue::Number(_) => None,
        })
    };
    trace_id(text("trace_id")?).zip(span_id(text("span_id")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frame, Function, Location, Sample, ValueType};

    #[test]
    fn a_function_is_counted_once_a_stack_and_by_span() {
        let function = |name: &str| Function { name: name.to_owned(), ..Function::default() };
        let location =
            |function| Location { frames: vec![Frame { function, line: 0 }], ..Location::default() };
        let labels = |span: &str| {
            vec![Label::text("trace_id", &"1".repeat(32)), Label::text("span_id", &span.repeat(16))]
        };
        let mut profile = Profile {
            value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
            default_value: 1,
            functions: vec![function("main"), function("burn")],
            locations: vec![location(0), location(1)],
            stacks: [vec![1, 1, 0], vec![0], vec![1]].into(),
            label_sets: vec![Vec::new(), labels("a"), labels("b")],
            ..Profile::default()
        };
        let sample = |stack, labels, samples| Sample { stack, labels, values: vec![samples, samples * 10] };
        profile.samples =
            vec![sample(0, 1, 1), sample(0, 2, 3), sample(2, 2, 1), sample(1, 1, 5), sample(2, 0, 7)];
        let found = spans_of(&profile, "burn");
        assert_eq!((found.total, found.stamped), (120, 50));
        let spans: Vec<(String, i64, i64)> =
            found.spans.iter().map(|ran| (ran.id.1.to_string(), ran.value, ran.samples)).collect();
        assert_eq!(spans, [("b".repeat(16), 40, 4), ("a".repeat(16), 10, 1)]);
        assert_eq!(spans_of(&profile, "nobody"), Found::default());
    }
}
