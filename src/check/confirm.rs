//! An alarm counts if it is raised twice.

use super::comparison::{Comparison, Line, Refusal};
use super::{Verdict, overall};

/// The first comparison, in which a line has changed only if a second one, of runs that were made anew, says the same
/// of it. A line that the second does not confirm is inconclusive, with the second's figures and sensitivity: those
/// of the first were looked at because they were extreme. Why the second could not have decided is said too.
#[must_use]
pub fn confirm(mut first: Comparison, second: Comparison) -> Comparison {
    for line in &mut first.lines {
        if !matches!(line.verdict, Verdict::Regressed | Verdict::Improved) {
            continue;
        }
        let again = second.lines.iter().find(|other| is_same(line, other));
        match again {
            Some(again) if again.verdict == line.verdict => {}
            Some(again) => {
                let sensitivity = again.sensitivity;
                *line = Line {
                    verdict: Verdict::Inconclusive(sensitivity),
                    subject: line.subject.clone(),
                    allowed: line.allowed.take(),
                    ..again.clone()
                };
            }
            // The second has less than is judged of it.
            None => line.verdict = Verdict::Inconclusive(line.sensitivity),
        }
    }
    // Noise is looked at anew.
    first.refusals.retain(|refusal| !matches!(refusal, Refusal::TooNoisy { .. }));
    for refusal in second.refusals {
        if !matches!(refusal, Refusal::TooNoisy { .. }) && !first.refusals.contains(&refusal) {
            first.refusals.push(refusal);
        }
    }
    first.notes.push("what had changed was measured a second time".to_owned());
    overall::decide(&mut first);
    first
}

/// Whether the lines are about the same thing.
pub(super) fn is_same(one: &Line, other: &Line) -> bool {
    one.level == other.level
        && match (&one.subject.key, &other.subject.key) {
            (Some(one), Some(other)) => one == other,
            (None, None) => one.subject.name == other.subject.name,
            _ => false,
        }
}
