//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a text; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nobody set it.
    Default,
    /// The configuration file; without a position, the file as a whole.
    File {
        /// The file as it was named on the command line.
        path: PathBuf,
        /// The key or value in it.
        position: Option<Position>,
    },
    /// A variable of the environment, by name.
    Environment(String),
    /// A flag of the command line, such as `--listen`.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, position: None } => formatter.write_str(&file_name(path)),
            Self::File { path, position: Some(Position { line, column }) } => {
                write!(formatter, "{}:{line}:{column}", file_name(path))
            }
            Self::Environment(name) => formatter.write_str(name),
            Self::Flag(option) => formatter.write_str(option),
        }
    }
}

/// A path on one line, whatever it contains.
fn file_name(path: &Path) -> String {
    if path == Path::new("-") {
        return "standard input".to_owned();
    }
    path.to_string_lossy()
        .chars()
        .map(|character| if character.is_control() { '?' } else { character })
        .collect()
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where to mend it.
    pub place: Place,
    /// The key by its path; empty where the text as a whole is meant.
    pub key: String,
    /// What is wrong and what to do. Never contains a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Default {
            write!(formatter, "{}: ", self.place)?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

/// How many problems are kept; a file of nonsense has as many as lines.
pub(super) const MAX_PROBLEMS: usize = 50;

/// Everything that is wrong with a configuration; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.listing())]
pub struct ConfigurationErrors {
    /// The first fifty, in the order in which they were met.
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub further: usize,
}

impl ConfigurationErrors {
    fn listing(&self) -> String {
        if let ([problem], 0) = (self.problems.as_slice(), self.further) {
            return problem.to_string();
        }
        let mut text = format!("the configuration has {} errors", self.problems.len() + self.further);
        for problem in &self.problems {
            text.push_str(&format!("\n{problem}"));
        }
        if self.further > 0 {
            text.push_str(&format!("\nand {} more", self.further));
        }
        text
    }
}

/// Problems while they are collected.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) kept: Vec<Problem>,
    further: usize,
}

impl Problems {
    /// Keeps what `make` answers, or only counts it where there are enough already.
    pub(super) fn add(&mut self, make: impl FnOnce() -> Problem) {
        if self.kept.len() < MAX_PROBLEMS {
            self.kept.push(make());
        } else {
            self.further = self.further.saturating_add(1);
        }
    }

    pub(super) fn into_result(self) -> Result<(), ConfigurationErrors> {
        if self.kept.is_empty() {
            return Ok(());
        }
        Err(ConfigurationErrors { problems: self.kept, further: self.further })
    }
}

/// Text of a user inside a message: short, on one line, in backquotes, without what may be a name and a password
/// in a URL (`https://user:password@host`).
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let without_user = text.rsplit_once('@').map(|(before, after)| match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://[redacted]@{after}"),
        None => format!("[redacted]@{after}"),
    });
    let text = without_user.as_deref().unwrap_or(text);
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    // In backquotes there is nothing to escape about quotes.
    shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    let cut = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    format!("`{shown}{cut}`")
}

/// The name of a key inside a message: what may be a value that lacks the space after its colon
/// (`{bearer_token:s3cret}` is one key to YAML) is cut off.
pub(super) fn quoted_key(key: &str) -> String {
    let word = key_word(key);
    if word.len() == key.len() { quoted(key) } else { format!("`{word}…`") }
}

/// What is a word at the beginning of a key.
pub(super) fn key_word(key: &str) -> &str {
    let end = key.find(|character: char| !character.is_alphanumeric() && !"_-.<".contains(character));
    key.get(..end.unwrap_or(key.len()).min(60)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: usize) -> Problem {
        let position = Some(Position { line, column: 3 });
        Problem {
            place: Place::File { path: "/etc/a\nb.yaml".into(), position },
            key: "otlp.endpoint".to_owned(),
            message: "wrong".to_owned(),
        }
    }

    #[test]
    fn credentials_in_urls_are_not_quoted() {
        assert_eq!(quoted("https://user:hunter2@host:1"), "`https://[redacted]@host:1`");
        assert_eq!(quoted("user:hunter2@host:1"), "`[redacted]@host:1`");
        assert_eq!(quoted("https://a:b@c:d@host"), "`https://[redacted]@host`");
        assert_eq!(quoted("host:1"), "`host:1`");
    }

    #[test]
    fn one_problem_is_one_line_and_a_line_break_in_a_file_name_does_not_make_two() {
        let errors = ConfigurationErrors { problems: vec![problem(7)], further: 0 };
        assert_eq!(errors.to_string(), "/etc/a?b.yaml:7:3: otlp.endpoint: wrong");
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_not_kept() {
        let mut problems = Problems::default();
        for line in 1..=MAX_PROBLEMS + 3 {
            problems.add(|| problem(line));
        }
        let errors = problems.into_result().expect_err("there are problems");
        assert_eq!((errors.problems.len(), errors.further), (MAX_PROBLEMS, 3));
        let text = errors.to_string();
        assert!(text.starts_with("the configuration has 53 errors\n"), "{text}");
        assert!(text.ends_with("\nand 3 more"), "{text}");
        assert_eq!(text.lines().count(), MAX_PROBLEMS + 2);
    }

    #[test]
    fn keys_are_shown_up_to_what_may_be_a_value() {
        for (key, shown) in [
            ("bearer_token", "`bearer_token`"),
            ("bearer_token:hunter2", "`bearer_token…`"),
            ("token=hunter2", "`token…`"),
            ("<<", "`<<`"),
            ("schlüssel", "`schlüssel`"),
            ("a\nhunter2", "`a…`"),
        ] {
            assert_eq!(quoted_key(key), shown);
        }
        assert_eq!(quoted_key(&"ü".repeat(40)), format!("`{}…`", "ü".repeat(30)));
        assert_eq!(quoted_key(&"aü".repeat(40)), format!("`{}…`", "aü".repeat(20)));
    }

    #[test]
    fn quoted_text_is_short_and_on_one_line() {
        assert_eq!(quoted("a\nb\"c'"), "`a\\nb\"c'`");
        assert_eq!(quoted(&"ü".repeat(61)), format!("`{}…`", "ü".repeat(60)));
    }
}
