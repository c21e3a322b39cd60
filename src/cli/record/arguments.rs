//! The arguments of `record`, and what can be known to be wrong with them before anything is begun.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;

use super::CommandError;
use crate::export;

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
    pub(super) pids: Vec<u32>,
    /// How long to record: 500ms, 10s, 2m, 1h
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub(super) duration: Duration,
    /// Samples a second on each CPU
    #[arg(long, default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=9999))]
    pub(super) frequency: u32,
    /// What to record
    #[arg(long, value_enum, default_value_t = Kind::Cpu)]
    pub(super) kind: Kind,
    /// Print what was taken, written and lost as one JSON object: the last line of standard error, or FILE
    #[arg(long, value_name = "json[=FILE]")]
    pub(super) stats: Option<StatsTarget>,
    /// Where to write the profile
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Record this command and what it starts
    #[arg(last = true, value_name = "CMD", conflicts_with = "pids")]
    pub(super) command: Vec<String>,
}

/// What a recording measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Time on the CPU
    Cpu,
}

#[derive(Debug, Clone)]
pub(super) enum StatsTarget {
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

pub(in crate::cli) fn parse_duration(text: &str) -> Result<Duration, String> {
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

impl Args {
    /// Refuses what cannot be, before anything is recorded or written.
    ///
    /// # Errors
    /// [`CommandError::Usage`].
    pub(super) fn check(&self) -> Result<(), CommandError> {
        let usage = |error: export::ExportError| CommandError::Usage(error.into());
        export::Format::from_path(&self.output).map_err(usage)?;
        export::check_writable(&self.output).map_err(usage)?;
        if let Some(StatsTarget::File(file)) = &self.stats {
            export::check_writable(file).map_err(usage)?;
        }
        self.pids.iter().try_for_each(|&pid| check_is_process(pid).map_err(CommandError::Usage))
    }
}

/// A thread has a folder in `/proc` like a process, though it is not listed there; the kernel's samples
/// are chosen by process.
fn check_is_process(pid: u32) -> anyhow::Result<()> {
    if !Path::new(&format!("/proc/{pid}")).exists() {
        return Err(anyhow!("there is no process {pid}"));
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    match thread_group(&status) {
        Some(process) if process != pid => {
            let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            let name = name.trim();
            Err(anyhow!("{pid} is a thread of process {process} ({name}): record that by --pid {process}"))
        }
        _ => Ok(()),
    }
}

/// `Tgid` of `/proc/PID/status`.
fn thread_group(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
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
    fn a_thread_is_told_from_its_process() {
        assert!(check_is_process(std::process::id()).is_ok());
        let of_thread = std::thread::spawn(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            (thread, check_is_process(thread))
        });
        let (thread, refused) = of_thread.join().expect("it ends");
        let message = refused.expect_err("it is no process").to_string();
        let expected = format!("{thread} is a thread of process {}", std::process::id());
        assert!(message.starts_with(&expected), "{message}");
        assert!(message.ends_with(&format!("--pid {}", std::process::id())), "{message}");
    }

    #[test]
    fn a_status_without_a_thread_group_says_nothing() {
        assert_eq!(thread_group("Name:\tTgid: 7\nTgid:\t42\nPid:\t43\n"), Some(42));
        assert_eq!(thread_group("Name:\tx\n"), None);
        assert_eq!(thread_group("Tgid:\tmany\n"), None);
    }
}
