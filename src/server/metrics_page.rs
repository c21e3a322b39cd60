//! The page of metrics: put together from what the parts count, each time it is asked for.
//!
//! The names of the seed document are there from the beginning, those of signals that are not built yet
//! with 0 and a note in their HELP. `spanflame_losses_total{stage,reason}` tells why something was lost;
//! the sum over a stage's reasons is the counter of that stage.

mod requests_followed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::exports::ExporterStatus;
use super::intake::IntakeStatus;
use super::spans::SpanKeeperStatus;
use super::status::{commit, ebpf_state};
use super::{ApiError, App, RecorderStatus, off_the_executor};
use crate::kernel::EbpfState;
use crate::metrics::exposition::{self, Format};
use crate::metrics::own_process::OwnProcess;
use crate::metrics::requests::{Naming, RequestMetrics};
use crate::metrics::{Family, Kind, Value};
use crate::profile::ProfilerState;
use crate::store::Statistics;
use crate::trace::TracerStatus;

/// The path in the description of the API that stands for the configured one.
pub const PATH: &str = "/metrics";
/// What is said of counters of signals that do not exist yet.
const NOT_YET: &str = "(not produced yet)";

/// The route at [`PATH`], for its description.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// The route at the configured path.
pub fn at(path: &str) -> Router<Arc<App>> {
    Router::new().route(path, get(metrics))
}

/// Metrics for Prometheus
///
/// Text 0.0.4, or OpenMetrics 1.0 where `Accept` asks for it.
#[utoipa::path(get, path = "/metrics", tag = "metrics", responses((status = 200, content(
    (String = "text/plain; version=0.0.4; charset=utf-8"),
    (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
))))]
async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accepted: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted_by(&accepted.join(","));
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64;
    let text = off_the_executor(move || exposition::write(&families(&app, tasks), format)).await?;
    let kind = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    Ok((kind, text).into_response())
}

/// A page while it is written: every name begins with the prefix.
struct Page {
    prefix: String,
    families: Vec<Family>,
}

impl Page {
    fn add(&mut self, kind: Kind, name: &str, help: &str, fill: impl FnOnce(Family) -> Family) {
        self.families.push(fill(Family::new(kind, format!("{}_{name}", self.prefix), help)));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Into<Value>) {
        self.add(Kind::Counter, name, help, |family| family.value(value));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Value>) {
        self.add(Kind::Gauge, name, help, |family| family.value(value));
    }

    fn not_yet(&mut self, name: &str, help: &str) {
        self.counter(name, &format!("{help} {NOT_YET}"), 0_u64);
    }
}

/// The families that are exported: all but the counters of what does not exist yet, those of requests under the
/// names that OpenTelemetry has for them. Blocks.
pub fn exported_families(app: &App, tasks: u64) -> Vec<Family> {
    let mut families = own_families(app, tasks);
    families.retain(|family| !family.help.ends_with(NOT_YET));
    families.extend(request_families(app, Naming::OpenTelemetry));
    families.retain(|family| !family.samples.is_empty());
    families
}

/// All families. Blocks: the kernel and the store are asked.
fn families(app: &App, tasks: u64) -> Vec<Family> {
    let mut families = own_families(app, tasks);
    families.extend(request_families(app, Naming::Prometheus));
    families
}

/// Of the requests of others. Their names are those of the conventions, and have no prefix.
fn request_families(app: &App, naming: Naming) -> Vec<Family> {
    let kept = app.store.statistics();
    // Not the start of the oldest span: one that began long ago may have been written lately.
    let kept_since = UNIX_EPOCH + Duration::from_nanos(kept.removed_until_unix_ns);
    app.spans.requests().families(naming, kept_since)
}

/// Of spanflame itself.
fn own_families(app: &App, tasks: u64) -> Vec<Family> {
    let prefix = app.configuration().self_telemetry.prometheus_namespace.to_string();
    let mut page = Page { prefix, families: Vec::new() };
    let recorder = app.recorder.as_ref().map(|recorder| recorder.status()).unwrap_or_default();
    let exports = app.export_status();
    let spans = app.spans.status();
    collected(&mut page, &recorder, &exports, &spans);
    kernel(&mut page, &recorder, &ebpf_state(app));
    let intake = app.intake.status();
    let tracer = app.tracer.as_ref().map(|tracer| tracer.status()).unwrap_or_default();
    losses(&mut page, &recorder, &exports, &intake, &spans, &tracer);
    requests_followed::add(&mut page, &tracer);
    ingest(&mut page, &intake);
    export(&mut page, &exports);
    store(&mut page, &recorder, &app.store.statistics());
    requests(&mut page, app.spans.requests());
    http(&mut page, app);
    process(&mut page, app, tasks);
    page.families
}

