//! How figures are said, the same in every report for people.

use crate::check::comparison::{Allowed, Basis, Comparison, Estimate, Level, Line, Refusal};
use crate::check::verdict::{Overall, Verdict};

/// A cost with its unit: `12.3 µs a request`, `1.20 s a run`, `10.3 %`.
pub(super) fn cost(comparison: &Comparison, estimate: &Estimate) -> String {
    match &comparison.basis {
        Basis::Share => format!("{:.2} %", 100.0 * estimate.mean),
        Basis::PerRun => format!("{} a run", value(comparison, estimate.mean)),
        Basis::PerWork { unit } if unit.is_empty() => {
            format!("{} a unit of work", value(comparison, estimate.mean))
        }
        Basis::PerWork { unit } => format!("{} by {unit}", value(comparison, estimate.mean)),
    }
}

fn value(comparison: &Comparison, amount: f64) -> String {
    let value_type = &comparison.value_type;
    match value_type.unit.as_str() {
        "nanoseconds" => duration(amount),
        "count" => format!("{amount:.4} {}", value_type.kind),
        unit => format!("{amount:.4} {unit}"),
    }
}

/// Three figures and the unit that fits.
fn duration(amount_ns: f64) -> String {
    let (amount, unit) = match amount_ns {
        ns if ns >= 1e9 => (ns / 1e9, "s"),
        ns if ns >= 1e6 => (ns / 1e6, "ms"),
        ns if ns >= 1e3 => (ns / 1e3, "µs"),
        ns => (ns, "ns"),
    };
    let decimals = if amount >= 100.0 {
        0
    } else if amount >= 10.0 {
        1
    } else {
        2
    };
    format!("{amount:.decimals$} {unit}")
}

/// The change: `+21.9 %`, `new`, `gone`.
pub(super) fn change(line: &Line) -> String {
    match line.effect {
        Some(_) if line.new.mean <= 0.0 => "gone".to_owned(),
        Some(effect) => percent(effect),
        None => "new".to_owned(),
    }
}

/// `+12.3 %`.
pub(super) fn percent(effect: f64) -> String {
    format!("{:+.1} %", 100.0 * effect)
}

/// `+18.0 % to +26.1 %`; empty if it is not known.
pub(super) fn interval(line: &Line) -> String {
    match line.interval {
        Some(interval) if interval.high.is_finite() => {
            format!("{} to {}", percent(interval.low), percent(interval.high))
        }
        Some(interval) => format!("at least {}", percent(interval.low)),
        None => String::new(),
    }
}

/// The word for what regressed and may.
const ALLOWED: &str = "regressed, allowed";

/// One word.
pub(super) fn verdict(line: &Line) -> &'static str {
    match line.verdict {
        Verdict::Regressed if line.allowed.is_some() => ALLOWED,
        Verdict::Regressed => "regressed",
        Verdict::Improved => "improved",
        Verdict::Unchanged => "unchanged",
        Verdict::Inconclusive(_) => "inconclusive",
        Verdict::Moved { .. } => "moved",
    }
}

/// One sentence on a line that changed.
pub(super) fn sentence(comparison: &Comparison, line: &Line) -> String {
    let mut text = format!(
        "{} {}: {} → {} ({}",
        line.described(),
        verdict(line),
        cost(comparison, &line.base),
        cost(comparison, &line.new),
        change(line),
    );
    let interval = interval(line);
    if !interval.is_empty() {
        text.push_str(&format!(", 95 % certain of {interval}"));
    }
    text.push(')');
    if let Verdict::Moved { from } = &line.verdict {
        text.push_str(&format!("; it was called {}", from.name));
    }
    if let Some(allowed) = &line.allowed {
        text.push_str(&format!("; allowed{}", why_allowed(allowed)));
    }
    text
}

/// What follows on "allowed": `: REASON`, or ` because of NAME (…): REASON` if something else is what the list names.
pub(super) fn why_allowed(allowed: &Allowed) -> String {
    let reason = &allowed.reason;
    if allowed.because_of.is_empty() {
        return format!(": {reason}");
    }
    let names = allowed.because_of.join(", ");
    match allowed.rest.as_deref().and_then(|rest| rest.effect) {
        Some(effect) => format!(" because of {names} ({} without): {reason}", percent(effect)),
        None => format!(" because of {names}: {reason}"),
    }
}

/// What is said of the whole, as a headline.
pub(super) fn headline(comparison: &Comparison) -> String {
    let count = |wanted: &str| comparison.lines.iter().filter(|line| verdict(line) == wanted).count();
    let total = comparison.lines.iter().find(|line| line.level == Level::Total);
    let whole = match total {
        Some(line) => format!(
            "; the whole: {} → {} ({})",
            cost(comparison, &line.base),
            cost(comparison, &line.new),
            change(line)
        ),
        None => String::new(),
    };
    match comparison.overall {
        Overall::Regressed => format!("Slower: {} regressed{whole}", lines(count("regressed"))),
        Overall::Improved => format!("Faster: {} improved{whole}", lines(count("improved"))),
        Overall::Unchanged if count(ALLOWED) > 0 => {
            format!("No slower than is allowed: {} regressed and may{whole}", lines(count(ALLOWED)))
        }
        Overall::Unchanged => format!("As fast as before{whole}"),
        Overall::Inconclusive => format!("Not decided{whole}"),
    }
}

fn lines(count: usize) -> String {
    if count == 1 { "1 line".to_owned() } else { format!("{count} lines") }
}

/// Why it could not be decided, and what to do.
#[must_use]
pub fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::MachinesDiffer(differences) => {
            let facts: Vec<String> = differences
                .iter()
                .map(|difference| {
                    format!("{}: {} against {}", difference.fact, difference.base, difference.new)
                })
                .collect();
            format!("the sides were not made on equal machines ({}): run both on one", facts.join("; "))
        }
        Refusal::BaseDiffersFromItself { lines } => format!(
            "the base differs from itself ({}): something else disturbs the runs; use a quieter machine or longer runs",
            lines.join(", ")
        ),
        Refusal::RunsResembleNeighbours { side } => format!(
            "what {side} did in a stretch of time is much as in the one before, so that its runs are no independent \
             measurements: give a longer range"
        ),
        Refusal::ChangedMidway { side, lines } => format!(
            "{side} differs from itself: its later half had another share of {} than its earlier one; give a range in which \
             nothing changed",
            in_short(lines)
        ),
        Refusal::TooFewSamples { side, samples, least } => format!(
            "{side} has {samples} samples, and to tell a change from noise takes at least {least}: give a longer range"
        ),
        Refusal::TooNoisy { lines, runs_needed } => {
            let needed = match runs_needed {
                Some(runs) => format!("{runs} runs a side would do"),
                None => "use a quieter machine or longer runs".to_owned(),
            };
            format!("too noisy to tell of {}: {needed}", lines.join(", "))
        }
    }
}

/// The first few of them.
fn in_short(lines: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = lines.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match lines.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
