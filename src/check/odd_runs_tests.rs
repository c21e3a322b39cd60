//! Whatever runs are made of, a comparison of them ends, and its reports are whole.

use proptest::prelude::*;

use super::report::{Findings, ReportFormat, SourcePaths, Table, write};
use super::{AllowList, MachineFacts, Policy, Run, RunFacts, Side, Wanted, Work, compare, confirm};
use crate::{export, ingest};

/// A cost, from nothing to more than can be added up.
fn cost() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), 1_u64..100, 1_000_u64..1_100, Just(i64::MAX as u64)]
}

fn stack() -> impl Strategy<Value = String> {
    let function = prop_oneof![
        Just("a"),
        Just("b"),
        Just("a.cold"),
        Just("main.func1"),
        Just("[unknown]"),
        Just("ma|in\u{1b}"),
        Just("x(int)"),
        Just("x(long)")
    ];
    proptest::collection::vec(function, 1..5).prop_map(|frames| frames.join(";"))
}

fn facts() -> impl Strategy<Value = RunFacts> {
    let done =
        prop_oneof![Just(0.0), Just(1.0), Just(-1.0), Just(f64::NAN), Just(1e-320), Just(1e300), 1.0..9.0];
    let work = proptest::option::of((done, prop_oneof![Just("r"), Just("")]));
    let share = proptest::option::of(prop_oneof![Just(0.0), Just(f64::NAN), Just(f64::INFINITY), Just(0.5)]);
    (work, any::<bool>(), proptest::option::of(0_u32..8), proptest::option::of(0_u64..3), share).prop_map(
        |(work, whole_execution, position, windows, steal_share)| RunFacts {
            work: work.map(|(done, unit)| Work { done, unit: unit.to_owned() }),
            whole_execution,
            position,
            windows,
            machine: MachineFacts { steal_share, ..MachineFacts::default() },
            ..RunFacts::default()
        },
    )
}

fn side(label: &'static str) -> impl Strategy<Value = Side> {
    let of_run = proptest::collection::vec((stack(), cost()), 1..8);
    // Of all runs, or of each its own.
    let of_facts =
        prop_oneof![facts().prop_map(|facts| vec![facts; 8]), proptest::collection::vec(facts(), 8)];
    (proptest::collection::vec(of_run, 2..8), of_facts).prop_map(move |(runs, facts)| {
        let run = |(number, (stacks, facts)): (usize, (Vec<(String, u64)>, RunFacts))| {
            let folded: String = stacks.iter().map(|(stack, cost)| format!("{stack} {cost}\n")).collect();
            let options = ingest::Options { first_field_is_frame: true, ..ingest::Options::default() };
            let profile = ingest::read(folded.as_bytes(), export::Format::Folded, &options).ok()?;
            let wanted = Wanted { value: None, stacks: true };
            Run::from_profile(&profile, &format!("{label} {number}"), wanted, facts).ok()
        };
        let runs = runs.into_iter().zip(facts).enumerate().filter_map(run).collect();
        Side { label: label.to_owned(), runs }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_runs_are_compared_or_refused(
        base in side("base"),
        new in side("new"),
        again in side("new"),
        list in prop_oneof![Just(""), Just("2999-01-01 a -- why"), Just("2999-01-01 * -- why\n2000-01-01 b -- old")],
        min_share in prop_oneof![Just(0.01), Just(1e-12), Just(0.9)],
    ) {
        let policy = Policy { min_share, ..Policy::default() };
        if let Ok(mut comparison) = compare(&base, &new, &policy) {
            if let Ok(again) = compare(&base, &again, &policy) {
                comparison = confirm(comparison, again);
            }
            let day = time::Date::from_calendar_date(2026, time::Month::March, 1).expect("a day");
            AllowList::parse(list).expect("a list").apply(&mut comparison, &base, &new, day);
            let findings = Findings { comparison: &comparison, base: &base, new: &new };
            let rendered = |format| {
                let mut bytes = Vec::new();
                write(&findings, format, &SourcePaths::default(), &mut bytes).expect("written");
                String::from_utf8(bytes).expect("text")
            };
            use ReportFormat::{Github, Json, Junit, Markdown, Sarif, Svg};
            for format in [Markdown, Junit, Sarif, Github, Svg] {
                prop_assert!(!rendered(format).is_empty());
            }
            let json: serde_json::Value = serde_json::from_str(&rendered(Json)).expect("JSON");
            for line in json["lines"].as_array().expect("lines") {
                for side in ["base", "new"] {
                    for figure in ["mean", "deviation", "share"] {
                        prop_assert!(line[side][figure].is_number(), "{side} {figure}: {line:#}");
                    }
                }
                prop_assert!(line["p_value"].is_number() && line["q_value"].is_number(), "{line:#}");
            }
            let mut table = Vec::new();
            Table { all: true }.write(&comparison, &mut table).expect("written");
            let table = String::from_utf8(table).expect("text");
            prop_assert!(!table.contains("NaN") && !table.contains('\u{1b}'), "{table}");
        }
    }
}