fn collected(page: &mut Page, recorder: &RecorderStatus, exports: &ExporterStatus, spans: &SpanKeeperStatus) {
    page.counter(
        "spans_collected",
        "Spans collected; one that was told while it was open counts again when it has ended",
        spans.offered,
    );
    page.counter("spans_exported", "Spans exported successfully", exports.traces.exported);
    page.counter(
        "spans_dropped",
        "Spans dropped (queue full, errors) before they were stored",
        spans.lost().iter().map(|(_, count)| count).sum::<u64>(),
    );
    page.counter(
        "spans_left_to_sdks",
        "Spans kept and not exported, since their process exports its own",
        spans.left_to_sdks,
    );
    let help = "Processes that export spans of their own";
    page.gauge("self_exporting_processes", help, spans.self_exporters);
    let help = "Servers' spans that SDKs have sent here, by the evidence that joined them with ours or why they \
                stand beside them";
    page.add(Kind::Counter, "span_joins", help, |family| {
        let joins = &spans.joins;
        let family = joins.joined().iter().fold(family, |family, &(evidence, count)| {
            family.labelled(&[("outcome", "joined"), ("why", evidence)], count)
        });
        joins.apart().iter().fold(family, |family, &(reason, count)| {
            family.labelled(&[("outcome", "apart"), ("why", reason)], count)
        })
    });
    page.gauge("span_joins_waiting", "Spans of SDKs that wait for ours to come", spans.joins.waiting);
    let metrics = &exports.metrics;
    let collected = metrics.exported + metrics.dropped_in_all() + metrics.size;
    page.counter("metrics_collected", "Metrics collected", collected);
    page.counter("metrics_exported", "Metrics exported", metrics.exported);
    page.not_yet("logs_collected", "Logs collected");
    page.not_yet("logs_exported", "Logs exported");
    page.counter(
        "profiles_collected",
        "Profiles collected: windows of ten seconds, or shorter where a query or a flush has cut them",
        recorder.profiler.windows,
    );
    page.counter("profiles_exported", "Profiles exported", exports.profiles.exported);
}

fn kernel(page: &mut Page, recorder: &RecorderStatus, state: &EbpfState) {
    let profiler = &recorder.profiler;
    let help = "Samples in a span that the application named itself: thread context, labels of Go";
    page.counter("samples_named_by_application", help, profiler.said);
    let help = "Samples in a span that another tracer named, by the map otel/traces_ctx_v1, and nobody else";
    page.counter("samples_named_by_other_tracer", help, profiler.shared);
    let help = "Samples of processes with a language runtime, by how reading its frames ended";
    page.add(Kind::Counter, "runtime_samples", help, |family| {
        profiler.scripts.samples.iter().fold(family, |family, (&(runtime, end), &count)| {
            family.labelled(&[("runtime", runtime.name()), ("outcome", end.name())], count)
        })
    });
    let help = "Distinct frames of language runtimes, by what came of naming them";
    page.add(Kind::Counter, "runtime_frames", help, |family| {
        profiler.scripts.frames.iter().fold(family, |family, (&(runtime, outcome), &count)| {
            family.labelled(&[("runtime", runtime.name()), ("outcome", outcome)], count)
        })
    });
    let help = "Frames of interpreters that found no place in a machine stack that was cut";
    page.counter("runtime_frames_unplaced", help, profiler.scripts.unplaced);
    let attached = state.programs.iter().filter(|program| program.attached).count() as u64;
    page.gauge("ebpf_programs_loaded", "Number of eBPF programs", state.programs.len() as u64);
    page.gauge("ebpf_programs_attached", "Number of eBPF programs that events reach", attached);
    let entries: u64 = state.maps.iter().map(|map| map.entries).sum();
    page.gauge("ebpf_map_entries", "Entries in eBPF maps", entries);
    // Maps of different programs may have the same name (`.rodata.config`).
    let mut by_name: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for map in &state.maps {
        let (used, max) = by_name.entry(&map.name).or_default();
        (*used, *max) = (*used + map.entries, *max + map.max_entries);
    }
    page.add(Kind::Gauge, "ebpf_map_used_entries", "Entries in the eBPF maps of a name", |family| {
        by_name.iter().fold(family, |family, (name, (used, _))| family.labelled(&[("map", name)], *used))
    });
    page.add(
        Kind::Gauge,
        "ebpf_map_max_entries",
        "Entries that the eBPF maps of a name can have",
        |family| {
            by_name.iter().fold(family, |family, (name, (_, max))| family.labelled(&[("map", name)], *max))
        },
    );
    page.gauge("ebpf_map_memory_bytes", "Kernel memory of all eBPF maps", profiler.map_bytes);
    page.gauge("ebpf_ringbuf_size_bytes", "Size of the ring buffer", profiler.ring_buffer_bytes);
    page.counter("ebpf_ringbuf_events", "Ring buffer events received", profiler.arrived);
    page.counter("ebpf_ringbuf_lost", "Ring buffer events lost", profiler.lost.values().sum::<u64>());
    page.counter("ebpf_perf_events", "Perf buffer events: records about processes", profiler.process_records);
    page.counter("ebpf_perf_lost", "Perf buffer events lost", profiler.process_records_lost);
    page.counter("samples_taken", "Samples that the kernel side took", profiler.taken);
    let hertz = match profiler.state {
        ProfilerState::Running(hertz) => u64::from(hertz),
        ProfilerState::Paused | ProfilerState::Failed(_) => 0,
    };
    page.gauge("profiling_frequency_hertz", "Samples a second and CPU, 0 while none are taken", hertz);
}

