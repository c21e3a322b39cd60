//! Counts requests and how long their answers took to begin, by route.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::TraceContextExt as _;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::metrics::{Exemplar, Histogram, HistogramSnapshot};
use crate::server::App;

/// From what a health check takes to what a whole host over a day takes, in seconds.
const BOUNDS_S: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Requests by route, method and status. Routes are those of the router, so there are only so many.
#[derive(Debug, Default)]
pub struct RequestCounts {
    open: AtomicU64,
    routes: Mutex<BTreeMap<String, OfRoute>>,
}

#[derive(Debug)]
struct OfRoute {
    answers: BTreeMap<(&'static str, u16), u64>,
    seconds: Histogram,
    /// For each bucket the last request that was traced.
    exemplars: Vec<Option<Exemplar>>,
}

/// The counts of one route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSnapshot {
    /// As it stands in the router; empty for paths that are no route.
    pub route: String,
    /// Answers by method and status.
    pub answers: BTreeMap<(&'static str, u16), u64>,
    /// How long they took to begin.
    pub seconds: HistogramSnapshot,
    /// For each bucket the last request that was traced, by its trace.
    pub exemplars: Vec<Option<Exemplar>>,
}

impl RequestCounts {
    /// Requests that are being answered.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// All routes that were asked for, by name.
    #[must_use]
    pub fn snapshot(&self) -> Vec<RouteSnapshot> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = |(route, counts): (&String, &OfRoute)| RouteSnapshot {
            route: route.clone(),
            answers: counts.answers.clone(),
            seconds: counts.seconds.snapshot(),
            exemplars: counts.exemplars.clone(),
        };
        routes.iter().map(snapshot).collect()
    }

    fn count(&self, route: &str, method: &Method, status: u16, seconds: f64, trace_id: Option<String>) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if !routes.contains_key(route) {
            let exemplars = vec![None; BOUNDS_S.len() + 1];
            let counts = OfRoute { answers: BTreeMap::new(), seconds: Histogram::new(BOUNDS_S), exemplars };
            routes.insert(route.to_owned(), counts);
        }
        if let Some(counts) = routes.get_mut(route) {
            *counts.answers.entry((name_of(method), status)).or_default() += 1;
            counts.seconds.observe(seconds);
            let bucket = BOUNDS_S.partition_point(|&bound| bound < seconds);
            if let (Some(trace_id), Some(exemplar)) = (trace_id, counts.exemplars.get_mut(bucket)) {
                let labels = vec![("trace_id", trace_id)];
                *exemplar = Some(Exemplar { labels, value: seconds, time: SystemTime::now() });
            }
        }
    }
}

/// A client may invent methods, and each would be a series.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// One more that is being answered, until it is dropped: also when the client hangs up.
struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn begin(open: &'a AtomicU64) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The trace that a span is in, if it is one that leaves.
fn sampled_trace(span: &tracing::Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    (context.is_valid() && context.is_sampled()).then(|| context.trace_id().to_string())
}

/// Counts them.
pub async fn request_counts(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let _open = Open::begin(&app.requests.open);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {}", name_of(&method), route.as_deref().unwrap_or_default()).trim_end(),
        otel.kind = "server",
        http.request.method = name_of(&method),
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    let took = began.elapsed();
    let status = response.status().as_u16();
    let (route, seconds) = (route.as_deref().unwrap_or_default(), took.as_secs_f64());
    app.requests.count(route, &method, status, seconds, sampled_trace(&span));
    tracing::debug!(%method, path, status, duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "Answered");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_methods_are_one() {
        let counts = RequestCounts::default();
        for method in ["BREW", "WHEN"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a token");
            counts.count("/status", &method, 405, 0.002, None);
        }
        let snapshot = counts.snapshot();
        assert_eq!(snapshot.len(), 1);
        assert_eq!(snapshot[0].answers, BTreeMap::from([(("other", 405), 2)]));
        assert_eq!(snapshot[0].seconds.count(), 2);
    }

    #[test]
    fn the_last_traced_request_of_a_bucket_is_kept() {
        let counts = RequestCounts::default();
        for (seconds, trace) in [(0.002, Some("a")), (0.002, Some("b")), (0.002, None), (100.0, Some("c"))] {
            counts.count("/status", &Method::GET, 200, seconds, trace.map(ToOwned::to_owned));
        }
        let snapshot = counts.snapshot().remove(0);
        let traces: Vec<(usize, &str)> = snapshot
            .exemplars
            .iter()
            .enumerate()
            .filter_map(|(bucket, exemplar)| Some((bucket, exemplar.as_ref()?.labels.first()?.1.as_str())))
            .collect();
        assert_eq!(traces, [(1, "b"), (BOUNDS_S.len(), "c")]);
        assert_eq!(snapshot.exemplars.len(), snapshot.seconds.counts.len());
    }
}
