//! Annotations of GitHub Actions: a line for each function that changed, printed to its log
//! (docs.github.com, "Workflow commands for GitHub Actions", "Setting an error message").

use std::io::{self, Write};

use super::phrases::{change, headline, printable, refusal, sentence, shown};
use super::source::SourcePaths;
use crate::check::comparison::{Comparison, Level};
use crate::check::verdict::{Overall, Verdict};

/// Writes them: what is said of the whole first, since GitHub shows no more than ten of a kind; then an error for each
/// function that regressed (a warning where it may, or where nothing was decided) and a notice for what improved.
///
/// # Errors
/// The writer's.
pub fn write(comparison: &Comparison, paths: &SourcePaths, writer: &mut dyn Write) -> io::Result<()> {
    let said = data(&headline(comparison));
    match comparison.overall {
        Overall::Regressed => writeln!(writer, "::error title=spanflame check::{said}")?,
        Overall::Improved | Overall::Unchanged => {
            writeln!(writer, "::notice title=spanflame check::{said}")?;
        }
        Overall::Inconclusive => {
            let why: Vec<String> = comparison.refusals.iter().map(|reason| data(&refusal(reason))).collect();
            writeln!(writer, "::warning title=spanflame check::{said}%0A{}", why.join("%0A"))?;
        }
    }
    for line in &comparison.lines {
        let command = match line.verdict {
            Verdict::Regressed if comparison.fails(line) => "error",
            Verdict::Regressed => "warning",
            Verdict::Improved => "notice",
            _ => continue,
        };
        // Callers cost more because of what they call; the whole is the headline's.
        if line.level != Level::FunctionSelf {
            continue;
        }
        let mut properties = Vec::new();
        if let Some(file) = paths.relative(&line.subject.file) {
            properties.push(format!("file={}", property(&file)));
            if line.subject.line > 0 {
                properties.push(format!("line={}", line.subject.line));
            }
        }
        let title = format!("{} {}", shown(&line.subject.name), change(line));
        properties.push(format!("title={}", property(&title)));
        writeln!(writer, "::{command} {}::{}", properties.join(","), data(&sentence(comparison, line)))?;
    }
    Ok(())
}

/// What a command says, one line of a log.
fn data(text: &str) -> String {
    printable(text).replace('%', "%25")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_ends_the_command() {
        assert_eq!(property("std::map<int, x>\n50%"), "std%3A%3Amap<int%2C x> 50%25");
        assert_eq!(data("a::b\r\n"), "a::b  ");
    }
}