fn losses(
    page: &mut Page,
    recorder: &RecorderStatus,
    exports: &ExporterStatus,
    intake: &IntakeStatus,
    spans: &SpanKeeperStatus,
    tracer: &TracerStatus,
) {
    let help = "What was lost, by stage and reason: events of the ring buffer (ringbuf), records about \
                processes (perf), samples (profile, store), items of export (export), requests and profiles \
                that were sent here (ingest), events of sockets \
                (sockets), connections that were let go (connections), spans (spans), joins of spans with an SDK's (joins)";
    page.add(Kind::Counter, "losses", help, |mut family| {
        let mut lost = |stage, reason: &str, count: u64| {
            let labelled = std::mem::replace(&mut family, Family::new(Kind::Counter, "", ""));
            family = labelled.labelled(&[("stage", stage), ("reason", reason)], count);
        };
        for (reason, count) in &recorder.profiler.lost {
            lost("ringbuf", reason, *count);
        }
        lost("perf", "ring_full", recorder.profiler.process_records_lost);
        for (reason, count) in &recorder.profiler.dropped {
            lost("profile", reason, *count);
        }
        lost("store", "write_failed", recorder.lost_samples);
        for (reason, count) in exports.lost() {
            lost("export", reason, count);
        }
        for (reason, count) in intake.refused.iter().chain(&intake.rejected) {
            lost("ingest", reason, *count);
        }
        for (stage, reason, count) in requests_followed::losses(tracer) {
            lost(stage, reason, count);
        }
        for (reason, count) in spans.lost() {
            lost("spans", reason, count);
        }
        lost("joins", "not_written", spans.joins_lost);
        family
    });
}

fn export(page: &mut Page, exports: &ExporterStatus) {
    page.counter("export_requests", "Export requests to backend", exports.requests());
    page.counter("export_errors", "Export errors", exports.errors());
    page.add(Kind::Histogram, "export_latency_seconds", "Export latency", |family| {
        family.value(exports.latency.clone())
    });
    page.add(Kind::Histogram, "export_batch_size", "Batch sizes", |family| {
        family.value(exports.batch_size.clone())
    });
    page.gauge(
        "export_queue_size",
        "Current queue depth",
        exports.signals().iter().map(|(_, signal)| signal.size).sum::<u64>(),
    );
}

fn ingest(page: &mut Page, intake: &IntakeStatus) {
    page.counter("ingest_requests", "Requests with profiles or spans that others sent here", intake.requests);
    page.counter("ingest_profiles", "Profiles of others that are in the store", intake.profiles);
    page.counter("ingest_samples", "Samples in them", intake.samples);
    page.counter("ingest_spans", "Spans of others that are in the store", intake.spans);
}

