//! All figures as JSON: docs/check.schema.json.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::check::FunctionKey;
use crate::check::comparison::{Basis, Comparison, Line, Origin, Refusal, SelfTest, SideSummary};
use crate::check::run::type_text;
use crate::check::verdict::Verdict;

/// Raised when a key goes or changes its meaning; new keys may come without.
pub const SCHEMA_VERSION: u32 = 1;

/// Writes one object and a line's end. What is not known is null.
///
/// # Errors
/// The writer's.
pub fn write(comparison: &Comparison, writer: &mut dyn Write) -> io::Result<()> {
    let basis = match &comparison.basis {
        Basis::PerWork { unit } => json!({"kind": "per_work", "work_unit": unit}),
        Basis::PerRun => json!({"kind": "per_run"}),
        Basis::Share => json!({"kind": "share"}),
    };
    let self_test = match &comparison.self_test {
        SelfTest::Passed { runs } => json!({"outcome": "passed", "runs": runs}),
        SelfTest::Alarmed { lines } => json!({"outcome": "alarmed", "lines": lines}),
        SelfTest::NotMade => json!({"outcome": "not_made"}),
    };
    let report = json!({
        "schema_version": SCHEMA_VERSION,
        "verdict": comparison.overall,
        "refusals": comparison.refusals.iter().map(refusal).collect::<Vec<_>>(),
        "basis": basis,
        "value_type": type_text(&comparison.value_type),
        "base": side(&comparison.base),
        "new": side(&comparison.new),
        "policy": comparison.policy,
        "self_test": self_test,
        "lines": comparison.lines.iter().map(line).collect::<Vec<_>>(),
        "notes": comparison.notes,
        "allow_list_unmatched": comparison.unmatched_entries,
    });
    serde_json::to_writer_pretty(&mut *writer, &report)?;
    writeln!(writer)
}

fn side(side: &SideSummary) -> Value {
    json!({"label": side.label, "runs": side.runs, "samples": side.samples, "mean_total": side.mean_total})
}

fn refusal(refusal: &Refusal) -> Value {
    match refusal {
        Refusal::MachinesDiffer(facts) => json!({"reason": "machines_differ", "facts": facts}),
        Refusal::BaseDiffersFromItself { lines } => {
            json!({"reason": "base_differs_from_itself", "lines": lines})
        }
        Refusal::RunsResembleNeighbours { side } => {
            json!({"reason": "runs_resemble_neighbours", "side": side})
        }
        Refusal::ChangedMidway { side, lines } => {
            json!({"reason": "changed_midway", "side": side, "lines": lines})
        }
        Refusal::TooFewSamples { side, samples, least } => {
            json!({"reason": "too_few_samples", "side": side, "samples": samples, "samples_needed": least})
        }
        Refusal::TooNoisy { lines, runs_needed } => {
            json!({"reason": "too_noisy", "lines": lines, "runs_needed": runs_needed})
        }
    }
}

fn line(line: &Line) -> Value {
    let verdict = match line.verdict {
        Verdict::Regressed => "regressed",
        Verdict::Improved => "improved",
        Verdict::Unchanged => "unchanged",
        Verdict::Inconclusive(_) => "inconclusive",
        Verdict::Moved { .. } => "moved",
    };
    let names =
        |functions: &[FunctionKey]| functions.iter().map(|key| key.name.to_string()).collect::<Vec<_>>();
    let (mut renamed_from, mut inlined, mut regrouped_with) = (None, None, None);
    match &line.origin {
        Some(Origin::Renamed { from }) => renamed_from = Some(&*from.name),
        Some(Origin::Inlined { functions }) => inlined = Some(names(functions)),
        Some(Origin::Regrouped { functions }) => regrouped_with = Some(names(functions)),
        None => {}
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "level": line.level,
        "name": line.subject.name,
        "module": text(&line.subject.module),
        "file": text(&line.subject.file),
        "line": (line.subject.line > 0).then_some(line.subject.line),
        "verdict": verdict,
        "base": line.base,
        "new": line.new,
        "effect": line.effect.filter(|effect| effect.is_finite()),
        // JSON has no infinity: an end that is not bounded is null.
        "interval": line.interval.map(|interval| {
            let bounded = |end: f64| end.is_finite().then_some(end);
            json!({"low": bounded(interval.low), "high": bounded(interval.high)})
        }),
        "p_value": line.p_value,
        "q_value": line.q_value,
        "smallest_effect": line.sensitivity.smallest_effect,
        "runs_needed": line.sensitivity.runs_needed,
        "renamed_from": renamed_from,
        "inlined": inlined,
        "regrouped_with": regrouped_with,
        "allowed": line.allowed.as_ref().map(|allowed| &allowed.reason),
        "allowed_because_of": line.allowed.as_ref().map_or(&[][..], |allowed| &allowed.because_of),
        "same_as": line.same_as.iter().map(|caller| caller.name.as_str()).collect::<Vec<_>>(),
    })
}
