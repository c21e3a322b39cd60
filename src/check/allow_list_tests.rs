use super::*;
use crate::check::test_sides::{Stack, side};
use crate::check::{Basis, Overall, Policy, RunFacts, Work, compare};

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

/// Both sides, the new one's stacks costing so many times as much.
fn sides(part: impl Fn(&str) -> f64) -> (Side, Side) {
    let slower: Vec<Stack<'_>> = PROGRAM.iter().map(|(stack, cost)| (*stack, cost * part(stack))).collect();
    (side("base", 1, PROGRAM), side("new", 2, &slower))
}

fn day(day: u8) -> Date {
    Date::from_calendar_date(2026, Month::March, day).expect("a day")
}

/// What is said of the sides with this list, on the thirtieth of March.
fn with_list((base, new): &(Side, Side), list: &str) -> Comparison {
    let mut comparison = compare(base, new, &Policy::default()).expect("comparable");
    AllowList::parse(list).expect("a list").apply(&mut comparison, base, new, day(30));
    comparison
}

fn line<'a>(comparison: &'a Comparison, level: Level, name: &str) -> &'a Line {
    let found = comparison.lines.iter().find(|line| line.level == level && line.subject.name == name);
    found.unwrap_or_else(|| panic!("no line {name}: {:#?}", comparison.lines))
}

/// The lines that regressed and may not.
fn failing(comparison: &Comparison) -> Vec<String> {
    let failing =
        comparison.lines.iter().filter(|line| line.verdict == Verdict::Regressed && line.allowed.is_none());
    failing.map(Line::described).collect()
}

fn because_of(line: &Line) -> &[String] {
    line.allowed.as_ref().map_or(&[], |allowed| &allowed.because_of)
}

#[test]
fn what_is_named_explains_its_callers_its_module_and_the_whole() {
    let slower = sides(|stack| if stack.ends_with("parse") { 1.5 } else { 1.0 });
    let without = with_list(&slower, "");
    assert_eq!(without.overall, Overall::Regressed);
    assert_eq!(failing(&without), ["the whole", "module app", "parse", "read with all that it calls"]);

    let allowed = with_list(&slower, "2026-03-31 parse -- checks lengths\n");
    assert_eq!(allowed.overall, Overall::Unchanged, "{allowed:#?}");
    let parse = line(&allowed, Level::FunctionSelf, "parse");
    let expected = Allowed { reason: "checks lengths".to_owned(), because_of: Vec::new(), rest: None };
    assert_eq!((&parse.verdict, &parse.allowed), (&Verdict::Regressed, &Some(expected)));
    for (level, name) in [(Level::Total, ""), (Level::Module, "app"), (Level::FunctionInclusive, "read")] {
        let line = line(&allowed, level, name);
        assert_eq!(line.verdict, Verdict::Regressed, "{name}");
        let allowed = line.allowed.as_ref().unwrap_or_else(|| panic!("{name} is not allowed"));
        assert_eq!(
            (allowed.reason.as_str(), allowed.because_of.as_slice()),
            ("checks lengths", &["parse".to_owned()][..])
        );
        let rest = allowed.rest.as_ref().and_then(|rest| rest.effect).expect("it is still judged");
        assert!(rest.abs() < 0.02, "{name}: {rest}");
    }
    let (hash, work) =
        (line(&allowed, Level::FunctionSelf, "hash"), line(&allowed, Level::FunctionInclusive, "work"));
    assert!(hash.allowed.is_none() && work.allowed.is_none(), "they have nothing to do with it");
}

#[test]
fn a_caller_that_became_slower_itself_still_fails_and_so_does_all_above_it() {
    let slower =
        sides(|stack| if stack.ends_with("parse") || stack.ends_with("copy@libc.so.6") { 1.5 } else { 1.0 });
    let comparison = with_list(&slower, "2026-03-31 parse -- checks lengths\n");
    assert_eq!(comparison.overall, Overall::Regressed);
    let failing = failing(&comparison);
    for expected in ["copy", "read with all that it calls", "the whole", "module libc.so"] {
        assert!(failing.iter().any(|line| line == expected), "{expected}: {failing:?}");
    }
    assert!(!failing.contains(&"module app".to_owned()), "the rest of it is as it was: {failing:?}");
    assert_eq!(because_of(line(&comparison, Level::Module, "app")), ["parse"]);
}

#[test]
fn a_callers_own_cost_is_not_its_callees_doing() {
    let slower = sides(|stack| if stack.contains("sort") { 1.5 } else { 1.0 });
    let comparison = with_list(&slower, "2026-03-31 less -- compares more\n");
    let failing = failing(&comparison);
    assert!(failing.contains(&"sort".to_owned()), "{failing:?}");
    assert!(failing.contains(&"sort with all that it calls".to_owned()), "{failing:?}");
    assert!(line(&comparison, Level::FunctionSelf, "less").allowed.is_some());
}

