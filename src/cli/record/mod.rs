//! `spanflame record`: any running program → a profile file.

mod command;
mod statistics;

use std::collections::HashSet;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};

use self::command::{HeldCommand, RunningCommand, shell_status};
use self::statistics::{FrameAccount, SampleAccount, Statistics};
use super::CommandError;
use crate::export;
use crate::model::{Label, Profile};
use crate::process::Interest;
use crate::profile::resolve::Taken;
use crate::profile::{Collector, Session, SessionError, SessionOptions};

/// Records where the time goes, and writes it as a profile
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  spanflame record -o host.svg                         the whole host for 10 seconds
  spanflame record --pid 4242 --duration 30s -o a.pb.gz
  spanflame record --frequency 997 -o cc.folded -- make -j8

The ending of FILE chooses the format: .pb.gz (pprof), .folded, .svg, .json (speedscope), .otlp")]
pub struct Args {
    /// Record only this process; may be given several times
    #[arg(long = "pid", value_name = "P")]
    pids: Vec<u32>,
    /// How long to record: 500ms, 10s, 2m, 1h
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Samples a second on each CPU
    #[arg(long, default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=9999))]
    frequency: u32,
    /// What to record
    #[arg(long, value_enum, default_value_t = Kind::Cpu)]
    kind: Kind,
    /// Print what was taken, written and lost as one JSON object: the last line of standard error, or FILE
    #[arg(long, value_name = "json[=FILE]")]
    stats: Option<StatsTarget>,
    /// Where to write the profile
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Record this command and what it starts
    #[arg(last = true, value_name = "CMD", conflicts_with = "pids")]
    command: Vec<String>,
}

/// What a recording measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Time on the CPU
    Cpu,
}

#[derive(Debug, Clone)]
enum StatsTarget {
    StandardError,
    File(PathBuf),
}

impl std::str::FromStr for StatsTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "json" => Ok(Self::StandardError),
            Some(("json", file)) if !file.is_empty() => Ok(Self::File(PathBuf::from(file))),
            _ => Err("expected json or json=FILE".to_owned()),
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits =
        text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration such as 10s or 500ms"))?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: use ms, s, m or h")),
    };
    let longest = 7.0 * 24.0 * 3600.0;
    if !(0.001..=longest).contains(&seconds) {
        return Err("a recording lasts between 1ms and 168h".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Longest wait for the unwind tables of a process that was asked for, before recording begins anyway.
const TABLES_WAIT: Duration = Duration::from_secs(60);
/// How often the ring buffer is looked at when nothing wakes us.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the subcommand. `started` is when this program began.
///
/// # Errors
/// [`CommandError`], by INTERFACE.md's exit codes.
pub fn run(args: &Args, started: Instant) -> Result<(), CommandError> {
    let Kind::Cpu = args.kind;
    export::Format::from_path(&args.output).map_err(|error| CommandError::Usage(error.into()))?;
    export::check_writable(&args.output).map_err(|error| CommandError::Usage(error.into()))?;
    if let Some(StatsTarget::File(file)) = &args.stats {
        export::check_writable(file).map_err(|error| CommandError::Usage(error.into()))?;
    }
    for pid in &args.pids {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return Err(CommandError::Usage(anyhow!("there is no process {pid}")));
        }
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).context("cannot handle signals")?;
    }
    let held = match args.command.as_slice() {
        [] => None,
        command => Some(HeldCommand::hold(command).context("cannot start the command")?),
    };
    let mut recording = Recording::open(args, held.as_ref(), started)?;
    let mut command = recording.record(args, held, &interrupted)?;
    recording.write(args)?;
    if let Some(command) = &mut command {
        let status = command.wait().context("cannot wait for the command")?;
        if !status.success() {
            return Err(CommandError::CommandStatus(shell_status(status)));
        }
    }
    Ok(())
}

/// A recording under way.
struct Recording {
    session: Session,
    collector: Collector,
    /// `CLOCK_MONOTONIC` nanoseconds at the program's start.
    started_ns: u64,
    began: SystemTime,
    length: Duration,
}

