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

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{Collector, Namer, RawWindow, Session, SessionError, SessionOptions, Taken, resources};
use crate::kernel::{Counters, EbpfState, online_cpus};
use crate::model::Profile;
use crate::process::Interest;

/// How long a window is, unless it is cut.
pub const WINDOW: Duration = Duration::from_secs(10);
/// A window that would be shorter than this runs into the next one.
const SHORTEST_ALIGNED_WINDOW: Duration = Duration::from_secs(1);
/// How often the ring buffer is looked at when nothing wakes us.
const DRAIN_INTERVAL: Duration = Duration::from_millis(200);
/// How often the counters of the kernel side are read.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// After a failure profiling begins anew so long after, then twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(64);

/// A window on its way to whoever keeps it.
#[derive(Debug)]
pub struct PendingWindow {
    named: Option<Receiver<(Box<RawWindow>, Profile)>>,
    samples: u64,
    cut_by: Vec<Sender<()>>,
}

impl PendingWindow {
    /// Waits for the names. `None` if there was nothing to name, or if the naming thread is gone.
    #[must_use]
    pub fn profile(&self) -> Option<Profile> {
        self.named.as_ref()?.recv().ok().map(|(_, profile)| profile)
    }

    /// How many samples it has.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Tells those who cut this window that it is kept, and everything before it.
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
}

/// Why a cut did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The thread is gone.
    #[error("the profiler has ended")]
    Ended,
    /// It has not been kept in time.
    #[error("the open window has not been kept in time")]
    TimedOut,
}

