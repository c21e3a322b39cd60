//! One run: what each function cost in it.

use std::collections::HashMap;

use super::FunctionKey;
use super::run_facts::RunFacts;
use super::stacks::{GrowingStacks, StackNode};
use crate::export::flame_tree::MAX_DEPTH;
use crate::export::frame_text::module_name;
use crate::model::{Frame, IndexMap, Location, Profile, ValueType};

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
        let mut functions = Functions::default();
        let mut by_location = FunctionsByLocation::default();
        for location in &profile.locations {
            by_location.add(functions.of_location(profile, location));
        }
        let mut costs = Costs::new(functions.rows.len());
        let mut growing = wanted.stacks.then(GrowingStacks::default);
        for (stack, &value) in profile.stacks.iter().zip(&by_stack) {
            if value == 0 {
                continue;
            }
            costs.add(stack, &by_location, value);
            if let Some(growing) = &mut growing {
                let root_first =
                    stack.iter().rev().flat_map(|&location| by_location.get(location).iter().rev().copied());
                growing
                    .add(root_first, value)
                    .map_err(|_| RunError::TooDeep { run: name.to_owned(), limit: MAX_DEPTH })?;
            }
        }
        let (functions, calls) = costs.finish(functions.rows);
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

/// Functions as they are met.
#[derive(Default)]
struct Functions {
    rows: Vec<FunctionCost>,
    by_key: HashMap<FunctionKey, u32>,
    /// By function and mapping of the profile, so that a name is looked at once.
    by_origin: IndexMap<(u32, u32), u32>,
}

/// Stands for a function or mapping that there is none of.
const NONE: u32 = u32::MAX;

impl Functions {
    /// The functions of a location, the innermost first.
    fn of_location(&mut self, profile: &Profile, location: &Location) -> impl Iterator<Item = u32> {
        let mapping = location.mapping.unwrap_or(NONE);
        let nameless = Frame { function: NONE, line: 0 };
        let nameless = location.frames.is_empty().then_some(nameless);
        let frames = location.frames.iter().copied().chain(nameless);
        frames.map(move |frame| self.row(profile, location, frame.function, mapping, frame.line))
    }

    fn row(&mut self, profile: &Profile, location: &Location, function: u32, mapping: u32, line: u32) -> u32 {
        // Code of no mapping is told apart by its sort.
        let mapping_or_kind = if mapping == NONE { NONE - 1 - location.kind as u32 } else { mapping };
        let known = self.by_origin.get(&(function, mapping_or_kind)).copied();
        let row = known.unwrap_or_else(|| {
            let path = match profile.mappings.get(mapping as usize) {
                Some(mapping) if !mapping.path.is_empty() => mapping.path.as_str(),
                _ => location.kind.mapping_path().unwrap_or("unknown"),
            };
            let row = self.add(profile, function, path);
            self.by_origin.insert((function, mapping_or_kind), row);
            row
        });
        // The first line of a function is often not told; the first one seen in it is near.
        let has_start = profile.functions.get(function as usize).is_some_and(|known| known.start_line > 0);
        if !has_start
            && line > 0
            && let Some(known) = self.rows.get_mut(row as usize)
            && (known.line == 0 || line < known.line)
        {
            known.line = line;
        }
        row
    }

    fn add(&mut self, profile: &Profile, function: u32, path: &str) -> u32 {
        let function = profile.functions.get(function as usize);
        let key = FunctionKey::new(function.map_or("", |function| function.name.as_str()), path);
        let next = u32::try_from(self.rows.len()).unwrap_or(NONE);
        let row = *self.by_key.entry(key.clone()).or_insert(next);
        if row == next {
            let name = function.map_or("", |function| function.name.as_str());
            self.rows.push(FunctionCost {
                name: if name.is_empty() { format!("[{}]", module_name(path)) } else { name.to_owned() },
                module_path: path.to_owned(),
                file: function.map_or_else(String::new, |function| function.file.clone()),
                line: function.map_or(0, |function| function.start_line),
                key,
                self_value: 0,
                inclusive_value: 0,
            });
        }
        row
    }
}

/// The functions of each location, the innermost first, end to end.
#[derive(Default)]
struct FunctionsByLocation {
    functions: Vec<u32>,
    /// Where those of each location end; they begin where the ones before them end.
    ends: Vec<usize>,
}

impl FunctionsByLocation {
    fn add(&mut self, functions: impl Iterator<Item = u32>) {
        self.functions.extend(functions);
        self.ends.push(self.functions.len());
    }

    #[inline]
    fn get(&self, location: u32) -> &[u32] {
        let location = location as usize;
        let begin = location.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(location).copied().unwrap_or(begin);
        self.functions.get(begin..end).unwrap_or_default()
    }
}

/// Sums while stacks are walked. They are by function, and apart from the functions' names: what is looked at for each
/// frame of each stack should lie close together.
struct Costs {
    own: Vec<u64>,
    inclusive: Vec<Sum>,
    calls: IndexMap<(u32, u32), Sum>,
    stack_number: u64,
}

/// A sum over stacks, and the number of the last stack that is in it, so that recursion counts once.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: u64,
    last_met: u64,
}

impl Sum {
    #[inline]
    fn add_once(&mut self, value: u64, stack_number: u64) {
        if self.last_met != stack_number {
            self.last_met = stack_number;
            self.value = self.value.saturating_add(value);
        }
    }
}

impl Costs {
    fn new(functions: usize) -> Self {
        Self {
            own: vec![0; functions],
            inclusive: vec![Sum::default(); functions],
            calls: IndexMap::default(),
            stack_number: 0,
        }
    }

    fn add(&mut self, stack: &[u32], by_location: &FunctionsByLocation, value: u64) {
        self.stack_number += 1;
        let number = self.stack_number;
        let mut callee = None;
        for &function in stack.iter().flat_map(|&location| by_location.get(location)) {
            let Some(inclusive) = self.inclusive.get_mut(function as usize) else { continue };
            inclusive.add_once(value, number);
            match callee {
                None => {
                    if let Some(own) = self.own.get_mut(function as usize) {
                        *own = own.saturating_add(value);
                    }
                }
                Some(callee) if callee != function => {
                    self.calls.entry((function, callee)).or_default().add_once(value, number);
                }
                Some(_) => {}
            }
            callee = Some(function);
        }
    }

    fn finish(self, mut functions: Vec<FunctionCost>) -> (Vec<FunctionCost>, Vec<Call>) {
        for (function, (own, inclusive)) in functions.iter_mut().zip(self.own.iter().zip(&self.inclusive)) {
            function.self_value = *own;
            function.inclusive_value = inclusive.value;
        }
        let call = |((caller, callee), sum): ((u32, u32), Sum)| Call { caller, callee, value: sum.value };
        let mut calls: Vec<Call> = self.calls.into_iter().map(call).collect();
        calls.sort_unstable_by_key(|call| (call.caller, call.callee));
        (functions, calls)
    }
}