#[test]
fn several_entries_explain_together_the_one_with_the_most_first() {
    let slower = sides(|stack| match stack {
        "main;read;parse" => 1.4,
        "main;work;hash" => 1.8,
        _ => 1.0,
    });
    let list = "2026-03-31 parse -- checks lengths\n2026-03-31 has* -- a longer digest\n";
    let comparison = with_list(&slower, list);
    assert_eq!(failing(&comparison), [""; 0]);
    let whole = line(&comparison, Level::Total, "");
    assert_eq!(because_of(whole), ["has*", "parse"]);
    assert_eq!(
        whole.allowed.as_ref().map(|allowed| allowed.reason.as_str()),
        Some("a longer digest; checks lengths")
    );
    assert_eq!(because_of(line(&comparison, Level::FunctionInclusive, "work")), ["has*"]);
    // Of one of them alone the whole is still slower.
    let one = with_list(&slower, "2026-03-31 parse -- checks lengths\n");
    assert_eq!(failing(&one), ["the whole", "module app", "hash", "work with all that it calls"]);
}

#[test]
fn a_function_that_is_new_and_may_be_explains_who_calls_it() {
    let mut stacks = PROGRAM.to_vec();
    stacks.push(("main;write;checksum", 1_500.0));
    let with_new = (side("base", 1, PROGRAM), side("new", 2, &stacks));
    let comparison = with_list(&with_new, "2026-03-31 checksum -- is asked for\n");
    assert_eq!(
        (comparison.overall, failing(&comparison)),
        (Overall::Unchanged, Vec::new()),
        "{comparison:#?}"
    );
    assert_eq!(because_of(line(&comparison, Level::FunctionInclusive, "write")), ["checksum"]);
}

#[test]
fn recursion_is_taken_out_once() {
    const PROGRAM: &[Stack<'_>] = &[
        ("main;walk;visit;walk;visit;leaf", 3_000.0),
        ("main;walk;visit;step", 3_000.0),
        ("main;other", 4_000.0),
        ("main;rest", 3_000.0),
    ];
    let slower: Vec<Stack<'_>> = PROGRAM
        .iter()
        .map(|(stack, cost)| (*stack, if stack.ends_with("leaf") { cost * 1.5 } else { *cost }))
        .collect();
    let comparison =
        with_list(&(side("base", 1, PROGRAM), side("new", 2, &slower)), "2026-03-31 leaf -- known\n");
    assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
    let visit = comparison.lines.iter().find(|line| {
        line.level == Level::FunctionInclusive
            && (line.subject.name == "visit" || line.subject.name == "walk")
    });
    let rest = visit.and_then(|line| line.allowed.as_ref()).and_then(|allowed| allowed.rest.as_ref());
    assert!(rest.and_then(|rest| rest.effect).is_some_and(|effect| effect.abs() < 0.02), "{visit:#?}");
}

#[test]
fn of_shares_and_of_work_it_is_the_same() {
    // The new side does twice as much, for twice the cost.
    let unit = || "request".to_owned();
    let doing = |done: f64| RunFacts { work: Some(Work { done, unit: unit() }), ..RunFacts::default() };
    let unknown = RunFacts::default;
    for (basis, facts) in [
        (Basis::PerWork { unit: unit() }, [doing(100.0), doing(200.0)]),
        (Basis::Share, [unknown(), unknown()]),
    ] {
        for copy in [1.0, 1.5] {
            let mut sides = sides(|stack| {
                let part = match stack {
                    "main;read;parse" => 1.5,
                    "main;read;copy@libc.so.6" => copy,
                    _ => 1.0,
                };
                2.0 * part
            });
            for (side, facts) in [&mut sides.0, &mut sides.1].into_iter().zip(&facts) {
                for run in &mut side.runs {
                    run.facts = facts.clone();
                }
            }
            let without = with_list(&sides, "");
            assert_eq!(without.basis, basis);
            assert!(
                failing(&without).contains(&"read with all that it calls".to_owned()),
                "{:?}",
                failing(&without)
            );
            let comparison = with_list(&sides, "2026-03-31 parse -- checks lengths\n");
            let failing = failing(&comparison);
            if copy > 1.0 {
                assert!(
                    failing.contains(&"read with all that it calls".to_owned()),
                    "{basis:?}: {failing:?}"
                );
            } else {
                assert_eq!(failing, [""; 0], "{basis:?}: {comparison:#?}");
                assert_eq!(comparison.overall, Overall::Unchanged, "{basis:?}: {comparison:#?}");
            }
        }
    }
}

