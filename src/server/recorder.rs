//! The continuous profiler, and the thread that keeps its windows.
//!
//! A window goes into the store first and to the exporter then; a window that the store cannot keep (a full
//! disk) is counted, and the next one is tried as if nothing had been.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use crate::kernel::EbpfState;
use crate::metrics::memory;
use crate::model::Profile;
use crate::profile::continuous::{FollowedRequests, Named};
use crate::profile::{ContinuousProfiler, CutError, PendingWindow, ProfilerStatus, SessionError};
use crate::store::WindowStore;

/// How many windows may wait for the disk: five minutes of it.
const WINDOW_QUEUE: usize = 30;
/// A window may be this short when a query for the present cuts it.
const SHORTEST_CUT: Duration = Duration::from_millis(250);
/// How long anybody waits for the open window to be kept.
const CUT_LIMIT: Duration = Duration::from_secs(20);

/// What is done with windows beside keeping them: it must not block.
pub type OnWindow = Box<dyn Fn(Arc<Profile>) + Send>;

/// See the module's description. Dropping it ends profiling, after the last window is kept.
#[derive(Debug)]
pub struct Recorder {
    /// Taken out by whoever asks: a cut takes its time, and others want to know the status meanwhile.
    profiler: Mutex<Option<Arc<ContinuousProfiler>>>,
    counts: Arc<Counts>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    kept_windows: AtomicU64,
    kept_samples: AtomicU64,
    lost_windows: AtomicU64,
    lost_samples: AtomicU64,
}

impl Counts {
    fn kept(&self, samples: u64) {
        self.kept_windows.fetch_add(1, Ordering::Relaxed);
        self.kept_samples.fetch_add(samples, Ordering::Relaxed);
    }

    fn lost(&self, samples: u64) {
        self.lost_windows.fetch_add(1, Ordering::Relaxed);
        self.lost_samples.fetch_add(samples, Ordering::Relaxed);
    }
}

/// What became of the windows, and what the profiler does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecorderStatus {
    /// The profiler's own.
    pub profiler: ProfilerStatus,
    /// Windows that are in the store.
    pub kept_windows: u64,
    /// Samples in them.
    pub kept_samples: u64,
    /// Windows that the store did not take.
    pub lost_windows: u64,
    /// Samples in them.
    pub lost_samples: u64,
}

impl Recorder {
    /// Begins to profile, `frequency_hz` samples a second and CPU; `None` begins paused. Samples within
    /// `requests` say in which span they were taken; others what the map pinned at `shared_contexts` says.
    ///
    /// # Errors
    /// What the kernel or the system refused.
    pub fn start(
        frequency_hz: Option<u32>,
        requests: Option<FollowedRequests>,
        shared_contexts: PathBuf,
        store: Arc<dyn WindowStore>,
        on_window: OnWindow,
    ) -> Result<Self, SessionError> {
        let (windows, received) = bounded(WINDOW_QUEUE);
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let writer = std::thread::Builder::new()
            .name("window-writer".to_owned())
            .spawn(move || keep(&received, store.as_ref(), &on_window, &shared))
            .map_err(|source| SessionError::System { what: "start the thread that keeps windows", source })?;
        // If this fails, the channel closes and the writer ends.
        let profiler = ContinuousProfiler::start(frequency_hz, requests, shared_contexts, windows)?;
        Ok(Self { profiler: Mutex::new(Some(Arc::new(profiler))), counts, writer: Mutex::new(Some(writer)) })
    }

    /// Makes sure that what was sampled up to now is in the store. For a query of the present; a window
    /// that has only just begun is let be. Blocks.
    ///
    /// # Errors
    /// [`CutError`].
    pub fn catch_up(&self) -> Result<(), CutError> {
        self.cut(SHORTEST_CUT)
    }

    /// The same without exception.
    ///
    /// # Errors
    /// [`CutError`].
    pub fn flush(&self) -> Result<(), CutError> {
        self.cut(Duration::ZERO)
    }

    fn cut(&self, if_older_than: Duration) -> Result<(), CutError> {
        self.profiler().ok_or(CutError::Ended)?.cut(if_older_than, CUT_LIMIT)
    }

    /// Changes the rate; `None` pauses.
    pub fn set_frequency(&self, frequency_hz: Option<u32>) {
        if let Some(profiler) = self.profiler() {
            profiler.set_frequency(frequency_hz);
        }
    }

    /// The programs and maps in the kernel; `None` while not running. Blocks, for milliseconds.
    #[must_use]
    pub fn inspect(&self) -> Option<EbpfState> {
        self.profiler()?.inspect()
    }

    /// What it has done so far.
    #[must_use]
    pub fn status(&self) -> RecorderStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RecorderStatus {
            profiler: self.profiler().map(|profiler| profiler.status()).unwrap_or_default(),
            kept_windows: count(&self.counts.kept_windows),
            kept_samples: count(&self.counts.kept_samples),
            lost_windows: count(&self.counts.lost_windows),
            lost_samples: count(&self.counts.lost_samples),
        }
    }

    /// Ends profiling and waits until the last window is kept and handed on. Blocks.
    pub fn stop(&self) {
        drop(self.profiler.lock().unwrap_or_else(PoisonError::into_inner).take());
        // It ends when the profiler's end of the channel is gone.
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }

    fn profiler(&self) -> Option<Arc<ContinuousProfiler>> {
        self.profiler.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keep(windows: &Receiver<PendingWindow>, store: &dyn WindowStore, on_window: &OnWindow, counts: &Counts) {
    for window in windows {
        let samples = window.samples();
        let is_kept = match window.profile() {
            Named::Nothing => true,
            Named::Failed => {
                tracing::error!("a window of {samples} samples is lost: it could not be named");
                counts.lost(samples);
                false
            }
            Named::Profile(profile) => {
                let span = tracing::info_span!("store window", samples);
                // A mistake of ours in one window must not be the end of all others.
                let write = || span.in_scope(|| store.write_window(&profile));
                let is_kept = match std::panic::catch_unwind(AssertUnwindSafe(write)) {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => {
                        tracing::error!("a window of {samples} samples is lost: {error}");
                        false
                    }
                    Err(_) => {
                        tracing::error!("a window of {samples} samples is lost; please report it");
                        false
                    }
                };
                if is_kept {
                    counts.kept(samples);
                } else {
                    counts.lost(samples);
                }
                on_window(Arc::new(*profile));
                is_kept
            }
        };
        if is_kept {
            window.is_kept();
        }
        memory::give_back();
    }
}
