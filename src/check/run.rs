//! One run: what each function cost in it.

use std::sync::Arc;

use super::FunctionKey;
use super::costs::{Costs, FunctionsByLocation, functions_of};
use super::run_facts::RunFacts;
use super::stacks::{GrowingStacks, StackNode};
use crate::export::flame_tree::MAX_DEPTH;
use crate::ingest::{self, SampleVisitor};
use crate::model::{IndexMap, Profile, ValueType};

/// One run of a program, or one window of a server's time: the unit that is counted with.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// How messages call it: the file, or the window's range.
    pub name: String,
    /// What the values below are.
    pub value_type: ValueType,
    /// The sum over all samples, in the unit of `value_type`.
    pub total: u64,
    /// Samples that were taken. Not known for a profile that has lost them (folded stacks of nanoseconds).
    pub sample_count: Option<u64>,
    /// How long it was recorded, nanoseconds; 0 if unknown.
    pub duration_ns: u64,
    /// What else is known of it.
    pub facts: RunFacts,
    /// What each function cost; no key twice.
    pub functions: Vec<FunctionCost>,
    /// Who called whom; no pair twice.
    pub calls: Vec<Call>,
    /// The stacks as a tree, each node followed by all that is below it; empty if they were not to be kept.
    pub stacks: Vec<StackNode>,
}

/// What a function cost in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCost {
    /// Which function.
    pub key: FunctionKey,
    /// Its name as the profile has it.
    pub name: Arc<str>,
    /// Path of its object, or what stands for it.
    pub module_path: Arc<str>,
    /// Source file, empty if unknown.
    pub file: Arc<str>,
    /// The function's first line, or the first that was seen in it; 0 if unknown.
    pub line: u32,
    /// What it cost itself.
    pub self_value: u64,
    /// What it cost with all that it called; counted once where it calls itself.
    pub inclusive_value: u64,
}

/// That a function called another; both are indices of [`Run::functions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Who called.
    pub caller: u32,
    /// Who was called.
    pub callee: u32,
    /// What the calls cost.
    pub value: u64,
}

/// Why a profile is no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// It has no such value.
    #[error("{run}: has no value `{wanted}`; it has {known}: choose one by --value")]
    NoSuchValue {
        /// The run.
        run: String,
        /// What was asked for.
        wanted: String,
        /// What there is, as `kind/unit`.
        known: String,
    },
    /// It has no samples.
    #[error(
        "{run}: has no samples: record longer, or at a higher frequency, and see that the program used the CPU"
    )]
    Empty {
        /// The run.
        run: String,
    },
    /// It takes away, as the difference of two profiles does.
    #[error("{run}: has negative values, as a difference of two profiles does: give the profiles themselves")]
    Negative {
        /// The run.
        run: String,
    },
    /// A stack is too deep for a tree.
    #[error(
        "{run}: has a stack of more than {limit} functions, too many for a picture and for an allow-list: leave \
         `--report svg=` and `--allow` away"
    )]
    TooDeep {
        /// The run.
        run: String,
        /// The most functions that a stack may have.
        limit: usize,
    },
}

/// What of a profile is wanted in its run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Name of the value to compare, by default the one that the profile itself shows.
    pub value: Option<&'a str>,
    /// Whether to keep stacks: only a picture and an allow-list need them.
    pub stacks: bool,
}

impl Run {
    /// What each function cost in a profile whose indices hold. Takes time proportional to the frames of all samples.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn from_profile(
        profile: &Profile,
        name: &str,
        wanted: Wanted<'_>,
        facts: RunFacts,
    ) -> Result<Self, RunError> {
        let mut growing = GrowingRun::new(name, wanted);
        ingest::visit(profile, &mut growing);
        growing.finish(facts)
    }

    /// Adds what a later run cost, as if both had been one. Stacks are not kept.
    pub(super) fn absorb(&mut self, later: &Self) {
        self.total = self.total.saturating_add(later.total);
        self.sample_count =
            self.sample_count.zip(later.sample_count).map(|(one, other)| one.saturating_add(other));
        self.duration_ns = self.duration_ns.saturating_add(later.duration_ns);
        self.facts.windows =
            self.facts.windows.zip(later.facts.windows).map(|(one, other)| one.saturating_add(other));
        self.stacks = Vec::new();
        let mut places: foldhash::HashMap<FunctionKey, usize> =
            self.functions.iter().enumerate().map(|(at, function)| (function.key.clone(), at)).collect();
        let mut moved = Vec::with_capacity(later.functions.len());
        for function in &later.functions {
            let at = *places.entry(function.key.clone()).or_insert(self.functions.len());
            moved.push(u32::try_from(at).unwrap_or(u32::MAX));
            match self.functions.get_mut(at) {
                Some(known) => {
                    known.self_value = known.self_value.saturating_add(function.self_value);
                    known.inclusive_value = known.inclusive_value.saturating_add(function.inclusive_value);
                    // The first line that was seen of it.
                    if known.line == 0 || function.line > 0 && function.line < known.line {
                        known.line = function.line;
                    }
                }
                None => self.functions.push(function.clone()),
            }
        }
        let mut calls: IndexMap<(u32, u32), u64> =
            self.calls.iter().map(|call| ((call.caller, call.callee), call.value)).collect();
        for call in &later.calls {
            let place = |function: u32| moved.get(function as usize).copied();
            if let (Some(caller), Some(callee)) = (place(call.caller), place(call.callee)) {
                let sum = calls.entry((caller, callee)).or_default();
                *sum = sum.saturating_add(call.value);
            }
        }
        self.calls = in_order(calls.into_iter());
    }
}