#[test]
fn what_is_named_need_not_be_known_exactly() {
    // By itself too little to be called a regression, of the whole more than the margin.
    let (base, mut new) = sides(|_| 1.0);
    for (run, part) in new.runs.iter_mut().zip([0.7, 1.6, 0.8, 1.5, 0.9, 1.4, 1.0, 1.3, 1.1, 1.2]) {
        let at =
            run.functions.iter().position(|function| &*function.key.name == "parse").expect("it is there");
        let more = (run.functions[at].self_value as f64 * (part - 1.0)) as i64;
        let raised = |value: u64| value.saturating_add_signed(more);
        run.total = raised(run.total);
        run.functions[at].self_value = raised(run.functions[at].self_value);
        for function in &mut run.functions {
            if ["main", "read", "parse"].contains(&&*function.key.name) {
                function.inclusive_value = raised(function.inclusive_value);
            }
        }
        for node in &mut run.stacks {
            if node.function as usize == at {
                node.self_value = raised(node.self_value);
            }
        }
    }
    let sides = (base, new);
    let undecided = with_list(&sides, "");
    assert_eq!(undecided.overall, Overall::Inconclusive, "{undecided:#?}");
    let allowed = with_list(&sides, "2026-03-31 parse -- depends on the weather\n");
    assert!(line(&allowed, Level::FunctionSelf, "parse").allowed.is_some());
    assert!(failing(&allowed).is_empty());
}

#[test]
fn an_entry_holds_to_the_end_of_its_last_day_and_is_then_told() {
    let sides = sides(|stack| if stack.ends_with("parse") { 1.2 } else { 1.0 });
    let expired = with_list(&sides, "2026-03-29 parse -- checks lengths\n2026-03-01 par* -- older\n");
    assert_eq!(expired.overall, Overall::Regressed);
    let told: Vec<&String> = expired.notes.iter().filter(|note| note.contains("was allowed")).collect();
    assert_eq!(told, ["parse was allowed to cost more until 2026-03-29"]);
    let last_day = with_list(&sides, "2026-03-30 parse -- checks lengths\n");
    assert_eq!(failing(&last_day), [""; 0]);
    // One that has expired does not stand in the way of one that has not.
    let both = with_list(&sides, "2026-03-01 parse -- old\n2026-03-30 par* -- checks lengths\n");
    assert_eq!(failing(&both), [""; 0]);
    assert!(!both.notes.iter().any(|note| note.contains("was allowed")), "{:?}", both.notes);
}

#[test]
fn an_entry_that_names_nothing_is_told_and_one_that_names_something_small_is_not() {
    let mut stacks = PROGRAM.to_vec();
    // Far below what is judged, in one profile only, and with a name that compilers count.
    stacks.push(("main;read;parse;tiny.constprop.0@libtiny.so.2", 1.0));
    let sides = (side("base", 1, PROGRAM), side("new", 2, &stacks));
    let list = "# known\n2026-03-31 parse -- a\n2026-03-31 prase -- b\n2026-03-31 pars* -- c\n2026-03-31 parsi* -- d\n\
                2026-03-31 [total] -- e\n2026-03-31 libc.so -- f\n2026-03-31 tiny -- g\n\
                2026-03-31 tiny.constprop.0 -- h\n2026-03-31 libtiny.so -- i\n2026-03-31 * -- j\n2026-01-01 gone -- k\n";
    let comparison = with_list(&sides, list);
    let told: Vec<(usize, &str)> =
        comparison.unmatched_entries.iter().map(|entry| (entry.line, entry.name.as_str())).collect();
    assert_eq!(told, [(3, "prase"), (5, "parsi*"), (12, "gone")]);
    assert_eq!(comparison.overall, Overall::Unchanged, "it is no error");
}

#[test]
fn all_of_it_can_be_allowed() {
    let sides = sides(|_| 1.5);
    assert_eq!(with_list(&sides, "").overall, Overall::Regressed);
    for list in ["2026-03-31 * -- all of it\n", "2026-03-31 [total] -- all of it\n"] {
        let comparison = with_list(&sides, list);
        let named = line(&comparison, Level::Total, "").allowed.as_ref();
        assert!(named.is_some(), "{list}");
    }
    assert_eq!(failing(&with_list(&sides, "2026-03-31 * -- all of it\n")), [""; 0]);
}

#[test]
fn a_list_that_an_editor_of_windows_wrote_is_one() {
    let list = AllowList::parse("\u{feff}# known\r\n2026-03-31  parse(int)  --  checks -- lengths\r\n")
        .expect("a list");
    let [entry] = &list.entries[..] else { panic!("{list:?}") };
    assert_eq!((entry.name.as_str(), entry.reason.as_str()), ("parse(int)", "checks -- lengths"));
}

#[test]
fn what_is_no_list_is_told_by_its_line() {
    for (text, what) in [
        ("2026-13-01 a -- b", "line 1: does not begin with a day"),
        ("\n2026-12-01 a", "line 2: has no ` -- `"),
        ("2026-12-01", "line 1: has a day only"),
        ("2026-12-01  -- b", "line 1: has no"),
    ] {
        let message = AllowList::parse(text).expect_err(text).to_string();
        assert!(message.starts_with(what), "{message}");
    }
}
