//! The measuring half of `check run`: runs the base and what is new in turn, and makes a profile of each run.
//!
//! Comes in: two commands and how often they run. Goes out: two [`Side`]s, and what `--keep` keeps. Never: a verdict.
//!
//! The order is A B B A A B B A …: whatever drifts slowly (temperature, a neighbour) falls on both sides alike. One run
//! a side before that does not count: it fills caches.

mod kept;
mod one_run;
mod order;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Rlimit;

use self::kept::Kept;
pub(super) use self::kept::{AGAIN, check_keep};
use self::one_run::Conditions;
use self::order::{Turn, Which, turns};
pub(super) use self::work::{WorkSource, parse_pattern};
use crate::check::{Run, Side, Wanted};
use crate::cli::CommandError;
use crate::cli::record::signals::Signals;
use crate::process::machine::Machine;

/// What is measured, and how.
pub(super) struct Plan {
    /// Arguments of the base's command.
    pub(super) base: Vec<String>,
    /// Of the new one.
    pub(super) new: Vec<String>,
    /// Runs a side that count.
    pub(super) runs: u32,
    /// Runs a side before them.
    pub(super) warm_up: u32,
    pub(super) frequency_hz: u32,
    /// A run that takes longer is ended, and nothing is decided.
    pub(super) timeout: Duration,
    pub(super) work: Option<WorkSource>,
    /// Of what the work is.
    pub(super) work_unit: String,
    /// The value that is compared, if not the profile's own choice.
    pub(super) value: Option<String>,
    /// Whether to keep what a picture needs.
    pub(super) stacks: bool,
    /// Where runs are kept.
    pub(super) keep: Option<PathBuf>,
}

/// Measures both sides. `part` is a folder's name below `--keep`'s, for measuring again.
///
/// # Errors
/// [`CommandError`]; what has been kept so far stays.
pub(super) fn measure(
    plan: &Plan,
    part: Option<&str>,
    signals: &Signals,
    descriptor_limit: Rlimit,
) -> Result<(Side, Side), CommandError> {
    let machine = Machine::this();
    let conditions = Conditions {
        machine: &machine,
        frequency_hz: plan.frequency_hz,
        timeout: plan.timeout,
        descriptor_limit,
        signals,
    };
    let kept = Kept::open(plan.keep.as_deref(), part)?;
    let mut base = Side { label: "base".to_owned(), runs: Vec::new() };
    let mut new = Side { label: "new".to_owned(), runs: Vec::new() };
    for Turn { which, number, position } in turns(plan.warm_up, plan.runs) {
        let (side, command) = match which {
            Which::Base => (&mut base, &plan.base),
            Which::New => (&mut new, &plan.new),
        };
        let name = match number {
            Some(number) => format!("{} run {number} of {}", side.label, plan.runs),
            None => format!("{} run that does not count", side.label),
        };
        tracing::info!("{name}");
        let mut measured = conditions.measure(&name, command, &kept.output(which, number))?;
        if let Some(source) = &plan.work {
            let work = source.of(&measured.output, &plan.work_unit).with_context(|| name.clone())?;
            measured.facts.work = Some(work);
        }
        let Some(number) = number else { continue };
        measured.facts.position = Some(position);
        kept.keep(which, number, &measured.profile, &measured.facts)?;
        let wanted = Wanted { value: plan.value.as_deref(), stacks: plan.stacks };
        let run = Run::from_profile(&measured.profile, &name, wanted, measured.facts);
        side.runs.push(run.context("cannot be compared")?);
    }
    Ok((base, new))
}
