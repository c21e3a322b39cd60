//! The table: every key of the configuration, once.
//!
//! A key's line is `name: Type = default, Effect;`, its documentation is what stands above it, and the rest
//! (path, environment name, example, listings, what a reload can change) follows from where it stands. The
//! keys are those of the seed documents under our name, and ours (INTERFACE.md, "Configuration"). Keys of
//! parts that are being built have the effect `NotYet`; keys of parts that are not, are unknown.

use super::address::{Endpoint, ListenAddress};
use super::choice::{
    Compression, ContextPropagation, LogFormat, LogLevel, Protocol, Sampler, SemanticConventions, SpanExport,
};
use super::name::{Directory, HostName, MetricPrefix, PathPattern, UrlPath, WebOrigin};
use super::number::{ByteSize, Period, Ratio, Whole};
use super::secret::{Headers, Secret};
use super::section::section;

/// Samples a second on each CPU.
type Hertz = Whole<1, 999>;
/// A hundred years of 365 days, in seconds.
const A_HUNDRED_YEARS_S: u64 = 36_500 * 86_400;

/// What is told to those who come from the seed documents and meet an unknown key.
pub(super) const NOT_HERE: [(&str, &str); 4] = [
    ("telegen", "is called `spanflame` here"),
    ("agent.database", "is not supported: queries of databases are not followed"),
    ("agent.ebpf.network.database", "is not supported: queries of databases are not followed"),
    ("collector", "is not supported: spanflame watches its own host"),
];

section! {
    /// The configuration of `spanflame serve`.
    pub struct Configuration {
        keys {}
        sections {
            spanflame: LogsOfSpanflame;
            agent: Agent;
            storage: Storage;
            otlp: Otlp;
            ingest: Ingest;
            self_telemetry: SelfTelemetry;
        }
    }
}

section! {
    /// Spanflame's own log, on standard error.
    pub struct LogsOfSpanflame {
        keys {
            /// The least severe level that is logged: error, warn, info, debug or trace.
            log_level: LogLevel = LogLevel::Info, Reload;
            /// `json` is one object a line (timestamp, level, msg), `text` is for people.
            log_format: LogFormat = LogFormat::Json, Restart;
        }
        sections {}
    }
}

section! {
    /// What is watched on this host.
    pub struct Agent {
        keys {}
        sections {
            profiling: Profiling;
            ebpf: Ebpf;
        }
    }
}

section! {
    /// Continuous profiling of all processes.
    pub struct Profiling {
        keys {
            /// Whether stacks are sampled.
            enabled: bool = true, Reload;
            /// Samples a second on each CPU.
            sample_rate: Hertz = Hertz::of::<19>(), Reload;
            /// Samples a second of threads and goroutines that have an open request.
            span_sample_rate: Hertz = Hertz::of::<499>(), Restart;
        }
        sections {}
    }
}

section! {
    /// The programs in the kernel.
    pub struct Ebpf {
        keys {
            /// Whether any program is loaded. Without, only what others send is stored and shown.
            enabled: bool = true, Restart;
            /// Where the BPF file system is mounted, in which tracers and profilers of one host meet. Samples without a
            /// span of ours take it from the map `otel/traces_ctx_v1` there, if another tracer keeps that one.
            bpf_file_system: Directory = Directory::of_bpf(), Restart;
        }
        sections {
            network: Network;
        }
    }
}

