//! `/api/v1/traces`, `/api/v1/traces/{trace_id}` and `/api/v1/spans`: requests that were followed.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::body::{Download, accepts_gzip};
use super::moment::{now_unix_ns, rfc3339};
use super::parameters::Parameters;
use super::question::catch_up_with_spans;
use super::selector::{RANGE, RangeParameters, range};
use super::span_filter::{self, SPAN_FILTER, SpanFilterParameters, kind_name, span_filter, status_name};
use crate::export::{otlp_json, otlp_schema, otlp_spans};
use crate::model::Interner;
use crate::model::span::SpanStatus;
use crate::server::error::ErrorBody;
use crate::server::{ApiError, App};
use crate::store::spans::{MAX_SPANS, MAX_TRACES};
use crate::store::{SpanPosition, SpanQuery, SpanSummary, TimeRange, TraceCursor, TraceQuery, TraceSummary};

const DEFAULT_TRACES: u64 = 100;

/// How a page is described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct PageParameters {
    /// How many traces at most; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before; all other parameters are to be the same, and the range is to stand
    /// still (`from` and `to` of the answer).
    #[param(pattern = "^[A-Za-z0-9_-]{54}$")]
    cursor: Option<String>,
}

/// How a list is described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct ListParameters {
    /// How many spans at most; 5000 by default.
    #[param(minimum = 1, maximum = 5000)]
    limit: Option<u32>,
}

/// A page of traces, the most lately written first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Traces {
    /// At most as many as were asked for; there may be fewer and still a `next_cursor`.
    traces: Vec<Trace>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
    /// Start of the range that was asked for, RFC 3339.
    from: String,
    /// Its end.
    to: String,
    /// Of which requests these are; null if none are followed here.
    sampling: Option<Sampling>,
}

/// Of how many requests of the range there are spans, to the minute, since spanflame was started and for a day at most;
/// without those that others have sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sampling {
    /// Requests that ended, at either end.
    requests: u64,
    /// Of which a span was kept. The others are counted in metrics alone.
    sampled: u64,
    /// `agent.ebpf.network.max_spans_per_second`; null if there is no limit.
    max_spans_per_second: Option<u64>,
}

impl Sampling {
    fn of(app: &App, range: TimeRange) -> Option<Self> {
        let sampled = app.tracer.as_ref()?.sampled(range.from_unix_ns, range.to_unix_ns);
        let limit = app.configuration().agent.ebpf.network.max_spans_per_second.get();
        Some(Self {
            requests: sampled.requests,
            sampled: sampled.kept,
            max_spans_per_second: (limit > 0).then_some(limit),
        })
    }
}

/// A trace in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct Trace {
    /// 32 hexadecimal digits.
    trace_id: String,
    /// The span without a parent, else the earliest.
    root: Root,
    /// Start of the earliest span, nanoseconds since the Unix epoch.
    start_unix_ns: u64,
    /// From there to the latest end.
    duration_ns: u64,
    /// How many spans are stored, without those that were left out.
    spans: u64,
    /// Whether it has more spans than a page has room for: what is said of them is not of all.
    truncated: bool,
    /// How many spans were left out.
    spans_left_out: u64,
    /// How many of them failed.
    errors: u64,
    /// How many of them go on.
    open: u64,
    /// Their services, by name.
    services: Vec<String>,
    /// The span for which the trace is on this page.
    span: Span,
}

/// Where a trace begins.
#[derive(Debug, Serialize, ToSchema)]
pub struct Root {
    /// `service.name`, or nothing.
    service: String,
    /// Its name.
    name: String,
    /// 16 hexadecimal digits.
    span_id: String,
    /// `server`, `client`, …
    kind: &'static str,
}

/// A span in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct Span {
    /// 16 hexadecimal digits.
    span_id: String,
    /// `service.name`, or nothing.
    service: String,
    /// Its name.
    name: String,
    /// `server`, `client`, `internal`, `producer`, `consumer` or `unspecified`.
    kind: &'static str,
    /// Start, nanoseconds since the Unix epoch.
    start_unix_ns: u64,
    /// Null while the work goes on.
    duration_ns: Option<u64>,
    /// `unset`, `ok` or `error`.
    status: &'static str,
    /// Route, or `package.Service/Method`; empty if unknown.
    route: String,
    /// Method; empty if unknown.
    method: String,
    /// Status code of HTTP or gRPC.
    status_code: Option<u16>,
}

impl Span {
    /// In the form of the interface.
    #[must_use]
    pub fn of(span: SpanSummary) -> Self {
        Self {
            span_id: span.span_id.to_string(),
            service: span.service,
            name: span.name,
            kind: kind_name(span.kind),
            start_unix_ns: span.start_unix_ns,
            duration_ns: span.duration_ns,
            status: status_name(span.status),
            route: span.route,
            method: span.method,
            status_code: span.status_code,
        }
    }
}

