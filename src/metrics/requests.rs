//! Rate, errors and duration of requests: histograms by service, method, route, status and error.
//!
//! Every request counts, also one whose span is not sampled and stored nowhere. Names and labels are those
//! of OpenTelemetry's conventions for HTTP (`http.server.request.duration`, 1.38), translated for Prometheus
//! by its compatibility rules (dots become underscores, the unit is a suffix); durations of RPC are in
//! seconds, too, as OpenTelemetry's eBPF instrumentation has them. Bounds are those that the conventions advise.
//!
//! A label's values come from whoever sends requests, so the number of series is bounded: beyond it a request
//! counts in one series for its kind whose labels read `_other`, and is counted as such.

use std::borrow::Cow;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use compact_str::ToCompactString as _;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::{Exemplar, Family, Histogram, Kind, Value};
use crate::model::UnsampledRequest;
use crate::model::span::{Span, SpanId, SpanKind, Text, TraceId, integer_of, text_of};

/// Advised for `http.server.request.duration`.
const BOUNDS_S: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Series of all families together: 14 buckets each, about a kilobyte of memory and two of text.
const MAX_SERIES: usize = 2_000;
/// What the labels of the series for all others read.
const OTHER: &str = "_other";
/// A longer value of a label is cut: nobody reads it, and it stands on every page 17 times.
const MAX_LABEL_BYTES: usize = 128;

/// What a request was, and from which side it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// HTTP, answered here.
    HttpServer,
    /// HTTP, asked from here.
    HttpClient,
    /// An RPC, answered here.
    RpcServer,
    /// An RPC, asked from here.
    RpcClient,
}

impl RequestKind {
    /// All, in the order of the page.
    pub const ALL: [Self; 4] = [Self::HttpServer, Self::HttpClient, Self::RpcServer, Self::RpcClient];

    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::HttpServer => (
                "http_server_request_duration_seconds",
                "http.server.request.duration",
                "Duration of HTTP requests that were answered",
            ),
            Self::HttpClient => (
                "http_client_request_duration_seconds",
                "http.client.request.duration",
                "Duration of HTTP requests that were sent",
            ),
            Self::RpcServer => {
                ("rpc_server_duration_seconds", "rpc.server.duration", "Duration of RPCs that were answered")
            }
            Self::RpcClient => {
                ("rpc_client_duration_seconds", "rpc.client.duration", "Duration of RPCs that were sent")
            }
        }
    }

    fn is_http(self) -> bool {
        matches!(self, Self::HttpServer | Self::HttpClient)
    }
}

/// In whose words names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `http_server_request_duration_seconds{http_route=…}`
    Prometheus,
    /// `http.server.request.duration{http.route=…}`, in seconds.
    OpenTelemetry,
}

/// What requests of one series have in common. What is not known, or does not apply, is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestLabels {
    /// What it was.
    pub kind: RequestKind,
    /// `service.name`.
    pub service: Text,
    /// `http.request.method`, or `rpc.method`.
    pub method: Text,
    /// `http.route`; of an RPC nothing.
    pub route: Text,
    /// Status code of HTTP, or of gRPC.
    pub status_code: Text,
    /// `error.type`.
    pub error_type: Text,
}

