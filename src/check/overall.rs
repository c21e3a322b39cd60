//! What is said of the whole, from what is said of the lines.

use super::comparison::{Comparison, Line, Refusal};
use super::{Overall, Verdict};

/// Sets [`Comparison::overall`], and says why where it cannot be decided.
///
/// `unchanged` is a claim like any other: each line must be shown to have added less than the margin **to the
/// whole**. A small function need not be known exactly for that: of 2 % of the program, give or take a quarter,
/// no more than half a percent can come.
pub(super) fn decide(comparison: &mut Comparison) {
    let refused = !comparison.refusals.is_empty();
    let any = |wanted: fn(&Verdict) -> bool| {
        comparison.lines.iter().any(|line| line.allowed.is_none() && wanted(&line.verdict))
    };
    comparison.overall = if refused {
        Overall::Inconclusive
    } else if any(|verdict| *verdict == Verdict::Regressed) {
        Overall::Regressed
    } else {
        let improved = any(|verdict| *verdict == Verdict::Improved);
        let margin = comparison.policy.equivalence_margin;
        let unclear: Vec<&Line> = comparison
            .lines
            .iter()
            .filter_map(to_be_known)
            .filter(|line| !line.adds_no_more_than(margin))
            .collect();
        if unclear.is_empty() {
            if improved { Overall::Improved } else { Overall::Unchanged }
        } else {
            let runs_needed = unclear.iter().filter_map(|line| line.runs_for_margin(margin)).max();
            let lines = unclear.iter().map(|line| line.described()).collect();
            comparison.refusals.push(Refusal::TooNoisy { lines, runs_needed });
            Overall::Inconclusive
        }
    };
}

/// What has to be known of a line: of one that is allowed because of others, what is left when these are taken out.
fn to_be_known(line: &Line) -> Option<&Line> {
    match &line.allowed {
        None => Some(line),
        Some(allowed) => allowed.rest.as_deref(),
    }
}
