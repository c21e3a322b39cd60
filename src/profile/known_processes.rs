//! The processes of a session, and what the kernel side is told of them: their mappings, the unwind tables of what they
//! have mapped, where their runtimes keep frames and where they name their spans.
//!
//! Comes in: process records, `/proc`, what samples lacked. Goes out: the contents of [`ProcessMaps`]. Never: a sample
//! read or kept. It does without the sampler, so that it gets ready while that is being loaded.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::feed::TableFeeder;
use super::scripts::Scripts;
use super::session::{SessionError, SessionOptions};
use super::words::Words;
use crate::kernel::{MappingKind, ProcessEvent, ProcessEvents, ProcessMapping, ProcessMaps, Tables};
use crate::model::{ObjectId, Outcome, RawSample};
use crate::process::{ExecutableMapping, Interest, MappingContent, ObjectRegistry, ProcessTable};

/// How long a turn may read processes of which no sample asked for.
const SCAN_BUDGET: Duration = Duration::from_millis(2);
/// How long a whole host's busy processes are read before sampling begins.
pub(super) const PREPARE_LIMIT: Duration = Duration::from_millis(100);
/// How long records may be held back by [`ProcessEvents`] while the sampler is loaded.
const HELD_BACK: Duration = Duration::from_millis(5);
/// All processes are looked at afresh at most this often, however often records are lost.
const RESCAN_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's description.
pub struct KnownProcesses {
    maps: Arc<ProcessMaps>,
    tables: Tables,
    records: ProcessEvents,
    pub(super) feeder: TableFeeder,
    words: Words,
    pub(super) scripts: Scripts,
    /// The processes of interest.
    pub processes: ProcessTable,
    /// The objects they have mapped.
    pub objects: ObjectRegistry,
    only_targets: bool,
    /// Those that were busy when the processes were read first.
    busy: Vec<u32>,
    batch: Vec<ProcessEvent>,
    last_scan: Instant,
    scan_again: bool,
    warned_of_mappings: bool,
}