impl RequestLabels {
    /// Of a span; nothing if it is no request, or belongs to no known protocol.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let text = |names: &[&str]| names.iter().find_map(|name| text_of(&span.attributes, name));
        let number = |names: &[&str]| names.iter().find_map(|name| integer_of(&span.attributes, name));
        let http_method = text(&["http.request.method", "http.method"]);
        let rpc_method = text(&["rpc.method"]);
        let is_rpc = rpc_method.is_some() || text(&["rpc.system", "rpc.system.name"]).is_some();
        let kind = match (span.kind, is_rpc, http_method) {
            (SpanKind::Server, true, _) => RequestKind::RpcServer,
            (SpanKind::Client, true, _) => RequestKind::RpcClient,
            (SpanKind::Server, false, Some(_)) => RequestKind::HttpServer,
            (SpanKind::Client, false, Some(_)) => RequestKind::HttpClient,
            _ => return None,
        };
        let status = match kind.is_http() {
            true => number(&["http.response.status_code", "http.status_code"]),
            false => number(&["rpc.grpc.status_code", "rpc.response.status_code"]),
        };
        let rpc = match (text(&["rpc.service"]), rpc_method) {
            (Some(service), Some(method)) => Some(Cow::Owned(format!("{service}/{method}"))),
            (one, other) => one.or(other).map(Cow::Borrowed),
        };
        let method = if is_rpc { rpc } else { http_method.map(Cow::Borrowed) };
        // A client's path is no route, and would be a series for each order's number.
        let route = if kind == RequestKind::HttpServer { text(&["http.route"]) } else { None };
        Some(Self {
            kind,
            service: short(span.resource.service()).into(),
            method: short(&method.unwrap_or_default()).into(),
            route: short(route.unwrap_or_default()).into(),
            status_code: status.map(|code| code.to_compact_string()).unwrap_or_default(),
            error_type: short(text(&["error.type"]).unwrap_or_default()).into(),
        })
    }

    /// Of a request that has no span; the same as of the span that it would have had.
    #[must_use]
    pub fn of_unsampled(request: &UnsampledRequest) -> Option<Self> {
        Labels::of_unsampled(request, |labels| labels.owned())
    }

    fn borrowed(&self) -> Labels<'_> {
        Labels {
            kind: self.kind,
            service: &self.service,
            method: &self.method,
            route: &self.route,
            status_code: &self.status_code,
            error_type: &self.error_type,
        }
    }

    /// Of all that find no room.
    fn other(kind: RequestKind) -> Self {
        let other = || Text::const_new(OTHER);
        let route = if kind == RequestKind::HttpServer { other() } else { Text::default() };
        Self {
            kind,
            service: other(),
            method: other(),
            route,
            status_code: Text::default(),
            error_type: Text::default(),
        }
    }

    /// Without those that are empty: in both worlds that is the same as not having them.
    fn labels(&self, naming: Naming) -> Vec<(&'static str, String)> {
        let is_http = self.kind.is_http();
        let names: [(&str, &str, &Text); 5] = [
            ("service_name", "service.name", &self.service),
            if is_http {
                ("http_request_method", "http.request.method", &self.method)
            } else {
                ("rpc_method", "rpc.method", &self.method)
            },
            ("http_route", "http.route", &self.route),
            if is_http {
                ("http_response_status_code", "http.response.status_code", &self.status_code)
            } else {
                ("rpc_grpc_status_code", "rpc.grpc.status_code", &self.status_code)
            },
            ("error_type", "error.type", &self.error_type),
        ];
        let known = names.into_iter().filter(|(_, _, value)| !value.is_empty());
        known
            .map(|(prometheus, otel, value)| match naming {
                Naming::Prometheus => (prometheus, value.to_string()),
                Naming::OpenTelemetry => (otel, value.to_string()),
            })
            .collect()
    }
}

/// [`RequestLabels`] of a request that is counted: nothing is copied unless it is the first of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Labels<'a> {
    kind: RequestKind,
    service: &'a str,
    method: &'a str,
    route: &'a str,
    status_code: &'a str,
    error_type: &'a str,
}

impl Labels<'_> {
    fn owned(&self) -> RequestLabels {
        RequestLabels {
            kind: self.kind,
            service: self.service.into(),
            method: self.method.into(),
            route: self.route.into(),
            status_code: self.status_code.into(),
            error_type: self.error_type.into(),
        }
    }

    /// What `take` makes of a request's; nothing if it is of no known protocol.
    fn of_unsampled<T>(request: &UnsampledRequest, take: impl FnOnce(Labels<'_>) -> T) -> Option<T> {
        let kind = match (request.kind, request.is_rpc, &request.http_method) {
            (SpanKind::Server, true, _) => RequestKind::RpcServer,
            (SpanKind::Client, true, _) => RequestKind::RpcClient,
            (SpanKind::Server, false, Some(_)) => RequestKind::HttpServer,
            (SpanKind::Client, false, Some(_)) => RequestKind::HttpClient,
            _ => return None,
        };
        let rpc = request.rpc.as_ref().map(|(service, method)| Cow::Owned(format!("{service}/{method}")));
        let method = if request.is_rpc { rpc } else { request.http_method.as_deref().map(Cow::Borrowed) };
        let route = if kind == RequestKind::HttpServer { request.route.as_deref() } else { None };
        let status_code = request.status_code.map(|code| code.to_compact_string()).unwrap_or_default();
        Some(take(Labels {
            kind,
            service: short(request.resource.service()),
            method: short(&method.unwrap_or_default()),
            route: short(route.unwrap_or_default()),
            status_code: &status_code,
            error_type: short(request.error.as_deref().unwrap_or_default()),
        }))
    }
}

