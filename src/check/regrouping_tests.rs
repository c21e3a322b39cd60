use super::*;
use crate::check::comparison::{Comparison, Level, Line};
use crate::check::test_sides::{Stack, side};
use crate::check::{FunctionKey, Overall, Policy, Verdict, compare};

const REST: [Stack<'_>; 3] = [("main;hash", 2_500.0), ("main;sort", 1_500.0), ("main;wait", 3_000.0)];

fn compared(base: &[Stack<'_>], new: &[Stack<'_>]) -> Comparison {
    let of = |label: &str, seed, stacks: &[Stack<'_>]| side(label, seed, &[stacks, &REST[..]].concat());
    compare(&of("base", 1, base), &of("new", 2, new), &Policy::default()).expect("comparable")
}

fn own<'a>(comparison: &'a Comparison, name: &str) -> Option<&'a Line> {
    comparison.lines.iter().find(|line| line.level == Level::FunctionSelf && line.subject.name == name)
}

fn with(names: &[&str]) -> Option<Origin> {
    let functions = names.iter().map(|name| FunctionKey::new(name, "app")).collect();
    Some(Origin::Regrouped { functions })
}

fn is_regressed(comparison: &Comparison) -> bool {
    comparison.lines.iter().any(|line| line.verdict == Verdict::Regressed)
}

#[test]
fn a_function_that_becomes_two_has_not_made_anything_slower() {
    let one = [("main;parse", 3_000.0)];
    let two = [("main;parse_head", 1_500.0), ("main;parse_body", 1_500.0)];
    let comparison = compared(&one, &two);
    assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
    for name in ["parse_head", "parse_body"] {
        let line = own(&comparison, name).expect("it is judged");
        assert_eq!((&line.origin, &line.verdict), (&with(&["parse"]), &Verdict::Unchanged), "{name}");
    }
    assert_eq!(own(&comparison, "parse"), None);

    // And the other way.
    let comparison = compared(&two, &one);
    assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
    let line = own(&comparison, "parse").expect("it is judged");
    assert!(
        matches!(&line.origin, Some(Origin::Regrouped { functions }) if functions.len() == 2),
        "{line:?}"
    );
}

#[test]
fn a_part_that_was_taken_out_is_counted_with_what_it_was_a_part_of() {
    let whole = [("main;parse", 2_000.0), ("main;parse;lex", 1_000.0)];
    let apart = [("main;parse", 1_000.0), ("main;validate", 1_000.0), ("main;validate;lex", 1_000.0)];
    for (base, new) in [(&whole[..], &apart[..]), (&apart[..], &whole[..])] {
        let comparison = compared(base, new);
        assert_eq!(comparison.overall, Overall::Unchanged, "{comparison:#?}");
        let line = own(&comparison, "parse").expect("it is judged");
        assert_eq!(line.origin, with(&["validate"]));
        assert!(!is_regressed(&comparison), "{comparison:#?}");
    }
}

#[test]
fn what_became_dearer_on_the_way_is_still_told() {
    let one = [("main;parse", 3_000.0)];
    let dearer = compared(&one, &[("main;parse_head", 2_200.0), ("main;parse_body", 2_200.0)]);
    assert_eq!(dearer.overall, Overall::Regressed);
    let line = own(&dearer, "parse_head").expect("it is judged");
    assert_eq!(line.verdict, Verdict::Regressed);
    assert!((line.effect.expect("of something") - 0.47).abs() < 0.05, "{line:?}");
    // Written anew, and so much faster that nothing of it is like what it was.
    let cheaper = compared(&one, &[("main;decode", 500.0)]);
    assert_eq!(cheaper.overall, Overall::Improved, "{cheaper:#?}");
    assert_eq!(own(&cheaper, "decode").expect("it is judged").verdict, Verdict::Improved);
}

#[test]
fn what_is_new_elsewhere_or_beside_what_hardly_changed_is_new() {
    // Called by another function.
    let elsewhere = compared(&[("main;parse", 2_000.0)], &[("main;sort;polish", 2_000.0)]);
    assert_eq!(own(&elsewhere, "polish").expect("it is judged").origin, None);
    assert!(is_regressed(&elsewhere));
    // The other one has saved too little, or so much that it is no part of it.
    for saved in [100.0, 1_500.0] {
        let beside =
            compared(&[("main;parse", 3_000.0)], &[("main;parse", 3_000.0 - saved), ("main;log", 400.0)]);
        let line = own(&beside, "log").expect("it is judged");
        assert_eq!((&line.origin, &line.verdict), (&None, &Verdict::Regressed), "saved {saved}");
    }
    // In another module.
    let module = compared(&[("main;parse", 3_000.0)], &[("main;a@lib", 1_500.0), ("main;b@lib", 1_500.0)]);
    assert!(is_regressed(&module));
}

#[test]
fn what_is_only_gone_has_not_gone_into_all_others() {
    let base = [("main;parse", 3_000.0)];
    let of = |label: &str, seed, stacks: &[Stack<'_>], executions: bool| {
        let mut side = side(label, seed, &[stacks, &REST[..]].concat());
        for run in &mut side.runs {
            run.facts.whole_execution = executions;
        }
        side
    };
    for executions in [true, false] {
        let gone =
            compare(&of("base", 1, &base, executions), &of("new", 2, &[], executions), &Policy::default())
                .expect("comparable");
        let line = own(&gone, "parse").expect("it is judged");
        assert_eq!((&line.origin, &line.verdict), (&None, &Verdict::Improved), "executions: {executions}");
        let new =
            compare(&of("base", 1, &[], executions), &of("new", 2, &base, executions), &Policy::default())
                .expect("comparable");
        let line = own(&new, "parse").expect("it is judged");
        assert_eq!((&line.origin, &line.verdict), (&None, &Verdict::Regressed), "executions: {executions}");
    }
}
