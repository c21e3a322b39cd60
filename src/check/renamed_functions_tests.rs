use crate::check::comparison::{Comparison, Level, Origin};
use crate::check::test_sides::{Stack, side};
use crate::check::{Call, FunctionCost, FunctionKey, Overall, Policy, Run, RunFacts, Side, Verdict, compare};
use crate::model::ValueType;

fn compared(base: &[Stack<'_>], new: &[Stack<'_>]) -> Comparison {
    compare(&side("base", 1, base), &side("new", 2, new), &Policy::default()).expect("comparable")
}

/// What each function that moved was called.
fn moved(comparison: &Comparison) -> Vec<(String, String)> {
    let own = comparison.lines.iter().filter(|line| line.level == Level::FunctionSelf);
    let mut moved: Vec<(String, String)> = own
        .filter_map(|line| match &line.origin {
            Some(Origin::Renamed { from }) => Some((from.name.to_string(), line.subject.name.clone())),
            _ => None,
        })
        .collect();
    moved.sort();
    moved
}

fn pairs(known: &[(&str, &str)]) -> Vec<(String, String)> {
    known.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

#[test]
fn of_equal_functions_each_becomes_the_one_of_a_like_name() {
    let base =
        [("main;a_one", 2_000.0), ("main;a_two", 2_000.0), ("main;a_three", 2_000.0), ("main;rest", 4_000.0)];
    let new =
        [("main;b_three", 2_000.0), ("main;b_one", 2_000.0), ("main;b_two", 2_000.0), ("main;rest", 4_000.0)];
    let comparison = compared(&base, &new);
    assert_eq!(moved(&comparison), pairs(&[("a_one", "b_one"), ("a_three", "b_three"), ("a_two", "b_two")]));
    assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
}

#[test]
fn what_is_gone_in_one_place_is_not_what_is_new_in_another_for_costing_as_much() {
    let base = [("main;read;parse", 3_000.0), ("main;read;copy", 3_000.0), ("main;write;send", 4_000.0)];
    let new = [("main;read;copy", 3_000.0), ("main;write;send", 4_000.0), ("main;write;checksum", 3_000.0)];
    let comparison = compared(&base, &new);
    assert_eq!(moved(&comparison), []);
    let checksum =
        comparison.lines.iter().find(|line| line.subject.name == "checksum").expect("it is judged");
    assert_eq!(checksum.verdict, Verdict::Regressed);
}

/// A run of a program of `branches` chains of `depth` functions each, all of which cost the same.
fn run(package: &str, branches: usize, depth: usize, number: u64) -> Run {
    let named = |name: String| FunctionCost {
        key: FunctionKey::new(&name, "app"),
        name: name.into(),
        module_path: "app".into(),
        file: "".into(),
        line: 0,
        self_value: 0,
        inclusive_value: 0,
    };
    let mut functions = vec![named("main".to_owned())];
    let mut calls = Vec::new();
    for branch in 0..branches {
        let value = 1_000 + (branch as u64 * 7 + number * 3) % 11;
        for step in 0..depth {
            let caller = if step == 0 { 0 } else { functions.len() as u32 - 1 };
            calls.push(Call { caller, callee: functions.len() as u32, value });
            let is_leaf = step + 1 == depth;
            functions.push(FunctionCost {
                self_value: if is_leaf { value } else { 0 },
                inclusive_value: value,
                ..named(format!("{package}.Service{branch}.step{step}"))
            });
        }
        functions[0].inclusive_value += value;
    }
    Run {
        name: format!("run {number}"),
        value_type: ValueType::new("samples", "count"),
        total: functions[0].inclusive_value,
        sample_count: None,
        duration_ns: 0,
        facts: RunFacts { whole_execution: true, ..RunFacts::default() },
        functions,
        calls,
        stacks: Vec::new(),
    }
}

#[test]
fn a_package_of_twenty_thousand_functions_has_another_name() {
    let side = |label: &str, package, from: u64| Side {
        label: label.to_owned(),
        runs: (from..from + 3).map(|number| run(package, 80, 250, number)).collect(),
    };
    let (base, new) = (side("base", "org.before", 0), side("new", "com.company.after", 3));
    let comparison = compare(&base, &new, &Policy::default()).expect("comparable");
    let moved = moved(&comparison);
    assert_eq!(moved.len(), 80, "{:?}", comparison.notes);
    for (before, after) in &moved {
        assert_eq!(before.replace("org.before", "com.company.after"), *after);
    }
    let changed =
        comparison.lines.iter().find(|line| matches!(line.verdict, Verdict::Regressed | Verdict::Improved));
    assert_eq!(changed, None, "nothing but names differs");
    assert!(!comparison.notes.iter().any(|note| note.contains("too many")), "{:?}", comparison.notes);
}