section! {
    /// Requests that are followed through sockets.
    pub struct Network {
        keys {
            /// Whether requests are followed.
            enabled: bool = true, Restart;
            /// Whether those of HTTP are.
            http: bool = true, Reload;
            /// Whether those of gRPC are. If only one of both is, what may be either (on connections that are older than
            /// spanflame) is followed only if its answer tells that it is that one.
            grpc: bool = true, Reload;
            /// Requests that are left out, by path: the whole path, or its beginning before a final `*`.
            exclude_paths: Vec<PathPattern> = Vec::new(), Reload, example r#"["/healthz", "/static/*"]"#;
            /// Ports whose connections are left alone.
            exclude_ports: Vec<u16> = Vec::new(), Restart, example "[22, 2379]";
            /// Programs that are left alone, by the path of their executable as they see it: the whole path, or its
            /// beginning before a final `*`. Nothing that they ask or answer is looked at; what others answer them is.
            /// A process that is over before its executable could be read is followed.
            exclude_executables: Vec<PathPattern> = Vec::new(), Restart,
                example r#"["/usr/bin/wrk", "/opt/monitoring/*"]"#;
            /// Whether the query string stands in the attributes of a span. It often holds secrets.
            capture_query: bool = false, Reload;
            /// Whether `traceparent`, `tracestate` and B3 of requests are believed. Without, every parent is inferred.
            read_context: bool = true, Reload;
            /// Names of attributes: OpenTelemetry's `stable` ones, those before them (`seed`), or `both`.
            semconv: SemanticConventions = SemanticConventions::Stable, Reload;
            /// How a request's context goes on to private addresses, where its program sends none: in an option of TCP's
            /// header (`tcp_option`); there, and as `traceparent` in the head of HTTP/1 requests in plain text, if the
            /// kernel passes a test at the start (`http_header`: changes what programs send); or not (`disabled`).
            context_propagation: ContextPropagation = ContextPropagation::TcpOption, Restart;
            /// Whether other profilers are told which request a thread is at: in the map `otel/traces_ctx_v1`, as
            /// OpenTelemetry's eBPF instrumentation does.
            publish_context: bool = false, Restart;
            /// Spans that are kept a second, about; 0: all. Beyond that a smaller share of traces is, and those in which
            /// something failed or took unusually long; all requests count in metrics. What a parent elsewhere has
            /// decided to sample is kept in any case.
            max_spans_per_second: Whole<0, 1_000_000> = Whole::of::<2_000>(), Reload;
            /// Whose spans of ours are exported: `auto`, of processes that export none of their own; `always`, of
            /// all; `never`. They are stored in any case.
            spans: SpanExport = SpanExport::Auto, Reload;
        }
        sections {}
    }
}

section! {
    /// The recent past on disk.
    pub struct Storage {
        keys {
            /// The folder, which is made if it is missing.
            dir: Directory = Directory::of_state(), Restart;
            /// What is older is deleted.
            max_age: Period<10, A_HUNDRED_YEARS_S> = Period::seconds::<{ 7 * 86_400 }>(), Reload;
            /// What all files together may take; the oldest are deleted first.
            max_bytes: ByteSize<{ 1 << 20 }, { 1 << 50 }> = ByteSize::of::<{ 2 << 30 }>(), Reload;
        }
        sections {}
    }
}

section! {
    /// Export by OTLP. Nothing is exported without an endpoint.
    pub struct Otlp {
        keys {
            /// Where to: HOST:PORT, or a URL whose scheme then decides on TLS.
            endpoint: Option<Endpoint> = None, Reload, example "otel-collector:4317";
            /// Whether to speak in clear text where the endpoint has no scheme.
            insecure: bool = false, Reload;
            /// `grpc`, `http/protobuf` or `http/json`.
            protocol: Protocol = Protocol::Grpc, Reload;
            /// `gzip` or `none`.
            compression: Compression = Compression::Gzip, Reload;
            /// How long one request may take.
            timeout: Period<1, 600> = Period::seconds::<10>(), Reload;
            /// Headers of every request, by name. They are secret, and shown as `[redacted]`.
            headers: Headers = Headers::default(), Reload, example r#"{ authorization: "Bearer ${OTLP_TOKEN}" }"#;
        }
        sections {
            traces: TracesSignal;
            metrics: MetricsSignal;
            profiles: ProfilesSignal;
        }
    }
}

section! {
    /// Spans of the requests that are followed.
    pub struct TracesSignal {
        keys {
            /// Whether they are exported.
            enabled: bool = true, Reload;
            /// The share of traces that is sampled where no parent has decided: 1 is all.
            sample_rate: Ratio = Ratio::ALL, Reload;
            /// `parent_based_traceidratio`: as the parent was, else by the trace id.
            sampler: Sampler = Sampler::ParentBasedTraceIdRatio, Reload;
        }
        sections {}
    }
}