impl KnownProcesses {
    /// Makes the maps. From here on every new mapping is heard of; what was there before is still to be read.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(super) fn begin(
        options: &SessionOptions,
        feeder: TableFeeder,
        scripts: Scripts,
    ) -> Result<Self, SessionError> {
        let (maps, tables) = ProcessMaps::create()?;
        if let Interest::Only { pids, follow_children } = &options.interest {
            for &pid in pids {
                maps.add_target(pid, *follow_children)?;
            }
        }
        Ok(Self {
            maps: Arc::new(maps),
            tables,
            records: ProcessEvents::open()?,
            feeder,
            words: Words::default(),
            scripts,
            processes: ProcessTable::new(options.interest.clone()),
            objects: ObjectRegistry::default(),
            only_targets: matches!(options.interest, Interest::Only { .. }),
            busy: Vec::new(),
            batch: Vec::new(),
            last_scan: Instant::now(),
            scan_again: false,
            warned_of_mappings: false,
        })
    }

    /// What the sampler is loaded with.
    pub(super) fn maps(&self) -> Arc<ProcessMaps> {
        Arc::clone(&self.maps)
    }

    /// Reads the processes that were asked for, or of a whole host those that are busy.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(super) fn read_those_running(&mut self, targets_running: bool) -> Result<(), SessionError> {
        if targets_running {
            self.begin_scan()?;
        }
        if self.only_targets {
            self.processes.scan(Duration::MAX, &mut self.objects, &mut self.tables);
            self.publish_processes();
        } else {
            self.prepare_busy_processes();
        }
        Ok(())
    }

    /// Goes on with what needs no sampler until there is something to read from `ended`, or nobody that writes to it:
    /// unwind tables, and once those of the busy are there, the processes that are not.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(super) fn follow_until(&mut self, ended: BorrowedFd<'_>) -> Result<(), SessionError> {
        loop {
            let has_time = self.feeder.is_idle();
            let due_in = self.processes.due_in().filter(|_| has_time).unwrap_or(HELD_BACK).min(HELD_BACK);
            let [records, feeder] = self.poll_fds();
            let mut sources = [records, feeder, ended].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            wait(&mut sources, due_in)?;
            let is_over = !sources[2].revents().is_empty();
            self.take_records()?;
            self.publish_tables();
            if is_over {
                return Ok(());
            }
            if has_time {
                self.scan_on();
            }
        }
    }

    /// Gets ready what will surely be sampled: those that run or want to right now. Of a busy host these
    /// are nearly all samples, and their first ones would be cut.
    fn prepare_busy_processes(&mut self) {
        let busy = self.processes.scan_busy(PREPARE_LIMIT, &mut self.objects, &mut self.tables);
        self.publish_processes();
        for &pid in &busy {
            for object in self.objects_of(pid) {
                request(&mut self.feeder, &self.objects, &mut self.tables, object, false);
            }
        }
        self.busy = busy;
    }

    fn objects_of(&self, pid: u32) -> Vec<ObjectId> {
        self.processes.get(pid).map(|process| process.mappings.objects()).unwrap_or_default()
    }

    /// Whether the processes that were busy at the beginning can be sampled: the tables of what they had mapped are in,
    /// and their runtimes were looked for.
    pub(super) fn is_prepared_for_busy(&self) -> bool {
        let is_ready = |&pid: &u32| {
            let objects = self.objects_of(pid);
            !self.scripts.is_looking_into(pid) && !objects.iter().any(|&id| self.feeder.is_building(id))
        };
        self.is_prepared() || self.busy.iter().all(is_ready)
    }

    fn begin_scan(&mut self) -> Result<(), SessionError> {
        self.last_scan = Instant::now();
        self.scan_again = false;
        self.processes.add_interest(self.maps.targets());
        self.processes.begin_scan().map_err(|source| SessionError::System { what: "list /proc", source })
    }

    /// Tells the kernel the mappings that changed, and asks for tables that will surely be needed.
    pub(super) fn publish_processes(&mut self) {
        for pid in self.processes.take_changed() {
            let Some(process) = self.processes.get(pid) else { continue };
            let mut mappings: Vec<_> = process.mappings.as_slice().iter().map(for_kernel).collect();
            if mappings.len() > Tables::MAX_MAPPINGS {
                // Generated code by the page. Frame pointers lead through it, so what it costs to leave it
                // out are the stacks that begin in it.
                if !std::mem::replace(&mut self.warned_of_mappings, true) {
                    tracing::warn!(
                        "process {pid} has {} executable mappings; some are left out",
                        mappings.len()
                    );
                }
                mappings.retain(|mapping| mapping.kind != MappingKind::Jit);
                mappings.truncate(Tables::MAX_MAPPINGS);
            }
            let only_if_known = process.is_forked_copy;
            if let Err(error) = self.tables.set_process(pid, process.image_ns(), only_if_known, &mappings) {
                tracing::warn!("stacks of process {pid} are cut: {error}");
            }
            // A child that has not run another program yet has its parent's, by the kernel side.
            if !process.is_forked_copy {
                self.words.look_at(pid, &self.processes, &self.objects, &self.maps);
            }
            self.scripts.look_at(pid, &self.processes, &self.objects, &self.maps);
            for id in process.mappings.objects() {
                if self.only_targets || process.started_under_watch {
                    request(&mut self.feeder, &self.objects, &mut self.tables, id, false);
                } else if let Some(object) = self.objects.get(id) {
                    self.feeder.request_if_small(id, object, &mut self.tables);
                }
            }
        }
    }

    /// Takes the news of processes.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(super) fn take_records(&mut self) -> Result<(), SessionError> {
        self.batch.clear();
        let lost_before = self.records.lost();
        self.records.drain(&mut self.batch)?;
        for record in &self.batch {
            self.processes.apply(record, &mut self.objects, &mut self.tables);
        }
        // What was lost is not known: everything is looked at afresh.
        self.scan_again |= self.records.lost() > lost_before;
        if self.scan_again && self.last_scan.elapsed() >= RESCAN_INTERVAL {
            self.begin_scan()?;
        }
        self.publish_processes();
        for pid in self.processes.take_ended() {
            self.tables.remove_process(pid);
            self.words.forget(pid, &self.maps);
            self.scripts.forget(pid, &self.maps);
        }
        self.words.look_again(&self.processes, &self.objects, &self.maps);
        Ok(())
    }

    /// Gets what a sample lacked: the process, its mappings, or tables of what it has mapped. By now it
    /// may be there: the sample is older than what we know.
    pub(super) fn supply(&mut self, pid: u32, outcome: Outcome, stopped_at: u64) {
        let process = self.processes.get(pid);
        let is_mapped = process.is_some_and(|process| {
            // What a child had of its parent may be another program's by now.
            !(process.is_forked_copy && outcome == Outcome::UnknownProcess)
                && process.mappings.find(stopped_at).is_some()
        });
        if !is_mapped {
            if !self.processes.may_be_read(pid) {
                return;
            }
            self.processes.read_process(pid, &mut self.objects, &mut self.tables);
        } else if outcome == Outcome::UnknownProcess && !self.tables.holds_process(pid) {
            self.processes.mark_changed(pid);
        }
        let Some(process) = self.processes.get(pid) else { return };
        let missing = process.mappings.find(stopped_at).map(|mapping| mapping.content);
        if let Some(MappingContent::Object { object, .. }) = missing {
            request(&mut self.feeder, &self.objects, &mut self.tables, object, true);
        }
        for object in process.mappings.objects() {
            request(&mut self.feeder, &self.objects, &mut self.tables, object, false);
        }
    }

    /// Hands finished unwind tables to the kernel.
    pub(super) fn publish_tables(&mut self) {
        self.feeder.publish(&mut self.tables);
    }

    /// Reads some of the processes that were there before and of which no sample asked.
    pub(super) fn scan_on(&mut self) {
        self.processes.scan(SCAN_BUDGET, &mut self.objects, &mut self.tables);
        self.publish_processes();
    }

    /// Takes what was found out about runtimes; `follows_generated_code`: see
    /// [`Sampler::follows_generated_code`](crate::kernel::Sampler::follows_generated_code).
    pub(super) fn take_runtimes(&mut self, follows_generated_code: bool) {
        self.scripts.take_found(&self.processes, &self.objects, &self.maps, follows_generated_code);
    }

    /// Says whose a sample is, and puts its frames of interpreters where they belong.
    pub(super) fn complete(&mut self, sample: &mut RawSample) {
        self.processes.attribute(sample);
        self.scripts.complete(sample, &self.objects);
    }

    /// Whether all unwind tables that were asked for are in, and runtimes were looked for.
    pub(super) fn is_prepared(&self) -> bool {
        self.feeder.is_idle() && self.scripts.is_idle()
    }

    /// Readable when there is news.
    pub(super) fn poll_fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.records.poll_fd(), self.feeder.poll_fd()]
    }

    /// When there is something to do without news.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let due = [
            self.processes.due_in(),
            self.records.holds_back().then_some(Duration::ZERO),
            self.scan_again.then(|| RESCAN_INTERVAL.saturating_sub(self.last_scan.elapsed())),
            self.scripts.due_in(),
        ];
        due.into_iter().flatten().min()
    }

    /// Lets go of processes and objects that are no more.
    pub(super) fn forget_the_past(&mut self) {
        self.processes.forget_past_images();
        let feeder = &self.feeder;
        let mapped = self.processes.mapped_objects();
        let needed = |id| feeder.is_building(id);
        for id in self.objects.release_unmapped(&mapped, &needed, Instant::now()) {
            self.feeder.forget(id);
            self.tables.release_object(id);
        }
        self.words.forget_objects();
        self.scripts.forget_the_past();
    }

    /// Process records that were read.
    pub(super) fn received_records(&self) -> u64 {
        self.records.received()
    }

    /// Process records that the kernel could not deliver.
    pub(super) fn lost_records(&self) -> u64 {
        self.records.lost()
    }
}

/// Waits for news, at most so long.
pub(super) fn wait(sources: &mut [PollFd<'_>], timeout: Duration) -> Result<(), SessionError> {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(sources, Some(&timeout)) {
        // An interrupting signal is news for the caller.
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(SessionError::System { what: "wait for samples", source: error.into() }),
    }
}

fn for_kernel(mapping: &ExecutableMapping) -> ProcessMapping {
    let (kind, bias) = match mapping.content {
        MappingContent::Object { object, bias } => (MappingKind::Object(object), bias.0),
        MappingContent::Jit => (MappingKind::Jit, 0),
        MappingContent::Uprobes => (MappingKind::Uprobes, 0),
    };
    ProcessMapping { begin: mapping.begin, end: mapping.end, bias, kind }
}

fn request(
    feeder: &mut TableFeeder,
    objects: &ObjectRegistry,
    tables: &mut Tables,
    id: ObjectId,
    urgent: bool,
) {
    if let Some(object) = objects.get(id) {
        feeder.request(id, object, urgent, tables);
    }
}
