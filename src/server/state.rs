//! What all handlers share.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use super::Recorder;
use super::api::QueryGate;
use super::debug_pprof::DebugState;
use crate::config::{Configuration, Sources};
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
    /// The windows.
    pub store: Arc<dyn WindowStore>,
    /// The profiler and the writer of its windows; `None` with `agent.ebpf.enabled: false`.
    pub recorder: Option<Arc<Recorder>>,
    /// What bounds how many queries run at once.
    pub queries: QueryGate,
    /// What bounds captures for `/debug/pprof/`.
    pub debug: DebugState,
}

impl App {
    /// The configuration that is in effect now.
    #[must_use]
    pub fn configuration(&self) -> Arc<Configuration> {
        self.configuration.load_full()
    }
}
