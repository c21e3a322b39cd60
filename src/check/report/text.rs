//! A table for a terminal.

use std::io::{self, Write};

use super::phrases::{
    Moved, came_from, change, cost, headline, interval, is_change, origin, percent, printable, refusal,
    verdict, why_allowed,
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
            writeln!(writer, "{}", unobeyed(&printable(&line)))?;
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

/// A line that logs of build hosts do not take for one of their commands: GitHub's begin with `::`; its older ones, Azure's
/// and `TeamCity`'s stand anywhere behind `##`. Nothing visible is added.
fn unobeyed(line: &str) -> String {
    const NOTHING: char = '\u{200b}';
    let apart = format!("#{NOTHING}#");
    // Twice, since what is found does not overlap.
    let line = line.replace("##", &apart).replace("##", &apart);
    match line.trim_start().starts_with("::") {
        true => line.replacen("::", &format!(":{NOTHING}:"), 1),
        false => line,
    }
}

fn is_news(line: &Line) -> bool {
    is_change(line) || line.level == Level::Total
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
    let said = match &line.verdict {
        Verdict::Regressed => match &line.allowed {
            Some(allowed) => format!("{word}{}", why_allowed(allowed)),
            None => word.to_owned(),
        },
        Verdict::Moved { from } => {
            let (Moved::FromName(place) | Moved::FromModule(place)) = came_from(line, from);
            return format!("{word} from {place}");
        }
        Verdict::Inconclusive(sensitivity) => match (sensitivity.smallest_effect, sensitivity.runs_needed) {
            (Some(effect), Some(runs)) => {
                format!("{word}: {} could have been seen; {runs} runs a side for less", percent(effect))
            }
            (Some(effect), None) => format!("{word}: {} could have been seen", percent(effect)),
            (None, _) => word.to_owned(),
        },
        _ => word.to_owned(),
    };
    match origin(line) {
        Some(origin) => format!("{said}; {origin}"),
        None => said,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_a_command_of_a_build_host() {
        for command in
            ["::error file=a::b", "  ::stop-commands::x", "a ##[error]b", "##vso[task.complete]", "###[x]"]
        {
            let line = unobeyed(command);
            assert!(!line.trim_start().starts_with("::") && !line.contains("##"), "{line}");
            assert_eq!(line.replace('\u{200b}', ""), command);
        }
        assert_eq!(unobeyed("std::map::insert  1.0 s a run"), "std::map::insert  1.0 s a run");
    }
}