section! {
    /// Metrics of requests, and spanflame's own.
    pub struct MetricsSignal {
        keys {
            /// Whether they are exported.
            enabled: bool = true, Reload;
        }
        sections {}
    }
}

section! {
    /// Profiles. A Collector takes them behind its feature gate `service.profilesSupport` only.
    pub struct ProfilesSignal {
        keys {
            /// Whether they are exported.
            enabled: bool = false, Reload;
        }
        sections {}
    }
}

section! {
    /// What others send here.
    pub struct Ingest {
        keys {}
        sections {
            otlp: OtlpReceiver;
        }
    }
}

section! {
    /// OTLP from SDKs and Collectors.
    pub struct OtlpReceiver {
        keys {
            /// Whether it is taken in.
            enabled: bool = false, Restart;
            /// The address for gRPC.
            grpc_listen: ListenAddress = ListenAddress::loopback(4317), Restart;
            /// The address for HTTP.
            http_listen: ListenAddress = ListenAddress::loopback(4318), Restart;
        }
        sections {}
    }
}

section! {
    /// The HTTP server: user interface, API, metrics, health.
    pub struct SelfTelemetry {
        keys {
            /// Whether there is one.
            enabled: bool = true, Restart;
            /// Its address; `:PORT` is all interfaces. Off loopback it needs `auth`, or `allow_unauthenticated`.
            listen: ListenAddress = ListenAddress::loopback(19090), Restart;
            /// Where the metrics are.
            path: UrlPath = UrlPath::metrics(), Restart;
            /// What the names of all metrics begin with.
            prometheus_namespace: MetricPrefix = MetricPrefix::of_spanflame(), Restart;
            /// Whether anyone who reaches a listener off loopback may read everything.
            allow_unauthenticated: bool = false, Restart;
            /// Names by which the server may be asked without authentication, beside localhost and addresses.
            allowed_hosts: Vec<HostName> = Vec::new(), Reload, example "[spanflame.example.com]";
            /// Whether there is /debug/: profiles by URL, and facts of this process.
            debug: bool = true, Reload;
        }
        sections {
            auth: Auth;
            rate_limit: RateLimit;
            cors: Cors;
            tracing: SelfTracing;
        }
    }
}

section! {
    /// Who may ask; /healthz is open to all.
    pub struct Auth {
        keys {
            /// Whether a token is needed.
            enabled: bool = false, Reload;
            /// The token: as bearer, or as the password of HTTP Basic. Secret, and shown as `[redacted]`.
            bearer_token: Option<Secret> = None, Reload, example r#""${API_TOKEN}""#;
        }
        sections {}
    }
}

section! {
    /// A limit for the whole server; /healthz is exempt.
    pub struct RateLimit {
        keys {
            /// Whether there is one.
            enabled: bool = false, Reload;
            /// Requests a second; those beyond are told to come again.
            requests_per_second: Whole<1, 1_000_000> = Whole::of::<100>(), Reload;
        }
        sections {}
    }
}

section! {
    /// Pages of other origins that may read answers.
    pub struct Cors {
        keys {
            /// Whether there are any.
            enabled: bool = false, Reload;
            /// Their origins; `*` is all, and needs `auth`.
            allowed_origins: Vec<WebOrigin> = Vec::new(), Reload, example r#"["http://localhost:3000"]"#;
        }
        sections {}
    }
}

section! {
    /// Traces of what spanflame itself does.
    pub struct SelfTracing {
        keys {
            /// Whether they are made and exported.
            enabled: bool = false, Restart;
            /// The share of operations that is traced.
            sample_rate: Ratio = Ratio::ONE_IN_A_HUNDRED, Restart;
        }
        sections {}
    }
}

impl Otlp {
    /// Whether TLS is spoken to the endpoint: its scheme decides, else `insecure`.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        match self.endpoint.as_ref().and_then(|endpoint| endpoint.scheme) {
            Some(scheme) => scheme == super::address::Scheme::Https,
            None => !self.insecure,
        }
    }
}
