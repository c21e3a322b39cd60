//! `/api/v1/spans/{span_id}/flamegraph`: what one span ran.
//!
//! Samples carry the span that was active when they were taken, and that is the innermost one. So the graph of
//! a span is made of its own samples and those of its descendants: within its process by default, since while a
//! span waits for another process it runs nothing there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use utoipa::IntoParams;

use super::body::{Download, accepts_gzip};
use super::flamegraph::{DRAWING, Drawing, FlameGraphParameters, FlameGraphRoot, main_first};
use super::moment::now_unix_ns;
use super::parameters::Parameters;
use super::question::{Question, catch_up, catch_up_with_spans, nothing};
use super::selector::selector;
use super::span_filter::{span_id, trace_id};
use crate::model::Profile;
use crate::model::span::{AttributeValue, JOINED_FROM, Span, SpanId, TraceId, ids_of_text, text_of};
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};
use crate::store::{Answer, ProfileQuery, Selector, TimeRange};

/// What tells one process from another.
const PROCESS: [&str; 5] =
    ["service.name", "service.instance.id", "host.name", "container.id", "process.pid"];

/// Which span.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct SpanPath {
    /// 16 hexadecimal digits, not all of them zero.
    #[param(pattern = "^[0-9a-f]{15}[1-9a-f]$")]
    span_id: String,
}

/// Which spans.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct SpanGraphParameters {
    /// Its trace, 32 hexadecimal digits: where several traces have a span of this id.
    #[param(pattern = "^[0-9a-f]{31}[1-9a-f]$")]
    trace_id: Option<String>,
    /// `self`: the span and its descendants in the same process; `subtree`: all descendants. By default `self`.
    #[param(pattern = "^(self|subtree)$")]
    scope: Option<String>,
    /// `cpu`, `offcpu`, `wall`, `lock`, `memory`, `gpu`, or a name of `/api/v1/profiles/types`. By default `cpu`.
    #[param(pattern = "^[A-Za-z0-9_.:-]{1,64}(/[A-Za-z0-9_.:-]{1,63})?$")]
    r#type: Option<String>,
}

/// What one span ran, in any format
///
/// Empty, with the reason in `X-Spanflame-Reason` and in JSON's root, if no sample was taken in it.
#[utoipa::path(
    get, path = "/api/v1/spans/{span_id}/flamegraph", tag = "traces",
    params(SpanPath, SpanGraphParameters, FlameGraphParameters),
    responses(
        (status = 200, description = "The flame graph. Headers as those of `profiles/flamegraph`, with \
          `X-Spanflame-Samples`, and `X-Spanflame-Reason` where that is 0.",
         content(
            (FlameGraphRoot = "application/json"),
            (String = "application/octet-stream"),
            (String = "image/svg+xml"),
            (String = "text/plain"),
            (String = "application/x-protobuf"),
        )),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 404, description = "There is no such span", body = ErrorBody),
        (status = 413, description = "More than can be drawn or sent at once", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn span_flamegraph(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let own = ["trace_id", "scope", "type", "kind"];
    let parameters = Parameters::parse(query.as_deref(), &[&own, DRAWING])?;
    let mut drawing = Drawing::new(&parameters)?;
    let selector = selector(&parameters)?;
    let Some(id) = span_id(&text) else {
        let message = format!("span_id: 16 hexadecimal digits are expected, not all zero, not {text:?}");
        return Err(ApiError::invalid("span_id", message));
    };
    let trace = match parameters.get("trace_id").map(|text| (text, trace_id(text))) {
        None => None,
        Some((_, Some(trace))) => Some(trace),
        Some((text, None)) => {
            let message = format!("trace_id: 32 hexadecimal digits are expected, not all zero, not {text:?}");
            return Err(ApiError::invalid("trace_id", message));
        }
    };
    let whole_subtree = match parameters.get("scope") {
        None | Some("self") => false,
        Some("subtree") => true,
        Some(other) => {
            let message = format!("scope: self or subtree is expected, not {other:?}");
            return Err(ApiError::invalid("scope", message));
        }
    };
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |cancelled| {
            catch_up_with_spans(&asked);
            let span = asked.store.span(id, trace)?;
            let span =
                span.ok_or_else(|| ApiError::not_found(format!("there is no span {id}, or none any more")))?;
            cancelled.check()?;
            let spans = match asked.store.trace(span.trace_id) {
                Ok(spans) => family(&span, spans, whole_subtree),
                // Its own samples can be told all the same.
                Err(crate::store::StoreError::TooMuch { .. }) => vec![span.clone()],
                Err(error) => return Err(error.into()),
            };
            let question = question(&span, &spans, selector);
            catch_up(&asked, question.range);
            cancelled.check()?;
            let query = ProfileQuery {
                selector: question.selector.clone(),
                range: question.range,
                detail: drawing.detail(),
            };
            let mut answer = asked.store.profile(&query)?;
            if answer.coverage.windows == 0 {
                answer.profile = nothing(&question.selector, question.range);
            }
            main_first(&mut answer.profile, &question.selector);
            let samples = samples(&answer.profile);
            let reason = (samples == 0).then(|| reason(&asked, &question, &answer));
            drawing.about.insert("samples".to_owned(), samples.into());
            drawing.about.insert("spans".to_owned(), spans.len().into());
            drawing.about.extend(reason.clone().map(|reason| ("reason".to_owned(), reason.into())));
            let mut download = drawing.draw(&answer, &question, cancelled)?;
            download.facts.push(("x-spanflame-samples", samples.to_string()));
            download.facts.extend(reason.map(|reason| ("x-spanflame-reason", reason)));
            Ok(download.compress(gzip))
        })
        .await
}

