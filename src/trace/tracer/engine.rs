//! Events become spans here. What the kernel side is to know from then on is left for the worker to tell it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::kernel::{SocketTracer, monotonic_ns};
use crate::model::socket::{Capture, SocketEventKind};
use crate::model::{ConnectionId, SocketEvent, SpanResource};
use crate::process::{GoProcess, GoPrograms, SpanResources};
use crate::trace::connections::{Connections, News};
use crate::trace::event_loops::EventLoops;
use crate::trace::exchange::ExchangeEvent;
use crate::trace::go_programs::GoProcesses;
use crate::trace::left_alone::LeftAlone;
use crate::trace::published::Published;
use crate::trace::requests::Requests;
use crate::trace::spans::{Outcome, SpanOptions, Spans, WallClock, Whose};
use crate::trace::status::TracerFailures;
use crate::trace::streams::StreamWork;

/// Programs that are remembered: beyond that all are looked at anew.
const MAX_PROGRAMS: usize = 16_384;

/// See the module's description.
pub(super) struct Engine {
    pub(super) connections: Connections,
    pub(super) spans: Spans,
    pub(super) resources: SpanResources,
    /// Stands where nobody asks whose an exchange is.
    nobody: Arc<SpanResource>,
    pub(super) outcome: Outcome,
    /// What protocols want to see of their connections from now on, of their plain bytes inside of TLS or not.
    pub(super) captures: Vec<(ConnectionId, bool, Capture)>,
    /// Processes that may have TLS libraries which were not looked at.
    pub(super) new_code: Vec<u32>,
    /// Whose connection is TLS that could not be read.
    pub(super) unreadable: Vec<u32>,
    /// What processes run, as long as they are the same.
    programs: foldhash::HashMap<u32, Program>,
    go_programs: GoPrograms,
    /// Processes that the kernel side is to know as Go programs from now on, or not any more.
    go_processes: Vec<(u32, Option<GoProcess>)>,
    /// Likewise, programs whose event loops may be known, by their executables.
    pub(super) event_loops: Vec<(u32, Option<String>)>,
    pub(super) left_alone: LeftAlone,
    /// Since the last turn somebody was seen to.
    pub(super) uses_io_uring: bool,
    /// Requests that other profilers are told of, if they are.
    pub(super) published: Option<Published>,
    news: News,
    pub(super) events: u64,
    pub(super) failures: TracerFailures,
}

/// What a process runs.
#[derive(Clone)]
pub(super) struct Program {
    resource: Arc<SpanResource>,
    is_go: bool,
    is_left_alone: bool,
}

/// One look at what has happened.
pub(super) struct Turn<'a> {
    pub(super) now_ns: u64,
    pub(super) clock: WallClock,
    /// Held for no longer than it takes to write: others ask what samples belong to meanwhile.
    pub(super) requests: &'a Mutex<Requests>,
}

impl Engine {
    /// `published`: where requests stand that other profilers are told of, if they are.
    pub(super) fn new(options: SpanOptions, left_alone: LeftAlone, published: Option<Published>) -> Self {
        Self {
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
            published,
            news: News::default(),
            events: 0,
            failures: TracerFailures::default(),
        }
    }

    pub(super) fn take(&mut self, event: &SocketEvent, turn: &mut Turn<'_>) {
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
    pub(super) fn meet(&mut self, pid: u32, now_ns: u64) -> Program {
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
    pub(super) fn forget_dead_programs(&mut self) {
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
    pub(super) fn note_go(&mut self, go: &mut GoProcesses, socket: &SocketTracer) {
        let mut readable = Vec::new();
        go.note(socket, &mut self.go_processes, &mut readable);
        let now_ns = monotonic_ns();
        for pid in readable {
            self.connections.note_readable(pid, now_ns);
        }
    }

    /// What is due although nothing has happened.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
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
