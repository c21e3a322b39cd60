//! `spanflame serve`: the server that people leave running.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::descriptors::raise_descriptor_limit;
use super::{CommandError, logging};
use crate::config::{Configuration, ListenAddress, Sources};
use crate::export::otlp_client::OtlpExporter;
use crate::kernel::{KernelError, shared_contexts_path};
use crate::profile::SessionError;
use crate::server::api::QueryGate;
use crate::server::connections::{self, Protocol};
use crate::server::debug_pprof::DebugState;
use crate::server::intake::Intake;
use crate::server::self_telemetry::{self, OwnTraces};
use crate::server::{
    App, Recorder, RequestCounts, RequestTracer, SpanKeeper, frequency_of, otlp_in, retention_of, router,
};
use crate::store::{Options, SqliteStore, WindowStore};

/// How long requests may take that are being answered when it is time to end.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Profile this host and serve what was seen: UI, API, downloads, metrics
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spanflame serve
  spanflame serve --data-dir ./data --listen 127.0.0.1:19091
  spanflame serve --config /etc/spanflame.yaml")]
pub struct Args {
    /// The configuration; `spanflame config example` prints one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; `:PORT` is all interfaces, which takes authentication
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The folder for recent windows
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Let anyone who reaches a listener off loopback read everything
    #[arg(long)]
    allow_unauthenticated: bool,
}

impl Args {
    fn sources(&self) -> Result<Sources, CommandError> {
        let mut sources = Sources::of_process(self.config.clone());
        if let Some(listen) = &self.listen {
            sources = sources.with_flag("--listen", "self_telemetry.listen", listen);
        }
        if let Some(folder) = &self.data_dir {
            let folder = std::path::absolute(folder)
                .with_context(|| format!("--data-dir {}", folder.display()))
                .map_err(CommandError::Usage)?;
            sources = sources.with_flag("--data-dir", "storage.dir", folder.to_string_lossy());
        }
        if self.allow_unauthenticated {
            sources =
                sources.with_flag("--allow-unauthenticated", "self_telemetry.allow_unauthenticated", "true");
        }
        Ok(sources)
    }
}

/// Runs the subcommand until it is told to end.
///
/// # Errors
/// [`CommandError`].
pub fn run(args: &Args) -> Result<(), CommandError> {
    let sources = args.sources()?;
    let loaded = sources.load().map_err(|errors| CommandError::Usage(anyhow::Error::from(errors)))?;
    let configuration = loaded.configuration;
    let log = &configuration.spanflame;
    let own_traces = OwnTraces::begin(&configuration.self_telemetry.tracing);
    let more = own_traces.as_ref().map(OwnTraces::layer);
    let set_log_level = logging::begin(log.log_format, log.log_level, more);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    // What can be refused comes first, so that nothing has begun that would have to be taken back.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("server")
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    let listener = match configuration.self_telemetry.enabled {
        true => {
            Some(runtime.block_on(listen("self_telemetry.listen", &configuration.self_telemetry.listen))?)
        }
        false => None,
    };
    let receivers = match configuration.ingest.otlp.enabled {
        true => {
            let receiver = &configuration.ingest.otlp;
            let grpc = runtime.block_on(listen("ingest.otlp.grpc_listen", &receiver.grpc_listen))?;
            Some((grpc, runtime.block_on(listen("ingest.otlp.http_listen", &receiver.http_listen))?))
        }
        false => None,
    };
    let exporter = OtlpExporter::start(&configuration.otlp, runtime.handle().clone());
    let exporter = Arc::new(exporter.map_err(|error| CommandError::Usage(error.into()))?);
    if let Some(own_traces) = &own_traces {
        own_traces.leave_by(&exporter);
    }
    let store = open_store(&configuration)?;
    let spans = SpanKeeper::start(Arc::clone(&store), Arc::clone(&exporter));
    let spans = Arc::new(spans.context("cannot start the thread that keeps spans")?);
    if receivers.is_some() {
        spans.expect_received();
    }
    let tracer = start_tracer(&configuration, &spans);
    let recorder = match configuration.agent.ebpf.enabled {
        true => Some(Arc::new(start_recorder(&configuration, tracer.as_deref(), &store, &exporter)?)),
        false => None,
    };
    let app = Arc::new(App {
        started: Instant::now(),
        started_at: SystemTime::now(),
        configuration: ArcSwap::from_pointee(configuration),
        sources,
        reloading: Mutex::new(()),
        set_log_level,
        intake: Intake::new(Arc::clone(&store), Some(Arc::clone(&spans))),
        store,
        recorder,
        tracer,
        spans,
        exporter,
        own_traces,
        queries: QueryGate::default(),
        debug: DebugState::default(),
        requests: RequestCounts::default(),
        connections: Arc::default(),
    });
    runtime.spawn(self_telemetry::export_metrics(Arc::downgrade(&app)));
    runtime.block_on(serve(&app, listener, receivers))?;
    end(&app);
    Ok(())
}

