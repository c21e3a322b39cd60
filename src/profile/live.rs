//! A profile of its own for one request: its own sampler at its own rate, beside the continuous one.
//!
//! Comes in: which process or the whole host, how often, how long. Goes out: a named profile. The thread
//! that calls works for as long as the capture takes, under another priority; so it should be one made for
//! it. Never: windows of the continuous profiler, the store.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use spanflame_symbols::symbolize::Limits;

use super::continuous::FollowedRequests;
use super::{
    Collector, Namer, RequestSamplingOptions, Session, SessionError, SessionOptions, Taken, resources,
};
use crate::kernel::{Counters, online_cpus};
use crate::model::Profile;
use crate::process::{Interest, LivingProcess};

/// Longest wait for the unwind tables of the one process: `go tool pprof` gives up half the duration, and
/// five seconds, after it should be over.
const TABLES_WAIT: Duration = Duration::from_secs(3);
/// How often it is asked whether anybody still waits.
const TURN: Duration = Duration::from_millis(100);
/// How often it is asked whether the one process still lives.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What to capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureOptions {
    /// The process; every process of the host without.
    pub pid: Option<u32>,
    /// Samples a second and CPU.
    pub frequency_hz: u32,
    /// How long.
    pub duration: Duration,
}

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Nobody waits for it any more.
    #[error("nobody waits for the capture any more")]
    Cancelled,
    /// The kernel or the system refused.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The samples could not be named.
    #[error("the samples could not be named; please report this")]
    Unnamed,
}

/// Samples and names them; those taken in requests that are followed say in which span. Ends early, with what there is, when the one process ends. `is_cancelled` is
/// asked ten times a second; for `shared_contexts` see [`SessionOptions`]; `on_started` is called when sampling begins, after which little can go wrong.
///
/// # Errors
/// [`CaptureError`].
pub fn capture(
    options: CaptureOptions,
    requests: Option<FollowedRequests>,
    shared_contexts: &Path,
    is_cancelled: &dyn Fn() -> bool,
    on_started: impl FnOnce(),
) -> Result<Profile, CaptureError> {
    let system = |what| move |source| SessionError::System { what, source };
    // First: its thread is not to inherit the priority that the session gives to this one.
    let (sampling, spans) = requests.map(|requests| (requests.sampling, requests.spans)).unzip();
    let namer =
        Namer::start(spans, Limits::default()).map_err(system("start the thread that names stacks"))?;
    let mut collector = Collector::new(namer);
    let cpus = online_cpus().map_err(SessionError::from)?.len();
    let interest = match options.pid {
        Some(pid) => Interest::Only { pids: HashSet::from([pid]), follow_children: false },
        None => Interest::All,
    };
    let mut session = Session::open(&SessionOptions {
        frequency_hz: options.frequency_hz,
        interest,
        targets_running: true,
        ring_buffer_bytes: resources::ring_buffer_bytes(options.frequency_hz, cpus),
        cache_folder: resources::cache_folder(),
        shared_contexts: shared_contexts.to_owned(),
        // At the rate that was asked for, within requests as outside.
        requests: sampling
            .map(|sampling| RequestSamplingOptions { frequency_hz: options.frequency_hz, ..sampling }),
    })?;
    if options.pid.is_some() {
        let deadline = Instant::now() + TABLES_WAIT;
        while !session.wait_for_tables(TURN)? && Instant::now() < deadline {
            check(is_cancelled)?;
        }
    }
    check(is_cancelled)?;
    let began_at = SystemTime::now();
    session.start()?;
    on_started();
    let began = Instant::now();
    let mut looked = began;
    loop {
        let left = options.duration.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        session.turn(left.min(TURN), &[], &mut |sample| collector.add(sample))?;
        check(is_cancelled)?;
        if let Some(pid) = options.pid
            && looked.elapsed() >= LOOK_INTERVAL
        {
            looked = Instant::now();
            if LivingProcess::read(pid).is_none() {
                break;
            }
        }
    }
    session.stop(&mut |sample| collector.add(sample))?;
    let length = began.elapsed();
    let counters = session.counters()?;

    let main_object = options.pid.and_then(|pid| session.known.processes.executable_object(pid));
    let began_at = began_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let taken = Taken {
        start_unix_ns: nanoseconds(began_at),
        duration_ns: nanoseconds(length),
        period_ns: 1_000_000_000 / u64::from(options.frequency_hz.max(1)),
    };
    let arrived = collector.aggregate().samples();
    let window = collector.take_window(main_object, &session);
    // Naming takes longest; what the kernel holds for us is not needed for it.
    drop(session);
    let named = collector.namer().name(window, taken).map_err(|_| CaptureError::Unnamed)?;
    let mut profile = loop {
        match named.recv_timeout(TURN) {
            Ok((_, profile)) => break profile,
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => check(is_cancelled)?,
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return Err(CaptureError::Unnamed),
        }
    };
    profile.comments = account(&counters, arrived);
    Ok(profile)
}

fn check(is_cancelled: &dyn Fn() -> bool) -> Result<(), CaptureError> {
    if is_cancelled() { Err(CaptureError::Cancelled) } else { Ok(()) }
}

/// What was taken and what was lost, so that it can be read from the profile alone.
fn account(counters: &Counters, arrived: u64) -> Vec<String> {
    let mut comments = vec![
        format!("spanflame {}", env!("CARGO_PKG_VERSION")),
        format!("taken={} written={arrived} idle={}", counters.taken, counters.idle),
    ];
    for (reason, lost) in [
        ("ring_buffer_full", counters.lost_ring_full),
        ("no_scratch_memory", counters.lost_no_scratch),
        ("malformed_event", counters.malformed),
    ] {
        if lost > 0 {
            comments.push(format!("lost {reason}={lost}"));
        }
    }
    comments
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
