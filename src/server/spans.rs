//! What becomes of the spans that the tracer makes: they are kept, sent on, and counted as requests.
//!
//! Comes in: batches of spans, and requests that have no span because they are not sampled; spans that SDKs have
//! sent and that are in the store. Goes out: spans into the store first and to the exporter then; what joins ours
//! and an SDK's; every ended request into the metrics, with an exemplar only if its span is in the store. Never: a
//! wait of whoever offers; what finds no room is dropped and counted.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::self_exporters::SelfExporters;
use crate::export::otlp_client::OtlpExporter;
use crate::kernel::monotonic_ns;
use crate::metrics::requests::{Request, RequestMetrics};
use crate::model::{Span, SpanKind, UnsampledRequest};
use crate::store::{StoreError, WindowStore};
use crate::trace::joining::{JoinCounts, Joiner};

/// How many batches may wait for the disk.
const BATCH_QUEUE: usize = 256;
/// How many spans may: a few hundred bytes each in memory with all they hold.
const MAX_WAITING_SPANS: u64 = 100_000;
/// Small batches are written together, up to about so many spans…
const WRITE_SPANS: usize = 4096;
/// … and so long after the first of them came: a transaction rewrites half a dozen pages however small it is.
/// A query does not wait for it.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is looked whether SDKs' spans that wait are ours.
const JOIN_INTERVAL: Duration = Duration::from_millis(500);
/// How long a flush waits.
const FLUSH_LIMIT: Duration = Duration::from_secs(20);

/// What the tracer has at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpanBatch {
    /// Spans that are kept and sent on. Those that are open are sent on when they have ended.
    pub spans: Vec<Span>,
    /// Spans that are kept and not sent on: their process sends its own.
    pub not_exported: Vec<Span>,
}

impl SpanBatch {
    fn spans(&self) -> u64 {
        (self.spans.len() + self.not_exported.len()) as u64
    }
}

enum Message {
    Batch(SpanBatch),
    /// Servers' spans that SDKs have sent.
    Received(Vec<Span>),
    /// Answered when all that came before is done with.
    Flush(Sender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    offered: AtomicU64,
    waiting: AtomicU64,
    kept: AtomicU64,
    queue_full: AtomicU64,
    write_failed: AtomicU64,
    left_to_sdks: AtomicU64,
    joins: Mutex<JoinCounts>,
    joins_lost: AtomicU64,
}

/// What became of the spans so far. `offered` = `kept` + losses + `waiting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanKeeperStatus {
    /// Spans that the tracer has made; one that was written while it was open counts twice.
    pub offered: u64,
    /// Spans that wait for the disk.
    pub waiting: u64,
    /// Spans that are in the store.
    pub kept: u64,
    /// Spans that found no room in the queue.
    pub queue_full: u64,
    /// Spans that the store did not take.
    pub write_failed: u64,
    /// Spans that are kept and not exported, since their process exports its own.
    pub left_to_sdks: u64,
    /// Processes that export spans of their own.
    pub self_exporters: u64,
    /// What became of servers' spans that SDKs have sent.
    pub joins: JoinCounts,
    /// … of which what joins them with ours could not be kept: they stand beside each other.
    pub joins_lost: u64,
}

impl SpanKeeperStatus {
    /// Spans that were lost, by reason; every reason there is.
    #[must_use]
    pub fn lost(&self) -> [(&'static str, u64); 2] {
        [("queue_full", self.queue_full), ("write_failed", self.write_failed)]
    }
}

/// See the module's description.
pub struct SpanKeeper {
    queue: Mutex<Option<Sender<Message>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
    requests: Arc<RequestMetrics>,
    self_exporters: Arc<SelfExporters>,
    /// Whether SDKs may send spans here.
    is_receiving: Arc<AtomicBool>,
}

impl SpanKeeper {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// What the system refused.
    pub fn start(store: Arc<dyn WindowStore>, exporter: Arc<OtlpExporter>) -> std::io::Result<Self> {
        let (queue, received) = bounded(BATCH_QUEUE);
        let (counts, requests) = (Arc::<Counts>::default(), Arc::<RequestMetrics>::default());
        let (self_exporters, is_receiving) = (Arc::<SelfExporters>::default(), Arc::<AtomicBool>::default());
        let mut worker = Worker {
            store,
            exporter,
            counts: Arc::clone(&counts),
            requests: Arc::clone(&requests),
            self_exporters: Arc::clone(&self_exporters),
            is_receiving: Arc::clone(&is_receiving),
            joiner: Joiner::default(),
        };
        let writer = std::thread::Builder::new()
            .name("span-writer".to_owned())
            .spawn(move || worker.run(&received))?;
        let (queue, writer) = (Mutex::new(Some(queue)), Mutex::new(Some(writer)));
        Ok(Self { queue, writer, counts, requests, self_exporters, is_receiving })
    }

