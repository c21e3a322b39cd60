//! `spanflame check run`: both revisions run here, in turn, and a verdict.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use regex::Regex;

use super::judging::Judging;
use super::measuring::{AGAIN, Plan, WorkSource, check_keep, measure, parse_pattern};
use super::undecided;
use crate::check::{Overall, compare, confirm};
use crate::cli::CommandError;
use crate::cli::descriptors::raise_descriptor_limit;
use crate::cli::record::parse_duration;
use crate::cli::record::signals::Signals;

/// Run two revisions of a program in turn, and say whether the new one is slower, and where.
///
/// Each command is recorded from its start to its end, with all that it starts. It should do a fixed piece of work, take
/// some seconds, and end with status 0; or say how much it has done (--work-from). One run a side comes first and does not
/// count. What seems slower is measured once more before it counts. What the commands say goes to files.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spanflame check run --base base/build/bench --new build/bench
  spanflame check run --base 'old/server --once' --new 'new/server --once' --work-from '([0-9]+) requests'
  spanflame check run --base ./old --new ./new --report markdown=check.md --report sarif=check.sarif --keep runs

Exit codes: 0 not slower, 1 slower (or as --fail-on says), 2 wrong usage, 3 not decided, 4 not permitted")]
pub struct Args {
    /// Command of the base, split into words as a shell does, and run without one
    #[arg(long, value_name = "CMD")]
    base: String,
    /// Command of what is new
    #[arg(long, value_name = "CMD")]
    new: String,
    /// Runs of each that count
    #[arg(long, default_value_t = 10, value_parser = parse_runs)]
    runs: u32,
    /// Runs of each before those
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    warm_up: u32,
    /// Samples a second on each CPU
    #[arg(long, default_value_t = 997, value_parser = clap::value_parser!(u32).range(1..=9999))]
    frequency: u32,
    /// A run that takes longer is ended, and nothing is decided
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    timeout: Duration,
    /// Work that each run does, if the two do not do the same
    #[arg(long, value_name = "N", conflicts_with = "work_from", value_parser = parse_work)]
    work: Option<f64>,
    /// Finds the work that a run has done in what it says: the pattern's first group, where it matches last
    #[arg(long, value_name = "REGEX", value_parser = parse_pattern)]
    work_from: Option<Regex>,
    /// Of what the work is, for the reader
    #[arg(long, value_name = "NAME", default_value = "unit of work")]
    work_unit: String,
    /// Keep each run's profile, facts and output in DIR, for `check compare`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    judging: Judging,
}

fn parse_runs(text: &str) -> Result<u32, String> {
    const RUNS: std::ops::RangeInclusive<u32> = 3..=1000;
    let runs: u32 = text.parse().map_err(|_| format!("{text:?} is no whole number"))?;
    if runs < *RUNS.start() {
        return Err("noise is what differs between runs of one side: at least 3, better 10".to_owned());
    }
    if RUNS.contains(&runs) { Ok(runs) } else { Err(format!("{} at most", RUNS.end())) }
}

fn parse_work(text: &str) -> Result<f64, String> {
    let work = text.parse().ok().filter(|work: &f64| work.is_finite() && *work > 0.0);
    work.ok_or_else(|| format!("{text:?} is no number above zero"))
}

/// Splits a command into words.
fn words(option: &str, command: &str) -> Result<Vec<String>, CommandError> {
    let words = shlex::split(command)
        .ok_or_else(|| CommandError::Usage(anyhow!("{option} {command:?} has a quote that is not closed")))?;
    if words.is_empty() {
        return Err(CommandError::Usage(anyhow!("{option} is empty: give a command")));
    }
    Ok(words)
}

/// What a shell would do something with, and a program gets as a word: most likely not what was meant.
fn shell_operator(words: &[String]) -> Option<&str> {
    const OPERATORS: [&str; 10] = ["|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1"];
    words.iter().map(String::as_str).find(|word| OPERATORS.contains(word))
}

/// Measures, judges and reports.
///
/// # Errors
/// [`CommandError`], by INTERFACE.md's exit codes.
pub fn run(args: &Args) -> Result<(), CommandError> {
    args.judging.check_usage()?;
    if let Some(folder) = &args.keep {
        check_keep(folder)?;
    }
    let (base, new) = (words("--base", &args.base)?, words("--new", &args.new)?);
    for (option, words) in [("--base", &base), ("--new", &new)] {
        if let Some(operator) = shell_operator(words) {
            tracing::warn!(
                "{option}: {operator:?} is given to the program as a word, since there is no shell; what needs one is sh -c '…'"
            );
        }
    }
    let plan = Plan {
        base,
        new,
        runs: args.runs,
        warm_up: args.warm_up,
        frequency_hz: args.frequency,
        timeout: args.timeout,
        work: args.work.map(WorkSource::Fixed).or_else(|| args.work_from.clone().map(WorkSource::Output)),
        work_unit: args.work_unit.clone(),
        value: args.judging.wanted().value.map(str::to_owned),
        stacks: args.judging.wanted().stacks,
        keep: args.keep.clone(),
    };
    let descriptor_limit = raise_descriptor_limit();
    let signals = Signals::register().context("cannot handle signals")?;
    let policy = args.judging.policy();
    let measured = |part| {
        let (base, new) = measure(&plan, part, &signals, descriptor_limit).map_err(undecided)?;
        let comparison =
            compare(&base, &new, &policy).map_err(|error| CommandError::Undecided(error.into()))?;
        Ok::<_, CommandError>((comparison, base, new))
    };
    let (mut comparison, base, new) = measured(None)?;
    if comparison.overall == Overall::Regressed {
        tracing::info!("something seems slower: measuring once more");
        let (again, ..) = measured(Some(AGAIN))?;
        comparison = confirm(comparison, again);
    }
    args.judging.report(comparison, &base, &new).map_err(undecided)
}
