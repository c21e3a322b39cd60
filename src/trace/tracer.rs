//! Follows the requests of this host for as long as it is left running.
//!
//! A thread of its own reads what the kernel side saw, makes spans of it and hands those on to whoever keeps
//! them. It waits for nobody. Others ask it two things: what a sample's request came to ([`RequestSpans`]), and that everything up to now be handed on
//! ([`Tracer::flush`]).

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::connections::{Connections, News};
use super::event_loops::EventLoops;
use super::exchange::ExchangeEvent;
use super::go_programs::GoProcesses;
use super::left_alone::LeftAlone;
use super::published::Published;
use super::requests::Requests;
use super::sampled_minutes::{Sampled, SampledMinutes};
use super::spans::{Outcome, SpanOptions, Spans, WallClock, Whose};
use super::status::{TracerFailures, TracerStatus, UnexplainedProcess};
use super::streams::StreamWork;
use super::tls::FollowedTls;
use crate::kernel::{EbpfState, KernelError, SocketCounters, SocketTracer, monotonic_ns};
use crate::model::socket::{Capture, SocketEventKind};
use crate::model::{ConnectionId, RequestKey, RequestSpans, SocketEvent, SpanResource, Stamp, Unstamped};
use crate::process::{GoProcess, GoPrograms, SpanResources, living};

/// How often the ring buffer is looked at when nothing wakes us: what a request's span is late at most.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// The same while other profilers are told which request a thread is at: what they learn late at most.
const PUBLISHING_DRAIN_INTERVAL: Duration = Duration::from_millis(20);
/// Spans are handed on at least so often while there are any.
const HAND_ON_INTERVAL: Duration = Duration::from_millis(500);
/// Spans of a batch, give or take those of one look at the ring.
const BATCH: usize = 512;
/// How often connections are looked for whose end no event tells.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// With so many connections, most of which may be UNIX sockets that are gone, it is looked more often.
const CROWDED: usize = 16_384;
const CROWDED_SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// How often the status is brought up to date.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A write is known to have moved what it announced so long after it began.
const SETTLED_AFTER_NS: u64 = 60_000_000;
/// Programs that are remembered: beyond that all are looked at anew.
const MAX_PROGRAMS: usize = 16_384;
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
        let engine = Engine {
            connections: Connections::default(),
            spans: Spans::new(options),
            resources: SpanResources::new(),
            nobody: Arc::default(),
            outcome: Outcome::default(),
            captures: Vec::new(),
            new_code: Vec::new(),
            unreadable: Vec::new(),
            programs: foldhash::HashMap::default(),
            go_programs: GoPrograms::default(),
            go_processes: Vec::new(),
            event_loops: Vec::new(),
            left_alone,
            uses_io_uring: false,
            published: socket.publishes_contexts().then(Published::default),
            news: News::default(),
            events: 0,
            failures: TracerFailures::default(),
        };
        let now = Instant::now();
        let mut worker = Worker {
            tls: FollowedTls::begin(&socket)?,
            go: GoProcesses::new(&socket),
            event_loops: EventLoops::new(&socket),
            socket,
            engine,
            on_outcome,
            last_handed_on: now,
            last_sweep: now,
            last_published: now,
            shared: Arc::clone(&shared),
            wake: Arc::clone(&wake),
            flushes: Vec::new(),
            flush_at_ns: 0,
        };
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

/// What turns events into spans.
struct Engine {
    connections: Connections,
    spans: Spans,
    resources: SpanResources,
    /// Stands where nobody asks whose an exchange is.
    nobody: Arc<SpanResource>,
    outcome: Outcome,
    /// What protocols want to see of their connections from now on, of their plain bytes inside of TLS or not.
    captures: Vec<(ConnectionId, bool, Capture)>,
    /// Processes that may have TLS libraries which were not looked at.
    new_code: Vec<u32>,
    /// Whose connection is TLS that could not be read.
    unreadable: Vec<u32>,
    /// What processes run, as long as they are the same.
    programs: foldhash::HashMap<u32, Program>,
    go_programs: GoPrograms,
    /// Processes that the kernel side is to know as Go programs from now on, or not any more.
    go_processes: Vec<(u32, Option<GoProcess>)>,
    /// Likewise, programs whose event loops may be known, by their executables.
    event_loops: Vec<(u32, Option<String>)>,
    left_alone: LeftAlone,
    /// Since the last turn somebody was seen to.
    uses_io_uring: bool,
    /// Requests that other profilers are told of, if they are.
    published: Option<Published>,
    news: News,
    events: u64,
    failures: TracerFailures,
}

