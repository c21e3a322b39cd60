//! Regressions that are known and allowed, each with a reason and a day after which it is not allowed any more.
//!
//! ```text
//! # last day   what           why
//! 2026-12-31   parse(int)  -- checks lengths now, issue 123
//! 2026-12-31   work::*     -- rewritten for another format
//! ```
//!
//! A name is that of a function, as reports show it or without what compilers count; of a module; or `[total]` for the
//! whole. A `*` at its end stands for anything. What costs more only because a function does that is named, as its
//! callers do, its module and the whole, need not be named too (`consequences.rs`). An entry that names nothing in any of
//! the profiles is told, and is no error: lists are shared between programs, and outlive functions.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use serde::Serialize;
use time::{Date, Month};

use super::comparison::{Allowed, Comparison, Level, Line, Refusal};
use super::consequences::{self, Permitted};
use super::{Side, Verdict, overall};

/// The name of the whole program.
const TOTAL: &str = "[total]";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Where it stands, from 1.
    line: usize,
    last_day: Date,
    name: String,
    reason: String,
}

/// An entry that names nothing: mistyped, or of a function that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnmatchedEntry {
    /// Where it stands in the list, from 1.
    pub line: usize,
    /// What it names.
    pub name: String,
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
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
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
            entries.push(Entry { line: index + 1, last_day, name, reason });
        }
        Ok(Self { entries })
    }

    /// Allows what the list allows `today`: the lines that it names, and those that cost more only because of functions that
    /// it names. Says anew what is to be said of the whole. The sides are those that were compared; without their stacks
    /// no caller is seen to cost more because of what it calls.
    pub fn apply(&self, comparison: &mut Comparison, base: &Side, new: &Side, today: Date) {
        let margin = comparison.policy.equivalence_margin;
        // Whoever may cost more need not show that he does not.
        let matters = |line: &Line| line.verdict == Verdict::Regressed || !line.adds_no_more_than(margin);
        for line in comparison.lines.iter_mut().filter(|line| matters(line)) {
            line.allowed = self.in_force(line, today).map(|entry| Allowed {
                reason: entry.reason.clone(),
                because_of: Vec::new(),
                rest: None,
            });
        }
        let permitted = self.permitted(comparison, today);
        consequences::allow(comparison, base, new, &permitted);
        let failing = comparison
            .lines
            .iter()
            .filter(|line| line.verdict == Verdict::Regressed && line.allowed.is_none());
        let expired = failing.filter_map(|line| {
            let entry =
                self.entries.iter().filter(|entry| entry.names(line)).max_by_key(|entry| entry.last_day)?;
            Some(format!("{} was allowed to cost more until {}", line.described(), entry.last_day))
        });
        let expired: Vec<String> = expired.collect();
        comparison.notes.extend(expired);
        comparison.unmatched_entries = self.unmatched(base, new);
        comparison.refusals.retain(|refusal| !matches!(refusal, Refusal::TooNoisy { .. }));
        overall::decide(comparison);
    }

    /// The entries that name no function and no module of any run, however small it is. Takes time proportional to the
    /// functions of all runs, times the logarithm of how many names they have.
    fn unmatched(&self, base: &Side, new: &Side) -> Vec<UnmatchedEntry> {
        let functions = base.runs.iter().chain(&new.runs).flat_map(|run| &run.functions);
        let names: BTreeSet<&str> = functions
            .flat_map(|function| [&*function.name, &*function.key.name, &*function.key.module])
            .chain([TOTAL])
            .collect();
        let is_there = |entry: &Entry| match entry.name.strip_suffix('*') {
            Some(start) => names
                .range::<str, _>((Bound::Included(start), Bound::Unbounded))
                .next()
                .is_some_and(|name| name.starts_with(start)),
            None => names.contains(entry.name.as_str()),
        };
        let unmatched = self.entries.iter().filter(|entry| !is_there(entry));
        unmatched.map(|entry| UnmatchedEntry { line: entry.line, name: entry.name.clone() }).collect()
    }

    /// The first entry that names the line and has not expired.
    fn in_force(&self, line: &Line, today: Date) -> Option<&Entry> {
        self.entries.iter().find(|entry| today <= entry.last_day && entry.names(line))
    }

    /// What each entry permits: the functions that it names and that cost more by themselves.
    fn permitted(&self, comparison: &Comparison, today: Date) -> Vec<Permitted> {
        let mut permitted: Vec<(&Entry, Permitted)> = Vec::new();
        for line in comparison.lines.iter().filter(|line| line.level == Level::FunctionSelf) {
            let (Some(key), Some(entry)) = (&line.subject.key, self.in_force(line, today)) else { continue };
            // What it is to cost as much as it did, held against what all others did.
            let kept = (line.base.mean * comparison.common_change / line.new.mean).max(0.0);
            if kept.is_nan() || kept >= 1.0 {
                continue;
            }
            match permitted.iter_mut().find(|(known, _)| std::ptr::eq(*known, entry)) {
                Some((_, known)) => drop(known.kept_parts.insert(key.clone(), kept)),
                None => permitted.push((
                    entry,
                    Permitted {
                        name: entry.name.clone(),
                        reason: entry.reason.clone(),
                        kept_parts: HashMap::from([(key.clone(), kept)]),
                    },
                )),
            }
        }
        permitted.into_iter().map(|(_, permitted)| permitted).collect()
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

#[cfg(test)]
#[path = "allow_list_tests.rs"]
mod tests;
