use crate::check::comparison::{Comparison, Level, Origin};
use crate::check::test_sides::{self, Stack};
use crate::check::{Call, FunctionCost, FunctionKey, Overall, Policy, Run, RunFacts, Side, Verdict, compare};
use crate::model::ValueType;

/// How many functions a program has, each of which calls so many of the others below it.
#[derive(Debug, Clone, Copy)]
struct Shape {
    entries: usize,
    /// Functions below each entry.
    below: usize,
    /// Each calls the next one; else the entry calls all of them.
    is_chain: bool,
}

impl Shape {
    /// A run in which each function costs the same, give or take a little; `inlined`: in which each entry has taken in
    /// all that is below it.
    fn run(self, number: u64, inlined: bool) -> Run {
        let mut functions = vec![function("main".to_owned(), 0)];
        let mut calls = Vec::new();
        let mut total = 0;
        for at in 0..self.entries {
            let cost = |step: usize| 1_000 + (at as u64 * 7 + step as u64 * 5 + number * 3) % 11;
            let mut rest: u64 = (0..=self.below).map(cost).sum();
            total += rest;
            let entry = functions.len() as u32;
            calls.push(Call { caller: 0, callee: entry, value: rest });
            let own = if inlined { rest } else { cost(0) };
            functions.push(FunctionCost { inclusive_value: rest, ..function(format!("entry{at}"), own) });
            for step in if inlined { 0..0 } else { 1..self.below + 1 } {
                rest -= cost(step - 1);
                let callee = functions.len() as u32;
                let (caller, value) = if self.is_chain { (callee - 1, rest) } else { (entry, cost(step)) };
                calls.push(Call { caller, callee, value });
                let name = format!("inlined{at}_{step}");
                functions.push(FunctionCost { inclusive_value: value, ..function(name, cost(step)) });
            }
        }
        functions[0].inclusive_value = total;
        Run {
            name: format!("run {number}"),
            value_type: ValueType::new("samples", "count"),
            total,
            sample_count: None,
            duration_ns: 0,
            facts: RunFacts { whole_execution: true, ..RunFacts::default() },
            functions,
            calls,
            stacks: Vec::new(),
        }
    }

    fn side(self, label: &str, from: u64, inlined: bool) -> Side {
        let runs = (from..from + 3).map(|number| self.run(number, inlined)).collect();
        Side { label: label.to_owned(), runs }
    }
}

fn function(name: String, self_value: u64) -> FunctionCost {
    FunctionCost {
        key: FunctionKey::new(&name, "app"),
        name: name.into(),
        module_path: "app".into(),
        file: "".into(),
        line: 0,
        self_value,
        inclusive_value: 0,
    }
}

/// How many functions are counted with each that has taken some in.
fn taken_in(comparison: &Comparison) -> Vec<usize> {
    let own = comparison.lines.iter().filter(|line| line.level == Level::FunctionSelf);
    own.filter_map(|line| match &line.origin {
        Some(Origin::Inlined { functions }) => Some(functions.len()),
        _ => None,
    })
    .collect()
}

/// No time is asserted: when each function was looked for among all others, this took a minute.
#[test]
fn eight_thousand_functions_have_vanished_into_their_callers() {
    let policy = Policy { min_share: 1e-6, ..Policy::default() };
    for shape in [
        Shape { entries: 1, below: 8_000, is_chain: true },
        Shape { entries: 1, below: 8_000, is_chain: false },
        Shape { entries: 80, below: 100, is_chain: true },
    ] {
        for new_is_inlined in [true, false] {
            let base = shape.side("base", 0, !new_is_inlined);
            let new = shape.side("new", 3, new_is_inlined);
            let comparison = compare(&base, &new, &policy).expect("comparable");
            assert_eq!(taken_in(&comparison), vec![shape.below; shape.entries], "{shape:?}");
            assert_eq!(comparison.overall, Overall::Unchanged, "{shape:?}: {:?}", comparison.refusals);
        }
    }
}

#[test]
fn what_has_vanished_into_several_that_have_vanished_is_with_the_callers_of_these() {
    const APART: &[Stack<'_>] = &[
        ("main;a;x;shared", 1_000.0),
        ("main;b;y;shared", 1_000.0),
        ("main;c;z;shared", 1_000.0),
        ("main;a;x", 600.0),
        ("main;b;y", 600.0),
        ("main;c;z", 600.0),
        ("main;d", 3_000.0),
    ];
    const TOGETHER: &[Stack<'_>] =
        &[("main;a", 1_600.0), ("main;b", 1_600.0), ("main;c", 1_600.0), ("main;d", 3_000.0)];
    let (base, new) = (test_sides::side("base", 1, APART), test_sides::side("new", 2, TOGETHER));
    let comparison = compare(&base, &new, &Policy::default()).expect("comparable");
    assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
    for (name, inlined) in [("a", "x"), ("b", "y"), ("c", "z")] {
        let line = comparison
            .lines
            .iter()
            .find(|line| line.level == Level::FunctionSelf && line.subject.name == name)
            .expect("it is judged");
        // By cost it comes before those that it has vanished into.
        let functions = [inlined, "shared"].map(|name| FunctionKey::new(name, "app")).to_vec();
        assert_eq!(line.origin, Some(Origin::Inlined { functions }), "{name}");
    }
    let own = comparison.lines.iter().filter(|line| line.level == Level::FunctionSelf);
    assert_eq!(own.count(), 4, "nothing else is left");
}

#[test]
fn what_vanished_into_one_that_vanished_later_is_told_of_where_that_one_is() {
    // A costs nothing itself in the base, so that it is looked at again when B is counted with it.
    const APART: &[Stack<'_>] =
        &[("main;m", 1_000.0), ("main;m;a;b", 60.0), ("main;m;a;c", 1_960.0), ("main;d", 5_000.0)];
    const TOGETHER: &[Stack<'_>] =
        &[("main;m", 1_060.0), ("main;m;a", 40.0), ("main;m;c", 1_960.0), ("main;d", 5_000.0)];
    let (base, new) = (test_sides::side("base", 1, APART), test_sides::side("new", 2, TOGETHER));
    let comparison = compare(&base, &new, &Policy::default()).expect("comparable");
    let line = comparison
        .lines
        .iter()
        .find(|line| line.level == Level::FunctionSelf && line.subject.name == "m")
        .expect("it is judged");
    let functions = ["a", "b"].map(|name| FunctionKey::new(name, "app")).to_vec();
    assert_eq!(line.origin, Some(Origin::Inlined { functions }), "{comparison:#?}");
}

#[test]
fn what_is_taken_out_of_a_great_caller_has_not_vanished_into_it() {
    // Of the shares the caller's grows by more than half of what is gone.
    const WITH: &[Stack<'_>] = &[("main", 5_000.0), ("main;parse", 3_000.0), ("main;rest", 2_000.0)];
    const WITHOUT: &[Stack<'_>] = &[("main", 5_000.0), ("main;rest", 2_000.0)];
    for (base, new, verdict) in [(WITH, WITHOUT, Verdict::Improved), (WITHOUT, WITH, Verdict::Regressed)] {
        let (base, new) = (test_sides::side("base", 1, base), test_sides::side("new", 2, new));
        let comparison = compare(&base, &new, &Policy::default()).expect("comparable");
        let line = comparison
            .lines
            .iter()
            .find(|line| line.level == Level::FunctionSelf && line.subject.name == "parse")
            .expect("it is judged by itself");
        assert_eq!((&line.origin, &line.verdict), (&None, &verdict));
    }
}
