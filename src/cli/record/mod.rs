//! `spanflame record`: any running program → a profile file.

mod arguments;
pub(in crate::cli) mod command;
mod progress;
pub(in crate::cli) mod recording;
mod report;
pub(in crate::cli) mod signals;
mod statistics;

use std::io::Write;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

pub use self::arguments::Args;
pub(in crate::cli) use self::arguments::parse_duration;
use self::arguments::{Kind, StatsTarget};
use self::command::{HeldCommand, RunningCommand, shell_status};
use self::recording::{Recording, Wanted};
use self::signals::Signals;
use super::CommandError;

/// While the command is waited for, signals are looked at this often.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(250);

/// Runs the subcommand. `started` is when this program began.
///
/// # Errors
/// [`CommandError`], by INTERFACE.md's exit codes.
pub fn run(args: &Args, started: Instant) -> Result<(), CommandError> {
    let Kind::Cpu = args.kind;
    args.check()?;
    crate::metrics::memory::keep_no_large_pieces();
    let descriptor_limit = crate::cli::descriptors::raise_descriptor_limit();
    let signals = Signals::register().context("cannot handle signals")?;
    let held = match args.command.as_slice() {
        [] => None,
        command => Some(HeldCommand::hold(command, descriptor_limit).context("cannot start the command")?),
    };
    let mut command = None;
    let written = record(args, held, &mut command, &signals, started);
    // A command that was let go is waited for whatever became of its recording.
    let ended = command.as_mut().map(|command| wait(command, &signals));
    if let Some(last_line) = written? {
        writeln!(std::io::stderr(), "{last_line}")
            .context("cannot write the statistics to standard error")
            .map_err(CommandError::ExportFailed)?;
    }
    match ended.transpose()? {
        None => Ok(()),
        Some(Ended::Itself(status)) if status.success() => Ok(()),
        Some(Ended::Itself(status)) => Err(CommandError::CommandStatus(shell_status(status))),
        Some(Ended::NotYet) => Err(CommandError::CommandStatus(by_signal(signal_hook::consts::SIGTERM))),
    }
}

/// Records, and writes the profile and the file of statistics. Answers what is to be the last line of
/// standard error. `command` is set as soon as it runs, also if something fails afterwards.
fn record(
    args: &Args,
    held: Option<HeldCommand>,
    command: &mut Option<RunningCommand>,
    signals: &Signals,
    started: Instant,
) -> Result<Option<String>, CommandError> {
    let wanted =
        Wanted { pids: &args.pids, frequency_hz: args.frequency, measures_bpf: args.stats.is_some() };
    let mut recording = Recording::open(&wanted, held.as_ref().map(HeldCommand::pid), signals, started)?;
    recording.start()?;
    if let Some(held) = held {
        if let Some(signal) = signals.which() {
            tracing::warn!("told to end before the command was started: it does not run");
            return Err(CommandError::CommandStatus(by_signal(signal)));
        }
        *command = Some(held.release().map_err(|error| {
            CommandError::Usage(anyhow!("cannot run {:?}: {error}", args.command.first().map_or("", |c| c)))
        })?);
    }
    recording.sample(args.duration, command.as_mut(), signals)?;
    let statistics = recording.write(args)?;
    let Some(target) = &args.stats else { return Ok(None) };
    let json = serde_json::to_string(&statistics).context("cannot write the statistics as JSON")?;
    match target {
        StatsTarget::StandardError => Ok(Some(json)),
        StatsTarget::File(file) => {
            std::fs::write(file, json + "\n")
                .with_context(|| format!("cannot write the statistics to {}", file.display()))
                .map_err(CommandError::ExportFailed)?;
            Ok(None)
        }
    }
}

/// The status of what a signal ended, as a shell gives it.
fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// How the wait for the command ended.
enum Ended {
    Itself(ExitStatus),
    /// We were told to end, and leave it running.
    NotYet,
}

/// Waits for the command, as `time` does: Ctrl-C is for the command, which a terminal sends it to as
/// well, and does not end the wait. `SIGTERM` is for us: there is nothing left to write, so it ends the
/// wait, and the command goes on.
fn wait(command: &mut RunningCommand, signals: &Signals) -> Result<Ended, CommandError> {
    signals.forget();
    loop {
        if let Some(status) = command.wait(SIGNAL_INTERVAL).context("cannot wait for the command")? {
            return Ok(Ended::Itself(status));
        }
        if signals.terminated() {
            tracing::warn!("told to end: the command goes on as process {}", command.pid());
            return Ok(Ended::NotYet);
        }
    }
}