impl Trace {
    fn of(trace: TraceSummary) -> Self {
        Self {
            trace_id: trace.trace_id.to_string(),
            root: Root {
                service: trace.root.service,
                name: trace.root.name,
                span_id: trace.root.span_id.to_string(),
                kind: kind_name(trace.root.kind),
            },
            start_unix_ns: trace.start_unix_ns,
            duration_ns: trace.duration_ns,
            spans: trace.spans,
            truncated: trace.left_out > 0,
            spans_left_out: trace.left_out,
            errors: trace.errors,
            open: trace.open,
            services: trace.services,
            span: Span::of(trace.matching),
        }
    }
}

/// Traces that have a span which is asked for
///
/// The most lately written first. One span has to have all that is asked for, and begin in the range.
#[utoipa::path(
    get, path = "/api/v1/traces", tag = "traces",
    params(SpanFilterParameters, RangeParameters, PageParameters),
    responses(
        (status = 200, body = Traces),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 413, description = "The traces of the page have too many spans", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn traces(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &[SPAN_FILTER, RANGE, &["limit", "cursor"]])?;
    let range = range(&parameters, now_unix_ns())?;
    let limit = parameters.number("limit", 1, MAX_TRACES as u64)?.unwrap_or(DEFAULT_TRACES);
    let cursor = parameters.get("cursor").map(cursor_of).transpose()?;
    let limit = usize::try_from(limit).unwrap_or(MAX_TRACES);
    let query = TraceQuery { filter: span_filter(&parameters)?, range, limit, cursor };
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |_| {
            // A page that goes on looks at nothing new.
            if query.cursor.is_none() {
                catch_up_with_spans(&asked);
            }
            let page = asked.store.traces(&query)?;
            let body = Traces {
                traces: page.traces.into_iter().map(Trace::of).collect(),
                next_cursor: page.next.map(|cursor| text_of(&cursor)),
                from: rfc3339(range.from_unix_ns),
                to: rfc3339(range.to_unix_ns),
                sampling: Sampling::of(&asked, range),
            };
            Ok(Download::json(&body).compress(gzip))
        })
        .await
}