/// What a process runs.
#[derive(Clone)]
struct Program {
    resource: Arc<SpanResource>,
    is_go: bool,
    is_left_alone: bool,
}

/// One look at what has happened.
struct Turn<'a> {
    now_ns: u64,
    clock: WallClock,
    /// Held for no longer than it takes to write: others ask what samples belong to meanwhile.
    requests: &'a Mutex<Requests>,
}

impl Engine {
    fn take(&mut self, event: &SocketEvent, turn: &mut Turn<'_>) {
        self.events += 1;
        // A mistake of ours in one event must not be the end of all others.
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.understand(event, turn))).is_err() {
            self.failures.events += 1;
            tracing::error!("an event of a socket could not be understood; please report it");
        }
    }

    fn understand(&mut self, event: &SocketEvent, turn: &mut Turn<'_>) {
        let pid = event.actor.pid;
        if let SocketEventKind::NewCode { is_program } = event.kind {
            if is_program && self.left_alone.may_be() {
                self.resources.forget(pid);
                self.meet(pid, turn.now_ns);
            } else {
                self.new_code.push(pid);
            }
            return;
        }
        if event.kind == SocketEventKind::IoUring {
            self.uses_io_uring = true;
            return;
        }
        if self.left_alone.may_be() && pid != 0 && self.meet(pid, turn.now_ns).is_left_alone {
            return;
        }
        let mut news = std::mem::take(&mut self.news);
        self.connections.take(event, &mut news);
        self.unreadable.extend(news.unreadable_by);
        if let Some(opened) = news.opened {
            self.spans.connection_opened(event.connection, opened);
            // Before its requests are: whose they are is for the kernel side to know.
            if pid != 0 {
                self.meet(pid, turn.now_ns);
            }
        }
        self.hear(event.connection, &mut news, turn);
        match event.kind {
            SocketEventKind::Stream { stream_id, direction, request } => {
                let work = StreamWork { direction, request, actor: event.actor };
                self.spans.stream_taken(event.connection, stream_id, work, &mut lock(turn.requests));
            }
            SocketEventKind::Listens => drop(self.meet(pid, turn.now_ns)),
            _ => {}
        }
        if let Some(capture) = news.capture {
            self.captures.push((event.connection, news.is_decrypted, capture));
        }
        if news.is_opaque {
            self.spans.process_is_opaque(pid);
        }
        self.news = news;
    }

    fn hear(&mut self, connection: ConnectionId, news: &mut News, turn: &mut Turn<'_>) {
        let is_decrypted = news.is_decrypted;
        for exchange in news.events.drain(..) {
            // Only what begins is asked whose it is; what ends may be nobody's doing.
            let (resource, is_go) = match &exchange {
                ExchangeEvent::Began(began) => {
                    let Program { resource, is_go, .. } = self.meet(began.actor.pid, turn.now_ns);
                    if let Some(published) = self.published.as_mut().filter(|_| !is_go) {
                        published.begin(began);
                    }
                    (resource, is_go)
                }
                ExchangeEvent::Ended(_) | ExchangeEvent::Discarded(..) => (Arc::clone(&self.nobody), false),
            };
            let of = Whose { resource: &resource, is_go, is_decrypted, clock: turn.clock };
            let mut requests = lock(turn.requests);
            self.spans.take(connection, exchange, &of, &mut requests, &mut self.outcome);
        }
        if news.is_over {
            self.spans.connection_ended(connection, &mut lock(turn.requests), &mut self.outcome);
        }
    }

    /// Who a process is. A Go program that is met for the first time is remembered for the kernel side.
    fn meet(&mut self, pid: u32, now_ns: u64) -> Program {
        let resource = self.resources.of(pid, now_ns);
        let known_before = match self.programs.get(&pid) {
            Some(known) if Arc::ptr_eq(&known.resource, &resource) => return known.clone(),
            known => known.is_some(),
        };
        let executable = resource.text("process.executable.path").unwrap_or_default();
        let is_left_alone = self.left_alone.meet(pid, executable);
        let process = if is_left_alone { None } else { self.go_programs.of(pid) };
        let is_go = process.is_some();
        let may_be_known = !is_left_alone && EventLoops::may_be_known(executable);
        if may_be_known || known_before {
            self.event_loops.push((pid, may_be_known.then(|| executable.to_owned())));
        }
        if !is_left_alone || known_before {
            self.go_processes.push((pid, process));
        }
        if !is_left_alone {
            self.new_code.push(pid);
        }
        if self.programs.len() >= MAX_PROGRAMS {
            self.programs.clear();
        }
        let program = Program { resource, is_go, is_left_alone };
        self.programs.insert(pid, program.clone());
        program
    }

    /// The kernel side forgets Go programs that have ended: their numbers will be others'.
    fn forget_dead_programs(&mut self) {
        let (go_processes, event_loops) = (&mut self.go_processes, &mut self.event_loops);
        let connections = &mut self.connections;
        self.programs.retain(|&pid, &mut Program { is_go, .. }| {
            let lives = std::path::Path::new("/proc").join(pid.to_string()).exists();
            if !lives {
                connections.forget_process(pid);
                if is_go {
                    go_processes.push((pid, None));
                }
                event_loops.push((pid, None));
            }
            lives
        });
        let programs = &self.programs;
        self.spans.forget_processes(|pid| programs.contains_key(&pid));
    }

    /// Tells the kernel side of Go programs.
    fn note_go(&mut self, go: &mut GoProcesses, socket: &SocketTracer) {
        let mut readable = Vec::new();
        go.note(socket, &mut self.go_processes, &mut readable);
        let now_ns = monotonic_ns();
        for pid in readable {
            self.connections.note_readable(pid, now_ns);
        }
    }

    /// What is due although nothing has happened.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        let mut due = Vec::new();
        self.connections.settle(turn.now_ns, |id, news| due.push((id, news)));
        for (connection, mut news) in due {
            self.hear(connection, &mut news, turn);
        }
        for connection in self.connections.forget_silent() {
            let resource = Arc::clone(&self.nobody);
            let of = Whose { resource: &resource, is_go: false, is_decrypted: false, clock: turn.clock };
            let mut requests = lock(turn.requests);
            self.spans.connection_forgotten(connection, &of, &mut requests, &mut self.outcome);
        }
        self.spans.show_open(turn.now_ns, &mut lock(turn.requests), &mut self.outcome);
    }
}

