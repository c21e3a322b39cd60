//! A session with the window that it fills.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use spanflame_symbols::symbolize::Limits;

use super::{FollowedRequests, WINDOW};
use crate::kernel::online_cpus;
use crate::process::Interest;
use crate::profile::{Collector, Namer, RawWindow, Session, SessionError, SessionOptions, Taken, resources};

/// A window that would be shorter than this runs into the next one.
const SHORTEST_ALIGNED_WINDOW: Duration = Duration::from_secs(1);
/// A sample is written within microseconds; a CPU of a virtual machine may stand still for longer.
const WRITING_LIMIT: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Running {
    pub(super) session: Session,
    pub(super) collector: Collector,
    frequency_hz: u32,
    /// Those that were online when the session began.
    pub(super) cpus: Vec<u32>,
    pub(super) ring_buffer_bytes: u32,
    pub(super) window_began: Instant,
    window_began_unix_ns: u64,
    pub(super) window_ends: Instant,
    pub(super) status_due: Instant,
    /// Samples of windows that were taken away.
    pub(super) arrived_before: u64,
}

impl Running {
    pub(super) fn begin(
        frequency_hz: u32,
        requests: Option<&FollowedRequests>,
        shared_contexts: &Path,
    ) -> Result<Self, SessionError> {
        // First: its thread is not to inherit the priority that the session gives to this one.
        let spans = requests.map(|requests| Arc::clone(&requests.spans));
        let namer = Namer::start(spans, Limits::of_long_running())
            .map_err(|source| SessionError::System { what: "start the thread that names stacks", source })?;
        let cpus = online_cpus()?;
        let sampling = requests.map(|requests| requests.sampling.clone());
        let most_hz =
            sampling.as_ref().map_or(frequency_hz, |sampling| frequency_hz.max(sampling.frequency_hz));
        let ring_buffer_bytes = resources::ring_buffer_bytes(most_hz, cpus.len());
        let mut session = Session::open(&SessionOptions {
            frequency_hz,
            interest: Interest::All,
            targets_running: true,
            ring_buffer_bytes,
            cache_folder: resources::cache_folder(),
            shared_contexts: shared_contexts.to_owned(),
            requests: sampling,
        })?;
        session.start()?;
        let now = Instant::now();
        let mut running = Self {
            session,
            collector: Collector::new(namer),
            frequency_hz,
            cpus,
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

    pub(super) fn turn(&mut self, timeout: Duration, wake: &OwnedFd) -> Result<(), SessionError> {
        let collector = &mut self.collector;
        self.session.turn(timeout, &[wake.as_fd()], &mut |sample| collector.add(sample))
    }

    /// Takes all samples that were taken up to now, also those that stand behind one which is still being
    /// written.
    pub(super) fn take_what_was_sampled(&mut self, wake: &OwnedFd) -> Result<(), SessionError> {
        let (written, give_up) = (self.session.written_position(), Instant::now() + WRITING_LIMIT);
        loop {
            self.turn(Duration::ZERO, wake)?;
            if self.session.read_position() >= written || Instant::now() >= give_up {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    pub(super) fn stop(&mut self) -> Result<(), SessionError> {
        let collector = &mut self.collector;
        self.session.stop(&mut |sample| collector.add(sample))
    }

    pub(super) fn take_window(&mut self) -> (RawWindow, Taken) {
        let taken = Taken {
            start_unix_ns: self.window_began_unix_ns,
            duration_ns: u64::try_from(self.window_began.elapsed().as_nanos()).unwrap_or(u64::MAX),
            period_ns: 1_000_000_000 / u64::from(self.frequency_hz),
        };
        let window = self.collector.take_window(None, &self.session);
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
