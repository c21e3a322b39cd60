//! `spanflame check compare`: sides that were recorded earlier.

use super::judging::Judging;
use super::sides::{SideSource, read};
use super::undecided;
use crate::cli::CommandError;

/// Say whether one set of recordings is slower than another, and where.
///
/// A side is a folder that `check run --keep` wrote, or any folder of profiles; or profiles (pprof, folded stacks, OTLP,
/// speedscope), the option given once for each or with several after it. Each is one run. At least 3 a side are needed,
/// 10 are advised.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spanflame check compare --base runs/base --new runs/new
  spanflame check compare --base main-*.pb.gz --new branch-*.pb.gz --report markdown=check.md
  spanflame check compare --base a --new b --report json=- | jq .verdict

Exit codes: 0 not slower, 1 slower, 2 wrong usage, 3 not decided (--fail-on regression: 0)")]
pub struct Args {
    /// The base: a folder, or profiles
    #[arg(long, value_name = "SIDE", required = true, num_args = 1..)]
    base: Vec<SideSource>,

    /// What is compared with it
    #[arg(long, value_name = "SIDE", required = true, num_args = 1..)]
    new: Vec<SideSource>,

    #[command(flatten)]
    judging: Judging,
}

/// Reads, judges and reports.
///
/// # Errors
/// [`CommandError`], by INTERFACE.md's exit codes.
pub(super) fn run(args: &Args) -> Result<(), CommandError> {
    args.judging.check_usage()?;
    let (base, new) = read(&args.base, &args.new, args.judging.wanted()).map_err(undecided)?;
    args.judging.judge_and_report(&base, &new).map_err(undecided)
}
