//! The TLS libraries of this host's processes: finds them, has them followed, and knows why what goes through
//! a process's TLS cannot be read.
//!
//! It has a thread of its own: to look through what a process has mapped, and to put probes into a library, takes
//! milliseconds in which requests would wait to be read.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::kernel::{
    EbpfState, FileIdentity, KernelError, SocketTracer, TlsCounters, TlsTracer, UserProbesStatus,
    monotonic_ns,
};
use crate::process::{TlsLibraries, TlsLibrary};

/// How often libraries that nobody maps any more are let go of: until then their file system stays mounted.
const FORGET_INTERVAL: Duration = Duration::from_secs(120);
/// Processes that are remembered; beyond that all are looked at anew when they are asked for.
const MAX_PROCESSES: usize = 32_768;

/// Why nothing of a connection that begins as TLS could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unreadable {
    /// The kernel refuses the programs for all libraries.
    NotFollowed,
    /// The process has no TLS library that is known.
    UnknownLibrary,
    /// It has one, into which the kernel puts no probes.
    RefusedLibrary,
    /// It has one that is followed, and nothing was read or written through it, or not seen to be.
    NoPlainBytes,
    /// The process was gone before it could be looked at.
    ProcessGone,
}

impl Unreadable {
    /// Every reason there is, with its name in metrics.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::NotFollowed, "tls_not_followed"),
        (Self::UnknownLibrary, "library_unknown"),
        (Self::RefusedLibrary, "library_refused"),
        (Self::NoPlainBytes, "no_plain_bytes"),
        (Self::ProcessGone, "process_gone"),
    ];
}

/// What has become of TLS libraries so far.
#[derive(Debug, Clone, Default)]
pub struct TlsStatus {
    /// What the programs counted.
    pub counters: TlsCounters,
    /// The files that are followed, and those that were refused.
    pub probes: UserProbesStatus,
    /// Why nothing is followed at all.
    pub refusal: Option<String>,
    /// Connections that began as TLS and of which nothing could be read, by why.
    pub unreadable: BTreeMap<Unreadable, u64>,
    /// Questions about processes that found no room to wait.
    pub not_looked_at: u64,
}

/// What it is told to do, or has to tell, that may wait; what is beyond is counted.
const MAX_WAITING: usize = 16_384;
/// How often the status is brought up to date.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

enum Command {
    LookAt(u32),
    NoteUnreadable(u32),
    Inspect(EbpfState, Sender<EbpfState>),
}

#[derive(Debug, Default)]
struct Published {
    status: TlsStatus,
    map_bytes: u64,
}