impl Recording {
    fn open(args: &Args, held: Option<&HeldCommand>, started: Instant) -> Result<Self, CommandError> {
        let interest = match held {
            Some(held) => Interest::Only { pids: HashSet::from([held.pid()]), follow_children: true },
            None if args.pids.is_empty() => Interest::All,
            None => Interest::Only { pids: args.pids.iter().copied().collect(), follow_children: false },
        };
        let mut session = Session::open(&SessionOptions {
            frequency_hz: args.frequency,
            interest,
            targets_running: held.is_none(),
            ring_buffer_bytes: ring_buffer_bytes(args.frequency),
            cache_folder: cache_folder(),
        })
        .map_err(session_error)?;
        if args.stats.is_some() {
            session.enable_run_statistics().map_err(session_error)?;
        }
        if !args.pids.is_empty() {
            session.wait_for_tables(TABLES_WAIT).map_err(session_error)?;
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ns = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        let since_start = u64::try_from(started.elapsed().as_nanos()).unwrap_or(0);
        Ok(Self {
            session,
            collector: Collector::default(),
            started_ns: now_ns.saturating_sub(since_start),
            began: SystemTime::now(),
            length: Duration::ZERO,
        })
    }

    /// Samples until the time is over, the command has ended or a signal came.
    fn record(
        &mut self,
        args: &Args,
        held: Option<HeldCommand>,
        interrupted: &AtomicBool,
    ) -> Result<Option<RunningCommand>, CommandError> {
        self.began = SystemTime::now();
        let begin = Instant::now();
        self.session.start().map_err(session_error)?;
        let mut command = match held {
            Some(held) => Some(held.release().map_err(|error| {
                CommandError::Usage(anyhow!(
                    "cannot run {:?}: {error}",
                    args.command.first().map_or("", |c| c)
                ))
            })?),
            None => None,
        };
        let mut progress = Progress::new(args.duration);
        let collector = &mut self.collector;
        while !interrupted.load(Ordering::Relaxed) {
            let Some(left) = args.duration.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) else {
                break;
            };
            if let Some(command) = &mut command
                && command.try_wait().context("cannot wait for the command")?.is_some()
            {
                break;
            }
            progress.show(begin.elapsed(), collector.aggregate().samples());
            let others: Vec<_> = command.iter().map(RunningCommand::poll_fd).collect();
            self.session
                .turn(left.min(DRAIN_INTERVAL), &others, &mut |sample| collector.add(sample))
                .map_err(session_error)?;
        }
        self.session.stop(&mut |sample| collector.add(sample)).map_err(session_error)?;
        self.length = begin.elapsed();
        progress.clear();
        Ok(command)
    }

    fn write(&mut self, args: &Args) -> Result<(), CommandError> {
        let session = &self.session;
        let counters = session.counters().map_err(session_error)?;
        let written = self.collector.aggregate().samples();
        let samples = SampleAccount::new(&counters, written);
        if !samples.adds_up() {
            tracing::warn!("{} samples were taken, {written} written: {:?}", samples.taken, samples.lost);
        }
        let main_object = match args.pids.as_slice() {
            [pid] => session.processes.executable_object(*pid),
            _ => None,
        };
        let began = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let taken = Taken {
            start_unix_ns: nanoseconds(began),
            duration_ns: nanoseconds(self.length),
            period_ns: 1_000_000_000 / u64::from(args.frequency),
        };
        let mut profile = self.collector.profile(&session.objects, &session.processes, main_object, taken);
        add_comments(&mut profile, &samples);
        export::write_file(&profile, &args.output)
            .map_err(|error| CommandError::ExportFailed(anyhow::Error::from(error)))?;

        let (stacks, executables) =
            statistics::stacks(self.collector.aggregate(), &session.processes, &session.objects);
        eprintln!("{}", Summary { samples: &samples, stacks: &stacks, output: &args.output });
        let since_start_ms = |time_ns: Option<u64>| {
            time_ns.map(|time_ns| time_ns.saturating_sub(self.started_ns) as f64 / 1e6)
        };
        let statistics = Statistics {
            samples,
            stacks,
            executables,
            start_to_first_sample_ms: since_start_ms(self.collector.first_sample_ns()),
            start_to_first_complete_ms: since_start_ms(self.collector.first_complete_ns()),
            agent_cpu_ms: statistics::own_cpu_ms(),
            bpf_run_ms: session.run_statistics().all.run_time_ns as f64 / 1e6,
            agent_peak_memory_bytes: statistics::own_peak_memory_bytes(),
            bpf_map_bytes: session.map_bytes(),
            frames: FrameAccount { user: counters.user_frames, kernel: counters.kernel_frames },
        };
        print_statistics(args.stats.as_ref(), &statistics)
    }
}

