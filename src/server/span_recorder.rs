//! The tracer of this host's requests, and the thread that keeps its spans.
//!
//! Spans go into the store first and to the exporter then, ended requests into the metrics. A batch that the
//! store cannot keep (a full disk) is counted, and the next one is tried as if nothing had been.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};

use crate::config::{self, Configuration, SemanticConventions};
use crate::kernel::{EbpfState, KernelError, SocketTracer, SocketTracerOptions};
use crate::model::RequestSpans;
use crate::store::WindowStore;
use crate::trace::{Conventions, Sampler, SpanBatch, SpanOptions, Tracer, TracerStatus};

/// How many batches may wait for the disk: half a minute of them on a busy host.
const BATCH_QUEUE: usize = 64;

/// Room for a tenth of a second of some 10,000 requests a second; what finds none is lost, and counted.
const RING_BUFFER_BYTES: u32 = 8 << 20;

/// What is done with spans beside keeping them: it must not block.
pub type OnSpans = Box<dyn Fn(&SpanBatch) + Send>;

/// See the module's description. Dropping it ends tracing, after the last batch is kept.
#[derive(Debug)]
pub struct SpanRecorder {
    tracer: Mutex<Option<Arc<Tracer>>>,
    counts: Arc<Counts>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    kept: AtomicU64,
    lost: AtomicU64,
}

/// What became of the spans, and what the tracer does.
#[derive(Debug, Clone, Default)]
pub struct SpanRecorderStatus {
    /// The tracer's own.
    pub tracer: TracerStatus,
    /// Spans that are in the store, an open one and its end counted as two.
    pub kept_spans: u64,
    /// Spans that the store did not take.
    pub lost_spans: u64,
}

impl SpanRecorder {
    /// Begins to follow requests.
    ///
    /// # Errors
    /// What the kernel or the system refused.
    pub fn start(
        configuration: &Configuration,
        store: Arc<dyn WindowStore>,
        on_spans: OnSpans,
    ) -> Result<Self, KernelError> {
        let network = &configuration.agent.ebpf.network;
        let socket = SocketTracer::load(&SocketTracerOptions {
            ring_buffer_bytes: RING_BUFFER_BYTES,
            excluded_ports: network.exclude_ports.clone(),
            exclude_agent: true,
        })?;
        let (batches, received) = bounded(BATCH_QUEUE);
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let writer = std::thread::Builder::new()
            .name("span-writer".to_owned())
            .spawn(move || keep(&received, store.as_ref(), &on_spans, &shared))
            .map_err(|source| KernelError::System {
                what: "start the thread that keeps spans".to_owned(),
                source,
            })?;
        // If this fails, the channel closes and the writer ends.
        let tracer = Tracer::start(socket, span_options(configuration), batches)?;
        Ok(Self { tracer: Mutex::new(Some(Arc::new(tracer))), counts, writer: Mutex::new(Some(writer)) })
    }

    /// Who knows what the requests of samples came to.
    #[must_use]
    pub fn request_spans(&self) -> Option<Arc<dyn RequestSpans>> {
        self.tracer().map(|tracer| tracer.request_spans())
    }

    /// Makes sure that spans of what has ended up to now are in the store. False if that took too long. Blocks.
    #[must_use]
    pub fn flush(&self) -> bool {
        self.tracer().is_none_or(|tracer| tracer.flush())
    }

    /// Goes on as the configuration says now.
    pub fn reconfigure(&self, configuration: &Configuration) {
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
    pub fn status(&self) -> SpanRecorderStatus {
        SpanRecorderStatus {
            tracer: self.tracer().map(|tracer| tracer.status()).unwrap_or_default(),
            kept_spans: self.counts.kept.load(Ordering::Relaxed),
            lost_spans: self.counts.lost.load(Ordering::Relaxed),
        }
    }

    /// Ends tracing and waits until the last batch is kept. Blocks.
    pub fn stop(&self) {
        drop(self.tracer.lock().unwrap_or_else(PoisonError::into_inner).take());
        // It ends when the tracer's end of the channel is gone.
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }

    fn tracer(&self) -> Option<Arc<Tracer>> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SpanRecorder {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keep(batches: &Receiver<SpanBatch>, store: &dyn WindowStore, on_spans: &OnSpans, counts: &Counts) {
    for batch in batches {
        let spans = batch.spans.len() as u64;
        // A mistake of ours in one batch must not be the end of all others.
        let write = || if spans == 0 { Ok(()) } else { store.write_spans(&batch.spans) };
        let is_kept = match std::panic::catch_unwind(AssertUnwindSafe(write)) {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!("{spans} spans are lost: {error}");
                false
            }
            Err(_) => {
                tracing::error!("{spans} spans are lost; please report it");
                false
            }
        };
        let counter = if is_kept { &counts.kept } else { &counts.lost };
        counter.fetch_add(spans, Ordering::Relaxed);
        on_spans(&batch);
        if is_kept {
            batch.is_kept();
        }
    }
}

/// What the configuration asks of spans.
#[must_use]
pub fn span_options(configuration: &Configuration) -> SpanOptions {
    let network = &configuration.agent.ebpf.network;
    let excluded: Vec<config::PathPattern> = network.exclude_paths.clone();
    SpanOptions {
        conventions: match network.semconv {
            SemanticConventions::Stable => Conventions::Stable,
            SemanticConventions::Seed => Conventions::Seed,
            SemanticConventions::Both => Conventions::Both,
        },
        capture_query: network.capture_query,
        sampler: Sampler::new(configuration.otlp.traces.sample_rate.get()),
        http: network.http,
        grpc: network.grpc,
        is_excluded: Arc::new(move |path| excluded.iter().any(|pattern| pattern.matches(path))),
    }
}
