//! `spanflame serve`: the server that people leave running.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;

use super::CommandError;
use crate::config::{Configuration, Sources};
use crate::kernel::KernelError;
use crate::profile::SessionError;
use crate::server::api::QueryGate;
use crate::server::debug_pprof::DebugState;
use crate::server::{App, Recorder, router};
use crate::store::{Options, Retention, SqliteStore, WindowStore};

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
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let configuration = loaded.configuration;
    let store = open_store(&configuration)?;
    let recorder = match configuration.agent.ebpf.enabled {
        true => Some(Arc::new(start_recorder(&configuration, &store)?)),
        false => None,
    };
    let app = Arc::new(App {
        started: Instant::now(),
        started_at: SystemTime::now(),
        configuration: ArcSwap::from_pointee(configuration),
        sources,
        store,
        recorder,
        queries: QueryGate::default(),
        debug: DebugState::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    runtime.block_on(serve(Arc::clone(&app)))?;
    if let Some(recorder) = &app.recorder {
        recorder.stop();
    }
    Ok(())
}

async fn serve(app: Arc<App>) -> Result<(), CommandError> {
    let listen = app.configuration().self_telemetry.listen.clone();
    let addresses = listen
        .socket_addresses()
        .with_context(|| format!("self_telemetry.listen: {listen} cannot be resolved"))
        .map_err(CommandError::Usage)?;
    let listener = tokio::net::TcpListener::bind(addresses.as_slice())
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("cannot tell what was bound")?;
    println!("http://{address}/");
    axum::serve(listener, router(app))
        .with_graceful_shutdown(told_to_end())
        .await
        .context("the server has failed")?;
    Ok(())
}

async fn told_to_end() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::warn!("SIGTERM ends this without a last window: {error}");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn open_store(configuration: &Configuration) -> Result<Arc<dyn WindowStore>, CommandError> {
    let storage = &configuration.storage;
    let mut options = Options::new(storage.dir.as_path());
    options.retention = Retention { max_age: storage.max_age.get(), max_bytes: storage.max_bytes.get() };
    let store = SqliteStore::open(options).context("cannot open the store")?;
    Ok(Arc::new(store))
}

fn start_recorder(
    configuration: &Configuration,
    store: &Arc<dyn WindowStore>,
) -> Result<Recorder, CommandError> {
    let profiling = &configuration.agent.profiling;
    let frequency_hz =
        profiling.enabled.then(|| u32::try_from(profiling.sample_rate.get()).unwrap_or(u32::MAX));
    Recorder::start(frequency_hz, Arc::clone(store), Box::new(|_| {})).map_err(|error| match error {
        SessionError::Kernel(kernel) if KernelError::is_not_permitted(&kernel) => {
            CommandError::NotPermitted(anyhow::Error::from(kernel))
        }
        other => CommandError::Failed(anyhow::Error::from(other)),
    })
}
