//! One profiling session: the sampler, the table of processes and the unwind tables, kept in step.
//!
//! Each [`Session::turn`] waits for news and takes, in this order: process records (so that a mapping
//! is known before the samples in it are looked at), finished unwind tables, samples. A sample that
//! could not be unwound for want of a process's mappings or of a table asks for them. Of a whole host,
//! the processes that were there before are read little by little after sampling has begun, so that it
//! begins at once; those that samples ask for come first.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::feed::{FeedStatistics, TableFeeder};
use super::scripts::{RuntimesOfProcesses, ScriptNames, Scripts};
use super::words::Words;
use crate::kernel::{
    Counters, EbpfState, KernelError, MappingKind, PreferredThread, ProcessEvent, ProcessEvents,
    ProcessMapping, RequestMaps, RequestSampling, RunStatistics, Sampler, SamplerOptions, Tables,
};
use crate::model::{ObjectId, Outcome, RawSample};
use crate::process::{ExecutableMapping, Interest, MappingContent, ObjectRegistry, ProcessTable};

/// What to sample and how.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Samples a second and CPU.
    pub frequency_hz: u32,
    /// Which processes.
    pub interest: Interest,
    /// Whether they run already; a command that is still held back has nothing of its own mapped yet.
    pub targets_running: bool,
    /// Size of the sample ring buffer, a power of two.
    pub ring_buffer_bytes: u32,
    /// Where unwind tables are kept between runs.
    pub cache_folder: Option<PathBuf>,
    /// Where another tracer may have pinned its map of who is in which span.
    pub shared_contexts: PathBuf,
    /// How to sample within requests, if those are followed.
    pub requests: Option<RequestSamplingOptions>,
}

/// How to sample within requests; see [`RequestSampling`].
#[derive(Debug, Clone)]
pub struct RequestSamplingOptions {
    /// Who is at which request.
    pub maps: Arc<RequestMaps>,
    /// Samples a second and CPU within requests.
    pub frequency_hz: u32,
    /// Share of a CPU's time, in thousandths, that they may take.
    pub budget_permille: u32,
}

/// Why a session could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// `/proc` or a thread could not be had.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// How long a turn may read processes of which no sample asked for.
const SCAN_BUDGET: Duration = Duration::from_millis(2);
/// How long a whole host's busy processes are read, and their tables waited for, before sampling begins.
const PREPARE_LIMIT: Duration = Duration::from_millis(100);
/// All processes are looked at afresh at most this often, however often records are lost.
const RESCAN_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's description.
pub struct Session {
    sampler: Sampler,
    tables: Tables,
    records: ProcessEvents,
    feeder: TableFeeder,
    words: Words,
    scripts: Scripts,
    shared_contexts: PathBuf,
    /// The processes of interest.
    pub processes: ProcessTable,
    /// The objects they have mapped.
    pub objects: ObjectRegistry,
    only_targets: bool,
    batch: Vec<ProcessEvent>,
    preferred: Option<PreferredThread>,
    last_scan: Instant,
    scan_again: bool,
    warned_of_mappings: bool,
}

