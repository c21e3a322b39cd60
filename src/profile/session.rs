//! One profiling session: the sampler, the table of processes and the unwind tables, kept in step.
//!
//! Each [`Session::turn`] waits for news and takes, in this order: process records (so that a mapping
//! is known before the samples in it are looked at), finished unwind tables, samples. A sample that
//! could not be unwound for want of a process's mappings or of a table asks for them. Of a whole host,
//! the processes that were there before are read little by little after sampling has begun, so that it
//! begins at once; those that samples ask for come first.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::feed::{FeedStatistics, TableFeeder};
use super::known_processes::{KnownProcesses, PREPARE_LIMIT, wait};
use super::scripts::{RuntimesOfProcesses, ScriptNames, Scripts};
use crate::kernel::{
    Counters, EbpfState, KernelError, PreferredThread, RequestMaps, RequestSampling, RunStatistics, Sampler,
    SamplerOptions,
};
use crate::model::{Outcome, RawSample};
use crate::process::Interest;

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

/// See the module's description.
pub struct Session {
    sampler: Sampler,
    /// The processes of interest, and what is known of them.
    pub known: KnownProcesses,
    shared_contexts: PathBuf,
    preferred: Option<PreferredThread>,
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
        let mut known = KnownProcesses::begin(options, feeder, scripts)?;
        let requests = options.requests.as_ref().map(|requests| RequestSampling {
            maps: &requests.maps,
            frequency_hz: requests.frequency_hz,
            budget_permille: requests.budget_permille,
        });
        let of_sampler = SamplerOptions {
            frequency_hz: options.frequency_hz,
            only_targets: matches!(options.interest, Interest::Only { .. }),
            ring_buffer_bytes: options.ring_buffer_bytes,
            exclude_agent: false,
        };
        // That the kernel verifies the sampler takes as long as all else, so what is needed first is read meanwhile.
        let cannot_load =
            |source| SessionError::System { what: "start a thread that loads the sampler", source };
        let maps = known.maps();
        let (ended, end) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| cannot_load(error.into()))?;
        let sampler = std::thread::scope(|scope| {
            let load = move || {
                // Closed when this ends, however that comes.
                let _end = end;
                Sampler::load(&of_sampler, requests.as_ref(), &maps)
            };
            let loading = std::thread::Builder::new()
                .name("load-sampler".to_owned())
                .spawn_scoped(scope, load)
                .map_err(cannot_load)?;
            let read = known.read_those_running(options.targets_running);
            let followed = known.follow_until(ended.as_fd());
            let loaded = loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            read.and(followed)?;
            Ok::<_, SessionError>(loaded)
        })?;
        let mut session = Self {
            sampler,
            known,
            shared_contexts: options.shared_contexts.clone(),
            preferred: Some(preferred),
        };
        session.take_news()?;
        // Whoever names processes waits for them by `wait_for_tables`.
        session.wait_until(PREPARE_LIMIT, KnownProcesses::is_prepared_for_busy)?;
        Ok(session)
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
        self.take_news()?;
        let known = &mut self.known;
        let mut attributed = |mut sample: RawSample| {
            known.complete(&mut sample);
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
        self.wait_until(limit, KnownProcesses::is_prepared)
    }

    fn wait_until(
        &mut self,
        limit: Duration,
        is_prepared: fn(&KnownProcesses) -> bool,
    ) -> Result<bool, SessionError> {
        let deadline = Instant::now() + limit;
        while !is_prepared(&self.known) && Instant::now() < deadline {
            self.turn(deadline.saturating_duration_since(Instant::now()), &[], &mut |_| {})?;
        }
        Ok(is_prepared(&self.known))
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
        let [records, tables] = self.known.poll_fds();
        let sources = [self.sampler.poll_fd(), records, tables].into_iter().chain(others.iter().copied());
        let mut sources: Vec<_> =
            sources.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)).collect();
        wait(&mut sources, self.known.due_in().map_or(timeout, |due| due.min(timeout)))?;
        self.take_news()?;
        self.known.publish_tables();
        self.take_samples(on_sample)?;
        self.known.scan_on();
        Ok(())
    }

    fn take_news(&mut self) -> Result<(), SessionError> {
        self.known.take_records()?;
        self.known.take_runtimes(self.sampler.follows_generated_code());
        self.sampler.read_contexts_of_others(&self.shared_contexts);
        Ok(())
    }

    fn take_samples(&mut self, on_sample: &mut dyn FnMut(RawSample)) -> Result<(), SessionError> {
        let mut wanting: HashMap<u32, (Outcome, u64)> = HashMap::new();
        let known = &mut self.known;
        self.sampler.drain(&mut |mut sample| {
            known.complete(&mut sample);
            if matches!(
                sample.outcome,
                Outcome::UnknownProcess | Outcome::UnknownMapping | Outcome::TablePending
            ) {
                wanting.insert(sample.pid, (sample.outcome, sample.stopped_at));
            }
            on_sample(sample);
        })?;
        for (pid, (outcome, stopped_at)) in wanting {
            self.known.supply(pid, outcome, stopped_at);
        }
        self.known.publish_processes();
        Ok(())
    }

    /// Lets go of processes and objects that are no more. To be called right after the samples of a
    /// window were taken away to be named.
    pub fn forget_the_past(&mut self) {
        self.known.forget_the_past();
    }

    /// The names of the frames of runtimes.
    #[must_use]
    pub fn script_names(&self) -> &Arc<ScriptNames> {
        self.known.scripts.names()
    }

    /// The runtimes of all processes that have any.
    pub fn runtimes(&mut self) -> Arc<RuntimesOfProcesses> {
        self.known.scripts.all()
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
        self.known.feeder.statistics()
    }

    /// Process records that were read.
    #[must_use]
    pub fn received_records(&self) -> u64 {
        self.known.received_records()
    }

    /// Process records that the kernel could not deliver.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.known.lost_records()
    }
}
