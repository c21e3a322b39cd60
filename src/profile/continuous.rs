//! Profiles the whole host for as long as it is left running, and hands on a window every ten seconds.
//!
//! A thread of its own turns a [`Session`]. Windows end at multiples of ten seconds of the wall clock; a
//! window is cut short when somebody asks for what has just happened ([`ContinuousProfiler::cut`]) or when
//! the rate changes, since a window has one rate. Its length is measured by the monotonic clock, so a clock
//! that is set back makes windows overlap and never negative.
//!
//! The thread waits for nobody: windows are named on the naming thread and go through a bounded channel to
//! whoever stores them. One that finds no room is dropped, and its samples are counted under the reason.
//! When the kernel refuses to go on, profiling begins afresh after a while, and the status says why.

mod running;
mod worker;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use self::worker::{Command, Worker, reason};
use super::scripts::{RuntimesOfProcesses, ScriptCounts};
use super::session::RequestSamplingOptions;
use super::{RawWindow, SessionError};
use crate::kernel::EbpfState;
use crate::model::{Profile, RequestSpans};

/// How long a window is, unless it is cut.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The requests of this host, as somebody follows them.
#[derive(Clone)]
pub struct FollowedRequests {
    /// How samples are taken within them.
    pub sampling: RequestSamplingOptions,
    /// Who knows in which span a sample was taken.
    pub spans: Arc<dyn RequestSpans>,
}

/// A window on its way to whoever keeps it.
#[derive(Debug)]
pub struct PendingWindow {
    named: Option<Receiver<(Box<RawWindow>, Profile)>>,
    samples: u64,
    cut_by: Vec<Sender<()>>,
}

/// What came of naming a window.
#[derive(Debug)]
pub enum Named {
    /// There was nothing to name: the window at hand was not to be cut, or there is none.
    Nothing,
    /// The window.
    Profile(Box<Profile>),
    /// Its names could not be had, and it is gone: a mistake of ours.
    Failed,
}

impl PendingWindow {
    /// Waits for the names.
    #[must_use]
    pub fn profile(&self) -> Named {
        match self.named.as_ref().map(Receiver::recv) {
            None => Named::Nothing,
            Some(Ok((_, profile))) => Named::Profile(Box::new(profile)),
            Some(Err(_)) => Named::Failed,
        }
    }

    /// How many samples it has.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Tells those who cut this window that it is kept, and everything before it. Those of a window that is
    /// dropped instead learn that it is not.
    pub fn is_kept(self) {
        for waiting in self.cut_by {
            // Whoever gave up waiting does not want to know.
            let _ = waiting.send(());
        }
    }
}

/// Whether the profiler runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfilerState {
    /// At so many samples a second and CPU.
    Running(u32),
    /// The configuration wants none.
    Paused,
    /// The kernel or the system refused, for this reason. It is tried again.
    Failed(String),
}

/// What the profiler has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfilerStatus {
    /// What it does now.
    pub state: ProfilerState,
    /// Samples that the kernel side took: arrived + lost + still on their way.
    pub taken: u64,
    /// Of those: in a span that the application named itself.
    pub said: u64,
    /// … that another tracer named, and nobody else.
    pub shared: u64,
    /// Samples that arrived here.
    pub arrived: u64,
    /// Samples that were lost on the way here, by reason. Every reason there is, also those of 0.
    pub lost: BTreeMap<&'static str, u64>,
    /// Samples that arrived and whose window found no room, by reason, likewise.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Records about processes that were read.
    pub process_records: u64,
    /// Records about processes that the kernel could not deliver.
    pub process_records_lost: u64,
    /// Windows that were handed on.
    pub windows: u64,
    /// Bytes of the ring buffer, 0 while not running.
    pub ring_buffer_bytes: u64,
    /// Kernel memory of all maps, bytes.
    pub map_bytes: u64,
    /// The language runtimes of the host's processes.
    pub runtimes: Arc<RuntimesOfProcesses>,
    /// What came of reading their frames.
    pub scripts: ScriptCounts,
}

/// Why a cut did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The thread is gone.
    #[error("the profiler has ended")]
    Ended,
    /// What was sampled up to now could not be kept; the log says why.
    #[error("the open window could not be kept; the log says why")]
    NotKept,
    /// It has not been kept in time.
    #[error("the open window has not been kept in time")]
    TimedOut,
}