/// The samples of these spans, from the first start to the last end.
fn question(span: &Span, spans: &[Span], selector: Selector) -> Question {
    let now = now_unix_ns();
    let starts = spans.iter().map(|span| span.start_unix_ns);
    let ends = spans.iter().map(|span| span.end_unix_ns.unwrap_or(now));
    let from_unix_ns = starts.min().unwrap_or(span.start_unix_ns);
    let range =
        TimeRange { from_unix_ns, to_unix_ns: ends.max().unwrap_or(now).max(from_unix_ns).saturating_add(1) };
    // What an SDK tells of had other ids when its samples were taken.
    let before = |span: &Span| text_of(&span.attributes, JOINED_FROM).and_then(ids_of_text);
    let ids: HashSet<(TraceId, SpanId)> =
        spans.iter().flat_map(|span| [Some((span.trace_id, span.span_id)), before(span)]).flatten().collect();
    let traces: HashSet<TraceId> = ids.iter().map(|ids| ids.0).collect();
    let selector = Selector {
        traces: Some(traces.into_iter().collect()),
        spans: Some(ids.into_iter().map(|ids| ids.1).collect()),
        ..selector
    };
    Question { selector, range }
}

/// The span and its descendants; of those only what ran in its process, unless the whole subtree is asked for.
fn family(span: &Span, trace: Vec<Span>, whole_subtree: bool) -> Vec<Span> {
    let mut children: HashMap<SpanId, Vec<Span>> = HashMap::new();
    let mut found = Vec::new();
    for other in trace {
        if other.span_id == span.span_id {
            // Another library's span of the same id is the same work.
            found.push(other);
        } else if let Some(parent) = other.parent_span_id {
            children.entry(parent).or_default().push(other);
        }
    }
    // Whoever is taken has no children left, so that a circle ends.
    let mut waiting = vec![span.span_id];
    while let Some(parent) = waiting.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            waiting.push(child.span_id);
            if whole_subtree || is_same_process(span, &child) {
                found.push(child);
            }
        }
    }
    found
}

fn is_same_process(one: &Span, other: &Span) -> bool {
    let value = |span: &Span, name: &str| -> Option<AttributeValue> {
        let attribute = span.resource.attributes.iter().find(|(key, _)| key == name);
        attribute.map(|(_, value)| value.clone())
    };
    Arc::ptr_eq(&one.resource, &other.resource)
        || PROCESS.iter().all(|name| value(one, name) == value(other, name))
}