struct Worker {
    tls: FollowedTls,
    // Its probes go before the programs whose maps they share.
    go: GoProcesses,
    event_loops: EventLoops,
    socket: SocketTracer,
    engine: Engine,
    on_outcome: OnOutcome,
    last_handed_on: Instant,
    last_sweep: Instant,
    last_published: Instant,
    shared: Arc<Shared>,
    wake: Arc<OwnedFd>,
    /// Who waits for everything up to now, and when what happened up to now is settled.
    flushes: Vec<Sender<()>>,
    flush_at_ns: u64,
}

impl Worker {
    fn run(&mut self, commands: &Receiver<Command>) {
        // Requests of Go programs that run already are their goroutines' from the first one on.
        for process in living() {
            self.engine.meet(process.pid, monotonic_ns());
        }
        self.engine.left_alone.note(&self.socket);
        self.engine.note_go(&mut self.go, &self.socket);
        self.event_loops.note(&self.socket, &mut self.engine.event_loops);
        loop {
            let mut is_over = false;
            // Commands first: what happened before one of them is in the ring when it is looked at now.
            while let Ok(command) = commands.try_recv() {
                match command {
                    Command::SetOptions(options) => {
                        if let Err(error) =
                            self.socket.publish_contexts_at_once(options.ids_are_final_at_once())
                        {
                            tracing::warn!("what other profilers are told is as before: {error}");
                        }
                        self.engine.spans.set_options(options, monotonic_ns());
                        self.pass_bound_on();
                    }
                    Command::Flush(done) => {
                        self.flushes.push(done);
                        self.flush_at_ns = monotonic_ns() + SETTLED_AFTER_NS;
                        self.shared.wanted_ns.fetch_max(monotonic_ns(), Ordering::Relaxed);
                    }
                    Command::Inspect(answer) => {
                        let mut state = self.socket.ebpf();
                        self.go.add_ebpf(&mut state);
                        self.event_loops.add_ebpf(&mut state);
                        self.tls.inspect(state, answer);
                    }
                    Command::Stop => is_over = true,
                }
            }
            if is_over {
                self.socket.stop();
            }
            self.turn();
            if is_over {
                let mut requests = lock(&self.shared.requests);
                self.engine.spans.withdraw_open(&mut requests, &mut self.engine.outcome);
            }
            let is_due =
                self.last_handed_on.elapsed() >= HAND_ON_INTERVAL && !(self.engine.outcome.is_empty());
            let may_flush = !self.flushes.is_empty() && (is_over || monotonic_ns() >= self.flush_at_ns);
            if is_over || may_flush || is_due || self.engine.outcome.len() >= BATCH {
                let flushed = if may_flush { std::mem::take(&mut self.flushes) } else { Vec::new() };
                if may_flush {
                    self.publish();
                }
                self.hand_on(flushed);
            }
            if self.last_published.elapsed() >= STATUS_INTERVAL {
                self.publish();
            }
            if is_over {
                return;
            }
            self.wait();
        }
    }

