//! The thread: turns the session, ends windows, begins anew after a failure.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::running::Running;
use super::{FollowedRequests, PendingWindow, ProfilerState, ProfilerStatus};
use crate::kernel::{Counters, EbpfState, online_cpus};
use crate::profile::SessionError;
use crate::profile::scripts::ScriptCounts;

/// How often the ring buffer is looked at when nothing wakes us.
const DRAIN_INTERVAL: Duration = Duration::from_millis(200);
/// How often the counters of the kernel side are read.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// After a failure profiling begins anew so long after, then twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(64);

/// Why samples are missing.
pub(super) mod reason {
    /// Why a window with its samples can be dropped.
    pub const NAMING_QUEUE_FULL: &str = "naming_queue_full";
    pub const WINDOW_QUEUE_FULL: &str = "window_queue_full";
    /// Why a sample can be lost before it is here.
    pub const RING_BUFFER_FULL: &str = "ring_buffer_full";
    pub const NO_SCRATCH_MEMORY: &str = "no_scratch_memory";
    pub const MALFORMED_EVENT: &str = "malformed_event";
}

/// What the thread is asked for.
pub(super) enum Command {
    SetFrequency(Option<u32>),
    Cut { if_older_than: Duration, done: Sender<()> },
    Inspect(Sender<Option<EbpfState>>),
    Stop,
}

/// See the module's description.
pub(super) struct Worker {
    wanted_hz: Option<u32>,
    requests: Option<FollowedRequests>,
    shared_contexts: PathBuf,
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
    scripts: ScriptCounts,
}

impl Worker {
    /// A worker that has not begun.
    pub(super) fn new(
        wanted_hz: Option<u32>,
        requests: Option<FollowedRequests>,
        shared_contexts: PathBuf,
        windows: Sender<PendingWindow>,
        status: Arc<Mutex<ProfilerStatus>>,
        wake: OwnedFd,
    ) -> Self {
        let past = Past::default();
        let retry_after = FIRST_RETRY;
        Self {
            wanted_hz,
            requests,
            shared_contexts,
            windows,
            status,
            wake,
            running: None,
            past,
            retry_at: None,
            retry_after,
        }
    }

    /// Begins to profile, unless paused.
    pub(super) fn begin(&mut self) -> Result<(), SessionError> {
        let Some(frequency_hz) = self.wanted_hz else {
            self.set_state(ProfilerState::Paused);
            return Ok(());
        };
        let running = Running::begin(frequency_hz, self.requests.as_ref(), &self.shared_contexts)?;
        self.running = Some(running);
        self.set_state(ProfilerState::Running(frequency_hz));
        self.publish();
        Ok(())
    }

    /// Works until it is told to stop.
    pub(super) fn run(&mut self, commands: &Receiver<Command>) {
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
            self.follow_cpus();
        }
        Ok(())
    }

    /// A CPU that came or went since the session began has no timer, or had one: another session is begun.
    fn follow_cpus(&mut self) {
        let Some(running) = &self.running else { return };
        if online_cpus().is_ok_and(|cpus| cpus != running.cpus) {
            tracing::info!("other CPUs are online now; sampling begins anew on all of them");
            self.end_session(Vec::new());
            if let Err(error) = self.begin() {
                self.fail(&error);
            }
        }
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
        match running.take_what_was_sampled(&self.wake) {
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
            Err(window) => self.drop_samples(reason::NAMING_QUEUE_FULL, window.aggregate.samples()),
        }
    }

    fn hand_on(&mut self, window: PendingWindow) {
        let is_window = window.named.is_some();
        match self.windows.try_send(window) {
            Ok(()) => self.with_status(|status| status.windows += u64::from(is_window)),
            Err(TrySendError::Full(window) | TrySendError::Disconnected(window)) => {
                self.drop_samples(reason::WINDOW_QUEUE_FULL, window.samples());
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
        let mut runtimes = Arc::default();
        let mut scripts = self.past.scripts.clone();
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
            runtimes = running.session.runtimes();
            scripts.add(&running.session.script_names().counts());
        }
        self.with_status(|status| {
            status.taken = counters.taken;
            status.said = counters.said;
            status.shared = counters.shared;
            status.arrived = arrived;
            status.lost.insert(reason::RING_BUFFER_FULL, counters.lost_ring_full);
            status.lost.insert(reason::NO_SCRATCH_MEMORY, counters.lost_no_scratch);
            status.lost.insert(reason::MALFORMED_EVENT, counters.malformed);
            status.process_records = records;
            status.process_records_lost = records_lost;
            (status.ring_buffer_bytes, status.map_bytes) = (ring, maps);
            (status.runtimes, status.scripts) = (runtimes, scripts);
        });
    }
}

impl Past {
    fn add(&mut self, running: &Running) {
        if let Ok(counters) = running.session.counters() {
            self.counters = sum(&self.counters, &counters);
        }
        self.arrived += running.arrived_before;
        self.scripts.add(&running.session.script_names().counts());
        self.process_records += running.session.received_records();
        self.process_records_lost += running.session.lost_records();
    }
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
        thinned: one.thinned + other.thinned,
        over_budget: one.over_budget + other.over_budget,
        stamped: one.stamped + other.stamped,
        said: one.said + other.said,
        shared: one.shared + other.shared,
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
