//! One side of a comparison: the runs of one revision.

use super::run::type_text;
use super::{Policy, Run};

/// The runs of one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// What a reader calls it (`base`, a revision, a folder).
    pub label: String,
    /// Its runs, in the order in which they were made. All of one value type.
    pub runs: Vec<Run>,
}

/// Some of a side's runs.
#[derive(Debug, Clone)]
pub(super) struct Runs<'a> {
    pub label: &'a str,
    pub runs: Vec<&'a Run>,
}

impl Side {
    /// All runs.
    pub(super) fn all(&self) -> Runs<'_> {
        Runs { label: &self.label, runs: self.runs.iter().collect() }
    }
}

impl Runs<'_> {
    /// Whether they are stretches of time, one after the other, so that what is near may be alike.
    pub(super) fn are_stretches(&self) -> bool {
        self.runs.iter().all(|run| run.facts.windows.is_some())
    }
}

/// Why sides cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SideError {
    /// Not enough runs.
    #[error(
        "{side}: {runs} run(s); at least {least} are needed to tell a change from noise, and 10 are advised"
    )]
    TooFewRuns {
        /// Label of the side.
        side: String,
        /// How many it has.
        runs: usize,
        /// How many it needs.
        least: usize,
    },
    /// Runs that count different things.
    #[error(
        "{one} counts {one_type}, but {other} counts {other_type}: give --value NAME, or profiles that count the same"
    )]
    MixedValueTypes {
        /// A run.
        one: String,
        /// Its value type, as `kind/unit`.
        one_type: String,
        /// Another run.
        other: String,
        /// Its value type.
        other_type: String,
    },
}

/// Checks what [`super::compare`] needs: enough runs, all of one value type.
pub(super) fn check_comparable(base: &Side, new: &Side, policy: &Policy) -> Result<(), SideError> {
    for side in [base, new] {
        // Two are the fewest that vary at all.
        let least = policy.least_runs.max(2);
        if side.runs.len() < least {
            return Err(SideError::TooFewRuns { side: side.label.clone(), runs: side.runs.len(), least });
        }
    }
    let mut runs = base.runs.iter().chain(&new.runs);
    let Some(one) = runs.next() else { return Ok(()) };
    match runs.find(|other| other.value_type != one.value_type) {
        None => Ok(()),
        Some(other) => Err(SideError::MixedValueTypes {
            one: one.name.clone(),
            one_type: type_text(&one.value_type),
            other: other.name.clone(),
            other_type: type_text(&other.value_type),
        }),
    }
}