    /// From now on other traces are kept: the kernel side passes on the contexts of those.
    fn pass_bound_on(&mut self) {
        if let Err(error) = self.socket.keep_contexts_below(self.engine.spans.limit.bound()) {
            self.engine.failures.bounds += 1;
            tracing::debug!("which traces go on to other hosts is as before: {error}");
        }
    }

    /// Takes what waits in the ring buffer.
    fn turn(&mut self) {
        let now_ns = monotonic_ns();
        if self.engine.spans.limit.adapt(now_ns) {
            self.pass_bound_on();
        }
        let Self { socket, tls, go, event_loops, engine, shared, .. } = self;
        let mut turn = Turn { now_ns, clock: wall_clock(now_ns), requests: &shared.requests };
        for (pid, since_ns) in tls.newly_readable() {
            engine.connections.note_readable(pid, since_ns);
        }
        socket.drain(&mut |event| engine.take(&event, &mut turn));
        let is_crowded = engine.connections.len() > CROWDED;
        if self.last_sweep.elapsed() >= if is_crowded { CROWDED_SWEEP_INTERVAL } else { SWEEP_INTERVAL } {
            self.last_sweep = Instant::now();
            if let Err(error) = socket.sweep(&mut |event| engine.take(&event, &mut turn)) {
                engine.failures.sweeps += 1;
                tracing::debug!("connections whose end went by unseen cannot be looked for: {error}");
            }
            engine.forget_dead_programs();
            engine.spans.note_traces_again();
            if !is_crowded {
                socket.sweep_tls_pairs();
            }
        }
        engine.settle(&mut turn);
        engine.left_alone.note(socket);
        if std::mem::take(&mut engine.uses_io_uring)
            && let Err(error) = socket.count_io_uring()
        {
            tracing::warn!("what io_uring moves is not counted: {error}");
        }
        if let Some(published) = &mut engine.published
            && let Err(error) = published.settle(&shared.requests, socket)
        {
            engine.failures.published += 1;
            tracing::debug!("other profilers are not told of some requests: {error}");
        }
        engine.new_code.sort_unstable();
        engine.new_code.dedup();
        for pid in engine.new_code.drain(..) {
            tls.look_at(pid);
        }
        for pid in engine.unreadable.drain(..) {
            tls.note_unreadable(pid);
        }
        for (connection, is_decrypted, capture) in engine.captures.drain(..) {
            if let Err(error) = socket.set_capture(connection, is_decrypted, capture) {
                engine.failures.captures += 1;
                tracing::debug!("how much of a connection is captured cannot be changed: {error}");
            }
        }
        engine.note_go(go, socket);
        event_loops.note(socket, &mut engine.event_loops);
        *lock(&shared.known_until_ns) = now_ns.saturating_sub(SETTLED_AFTER_NS);
        shared.known.notify_all();
    }

