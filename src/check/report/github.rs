//! Annotations of GitHub Actions: a line for each function that changed, printed to its log
//! (docs.github.com, "Workflow commands for GitHub Actions", "Setting an error message").

use std::io::{self, Write};

use super::phrases::{headline, refusal, sentence};
use super::source::SourcePaths;
use crate::check::comparison::{Comparison, Level};
use crate::check::verdict::{Overall, Verdict};

/// Writes them: errors for what regressed, notices for what improved, a warning if it could not be decided.
///
/// # Errors
/// The writer's.
pub fn write(comparison: &Comparison, paths: &SourcePaths, writer: &mut dyn Write) -> io::Result<()> {
    for line in &comparison.lines {
        let command = match line.verdict {
            Verdict::Regressed if line.allowed.is_none() => "error",
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
        properties.push(format!(
            "title={}",
            property(&format!("{} {}", line.subject.name, super::phrases::change(line)))
        ));
        writeln!(writer, "::{command} {}::{}", properties.join(","), data(&sentence(comparison, line)))?;
    }
    let said = data(&headline(comparison));
    match comparison.overall {
        Overall::Regressed => writeln!(writer, "::error title=spanflame check::{said}"),
        Overall::Improved | Overall::Unchanged => writeln!(writer, "::notice title=spanflame check::{said}"),
        Overall::Inconclusive => {
            let why: Vec<String> = comparison.refusals.iter().map(|reason| data(&refusal(reason))).collect();
            writeln!(writer, "::warning title=spanflame check::{said}%0A{}", why.join("%0A"))
        }
    }
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_ends_the_command() {
        assert_eq!(property("std::map<int, x>\n50%"), "std%3A%3Amap<int%2C x>%0A50%25");
        assert_eq!(data("a::b\r\n"), "a::b%0D%0A");
    }
}