/// A cursor as a text that means nothing to anybody else: both positions, little-endian.
fn text_of(cursor: &TraceCursor) -> String {
    let mut bytes = Vec::with_capacity(40);
    for position in [cursor.newest, cursor.after] {
        bytes.extend_from_slice(&position.segment.to_le_bytes());
        bytes.extend_from_slice(&position.block.to_le_bytes());
        bytes.extend_from_slice(&position.row.to_le_bytes());
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn cursor_of(text: &str) -> Result<TraceCursor, ApiError> {
    let invalid = || ApiError::invalid("cursor", "cursor: it is none that an answer has had");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    let &[newest, after] = bytes.as_chunks::<20>().0 else { return Err(invalid()) };
    if bytes.len() != 40 {
        return Err(invalid());
    }
    let position = |bytes: [u8; 20]| {
        let (segment, rest) = bytes.split_first_chunk::<8>()?;
        let (block, row) = rest.split_first_chunk::<8>()?;
        let (segment, block) = (u64::from_le_bytes(*segment), u64::from_le_bytes(*block));
        Some(SpanPosition { segment, block, row: u32::from_le_bytes(row.try_into().ok()?) })
    };
    let (newest, after) = position(newest).zip(position(after)).ok_or_else(invalid)?;
    Ok(TraceCursor { newest, after })
}

/// Which trace.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "the description of an interface")]
pub struct TracePath {
    /// 32 hexadecimal digits, not all of them zero.
    #[param(pattern = "^[0-9a-f]{31}[1-9a-f]$")]
    trace_id: String,
}

/// A trace, as OTLP/JSON
///
/// Ids are hexadecimal, 64-bit numbers text, kinds and status codes numbers, as OTLP's JSON has them. A span
/// that is open has no `endTimeUnixNano`.
#[utoipa::path(
    get, path = "/api/v1/traces/{trace_id}", tag = "traces", params(TracePath),
    responses(
        (status = 200, description = "`TracesData` of OpenTelemetry", body = Object),
        (status = 400, description = "It is no trace id", body = ErrorBody),
        (status = 404, description = "There is no such trace", body = ErrorBody),
        (status = 413, description = "It has more spans than can be sent at once", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn trace(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    Parameters::parse(query.as_deref(), &[])?;
    let Some(trace_id) = span_filter::trace_id(&text) else {
        let message = format!("trace_id: 32 hexadecimal digits are expected, not all zero, not {text:?}");
        return Err(ApiError::invalid("trace_id", message));
    };
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |_| {
            catch_up_with_spans(&asked);
            let spans = asked.store.trace(trace_id)?;
            if spans.is_empty() {
                return Err(ApiError::not_found(format!("there is no trace {trace_id}, or none any more")));
            }
            let message = otlp_spans::encoded(&spans);
            let json = otlp_json::from_protobuf(&message, &otlp_schema::TRACES_REQUEST);
            let json = json.map_err(|error| ApiError::internal("the trace cannot be written", &error))?;
            Ok(Download::new(json, "application/json").compress(gzip))
        })
        .await
}

/// Spans as columns: what a scatter of latencies is drawn from.
#[derive(Debug, Serialize, ToSchema)]
pub struct Spans {
    /// How many; the length of every column.
    count: usize,
    /// Whether there may be more that are older.
    truncated: bool,
    /// Start of the range that was asked for, RFC 3339.
    from: String,
    /// Its end.
    to: String,
    /// What the column `service` refers to.
    services: Vec<String>,
    /// What the column `name` refers to.
    names: Vec<String>,
    /// The columns.
    columns: SpanColumns,
    /// Of which requests these are; null if none are followed here.
    sampling: Option<Sampling>,
}

/// The columns of a list of spans.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct SpanColumns {
    /// Start, milliseconds since the Unix epoch, with microseconds after the point.
    start_unix_ms: Vec<f64>,
    /// Null while the work goes on.
    duration_ns: Vec<Option<u64>>,
    /// 1 if the span's status is an error.
    error: Vec<u8>,
    /// Status code of HTTP or gRPC.
    status_code: Vec<Option<u16>>,
    /// `server`, `client`, …
    kind: Vec<&'static str>,
    /// Index into `services`.
    service: Vec<u32>,
    /// Index into `names`.
    name: Vec<u32>,
    /// 32 hexadecimal digits each.
    trace_id: Vec<String>,
    /// 16 hexadecimal digits each.
    span_id: Vec<String>,
}

/// Spans as columns, the most lately written ones
#[utoipa::path(
    get, path = "/api/v1/spans", tag = "traces",
    params(SpanFilterParameters, RangeParameters, ListParameters),
    responses(
        (status = 200, body = Spans),
        (status = 400, description = "A parameter is malformed", body = ErrorBody),
        (status = 503, description = "Too many queries at once", body = ErrorBody),
    )
)]
pub async fn spans(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Download, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &[SPAN_FILTER, RANGE, &["limit"]])?;
    let range = range(&parameters, now_unix_ns())?;
    let limit = parameters.number("limit", 1, MAX_SPANS as u64)?.unwrap_or(MAX_SPANS as u64);
    let limit = usize::try_from(limit).unwrap_or(MAX_SPANS);
    let query = SpanQuery { filter: span_filter(&parameters)?, range, limit };
    let gzip = accepts_gzip(&headers);
    let asked = Arc::clone(&app);
    app.queries
        .run(move |_| {
            catch_up_with_spans(&asked);
            let list = asked.store.spans(&query)?;
            let (mut services, mut names) = (Interner::new(), Interner::new());
            let mut columns = SpanColumns::default();
            let count = list.spans.len();
            for span in list.spans {
                columns.start_unix_ms.push((span.start_unix_ns / 1_000) as f64 / 1e3);
                columns.duration_ns.push(span.duration_ns);
                columns.error.push(u8::from(span.status == SpanStatus::Error));
                columns.status_code.push(span.status_code);
                columns.kind.push(kind_name(span.kind));
                columns.service.push(services.intern(span.service));
                columns.name.push(names.intern(span.name));
                columns.trace_id.push(span.trace_id.to_string());
                columns.span_id.push(span.span_id.to_string());
            }
            let body = Spans {
                count,
                truncated: list.is_cut,
                from: rfc3339(range.from_unix_ns),
                to: rfc3339(range.to_unix_ns),
                services: services.into_values(),
                names: names.into_values(),
                columns,
                sampling: Sampling::of(&asked, range),
            };
            Ok(Download::json(&body).compress(gzip))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back(numbers: [u64; 4], rows: [u32; 2]) {
            let [one, two, three, four] = numbers;
            let cursor = TraceCursor {
                newest: SpanPosition { segment: one, block: two, row: rows[0] },
                after: SpanPosition { segment: three, block: four, row: rows[1] },
            };
            let text = text_of(&cursor);
            prop_assert_eq!(text.len(), 54);
            prop_assert_eq!(cursor_of(&text).unwrap(), cursor);
            prop_assert!(cursor_of(&text[1..]).is_err());
        }

        #[test]
        fn any_text_is_a_cursor_or_none(text in "[A-Za-z0-9_=-]{0,60}") {
            if let Err(error) = cursor_of(&text) {
                prop_assert_eq!(error.status(), 400);
            }
        }
    }
}
