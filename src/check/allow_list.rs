//! Regressions that are known and allowed, each with a reason and a day after which it is not allowed any more.
//!
//! ```text
//! # last day   what           why
//! 2026-12-31   parse(int)  -- checks lengths now, issue 123
//! 2026-12-31   work::*     -- rewritten for another format
//! ```
//!
//! A name is that of a function, as reports show it or without what compilers count; of a module; or `[total]` for the
//! whole. A `*` at its end stands for anything. A function's callers cost more too, with all that they call: list
//! them as well if they are reported.

use time::{Date, Month};

use super::comparison::{Comparison, Level, Line, Refusal};
use super::{Verdict, overall};

/// The name of the whole program.
const TOTAL: &str = "[total]";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    last_day: Date,
    name: String,
    reason: String,
}

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}; a line is `2026-12-31 function -- reason`")]
pub struct AllowListError {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl AllowList {
    /// Reads a list.
    ///
    /// # Errors
    /// [`AllowListError`].
    pub fn parse(text: &str) -> Result<Self, AllowListError> {
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = |what: &str| AllowListError { line: index + 1, what: what.to_owned() };
            let (day, rest) = line.split_once(char::is_whitespace).ok_or_else(|| error("has a day only"))?;
            let last_day = date(day).ok_or_else(|| error("does not begin with a day"))?;
            let (name, reason) = rest.split_once(" -- ").ok_or_else(|| error("has no ` -- ` and reason"))?;
            let (name, reason) = (name.trim().to_owned(), reason.trim().to_owned());
            if name.is_empty() || reason.is_empty() {
                return Err(error("has no name or no reason"));
            }
            entries.push(Entry { last_day, name, reason });
        }
        Ok(Self { entries })
    }

    /// Allows what the list allows `today`, and says anew what is to be said of the whole.
    pub fn apply(&self, comparison: &mut Comparison, today: Date) {
        let mut notes = Vec::new();
        for line in comparison.lines.iter_mut().filter(|line| line.verdict == Verdict::Regressed) {
            let mut fitting = self.entries.iter().filter(|entry| entry.names(line)).peekable();
            let expired = fitting.peek().map(|entry| entry.last_day);
            match fitting.find(|entry| today <= entry.last_day) {
                Some(entry) => line.allowed = Some(entry.reason.clone()),
                None => notes.extend(
                    expired.map(|day| format!("{} was allowed to cost more until {day}", line.described())),
                ),
            }
        }
        comparison.notes.extend(notes);
        comparison.refusals.retain(|refusal| !matches!(refusal, Refusal::TooNoisy { .. }));
        overall::decide(comparison);
    }
}

impl Entry {
    fn names(&self, line: &Line) -> bool {
        let fits = |name: &str| match self.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == self.name,
        };
        match line.level {
            Level::Total => self.name == TOTAL,
            _ => fits(&line.subject.name) || line.subject.key.as_ref().is_some_and(|key| fits(&key.name)),
        }
    }
}

/// `2026-12-31`.
fn date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()
}
