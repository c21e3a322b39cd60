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
///
/// Or it is what a server has kept: http(s)://HOST:PORT/? and any selector of the server's, such as
/// service=NAME&from=-2h&to=-1h, or `git_sha=REVISION`, which is looked for in all that is kept. Its windows make up to 20
/// runs, 5 at least. A server that wants a token gets the one of `SPANFLAME_CHECK_TOKEN`, or of `http://x:TOKEN@HOST`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spanflame check compare --base runs/base --new runs/new
  spanflame check compare --base main-*.pb.gz --new branch-*.pb.gz --report markdown=check.md
  spanflame check compare --base a --new b --report json=- | jq .verdict
  spanflame check compare --base 'http://host:19090/?service=shop&from=-2h&to=-1h' --new 'http://host:19090/?service=shop&from=-30m'
  spanflame check compare --base 'http://host:19090/?service=shop&git_sha=1a2b3c4' --new runs/new

Exit codes: 0 not slower, 1 slower, 2 wrong usage, 3 not decided (--fail-on regression: 0)")]
pub struct Args {
    /// The base: a folder, profiles, or the URL of a server with a selector
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
