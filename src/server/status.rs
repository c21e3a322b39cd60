//! `/status` and what is below it: what runs here, what is in the kernel, what leaves, what was found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::discovery::{FoundService, found_services};
use super::exports::{ExportHealth, SignalStatus};
use super::{ApiError, App, MODE, Way, off_the_executor};
use crate::kernel::EbpfState;
use crate::model::rfc3339;
use crate::process::machine::Machine;
use crate::profile::{ProfilerState, ProfilerStatus};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(ebpf))
        .routes(routes!(export))
        .routes(routes!(discovery))
}

/// What runs here.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    /// Of this program.
    version: &'static str,
    /// Of its source; null if it was not built in a repository.
    commit: Option<&'static str>,
    /// When it was built.
    built: Option<String>,
    /// How long it has run, such as `24h15m30s`.
    uptime: String,
    /// `agent`.
    mode: &'static str,
    host: Host,
    ebpf: EbpfSummary,
    profiling: Profiling,
    tracing: Tracing,
    export: ExportSummary,
    discovery: DiscoverySummary,
}

#[derive(Debug, Serialize, ToSchema)]
struct Host {
    name: String,
    /// `linux`.
    os: &'static str,
    /// `amd64` or `arm64`, as Go has it.
    arch: &'static str,
    /// The kernel's release.
    kernel: String,
    /// Model of the CPU; null if the machine does not tell.
    cpu_model: Option<String>,
    /// CPUs that this process may use.
    cpus: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
struct EbpfSummary {
    enabled: bool,
    programs_loaded: u64,
    maps_created: u64,
    /// Bytes.
    ringbuf_size: u64,
    context_propagation: ContextPropagation,
}

/// How the context of a request goes on to where it is sent, if its program sends none.
#[derive(Debug, Serialize, ToSchema)]
struct ContextPropagation {
    tcp_option: PropagationWay,
    http_header: PropagationWay,
}

#[derive(Debug, Serialize, ToSchema)]
struct PropagationWay {
    /// `on`, `off` (nobody asked for it), `refused`.
    state: &'static str,
    /// Why it was refused, else null.
    reason: Option<String>,
}

impl PropagationWay {
    fn of(way: &Way) -> Self {
        match way {
            Way::On => Self { state: "on", reason: None },
            Way::Off => Self { state: "off", reason: None },
            Way::Refused(reason) => Self { state: "refused", reason: Some(reason.clone()) },
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Profiling {
    enabled: bool,
    /// Samples a second and CPU.
    sample_rate: u64,
    /// Windows of ten seconds, or shorter where a query or a flush has cut them.
    profiles_collected: u64,
}

/// Requests that are followed, and of which of them spans are kept.
#[derive(Debug, Serialize, ToSchema)]
struct Tracing {
    enabled: bool,
    /// The limit of spans a second; null if there is none.
    max_spans_per_second: Option<u64>,
    /// The share of traces that is sampled now where no parent has decided: the configured one, or what the limit
    /// leaves of it.
    share: f64,
    /// Requests that have ended.
    requests: u64,
    not_sampled: NotSampled,
}

/// Requests without a span, by what has decided that.
#[derive(Debug, Serialize, ToSchema)]
struct NotSampled {
    /// The caller's context.
    parent: u64,
    /// The configured share.
    share: u64,
    /// The limit of spans a second.
    limit: u64,
}

impl Tracing {
    fn of(app: &App) -> Self {
        let configuration = app.configuration();
        let spans = app.tracer.as_ref().map(|tracer| tracer.status().spans);
        let limit = configuration.agent.ebpf.network.max_spans_per_second.get();
        let enabled = spans.is_some();
        let spans = spans.unwrap_or_default();
        let crate::trace::NotSampled { parent, share, limit: by_limit } = spans.not_sampled;
        Self {
            enabled,
            max_spans_per_second: (limit > 0).then_some(limit),
            share: configuration.otlp.traces.sample_rate.get() * if enabled { spans.share } else { 1.0 },
            requests: spans.server_requests + spans.client_requests,
            not_sampled: NotSampled { parent, share, limit: by_limit },
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct ExportSummary {
    /// Null where nothing is exported.
    endpoint: Option<String>,
    connected: bool,
    last_export: Option<String>,
    spans_exported: u64,
    metrics_exported: u64,
    profiles_exported: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct DiscoverySummary {
    kubernetes: bool,
    docker: bool,
    pods_discovered: u64,
    containers_discovered: u64,
}

/// What runs here
#[utoipa::path(get, path = "/status", tag = "status", responses((status = 200, body = Status)))]
async fn status(State(app): State<Arc<App>>) -> Result<Json<Status>, ApiError> {
    off_the_executor(move || {
        let configuration = app.configuration();
        let profiler = profiler_status(&app);
        let state = ebpf_state(&app);
        let (exports, health) = (app.export_status(), app.export_health());
        let ways = app.tracer.as_ref().map(|tracer| tracer.context_ways().clone()).unwrap_or_default();
        let system = rustix::system::uname();
        let machine = Machine::this();
        Json(Status {
            version: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            built: built().map(rfc3339::to_second),
            uptime: shown(app.started.elapsed()),
            mode: MODE,
            host: Host {
                name: system.nodename().to_string_lossy().into_owned(),
                os: std::env::consts::OS,
                arch: architecture(),
                kernel: machine.kernel,
                cpu_model: machine.cpu_model,
                cpus: machine.cpus,
            },
            ebpf: EbpfSummary {
                enabled: is_sampling(&app, &profiler),
                programs_loaded: state.programs.len() as u64,
                maps_created: state.maps.len() as u64,
                ringbuf_size: profiler.ring_buffer_bytes,
                context_propagation: ContextPropagation {
                    tcp_option: PropagationWay::of(&ways.tcp_option),
                    http_header: PropagationWay::of(&ways.http_header),
                },
            },
            profiling: Profiling {
                enabled: app.recorder.is_some() && configuration.agent.profiling.enabled,
                sample_rate: configuration.agent.profiling.sample_rate.get(),
                profiles_collected: profiler.windows,
            },
            tracing: Tracing::of(&app),
            export: ExportSummary {
                endpoint: configuration.otlp.endpoint.as_ref().map(ToString::to_string),
                connected: health == ExportHealth::Ok,
                last_export: exports.last_export.map(rfc3339::to_second),
                spans_exported: exports.traces.exported,
                metrics_exported: exports.metrics.exported,
                profiles_exported: exports.profiles.exported,
            },
            discovery: DiscoverySummary {
                kubernetes: false,
                docker: false,
                pods_discovered: 0,
                containers_discovered: 0,
            },
        })
    })
    .await
}

/// What is in the kernel.
#[derive(Debug, Serialize, ToSchema)]
struct Ebpf {
    enabled: bool,
    programs: Vec<Program>,
    maps: Vec<Map>,
    ringbuf: RingBuffer,
}

#[derive(Debug, Serialize, ToSchema)]
struct Program {
    name: String,
    /// As `bpftool prog` says, such as `perf_event`.
    r#type: String,
    attached: bool,
    /// As `bpftool prog` says.
    id: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct Map {
    name: String,
    /// As `bpftool map` says, such as `hash`.
    r#type: String,
    /// In use; of a ring buffer the bytes that wait to be read.
    entries: u64,
    /// Of a ring buffer its bytes.
    max_entries: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct RingBuffer {
    /// Bytes.
    size: u64,
    /// Samples that arrived.
    events_received: u64,
    /// Samples that were lost on their way.
    events_lost: u64,
}

/// What is in the kernel
#[utoipa::path(get, path = "/status/ebpf", tag = "status", responses((status = 200, body = Ebpf)))]
async fn ebpf(State(app): State<Arc<App>>) -> Result<Json<Ebpf>, ApiError> {
    off_the_executor(move || {
        let profiler = profiler_status(&app);
        let state = ebpf_state(&app);
        let programs = state.programs.into_iter().map(|program| Program {
            name: program.name,
            r#type: program.kind,
            attached: program.attached,
            id: program.id,
        });
        let maps = state.maps.into_iter().map(|map| Map {
            name: map.name,
            r#type: map.kind,
            entries: map.entries,
            max_entries: map.max_entries,
        });
        Json(Ebpf {
            enabled: is_sampling(&app, &profiler),
            programs: programs.collect(),
            maps: maps.collect(),
            ringbuf: RingBuffer {
                size: profiler.ring_buffer_bytes,
                events_received: profiler.arrived,
                events_lost: profiler.lost.values().sum(),
            },
        })
    })
    .await
}

/// What leaves this host.
#[derive(Debug, Serialize, ToSchema)]
struct Export {
    /// Null where nothing is exported.
    endpoint: Option<String>,
    /// `grpc`, `http/protobuf` or `http/json`.
    protocol: Option<&'static str>,
    tls: bool,
    /// `gzip` or `none`.
    compression: Option<&'static str>,
    connected: bool,
    last_export: Option<String>,
    last_error: Option<String>,
    queues: Queues,
}

#[derive(Debug, Serialize, ToSchema)]
struct Queues {
    traces: Queue,
    metrics: Queue,
    /// There are none.
    logs: Queue,
    profiles: Queue,
}

#[derive(Debug, Serialize, ToSchema)]
struct Queue {
    /// Items that wait.
    size: u64,
    capacity: u64,
    exported: u64,
    dropped: u64,
}

impl From<&SignalStatus> for Queue {
    fn from(signal: &SignalStatus) -> Self {
        let (size, capacity, exported) = (signal.size, signal.capacity, signal.exported);
        Self { size, capacity, exported, dropped: signal.dropped_in_all() }
    }
}

/// Whether programs are wanted in the kernel, as `/ready` says it: while sampling is paused there are none.
fn is_sampling(app: &App, profiler: &ProfilerStatus) -> bool {
    app.recorder.is_some() && profiler.state != ProfilerState::Paused
}

/// What leaves this host
#[utoipa::path(get, path = "/status/export", tag = "status", responses((status = 200, body = Export)))]
async fn export(State(app): State<Arc<App>>) -> Result<Json<Export>, ApiError> {
    off_the_executor(move || {
        let configuration = app.configuration();
        let otlp = &configuration.otlp;
        let exports = app.export_status();
        let (connected, unreachable) = match app.export_health() {
            ExportHealth::Ok => (true, None),
            ExportHealth::Disabled => (false, None),
            ExportHealth::Failed(reason) => (false, Some(reason)),
        };
        Json(Export {
            endpoint: otlp.endpoint.as_ref().map(ToString::to_string),
            protocol: otlp.endpoint.as_ref().map(|_| otlp.protocol.as_str()),
            tls: otlp.endpoint.is_some() && otlp.uses_tls(),
            compression: otlp.endpoint.as_ref().map(|_| otlp.compression.as_str()),
            connected,
            last_export: exports.last_export.map(rfc3339::to_second),
            last_error: exports.last_error.or(unreachable),
            queues: Queues {
                traces: (&exports.traces).into(),
                metrics: (&exports.metrics).into(),
                logs: Queue { size: 0, capacity: 0, exported: 0, dropped: 0 },
                profiles: (&exports.profiles).into(),
            },
        })
    })
    .await
}

/// What was found on this host.
#[derive(Debug, Serialize, ToSchema)]
struct Discovery {
    kubernetes: Kubernetes,
    docker: Docker,
    /// Empty: no cloud is asked.
    #[schema(value_type = Object)]
    cloud: BTreeMap<String, String>,
    /// The services whose processes live.
    discovered_services: Vec<FoundService>,
}

/// Not asked.
#[derive(Debug, Serialize, ToSchema)]
struct Kubernetes {
    enabled: bool,
    connected: bool,
    cluster: Option<String>,
    namespace: Option<String>,
    pods_watched: u64,
    services_watched: u64,
}

/// Not asked.
#[derive(Debug, Serialize, ToSchema)]
struct Docker {
    enabled: bool,
    connected: bool,
    containers: u64,
}

/// What was found on this host
#[utoipa::path(get, path = "/status/discovery", tag = "status", responses((status = 200, body = Discovery)))]
async fn discovery(State(app): State<Arc<App>>) -> Result<Json<Discovery>, ApiError> {
    off_the_executor(move || {
        let runtimes = profiler_status(&app).runtimes;
        Json(Discovery {
            kubernetes: Kubernetes {
                enabled: false,
                connected: false,
                cluster: None,
                namespace: None,
                pods_watched: 0,
                services_watched: 0,
            },
            docker: Docker { enabled: false, connected: false, containers: 0 },
            cloud: BTreeMap::new(),
            discovered_services: found_services(&runtimes),
        })
    })
    .await
}

/// What the profiler has done; nothing without one.
pub(super) fn profiler_status(app: &App) -> ProfilerStatus {
    app.recorder.as_ref().map(|recorder| recorder.status().profiler).unwrap_or_default()
}

/// The maps that say who is at which request.
const SHARED_MAPS: [&str; 3] = ["threads", "goroutines", "go_processes"];

/// What is in the kernel; nothing while neither the profiler nor the tracer runs. Blocks.
pub(super) fn ebpf_state(app: &App) -> EbpfState {
    let mut state = app.recorder.as_ref().and_then(|recorder| recorder.inspect()).unwrap_or_default();
    if let Some(of_tracer) = app.tracer.as_ref().and_then(|tracer| tracer.inspect()) {
        state.programs.extend(of_tracer.programs);
        // The sampler looks into some maps of the tracer.
        state.maps.retain(|map| !SHARED_MAPS.contains(&map.name.as_str()));
        state.maps.extend(of_tracer.maps);
    }
    state
}

/// The commit that was built, if that is known.
pub(super) fn commit() -> Option<&'static str> {
    Some(env!("SPANFLAME_COMMIT")).filter(|commit| !commit.is_empty())
}

/// When that was.
fn built() -> Option<SystemTime> {
    let seconds = env!("SPANFLAME_BUILT_UNIX_S").parse().ok().filter(|&seconds| seconds > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// As Go shows durations, to the second: `24h15m30s`, `1m0s`, `9s`.
fn shown(duration: Duration) -> String {
    let (hours, minutes, seconds) =
        (duration.as_secs() / 3600, duration.as_secs() / 60 % 60, duration.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_go_shows_them() {
        let at = |seconds| shown(Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(59), at(60), at(3600), at(87_330)],
            ["0s", "59s", "1m0s", "1h0m0s", "24h15m30s"]
        );
    }

    #[test]
    fn what_was_built_is_known() {
        assert!(built().is_some_and(|built| built <= SystemTime::now()));
        assert!(commit().is_none_or(|commit| commit.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
