//! The thread: reads the ring, runs the engine, tells the kernel side what came of it, hands spans on.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::engine::{Engine, Turn};
use super::{Command, OnOutcome, Shared, lock};
use crate::kernel::{KernelError, SocketCounters, SocketTracer, monotonic_ns};
use crate::process::living;
use crate::trace::event_loops::EventLoops;
use crate::trace::go_programs::GoProcesses;
use crate::trace::published::Published;
use crate::trace::spans::WallClock;
use crate::trace::status::UnexplainedProcess;
use crate::trace::tls::FollowedTls;

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

pub(super) struct Worker {
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
    /// # Errors
    /// What the kernel refused.
    pub(super) fn new(
        socket: SocketTracer,
        engine: Engine,
        shared: Arc<Shared>,
        wake: Arc<OwnedFd>,
        on_outcome: OnOutcome,
    ) -> Result<Self, KernelError> {
        let now = Instant::now();
        Ok(Self {
            tls: FollowedTls::begin(&socket)?,
            go: GoProcesses::new(&socket),
            event_loops: EventLoops::new(&socket),
            socket,
            engine,
            on_outcome,
            last_handed_on: now,
            last_sweep: now,
            last_published: now,
            shared,
            wake,
            flushes: Vec::new(),
            flush_at_ns: 0,
        })
    }

    /// Goes on until it is told to stop, and hands on what there is then.
    pub(super) fn run(&mut self, commands: &Receiver<Command>) {
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
