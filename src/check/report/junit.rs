//! `JUnit`'s XML, as Jenkins, GitLab and others read it: a test case a line, and one for the comparison itself.
//!
//! There is no standard; these are the elements that the readers agree on (testmoapp/junitxml describes them): a line
//! that regressed is a `failure`, one that could not be decided `skipped`; that nothing could be decided at all, an `error`,
//! and no line is a failure then.

use std::io::{self, Write};

use super::phrases::{described, headline, refusal, sentence};
use super::source::SourcePaths;
use crate::check::comparison::{Comparison, Level, Line};
use crate::check::verdict::{Overall, Verdict};
use crate::export::xml::escape;

/// Writes it.
///
/// # Errors
/// The writer's.
pub fn write(comparison: &Comparison, paths: &SourcePaths, writer: &mut dyn Write) -> io::Result<()> {
    let is_failure = |line: &&Line| comparison.fails(line);
    // What seems to have changed, but was not decided.
    let is_open = |line: &Line| line.verdict == Verdict::Regressed && line.allowed.is_none();
    let is_skipped = |line: &&Line| {
        matches!(line.verdict, Verdict::Inconclusive(_)) || is_open(line) && !comparison.fails(line)
    };
    let failures = comparison.lines.iter().filter(is_failure).count()
        + usize::from(comparison.overall == Overall::Regressed);
    let skipped = comparison.lines.iter().filter(is_skipped).count();
    let errors = usize::from(comparison.overall == Overall::Inconclusive);
    let counts = format!(
        r#"tests="{}" failures="{failures}" errors="{errors}" skipped="{skipped}""#,
        comparison.lines.len() + 1
    );
    writeln!(writer, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(writer, r#"<testsuites name="spanflame check" {counts}>"#)?;
    writeln!(writer, r#"  <testsuite name="spanflame check" {counts}>"#)?;
    let said = escape(&headline(comparison));
    write!(writer, r#"    <testcase classname="check" name="no slower than the base""#)?;
    match comparison.overall {
        Overall::Regressed => writeln!(writer, "><failure message=\"{said}\"/></testcase>")?,
        Overall::Inconclusive => {
            let why: Vec<String> =
                comparison.refusals.iter().map(|reason| escape(&refusal(reason))).collect();
            writeln!(writer, "><error message=\"{said}\">{}</error></testcase>", why.join("\n"))?;
        }
        Overall::Improved | Overall::Unchanged => writeln!(writer, "/>")?,
    }
    for line in &comparison.lines {
        let level = match line.level {
            Level::Total => "total",
            Level::Module => "module",
            Level::FunctionSelf => "function",
            Level::FunctionInclusive => "function with callees",
        };
        let name = match line.level {
            Level::Total | Level::Module => described(line),
            _ => format!(
                "{} ({})",
                line.subject.name,
                crate::export::frame_text::module_name(&line.subject.module)
            ),
        };
        write!(writer, r#"    <testcase classname="check.{level}" name="{}""#, escape(&name))?;
        if let Some(file) = paths.relative(&line.subject.file) {
            write!(writer, r#" file="{}""#, escape(&file))?;
            if line.subject.line > 0 {
                write!(writer, r#" line="{}""#, line.subject.line)?;
            }
        }
        let said = escape(&sentence(comparison, line));
        if is_failure(&line) {
            writeln!(writer, "><failure message=\"{said}\"/></testcase>")?;
        } else if is_skipped(&line) {
            writeln!(writer, "><skipped message=\"{said}\"/></testcase>")?;
        } else {
            writeln!(writer, "/>")?;
        }
    }
    writeln!(writer, "  </testsuite>\n</testsuites>")
}
