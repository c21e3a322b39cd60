//! The runs of both sides as one table: a row for each function, a column for each run.
//!
//! Rows that are one function under two names are put together here, before anything is tested, so that no
//! later step need know of it: `renaming.rs` finds modules and functions that are called something else on the
//! new side, `inlining.rs` those that have vanished into their callers, `regrouping.rs` those whose work others do that
//! are called beside them.

use super::comparison::{Basis, Origin, Subject};
use super::side::Runs;
use super::{FunctionCost, FunctionKey, Run, inlining, regrouping, renaming};
use crate::model::IndexMap;

/// A function's costs, in the unit of the value type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Who it is.
    pub subject: Subject,
    /// Its identity.
    pub key: FunctionKey,
    /// By itself; a value for each run, the base's first.
    pub own: Vec<f64>,
    /// With all that it calls.
    pub inclusive: Vec<f64>,
    /// How other names came to be counted with it.
    pub origin: Option<Origin>,
    /// Who calls it, on either side: index of the row and value.
    pub callers: [Vec<(usize, f64)>; 2],
    /// Whom it calls.
    pub callees: [Vec<(usize, f64)>; 2],
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alignment {
    /// How many of the columns are the base's.
    pub base_runs: usize,
    /// Totals of the runs.
    pub totals: Vec<f64>,
    /// What the costs of each run are divided by to be compared with those of others.
    pub divisors: Vec<f64>,
    /// The functions.
    pub rows: Vec<Row>,
    /// Modules that are called something else on the new side: the base's name, and the new one.
    pub renamed_modules: Vec<(String, String)>,
    /// What was put together, in words.
    pub notes: Vec<String>,
}

/// Which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Base,
    New,
}

impl Which {
    pub fn other(self) -> Self {
        match self {
            Self::Base => Self::New,
            Self::New => Self::Base,
        }
    }
}

impl Alignment {
    /// Puts the sides beside each other. Names are only looked for among functions of at least the share
    /// `floor` of a side's total. `basis` and `work`: what costs are compared by.
    pub fn new(base: &Runs<'_>, new: &Runs<'_>, basis: &Basis, work: &[f64], floor: f64) -> Self {
        let runs: Vec<&Run> = base.runs.iter().chain(&new.runs).copied().collect();
        let totals: Vec<f64> = runs.iter().map(|run| run.total as f64).collect();
        let mut alignment = Self {
            base_runs: base.runs.len(),
            divisors: match basis {
                Basis::Share => totals.clone(),
                Basis::PerWork { .. } => work.to_vec(),
                Basis::PerRun => vec![1.0; runs.len()],
            },
            totals,
            rows: Vec::new(),
            renamed_modules: Vec::new(),
            notes: Vec::new(),
        };
        let mut by_key: foldhash::HashMap<&FunctionKey, usize> = foldhash::HashMap::default();
        // The new side's names and lines are those that a reader has before him: it is read last.
        let mut last_known: Vec<&FunctionCost> = Vec::new();
        let mut calls: [IndexMap<(u32, u32), f64>; 2] = [IndexMap::default(), IndexMap::default()];
        for (column, run) in runs.iter().enumerate() {
            let side = usize::from(column >= base.runs.len());
            let mut row_of: Vec<u32> = Vec::with_capacity(run.functions.len());
            for function in &run.functions {
                let row = *by_key.entry(&function.key).or_insert_with(|| {
                    alignment.rows.push(Row::new(&function.key, runs.len()));
                    last_known.push(function);
                    alignment.rows.len() - 1
                });
                // There are no more functions than a run can number.
                row_of.push(u32::try_from(row).unwrap_or(u32::MAX));
                if let (Some(known), Some(last)) = (alignment.rows.get_mut(row), last_known.get_mut(row)) {
                    known.add(function, column);
                    *last = function;
                }
            }
            let Some(calls) = calls.get_mut(side) else { continue };
            for call in &run.calls {
                if let (Some(&caller), Some(&callee)) =
                    (row_of.get(call.caller as usize), row_of.get(call.callee as usize))
                {
                    *calls.entry((caller, callee)).or_default() += call.value as f64;
                }
            }
        }
        for (row, function) in alignment.rows.iter_mut().zip(last_known) {
            row.subject = Subject::of(function);
        }
        for (side, calls) in calls.into_iter().enumerate() {
            // In one order each time, so that sums are the same each time.
            let mut calls: Vec<((u32, u32), f64)> = calls.into_iter().collect();
            calls.sort_unstable_by_key(|(call, _)| *call);
            for ((caller, callee), value) in calls {
                alignment.add_call(side, caller as usize, callee as usize, value);
            }
        }
        renaming::put_together(&mut alignment, floor);
        inlining::put_together(&mut alignment, floor);
        regrouping::put_together(&mut alignment, floor);
        alignment
    }