enum Command {
    SetFrequency(Option<u32>),
    Cut { if_older_than: Duration, done: Sender<()> },
    Inspect(Sender<Option<EbpfState>>),
    Stop,
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
    /// `windows`, in order.
    ///
    /// # Errors
    /// What the first attempt failed with. Later ones are told by [`ContinuousProfiler::status`].
    pub fn start(frequency_hz: Option<u32>, windows: Sender<PendingWindow>) -> Result<Self, SessionError> {
        let system = |what| move |source| SessionError::System { what, source };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| system("make an event descriptor")(error.into()))?;
        let woken = wake.try_clone().map_err(system("duplicate an event descriptor"))?;
        let (commands, received) = unbounded();
        let (opened, answer) = bounded(1);
        let status = Arc::new(Mutex::new(ProfilerStatus::default()));
        let shared = Arc::clone(&status);
        let run = move || {
            let mut worker = Worker::new(frequency_hz, windows, shared, woken);
            let began = worker.begin();
            let goes_on = began.is_ok();
            let _ = opened.send(began);
            if goes_on {
                worker.run(&received);
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
            crossbeam_channel::RecvTimeoutError::Disconnected => CutError::Ended,
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

/// Why a window with its samples can be dropped.
const NAMING_QUEUE_FULL: &str = "naming_queue_full";
const WINDOW_QUEUE_FULL: &str = "window_queue_full";
/// Why a sample can be lost before it is here.
const RING_BUFFER_FULL: &str = "ring_buffer_full";
const NO_SCRATCH_MEMORY: &str = "no_scratch_memory";
const MALFORMED_EVENT: &str = "malformed_event";

impl Default for ProfilerStatus {
    fn default() -> Self {
        let zero = |reasons: &[&'static str]| reasons.iter().map(|&reason| (reason, 0)).collect();
        Self {
            state: ProfilerState::Paused,
            taken: 0,
            arrived: 0,
            lost: zero(&[RING_BUFFER_FULL, NO_SCRATCH_MEMORY, MALFORMED_EVENT]),
            dropped: zero(&[NAMING_QUEUE_FULL, WINDOW_QUEUE_FULL]),
            process_records: 0,
            process_records_lost: 0,
            windows: 0,
            ring_buffer_bytes: 0,
            map_bytes: 0,
        }
    }
}

/// A session with the window that it fills.
struct Running {
    session: Session,
    collector: Collector,
    frequency_hz: u32,
    ring_buffer_bytes: u32,
    window_began: Instant,
    window_began_unix_ns: u64,
    window_ends: Instant,
    status_due: Instant,
    /// Samples of windows that were taken away.
    arrived_before: u64,
}

struct Worker {
    wanted_hz: Option<u32>,
    windows: Sender<PendingWindow>,
    status: Arc<Mutex<ProfilerStatus>>,
    wake: OwnedFd,
    running: Option<Running>,
    /// Counters of sessions that are over.
    past: Past,
    retry_at: Option<Instant>,
    retry_after: Duration,
}

#[derive(Default)]
struct Past {
    counters: Counters,
    arrived: u64,
    process_records: u64,
    process_records_lost: u64,
}

impl Worker {
    fn new(
        wanted_hz: Option<u32>,
        windows: Sender<PendingWindow>,
        status: Arc<Mutex<ProfilerStatus>>,
        wake: OwnedFd,
    ) -> Self {
        let past = Past::default();
        let retry_after = FIRST_RETRY;
        Self { wanted_hz, windows, status, wake, running: None, past, retry_at: None, retry_after }
    }

    fn begin(&mut self) -> Result<(), SessionError> {
        let Some(frequency_hz) = self.wanted_hz else {
            self.set_state(ProfilerState::Paused);
            return Ok(());
        };
        let running = Running::begin(frequency_hz)?;
        self.running = Some(running);
        self.set_state(ProfilerState::Running(frequency_hz));
        self.publish();
        Ok(())
    }

    fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            while let Ok(command) = commands.try_recv() {
                match command {
                    Command::SetFrequency(frequency_hz) => self.set_frequency(frequency_hz),
                    Command::Cut { if_older_than, done } => self.cut(if_older_than, done),
                    Command::Inspect(answer) => {
                        let _ = answer.send(self.running.as_ref().map(|running| running.session.ebpf()));
                    }
                    Command::Stop => {
                        self.end_session(Vec::new());
                        return;
                    }
                }
            }
            if let Err(error) = self.turn() {
                self.fail(&error);
            }
        }
    }

    /// Waits for news and takes it.
    fn turn(&mut self) -> Result<(), SessionError> {
        let Some(running) = &mut self.running else {
            let now = Instant::now();
            let wait = self.retry_at.map(|at| at.saturating_duration_since(now));
            wait_for(&self.wake, wait);
            self.clear_wake();
            if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                self.retry_at = None;
                self.begin()?;
                self.retry_after = FIRST_RETRY;
            }
            return Ok(());
        };
        let left = running.window_ends.saturating_duration_since(Instant::now()).min(DRAIN_INTERVAL);
        running.turn(left, &self.wake)?;
        let now = Instant::now();
        let (ends, due) = (running.window_ends, running.status_due);
        self.clear_wake();
        if now >= ends {
            self.end_window(Vec::new());
        }
        if now >= due {
            self.publish();
        }
        Ok(())
    }

    fn clear_wake(&self) {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut counter);
    }

    fn set_frequency(&mut self, frequency_hz: Option<u32>) {
        if self.wanted_hz == frequency_hz {
            return;
        }
        self.wanted_hz = frequency_hz;
        self.end_session(Vec::new());
        self.retry_after = FIRST_RETRY;
        if let Err(error) = self.begin() {
            self.fail(&error);
        }
    }