/// A run that grows by samples.
#[derive(Debug)]
pub struct GrowingRun<'a> {
    name: &'a str,
    wanted: Wanted<'a>,
    /// None before there was anything.
    sums: Option<Result<Sums, RunError>>,
}

#[derive(Debug)]
struct Sums {
    value_type: ValueType,
    /// Its index in a sample's values.
    value: usize,
    /// That of the value which counts samples.
    counted: Option<usize>,
    duration_ns: u64,
    total: u64,
    count: i64,
    functions: Vec<FunctionCost>,
    by_location: FunctionsByLocation,
    /// The functions of the sample at hand.
    stack: Vec<u32>,
    costs: Costs<1>,
    stacks: Option<GrowingStacks>,
}

impl SampleVisitor for GrowingRun<'_> {
    fn begin(&mut self, tables: &Profile) {
        self.sums = Some(self.no_samples(tables));
    }

    fn sample(&mut self, stack: &[u32], values: &[i64]) {
        if let Some(Ok(sums)) = &mut self.sums
            && let Err(why) = sums.add(self.name, stack, values)
        {
            self.sums = Some(Err(why));
        }
    }
}

impl<'a> GrowingRun<'a> {
    /// One without samples, of this name in messages.
    #[must_use]
    pub fn new(name: &'a str, wanted: Wanted<'a>) -> Self {
        Self { name, wanted, sums: None }
    }

    fn no_samples(&self, tables: &Profile) -> Result<Sums, RunError> {
        let known = || tables.value_types.iter().map(type_text).collect::<Vec<_>>().join(", ");
        let value = match self.wanted.value {
            None => tables.default_value,
            Some(wanted) => tables.value_index(wanted).ok_or_else(|| RunError::NoSuchValue {
                run: self.name.to_owned(),
                wanted: wanted.to_owned(),
                known: known(),
            })?,
        };
        let value_type = tables.value_types.get(value).ok_or_else(|| self.empty())?.clone();
        let (functions, by_location) = functions_of(tables);
        Ok(Sums {
            value_type,
            value,
            counted: tables.value_types.iter().position(|value_type| value_type.unit == "count"),
            duration_ns: tables.duration_ns,
            total: 0,
            count: 0,
            costs: Costs::new(functions.len()),
            functions,
            by_location,
            stack: Vec::new(),
            stacks: self.wanted.stacks.then(GrowingStacks::default),
        })
    }

    fn empty(&self) -> RunError {
        RunError::Empty { run: self.name.to_owned() }
    }

    /// The run.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn finish(self, facts: RunFacts) -> Result<Run, RunError> {
        let empty = self.empty();
        let sums = self.sums.ok_or_else(|| empty.clone())??;
        if sums.total == 0 {
            return Err(empty);
        }
        let (functions, calls) = sums.costs.finish(sums.functions);
        Ok(Run {
            name: self.name.to_owned(),
            sample_count: match (sums.value_type.unit.as_str(), sums.counted) {
                ("count", _) => Some(sums.total),
                (_, Some(_)) => u64::try_from(sums.count).ok(),
                (_, None) => None,
            },
            value_type: sums.value_type,
            total: sums.total,
            duration_ns: sums.duration_ns,
            facts,
            functions,
            calls,
            stacks: sums.stacks.map_or_else(Vec::new, GrowingStacks::into_nodes),
        })
    }
}

impl Sums {
    fn add(&mut self, name: &str, stack: &[u32], values: &[i64]) -> Result<(), RunError> {
        let of = |index: usize| values.get(index).copied().unwrap_or(0);
        self.count = self.count.saturating_add(self.counted.map_or(0, of));
        let value = u64::try_from(of(self.value)).map_err(|_| RunError::Negative { run: name.to_owned() })?;
        if value == 0 {
            return Ok(());
        }
        self.total = self.total.saturating_add(value);
        self.by_location.of_stack(stack, &mut self.stack);
        self.costs.add(&self.stack, &[value]);
        if let Some(stacks) = &mut self.stacks {
            stacks
                .add(self.stack.iter().rev().copied(), value)
                .map_err(|_| RunError::TooDeep { run: name.to_owned(), limit: MAX_DEPTH })?;
        }
        Ok(())
    }
}

/// Calls in the order of the functions, the same each time.
pub(super) fn in_order(calls: impl Iterator<Item = ((u32, u32), u64)>) -> Vec<Call> {
    let mut calls: Vec<Call> =
        calls.map(|((caller, callee), value)| Call { caller, callee, value }).collect();
    calls.sort_unstable_by_key(|call| (call.caller, call.callee));
    calls
}

/// `kind/unit`.
pub(super) fn type_text(value_type: &ValueType) -> String {
    format!("{}/{}", value_type.kind, value_type.unit)
}