    fn add_call(&mut self, side: usize, caller: usize, callee: usize, value: f64) {
        if let Some(callers) = self.rows.get_mut(callee).and_then(|row| row.callers.get_mut(side)) {
            callers.push((caller, value));
        }
        if let Some(callees) = self.rows.get_mut(caller).and_then(|row| row.callees.get_mut(side)) {
            callees.push((callee, value));
        }
    }

    /// The columns of a side.
    pub fn columns(&self, side: Which) -> std::ops::Range<usize> {
        match side {
            Which::Base => 0..self.base_runs,
            Which::New => self.base_runs..self.totals.len(),
        }
    }

    /// The part of a side's total that these values are.
    pub fn share(&self, values: &[f64], side: Which) -> f64 {
        let columns = self.columns(side);
        let sum = |values: &[f64]| values.get(columns.clone()).unwrap_or_default().iter().sum::<f64>();
        sum(values) / sum(&self.totals)
    }

    /// The mean of what these values are of a run of a side, as costs are compared. What vanishes makes all other shares
    /// greater, but no cost by work or of executions.
    pub fn cost(&self, values: &[f64], side: Which) -> f64 {
        let columns = self.columns(side);
        let divided = values.iter().zip(&self.divisors).skip(columns.start).take(columns.len());
        divided.map(|(value, divisor)| value / divisor).sum::<f64>() / columns.len().max(1) as f64
    }
}

impl Subject {
    fn of(function: &FunctionCost) -> Self {
        Self {
            name: function.name.to_string(),
            module: function.module_path.to_string(),
            file: function.file.to_string(),
            line: function.line,
            key: Some(function.key.clone()),
        }
    }
}

impl Row {
    fn new(key: &FunctionKey, columns: usize) -> Self {
        Self {
            subject: Subject::default(),
            key: key.clone(),
            own: vec![0.0; columns],
            inclusive: vec![0.0; columns],
            origin: None,
            callers: [Vec::new(), Vec::new()],
            callees: [Vec::new(), Vec::new()],
        }
    }

    fn add(&mut self, function: &FunctionCost, column: usize) {
        if let (Some(own), Some(inclusive)) = (self.own.get_mut(column), self.inclusive.get_mut(column)) {
            *own += function.self_value as f64;
            *inclusive += function.inclusive_value as f64;
        }
    }

    /// Its costs and calls, of which nothing stays.
    pub fn take(&mut self) -> Self {
        let columns = self.own.len();
        Self {
            own: std::mem::replace(&mut self.own, vec![0.0; columns]),
            inclusive: std::mem::replace(&mut self.inclusive, vec![0.0; columns]),
            callers: std::mem::take(&mut self.callers),
            callees: std::mem::take(&mut self.callees),
            ..self.clone()
        }
    }

    /// Takes what another row has. Its name stays where `other` is the base's.
    pub fn absorb(&mut self, other: Self) {
        for (value, added) in self.own.iter_mut().zip(&other.own) {
            *value += added;
        }
        // A function that is counted twice in one stack would be more than all: what is put together does not
        // occur on the same side.
        for (value, added) in self.inclusive.iter_mut().zip(&other.inclusive) {
            *value += added;
        }
        for (mine, others) in self.callers.iter_mut().zip(other.callers) {
            mine.extend(others);
        }
        for (mine, others) in self.callees.iter_mut().zip(other.callees) {
            mine.extend(others);
        }
    }
}
