//! The tracer of this host's requests, as the configuration wants it. Its spans go to the [`SpanKeeper`].

use std::sync::{Arc, Mutex, PoisonError};

use super::spans::{SpanBatch, SpanKeeper};
use crate::config::{Configuration, ContextPropagation, PathPattern, SemanticConventions, SpanExport};
use crate::kernel::{EbpfState, KernelError, RequestMaps, SocketTracer, SocketTracerOptions};
use crate::profile::RequestSamplingOptions;
use crate::profile::continuous::FollowedRequests;
use crate::trace::{
    Conventions, Executables, LeftAlone, Outcome, Sampled, Sampler, SpanOptions, Tracer, TracerStatus,
};

/// Room for a tenth of a second of some 10,000 requests a second; what finds none is lost, and counted.
const RING_BUFFER_BYTES: u32 = 8 << 20;

/// Of a CPU's time, in thousandths, that samples within requests may take: at 499 Hz and 8 µs a sample they
/// take 4. Beyond it they are taken at the host's rate.
const SPAN_SAMPLES_PERMILLE: u32 = 10;

/// See the module's description. Dropping it ends tracing.
#[derive(Debug)]
pub struct RequestTracer {
    /// Taken out by whoever asks: an answer takes its time, and others want to know the status meanwhile.
    tracer: Mutex<Option<Arc<Tracer>>>,
    maps: Arc<RequestMaps>,
    /// Whose spans are exported.
    export: Arc<Mutex<SpanExport>>,
    ways: ContextWays,
}

/// Whether a way is open in which requests' contexts go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Way {
    /// Nobody asked for it.
    #[default]
    Off,
    /// They do.
    On,
    /// It was asked for, and cannot be had, for this reason.
    Refused(String),
}

/// The ways in which requests' contexts go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContextWays {
    /// In an option of TCP's header.
    pub tcp_option: Way,
    /// In a header of HTTP/1.
    pub http_header: Way,
}

impl RequestTracer {
    /// Begins to follow requests.
    ///
    /// # Errors
    /// What the kernel or the system refused.
    pub fn start(configuration: &Configuration, keeper: Arc<SpanKeeper>) -> Result<Self, KernelError> {
        let network = &configuration.agent.ebpf.network;
        let mut socket = SocketTracer::load(&SocketTracerOptions {
            ring_buffer_bytes: RING_BUFFER_BYTES,
            excluded_ports: network.exclude_ports.clone(),
            exclude_agent: true,
            leaves_some_alone: !network.exclude_executables.is_empty(),
            publish_contexts_in: network
                .publish_context
                .then(|| configuration.agent.ebpf.bpf_file_system.as_path().to_owned()),
        })?;
        let bound = span_options(configuration).sampler.bound();
        let ways = open_ways(&mut socket, network.context_propagation, bound);
        let maps = Arc::new(socket.request_maps()?);
        let export = Arc::new(Mutex::new(network.spans));
        let wanted = Arc::clone(&export);
        let on_outcome = Box::new(move |outcome: &mut Outcome| {
            let exporters = keeper.self_exporters();
            outcome.unsampled.iter().for_each(|request| exporters.look_at_unsampled(request));
            keeper.observe_unsampled(&outcome.unsampled);
            outcome.spans.iter().for_each(|span| exporters.look_at(span));
            let ended = std::mem::take(&mut outcome.spans);
            let (spans, not_exported) = match *wanted.lock().unwrap_or_else(PoisonError::into_inner) {
                SpanExport::Always => (ended, Vec::new()),
                SpanExport::Never => (Vec::new(), ended),
                SpanExport::Auto => {
                    let (not_exported, spans): (Vec<_>, Vec<_>) =
                        ended.into_iter().partition(|span| exporters.has(span));
                    keeper.count_left_to_sdks(not_exported.len());
                    (spans, not_exported)
                }
            };
            keeper.offer(SpanBatch { spans, not_exported });
        });
        let left_alone = LeftAlone::new(left_alone(&network.exclude_executables));
        let tracer = Tracer::start(socket, span_options(configuration), left_alone, on_outcome)?;
        Ok(Self { tracer: Mutex::new(Some(Arc::new(tracer))), maps, export, ways })
    }

    /// How contexts go on.
    #[must_use]
    pub fn context_ways(&self) -> &ContextWays {
        &self.ways
    }

