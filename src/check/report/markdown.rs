//! Markdown for one comment on a pull request that is written anew each time.
//!
//! The first line is [`MARKER`], by which a pipeline finds the comment of last time. [`NOTHING_CHANGED`] stands in it if a
//! new comment would tell nobody anything.

use std::io::{self, Write};

use super::phrases::{
    change, cost, described, headline, interval, is_change, origin, printable, refusal, shown, verdict,
    why_allowed,
};
use super::source::SourcePaths;
use crate::check::comparison::{Comparison, Line};
use crate::check::verdict::Overall;

/// The first line.
pub const MARKER: &str = "<!-- spanflame:check -->";
/// Stands in it if there is nothing to say.
pub const NOTHING_CHANGED: &str = "<!-- spanflame:nothing-changed -->";
/// Lines of the table; what is beyond is counted.
const SHOWN_LINES: usize = 20;

/// Writes it.
///
/// # Errors
/// The writer's.
pub fn write(comparison: &Comparison, paths: &SourcePaths, writer: &mut dyn Write) -> io::Result<()> {
    writeln!(writer, "{MARKER}")?;
    let changed: Vec<&Line> = comparison.lines.iter().filter(|line| is_change(line)).collect();
    if changed.is_empty() && comparison.overall == Overall::Unchanged {
        writeln!(writer, "{NOTHING_CHANGED}")?;
    }
    writeln!(writer, "### {}\n", plain(&headline(comparison)))?;
    for reason in &comparison.refusals {
        writeln!(writer, "> {}\n", plain(&refusal(reason)))?;
    }
    if !changed.is_empty() {
        writeln!(
            writer,
            "| | what | where | {} | {} | change | 95 % interval |",
            plain(&comparison.base.label),
            plain(&comparison.new.label)
        )?;
        writeln!(writer, "|---|---|---|---:|---:|---:|---|")?;
        for line in changed.iter().take(SHOWN_LINES) {
            writeln!(
                writer,
                "| {} | {} | {} | {} | {} | {} | {} |",
                verdict(line),
                code(&described(line)),
                place(line, paths),
                plain(&cost(comparison, &line.base)),
                plain(&cost(comparison, &line.new)),
                change(line),
                interval(line),
            )?;
        }
        if changed.len() > SHOWN_LINES {
            writeln!(writer, "\n… and {} more.", changed.len() - SHOWN_LINES)?;
        }
    }
    for line in changed.iter().take(SHOWN_LINES) {
        if let Some(allowed) = &line.allowed {
            writeln!(writer, "\n{} may be slower{}", code(&described(line)), plain(&why_allowed(allowed)))?;
        }
    }
    let mut told: Vec<&str> = Vec::new();
    for line in changed.iter().take(SHOWN_LINES) {
        let name = line.subject.name.as_str();
        if let Some(origin) = origin(line).filter(|_| !told.contains(&name)) {
            writeln!(writer, "\n{}: {}", code(&shown(name)), plain(&origin))?;
            told.push(name);
        }
    }
    let runs = format!("{} against {} runs", comparison.base.runs, comparison.new.runs);
    writeln!(writer, "\n<details><summary>{runs}</summary>\n")?;
    for note in &comparison.notes {
        writeln!(writer, "- {}", plain(note))?;
    }
    writeln!(
        writer,
        "- A line counts from {:.1} % of the whole and a change of {:.0} %; false alarms are held below {:.0} % of comparisons.",
        100.0 * comparison.policy.min_share,
        100.0 * comparison.policy.min_effect,
        100.0 * comparison.policy.false_alarm_level
    )?;
    writeln!(writer, "\n</details>")
}

fn place(line: &Line, paths: &SourcePaths) -> String {
    let subject = &line.subject;
    if subject.file.is_empty() {
        return plain(&shown(crate::export::frame_text::module_name(&subject.module)));
    }
    let file = shown(&paths.relative(&subject.file).unwrap_or_else(|| subject.file.clone()));
    if subject.line > 0 { code(&format!("{file}:{}", subject.line)) } else { code(&file) }
}

/// Text in which nothing is taken for markup, and that calls nobody.
fn plain(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            // Hosts look for these after the markup is gone: nothing visible stands between them and what follows.
            '@' | '#' => {
                escaped.push(character);
                escaped.push_str("&#8203;");
            }
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '$' => {
                escaped.push('\\');
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A name in code's letters, also in a table's cell.
fn code(text: &str) -> String {
    let text = printable(text);
    // A cell ends at a bar, in code as well, and what a backslash before it means differs between hosts.
    if text.contains('|') {
        let escaped: String = text
            .chars()
            .map(|character| match character {
                plain if plain.is_alphanumeric() || plain == ' ' || !plain.is_ascii() => plain.to_string(),
                other => format!("&#{};", u32::from(other)),
            })
            .collect();
        return format!("<code>{escaped}</code>");
    }
    // A longer fence than any run of back-ticks within (CommonMark, "Code spans").
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_taken_for_markup() {
        assert_eq!(plain("a<b>|*c*_$d$&lt;\u{1b}"), r"a\<b\>\|\*c\*\_\$d\$\&lt; ");
        assert_eq!(plain("@octocat #1"), "@&#8203;octocat #&#8203;1");
        assert_eq!(code("a\nb`c"), "``a b`c``");
        assert_eq!(code("`a"), "`` `a ``");
        assert_eq!(code(r"a::operator\|<é>"), "<code>a&#58;&#58;operator&#92;&#124;&#60;é&#62;</code>");
    }
}
