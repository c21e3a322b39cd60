//! What happens to processes, as perf's side band tells it: mappings, names, births, ends.
//!
//! A dummy software event on each CPU carries the records; none of them is a sample and no system call
//! is slowed down. Pids are those of the pid namespace the events are opened in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::epoll;

use super::KernelError;
use super::clock::monotonic_ns;
use super::cpus;
use super::perf_event;
use super::perf_ring::PerfRing;
use super::process_records::{Decoded, decode};

/// Data pages of each CPU's ring: 256 KiB, some 2,500 mappings, for bursts between two reads.
const RING_PAGES: usize = 64;
/// The reader is woken when this much waits: one record, so that an exec is known at once.
const WAKE_AT_BYTES: u32 = 1;

/// Something that happened to a process. Times are `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ProcessEvent {
    /// An executable mapping was made. The kernel tells either the build id or device and inode.
    Mapped {
        time_ns: u64,
        pid: u32,
        tid: u32,
        begin: u64,
        length: u64,
        file_offset: u64,
        device: (u32, u32),
        inode: u64,
        build_id: Option<Vec<u8>>,
        /// As the process sees it, or `[vdso]`, `//anon`, …
        path: PathBuf,
    },
    /// A process runs another program. Its mappings of before are gone.
    Exec { time_ns: u64, pid: u32, comm: String },
    /// A thread changed its name.
    Renamed { time_ns: u64, pid: u32, tid: u32, comm: String },
    /// A process (`pid` differs from `parent_pid`) or a thread was made.
    Forked { time_ns: u64, pid: u32, tid: u32, parent_pid: u32, parent_tid: u32 },
    /// A thread ended.
    Exited { time_ns: u64, pid: u32, tid: u32 },
    /// Records were lost: what is known of processes may be old.
    Lost { count: u64 },
}

impl ProcessEvent {
    /// When it happened; `None` for [`ProcessEvent::Lost`], which only says that something did.
    #[must_use]
    pub fn time_ns(&self) -> Option<u64> {
        match self {
            Self::Mapped { time_ns, .. }
            | Self::Exec { time_ns, .. }
            | Self::Renamed { time_ns, .. }
            | Self::Forked { time_ns, .. }
            | Self::Exited { time_ns, .. } => Some(*time_ns),
            Self::Lost { .. } => None,
        }
    }
}

/// The records of every CPU that is online when they are opened.
#[derive(Debug)]
pub struct ProcessEvents {
    rings: Vec<PerfRing>,
    epoll: OwnedFd,
    /// Read, but newer than what other CPUs' rings were read for.
    held: Vec<ProcessEvent>,
    received: u64,
    lost: u64,
    malformed: u64,
}

impl ProcessEvents {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`KernelError::NotPermitted`] without `CAP_PERFMON`, else what the kernel refused.
    pub fn open() -> Result<Self, KernelError> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |error: rustix::io::Errno| KernelError::System { what, source: error.into() }
        };
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("create an epoll descriptor"))?;
        let mut rings = Vec::new();
        for cpu in cpus::online()? {
            let Some(event) = perf_event::open_process_records(cpu, WAKE_AT_BYTES)? else { continue };
            let ring = PerfRing::new(event, RING_PAGES)?;
            epoll::add(&epoll, ring.fd(), epoll::EventData::new_u64(u64::from(cpu)), epoll::EventFlags::IN)
                .map_err(system("wait for process records"))?;
            rings.push(ring);
        }
        Ok(Self { rings, epoll, held: Vec::new(), received: 0, lost: 0, malformed: 0 })
    }

    /// Becomes readable when there are records.
    #[must_use]
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Appends what has happened since the last call, ordered by time over all CPUs, also from one call
    /// to the next: the rings are read one after the other, so what is newer than the beginning of the
    /// reading is held back, as an older record of a ring that was read before may have followed.
    ///
    /// # Errors
    /// None at present; the signature leaves room for rings that have to be opened again.
    pub fn drain(&mut self, events: &mut Vec<ProcessEvent>) -> Result<(), KernelError> {
        let read_until_ns = monotonic_ns();
        let begin = events.len();
        events.append(&mut self.held);
        for ring in &mut self.rings {
            // A record that reports losses has the place of its neighbours, not a time of its own.
            let (received, lost, malformed) = (&mut self.received, &mut self.lost, &mut self.malformed);
            let sound = ring.drain(&mut |record| match decode(record) {
                Decoded::Event(event) => {
                    *received += u64::from(event.time_ns().is_some());
                    if let ProcessEvent::Lost { count } = &event {
                        *lost = lost.saturating_add(*count);
                    }
                    events.push(event);
                }
                Decoded::Ignored => {}
                Decoded::Malformed => *malformed += 1,
            });
            if !sound {
                self.malformed += 1;
            }
        }
        if let Some(new) = events.get_mut(begin..) {
            // Losses first: whoever reacts to them by looking anew should not undo what came after.
            new.sort_by_key(|event| event.time_ns().unwrap_or(0));
            let settled = new.partition_point(|event| event.time_ns().unwrap_or(0) <= read_until_ns);
            self.held = events.split_off(begin + settled);
        }
        Ok(())
    }

    /// Whether the next call of [`Self::drain`] will have something to give even if nothing new arrives.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        !self.held.is_empty()
    }

    /// Records of something that happened to a process that were read; those of losses are none.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Records that the kernel could not store because a ring was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Records that made no sense; 0 with a sane kernel.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}
