//! How often `check` is right, of runs whose truth is known; beside it, the rules of other tools on the same runs.

use spanflame::check::{Comparison, Level, Overall, Policy, SelfTest, Verdict, compare};

use crate::Context;
use crate::report::{Bound, Figure, Section};
use crate::simulated_truth::{DESIGN_EFFECT, FUNCTIONS, OTHER_RULES, OTHER_SAMPLES, Program, Random, shares};

const RUNS: usize = 10;

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    // Of 500, chance alone makes 5 % as much as 7, and 86 % as little as 83.
    let repetitions = if context.quick { 100 } else { 2_000 };
    let mut section = Section::new(
        "Verdicts on simulated runs",
        &format!(
            "{FUNCTIONS} functions, Zipf, design effect {DESIGN_EFFECT}, {RUNS} runs a side, {repetitions} comparisons a figure; one \
             function of 2.7 % changes; shares: windows of a fixed number of samples; work: cost per unit of work"
        ),
    );
    for work in [false, true] {
        let basis = if work { "work" } else { "shares" };
        for samples in [3_000, 10_000] {
            let equal = comparisons(0.0, samples, work, repetitions);
            section.add(
                percent(format!("A/A, {basis}, {samples} samples a run: any alarm"), &equal, |one| {
                    matches!(one.overall, Overall::Regressed | Overall::Improved)
                })
                .bounded(Bound::AtMost(5.0)),
            );
            section.add(percent(
                format!("A/A, {basis}, {samples} samples a run: refused by the self-test"),
                &equal,
                |one| matches!(one.self_test, SelfTest::Alarmed { .. }),
            ));
        }
        for (effect, samples, least) in [(0.2, 10_000, 85.0), (0.5, 3_000, 95.0)] {
            let what = format!("+{:.0} %, {basis}, {samples} samples a run: found and named", effect * 100.0);
            let found = percent(what, &comparisons(effect, samples, work, repetitions), is_found);
            section.add(found.bounded(Bound::AtLeast(least)));
        }
    }
    for (name, rule) in OTHER_RULES {
        for effect in [0.0, 0.2, 0.5] {
            let program = Program::zipf();
            let changed = program.changed(effect);
            let mut random = Random(23);
            let said = (0..repetitions).filter(|_| {
                let base = shares(&program.side(RUNS, OTHER_SAMPLES, false, &mut random));
                let new = shares(&changed.side(RUNS, OTHER_SAMPLES, false, &mut random));
                let alarms = rule(&base, &new);
                if effect == 0.0 { !alarms.is_empty() } else { alarms.contains(&program.changing) }
            });
            let part = said.count() as f64 / repetitions as f64 * 100.0;
            let what = if effect == 0.0 {
                "A/A alarms".to_owned()
            } else {
                format!("finds +{:.0} %", effect * 100.0)
            };
            section.add(Figure::new(
                format!("others: {name}, {OTHER_SAMPLES} samples: {what}"),
                "%",
                vec![part],
            ));
        }
    }
    section
}

/// Each repetition has its own seed, so that they are the same on any number of processors.
fn comparisons(effect: f64, samples: usize, work: bool, repetitions: usize) -> Vec<Comparison> {
    let program = Program::zipf();
    let changed = program.changed(effect);
    let one = |repetition: usize| {
        let mut random = Random(((samples as u64) << 32) + repetition as u64);
        let base = program.side(RUNS, samples, work, &mut random);
        let new = changed.side(RUNS, samples, work, &mut random);
        compare(&base, &new, &Policy::default()).ok()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|own| {
                scope.spawn(move || (own..repetitions).step_by(threads).filter_map(one).collect::<Vec<_>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a comparison does not panic")).collect()
    })
}

fn percent(what: String, comparisons: &[Comparison], holds: fn(&Comparison) -> bool) -> Figure {
    let count = comparisons.iter().filter(|comparison| holds(comparison)).count();
    Figure::new(what, "%", vec![100.0 * count as f64 / comparisons.len() as f64])
}

fn is_found(comparison: &Comparison) -> bool {
    let changing = format!("function{}", Program::zipf().changing);
    comparison.overall == Overall::Regressed
        && comparison.lines.iter().any(|line| {
            line.level == Level::FunctionSelf
                && line.subject.name == changing
                && line.verdict == Verdict::Regressed
        })
}