fn print_statistics(target: Option<&StatsTarget>, statistics: &Statistics) -> Result<(), CommandError> {
    let json = serde_json::to_string(statistics).context("statistics")?;
    match target {
        None => Ok(()),
        Some(StatsTarget::StandardError) => {
            eprintln!("{json}");
            Ok(())
        }
        Some(StatsTarget::File(file)) => {
            std::fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
            Ok(())
        }
    }
}

/// What a person is told at the end.
struct Summary<'a> {
    samples: &'a SampleAccount,
    stacks: &'a statistics::StackAccount,
    output: &'a Path,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_user = self.samples.written - self.stacks.no_user;
        let share =
            if with_user == 0 { 100.0 } else { self.stacks.complete as f64 * 100.0 / with_user as f64 };
        write!(
            formatter,
            "Wrote {} samples to {} ({share:.1} % of user stacks complete",
            self.samples.written,
            self.output.display()
        )?;
        let lost: u64 = self.samples.lost.values().sum();
        if lost > 0 {
            write!(formatter, "; {lost} lost: {:?}", self.samples.lost)?;
        }
        formatter.write_str(")")
    }
}

fn add_comments(profile: &mut Profile, samples: &SampleAccount) {
    profile.comments.push(format!("spanflame {}", env!("CARGO_PKG_VERSION")));
    profile
        .comments
        .push(format!("taken={} written={} idle={}", samples.taken, samples.written, samples.idle));
    for (reason, count) in &samples.lost {
        profile.comments.push(format!("lost {reason}={count}"));
    }
    debug_assert!(
        profile.label_sets.iter().all(|labels| labels.is_sorted_by_key(|label: &Label| &label.key))
    );
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn session_error(error: SessionError) -> CommandError {
    match error {
        SessionError::Kernel(kernel) if kernel.is_not_permitted() => {
            CommandError::NotPermitted(anyhow::Error::from(kernel))
        }
        other => CommandError::Failed(anyhow::Error::from(other)),
    }
}

/// Room for half a second of samples of 1 KiB on every CPU; a full ring buffer loses samples, counted.
fn ring_buffer_bytes(frequency_hz: u32) -> u32 {
    if let Some(wanted) =
        std::env::var("SPANFLAME_RING_BYTES").ok().and_then(|bytes| bytes.parse::<u32>().ok())
    {
        return wanted.clamp(4096, 1 << 30).next_power_of_two();
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let wanted = frequency_hz.saturating_mul(cpus).saturating_mul(512);
    wanted.clamp(256 << 10, 64 << 20).next_power_of_two()
}

/// `SPANFLAME_CACHE_DIR`, else `/var/cache/spanflame` for root, else below the user's cache folder.
fn cache_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("SPANFLAME_CACHE_DIR") {
        return (!folder.is_empty()).then(|| PathBuf::from(folder));
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/spanflame"));
    }
    let user_cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let user_cache =
        user_cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    user_cache.map(|folder| folder.join("spanflame"))
}

/// A line that is rewritten on a terminal, and nothing elsewhere.
struct Progress {
    enabled: bool,
    shown: Option<Instant>,
    whole: Duration,
}

impl Progress {
    fn new(whole: Duration) -> Self {
        Self { enabled: std::io::stderr().is_terminal(), shown: None, whole }
    }

    fn show(&mut self, elapsed: Duration, samples: u64) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() > Duration::from_millis(250));
        if self.enabled && due {
            self.shown = Some(Instant::now());
            let (elapsed, whole) = (elapsed.as_secs_f64(), self.whole.as_secs_f64());
            eprint!(
                "\r\x1b[KRecording: {elapsed:.1} of {whole:.0} s, {samples} samples (Ctrl-C writes what there is)"
            );
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        for wrong in ["", "s", "10x", "-1s", "0s", "1e9s", "nan", "1000h", "١s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_ring_buffer_is_a_power_of_two_within_bounds() {
        for frequency_hz in [1, 99, 997, 9999] {
            let bytes = ring_buffer_bytes(frequency_hz);
            assert!(bytes.is_power_of_two() && (256 << 10..=64 << 20).contains(&bytes));
        }
    }
}
