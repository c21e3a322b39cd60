//! A recording under way: from the opened session to the written profile.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use spanflame_symbols::symbolize::Limits;

use super::CommandError;
use super::arguments::Args;
use super::command::RunningCommand;
use super::progress::Progress;
use super::report::{Summary, add_comments};
use super::signals::Signals;
use super::statistics::{self, FrameAccount, SampleAccount, Statistics};
use crate::export;
use crate::kernel::{BPF_FILE_SYSTEM, online_cpus, shared_contexts_path};
use crate::model::Profile;
use crate::process::Interest;
use crate::profile::{Collector, Namer, RawWindow, Session, SessionError, SessionOptions, Taken, resources};

/// Longest wait for the unwind tables of a process that was asked for, before recording begins anyway.
const TABLES_WAIT: Duration = Duration::from_secs(60);
/// How often that wait looks for signals.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);
/// How often the ring buffer is looked at when nothing wakes us.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

/// What is recorded.
pub(in crate::cli) struct Wanted<'a> {
    /// These processes. None of them: the command, or without one the whole host.
    pub(in crate::cli) pids: &'a [u32],
    /// Samples a second on each CPU.
    pub(in crate::cli) frequency_hz: u32,
    /// Whether the run time of the BPF programs is measured, which takes `CAP_SYS_ADMIN`.
    pub(in crate::cli) measures_bpf: bool,
}

/// What a recording came to.
pub(in crate::cli) struct Recorded {
    /// Its samples with names, and the account of them in its comments.
    pub(in crate::cli) profile: Profile,
    /// Where the samples went.
    pub(in crate::cli) samples: SampleAccount,
    /// The samples as they were taken.
    pub(super) window: Box<RawWindow>,
    pub(super) frames: FrameAccount,
}

/// See the module.
pub(in crate::cli) struct Recording {
    session: Session,
    collector: Collector,
    /// The one process that was asked for, whose executable is the profile's first.
    main_pid: Option<u32>,
    frequency_hz: u32,
    /// `CLOCK_MONOTONIC` nanoseconds at the program's start.
    started_ns: u64,
    began: SystemTime,
    begin: Instant,
    length: Duration,
}

