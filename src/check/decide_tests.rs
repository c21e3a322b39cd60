use super::test_sides::{Stack, side};
use super::*;
use crate::model::ValueType;

const PROGRAM: &[Stack<'_>] = &[
    ("main", 500.0),
    ("main;read;parse", 3_000.0),
    ("main;read;copy@libc.so.6", 2_000.0),
    ("main;work;hash", 2_500.0),
    ("main;work;sort", 1_500.0),
    ("main;work;sort;less", 1_000.0),
    ("main;write;format", 2_000.0),
    ("main;write;send@libc.so.6", 1_500.0),
];

fn changed(what: impl Fn(&str, f64) -> (String, f64)) -> Vec<(String, f64)> {
    PROGRAM.iter().map(|(stack, cost)| what(stack, *cost)).collect()
}

fn against(program: &[(String, f64)]) -> Comparison {
    let stacks: Vec<Stack<'_>> = program.iter().map(|(stack, cost)| (stack.as_str(), *cost)).collect();
    compare(&side("base", 1, PROGRAM), &side("new", 2, &stacks), &Policy::default()).expect("comparable")
}

fn line<'a>(comparison: &'a Comparison, level: Level, name: &str) -> &'a Line {
    let found = comparison.lines.iter().find(|line| line.level == level && line.subject.name == name);
    found.unwrap_or_else(|| panic!("no line {name}: {:#?}", comparison.lines))
}

#[test]
fn the_same_program_is_unchanged() {
    let comparison = against(&changed(|stack, cost| (stack.to_owned(), cost)));
    assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
    assert_eq!(comparison.basis, Basis::PerRun);
    assert!(matches!(comparison.self_test, SelfTest::Passed { runs: 5 }));
    assert_eq!(line(&comparison, Level::Total, "").verdict, Verdict::Unchanged);
}

#[test]
fn the_function_that_got_slower_is_named_with_its_place_and_its_interval_holds_the_truth() {
    let comparison = against(&changed(|stack, cost| {
        (stack.to_owned(), if stack.ends_with("parse") { cost * 1.2 } else { cost })
    }));
    assert_eq!(comparison.overall, Overall::Regressed, "{comparison:#?}");
    let parse = line(&comparison, Level::FunctionSelf, "parse");
    assert_eq!(parse.verdict, Verdict::Regressed);
    assert_eq!((parse.subject.file.as_str(), parse.subject.line), ("src/parse.rs", 7));
    let interval = parse.interval.expect("both sides have it");
    assert!(interval.low < 0.2 && 0.2 < interval.high && interval.high - interval.low < 0.1, "{interval:?}");
    let own = comparison.lines.iter().filter(|line| line.level == Level::FunctionSelf);
    let blamed: Vec<&str> = own
        .filter(|line| line.verdict == Verdict::Regressed)
        .map(|line| line.subject.name.as_str())
        .collect();
    assert_eq!(blamed, ["parse"]);
}

#[test]
fn a_renamed_function_has_moved_and_nothing_regressed() {
    let comparison = against(&changed(|stack, cost| (stack.replace("hash", "digest_blocks"), cost)));
    assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
    let from = FunctionKey::new("hash", "app");
    assert_eq!(line(&comparison, Level::FunctionSelf, "digest_blocks").verdict, Verdict::Moved { from });
    assert!(comparison.lines.iter().all(|line| line.subject.name != "hash"), "it is not reported as gone");
}

#[test]
fn a_function_that_is_inlined_on_one_side_only_is_not_gone_and_its_caller_not_slower() {
    for inlined_in_new in [true, false] {
        let flat = changed(|stack, cost| (stack.replace(";less", ""), cost));
        let flat: Vec<Stack<'_>> = flat.iter().map(|(stack, cost)| (stack.as_str(), *cost)).collect();
        let (base, new) =
            if inlined_in_new { (PROGRAM, flat.as_slice()) } else { (flat.as_slice(), PROGRAM) };
        let comparison =
            compare(&side("base", 1, base), &side("new", 2, new), &Policy::default()).expect("comparable");
        assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
        let sort = line(&comparison, Level::FunctionSelf, "sort");
        let functions = vec![FunctionKey::new("less", "app")];
        assert_eq!(sort.origin, Some(Origin::Inlined { functions }));
    }
}

#[test]
fn what_is_new_and_costs_much_is_a_regression_and_has_no_percentage() {
    let mut program = changed(|stack, cost| (stack.to_owned(), cost));
    program.push(("main;write;checksum".to_owned(), 1_500.0));
    let comparison = against(&program);
    let checksum = line(&comparison, Level::FunctionSelf, "checksum");
    assert_eq!((checksum.verdict.clone(), checksum.effect), (Verdict::Regressed, None));
    assert_eq!(comparison.overall, Overall::Regressed);
}

