//! How figures are said, the same in every report for people.

use crate::check::FunctionKey;
use crate::check::comparison::{Allowed, Basis, Comparison, Estimate, Level, Line, Origin, Refusal};
use crate::check::verdict::{Overall, Verdict};
use crate::export::frame_text::module_name;

/// Letters of a name that are shown: beginning and end say most. Templates have names of thousands.
const SHOWN_LETTERS: usize = 120;

/// Text of a profile, of a server or of a file as one line that neither a terminal nor a log obeys.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|character| if is_obeyed(character) { ' ' } else { character }).collect()
}

/// Control characters, and those that turn round how what follows is read.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name as one line of no more than [`SHOWN_LETTERS`].
pub(super) fn shown(name: &str) -> String {
    let letters = name.chars().count();
    if letters <= SHOWN_LETTERS {
        return printable(name);
    }
    let half = SHOWN_LETTERS / 2;
    let (begin, end) = (name.chars().take(half - 1), name.chars().skip(letters - half));
    printable(&begin.chain(std::iter::once('…')).chain(end).collect::<String>())
}

/// [`Line::described`], with a name of bounded length.
pub(super) fn described(line: &Line) -> String {
    let name = shown(&line.subject.name);
    match line.level {
        Level::Total => line.described(),
        Level::Module => format!("module {name}"),
        Level::FunctionSelf => name,
        Level::FunctionInclusive => format!("{name} with all that it calls"),
    }
}

/// A cost with its unit: `12.3 µs per request`, `1.20 s a run`, `10.3 %`.
pub(super) fn cost(comparison: &Comparison, estimate: &Estimate) -> String {
    match &comparison.basis {
        Basis::Share => format!("{:.2} %", 100.0 * estimate.mean),
        Basis::PerRun => format!("{} a run", value(comparison, estimate.mean)),
        Basis::PerWork { unit } if unit.is_empty() => {
            format!("{} per unit of work", value(comparison, estimate.mean))
        }
        Basis::PerWork { unit } => format!("{} per {}", value(comparison, estimate.mean), shown(unit)),
    }
}

fn value(comparison: &Comparison, amount: f64) -> String {
    let value_type = &comparison.value_type;
    match value_type.unit.as_str() {
        "nanoseconds" => duration(amount),
        "count" => format!("{} {}", figures(amount), shown(&value_type.kind)),
        unit => format!("{} {}", figures(amount), shown(unit)),
    }
}

