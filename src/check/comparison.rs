//! The result of comparing two sides: what every report is made of.

use serde::Serialize;

use super::allow_list::UnmatchedEntry;
use super::{FactDifference, FunctionKey, Overall, Policy, Sensitivity, Verdict};
use crate::model::ValueType;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What is said of the whole.
    pub overall: Overall,
    /// Why it could not be decided, if that lies not in the figures.
    pub refusals: Vec<Refusal>,
    /// What was compared.
    pub basis: Basis,
    /// What the values are, before they are divided by anything.
    pub value_type: ValueType,
    /// The base.
    pub base: SideSummary,
    /// What was compared with it.
    pub new: SideSummary,
    /// By which rules.
    pub policy: Policy,
    /// The base compared with itself.
    pub self_test: SelfTest,
    /// The total first, then modules, functions by themselves and functions with all that they call; in each
    /// level the greatest change of the whole first.
    pub lines: Vec<Line>,
    /// By what all functions' costs have changed in common, as a factor; 1 unless shares are compared.
    pub common_change: f64,
    /// Modules of the base that were compared with one of another name: the name there, and the new one.
    pub renamed_modules: Vec<(String, String)>,
    /// What a reader should know: facts that are missing, functions that were put together.
    pub notes: Vec<String>,
    /// Entries of the allow-list that name nothing in any profile.
    pub unmatched_entries: Vec<UnmatchedEntry>,
}

/// What is known of a side.
#[derive(Debug, Clone, PartialEq)]
pub struct SideSummary {
    /// What a reader calls it.
    pub label: String,
    /// Runs.
    pub runs: usize,
    /// Samples of all runs, if each run knows.
    pub samples: Option<u64>,
    /// Mean of the runs' totals, in the unit of the value type.
    pub mean_total: f64,
}

/// What is compared: the first of these that both sides allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Cost per unit of work; every run counted its work.
    PerWork {
        /// Of what.
        unit: String,
    },
    /// Cost per run, each run being one execution of a command from its start to its end.
    PerRun,
    /// Share of the run's total. What all functions have in common cannot be seen, so the total is not judged.
    Share,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The whole program.
    Total,
    /// An object file: the functions of it by themselves.
    Module,
    /// A function by itself.
    FunctionSelf,
    /// A function with all that it calls.
    FunctionInclusive,
}

/// Who a line is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// What a person reads: the function's name as the new side has it (else the base), or the module's.
    pub name: String,
    /// Path of the module's file, or what stands for it; empty for the total.
    pub module: String,
    /// Source file, empty if unknown.
    pub file: String,
    /// First line of the function, 0 if unknown.
    pub line: u32,
    /// Its identity, of functions.
    pub key: Option<FunctionKey>,
}

/// One line: something whose cost was compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is about.
    pub level: Level,
    /// Who it is about.
    pub subject: Subject,
    /// The base's cost.
    pub base: Estimate,
    /// The new cost.
    pub new: Estimate,
    /// The relative change, 0.2 being +20 %. None if the base has (nearly) nothing of it.
    pub effect: Option<f64>,
    /// 95 % confidence interval of `effect`.
    pub interval: Option<Interval>,
    /// Chance of such a difference or a greater one in this direction if nothing changed.
    pub p_value: f64,
    /// The same, adjusted for how many lines of this level were looked at (Benjamini and Hochberg).
    pub q_value: f64,
    /// What could have been seen, whatever was.
    pub sensitivity: Sensitivity,
    /// What is said of it.
    pub verdict: Verdict,
    /// How it came to be matched with another name on the base's side, if it was.
    pub origin: Option<Origin>,
    /// It may cost more, by an allow-list.
    pub allowed: Option<Allowed>,
    /// Callers that have the very same inclusive cost, and therefore no line of their own.
    pub same_as: Vec<Subject>,
}

/// Why a line may cost more than it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowed {
    /// The reason that the allow-list gives; several are joined.
    pub reason: String,
    /// It is not named there itself: it costs more because of what is, by these names. Else empty.
    pub because_of: Vec<String>,
    /// The same line without what these cost more. None if it is named itself, or nothing is left to be judged.
    pub rest: Option<Box<Line>>,
}

/// A cost on one side, over its runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean cost: of [`Basis::Share`] the share, 0 to 1; else the value per unit of work or per run.
    pub mean: f64,
    /// Standard deviation between runs, of the same unit.
    pub deviation: f64,
    /// Share of the side's total, 0 to 1.
    pub share: f64,
    /// Runs.
    pub runs: usize,
}