impl Session {
    /// Loads the programs and reads the processes that were asked for. Nothing is sampled yet.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn open(options: &SessionOptions) -> Result<Self, SessionError> {
        // Before the priority is raised: the builders are to inherit the one of before.
        let feeder = TableFeeder::start(options.cache_folder.as_deref())
            .map_err(|source| SessionError::System { what: "start the builders of unwind tables", source })?;
        let scripts = Scripts::start()
            .map_err(|source| SessionError::System { what: "start the reader of runtimes", source })?;
        let preferred = PreferredThread::begin();
        let only_targets = matches!(options.interest, Interest::Only { .. });
        let requests = options.requests.as_ref().map(|requests| RequestSampling {
            maps: &requests.maps,
            frequency_hz: requests.frequency_hz,
            budget_permille: requests.budget_permille,
        });
        let of_sampler = SamplerOptions {
            frequency_hz: options.frequency_hz,
            only_targets,
            ring_buffer_bytes: options.ring_buffer_bytes,
            exclude_agent: false,
        };
        let mut sampler = Sampler::load_with(&of_sampler, requests.as_ref())?;
        if let Interest::Only { pids, follow_children } = &options.interest {
            for &pid in pids {
                sampler.add_target(pid, *follow_children)?;
            }
        }
        let tables = sampler.take_tables().ok_or(KernelError::Missing("unwind tables"))?;
        // From here on every new mapping is heard of; what was there before is read from /proc next.
        let records = ProcessEvents::open()?;
        let mut session = Self {
            sampler,
            tables,
            records,
            feeder,
            words: Words::default(),
            scripts,
            shared_contexts: options.shared_contexts.clone(),
            processes: ProcessTable::new(options.interest.clone()),
            objects: ObjectRegistry::default(),
            only_targets,
            batch: Vec::new(),
            preferred: Some(preferred),
            last_scan: Instant::now(),
            scan_again: false,
            warned_of_mappings: false,
        };
        if options.targets_running {
            session.begin_scan()?;
        }
        if only_targets {
            session.processes.scan(Duration::MAX, &mut session.objects, &mut session.tables);
            session.publish_processes();
        } else {
            session.prepare_busy_processes()?;
        }
        Ok(session)
    }

    /// Gets ready what will surely be sampled: those that run or want to right now. Of a busy host these
    /// are nearly all samples, and their first ones would be cut.
    fn prepare_busy_processes(&mut self) -> Result<(), SessionError> {
        let busy = self.processes.scan_busy(PREPARE_LIMIT, &mut self.objects, &mut self.tables);
        self.publish_processes();
        for pid in busy {
            let objects = self.processes.get(pid).map(|process| process.mappings.objects());
            for object in objects.unwrap_or_default() {
                request(&mut self.feeder, &self.objects, &mut self.tables, object, false);
            }
        }
        self.wait_for_tables(PREPARE_LIMIT)?;
        Ok(())
    }

    fn begin_scan(&mut self) -> Result<(), SessionError> {
        self.last_scan = Instant::now();
        self.scan_again = false;
        self.processes.add_interest(self.sampler.targets());
        self.processes.begin_scan().map_err(|source| SessionError::System { what: "list /proc", source })
    }

    /// Has the kernel measure the run time of the programs, which costs about 20 ns a run.
    ///
    /// # Errors
    /// [`SessionError::Kernel`].
    pub fn enable_run_statistics(&mut self) -> Result<(), SessionError> {
        Ok(self.sampler.enable_run_statistics()?)
    }

    /// Begins to sample.
    ///
    /// # Errors
    /// [`SessionError::Kernel`].
    pub fn start(&mut self) -> Result<(), SessionError> {
        Ok(self.sampler.start()?)
    }

    /// Ends sampling and hands on every sample that is still in the ring buffer; counters are final.
    ///
    /// # Errors
    /// [`SessionError::Kernel`].
    pub fn stop(&mut self, on_sample: &mut dyn FnMut(RawSample)) -> Result<(), SessionError> {
        self.sampler.stop()?;
        self.take_records()?;
        let (processes, scripts, objects) = (&mut self.processes, &mut self.scripts, &self.objects);
        let mut attributed = |mut sample: RawSample| {
            processes.attribute(&mut sample);
            scripts.complete(&mut sample, objects);
            on_sample(sample);
        };
        while self.sampler.drain(&mut attributed)? > 0 {}
        self.preferred = None;
        Ok(())
    }

    /// Waits until all unwind tables that were asked for are in and runtimes were looked for, at most `limit`. Says
    /// whether that is so.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn wait_for_tables(&mut self, limit: Duration) -> Result<bool, SessionError> {
        let deadline = Instant::now() + limit;
        while !self.is_prepared() && Instant::now() < deadline {
            self.turn(deadline.saturating_duration_since(Instant::now()), &[], &mut |_| {})?;
        }
        Ok(self.is_prepared())
    }

    fn is_prepared(&self) -> bool {
        self.feeder.is_idle() && self.scripts.is_idle()
    }

    /// Waits for news, at most `timeout`, and takes it. Returns early when one of `others` is readable.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn turn(
        &mut self,
        timeout: Duration,
        others: &[std::os::fd::BorrowedFd<'_>],
        on_sample: &mut dyn FnMut(RawSample),
    ) -> Result<(), SessionError> {
        let mut sources = vec![
            PollFd::from_borrowed_fd(self.sampler.poll_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.records.poll_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.feeder.poll_fd(), PollFlags::IN),
        ];
        sources.extend(others.iter().map(|&other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        let due = [
            self.processes.due_in(),
            self.records.holds_back().then_some(Duration::ZERO),
            self.scan_again.then(|| RESCAN_INTERVAL.saturating_sub(self.last_scan.elapsed())),
            self.scripts.due_in(),
        ];
        let timeout = due.into_iter().flatten().fold(timeout, Duration::min);
        let wait = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut sources, Some(&wait)) {
            // An interrupting signal is news for the caller.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(SessionError::System { what: "wait for samples", source: error.into() });
            }
        }
        self.take_records()?;
        self.feeder.publish(&mut self.tables);
        self.take_samples(on_sample)?;
        self.processes.scan(SCAN_BUDGET, &mut self.objects, &mut self.tables);
        self.publish_processes();
        Ok(())
    }

    fn take_records(&mut self) -> Result<(), SessionError> {
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
            self.words.forget(pid, &self.sampler);
            self.scripts.forget(pid, &self.sampler);
        }
        self.words.look_again(&self.processes, &self.objects, &self.sampler);
        self.scripts.take_found(&self.processes, &self.objects, &self.sampler);
        self.sampler.read_contexts_of_others(&self.shared_contexts);
        Ok(())
    }

    /// Tells the kernel the mappings that changed, and asks for tables that will surely be needed.
    fn publish_processes(&mut self) {
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
                self.words.look_at(pid, &self.processes, &self.objects, &self.sampler);
            }
            self.scripts.look_at(pid, &self.processes, &self.objects, &self.sampler);
            for id in process.mappings.objects() {
                if self.only_targets || process.started_under_watch {
                    request(&mut self.feeder, &self.objects, &mut self.tables, id, false);
                } else if let Some(object) = self.objects.get(id) {
                    self.feeder.request_if_small(id, object, &mut self.tables);
                }
            }
        }
    }

    fn take_samples(&mut self, on_sample: &mut dyn FnMut(RawSample)) -> Result<(), SessionError> {
        let mut wanting: HashMap<u32, (Outcome, u64)> = HashMap::new();
        let (processes, scripts, objects) = (&mut self.processes, &mut self.scripts, &self.objects);
        self.sampler.drain(&mut |mut sample| {
            processes.attribute(&mut sample);
            scripts.complete(&mut sample, objects);
            if matches!(
                sample.outcome,
                Outcome::UnknownProcess | Outcome::UnknownMapping | Outcome::TablePending
            ) {
                wanting.insert(sample.pid, (sample.outcome, sample.stopped_at));
            }
            on_sample(sample);
        })?;
        for (pid, (outcome, stopped_at)) in wanting {
            self.supply(pid, outcome, stopped_at);
        }
        self.publish_processes();
        Ok(())
    }

    /// Gets what a sample lacked: the process, its mappings, or tables of what it has mapped. By now it
    /// may be there: the sample is older than what we know.
    fn supply(&mut self, pid: u32, outcome: Outcome, stopped_at: u64) {
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

    /// Lets go of processes and objects that are no more. To be called right after the samples of a
    /// window were taken away to be named.
    pub fn forget_the_past(&mut self) {
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

    /// The names of the frames of runtimes.
    #[must_use]
    pub fn script_names(&self) -> &Arc<ScriptNames> {
        self.scripts.names()
    }

    /// The runtimes of all processes that have any.
    pub fn runtimes(&mut self) -> Arc<RuntimesOfProcesses> {
        self.scripts.all()
    }

    /// The sampler's counters; final after [`Session::stop`].
    ///
    /// # Errors
    /// [`SessionError::Kernel`].
    pub fn counters(&self) -> Result<Counters, SessionError> {
        Ok(self.sampler.counters()?)
    }

    /// Up to where samples are written: see [`Sampler::written_position`].
    #[must_use]
    pub fn written_position(&self) -> u64 {
        self.sampler.written_position()
    }

    /// Up to where they were read.
    #[must_use]
    pub fn read_position(&self) -> u64 {
        self.sampler.read_position()
    }

    /// The programs and maps as the kernel has them: see [`Sampler::ebpf`].
    #[must_use]
    pub fn ebpf(&self) -> EbpfState {
        self.sampler.ebpf()
    }

    /// Run time of the BPF programs, if [`Session::enable_run_statistics`] was called.
    #[must_use]
    pub fn run_statistics(&self) -> Option<RunStatistics> {
        self.sampler.run_statistics()
    }

    /// Memory of all BPF maps, bytes.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.sampler.map_bytes()
    }

    /// What was done to get unwind tables.
    #[must_use]
    pub fn feed_statistics(&self) -> FeedStatistics {
        self.feeder.statistics()
    }

    /// Process records that were read.
    #[must_use]
    pub fn received_records(&self) -> u64 {
        self.records.received()
    }

    /// Process records that the kernel could not deliver.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.records.lost()
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
