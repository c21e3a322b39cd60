//! One run: what each function cost in it.

use super::FunctionKey;
use super::costs::{Costs, Functions};
use super::run_facts::RunFacts;
use super::stacks::{GrowingStacks, StackNode};
use crate::export::flame_tree::MAX_DEPTH;
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
    pub name: String,
    /// Path of its object, or what stands for it.
    pub module_path: String,
    /// Source file, empty if unknown.
    pub file: String,
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
    /// A stack is too deep to be drawn.
    #[error(
        "{run}: has a stack of more than {limit} functions, which cannot be drawn: leave `--report svg=` away"
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
    /// Whether to keep stacks: only a picture needs them.
    pub stacks: bool,
}

impl Run {
    /// What each function cost in a profile whose indices hold. Takes time proportional to the frames of all different
    /// stacks.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn from_profile(
        profile: &Profile,
        name: &str,
        wanted: Wanted<'_>,
        facts: RunFacts,
    ) -> Result<Self, RunError> {
        let known = || profile.value_types.iter().map(type_text).collect::<Vec<_>>().join(", ");
        let index = match wanted.value {
            None => profile.default_value,
            Some(wanted) => profile.value_index(wanted).ok_or_else(|| RunError::NoSuchValue {
                run: name.to_owned(),
                wanted: wanted.to_owned(),
                known: known(),
            })?,
        };
        let by_stack =
            values_by_stack(profile, index).ok_or_else(|| RunError::Negative { run: name.to_owned() })?;
        let total = by_stack.iter().fold(0_u64, |sum, value| sum.saturating_add(*value));
        let (Some(value_type), true) = (profile.value_types.get(index), total > 0) else {
            return Err(RunError::Empty { run: name.to_owned() });
        };
        let (functions, by_location) = Functions::of_profile(profile);
        let mut costs = Costs::<1>::new(functions.len());
        let mut growing = wanted.stacks.then(GrowingStacks::default);
        for (stack, &value) in profile.stacks.iter().zip(&by_stack) {
            if value == 0 {
                continue;
            }
            costs.add(stack, &by_location, &[value]);
            if let Some(growing) = &mut growing {
                let root_first =
                    stack.iter().rev().flat_map(|&location| by_location.get(location).iter().rev().copied());
                growing
                    .add(root_first, value)
                    .map_err(|_| RunError::TooDeep { run: name.to_owned(), limit: MAX_DEPTH })?;
            }
        }
        let (functions, calls) = costs.finish(functions);
        Ok(Self {
            name: name.to_owned(),
            value_type: value_type.clone(),
            total,
            sample_count: sample_count(profile, value_type, total),
            duration_ns: profile.duration_ns,
            facts,
            functions,
            calls,
            stacks: growing.map_or_else(Vec::new, GrowingStacks::into_nodes),
        })
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

/// The value of each stack over all its samples; none if one is negative.
fn values_by_stack(profile: &Profile, index: usize) -> Option<Vec<u64>> {
    let mut values = vec![0_u64; profile.stacks.len()];
    for sample in &profile.samples {
        let value = u64::try_from(sample.values.get(index).copied().unwrap_or(0)).ok()?;
        if let Some(sum) = values.get_mut(sample.stack as usize) {
            *sum = sum.saturating_add(value);
        }
    }
    Some(values)
}

/// Samples that a profile was made of, if it says so.
fn sample_count(profile: &Profile, shown: &ValueType, total: u64) -> Option<u64> {
    if shown.unit == "count" {
        return Some(total);
    }
    let counted = profile.value_types.iter().position(|value_type| value_type.unit == "count");
    counted.and_then(|index| u64::try_from(profile.total(index)).ok())
}