/// See the module's description. Dropping it takes all probes off.
#[derive(Debug)]
pub(super) struct FollowedTls {
    commands: Option<Sender<Command>>,
    newly_readable: Receiver<(u32, u64)>,
    published: Arc<Mutex<Published>>,
    is_over: Arc<AtomicBool>,
    not_looked_at: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl FollowedTls {
    /// Follows the libraries of the host itself, so that a program that lives for milliseconds is seen from
    /// its first byte; and those of processes from then on.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn begin(socket: &SocketTracer) -> Result<Self, KernelError> {
        let mut libraries = Libraries::begin(socket);
        let published = Arc::new(Mutex::new(libraries.publish()));
        let (commands, received) = bounded(MAX_WAITING);
        let (readable, newly_readable) = bounded(MAX_WAITING);
        let (is_over, not_looked_at) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stops, unanswered) = (Arc::clone(&is_over), Arc::clone(&not_looked_at));
        let shared = Arc::clone(&published);
        let run = move || {
            let mut published_at = Instant::now();
            loop {
                match received.recv_timeout(STATUS_INTERVAL) {
                    Ok(Command::LookAt(pid)) => {
                        if let Some(since_ns) = libraries.look_at(pid) {
                            // Nobody waits here for somebody who may wait for us to end.
                            if readable.try_send((pid, since_ns)).is_err() {
                                unanswered.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    Ok(Command::NoteUnreadable(pid)) => libraries.note_unreadable(pid),
                    Ok(Command::Inspect(mut state, answer)) => {
                        state.extend(libraries.tracer.as_ref().map(TlsTracer::ebpf));
                        // Whoever asked may have given up waiting.
                        let _ = answer.send(state);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if stops.load(Ordering::Relaxed) {
                    return;
                }
                libraries.forget();
                if published_at.elapsed() >= STATUS_INTERVAL {
                    published_at = Instant::now();
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = libraries.publish();
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("tls-libraries".to_owned()).spawn(run).map_err(|source| {
                KernelError::System { what: "start the thread that follows TLS libraries".to_owned(), source }
            })?;
        Ok(Self {
            commands: Some(commands),
            newly_readable,
            published,
            is_over,
            not_looked_at,
            thread: Some(thread),
        })
    }

    /// Follows the libraries that a process has now, soon.
    pub(super) fn look_at(&self, pid: u32) {
        self.command(Command::LookAt(pid));
    }

    /// Processes all of whose libraries are followed, and since when: `CLOCK_MONOTONIC`, nanoseconds. Each is told once
    /// it was looked at.
    pub(super) fn newly_readable(&self) -> impl Iterator<Item = (u32, u64)> {
        self.newly_readable.try_iter()
    }

    /// Counts a connection of a process of which nothing could be read.
    pub(super) fn note_unreadable(&self, pid: u32) {
        self.command(Command::NoteUnreadable(pid));
    }

    /// Adds its programs and maps and answers.
    pub(super) fn inspect(&self, state: EbpfState, answer: Sender<EbpfState>) {
        self.command(Command::Inspect(state, answer));
    }

    fn command(&self, command: Command) {
        if self.commands.as_ref().is_some_and(|commands| commands.try_send(command).is_err()) {
            self.not_looked_at.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As it was a moment ago.
    pub(super) fn status(&self) -> TlsStatus {
        let status = self.published.lock().unwrap_or_else(PoisonError::into_inner).status.clone();
        TlsStatus { not_looked_at: self.not_looked_at.load(Ordering::Relaxed), ..status }
    }

    /// Kernel memory of its own maps.
    pub(super) fn map_bytes(&self) -> u64 {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).map_bytes
    }
}

impl Drop for FollowedTls {
    fn drop(&mut self) {
        // What waits is not done any more.
        self.is_over.store(true, Ordering::Relaxed);
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread does.
#[derive(Debug)]
struct Libraries {
    tracer: Option<TlsTracer>,
    refusal: Option<String>,
    libraries: TlsLibraries,
    /// What was found of processes; `None`: what they have is followed.
    processes: HashMap<u32, Option<Unreadable>>,
    unreadable: BTreeMap<Unreadable, u64>,
    /// Since when libraries are followed.
    since_ns: HashMap<FileIdentity, u64>,
    last_forgotten: Instant,
}

impl Libraries {
    fn begin(socket: &SocketTracer) -> Self {
        let (tracer, refusal) = match TlsTracer::load(socket) {
            Ok(tracer) => (Some(tracer), None),
            Err(error) => {
                tracing::warn!("what goes through TLS is not followed: {error}");
                (None, Some(error.to_string()))
            }
        };
        let mut followed = Self {
            tracer,
            refusal,
            libraries: TlsLibraries::default(),
            processes: HashMap::new(),
            unreadable: BTreeMap::new(),
            since_ns: HashMap::new(),
            last_forgotten: Instant::now(),
        };
        if followed.tracer.is_some() {
            for library in followed.libraries.of_host() {
                followed.attach(&library);
            }
        }
        followed
    }

    fn attach(&mut self, library: &TlsLibrary) {
        let Some(tracer) = &mut self.tracer else { return };
        let path = library.file.path().display();
        match tracer.attach(&library.file, &library.functions) {
            Ok(true) => {
                self.since_ns.insert(library.file.identity(), monotonic_ns());
                tracing::debug!("{path} is followed: {} functions", library.functions.len());
            }
            Ok(false) => {}
            Err(error) => tracing::warn!("what goes through {path} is not followed: {error}"),
        }
    }

    /// Follows the libraries that a process has now. Since when all of them are, if there are any: `CLOCK_MONOTONIC`,
    /// nanoseconds.
    fn look_at(&mut self, pid: u32) -> Option<u64> {
        self.tracer.as_ref()?;
        let found = self.libraries.of_process(pid);
        if let Some(found) = &found {
            for library in &found.new {
                self.attach(library);
            }
        }
        let tracer = self.tracer.as_ref()?;
        let all = found.iter().flat_map(|found| &found.all);
        let since_ns = all.filter_map(|library| self.since_ns.get(library)).max().copied();
        let is_followed =
            found.as_ref().map(|found| found.all.iter().any(|library| tracer.is_attached(library)));
        let verdict = match (is_followed, found.is_some_and(|found| found.all.is_empty())) {
            (None, _) => Some(Unreadable::ProcessGone),
            (Some(true), _) => None,
            (Some(false), true) => Some(Unreadable::UnknownLibrary),
            (Some(false), false) => Some(Unreadable::RefusedLibrary),
        };
        if self.processes.len() >= MAX_PROCESSES {
            self.processes.clear();
        }
        self.processes.insert(pid, verdict);
        since_ns
    }

    /// Counts a connection of a process of which nothing could be read.
    fn note_unreadable(&mut self, pid: u32) {
        let why = if self.tracer.is_none() {
            Unreadable::NotFollowed
        } else {
            if !self.processes.contains_key(&pid) {
                self.look_at(pid);
            }
            self.processes.get(&pid).copied().flatten().unwrap_or(Unreadable::NoPlainBytes)
        };
        *self.unreadable.entry(why).or_default() += 1;
    }

    /// Lets go of libraries that nobody maps, and of processes that are no more. To be called every now and
    /// then: mostly it does nothing.
    fn forget(&mut self) {
        if self.last_forgotten.elapsed() < FORGET_INTERVAL {
            return;
        }
        self.last_forgotten = Instant::now();
        self.processes.retain(|pid, _| Path::new("/proc").join(pid.to_string()).exists());
        let Some(tracer) = &mut self.tracer else { return };
        let mapped = self.libraries.forget_unmapped();
        tracer.keep_only(|library| mapped.contains(library));
        self.since_ns.retain(|library, _| tracer.is_attached(library));
    }

    fn publish(&mut self) -> Published {
        let tracer = self.tracer.as_ref();
        let status = TlsStatus {
            counters: tracer.and_then(|tracer| tracer.counters().ok()).unwrap_or_default(),
            probes: tracer.map(TlsTracer::status).unwrap_or_default(),
            refusal: self.refusal.clone(),
            unreadable: self.unreadable.clone(),
            not_looked_at: 0,
        };
        Published { status, map_bytes: tracer.map_or(0, TlsTracer::map_bytes) }
    }
}
