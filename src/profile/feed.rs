//! Builds unwind tables in the background and hands them to the kernel.
//!
//! A table is built when it is asked for, once per object: at once for the processes that a user named
//! and for those that start while we look on; of all others at once if it is small, and else when the
//! first of their samples could not be unwound for want of it. What a sample waits for is built first.
//! Tables come from the disk cache where they can.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{EventfdFlags, eventfd};
use spanflame_symbols::unwind::cache::UnwindCache;
use spanflame_symbols::{ObjectFile, UnwindTable};

use crate::kernel::Tables;
use crate::model::ObjectId;
use crate::process::RegisteredObject;

/// Figures about the work done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedStatistics {
    /// Tables built from the object's call-frame information.
    pub built: u64,
    /// Tables read from the disk cache.
    pub from_cache: u64,
    /// Objects without usable unwind information.
    pub without_table: u64,
    /// Tables that the kernel side had no room for.
    pub refused: u64,
    /// Rows in all tables.
    pub rows: u64,
}

/// `.eh_frame` of an object that counts as small: libstdc++'s has 260 KB, cc1's 2.6 MB.
const MAX_SMALL_FRAME_BYTES: u64 = 512 << 10;

struct Request {
    id: ObjectId,
    file: Arc<ObjectFile>,
}

struct Built {
    id: ObjectId,
    from_cache: bool,
    table: Result<UnwindTable, String>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    closed: bool,
}

#[derive(Default)]
struct SharedQueue {
    queue: Mutex<Queue>,
    filled: Condvar,
}

/// The background builders. One request per object ever, so the queue is bounded by their number.
pub struct TableFeeder {
    shared: Arc<SharedQueue>,
    finished: Receiver<Built>,
    wake: Arc<OwnedFd>,
    requested: HashSet<ObjectId>,
    outstanding: HashSet<ObjectId>,
    statistics: FeedStatistics,
    builders: Vec<JoinHandle<()>>,
}

impl TableFeeder {
    /// Starts the builders; tables are kept in `cache_folder` if there is one.
    ///
    /// # Errors
    /// The system's, if threads or the event descriptor cannot be made.
    pub fn start(cache_folder: Option<&Path>) -> std::io::Result<Self> {
        let shared = Arc::new(SharedQueue::default());
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, finished) = crossbeam_channel::unbounded();
        let builders = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
        let builders = (0..builders)
            .map(|_| {
                let (shared, sender, wake) = (shared.clone(), sender.clone(), wake.clone());
                let cache = cache_folder.map(|folder| UnwindCache::new(folder.to_owned()));
                std::thread::Builder::new()
                    .name("unwind-tables".to_owned())
                    .spawn(move || build_requested(&shared, &sender, &wake, cache.as_ref()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            shared,
            finished,
            wake,
            requested: HashSet::new(),
            outstanding: HashSet::new(),
            statistics: FeedStatistics::default(),
            builders,
        })
    }

    /// Readable when a table is finished.
    #[must_use]
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Asks for the table of an object, before all that wait if `urgent`.
    pub fn request(&mut self, id: ObjectId, object: &RegisteredObject, urgent: bool, tables: &mut Tables) {
        if !self.requested.insert(id) {
            if urgent {
                self.hurry(id);
            }
            return;
        }
        let Ok(file) = &object.file else {
            tables.mark_without_table(id);
            self.statistics.without_table += 1;
            return;
        };
        let request = Request { id, file: file.clone() };
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if urgent {
            queue.waiting.push_front(request);
        } else {
            queue.waiting.push_back(request);
        }
        drop(queue);
        self.outstanding.insert(id);
        self.shared.filled.notify_one();
    }

    /// Asks for the table of an object of which no sample is known, if it costs little: a millisecond or
    /// two and some ten kilobytes, as those of most programs and libraries do.
    pub fn request_if_small(&mut self, id: ObjectId, object: &RegisteredObject, tables: &mut Tables) {
        if !self.requested.contains(&id) && object.file.as_ref().is_ok_and(|file| is_small(file)) {
            self.request(id, object, false, tables);
        }
    }

    fn hurry(&mut self, id: ObjectId) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = queue.waiting.iter().position(|request| request.id == id)
            && let Some(request) = queue.waiting.remove(position)
        {
            queue.waiting.push_front(request);
        }
    }

