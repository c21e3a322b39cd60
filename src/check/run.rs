//! One run: what each function cost in it.

use std::collections::HashMap;

use super::FunctionKey;
use super::run_facts::RunFacts;
use crate::export::frame_text::module_name;
use crate::model::{IndexMap, Location, Profile, ValueType};

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
}

impl Run {
    /// What each function cost in a profile whose indices hold. `value` is the name of the value to compare,
    /// by default the one that the profile itself shows. Takes time proportional to the frames of all different
    /// stacks.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn from_profile(
        profile: &Profile,
        name: &str,
        value: Option<&str>,
        facts: RunFacts,
    ) -> Result<Self, RunError> {
        let known = || profile.value_types.iter().map(type_text).collect::<Vec<_>>().join(", ");
        let index = match value {
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
        let frames_by_location: Vec<Vec<u32>> =
            profile.locations.iter().map(|location| functions.of_location(profile, location)).collect();
        let mut costs = Costs::new(functions.rows);
        for (stack, &value) in profile.stacks.iter().zip(&by_stack) {
            if value > 0 {
                costs.add(stack, &frames_by_location, value);
            }
        }
        let (functions, calls) = costs.finish();
        Ok(Self {
            name: name.to_owned(),
            value_type: value_type.clone(),
            total,
            sample_count: sample_count(profile, value_type, total),
            duration_ns: profile.duration_ns,
            facts,
            functions,
            calls,
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
    fn of_location(&mut self, profile: &Profile, location: &Location) -> Vec<u32> {
        let mapping = location.mapping.unwrap_or(NONE);
        if location.frames.is_empty() {
            return vec![self.row(profile, location, NONE, mapping, 0)];
        }
        let frames = location.frames.iter();
        frames.map(|frame| self.row(profile, location, frame.function, mapping, frame.line)).collect()
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

/// Sums while stacks are walked.
struct Costs {
    functions: Vec<FunctionCost>,
    /// The number of the last stack in which a function was met, so that recursion counts once.
    last_met: Vec<u64>,
    calls: IndexMap<(u32, u32), CallSum>,
    stack_number: u64,
}

/// The value of a call, and the number of the last stack in which it was met.
#[derive(Default)]
struct CallSum {
    value: u64,
    last_met: u64,
}

impl Costs {
    fn new(functions: Vec<FunctionCost>) -> Self {
        let last_met = vec![0; functions.len()];
        Self { functions, last_met, calls: IndexMap::default(), stack_number: 0 }
    }

    fn add(&mut self, stack: &[u32], frames_by_location: &[Vec<u32>], value: u64) {
        self.stack_number += 1;
        let mut callee = None;
        let frames = stack
            .iter()
            .flat_map(|&location| frames_by_location.get(location as usize).map_or(&[][..], Vec::as_slice));
        for &function in frames {
            let Some(cost) = self.functions.get_mut(function as usize) else { continue };
            if callee.is_none() {
                cost.self_value = cost.self_value.saturating_add(value);
            }
            if let Some(met) = self.last_met.get_mut(function as usize)
                && *met != self.stack_number
            {
                *met = self.stack_number;
                cost.inclusive_value = cost.inclusive_value.saturating_add(value);
            }
            if let Some(callee) = callee.filter(|&callee| callee != function) {
                let sum = self.calls.entry((function, callee)).or_default();
                if sum.last_met != self.stack_number {
                    sum.last_met = self.stack_number;
                    sum.value = sum.value.saturating_add(value);
                }
            }
            callee = Some(function);
        }
    }

    fn finish(self) -> (Vec<FunctionCost>, Vec<Call>) {
        let call = |((caller, callee), sum): ((u32, u32), CallSum)| Call { caller, callee, value: sum.value };
        let mut calls: Vec<Call> = self.calls.into_iter().map(call).collect();
        calls.sort_unstable_by_key(|call| (call.caller, call.callee));
        (self.functions, calls)
    }
}
