//! A side compared with itself: is the noise of a kind that the tests take for change?
//!
//! Where the sides took turns, what drifts with time is in both alike, and the base is split as the sides were:
//! A B B A. Else drift would be taken for change, so it must be found here: the earlier half against the later.
//! The comparison errs, and refuses a sound base, with the chance [`Policy::self_test_level`] at most.

use super::comparison::SelfTest;
use super::decide::compare_figures;
use super::side::Runs;
use super::{Policy, Run, Side, Verdict};

/// Runs that each half needs.
pub(super) const LEAST_RUNS: usize = 3;

pub(super) fn of_side(side: &Side, policy: &Policy) -> SelfTest {
    let (one, other) = halves(side);
    let runs = one.runs.len().min(other.runs.len());
    if runs < LEAST_RUNS {
        return SelfTest::NotMade;
    }
    let policy = Policy { false_alarm_level: policy.self_test_level, ..*policy };
    let comparison = compare_figures(&one, &other, &policy, None);
    let alarms = comparison
        .lines
        .iter()
        .filter(|line| matches!(line.verdict, Verdict::Regressed | Verdict::Improved))
        .map(super::comparison::Line::described);
    let lines: Vec<String> = alarms.collect();
    if lines.is_empty() { SelfTest::Passed { runs } } else { SelfTest::Alarmed { lines } }
}

fn halves(side: &Side) -> (Runs<'_>, Runs<'_>) {
    let took_turns = side.runs.iter().all(|run| run.facts.position.is_some());
    let mut runs: Vec<&Run> = side.runs.iter().collect();
    if took_turns {
        runs.sort_by_key(|run| run.facts.position);
    }
    let half = runs.len() / 2;
    let of = |wanted: bool| Runs {
        label: &side.label,
        runs: runs
            .iter()
            .enumerate()
            .filter(|(at, _)| wanted == if took_turns { matches!(at % 4, 0 | 3) } else { *at < half })
            .map(|(_, run)| *run)
            .collect(),
    };
    (of(true), of(false))
}
