//! Follows the requests of this host for as long as it is left running.
//!
//! A thread of its own reads what the kernel side saw, makes spans of it and hands those on to whoever keeps
//! them. It waits for nobody. Others ask it two things: what a sample's request came to ([`RequestSpans`]), and that everything up to now be handed on
//! ([`Tracer::flush`]).

mod engine;
mod worker;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use self::engine::Engine;
use self::worker::Worker;
use super::left_alone::LeftAlone;
use super::published::Published;
use super::requests::Requests;
use super::sampled_minutes::{Sampled, SampledMinutes};
use super::spans::{Outcome, SpanOptions};
use super::status::TracerStatus;
use crate::kernel::{EbpfState, KernelError, SocketTracer};
use crate::model::{RequestKey, RequestSpans, Stamp, Unstamped};

/// How long anybody waits for the thread.
const WAIT_LIMIT: Duration = Duration::from_secs(2);

/// Takes what came of events, or a part of it; the rest is dropped. It must not block.
pub type OnOutcome = Box<dyn FnMut(&mut Outcome) + Send>;

enum Command {
    SetOptions(SpanOptions),
    Flush(Sender<()>),
    Inspect(Sender<EbpfState>),
    Stop,
}

/// What the thread shares with those who ask.
#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<Requests>,
    /// Everything that happened before this moment is known.
    known_until_ns: Mutex<u64>,
    known: Condvar,
    wanted_ns: AtomicU64,
    stamped: AtomicU64,
    unstamped: Mutex<HashMap<Unstamped, u64>>,
    status: Mutex<TracerStatus>,
    minutes: Mutex<SampledMinutes>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module's description. Dropping it ends the thread, after the last batch is handed on.
#[derive(Debug)]
pub struct Tracer {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Tracer {
    /// Begins to follow requests with a loaded tracer of sockets. What comes of them goes to `on_outcome`.
    ///
    /// # Errors
    /// What the kernel or the system refused.
    pub fn start(
        mut socket: SocketTracer,
        options: SpanOptions,
        left_alone: LeftAlone,
        on_outcome: OnOutcome,
    ) -> Result<Self, KernelError> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |source| KernelError::System { what, source }
        };
        socket.start()?;
        socket.publish_contexts_at_once(options.ids_are_final_at_once())?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| system("make an eventfd")(error.into()))?;
        let wake = Arc::new(wake);
        let (commands, received) = unbounded();
        let shared = Arc::new(Shared::default());
        // Until it says otherwise.
        lock(&shared.status).spans.share = 1.0;
        let published = socket.publishes_contexts().then(Published::default);
        let engine = Engine::new(options, left_alone, published);
        let mut worker = Worker::new(socket, engine, Arc::clone(&shared), Arc::clone(&wake), on_outcome)?;
        let thread = std::thread::Builder::new()
            .name("tracer".to_owned())
            .spawn(move || worker.run(&received))
            .map_err(system("start the thread that follows requests"))?;
        Ok(Self { commands, wake, shared, thread: Some(thread) })
    }

    /// What is asked of spans from now on.
    pub fn set_options(&self, options: SpanOptions) {
        self.command(Command::SetOptions(options));
    }

    /// Waits until the spans of everything that has ended up to now were handed on. False if that
    /// took too long, or the thread is gone.
    #[must_use]
    pub fn flush(&self) -> bool {
        let (done, waits) = bounded(1);
        self.command(Command::Flush(done));
        waits.recv_timeout(WAIT_LIMIT).is_ok()
    }

    /// The programs and maps in the kernel. Blocks, for milliseconds.
    #[must_use]
    pub fn inspect(&self) -> Option<EbpfState> {
        let (answer, answered) = bounded(1);
        self.command(Command::Inspect(answer));
        answered.recv_timeout(WAIT_LIMIT).ok()
    }

    /// What it has done so far.
    #[must_use]
    pub fn status(&self) -> TracerStatus {
        let mut status = lock(&self.shared.status).clone();
        status.stamped_samples = self.shared.stamped.load(Ordering::Relaxed);
        status.unstamped_samples.clone_from(&lock(&self.shared.unstamped));
        status.known_requests = lock(&self.shared.requests).len();
        status
    }

    /// How many requests ended in this range of time, to the minute, and of how many the span was kept; as far as it has
    /// run then, and a day back.
    #[must_use]
    pub fn sampled(&self, from_unix_ns: u64, to_unix_ns: u64) -> Sampled {
        lock(&self.shared.minutes).between(from_unix_ns, to_unix_ns)
    }

    /// Who knows what the requests of samples came to.
    #[must_use]
    pub fn request_spans(&self) -> Arc<dyn RequestSpans> {
        Arc::new(Asked { shared: Arc::clone(&self.shared), wake: Arc::clone(&self.wake) })
    }

    fn command(&self, command: Command) {
        // A thread that is gone answers nothing, which the caller sees.
        let _ = self.commands.send(command);
        wake_up(&self.wake);
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wake_up(wake: &OwnedFd) {
    // It can only be full of wake-ups already.
    let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
}

/// Answers those who sample.
struct Asked {
    shared: Arc<Shared>,
    wake: Arc<OwnedFd>,
}

impl RequestSpans for Asked {
    fn catch_up(&self, time_ns: u64) {
        self.shared.wanted_ns.fetch_max(time_ns, Ordering::Relaxed);
        wake_up(&self.wake);
        let known = lock(&self.shared.known_until_ns);
        // Whoever comes too late finds requests unconfirmed, which is counted.
        let _ = self.shared.known.wait_timeout_while(known, WAIT_LIMIT, |known| *known < time_ns);
    }

    fn span_at(&self, request: RequestKey, time_ns: u64) -> Result<Stamp, Unstamped> {
        let stamp = lock(&self.shared.requests).span_at(request, time_ns);
        match stamp {
            Ok(_) => drop(self.shared.stamped.fetch_add(1, Ordering::Relaxed)),
            Err(reason) => *lock(&self.shared.unstamped).entry(reason).or_default() += 1,
        }
        stamp
    }
}