/// How many samples a profile is made of.
fn samples(profile: &Profile) -> i64 {
    match profile.value_index("samples") {
        Some(value) => profile.total(value),
        None => i64::try_from(profile.samples.len()).unwrap_or(i64::MAX),
    }
}

/// Why there is none, for a person.
fn reason(app: &App, question: &Question, answer: &Answer) -> String {
    let TimeRange { from_unix_ns, to_unix_ns } = question.range;
    let milliseconds = to_unix_ns.saturating_sub(from_unix_ns) as f64 / 1e6;
    if answer.coverage.windows == 0 {
        return match &app.recorder {
            None => "profiling is off".to_owned(),
            Some(_) => "no profile is kept of the time in which it ran".to_owned(),
        };
    }
    format!(
        "no sample says that it was taken in this span, which lasted {milliseconds:.3} ms: it ran too short a time \
         on a processor, or its samples could not be tied to it (spanflame_samples_unstamped_total says why)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::span::{SpanKind, SpanResource, SpanStatus};

    fn span(id: u8, parent: Option<u8>, pid: i64) -> Span {
        let span_id = |id: u8| SpanId::new([id; 8]).unwrap();
        Span {
            trace_id: TraceId::new([1; 16]).unwrap(),
            span_id: span_id(id),
            parent_span_id: parent.map(span_id),
            trace_state: String::new(),
            name: String::new(),
            kind: SpanKind::Internal,
            start_unix_ns: u64::from(id) * 100,
            end_unix_ns: Some(u64::from(id) * 100 + 1000),
            status: SpanStatus::Unset,
            status_message: String::new(),
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            resource: Arc::new(SpanResource {
                attributes: vec![("process.pid".into(), AttributeValue::Integer(pid))],
            }),
            scope: Arc::default(),
        }
    }

    fn family_of(id: u8, trace: &[Span], whole_subtree: bool) -> Vec<u8> {
        let span = trace.iter().find(|span| span.span_id.bytes()[0] == id).unwrap();
        let family = family(span, trace.to_vec(), whole_subtree);
        let mut ids: Vec<u8> = family.iter().map(|span| span.span_id.bytes()[0]).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn descendants_in_the_same_process_are_its_own_and_others_are_its_subtree() {
        let trace = [
            span(1, None, 10),
            span(2, Some(1), 10),
            // Another process, which calls back.
            span(3, Some(2), 20),
            span(4, Some(3), 10),
            span(5, Some(9), 10),
        ];
        assert_eq!(family_of(1, &trace, false), [1, 2, 4]);
        assert_eq!(family_of(1, &trace, true), [1, 2, 3, 4]);
        assert_eq!(family_of(3, &trace, false), [3]);
        assert_eq!(family_of(5, &trace, true), [5]);
    }

    #[test]
    fn spans_that_are_their_own_ancestors_end() {
        let trace = [span(1, Some(2), 10), span(2, Some(1), 10), span(3, Some(3), 10)];
        assert_eq!(family_of(1, &trace, true), [1, 2]);
        assert_eq!(family_of(3, &trace, true), [3]);
    }

    #[test]
    fn the_time_is_from_the_first_start_to_the_last_end_or_now() {
        let mut trace = vec![span(2, None, 10), span(1, Some(2), 10)];
        let first = trace[0].clone();
        let asked = question(&first, &trace, Selector::of_type("cpu"));
        assert_eq!(asked.range, TimeRange { from_unix_ns: 100, to_unix_ns: 1201 });
        assert_eq!(asked.selector.spans.map(|spans| spans.len()), Some(2));
        trace[1].end_unix_ns = None;
        let asked = question(&first, &trace, Selector::of_type("cpu"));
        assert!(asked.range.to_unix_ns > 1_700_000_000_000_000_000);
    }
}