/// See the module's description. Dropping it ends the thread, after the open window was handed on.
#[derive(Debug)]
pub struct ContinuousProfiler {
    commands: Sender<Command>,
    wake: OwnedFd,
    status: Arc<Mutex<ProfilerStatus>>,
    thread: Option<JoinHandle<()>>,
}

impl ContinuousProfiler {
    /// Begins to profile, `frequency_hz` samples a second and CPU; `None` begins paused. Windows go to
    /// `windows`, in order. Samples within `requests` are taken more often and say in which span; others say what the
    /// map pinned at `shared_contexts` does, if another tracer keeps one.
    ///
    /// # Errors
    /// What the first attempt failed with. Later ones are told by [`ContinuousProfiler::status`].
    pub fn start(
        frequency_hz: Option<u32>,
        requests: Option<FollowedRequests>,
        shared_contexts: PathBuf,
        windows: Sender<PendingWindow>,
    ) -> Result<Self, SessionError> {
        let system = |what| move |source| SessionError::System { what, source };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| system("make an event descriptor")(error.into()))?;
        let woken = wake.try_clone().map_err(system("duplicate an event descriptor"))?;
        let (commands, received) = unbounded();
        let (opened, answer) = bounded(1);
        let status = Arc::new(Mutex::new(ProfilerStatus::default()));
        let (shared, of_worker) = (Arc::clone(&status), Arc::clone(&status));
        let run = move || {
            let mut worker = Worker::new(frequency_hz, requests, shared_contexts, windows, of_worker, woken);
            let began = worker.begin();
            let goes_on = began.is_ok();
            let _ = opened.send(began);
            let run = AssertUnwindSafe(|| worker.run(&received));
            if goes_on && std::panic::catch_unwind(run).is_err() {
                let said = "its thread has failed, which is a mistake of spanflame; restart it".to_owned();
                shared.lock().unwrap_or_else(PoisonError::into_inner).state = ProfilerState::Failed(said);
            }
        };
        let thread = std::thread::Builder::new()
            .name("profiler".to_owned())
            .spawn(run)
            .map_err(system("start the profiler's thread"))?;
        let profiler = Self { commands, wake, status, thread: Some(thread) };
        match answer.recv() {
            Ok(began) => began.map(|()| profiler),
            Err(_) => Err(system("begin to profile")(std::io::Error::other("its thread has ended"))),
        }
    }

    /// Changes the rate; `None` pauses. The window at hand ends.
    pub fn set_frequency(&self, frequency_hz: Option<u32>) {
        self.send(Command::SetFrequency(frequency_hz));
    }

    /// Ends the window at hand if it is older than `if_older_than`, and waits until it and all before are
    /// kept. Blocks, at most `limit`.
    ///
    /// # Errors
    /// [`CutError`].
    pub fn cut(&self, if_older_than: Duration, limit: Duration) -> Result<(), CutError> {
        let (done, kept) = bounded(1);
        self.send(Command::Cut { if_older_than, done });
        kept.recv_timeout(limit).map_err(|error| match error {
            crossbeam_channel::RecvTimeoutError::Timeout => CutError::TimedOut,
            crossbeam_channel::RecvTimeoutError::Disconnected => CutError::NotKept,
        })
    }

    /// What it has done so far; the kernel side's counters are of the last second.
    #[must_use]
    pub fn status(&self) -> ProfilerStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The programs and maps in the kernel; `None` while not running. Blocks, for milliseconds.
    #[must_use]
    pub fn inspect(&self) -> Option<EbpfState> {
        let (answer, answered) = bounded(1);
        self.send(Command::Inspect(answer));
        answered.recv_timeout(Duration::from_secs(5)).ok().flatten()
    }

    fn send(&self, command: Command) {
        // If the thread is gone, whoever waits for an answer sees that the channel is closed.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for ContinuousProfiler {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Default for ProfilerStatus {
    fn default() -> Self {
        let zero = |reasons: &[&'static str]| reasons.iter().map(|&reason| (reason, 0)).collect();
        Self {
            state: ProfilerState::Paused,
            taken: 0,
            said: 0,
            shared: 0,
            arrived: 0,
            lost: zero(&[reason::RING_BUFFER_FULL, reason::NO_SCRATCH_MEMORY, reason::MALFORMED_EVENT]),
            dropped: zero(&[reason::NAMING_QUEUE_FULL, reason::WINDOW_QUEUE_FULL]),
            process_records: 0,
            process_records_lost: 0,
            windows: 0,
            ring_buffer_bytes: 0,
            map_bytes: 0,
            runtimes: Arc::default(),
            scripts: ScriptCounts::default(),
        }
    }
}
