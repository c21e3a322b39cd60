//! What all handlers share.

use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use super::api::QueryGate;
use super::connections::ConnectionCounts;
use super::debug_pprof::DebugState;
use super::intake::Intake;
use super::layers::RequestCounts;
use super::self_telemetry::OwnTraces;
use super::{ApiError, Recorder, RequestTracer, SpanKeeper};
use crate::config::{Configuration, LogLevel, Sources};
use crate::export::otlp_client::OtlpExporter;
use crate::store::WindowStore;

/// See the module's description. Handlers have it as `State<Arc<App>>`.
pub struct App {
    /// When this process began to serve.
    pub started: Instant,
    /// The same by the wall clock.
    pub started_at: SystemTime,
    /// What is in effect. Read anew by each request, as a reload replaces it.
    pub configuration: ArcSwap<Configuration>,
    /// Where a reload reads it from.
    pub sources: Sources,
    /// Held by a reload.
    pub reloading: Mutex<()>,
    /// Changes the level of the log.
    pub set_log_level: Box<dyn Fn(LogLevel) + Send + Sync>,
    /// The windows.
    pub store: Arc<dyn WindowStore>,
    /// The profiler and the writer of its windows; `None` with `agent.ebpf.enabled: false`.
    pub recorder: Option<Arc<Recorder>>,
    /// The tracer of this host's requests; `None` where they are not followed.
    pub tracer: Option<Arc<RequestTracer>>,
    /// The writer of the tracer's spans, which counts requests, too.
    pub spans: Arc<SpanKeeper>,
    /// What leaves by OTLP.
    pub exporter: Arc<OtlpExporter>,
    /// Spans of what spanflame itself does.
    pub own_traces: Option<OwnTraces>,
    /// What others send here.
    pub intake: Intake,
    /// What bounds how many queries run at once.
    pub queries: QueryGate,
    /// What bounds captures for `/debug/pprof/`.
    pub debug: DebugState,
    /// Requests that were answered.
    pub requests: RequestCounts,
    /// Connections of the server.
    pub connections: Arc<ConnectionCounts>,
}

impl App {
    /// The configuration that is in effect now.
    #[must_use]
    pub fn configuration(&self) -> Arc<Configuration> {
        self.configuration.load_full()
    }

    /// That there is `/debug/`.
    ///
    /// # Errors
    /// 404 with `self_telemetry.debug: false`.
    pub fn debug_is_on(&self) -> Result<(), ApiError> {
        match self.configuration().self_telemetry.debug {
            true => Ok(()),
            false => Err(ApiError::not_found("/debug/ is turned off by self_telemetry.debug")),
        }
    }
}

/// Runs what blocks on a thread where it may.
///
/// # Errors
/// 500 if it panicked.
pub async fn off_the_executor<T: Send + 'static>(
    blocking: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(blocking)
        .await
        .map_err(|error| ApiError::internal("a part of spanflame has ended unexpectedly", &error))
}