fn store(page: &mut Page, recorder: &RecorderStatus, store: &Statistics) {
    page.counter("windows_stored", "Windows of the profiler that are in the store", recorder.kept_windows);
    page.counter("samples_stored", "Samples of the profiler that are in the store", recorder.kept_samples);
    page.counter(
        "store_windows_written",
        "Windows written to the store, from wherever",
        store.windows_written,
    );
    page.counter("store_write_failures", "Windows that the store could not write", store.windows_failed);
    page.gauge("store_bytes", "Bytes of the store on disk", store.bytes);
    page.gauge("store_max_bytes", "Bytes that the store may take", store.max_bytes);
    page.gauge("store_windows", "Windows in the store", store.windows);
    page.counter("store_spans_written", "Spans written to the store, from wherever", store.spans_written);
    page.counter("store_span_write_failures", "Spans that the store could not write", store.spans_failed);
    page.gauge("store_spans", "Spans in the store, those that were replaced included", store.spans);
    page.add(Kind::Counter, "store_span_cuts", "What was cut off spans that were too large", |family| {
        let cuts = &store.span_cuts;
        family
            .labelled(&[("of", "attributes")], cuts.attributes)
            .labelled(&[("of", "events")], cuts.events)
            .labelled(&[("of", "links")], cuts.links)
            .labelled(&[("of", "texts")], cuts.texts)
    });
    page.gauge("store_segments", "Segments of the store", store.segments);
    page.gauge("store_open_series", "Series of the segment that is being written", store.open_series);
    let nodes = store.open_stack_nodes;
    page.gauge("store_open_stack_nodes", "Stack nodes of the segment that is being written", nodes);
    page.add(Kind::Counter, "store_segments_removed", "Segments removed, by why", |family| {
        family
            .labelled(&[("reason", "age")], store.segments_removed_by_age)
            .labelled(&[("reason", "size")], store.segments_removed_by_size)
    });
    let unreadable = store.set_aside.len() as u64;
    page.gauge("store_unreadable_segments", "Segments that could not be read and were set aside", unreadable);
}

fn requests(page: &mut Page, requests: &RequestMetrics) {
    page.counter("requests_measured", "Requests of others that count in histograms", requests.requests());
    page.gauge("request_series", "Series of those histograms", requests.series());
    page.counter(
        "request_series_overflow",
        "Requests that count in a series labelled _other, since there were too many series",
        requests.in_other(),
    );
}

fn http(page: &mut Page, app: &App) {
    let routes = app.requests.snapshot();
    page.add(Kind::Counter, "http_requests", "Requests answered", |mut family| {
        for route in &routes {
            for ((method, status), count) in &route.answers {
                let status = status.to_string();
                let labels = [("route", route.route.as_str()), ("method", *method), ("status", &status)];
                family = family.labelled(&labels, *count);
            }
        }
        family
    });
    page.add(Kind::Histogram, "http_request_duration_seconds", "Time until an answer began", |family| {
        routes.iter().fold(family, |family, route| {
            let (counts, exemplars) = (route.seconds.clone(), route.exemplars.clone());
            family.labelled(&[("route", &route.route)], Value::Histogram { counts, exemplars })
        })
    });
    page.gauge("http_requests_open", "Requests that are being answered", app.requests.open());
    page.gauge("http_connections_open", "Open connections", app.connections.open());
    page.counter("http_connections", "Connections accepted", app.connections.accepted());
}

fn process(page: &mut Page, app: &App, tasks: u64) {
    let own = OwnProcess::read();
    if let Some(seconds) = own.cpu_s {
        page.counter("process_cpu_seconds", "CPU time used", seconds);
    }
    let gauges = [
        ("process_resident_memory_bytes", "Memory usage", own.resident_bytes),
        ("process_virtual_memory_bytes", "Address space", own.virtual_bytes),
        ("process_open_fds", "Open file descriptors", own.open_descriptors),
        ("process_max_fds", "File descriptors that may be open", own.max_descriptors),
        ("process_threads", "Number of threads", own.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.gauge(name, help, value);
        }
    }
    page.gauge("tokio_tasks", "Number of asynchronous tasks that are alive", tasks);
    let started_s = app.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    page.gauge("process_start_time_seconds", "When it began to serve, since the Unix epoch", started_s);
    page.add(Kind::Gauge, "build_info", "What runs, always 1", |family| {
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", commit().unwrap_or_default())];
        family.labelled(&labels, 1_u64)
    });
}