/// After the last request: the open window is kept, then what waits is sent.
fn end(app: &App) {
    // Samples of the last window are in requests that the tracer knows: it ends after that.
    if let Some(recorder) = &app.recorder {
        recorder.stop();
    }
    if let Some(tracer) = &app.tracer {
        tracer.stop();
    }
    app.spans.stop();
    app.end_exports();
    tracing::info!("Ended");
}

async fn listen(key: &str, listen: &ListenAddress) -> Result<TcpListener, CommandError> {
    let addresses = listen
        .socket_addresses()
        .with_context(|| format!("{key}: {listen} cannot be resolved"))
        .map_err(CommandError::Usage)?;
    let listener = TcpListener::bind(addresses.as_slice())
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    Ok(listener)
}

/// Answers requests until a signal says that it is time to end.
async fn serve(
    app: &Arc<App>,
    listener: Option<TcpListener>,
    receivers: Option<(TcpListener, TcpListener)>,
) -> Result<(), CommandError> {
    let signals = Signals::begin().context("cannot wait for signals")?;
    let (end, ends) = watch::channel(false);
    let mut serving = Vec::new();
    let mut begin = |listener: TcpListener, router, protocol| {
        let (counts, ends) = (Arc::clone(&app.connections), ends.clone());
        serving.push(tokio::spawn(connections::serve(
            listener,
            router,
            protocol,
            counts,
            ends,
            FINISH_LIMIT,
        )));
    };
    if let Some((grpc, http)) = receivers {
        let shown = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
        let (grpc_address, http_address) = (shown(&grpc), shown(&http));
        begin(grpc, otlp_in::grpc_router(app), Protocol::Http2);
        begin(http, otlp_in::http_router(app), Protocol::Http1);
        if let (Ok(grpc), Ok(http)) = (grpc_address, http_address) {
            tracing::info!(grpc, http, "Receiving OTLP");
        }
    }
    if let Some(listener) = listener {
        let address = listener.local_addr().context("cannot tell what was bound")?;
        let router = router(app).context("the description of the API cannot be written")?;
        begin(listener, router, Protocol::Http1);
        println!("http://{address}/");
        tracing::info!(address = %address, version = env!("CARGO_PKG_VERSION"), "Serving");
    }
    signals.until_told_to_end(app).await;
    tracing::info!("Ending");
    // Nobody is left to hear it only if the server has ended already.
    let _ = end.send(true);
    for serving in serving {
        serving.await.context("the server has failed")?;
    }
    Ok(())
}

struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they do not end the process.
    fn begin() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// `SIGHUP` reloads; `SIGINT` and `SIGTERM` end it.
    async fn until_told_to_end(mut self, app: &Arc<App>) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                Some(()) = self.hang_up.recv() => {
                    let app = Arc::clone(app);
                    // Whatever becomes of it is in the log.
                    let _ = tokio::task::spawn_blocking(move || app.reload_and_log().map(drop)).await;
                }
            }
        }
    }
}

fn open_store(configuration: &Configuration) -> Result<Arc<dyn WindowStore>, CommandError> {
    let mut options = Options::new(configuration.storage.dir.as_path());
    options.retention = retention_of(configuration);
    let store = SqliteStore::open(options).context("cannot open the store")?;
    Ok(Arc::new(store))
}

/// Requests are followed as far as the kernel lets us; without, everything else goes on.
fn start_tracer(configuration: &Configuration, spans: &Arc<SpanKeeper>) -> Option<Arc<RequestTracer>> {
    let ebpf = &configuration.agent.ebpf;
    if !ebpf.enabled || !ebpf.network.enabled {
        return None;
    }
    match RequestTracer::start(configuration, Arc::clone(spans)) {
        Ok(tracer) => Some(Arc::new(tracer)),
        Err(error) => {
            tracing::warn!("requests are not followed: {error}");
            None
        }
    }
}

fn start_recorder(
    configuration: &Configuration,
    tracer: Option<&RequestTracer>,
    store: &Arc<dyn WindowStore>,
    exporter: &Arc<OtlpExporter>,
) -> Result<Recorder, CommandError> {
    let frequency_hz = frequency_of(configuration);
    let exporter = Arc::clone(exporter);
    let on_window = Box::new(move |profile| exporter.offer(profile));
    let span_rate = configuration.agent.profiling.span_sample_rate.get();
    let span_rate = u32::try_from(span_rate).unwrap_or(u32::MAX);
    let requests = tracer.and_then(|tracer| tracer.followed_requests(span_rate));
    let shared_contexts = shared_contexts_path(configuration.agent.ebpf.bpf_file_system.as_path());
    Recorder::start(frequency_hz, requests, shared_contexts, Arc::clone(store), on_window).map_err(|error| {
        match error {
            SessionError::Kernel(kernel) if KernelError::is_not_permitted(&kernel) => {
                CommandError::NotPermitted(anyhow::Error::from(kernel))
            }
            other => CommandError::Failed(anyhow::Error::from(other)),
        }
    })
}