/// From the lower end to the upper.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end; infinite if it is not bounded.
    pub high: f64,
}

/// How a line's base came by another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// One function is gone, one is new, of the same cost and with the same neighbours.
    Renamed {
        /// What it was called.
        from: FunctionKey,
    },
    /// It contains another function's cost, which on the other side it has inlined without saying so.
    Inlined {
        /// The functions that are counted with it.
        functions: Vec<FunctionKey>,
    },
    /// It does the work of others that are gone, or gave work to others that are new, whom the same caller calls: one
    /// has become two, or two one, or one was written anew.
    Regrouped {
        /// The functions that are counted with it, or a part of whom is.
        functions: Vec<FunctionKey>,
    },
}

/// The base compared with itself: its runs in two halves.
#[derive(Debug, Clone, PartialEq)]
pub enum SelfTest {
    /// It does not differ from itself.
    Passed {
        /// Runs in the smaller half.
        runs: usize,
    },
    /// It does: the noise is of a kind that these tests take for change.
    Alarmed {
        /// The lines that seemed to differ.
        lines: Vec<String>,
    },
    /// Too few runs to split.
    NotMade,
}

/// Why no verdict may be given, whatever the figures.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The sides were not made on equal machines.
    MachinesDiffer(Vec<FactDifference>),
    /// The base differs from itself.
    BaseDiffersFromItself {
        /// In what.
        lines: Vec<String>,
    },
    /// The runs are stretches of what went on, and each is much as the one before: they are no independent measurements.
    RunsResembleNeighbours {
        /// Label of the side.
        side: String,
    },
    /// The runs are stretches of what went on, and the later ones differ from the earlier ones.
    ChangedMidway {
        /// Label of the side.
        side: String,
        /// In what.
        lines: Vec<String>,
    },
    /// The runs are stretches of what went on, of too few samples however many are put together.
    TooFewSamples {
        /// Label of the side.
        side: String,
        /// How many it has.
        samples: u64,
        /// How many it takes.
        least: u64,
    },
    /// Neither a change nor its absence could be shown.
    TooNoisy {
        /// The lines that may have made the whole dearer by more than the margin.
        lines: Vec<String>,
        /// Runs a side with which they would not, if the noise stays as it is. None if it cannot be said.
        runs_needed: Option<u64>,
    },
}

impl Comparison {
    /// Whether this line is a reason to fail: it regressed, it may not, and something was decided at all.
    #[must_use]
    pub fn fails(&self, line: &Line) -> bool {
        self.overall == Overall::Regressed && line.verdict == Verdict::Regressed && line.allowed.is_none()
    }
}

impl Line {
    /// The name, and what of it: `parse (self)`.
    #[must_use]
    pub fn described(&self) -> String {
        match self.level {
            Level::Total => "the whole".to_owned(),
            Level::Module => format!("module {}", self.subject.name),
            Level::FunctionSelf => self.subject.name.clone(),
            Level::FunctionInclusive => format!("{} with all that it calls", self.subject.name),
        }
    }

    /// What it may at most have added to the whole, as a part of the base's total: the upper end of the
    /// confidence interval.
    #[must_use]
    pub fn may_have_added(&self) -> f64 {
        match self.interval {
            Some(interval) => self.base.share * interval.high,
            // Of what the base does not have, no ratio can be told: what there is now has been added.
            None => {
                let error = self.new.deviation / (self.new.runs.max(1) as f64).sqrt();
                let part = if self.new.mean > 0.0 { 1.0 + 2.0 * error / self.new.mean } else { 1.0 };
                (self.new.share * part - self.base.share).max(0.0)
            }
        }
    }

    /// Whether it is known to have added no more than this part to the whole. Of what no figure can be told it is not.
    #[must_use]
    pub fn adds_no_more_than(&self, margin: f64) -> bool {
        self.may_have_added() <= margin
    }

    /// Runs a side with which [`Self::may_have_added`] would not exceed `margin`. None if it cannot be said,
    /// or the estimate itself exceeds it.
    #[must_use]
    pub fn runs_for_margin(&self, margin: f64) -> Option<u64> {
        let (effect, interval) = (self.effect?, self.interval?);
        let (reach, room) = (interval.high - effect, margin / self.base.share - effect);
        let runs = self.base.runs.min(self.new.runs) as f64 * (reach / room).powi(2);
        (room > 0.0 && runs < 1e6).then(|| runs.ceil() as u64)
    }
}