/// Four figures, or as many as a whole number has that can still be read.
fn figures(amount: f64) -> String {
    let size = amount.abs();
    match size {
        size if size >= 1e9 || size > 0.0 && size < 1e-4 => format!("{amount:.3e}"),
        size if size >= 1e3 => format!("{amount:.0}"),
        size if size >= 1e2 => format!("{amount:.1}"),
        size if size >= 1e1 => format!("{amount:.2}"),
        size if size >= 1.0 || size <= 0.0 => format!("{amount:.3}"),
        _ => format!("{amount:.6}"),
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
        described(line),
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
    if let Some(origin) = origin(line) {
        text.push_str(&format!("; {origin}"));
    }
    if let Some(allowed) = &line.allowed {
        text.push_str(&format!("; allowed{}", why_allowed(allowed)));
    }
    text
}

/// Whether a reader is to be told of it: it costs another amount, or what it is has changed.
pub(super) fn is_change(line: &Line) -> bool {
    matches!(line.verdict, Verdict::Regressed | Verdict::Improved | Verdict::Moved { .. })
        || matches!(line.origin, Some(Origin::Regrouped { .. })) && line.level == Level::FunctionSelf
}

/// How it came to be compared with something of another name, if it was.
pub(super) fn origin(line: &Line) -> Option<String> {
    let names = |functions: &[FunctionKey]| {
        in_short(&functions.iter().map(|key| key.name.to_string()).collect::<Vec<_>>())
    };
    Some(match line.origin.as_ref()? {
        Origin::Renamed { from } => match came_from(line, from) {
            Moved::FromName(name) => format!("it was called {name}"),
            Moved::FromModule(module) => format!("it was in {module}"),
        },
        Origin::Inlined { functions } => {
            format!("counted together with {}, which one side has inlined in it", names(functions))
        }
        Origin::Regrouped { functions } => {
            format!("counted together with {}, which only one side has", names(functions))
        }
    })
}

/// What is different about what a line was in the base.
pub(super) enum Moved {
    FromName(String),
    FromModule(String),
}

/// What to say of where a line has moved from: the name, or if that is the same the module.
pub(super) fn came_from(line: &Line, from: &FunctionKey) -> Moved {
    match &line.subject.key {
        Some(key) if key.name == from.name => Moved::FromModule(shown(module_name(&from.module))),
        _ => Moved::FromName(shown(&from.name)),
    }
}

/// What follows on "allowed": `: REASON`, or ` because of NAME (…): REASON` if something else is what the list names.
pub(super) fn why_allowed(allowed: &Allowed) -> String {
    let reason = printable(&allowed.reason);
    if allowed.because_of.is_empty() {
        return format!(": {reason}");
    }
    let names = in_short(&allowed.because_of);
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
            let of = |is_load: bool| {
                let facts = differences.iter().filter(|difference| is_load == is_of_load(difference.fact));
                let told: Vec<String> = facts
                    .map(|difference| {
                        let fact = fact_in_words(difference.fact);
                        format!("{fact}: {} against {}", difference.base, difference.new)
                    })
                    .collect();
                printable(&told.join("; "))
            };
            let (machines, load) = (of(false), of(true));
            let mut said = Vec::new();
            if !machines.is_empty() {
                said.push(format!("the sides were not made on equal machines ({machines}): run both on one"));
            }
            if !load.is_empty() {
                said.push(format!(
                    "the sides were not measured alike ({load}): run both in turn, when nothing else has to be done"
                ));
            }
            said.join("; ")
        }
        Refusal::BaseDiffersFromItself { lines } => format!(
            "the base differs from itself ({}): something else disturbs the runs; use a quieter machine or longer runs",
            in_short(lines)
        ),
        Refusal::RunsResembleNeighbours { side } => format!(
            "what {} did in a stretch of time is much as in the one before, so that its runs are no independent \
             measurements: give a longer range",
            printable(side)
        ),
        Refusal::ChangedMidway { side, lines } => format!(
            "{} differs from itself: its later half had another share of {} than its earlier one; give a range in which \
             nothing changed",
            printable(side),
            in_short(lines)
        ),
        Refusal::TooFewSamples { side, samples, least } => format!(
            "{} has {samples} samples, and to tell a change from noise takes at least {least}: give a longer range",
            printable(side)
        ),
        Refusal::TooNoisy { lines, runs_needed } => {
            let needed = match runs_needed {
                Some(runs) => format!("{runs} runs a side would do"),
                None => "use a quieter machine or longer runs".to_owned(),
            };
            format!("too noisy to tell of {}: {needed}", in_short(lines))
        }
    }
}

/// Whether it is about what else went on, and not about what the machine is.
fn is_of_load(fact: &str) -> bool {
    matches!(fact, "samples_lost" | "steal_share" | "others_share")
}

fn fact_in_words(fact: &str) -> &str {
    match fact {
        "samples_lost" => "samples that were lost",
        "steal_share" => "CPU time that the hypervisor took",
        "others_share" => "CPU time that other processes took",
        other => other,
    }
}

/// The first few of them.
fn in_short(lines: &[String]) -> String {
    const SHOWN: usize = 3;
    let first = lines.iter().take(SHOWN).map(|line| shown(line)).collect::<Vec<_>>().join(", ");
    match lines.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::FactDifference;

    #[test]
    fn figures_are_few() {
        for (amount, text) in [
            (0.0, "0.000"),
            (10_493.2, "10493"),
            (998.44, "998.4"),
            (12.345_6, "12.35"),
            (2.0, "2.000"),
            (0.012_34, "0.012340"),
            (1.05e18, "1.050e18"),
            (2e-7, "2.000e-7"),
        ] {
            assert_eq!(figures(amount), text);
        }
    }

    #[test]
    fn no_name_is_obeyed_or_fills_the_page() {
        assert_eq!(shown("a\u{1b}[31m\r\nb\u{202e}c\u{2028}d"), "a [31m  b c d");
        let long = shown(&("b".repeat(3_000) + "end"));
        assert_eq!(long.chars().count(), SHOWN_LETTERS);
        assert!(long.starts_with("bbb") && long.contains('…') && long.ends_with("end"), "{long}");
        assert_eq!(shown(&"ä".repeat(SHOWN_LETTERS)), "ä".repeat(SHOWN_LETTERS));
    }

    #[test]
    fn what_else_went_on_is_no_other_machine() {
        let of = |fact| FactDifference { fact, base: "70.2 %".to_owned(), new: "58.5 %".to_owned() };
        let busy = refusal(&Refusal::MachinesDiffer(vec![of("others_share")]));
        assert!(
            busy.contains("other processes took: 70.2 % against 58.5 %") && !busy.contains("equal machines"),
            "{busy}"
        );
        let both = refusal(&Refusal::MachinesDiffer(vec![of("kernel"), of("steal_share")]));
        assert!(both.contains("equal machines (kernel: ") && both.contains("hypervisor took"), "{both}");
    }
}
