//! Windows whose truth is known, since they are drawn from it: functions of given shares, a fixed number of samples
//! a window, and a load that changes as slowly as is said.

use super::*;
use crate::check::stretches::{Stretch, Windows, stretch_count};
use crate::check::test_sides::side as of_stacks;
use crate::check::{Call, Comparison, FunctionCost, Level, Overall, RunFacts, Verdict, compare};
use crate::model::ValueType;

const FUNCTIONS: usize = 24;
const SAMPLES_A_WINDOW: usize = 200;

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed ^ (mixed >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Samples of each function in each window. What a function costs wanders by `amplitude` (a standard deviation of
/// its logarithm) and keeps the part `memory` of where it is from one window to the next; the third costs `effect`
/// more from the window `changes_at` on.
fn windows(
    count: usize,
    memory: f64,
    amplitude: f64,
    effect: f64,
    changes_at: usize,
    random: &mut Random,
) -> Vec<Vec<u64>> {
    let mut away: Vec<f64> = (0..FUNCTIONS).map(|_| random.normal()).collect();
    (0..count)
        .map(|window| {
            let mut sums = Vec::with_capacity(FUNCTIONS);
            let mut sum = 0.0;
            for (function, away) in away.iter_mut().enumerate() {
                *away = memory * *away + (1.0 - memory * memory).sqrt() * random.normal();
                let changed = if function == 2 && window >= changes_at { 1.0 + effect } else { 1.0 };
                sum += changed * (amplitude * *away).exp() / (function + 2) as f64;
                sums.push(sum);
            }
            let mut counts = vec![0; FUNCTIONS];
            for _ in 0..SAMPLES_A_WINDOW {
                let drawn = random.uniform() * sum;
                counts[sums.partition_point(|end| *end < drawn).min(FUNCTIONS - 1)] += 1;
            }
            counts
        })
        .collect()
}

fn as_windows(windows: &[Vec<u64>]) -> Windows {
    let of = |(number, counts): (u64, &Vec<u64>)| Stretch::of_window(number, number + 1, counts.iter().sum());
    Windows::new((0..).zip(windows).map(of).collect())
}

/// The windows as so many stretches.
fn side(label: &str, windows: &[Vec<u64>], count: usize) -> Side {
    let runs = as_windows(windows).stretches(count).into_iter().map(|stretch| {
        let inside = &windows[stretch.from_unix_ns as usize..stretch.to_unix_ns as usize];
        let sum = |function: usize| inside.iter().map(|counts| counts[function]).sum();
        run(&(0..FUNCTIONS).map(sum).collect::<Vec<u64>>(), stretch.windows)
    });
    Side { label: label.to_owned(), runs: runs.collect() }
}

fn run(counts: &[u64], windows: u64) -> Run {
    let function = |(index, &value): (usize, &u64)| FunctionCost {
        key: FunctionKey::new(&format!("function{index}"), "/usr/bin/app"),
        name: format!("function{index}").into(),
        module_path: "/usr/bin/app".into(),
        file: "".into(),
        line: 0,
        self_value: value,
        inclusive_value: value,
    };
    let total = counts.iter().sum();
    Run {
        name: String::new(),
        value_type: ValueType::new("samples", "count"),
        total,
        sample_count: Some(total),
        duration_ns: 0,
        facts: RunFacts { windows: Some(windows), ..RunFacts::default() },
        functions: counts.iter().enumerate().map(function).collect(),
        calls: Vec::new(),
        stacks: Vec::new(),
    }
}

/// None if nothing may be decided of sides that are such.
fn compared(base: &[Vec<u64>], new: &[Vec<u64>]) -> Result<Comparison, Refusal> {
    let count = stretch_count(&[as_windows(base), as_windows(new)]);
    let found =
        compare(&side("A", base, count), &side("B", new, count), &Policy::default()).expect("comparable");
    match found.refusals.iter().find(|refusal| !matches!(refusal, Refusal::TooNoisy { .. })) {
        Some(why) => Err(why.clone()),
        None => Ok(found),
    }
}

fn alarms(comparison: &Comparison) -> bool {
    comparison.lines.iter().any(|line| matches!(line.verdict, Verdict::Regressed | Verdict::Improved))
}

const REPETITIONS: usize = 100;
/// Any will do: the figures below hold for all of them, with margin.
const SEEDS: [u64; 3] = [7, 1_009, 20_261];

/// How many of so many comparisons of a load with itself alarm, how many do not come to anything, and how many would
/// alarm if each window were an independent run.
fn of_equal_loads(seed: u64, count: usize, memory: f64, amplitude: f64) -> (usize, usize, usize) {
    let mut random = Random(seed);
    let mut told = (0, 0, 0);
    for _ in 0..REPETITIONS {
        let [base, new] = [0, 1].map(|_| windows(count, memory, amplitude, 0.0, 0, &mut random));
        match compared(&base, &new) {
            Ok(comparison) => told.0 += usize::from(alarms(&comparison)),
            Err(_) => told.1 += 1,
        }
        let runs = [side("A", &base, count), side("B", &new, count)].map(as_executions);
        let by_window = compare(&runs[0], &runs[1], &Policy::default()).expect("comparable");
        told.2 += usize::from(alarms(&by_window));
    }
    told
}

fn as_executions(mut side: Side) -> Side {
    for run in &mut side.runs {
        run.facts.windows = None;
    }
    side
}

#[test]
fn equal_times_seldom_seem_to_differ_and_are_seldom_refused() {
    for seed in SEEDS {
        for (count, amplitude) in [(5, 0.0), (12, 0.2), (90, 0.2)] {
            let (alarmed, undecided, _) = of_equal_loads(seed, count, 0.0, amplitude);
            println!("{count} windows, independent: {alarmed} alarms, {undecided} undecided of 100");
            assert!(alarmed <= 9 && undecided <= 8, "{count}: {alarmed} {undecided}");
        }
    }
}

/// A load that wanders for a minute at a time: what is near is alike.
#[test]
fn a_slow_load_is_no_change_though_its_windows_say_so() {
    for seed in SEEDS {
        let (alarmed, undecided, by_window) = of_equal_loads(seed, 90, 0.8, 0.2);
        println!("{alarmed} alarms, {undecided} undecided; {by_window} alarms with each window a run");
        assert!(by_window >= 40, "the load is slow enough to be mistaken: {by_window}");
        assert!(alarmed <= 9, "{alarmed} alarms, {undecided} undecided");
    }
}

#[test]
fn a_change_of_one_function_is_found_between_two_times() {
    let mut random = Random(3);
    let mut found = 0;
    for _ in 0..40 {
        let base = windows(90, 0.3, 0.1, 0.0, 0, &mut random);
        let new = windows(90, 0.3, 0.1, 0.5, 0, &mut random);
        let Ok(comparison) = compared(&base, &new) else { continue };
        let changed = |line: &crate::check::Line| {
            line.level == Level::FunctionSelf
                && matches!(line.verdict, Verdict::Regressed | Verdict::Improved)
        };
        let names: Vec<&str> = comparison
            .lines
            .iter()
            .filter(|line| changed(line))
            .map(|line| line.subject.name.as_str())
            .collect();
        found += usize::from(names == ["function2"]);
    }
    assert!(found >= 36, "{found} of 40");
}

#[test]
fn what_cannot_be_told_says_why() {
    let mut random = Random(5);
    let calm = windows(40, 0.0, 0.05, 0.0, 0, &mut random);
    let said = |base: &[Vec<u64>], new: &[Vec<u64>]| compared(base, new).err();
    assert_eq!(said(&calm, &calm), None);
    // Twelve windows of three samples: even five stretches have too few.
    let sparse: Vec<Vec<u64>> = calm[..12]
        .iter()
        .map(|_| {
            let mut counts = vec![0; FUNCTIONS];
            counts[0] = 3;
            counts
        })
        .collect();
    let too_few = Refusal::TooFewSamples { side: "A".to_owned(), samples: 36, least: 150 };
    assert_eq!(said(&sparse, &calm), Some(too_few));
    // Something came in the middle of a side.
    let torn = windows(40, 0.0, 0.05, 3.0, 20, &mut random);
    for (base, new, label) in [(&torn, &calm, "A"), (&calm, &torn, "B")] {
        match said(base, new) {
            Some(Refusal::ChangedMidway { side, lines }) => {
                assert!(side == label && lines.iter().any(|line| line == "function2"), "{side} {lines:?}");
            }
            Some(Refusal::RunsResembleNeighbours { side }) => assert_eq!(side, label),
            other => panic!("{other:?}"),
        }
    }
    // What drifts all the time, of too few windows to be put together.
    let drifting: Vec<Vec<u64>> = (0..5)
        .map(|number| {
            let mut counts = vec![50; FUNCTIONS];
            counts[1] += 10 * number;
            counts[2] += 40 * number;
            counts
        })
        .collect();
    assert_eq!(
        said(&calm, &drifting),
        Some(Refusal::RunsResembleNeighbours { side: "B".to_owned() }),
        "{drifting:?}"
    );
}

#[test]
fn a_side_of_executions_stays_as_it_is_whatever_the_other_is_of() {
    let mut random = Random(11);
    let slow = windows(90, 0.9, 0.3, 0.0, 0, &mut random);
    let executions = as_executions(side("A", &slow, 20));
    let both = apart(&executions, &executions, &Policy::default());
    assert!(both.refusals.is_empty() && both.base.runs.len() == 20 && both.new.runs.len() == 20);
    let one = apart(&executions, &side("B", &slow, 20), &Policy::default()).new.runs.len();
    assert!(one < 20, "{one}");
    let one = apart(&executions, &side("B", &slow, 20), &Policy::default()).base.runs.len();
    assert_eq!(one, 20);
}

#[test]
fn what_a_build_sends_is_not_made_less_of_by_being_kept_in_windows() {
    let [mut base, mut new] = [(1, 1000.0), (2, 1400.0)].map(|(seed, parse)| {
        of_stacks("a server", seed, &[("main;parse", parse), ("main;hash", 2000.0), ("main;sort", 1500.0)])
    });
    for run in base.runs.iter_mut().chain(&mut new.runs) {
        run.facts.windows = Some(1);
    }
    let found = compare(&base, &new, &Policy::default()).expect("comparable");
    assert_eq!((found.overall, &found.refusals), (Overall::Regressed, &Vec::new()));
}

#[test]
fn nothing_is_lost_when_runs_are_put_together() {
    let mut whole = of_stacks(
        "a server",
        3,
        &[("main;parse", 300.0), ("main;hash", 200.0), ("main;hash;copy@libc.so", 50.0)],
    );
    whole.runs.truncate(5);
    for run in &mut whole.runs {
        run.facts.windows = Some(2);
    }
    // A function that the first half never called.
    whole.runs[0].functions.truncate(2);
    whole.runs[0].calls.retain(|call| call.caller < 2 && call.callee < 2);
    let pairs = in_pairs(&whole.runs);
    assert_eq!(pairs.iter().map(|run| run.facts.windows).collect::<Vec<_>>(), [Some(4), Some(6)]);
    let sum = |runs: &[Run], of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
    for of in [
        (|run| run.total) as fn(&Run) -> u64,
        |run| run.sample_count.unwrap(),
        |run| run.functions.iter().map(|function| function.self_value).sum(),
        |run| run.functions.iter().map(|function| function.inclusive_value).sum(),
        |run| run.calls.iter().map(|call| call.value).sum(),
        |run| {
            let names = |call: &Call| [call.caller, call.callee].map(|at| &*run.functions[at as usize].name);
            run.calls.iter().filter(|call| names(call) == ["hash", "copy"]).map(|call| call.value).sum()
        },
    ] {
        assert_eq!(sum(&pairs, of), sum(&whole.runs, of));
        assert!(sum(&pairs, of) > 0);
    }
}
