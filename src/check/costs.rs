//! What functions cost, while the stacks of a profile are walked.

use std::collections::HashMap;

use super::FunctionKey;
use super::run::{Call, FunctionCost, in_order};
use crate::export::frame_text::module_name;
use crate::model::{Frame, IndexMap, Location, Profile};

/// The path of the object that a frame is said to be of: that of its mapping, or what stands for its sort.
pub(super) fn module_path<'a>(profile: &'a Profile, location: &Location) -> &'a str {
    let mapping = location.mapping.and_then(|index| profile.mappings.get(index as usize));
    match mapping {
        Some(mapping) if !mapping.path.is_empty() => mapping.path.as_str(),
        _ => location.kind.mapping_path().unwrap_or("unknown"),
    }
}

/// Functions as they are met.
#[derive(Default)]
pub(super) struct Functions {
    rows: Vec<FunctionCost>,
    by_key: HashMap<FunctionKey, u32>,
    /// By function and mapping of the profile, so that a name is looked at once.
    by_origin: IndexMap<(u32, u32), u32>,
}

/// Stands for a function or mapping that there is none of.
const NONE: u32 = u32::MAX;

impl Functions {
    /// The functions of a profile, which cost nothing yet, and which of them each location is of.
    pub(super) fn of_profile(profile: &Profile) -> (Vec<FunctionCost>, FunctionsByLocation) {
        let mut functions = Self::default();
        let mut by_location = FunctionsByLocation::default();
        for location in &profile.locations {
            by_location.add(functions.of_location(profile, location));
        }
        (functions.rows, by_location)
    }

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
            let row = self.add(profile, function, module_path(profile, location));
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
pub(super) struct FunctionsByLocation {
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
    pub(super) fn get(&self, location: u32) -> &[u32] {
        let location = location as usize;
        let begin = location.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(location).copied().unwrap_or(begin);
        self.functions.get(begin..end).unwrap_or_default()
    }
}

/// Sums while stacks are walked, for each of `PARTS` parts of a profile. They are by function, and apart from the
/// functions' names: what is looked at for each frame of each stack should lie close together.
#[derive(Debug)]
pub(super) struct Costs<const PARTS: usize> {
    own: Vec<[u64; PARTS]>,
    inclusive: Vec<Sum<PARTS>>,
    calls: IndexMap<(u32, u32), Sum<PARTS>>,
    stack_number: u64,
}

/// Sums over stacks, and the number of the last stack that is in them, so that recursion counts once.
#[derive(Debug, Clone, Copy)]
struct Sum<const PARTS: usize> {
    values: [u64; PARTS],
    last_met: u64,
}

impl<const PARTS: usize> Default for Sum<PARTS> {
    fn default() -> Self {
        Self { values: [0; PARTS], last_met: 0 }
    }
}

impl<const PARTS: usize> Sum<PARTS> {
    #[inline]
    fn add_once(&mut self, values: &[u64; PARTS], stack_number: u64) {
        if self.last_met != stack_number {
            self.last_met = stack_number;
            add(&mut self.values, values);
        }
    }
}

#[inline]
fn add<const PARTS: usize>(sums: &mut [u64; PARTS], values: &[u64; PARTS]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.saturating_add(*value);
    }
}

impl<const PARTS: usize> Costs<PARTS> {
    pub(super) fn new(functions: usize) -> Self {
        Self {
            own: vec![[0; PARTS]; functions],
            inclusive: vec![Sum::default(); functions],
            calls: IndexMap::default(),
            stack_number: 0,
        }
    }

    /// Adds what a stack, of locations, cost in each part.
    pub(super) fn add(&mut self, stack: &[u32], by_location: &FunctionsByLocation, values: &[u64; PARTS]) {
        self.stack_number += 1;
        let number = self.stack_number;
        let mut callee = None;
        for &function in stack.iter().flat_map(|&location| by_location.get(location)) {
            let Some(inclusive) = self.inclusive.get_mut(function as usize) else { continue };
            inclusive.add_once(values, number);
            match callee {
                None => {
                    if let Some(own) = self.own.get_mut(function as usize) {
                        add(own, values);
                    }
                }
                Some(callee) if callee != function => {
                    self.calls.entry((function, callee)).or_default().add_once(values, number);
                }
                Some(_) => {}
            }
            callee = Some(function);
        }
    }

    /// What each function cost with all that it called, in each part.
    pub(super) fn inclusive(&self) -> impl Iterator<Item = &[u64; PARTS]> {
        self.inclusive.iter().map(|sum| &sum.values)
    }

    /// What one part cost, of the wanted ones of `functions` (their indices), and those alone that it has.
    pub(super) fn of_part(
        &self,
        functions: &[FunctionCost],
        part: usize,
        wanted: &[u32],
    ) -> (Vec<FunctionCost>, Vec<Call>) {
        let in_part = |values: &[u64; PARTS]| values.get(part).copied().unwrap_or(0);
        let mut place_of = vec![NONE; functions.len()];
        let mut costs = Vec::new();
        for &row in wanted {
            let at = row as usize;
            let (Some(function), Some(own), Some(inclusive), Some(place)) =
                (functions.get(at), self.own.get(at), self.inclusive.get(at), place_of.get_mut(at))
            else {
                continue;
            };
            let (self_value, inclusive_value) = (in_part(own), in_part(&inclusive.values));
            if inclusive_value > 0 {
                *place = u32::try_from(costs.len()).unwrap_or(NONE);
                costs.push(FunctionCost { self_value, inclusive_value, ..function.clone() });
            }
        }
        let place = |row: u32| place_of.get(row as usize).copied().filter(|&place| place != NONE);
        let calls = self.calls.iter().filter_map(|(&(caller, callee), sum)| {
            let value = in_part(&sum.values);
            let call = (place(caller)?, place(callee)?);
            (value > 0).then_some((call, value))
        });
        (costs, in_order(calls))
    }
}

impl Costs<1> {
    /// What all of it cost: every function, also those that cost nothing.
    pub(super) fn finish(self, mut functions: Vec<FunctionCost>) -> (Vec<FunctionCost>, Vec<Call>) {
        for (function, (own, inclusive)) in functions.iter_mut().zip(self.own.iter().zip(&self.inclusive)) {
            [function.self_value] = *own;
            [function.inclusive_value] = inclusive.values;
        }
        let calls = self.calls.into_iter().map(|(call, Sum { values: [value], .. })| (call, value));
        (functions, in_order(calls))
    }
}
