//! What is said of a line, and of the whole.

use serde::Serialize;

use super::FunctionKey;

/// What is said of one line: the total, a module or a function.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It costs more, by more than chance and more than [`super::Policy::min_effect`].
    Regressed,
    /// It costs less.
    Improved,
    /// Its cost is shown to lie within [`super::Policy::equivalence_margin`] of what it was.
    Unchanged,
    /// Neither a change nor its absence could be shown.
    Inconclusive(Sensitivity),
    /// It has another name or place, and no other cost that could be shown.
    Moved {
        /// What it was called.
        from: FunctionKey,
    },
}

/// What could have been seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sensitivity {
    /// The smallest increase that would have been called a regression with the probability
    /// [`super::Policy::power`]: 0.2 is +20 %. None where there is nothing to relate it to: the base has none
    /// of it.
    pub smallest_effect: Option<f64>,
    /// Runs a side with which [`super::Policy::min_effect`] would have been, if the noise stays as it is. None
    /// if it cannot be said.
    pub runs_needed: Option<u64>,
}

/// What is said of the whole. The order is that of exit codes, not of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// At least one line regressed that is not allowed to.
    Regressed,
    /// None regressed, and at least one improved.
    Improved,
    /// No line changed, and each is shown to have added less than the margin to the whole.
    Unchanged,
    /// It could not be decided; [`super::Comparison::refusals`] and the lines say why.
    Inconclusive,
}