    /// Hands finished tables to the kernel.
    pub fn publish(&mut self, tables: &mut Tables) {
        // Reading resets the event; that it was not set is no failure.
        let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
        while let Ok(built) = self.finished.try_recv() {
            self.outstanding.remove(&built.id);
            match built.table {
                Ok(table) => match tables.publish_table(built.id, &table) {
                    Ok(()) if built.from_cache => {
                        self.statistics.from_cache += 1;
                        self.statistics.rows += table.rows;
                    }
                    Ok(()) => {
                        self.statistics.built += 1;
                        self.statistics.rows += table.rows;
                    }
                    Err(error) => {
                        tracing::warn!("stacks through one object are cut: {error}");
                        tables.mark_without_table(built.id);
                        self.statistics.refused += 1;
                    }
                },
                Err(reason) => {
                    tracing::debug!("{reason}");
                    tables.mark_without_table(built.id);
                    self.statistics.without_table += 1;
                }
            }
        }
    }

    /// Whether an object's table is being built.
    #[must_use]
    pub fn is_building(&self, id: ObjectId) -> bool {
        self.outstanding.contains(&id)
    }

    /// Forgets an object whose number may be given to another one. Its table must not be
    /// [being built](Self::is_building).
    pub fn forget(&mut self, id: ObjectId) {
        self.requested.remove(&id);
    }

    /// Whether everything that was asked for has been handed on.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// What was done so far.
    #[must_use]
    pub fn statistics(&self) -> FeedStatistics {
        self.statistics
    }
}

impl Drop for TableFeeder {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        queue.waiting.clear();
        drop(queue);
        self.shared.filled.notify_all();
        for builder in self.builders.drain(..) {
            let _ = builder.join();
        }
    }
}

fn build_requested(
    shared: &SharedQueue,
    finished: &Sender<Built>,
    wake: &OwnedFd,
    cache: Option<&UnwindCache>,
) {
    loop {
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let request = loop {
            if queue.closed {
                return;
            }
            if let Some(request) = queue.waiting.pop_front() {
                break request;
            }
            queue = shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queue);
        // The parsers are made not to panic on any bytes; if one does all the same, it costs this table
        // and not the recording.
        let built =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| load_or_build(&request.file, cache)));
        let (from_cache, table) = built.unwrap_or_else(|_| {
            (false, Err(format!("reading {} failed; please report this", request.file.path().display())))
        });
        if finished.send(Built { id: request.id, from_cache, table }).is_err() {
            return;
        }
        // The counter cannot overflow, and a reader that is gone needs no waking.
        let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
    }
}

fn is_small(file: &ObjectFile) -> bool {
    let bytes_of = |section| file.section_header(section).map_or(0, |header| header.bytes);
    bytes_of(".gopclntab") == 0 && (1..=MAX_SMALL_FRAME_BYTES).contains(&bytes_of(".eh_frame"))
}

fn load_or_build(file: &ObjectFile, cache: Option<&UnwindCache>) -> (bool, Result<UnwindTable, String>) {
    if let Some(cache) = cache
        && let Some(table) = cache.load(file.build_id())
    {
        return (true, Ok(table));
    }
    let table = UnwindTable::build(file).map_err(|error| error.to_string());
    if let (Some(cache), Ok(table)) = (cache, &table)
        && let Err(error) = cache.store(file.build_id(), table)
    {
        tracing::debug!("unwind table of {} is not cached: {error}", file.path().display());
    }
    (false, table)
}