impl Recording {
    /// Loads everything and, for processes that run already, waits for their unwind tables.
    /// `command_pid` is that of the command that is held back. Nothing is sampled yet.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(in crate::cli) fn open(
        wanted: &Wanted<'_>,
        command_pid: Option<u32>,
        signals: &Signals,
        started: Instant,
    ) -> Result<Self, CommandError> {
        let interest = match command_pid {
            Some(pid) => Interest::Only { pids: HashSet::from([pid]), follow_children: true },
            None if wanted.pids.is_empty() => Interest::All,
            None => Interest::Only { pids: wanted.pids.iter().copied().collect(), follow_children: false },
        };
        // First: its thread is not to inherit the priority that the session gives to this one.
        let namer =
            Namer::start(None, Limits::default()).context("cannot start the thread that names stacks")?;
        let cpus = online_cpus().context("cannot size the ring buffer")?.len();
        let mut session = Session::open(&SessionOptions {
            frequency_hz: wanted.frequency_hz,
            interest,
            targets_running: command_pid.is_none(),
            ring_buffer_bytes: resources::ring_buffer_bytes(wanted.frequency_hz, cpus),
            cache_folder: resources::cache_folder(),
            shared_contexts: shared_contexts_path(Path::new(BPF_FILE_SYSTEM)),
            requests: None,
        })
        .map_err(session_error)?;
        if wanted.measures_bpf {
            // Of all that a recording does only this takes CAP_SYS_ADMIN.
            if let Err(error) = session.enable_run_statistics() {
                tracing::warn!("the run time of the BPF programs is not measured: {error}");
            }
        }
        if !wanted.pids.is_empty() {
            wait_for_tables(&mut session, signals)?;
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        let main_pid = match wanted.pids {
            [first, others @ ..] if others.iter().all(|pid| pid == first) => Some(*first),
            _ => command_pid,
        };
        Ok(Self {
            session,
            collector: Collector::new(namer),
            main_pid,
            frequency_hz: wanted.frequency_hz,
            started_ns: now_ns.saturating_sub(nanoseconds(started.elapsed())),
            began: SystemTime::now(),
            begin: Instant::now(),
            length: Duration::ZERO,
        })
    }

    /// Begins to sample: the duration counts from here.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(in crate::cli) fn start(&mut self) -> Result<(), CommandError> {
        self.began = SystemTime::now();
        self.begin = Instant::now();
        self.session.start().map_err(session_error)
    }

    /// Samples until the time is over, the command has ended or a signal came.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(in crate::cli) fn sample(
        &mut self,
        duration: Duration,
        mut command: Option<&mut RunningCommand>,
        signals: &Signals,
    ) -> Result<(), CommandError> {
        let mut progress = Progress::new(duration);
        let collector = &mut self.collector;
        while !signals.any() {
            let left = duration.saturating_sub(self.begin.elapsed());
            if left.is_zero() {
                break;
            }
            if let Some(command) = &mut command
                && command.try_wait().context("cannot wait for the command")?.is_some()
            {
                break;
            }
            progress.show(self.begin.elapsed(), collector.aggregate().samples());
            let others: Vec<_> = command.iter().filter_map(|command| command.poll_fd()).collect();
            self.session
                .turn(left.min(DRAIN_INTERVAL), &others, &mut |sample| collector.add(sample))
                .map_err(session_error)?;
        }
        self.session.stop(&mut |sample| collector.add(sample)).map_err(session_error)?;
        self.length = self.begin.elapsed();
        progress.clear();
        Ok(())
    }

    /// Names what was sampled.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(in crate::cli) fn finish(&mut self) -> Result<Recorded, CommandError> {
        let session = &self.session;
        let counters = session.counters().map_err(session_error)?;
        let written = self.collector.aggregate().samples();
        let samples = SampleAccount::new(&counters, written);
        let main_object = self.main_pid.and_then(|pid| session.known.processes.executable_object(pid));
        let began = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let taken = Taken {
            start_unix_ns: nanoseconds(began),
            duration_ns: nanoseconds(self.length),
            period_ns: 1_000_000_000 / u64::from(self.frequency_hz),
        };
        let window = self.collector.take_window(main_object, session);
        let named = self.collector.namer().name(window, taken).ok().and_then(|named| named.recv().ok());
        // It names nothing else and panics on no bytes, so this is a bug of ours.
        let (window, mut profile) =
            named.ok_or_else(|| anyhow!("the samples could not be named; please report this"))?;
        add_comments(&mut profile, &samples);
        let frames = FrameAccount { user: counters.user_frames, kernel: counters.kernel_frames };
        Ok(Recorded { profile, samples, window, frames })
    }

    /// Writes the profile, says so, and answers what the recording took, wrote and lost.
    ///
    /// # Errors
    /// [`CommandError::ExportFailed`] if the profile could not be written.
    pub(super) fn write(mut self, args: &Args) -> Result<Statistics, CommandError> {
        let Recorded { profile, samples, window, frames } = self.finish()?;
        export::write_file(&profile, &args.output)
            .map_err(|error| CommandError::ExportFailed(anyhow::Error::from(error)))?;

        let (stacks, executables) = statistics::stacks(&window);
        // The profile is there, whether or not anybody can still be told.
        let summary = Summary { samples: &samples, stacks: &stacks, output: &args.output };
        let _ = writeln!(std::io::stderr(), "{summary}");
        let since_start_ms = |time_ns: Option<u64>| {
            time_ns.map(|time_ns| time_ns.saturating_sub(self.started_ns) as f64 / 1e6)
        };
        Ok(Statistics {
            stacks,
            executables,
            start_to_first_sample_ms: since_start_ms(self.collector.first_sample_ns()),
            start_to_first_complete_ms: since_start_ms(self.collector.first_complete_ns()),
            agent_cpu_ms: statistics::own_cpu_ms(),
            bpf_run_ms: self.session.run_statistics().map(|runs| runs.all.run_time_ns as f64 / 1e6),
            agent_peak_memory_bytes: statistics::own_peak_memory_bytes(),
            bpf_map_bytes: self.session.map_bytes(),
            frames,
            samples,
        })
    }
}

fn wait_for_tables(session: &mut Session, signals: &Signals) -> Result<(), CommandError> {
    let deadline = Instant::now() + TABLES_WAIT;
    while !session.wait_for_tables(SIGNAL_INTERVAL).map_err(session_error)? {
        if signals.any() {
            tracing::warn!("ended before sampling began: the profile is empty");
            break;
        }
        if Instant::now() >= deadline {
            tracing::warn!("recording begins before all unwind tables are there");
            break;
        }
    }
    Ok(())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn session_error(error: SessionError) -> CommandError {
    match error {
        SessionError::Kernel(kernel) if kernel.is_not_permitted() => {
            CommandError::NotPermitted(anyhow::Error::from(kernel))
        }
        SessionError::Kernel(kernel) if kernel.is_usage() => CommandError::Usage(anyhow::Error::from(kernel)),
        other => CommandError::Failed(anyhow::Error::from(other)),
    }
}
