//! One run of a command, recorded from its first instruction to its end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Rlimit, Signal, kill_process_group};

use super::work::MAX_OUTPUT_BYTES;
use crate::check::run_facts::SCHEMA_VERSION;
use crate::check::{MachineFacts, RunFacts};
use crate::cli::CommandError;
use crate::cli::record::command::{HeldCommand, RunningCommand};
use crate::cli::record::recording::{Recording, Wanted};
use crate::cli::record::signals::Signals;
use crate::model::Profile;
use crate::model::rfc3339;
use crate::process::machine::{CpuTimes, Machine, ticks_per_second};

/// A process group that was asked to end is ended after this.
const END_LIMIT: Duration = Duration::from_secs(5);
/// The end of what a command has said that is shown if it failed.
const SHOWN_LINES: usize = 12;
/// Letters of each of these lines.
const SHOWN_LETTERS: usize = 400;

/// What is the same for all runs.
pub(super) struct Conditions<'a> {
    pub(super) machine: &'a Machine,
    pub(super) frequency_hz: u32,
    pub(super) timeout: Duration,
    pub(super) descriptor_limit: Rlimit,
    pub(super) signals: &'a Signals,
}

/// What became of a run.
pub(super) struct Measured {
    pub(super) profile: Profile,
    pub(super) facts: RunFacts,
    /// The end of what the command said, at most [`MAX_OUTPUT_BYTES`].
    pub(super) output: String,
}

impl Conditions<'_> {
    /// Runs `command` once; what it says goes into the file `output`. `name` is for messages.
    ///
    /// # Errors
    /// The command cannot be run, failed, or did not end in time; it cannot be recorded; we were told to end.
    pub(super) fn measure(
        &self,
        name: &str,
        command: &[String],
        output: &Path,
    ) -> Result<Measured, CommandError> {
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(output)
            .with_context(|| format!("cannot write what the command says to {}", output.display()))?;
        let program = command.first().map_or("", String::as_str);
        let held = HeldCommand::hold_apart(command, self.descriptor_limit, &file)
            .with_context(|| format!("{name}: cannot start {program:?}"))?;
        let wanted = Wanted { pids: &[], frequency_hz: self.frequency_hz, measures_bpf: false };
        let mut recording = Recording::open(&wanted, Some(held.pid()), self.signals, Instant::now())?;
        let before = (CpuTimes::so_far(), children_cpu_s(), own_cpu_s());
        recording.start()?;
        let (started, begin) = (SystemTime::now(), Instant::now());
        let running = held.release().map_err(|error| {
            CommandError::Usage(anyhow!(
                "{name}: cannot run {program:?}: {error}; give --base and --new a program that can be run here (there is no shell: \
                 what needs one is sh -c '…')"
            ))
        })?;
        let mut group = Group { running, is_over: false };
        recording.sample(self.timeout, Some(&mut group.running), self.signals)?;
        let wall = begin.elapsed();
        let status = group.running.try_wait().context("cannot wait for the command")?;
        if status.is_none() && self.signals.any() {
            return Err(CommandError::Failed(anyhow!("{name}: told to end; nothing was decided")));
        }
        let Some(status) = status else {
            return Err(CommandError::Failed(anyhow!(
                "{name}: {program:?} did not end within {} s: give more by --timeout, or a command that does its work and ends",
                self.timeout.as_secs()
            )));
        };
        group.end();
        let busy = self.busy(before);
        let output = end_of(&mut file, MAX_OUTPUT_BYTES).context("cannot read what the command said")?;
        if !status.success() {
            let how = status.code().map_or_else(
                || format!("was ended by signal {}", status.signal().unwrap_or_default()),
                |code| format!("ended with status {code}"),
            );
            let said = last_lines(&output);
            return Err(CommandError::Failed(anyhow!(
                "{name}: {program:?} {how}, so that it cannot be compared; it said last:\n{said}"
            )));
        }
        let recorded = recording.finish()?;
        let lost = recorded.samples.lost.values().sum();
        Ok(Measured {
            profile: recorded.profile,
            facts: RunFacts {
                schema_version: SCHEMA_VERSION,
                command: command.to_vec(),
                position: None,
                started: Some(rfc3339::to_millisecond(started)),
                wall_ns: u64::try_from(wall.as_nanos()).ok(),
                windows: None,
                whole_execution: true,
                work: None,
                machine: MachineFacts {
                    cpu_model: self.machine.cpu_model.clone(),
                    cpus: self.machine.cpus,
                    architecture: Some(self.machine.architecture.clone()),
                    kernel: Some(self.machine.kernel.clone()),
                    governor: self.machine.governor.clone(),
                    sampling_hz: Some(f64::from(self.frequency_hz)),
                    samples_taken: Some(recorded.samples.taken),
                    samples_lost: Some(lost),
                    steal_share: busy.map(|busy| busy.steal_share),
                    others_share: busy.map(|busy| busy.others_share),
                },
            },
            output,
        })
    }

    fn busy(&self, before: (Option<CpuTimes>, f64, f64)) -> Option<Busy> {
        let spent = CpuTimes::so_far()?.since(&before.0?);
        let all = spent.all();
        if all == 0 {
            return None;
        }
        let known_s = (children_cpu_s() - before.1) + (own_cpu_s() - before.2);
        let others = (spent.busy as f64 - known_s * ticks_per_second() as f64).max(0.0);
        Some(Busy { steal_share: spent.steal as f64 / all as f64, others_share: others / all as f64 })
    }
}