    fn hand_on(&mut self, flushed: Vec<Sender<()>>) {
        self.last_handed_on = Instant::now();
        let outcome = &mut self.engine.outcome;
        (self.on_outcome)(outcome);
        // Its room is used again: that of thousands of requests a second grows in steps, each a copy.
        outcome.spans.clear();
        outcome.unsampled.clear();
        for waiting in flushed {
            // Whoever gave up waiting does not want to know.
            let _ = waiting.send(());
        }
    }

    fn publish(&mut self) {
        self.last_published = Instant::now();
        let counters = self.socket.counters().ok();
        let headers = self.socket.header_counters().ok();
        let moved = |of: &SocketCounters| (of.unexplained_in_bytes, of.unexplained_out_bytes);
        let before = moved(&lock(&self.shared.status).socket);
        let has_moved = counters.as_ref().is_some_and(|counters| moved(counters) != before);
        let unexplained = has_moved.then(|| self.unexplained());
        let mut status = lock(&self.shared.status);
        if let Some(counters) = counters {
            status.socket = counters;
        }
        if let Some(headers) = headers {
            status.headers = headers;
        }
        if let Some(unexplained) = unexplained {
            status.unexplained = unexplained;
        }
        lock(&self.shared.minutes).clone_from(&self.engine.spans.minutes);
        status.events = self.engine.events;
        status.spans = self.engine.spans.counts();
        status.failures = self.engine.failures;
        status.connections = self.engine.connections.len();
        status.forgotten_connections = self.engine.connections.forgotten();
        let (tls, go, event_loops) = (&self.tls, &self.go, &self.event_loops);
        status.map_bytes =
            self.socket.map_bytes() + tls.map_bytes() + go.map_bytes() + event_loops.map_bytes();
        status.go = go.counters();
        let [requests, go_tls] = go.status();
        status.programs = vec![("go", requests), ("go_tls", go_tls), ("event_loop", event_loops.status())];
        status.tls = self.tls.status();
        status.published_requests = self.engine.published.as_ref().map_or(0, Published::told);
        status.unpublished_requests = self.engine.published.as_ref().map_or(0, Published::beyond_limit);
    }

    fn unexplained(&mut self) -> Vec<UnexplainedProcess> {
        let now_ns = monotonic_ns();
        let named = self.socket.unexplained().into_iter().map(|(pid, [in_bytes, out_bytes])| {
            let service = self.engine.resources.of(pid, now_ns).service().to_owned();
            UnexplainedProcess { pid, service, in_bytes, out_bytes }
        });
        named.collect()
    }

    /// Waits for news, a question or the next look.
    fn wait(&self) {
        // What somebody waits for is settled a little after it happened.
        let wanted_ns = self.shared.wanted_ns.load(Ordering::Relaxed);
        let is_wanted = wanted_ns > *lock(&self.shared.known_until_ns);
        let until_settled = (wanted_ns + SETTLED_AFTER_NS).saturating_sub(monotonic_ns()).max(1_000_000);
        let interval =
            if self.engine.published.is_some() { PUBLISHING_DRAIN_INTERVAL } else { DRAIN_INTERVAL };
        let limit = if is_wanted { interval.min(Duration::from_nanos(until_settled)) } else { interval };
        let ring = self.socket.poll_fd();
        let mut sources =
            [PollFd::new(&ring, PollFlags::IN), PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        let limit = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
        // Whatever woke us, everything is looked at.
        let _ = poll(&mut sources, Some(&limit));
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut counter);
    }
}

fn wall_clock(now_ns: u64) -> WallClock {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let unix_ns = i128::try_from(unix.as_nanos()).unwrap_or(i128::MAX);
    WallClock { offset_ns: unix_ns - i128::from(now_ns) }
}