    /// Takes a batch, or counts that there was no room for its spans. Never blocks.
    pub fn offer(&self, mut batch: SpanBatch) {
        let spans = batch.spans();
        if spans == 0 {
            return;
        }
        self.counts.offered.fetch_add(spans, Ordering::Relaxed);
        let waiting = self.counts.waiting.load(Ordering::Relaxed);
        let result = match self.queue() {
            Some(queue) if waiting == 0 || waiting.saturating_add(spans) <= MAX_WAITING_SPANS => {
                self.counts.waiting.fetch_add(spans, Ordering::Relaxed);
                let result = queue.try_send(Message::Batch(batch));
                result.map_err(|error| {
                    self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
                    match error.into_inner() {
                        Message::Batch(batch) => batch,
                        Message::Received(_) | Message::Flush(_) => SpanBatch::default(),
                    }
                })
            }
            _ => Err(std::mem::take(&mut batch)),
        };
        if let Err(batch) = result {
            self.counts.queue_full.fetch_add(spans, Ordering::Relaxed);
            // They count as requests all the same.
            let without_span = |span: &Span| Request::of(span, false);
            self.requests.observe(batch.spans.iter().chain(&batch.not_exported).filter_map(without_span));
        }
    }

    /// Takes requests into account that have ended and have no span, since they are not sampled. Waits for nobody but
    /// those who add some or read the figures.
    pub fn observe_unsampled(&self, requests: &[UnsampledRequest]) {
        self.requests.observe_unsampled(requests);
    }

    /// SDKs may send spans here from now on: ours are kept for a while to be compared with them.
    pub fn expect_received(&self) {
        self.is_receiving.store(true, Ordering::Relaxed);
    }