/// Shares of the CPUs' time that went elsewhere during a run.
#[derive(Clone, Copy)]
struct Busy {
    steal_share: f64,
    others_share: f64,
}

/// The command and what it has started. Whatever happens, none of it goes on after the run, where it would
/// disturb the next one.
struct Group {
    running: RunningCommand,
    is_over: bool,
}

impl Group {
    /// Ends what the command has left running.
    fn end(&mut self) {
        self.is_over = true;
        let Some(group) = i32::try_from(self.running.pid()).ok().and_then(Pid::from_raw) else { return };
        let has_ended = |running: &mut RunningCommand| matches!(running.try_wait(), Ok(Some(_)));
        // Numbers are given out in order: that of a group that has just ended is nobody else's yet.
        if !has_ended(&mut self.running) {
            let _ = kill_process_group(group, Signal::TERM);
            let _ = self.running.wait(END_LIMIT);
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.running.wait(END_LIMIT);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_over {
            self.end();
        }
    }
}

/// User and system time of children that have ended and were waited for, theirs included; seconds.
fn children_cpu_s() -> f64 {
    cpu_s(libc::RUSAGE_CHILDREN)
}

fn own_cpu_s() -> f64 {
    cpu_s(libc::RUSAGE_SELF)
}

fn cpu_s(of: libc::c_int) -> f64 {
    // SAFETY: zeroes are a value of the type.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes to a place that lives for as long as the call.
    if unsafe { libc::getrusage(of, &raw mut usage) } != 0 {
        return 0.0;
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The last `limit` bytes of a file, as text.
fn end_of(file: &mut File, limit: u64) -> std::io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a command has said last, as much of it as a reader can take in.
pub(super) fn last_lines(output: &str) -> String {
    let mut shown: Vec<String> = output.lines().rev().take(SHOWN_LINES).map(shortened).collect();
    shown.reverse();
    if shown.is_empty() { "(nothing)".to_owned() } else { shown.join("\n") }
}

/// A line may be megabytes of dots: its end is what was said last.
fn shortened(line: &str) -> String {
    let letters = line.chars().count();
    match letters.checked_sub(SHOWN_LETTERS) {
        None | Some(0) => line.to_owned(),
        Some(more) => std::iter::once('…').chain(line.chars().skip(more)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_shown_and_fills_no_log() {
        assert_eq!(last_lines(""), "(nothing)");
        let many: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let shown = last_lines(&many);
        assert!(shown.starts_with("line 88\n") && shown.ends_with("line 99"), "{shown}");
        let long = last_lines(&format!("{}the end", "ä".repeat(5_000_000)));
        assert!(long.starts_with("…ä") && long.ends_with("the end"));
        assert_eq!(long.chars().count(), SHOWN_LETTERS + 1);
    }
}