fn short(text: &str) -> &str {
    let end = (0..=MAX_LABEL_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// A request that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Which series.
    pub labels: RequestLabels,
    /// From its first byte to the response's last.
    pub duration_ns: u64,
    /// When it ended, nanoseconds since the Unix epoch.
    pub end_unix_ns: u64,
    /// Its span, if that is stored: an exemplar points only at traces that exist.
    pub span: Option<(TraceId, SpanId)>,
}

impl Request {
    /// Of a span that has ended; nothing if it is open, or no request, or if its end is none that was seen
    /// (`spanflame.end.uncertain`). `is_stored` says whether its trace can be looked up.
    #[must_use]
    pub fn of(span: &Span, is_stored: bool) -> Option<Self> {
        if text_of(&span.attributes, "spanflame.end.uncertain") == Some("not_seen") {
            return None;
        }
        Some(Self {
            labels: RequestLabels::of(span)?,
            duration_ns: span.duration_ns()?,
            end_unix_ns: span.end_unix_ns?,
            span: is_stored.then_some((span.trace_id, span.span_id)),
        })
    }
}

#[derive(Debug)]
struct Series {
    seconds: Histogram,
    /// For each bucket the last request whose span is stored.
    exemplars: Vec<Option<Latest>>,
}

/// A request that can be looked up.
#[derive(Debug, Clone, Copy)]
struct Latest {
    trace_id: TraceId,
    span_id: SpanId,
    seconds: f64,
    time: SystemTime,
}

impl Latest {
    fn exemplar(self) -> Exemplar {
        Exemplar {
            labels: vec![("trace_id", self.trace_id.to_string()), ("span_id", self.span_id.to_string())],
            value: self.seconds,
            time: self.time,
        }
    }
}

impl Series {
    fn new() -> Self {
        Self { seconds: Histogram::new(BOUNDS_S), exemplars: vec![None; BOUNDS_S.len() + 1] }
    }

    /// Adds a request; returns how many seconds it took.
    fn observe(&mut self, duration_ns: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "what is scraped is a double")]
        let seconds = duration_ns as f64 / 1e9;
        self.seconds.observe(seconds);
        seconds
    }
}

/// Counts requests. Any thread may.
#[derive(Debug, Default)]
pub struct RequestMetrics {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    series: HashTable<(RequestLabels, Series)>,
    keys: RandomState,
    in_other: u64,
    requests: u64,
}

impl State {
    /// The series in which a request counts, of which there is one more now.
    fn count(&mut self, labels: Labels<'_>) -> &mut Series {
        self.requests += 1;
        if self.series.len() >= MAX_SERIES && !self.has(labels) {
            self.in_other += 1;
            return self.series(RequestLabels::other(labels.kind).borrowed());
        }
        self.series(labels)
    }

    fn has(&self, labels: Labels<'_>) -> bool {
        self.series.find(self.keys.hash_one(labels), |(known, _)| known.borrowed() == labels).is_some()
    }

    fn series(&mut self, labels: Labels<'_>) -> &mut Series {
        let is = |(known, _): &(RequestLabels, Series)| known.borrowed() == labels;
        let keys = &self.keys;
        let entry =
            self.series.entry(keys.hash_one(labels), is, |(known, _)| keys.hash_one(known.borrowed()));
        match entry {
            Entry::Occupied(known) => &mut known.into_mut().1,
            Entry::Vacant(room) => &mut room.insert((labels.owned(), Series::new())).into_mut().1,
        }
    }
}