    fn cut(&mut self, if_older_than: Duration, done: Sender<()>) {
        let Some(running) = &mut self.running else {
            return self.hand_on(PendingWindow { named: None, samples: 0, cut_by: vec![done] });
        };
        if running.window_began.elapsed() < if_older_than {
            return self.hand_on(PendingWindow { named: None, samples: 0, cut_by: vec![done] });
        }
        // What was sampled before the request is in the ring buffer at most.
        match running.turn(Duration::ZERO, &self.wake) {
            Ok(()) => self.end_window(vec![done]),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &SessionError) {
        tracing::error!("profiling has stopped and is tried again in {:?}: {error}", self.retry_after);
        self.end_session(Vec::new());
        self.set_state(ProfilerState::Failed(error.to_string()));
        self.retry_at = Some(Instant::now() + self.retry_after);
        self.retry_after = (self.retry_after * 2).min(LAST_RETRY);
    }

    /// Ends sampling and hands on what there is.
    fn end_session(&mut self, cut_by: Vec<Sender<()>>) {
        self.retry_at = None;
        if let Some(running) = &mut self.running
            && let Err(error) = running.stop()
        {
            tracing::warn!("the last samples before profiling stopped are lost: {error}");
        }
        self.end_window(cut_by);
        self.publish();
        if let Some(running) = self.running.take() {
            self.past.add(&running);
        }
        self.set_state(ProfilerState::Paused);
        self.publish();
    }

    fn end_window(&mut self, cut_by: Vec<Sender<()>>) {
        let Some(running) = &mut self.running else { return };
        let (window, taken) = running.take_window();
        let samples = window.aggregate.samples();
        match running.collector.namer().name(window, taken) {
            Ok(named) => self.hand_on(PendingWindow { named: Some(named), samples, cut_by }),
            Err(window) => self.drop_samples(NAMING_QUEUE_FULL, window.aggregate.samples()),
        }
    }

    fn hand_on(&mut self, window: PendingWindow) {
        match self.windows.try_send(window) {
            Ok(()) => self.with_status(|status| status.windows += 1),
            Err(TrySendError::Full(window) | TrySendError::Disconnected(window)) => {
                self.drop_samples(WINDOW_QUEUE_FULL, window.samples());
            }
        }
    }

    fn drop_samples(&self, reason: &'static str, samples: u64) {
        tracing::warn!("a window of {samples} samples is dropped: {reason}");
        self.with_status(|status| *status.dropped.entry(reason).or_default() += samples);
    }

    fn with_status(&self, change: impl FnOnce(&mut ProfilerStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn set_state(&self, state: ProfilerState) {
        self.with_status(|status| status.state = state);
    }

    /// Brings the counters of the status up to date.
    fn publish(&mut self) {
        let mut counters = self.past.counters;
        let (mut records, mut records_lost) = (self.past.process_records, self.past.process_records_lost);
        let mut arrived = self.past.arrived;
        let (mut ring, mut maps) = (0, 0);
        if let Some(running) = &mut self.running {
            running.status_due = Instant::now() + STATUS_INTERVAL;
            match running.session.counters() {
                Ok(now) => counters = sum(&counters, &now),
                Err(error) => tracing::debug!("the sampler's counters cannot be read: {error}"),
            }
            arrived += running.arrived_before + running.collector.aggregate().samples();
            records += running.session.received_records();
            records_lost += running.session.lost_records();
            (ring, maps) = (running.ring_buffer_bytes.into(), running.session.map_bytes());
        }
        self.with_status(|status| {
            status.taken = counters.taken;
            status.arrived = arrived;
            status.lost.insert(RING_BUFFER_FULL, counters.lost_ring_full);
            status.lost.insert(NO_SCRATCH_MEMORY, counters.lost_no_scratch);
            status.lost.insert(MALFORMED_EVENT, counters.malformed);
            status.process_records = records;
            status.process_records_lost = records_lost;
            (status.ring_buffer_bytes, status.map_bytes) = (ring, maps);
        });
    }
}

impl Past {
    fn add(&mut self, running: &Running) {
        if let Ok(counters) = running.session.counters() {
            self.counters = sum(&self.counters, &counters);
        }
        self.arrived += running.arrived_before;
        self.process_records += running.session.received_records();
        self.process_records_lost += running.session.lost_records();
    }
}

impl Running {
    fn begin(frequency_hz: u32) -> Result<Self, SessionError> {
        // First: its thread is not to inherit the priority that the session gives to this one.
        let namer = Namer::start()
            .map_err(|source| SessionError::System { what: "start the thread that names stacks", source })?;
        let ring_buffer_bytes = resources::ring_buffer_bytes(frequency_hz, online_cpus()?.len());
        let mut session = Session::open(&SessionOptions {
            frequency_hz,
            interest: Interest::All,
            targets_running: true,
            ring_buffer_bytes,
            cache_folder: resources::cache_folder(),
        })?;
        session.start()?;
        let now = Instant::now();
        let mut running = Self {
            session,
            collector: Collector::new(namer),
            frequency_hz,
            ring_buffer_bytes,
            window_began: now,
            window_began_unix_ns: 0,
            window_ends: now,
            status_due: now,
            arrived_before: 0,
        };
        running.begin_window();
        Ok(running)
    }

    fn begin_window(&mut self) {
        self.window_began = Instant::now();
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.window_began_unix_ns = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
        self.window_ends = self.window_began + until_aligned(unix);
    }

    fn turn(&mut self, timeout: Duration, wake: &OwnedFd) -> Result<(), SessionError> {
        let collector = &mut self.collector;
        self.session.turn(timeout, &[wake.as_fd()], &mut |sample| collector.add(sample))
    }

    fn stop(&mut self) -> Result<(), SessionError> {
        let collector = &mut self.collector;
        self.session.stop(&mut |sample| collector.add(sample))
    }

    fn take_window(&mut self) -> (RawWindow, Taken) {
        let taken = Taken {
            start_unix_ns: self.window_began_unix_ns,
            duration_ns: u64::try_from(self.window_began.elapsed().as_nanos()).unwrap_or(u64::MAX),
            period_ns: 1_000_000_000 / u64::from(self.frequency_hz),
        };
        let window = self.collector.take_window(None, &self.session.objects, &self.session.processes);
        self.arrived_before += window.aggregate.samples();
        self.session.forget_the_past();
        self.begin_window();
        (window, taken)
    }
}

/// How long a window is that begins at this time since the Unix epoch.
fn until_aligned(unix: Duration) -> Duration {
    let window_ns = WINDOW.as_nanos();
    let left_ns = window_ns - unix.as_nanos() % window_ns;
    let left = Duration::from_nanos(u64::try_from(left_ns).unwrap_or(u64::MAX));
    if left < SHORTEST_ALIGNED_WINDOW { left + WINDOW } else { left }
}

fn sum(one: &Counters, other: &Counters) -> Counters {
    Counters {
        ticks: one.ticks + other.ticks,
        idle: one.idle + other.idle,
        not_selected: one.not_selected + other.not_selected,
        taken: one.taken + other.taken,
        sent: one.sent + other.sent,
        lost_ring_full: one.lost_ring_full + other.lost_ring_full,
        lost_no_scratch: one.lost_no_scratch + other.lost_no_scratch,
        user_frames: one.user_frames + other.user_frames,
        kernel_frames: one.kernel_frames + other.kernel_frames,
        malformed: one.malformed + other.malformed,
    }
}

/// Waits until `wake` is written to, at most `limit`, without one for ever.
fn wait_for(wake: &OwnedFd, limit: Option<Duration>) {
    let mut sources = [PollFd::new(wake, PollFlags::IN)];
    let wait = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    // Whatever woke us, the caller looks at everything.
    let _ = poll(&mut sources, wait.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_at_multiples_of_ten_seconds_and_are_never_tiny() {
        assert_eq!(until_aligned(Duration::from_secs(100)), WINDOW);
        assert_eq!(until_aligned(Duration::from_secs(103)), Duration::from_secs(7));
        assert_eq!(until_aligned(Duration::from_millis(109_000)), Duration::from_secs(1));
        assert_eq!(until_aligned(Duration::from_millis(109_001)), Duration::from_millis(10_999));
    }
}