    /// SDKs have sent these spans, which are in the store: those that are ours too are joined. Never blocks;
    /// without room they stay beside ours.
    pub fn received(&self, spans: &[Span]) {
        let of_servers: Vec<Span> =
            spans.iter().filter(|span| span.kind == SpanKind::Server).cloned().collect();
        if of_servers.is_empty() {
            return;
        }
        let count = of_servers.len() as u64;
        let is_taken =
            self.queue().is_some_and(|queue| queue.try_send(Message::Received(of_servers)).is_ok());
        if !is_taken {
            self.counts.joins_lost.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Who exports spans of their own.
    #[must_use]
    pub fn self_exporters(&self) -> &SelfExporters {
        &self.self_exporters
    }

    /// So many spans are not exported, since their processes export their own.
    pub fn count_left_to_sdks(&self, spans: usize) {
        self.counts.left_to_sdks.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Waits until everything that was offered before is in the store, or lost. Blocks. Returns whether that
    /// was in time.
    pub fn flush(&self) -> bool {
        let Some(queue) = self.queue() else { return true };
        let (done, is_done) = bounded(1);
        match queue.send_timeout(Message::Flush(done), FLUSH_LIMIT) {
            Ok(()) => is_done.recv_timeout(FLUSH_LIMIT).is_ok(),
            Err(_) => false,
        }
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn status(&self) -> SpanKeeperStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SpanKeeperStatus {
            offered: count(&self.counts.offered),
            waiting: count(&self.counts.waiting),
            kept: count(&self.counts.kept),
            queue_full: count(&self.counts.queue_full),
            write_failed: count(&self.counts.write_failed),
            left_to_sdks: count(&self.counts.left_to_sdks),
            self_exporters: self.self_exporters.count() as u64,
            joins: *self.counts.joins.lock().unwrap_or_else(PoisonError::into_inner),
            joins_lost: count(&self.counts.joins_lost),
        }
    }

    /// The requests that were counted.
    #[must_use]
    pub fn requests(&self) -> &RequestMetrics {
        &self.requests
    }

    /// Ends, once everything that was offered is in the store and handed on. Blocks.
    pub fn stop(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }

    fn queue(&self) -> Option<Sender<Message>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SpanKeeper {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    store: Arc<dyn WindowStore>,
    exporter: Arc<OtlpExporter>,
    counts: Arc<Counts>,
    requests: Arc<RequestMetrics>,
    self_exporters: Arc<SelfExporters>,
    is_receiving: Arc<AtomicBool>,
    joiner: Joiner,
}

impl Worker {
    fn run(&mut self, received: &Receiver<Message>) {
        loop {
            let first = match self.joiner.is_waiting() {
                true => received.recv_timeout(JOIN_INTERVAL),
                false => received.recv().map_err(Into::into),
            };
            let (mut all, mut flushed) = (SpanBatch::default(), Vec::new());
            let write_at = Instant::now() + WRITE_INTERVAL;
            let mut next = match first {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(message) = next.take() {
                match message {
                    Message::Batch(mut batch) => {
                        all.spans.append(&mut batch.spans);
                        all.not_exported.append(&mut batch.not_exported);
                    }
                    Message::Received(spans) => {
                        let now_ns = monotonic_ns();
                        spans.iter().for_each(|span| self.joiner.take_theirs(span, now_ns));
                    }
                    Message::Flush(done) => flushed.push(done),
                }
                if flushed.is_empty() && all.spans.len() + all.not_exported.len() < WRITE_SPANS {
                    next = received.recv_deadline(write_at).ok();
                }
            }
            self.write(all);
            self.join();
            for done in flushed {
                // Whoever waited may have gone.
                let _ = done.try_send(());
            }
        }
    }

    /// Writes down which of ours are SDKs', as far as that is known by now.
    fn join(&mut self) {
        let joins = self.joiner.settle(monotonic_ns());
        for join in &joins {
            self.self_exporters.was_joined(&join.write[0]);
        }
        let count = joins.len() as u64;
        let spans: Vec<Span> = joins.into_iter().flat_map(|join| join.write).collect();
        let why = match spans.as_slice() {
            [] => None,
            spans => match std::panic::catch_unwind(AssertUnwindSafe(|| self.store.write_spans(spans))) {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("please report it".to_owned()),
            },
        };
        if let Some(why) = why {
            tracing::error!("{count} spans stay beside those of SDKs that are the same: {why}");
            self.counts.joins_lost.fetch_add(count, Ordering::Relaxed);
        }
        *self.counts.joins.lock().unwrap_or_else(PoisonError::into_inner) = self.joiner.counts();
    }

    fn write(&mut self, batch: SpanBatch) {
        let exported: Arc<[Span]> = batch.spans.into();
        for spans in [&*exported, &batch.not_exported] {
            if spans.is_empty() {
                continue;
            }
            let count = spans.len() as u64;
            // A mistake of ours in one batch must not be the end of all others.
            let written = std::panic::catch_unwind(AssertUnwindSafe(|| self.store.write_spans(spans)));
            let stored = match written {
                Ok(Ok(())) => spans.len(),
                Ok(Err(error)) => {
                    let stored = match error {
                        StoreError::PartlyWritten { written, .. } => written,
                        _ => 0,
                    };
                    tracing::error!("{} spans are lost: {error}", spans.len().saturating_sub(stored));
                    stored
                }
                Err(_) => {
                    tracing::error!("{count} spans are lost; please report it");
                    0
                }
            };
            let (stored, lost) = spans.split_at(stored.min(spans.len()));
            self.counts.kept.fetch_add(stored.len() as u64, Ordering::Relaxed);
            self.counts.write_failed.fetch_add(lost.len() as u64, Ordering::Relaxed);
            if self.is_receiving.load(Ordering::Relaxed) {
                let now_ns = monotonic_ns();
                stored.iter().for_each(|span| self.joiner.take_ours(span, now_ns));
            }
            self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
            self.requests.observe(stored.iter().filter_map(|span| Request::of(span, true)));
            self.requests.observe(lost.iter().filter_map(|span| Request::of(span, false)));
        }
        self.exporter.offer_spans(exported);
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::{Request as HttpRequest, State};
    use axum::response::Response;
    use tokio::runtime::Handle;

    use super::*;
    use crate::config::{Compression, Otlp, Protocol};
    use crate::ingest::{Limits, read_spans};
    use crate::metrics::requests::Naming;
    use crate::metrics::{Family, Value};
    use crate::model::span::{AttributeValue, SpanId, SpanKind, SpanResource, SpanStatus, TraceId};
    use crate::store::{Options, SqliteStore};

    const NOW: u64 = 1_800_000_000_000_000_000;

    fn span(number: u64) -> Span {
        let text = |text: &str| AttributeValue::Text(text.into());
        Span {
            trace_id: TraceId::new([7; 16]).unwrap(),
            span_id: SpanId::new((number + 1).to_be_bytes()).unwrap(),
            parent_span_id: None,
            trace_state: String::new(),
            name: "GET /".to_owned(),
            kind: SpanKind::Server,
            start_unix_ns: NOW,
            end_unix_ns: Some(NOW + 1_000_000),
            status: SpanStatus::Unset,
            status_message: String::new(),
            attributes: vec![("http.request.method".into(), text("GET"))],
            events: Vec::new(),
            links: Vec::new(),
            resource: Arc::new(SpanResource { attributes: vec![("service.name".into(), text("shop"))] }),
            scope: Arc::new(("spanflame".to_owned(), "0.1.0".to_owned())),
        }
    }

    type Bodies = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

    async fn keep_body(State(bodies): State<Bodies>, request: HttpRequest) -> Response {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        let kind = head.headers["content-type"].to_str().unwrap().to_owned();
        bodies.lock().unwrap().push((head.uri.path().to_owned(), kind.clone(), body));
        let answer = if kind == "application/grpc" { vec![0; 5] } else { Vec::new() };
        let response = Response::builder().header("content-type", kind).header("grpc-status", "0");
        response.body(axum::body::Body::from(answer)).unwrap()
    }

    async fn receiver() -> (Bodies, u16) {
        let bodies = Bodies::default();
        let router = Router::new().fallback(keep_body).with_state(Arc::clone(&bodies));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (bodies, port)
    }

    fn exporter(port: u16, protocol: Protocol, enabled: bool) -> Arc<OtlpExporter> {
        let mut otlp = Otlp { protocol, insecure: true, compression: Compression::None, ..Otlp::default() };
        otlp.endpoint = Some(crate::config::Endpoint {
            scheme: None,
            host: "127.0.0.1".to_owned(),
            port: Some(port),
            path: String::new(),
        });
        otlp.traces.enabled = enabled;
        Arc::new(OtlpExporter::start(&otlp, Handle::current()).unwrap())
    }

    fn store() -> (tempfile::TempDir, Arc<SqliteStore>) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(Options::new(folder.path())).unwrap();
        (folder, Arc::new(store))
    }

    /// Requests counted, and exemplars of them.
    fn measured(keeper: &SpanKeeper) -> (u64, usize) {
        let families = keeper.requests().families(Naming::Prometheus, std::time::UNIX_EPOCH);
        let of = |family: &Family| {
            family.samples.iter().fold((0, 0), |(count, known), sample| match &sample.value {
                Value::Histogram { counts, exemplars } => {
                    (count + counts.count(), known + exemplars.iter().flatten().count())
                }
                Value::Number(_) => (count, known),
            })
        };
        families.iter().map(of).fold((0, 0), |(one, two), (three, four)| (one + three, two + four))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn spans_are_kept_sent_by_every_protocol_and_counted() {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson] {
            let (bodies, port) = receiver().await;
            let exporter = exporter(port, protocol, true);
            let (_folder, store) = store();
            let keeper = SpanKeeper::start(Arc::<SqliteStore>::clone(&store), Arc::clone(&exporter)).unwrap();
            let open = Span { end_unix_ns: None, ..span(2) };
            let unsampled = UnsampledRequest {
                kind: SpanKind::Server,
                is_rpc: false,
                resource: Arc::clone(&span(9).resource),
                http_method: Some("GET".into()),
                rpc: None,
                path: None,
                route: None,
                status_code: None,
                error: None,
                duration_ns: 1,
                end_unix_ns: 2,
            };
            keeper.offer(SpanBatch { spans: vec![span(0), span(1), open], not_exported: vec![span(3)] });
            keeper.observe_unsampled(&[unsampled]);
            keeper.offer(SpanBatch { spans: vec![span(2)], ..SpanBatch::default() });
            assert!(keeper.flush());
            assert_eq!(exporter.flush(Duration::from_secs(20)).await, 0);
            let status = keeper.status();
            assert_eq!((status.offered, status.kept, status.waiting), (5, 5, 0));
            assert_eq!(store.trace(span(0).trace_id).unwrap().len(), 4);
            // Three with a span that is sent, one that is not, one without.
            assert_eq!(measured(&keeper), (5, 1), "{protocol:?}");
            assert_eq!(exporter.status().traces.exported, 3);
            let mut sent = Vec::new();
            for (path, kind, mut body) in bodies.lock().unwrap().drain(..) {
                match kind.as_str() {
                    "application/grpc" => {
                        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                        body.drain(..5);
                    }
                    "application/json" => {
                        let schema = &crate::export::otlp_schema::TRACES_REQUEST;
                        body = crate::ingest::otlp_json::to_protobuf(&body, schema).unwrap();
                    }
                    _ => assert_eq!(path, "/v1/traces"),
                }
                sent.extend(read_spans(&body, &Limits::default(), NOW).unwrap().spans);
            }
            assert_eq!(sent, [span(0), span(1), span(2)], "{protocol:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_sent_unless_traces_are_and_what_comes_after_the_end_is_counted() {
        let (bodies, port) = receiver().await;
        let exporter = exporter(port, Protocol::HttpProtobuf, false);
        let (_folder, store) = store();
        let keeper = SpanKeeper::start(store, Arc::clone(&exporter)).unwrap();
        keeper.offer(SpanBatch { spans: vec![span(0)], ..SpanBatch::default() });
        assert!(keeper.flush());
        assert_eq!(measured(&keeper), (1, 1));
        keeper.stop();
        keeper.offer(SpanBatch { spans: vec![span(0)], ..SpanBatch::default() });
        assert_eq!(keeper.status().queue_full, 1);
        assert_eq!(measured(&keeper).0, 2);
        assert!(bodies.lock().unwrap().is_empty());
        assert_eq!(exporter.status().traces.dropped_in_all(), 0);
    }
}