impl RequestMetrics {
    /// Adds requests.
    pub fn observe(&self, requests: impl IntoIterator<Item = Request>) {
        let mut state = self.lock();
        for request in requests {
            let series = state.count(request.labels.borrowed());
            let seconds = series.observe(request.duration_ns);
            let bucket = BOUNDS_S.partition_point(|&bound| bound < seconds);
            if let (Some((trace_id, span_id)), Some(exemplar)) =
                (request.span, series.exemplars.get_mut(bucket))
            {
                let time = UNIX_EPOCH + Duration::from_nanos(request.end_unix_ns);
                *exemplar = Some(Latest { trace_id, span_id, seconds, time });
            }
        }
    }

    /// Adds requests that have no span; those that are of no known protocol do not count. Of a busy host that is nearly
    /// all of them.
    pub fn observe_unsampled(&self, requests: &[UnsampledRequest]) {
        let mut state = self.lock();
        for request in requests {
            Labels::of_unsampled(request, |labels| state.count(labels).observe(request.duration_ns));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there were.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// How many series there are.
    #[must_use]
    pub fn series(&self) -> u64 {
        self.lock().series.len() as u64
    }

    /// How many requests found no room for a series of their own.
    #[must_use]
    pub fn in_other(&self) -> u64 {
        self.lock().in_other
    }

    /// The families as they are now, series in order of labels. `kept_since` is when the oldest trace that is kept
    /// begins: exemplars of before are left out.
    #[must_use]
    pub fn families(&self, naming: Naming, kept_since: SystemTime) -> Vec<Family> {
        let state = self.lock();
        let mut series: Vec<&(RequestLabels, Series)> = state.series.iter().collect();
        series.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut families = RequestKind::ALL.map(|kind| {
            let (prometheus, otel, help) = kind.names();
            let name = match naming {
                Naming::Prometheus => prometheus,
                Naming::OpenTelemetry => otel,
            };
            Family::new(Kind::Histogram, name, help)
        });
        for (labels, series) in series {
            let exemplars = series
                .exemplars
                .iter()
                .map(|latest| latest.filter(|latest| latest.time >= kept_since).map(Latest::exemplar));
            let value =
                Value::Histogram { counts: series.seconds.snapshot(), exemplars: exemplars.collect() };
            let labels_of = labels.labels(naming);
            if let Some(family) = families.get_mut(labels.kind as usize) {
                family.samples.push(super::Sample { labels: labels_of, value });
            }
        }
        families.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::exposition::{self, Format};
    use crate::model::span::{AttributeValue, SpanResource, SpanStatus};

    const NOW: u64 = 1_800_000_000_000_000_000;

    fn span(kind: SpanKind, attributes: &[(&'static str, AttributeValue)]) -> Span {
        let service = ("service.name".into(), AttributeValue::Text("shop".into()));
        Span {
            trace_id: TraceId::new([0xab; 16]).unwrap(),
            span_id: SpanId::new([0xcd; 8]).unwrap(),
            parent_span_id: None,
            trace_state: String::new(),
            name: String::new(),
            kind,
            start_unix_ns: NOW,
            end_unix_ns: Some(NOW + 30_000_000),
            status: SpanStatus::Unset,
            status_message: String::new(),
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), value.clone())).collect(),
            events: Vec::new(),
            links: Vec::new(),
            resource: Arc::new(SpanResource { attributes: vec![service] }),
            scope: Arc::default(),
        }
    }

    fn text(text: &str) -> AttributeValue {
        AttributeValue::Text(text.into())
    }

    fn http(path: &str) -> Span {
        span(
            SpanKind::Server,
            &[
                ("http.request.method", text("GET")),
                ("http.route", text(path)),
                ("http.response.status_code", AttributeValue::Integer(200)),
            ],
        )
    }

    fn page(metrics: &RequestMetrics, format: Format) -> String {
        exposition::write(&metrics.families(Naming::Prometheus, UNIX_EPOCH), format)
    }

    #[test]
    fn requests_are_told_by_the_names_of_the_conventions() {
        let metrics = RequestMetrics::default();
        metrics.observe(Request::of(&http("/a/{id}"), true));
        let client = span(
            SpanKind::Client,
            &[
                ("http.request.method", text("POST")),
                ("http.route", text("/not/a/client's")),
                ("error.type", text("timeout")),
            ],
        );
        metrics.observe(Request::of(&client, false));
        let rpc = [
            ("rpc.system", text("grpc")),
            ("rpc.service", text("pkg.Users")),
            ("rpc.method", text("Get")),
            ("rpc.grpc.status_code", AttributeValue::Integer(0)),
        ];
        metrics.observe(Request::of(&span(SpanKind::Server, &rpc), false));
        metrics.observe(Request::of(&span(SpanKind::Client, &rpc), false));
        let page = page(&metrics, Format::OpenMetrics);
        for line in [
            "# TYPE http_server_request_duration_seconds histogram",
            "http_server_request_duration_seconds_bucket{service_name=\"shop\",http_request_method=\"GET\",http_route=\"/a/{id}\",http_response_status_code=\"200\",le=\"0.025\"} 0",
            "http_server_request_duration_seconds_bucket{service_name=\"shop\",http_request_method=\"GET\",http_route=\"/a/{id}\",http_response_status_code=\"200\",le=\"0.05\"} 1 # {trace_id=\"abababababababababababababababab\",span_id=\"cdcdcdcdcdcdcdcd\"} 0.03 1800000000.030",
            "http_client_request_duration_seconds_count{service_name=\"shop\",http_request_method=\"POST\",error_type=\"timeout\"} 1",
            "rpc_server_duration_seconds_sum{service_name=\"shop\",rpc_method=\"pkg.Users/Get\",rpc_grpc_status_code=\"0\"} 0.03",
            "rpc_client_duration_seconds_count{service_name=\"shop\",rpc_method=\"pkg.Users/Get\",rpc_grpc_status_code=\"0\"} 1",
        ] {
            assert!(page.lines().any(|it| it == line), "{line}\n{page}");
        }
        assert!(!self::page(&metrics, Format::Text).contains("trace_id"));
        let otel = metrics.families(Naming::OpenTelemetry, UNIX_EPOCH);
        assert_eq!(otel[0].name, "http.server.request.duration");
        assert_eq!(otel[0].samples[0].labels[1], ("http.request.method", "GET".to_owned()));
    }

    #[test]
    fn what_is_open_or_no_request_does_not_count() {
        assert_eq!(Request::of(&Span { end_unix_ns: None, ..http("/") }, true), None);
        assert_eq!(
            Request::of(&span(SpanKind::Internal, &[("http.request.method", text("GET"))]), true),
            None
        );
        assert_eq!(Request::of(&span(SpanKind::Server, &[("db.system", text("redis"))]), true), None);
    }

    #[test]
    fn series_are_bounded_and_what_finds_no_room_is_counted_together() {
        let metrics = RequestMetrics::default();
        let requests = 3 * MAX_SERIES as u64;
        for number in 0..requests {
            metrics.observe(Request::of(&http(&format!("/{number}")), true));
        }
        // Those that have a series keep it.
        metrics.observe(Request::of(&http("/0"), true));
        assert_eq!(metrics.series(), MAX_SERIES as u64 + 1);
        assert_eq!(metrics.in_other(), requests - MAX_SERIES as u64);
        let page = page(&metrics, Format::Text);
        let other = format!(
            "http_server_request_duration_seconds_count{{service_name=\"_other\",http_request_method=\"_other\",http_route=\"_other\"}} {}",
            metrics.in_other()
        );
        assert!(page.contains(&other));
        assert!(page.contains("http_route=\"/0\",http_response_status_code=\"200\"} 2"));
        assert_eq!(metrics.requests(), requests + 1);
    }

    #[test]
    fn exemplars_of_traces_that_are_gone_are_left_out_and_labels_are_not_endless() {
        let metrics = RequestMetrics::default();
        metrics.observe(Request::of(&http(&"ä".repeat(1000)), true));
        let later = UNIX_EPOCH + Duration::from_nanos(NOW + 1_000_000_000);
        let families = metrics.families(Naming::Prometheus, later);
        let Value::Histogram { exemplars, .. } = &families[0].samples[0].value else { panic!() };
        assert!(exemplars.iter().all(Option::is_none));
        assert_eq!(families[0].samples[0].labels[2].1.len(), MAX_LABEL_BYTES);
    }
}