    /// How samplers tell in which request a thread or goroutine is, and learn what that came to; at
    /// `frequency_hz` samples a second and CPU within requests. `None` after the end.
    #[must_use]
    pub fn followed_requests(&self, frequency_hz: u32) -> Option<FollowedRequests> {
        let maps = Arc::clone(&self.maps);
        let sampling = RequestSamplingOptions { maps, frequency_hz, budget_permille: SPAN_SAMPLES_PERMILLE };
        Some(FollowedRequests { sampling, spans: self.tracer()?.request_spans() })
    }

    /// Makes sure that spans of what has ended up to now were handed on. False if that took too long. Blocks.
    #[must_use]
    pub fn flush(&self) -> bool {
        self.tracer().is_none_or(|tracer| tracer.flush())
    }

    /// Goes on as the configuration says now.
    pub fn reconfigure(&self, configuration: &Configuration) {
        let wanted = configuration.agent.ebpf.network.spans;
        *self.export.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        if let Some(tracer) = self.tracer() {
            tracer.set_options(span_options(configuration));
        }
    }

    /// The programs and maps in the kernel. Blocks, for milliseconds.
    #[must_use]
    pub fn inspect(&self) -> Option<EbpfState> {
        self.tracer()?.inspect()
    }

    /// What it has done so far.
    #[must_use]
    pub fn status(&self) -> TracerStatus {
        self.tracer().map(|tracer| tracer.status()).unwrap_or_default()
    }

    /// Of how many requests that ended in this range of time, to the minute, the span was kept.
    #[must_use]
    pub fn sampled(&self, from_unix_ns: u64, to_unix_ns: u64) -> Sampled {
        self.tracer().map(|tracer| tracer.sampled(from_unix_ns, to_unix_ns)).unwrap_or_default()
    }

    /// Ends tracing, once the last spans are handed on. Blocks.
    pub fn stop(&self) {
        drop(self.tracer.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn tracer(&self) -> Option<Arc<Tracer>> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Opens the ways that are wanted, as far as the kernel lets.
fn open_ways(socket: &mut SocketTracer, wanted: ContextPropagation, bound: u64) -> ContextWays {
    let mut ways = ContextWays::default();
    if wanted == ContextPropagation::Disabled {
        return ways;
    }
    ways.tcp_option = match socket.propagate_contexts(bound) {
        Ok(()) => Way::On,
        Err(error) => {
            tracing::warn!("requests do not carry their context on to other hosts: {error}");
            Way::Refused(error.to_string())
        }
    };
    if wanted != ContextPropagation::HttpHeader {
        return ways;
    }
    ways.http_header = match &ways.tcp_option {
        // What was decided for one way is what the other one takes.
        Way::Refused(reason) => Way::Refused(reason.clone()),
        _ => match socket.insert_headers(bound) {
            Ok(()) => {
                tracing::info!("requests in plain text carry their context on in a header `traceparent`");
                Way::On
            }
            Err(error) => {
                tracing::warn!("requests carry their context on in TCP's header alone: {error}");
                Way::Refused(error.to_string())
            }
        },
    };
    ways
}

/// Which executables' processes are left alone; `None`: none.
fn left_alone(patterns: &[PathPattern]) -> Option<Executables> {
    let patterns = patterns.to_vec();
    let is_any = !patterns.is_empty();
    is_any.then(|| {
        Box::new(move |path: &str| patterns.iter().any(|pattern| pattern.matches(path))) as Executables
    })
}

/// What the configuration asks of spans.
fn span_options(configuration: &Configuration) -> SpanOptions {
    let network = &configuration.agent.ebpf.network;
    let excluded: Vec<PathPattern> = network.exclude_paths.clone();
    SpanOptions {
        conventions: match network.semconv {
            SemanticConventions::Stable => Conventions::Stable,
            SemanticConventions::Seed => Conventions::Seed,
            SemanticConventions::Both => Conventions::Both,
        },
        capture_query: network.capture_query,
        read_context: network.read_context,
        sampler: Sampler::new(configuration.otlp.traces.sample_rate.get()),
        spans_per_second: Some(network.max_spans_per_second.get()).filter(|&limit| limit > 0),
        http: network.http,
        grpc: network.grpc,
        excludes_nothing: excluded.is_empty() && network.http && network.grpc,
        is_excluded: Arc::new(move |path| excluded.iter().any(|pattern| pattern.matches(path))),
    }
}
