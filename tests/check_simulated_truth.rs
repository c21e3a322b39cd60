//! What `spanflame check` says of runs whose truth is known, since they are drawn from it: the acceptance lines of
//! the statistics, over fewer repetitions than `make bench` takes and the same ones each time.

#[allow(dead_code, reason = "shared with the bench, which also judges the rules of others")]
#[path = "../benches/budgets/simulated_truth.rs"]
mod simulated_truth;

use simulated_truth::{Program, Random};
use spanflame::check::{Comparison, Level, Overall, Policy, SelfTest, Verdict, compare};

const RUNS: usize = 10;

fn comparisons(effect: f64, samples: usize, work: bool, repetitions: usize) -> Vec<Comparison> {
    let program = Program::zipf();
    let changed = program.changed(effect);
    let mut random = Random(11);
    (0..repetitions)
        .map(|_| {
            let base = program.side(RUNS, samples, work, &mut random);
            let new = changed.side(RUNS, samples, work, &mut random);
            compare(&base, &new, &Policy::default()).expect("they can be compared")
        })
        .collect()
}

fn part(comparisons: &[Comparison], holds: impl Fn(&Comparison) -> bool) -> f64 {
    comparisons.iter().filter(|comparison| holds(comparison)).count() as f64 / comparisons.len() as f64
}

fn has_alarm(comparison: &Comparison) -> bool {
    matches!(comparison.overall, Overall::Regressed | Overall::Improved)
}

/// The function that changed is named, and the build fails for it.
fn is_found(comparison: &Comparison) -> bool {
    let changing = format!("function{}", Program::zipf().changing);
    comparison.overall == Overall::Regressed
        && comparison.lines.iter().any(|line| {
            line.level == Level::FunctionSelf
                && line.subject.name == changing
                && line.verdict == Verdict::Regressed
        })
}

#[test]
fn equal_programs_seldom_seem_to_differ() {
    for work in [false, true] {
        let comparisons = comparisons(0.0, 3_000, work, 60);
        // 5 % and twice the standard error of sixty repetitions.
        let alarms = part(&comparisons, has_alarm);
        assert!(alarms <= 0.05 + 2.0 * (0.05_f64 * 0.95 / 60.0).sqrt(), "work {work}: {alarms}");
        let refused = part(&comparisons, |one| matches!(one.self_test, SelfTest::Alarmed { .. }));
        assert!(refused <= 0.05, "work {work}: {refused}");
    }
}

#[test]
fn a_change_of_one_function_is_found_and_named() {
    for work in [false, true] {
        let found = part(&comparisons(0.5, 3_000, work, 30), is_found);
        assert!(found >= 0.95 - 2.0 * (0.05_f64 * 0.95 / 30.0).sqrt(), "+50 %, work {work}: {found}");
        let found = part(&comparisons(0.2, 10_000, work, 30), is_found);
        assert!(found >= 0.85 - 2.0 * (0.85_f64 * 0.15 / 30.0).sqrt(), "+20 %, work {work}: {found}");
    }
}

#[test]
fn what_one_function_saves_is_not_held_against_the_others() {
    // Of shares, half of a 2.7 % function less is 1.4 % more of all others: too little to matter here, so the
    // greatest function of all is taken, of 15 %: its saving raises every other share by 8 %.
    let mut program = Program::zipf();
    program.changing = 0;
    let changed = program.changed(-0.5);
    let mut random = Random(12);
    let mut blamed = 0;
    for _ in 0..20 {
        let base = program.side(RUNS, 30_000, false, &mut random);
        let new = changed.side(RUNS, 30_000, false, &mut random);
        let comparison = compare(&base, &new, &Policy::default()).expect("they can be compared");
        let improved = |line: &spanflame::check::Line| {
            line.subject.name == "function0" && line.verdict == Verdict::Improved
        };
        assert!(comparison.lines.iter().any(improved), "{:#?}", comparison.lines.first());
        blamed += usize::from(comparison.overall == Overall::Regressed);
    }
    assert!(blamed <= 2, "{blamed} of 20 call others regressed");
}
