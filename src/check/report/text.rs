//! A table for a terminal.

use std::io::{self, Write};

use super::phrases::{
    change, cost, headline, interval, percent, printable, refusal, shown, verdict, why_allowed,
};
use crate::check::comparison::{Comparison, Level, Line};
use crate::check::verdict::Verdict;

/// What to show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Table {
    /// Every line that was judged, not only what changed.
    pub all: bool,
}

/// Characters of a name that are shown; its end says most.
const NAME_WIDTH: usize = 48;

impl Table {
    /// Writes what is to be said of the whole, the lines, and what a reader should know. Nothing in it is for the terminal
    /// to obey, whatever names and paths a profile has.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, comparison: &Comparison, writer: &mut dyn Write) -> io::Result<()> {
        for line in self.lines(comparison) {
            writeln!(writer, "{}", printable(&line))?;
        }
        Ok(())
    }

    fn lines(&self, comparison: &Comparison) -> Vec<String> {
        let mut text = Vec::new();
        text.push(headline(comparison));
        text.extend(comparison.refusals.iter().map(|reason| format!("  {}", refusal(reason))));
        let lines: Vec<&Line> = comparison.lines.iter().filter(|line| self.all || is_news(line)).collect();
        if !lines.is_empty() {
            text.push(String::new());
        }
        let mut level = None;
        for line in &lines {
            if level != Some(line.level) {
                level = Some(line.level);
                text.push(format!(
                    "{:NAME_WIDTH$}  {:>20}  {:>20}  {:>9}  {:>20}  verdict",
                    title(line.level),
                    "base",
                    "new",
                    "change",
                    "95 % certain"
                ));
            }
            text.push(format!(
                "{:NAME_WIDTH$}  {:>20}  {:>20}  {:>9}  {:>20}  {}",
                shortened(&line.subject.name),
                cost(comparison, &line.base),
                cost(comparison, &line.new),
                change(line),
                interval(line),
                said(line)
            ));
            if is_news(line) && !line.subject.file.is_empty() {
                let place =
                    if line.subject.line > 0 { format!(":{}", line.subject.line) } else { String::new() };
                text.push(format!("  at {}{place}", line.subject.file));
            }
        }
        if !comparison.notes.is_empty() {
            text.push(String::new());
        }
        text.extend(comparison.notes.iter().map(|note| format!("note: {note}")));
        let (base, new) = (&comparison.base, &comparison.new);
        text.push(String::new());
        text.push(format!("{} runs of {} against {} runs of {}", new.runs, new.label, base.runs, base.label));
        text
    }
}

fn is_news(line: &Line) -> bool {
    matches!(line.verdict, Verdict::Regressed | Verdict::Improved | Verdict::Moved { .. })
        || line.level == Level::Total
}

fn title(level: Level) -> &'static str {
    match level {
        Level::Total => "whole",
        Level::Module => "module",
        Level::FunctionSelf => "function",
        Level::FunctionInclusive => "function with all that it calls",
    }
}

fn said(line: &Line) -> String {
    let word = verdict(line);
    match &line.verdict {
        Verdict::Regressed => match &line.allowed {
            Some(allowed) => format!("{word}{}", why_allowed(allowed)),
            None => word.to_owned(),
        },
        Verdict::Moved { from } => format!("{word} from {}", shown(&from.name)),
        Verdict::Inconclusive(sensitivity) => match (sensitivity.smallest_effect, sensitivity.runs_needed) {
            (Some(effect), Some(runs)) => {
                format!("{word}: {} could have been seen; {runs} runs a side for less", percent(effect))
            }
            (Some(effect), None) => format!("{word}: {} could have been seen", percent(effect)),
            (None, _) => word.to_owned(),
        },
        _ => word.to_owned(),
    }
}

fn shortened(name: &str) -> String {
    let name = if name.is_empty() { "all" } else { name };
    let count = name.chars().count();
    if count <= NAME_WIDTH {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(count + 1 - NAME_WIDTH)).collect()
}