#[test]
fn another_build_of_the_program_under_another_file_name_is_compared() {
    let program = changed(|stack, cost| {
        let frames: Vec<String> = stack
            .split(';')
            .map(|frame| if frame.contains('@') { frame.to_owned() } else { format!("{frame}@app-new") })
            .collect();
        (frames.join(";"), cost)
    });
    let comparison = against(&program);
    assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
    assert!(comparison.notes.iter().any(|note| note.contains("app-new")), "{:?}", comparison.notes);
}

#[test]
fn too_few_runs_and_runs_that_count_different_things_are_refused_with_what_to_do() {
    let whole = side("base", 1, PROGRAM);
    let mut few = side("new", 2, PROGRAM);
    few.runs.truncate(1);
    let message = compare(&whole, &few, &Policy::default()).expect_err("one run").to_string();
    assert!(message.contains("new: 1 run(s); at least 3"), "{message}");
    let mut other = side("new", 2, PROGRAM);
    other.runs[3].value_type = ValueType::new("cpu", "nanoseconds");
    let message = compare(&whole, &other, &Policy::default()).expect_err("mixed").to_string();
    assert!(message.contains("samples/count") && message.contains("cpu/nanoseconds"), "{message}");
}

#[test]
fn another_machine_makes_a_regression_inconclusive() {
    let mut base = side("base", 1, PROGRAM);
    let slower: Vec<Stack<'_>> = PROGRAM.iter().map(|(stack, cost)| (*stack, cost * 1.5)).collect();
    let mut new = side("new", 2, &slower);
    for (side, model) in [(&mut base, "Fast 9000"), (&mut new, "Slow 1000")] {
        for run in &mut side.runs {
            run.facts.machine.cpu_model = Some(model.to_owned());
        }
    }
    let comparison = compare(&base, &new, &Policy::default()).expect("comparable");
    assert_eq!(comparison.overall, Overall::Inconclusive);
    let Some(Refusal::MachinesDiffer(facts)) = comparison.refusals.first() else { panic!("{comparison:?}") };
    assert_eq!(
        (facts[0].fact, facts[0].base.as_str(), facts[0].new.as_str()),
        ("cpu_model", "Fast 9000", "Slow 1000")
    );
}

#[test]
fn a_base_that_drifts_is_refused() {
    let mut base = side("base", 1, PROGRAM);
    for run in base.runs.iter_mut().skip(5) {
        for function in run.functions.iter_mut().filter(|function| &*function.key.name == "parse") {
            run.total += function.self_value;
            function.self_value *= 2;
            function.inclusive_value *= 2;
        }
    }
    let comparison = compare(&base, &side("new", 2, PROGRAM), &Policy::default()).expect("comparable");
    assert_eq!(comparison.overall, Overall::Inconclusive);
    let Some(Refusal::BaseDiffersFromItself { lines }) = comparison.refusals.first() else { panic!() };
    assert!(lines.iter().any(|line| line == "parse"), "{lines:?}");
}

/// Both sides, of which the new one's stacks cost so many times as much.
fn sides_with(seed: u64, part: impl Fn(&str) -> f64) -> (Side, Side) {
    let slower: Vec<Stack<'_>> = PROGRAM.iter().map(|(stack, cost)| (*stack, cost * part(stack))).collect();
    (side("base", seed, PROGRAM), side("new", seed + 1, &slower))
}

fn parse_of(part: f64) -> impl Fn(&str) -> f64 {
    move |stack| if stack.ends_with("parse") { part } else { 1.0 }
}

fn slower_parse(seed: u64) -> Comparison {
    let (base, new) = sides_with(seed, parse_of(1.2));
    compare(&base, &new, &Policy::default()).expect("comparable")
}

#[test]
fn an_alarm_counts_if_it_is_raised_twice() {
    let twice = confirm(slower_parse(1), slower_parse(5));
    assert_eq!(twice.overall, Overall::Regressed);
    assert_eq!(line(&twice, Level::FunctionSelf, "parse").verdict, Verdict::Regressed);

    let quiet = against(&changed(|stack, cost| (stack.to_owned(), cost)));
    let sensitivity = line(&quiet, Level::FunctionSelf, "parse").sensitivity;
    let once = confirm(slower_parse(1), quiet);
    assert_eq!(once.overall, Overall::Unchanged, "{once:#?}");
    assert_eq!(line(&once, Level::FunctionSelf, "parse").verdict, Verdict::Inconclusive(sensitivity));
    assert!(sensitivity.smallest_effect.is_some_and(|effect| effect < 0.1), "{sensitivity:?}");
}
