//! What functions cost, while the stacks of a profile are walked.

use std::sync::Arc;

use super::FunctionKey;
use super::function_key::{stable_module, stable_name_or_none};
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
struct Functions {
    rows: Vec<FunctionCost>,
    /// By the numbers of its name and of its module.
    by_identity: IndexMap<(u32, u32), u32>,
    names: Names,
    /// By mapping of the profile, or what stands for the sort of code without one.
    modules: IndexMap<u32, Module>,
    module_numbers: foldhash::HashMap<Arc<str>, u32>,
}

/// Stands for a function or mapping that there is none of.
const NONE: u32 = u32::MAX;

/// The functions of a profile, which cost nothing yet, and which of them each location is of.
pub(super) fn functions_of(profile: &Profile) -> (Vec<FunctionCost>, FunctionsByLocation) {
    let mut functions = Functions::default();
    let mut by_location = FunctionsByLocation::default();
    for location in &profile.locations {
        let nameless = Frame { function: NONE, line: 0 };
        let nameless = location.frames.is_empty().then_some(nameless);
        let frames = location.frames.iter().copied().chain(nameless);
        by_location.add(frames.map(|frame| functions.row(profile, location, frame)));
    }
    (functions.rows, by_location)
}

impl Functions {
    fn row(&mut self, profile: &Profile, location: &Location, frame: Frame) -> u32 {
        let name = self.names.of(profile, frame.function);
        // Code of no mapping is told apart by its sort.
        let mapping_or_kind = location.mapping.unwrap_or(NONE - 1 - location.kind as u32);
        let module = self.modules.entry(mapping_or_kind).or_insert_with(|| {
            let path = module_path(profile, location);
            let name: Arc<str> = stable_module(path).into();
            Module { path: path.into(), number: number_of(&mut self.module_numbers, &name), name }
        });
        let next = u32::try_from(self.rows.len()).unwrap_or(NONE);
        let row = *self.by_identity.entry((name.number, module.number)).or_insert(next);
        let function = profile.functions.get(frame.function as usize);
        if row == next {
            self.rows.push(FunctionCost {
                key: FunctionKey { name: Arc::clone(&name.stable), module: Arc::clone(&module.name) },
                name: match &*name.written {
                    "" => format!("[{}]", module_name(&module.path)).into(),
                    _ => Arc::clone(&name.written),
                },
                module_path: Arc::clone(&module.path),
                file: function.map_or("", |function| function.file.as_str()).into(),
                line: function.map_or(0, |function| function.start_line),
                self_value: 0,
                inclusive_value: 0,
            });
        }
        // The first line of a function is often not told; the first one seen in it is near.
        if function.is_none_or(|function| function.start_line == 0)
            && frame.line > 0
            && let Some(known) = self.rows.get_mut(row as usize)
            && (known.line == 0 || frame.line < known.line)
        {
            known.line = frame.line;
        }
        row
    }
}

struct Module {
    path: Arc<str>,
    /// Of the functions' identities.
    name: Arc<str>,
    number: u32,
}

/// The names of a profile's functions, each looked at once.
#[derive(Default)]
struct Names {
    by_function: IndexMap<u32, Name>,
    numbers: foldhash::HashMap<Arc<str>, u32>,
}

#[derive(Clone)]
struct Name {
    written: Arc<str>,
    /// Of the function's identity.
    stable: Arc<str>,
    number: u32,
}

impl Names {
    fn of(&mut self, profile: &Profile, function: u32) -> &Name {
        self.by_function.entry(function).or_insert_with(|| {
            let function = profile.functions.get(function as usize);
            let written: Arc<str> = function.map_or("", |function| function.name.as_str()).into();
            let stable = match stable_name_or_none(&written) {
                same if *same == *written => Arc::clone(&written),
                other => other.into(),
            };
            let number = number_of(&mut self.numbers, &stable);
            Name { written, stable, number }
        })
    }
}

/// Numbers texts in the order in which they are met.
fn number_of(numbers: &mut foldhash::HashMap<Arc<str>, u32>, text: &Arc<str>) -> u32 {
    let next = u32::try_from(numbers.len()).unwrap_or(NONE);
    *numbers.entry(Arc::clone(text)).or_insert(next)
}

/// The functions of each location, the innermost first. Nearly all have one or two, which then stand here themselves.
#[derive(Debug, Default)]
pub(super) struct FunctionsByLocation {
    /// By location: its only function and [`NONE`], or its two; else [`SEVERAL`] and a place in `several`.
    functions: Vec<[u32; 2]>,
    /// How many they are, followed by them.
    several: Vec<u32>,
}

const SEVERAL: u32 = 1 << 31;

impl FunctionsByLocation {
    fn add(&mut self, functions: impl Iterator<Item = u32>) {
        let at = self.several.len();
        self.several.push(0);
        self.several.extend(functions);
        let row = match self.several.get_mut(at..) {
            Some(&mut [_, one]) if one & SEVERAL == 0 => [one, NONE],
            Some(&mut [_, inner, outer]) if inner & SEVERAL == 0 => [inner, outer],
            Some([count, several @ ..]) => {
                *count = u32::try_from(several.len()).unwrap_or(NONE);
                [SEVERAL | u32::try_from(at).unwrap_or(NONE), NONE]
            }
            _ => [NONE, NONE],
        };
        if row[0] & SEVERAL == 0 {
            self.several.truncate(at);
        }
        self.functions.push(row);
    }

    fn several(&self, row: u32) -> &[u32] {
        let (count, rest) = match self.several.get((row & !SEVERAL) as usize..) {
            Some([count, rest @ ..]) => (*count as usize, rest),
            _ => (0, &[][..]),
        };
        rest.get(..count).unwrap_or_default()
    }

    /// Puts the functions of a stack of locations in the place of what `functions` held; the innermost first, as in the
    /// stack.
    pub(super) fn of_stack(&self, stack: &[u32], functions: &mut Vec<u32>) {
        functions.clear();
        functions.resize(2 * stack.len(), NONE);
        let mut length = 0;
        for &location in stack {
            let Some(&[inner, outer]) = self.functions.get(location as usize) else { continue };
            let several = if inner & SEVERAL == 0 { &[][..] } else { self.several(inner) };
            if several.is_empty() {
                // Both are written, whether or not there are two: no processor foresees which frame has something
                // inlined, and a wrong guess takes as long as ten frames.
                if let Some(place) = functions.get_mut(length..).and_then(|rest| rest.first_chunk_mut()) {
                    *place = [inner, outer];
                }
                length += 1 + usize::from(outer != NONE);
            } else {
                functions.resize(functions.len() + several.len(), NONE);
                for (place, function) in functions.iter_mut().skip(length).zip(several) {
                    *place = *function;
                }
                length += several.len();
            }
        }
        functions.truncate(length);
    }
}

/// Sums while stacks are walked, for each of `PARTS` parts of a profile. They are by function, and apart from the
/// functions' names: what is looked at for each frame of each stack should lie close together.
#[derive(Debug)]
pub(super) struct Costs<const PARTS: usize> {
    own: Vec<[u64; PARTS]>,
    inclusive: Vec<Sum<PARTS>>,
    calls: IndexMap<(u32, u32), Sum<PARTS>>,
    chosen_for_calls: ChosenForCalls,
    stack_number: u32,
}

/// Sums over stacks, and the number of the last stack that is in them, so that recursion counts once.
#[derive(Debug, Clone, Copy)]
struct Sum<const PARTS: usize> {
    values: [u64; PARTS],
    last_met: u32,
}

impl<const PARTS: usize> Default for Sum<PARTS> {
    fn default() -> Self {
        Self { values: [0; PARTS], last_met: 0 }
    }
}

impl<const PARTS: usize> Sum<PARTS> {
    #[inline]
    fn add_once(&mut self, values: &[u64; PARTS], stack_number: u32) {
        // Nothing is added again, rather than left out: no processor foresees recursion.
        let unless_met = u64::from(self.last_met != stack_number).wrapping_neg();
        self.last_met = stack_number;
        add(&mut self.values, &values.map(|value| value & unless_met));
    }
}

/// Which stacks are looked at for who called whom. That is there to recognise what was renamed by its neighbours, for which
/// some thousand stacks tell as much as all, and takes longer than all else that is done with a stack.
///
/// A stack is chosen with a chance in proportion to its value, and then stands for others (systematic sampling with
/// probabilities proportional to size, Madow 1949); one that is great by itself always is, with its own value.
/// What is great grows with the sum, so that the first few thousand stacks all are.
#[derive(Debug, Default)]
struct ChosenForCalls {
    sum: u64,
    /// Of small values, what no chosen stack stands for yet.
    left: u64,
}

/// A value of this part of all that was met is great.
const GREAT: u64 = 1_024;

impl ChosenForCalls {
    /// The value that a stack of this value stands for, if it is chosen.
    #[inline]
    fn weight(&mut self, value: u64) -> Option<u64> {
        self.sum = self.sum.saturating_add(value);
        let great = self.sum / GREAT;
        if value >= great {
            return Some(value);
        }
        self.left = self.left.saturating_add(value);
        self.left = self.left.checked_sub(great)?;
        Some(great)
    }
}

#[inline]
fn add<const PARTS: usize>(sums: &mut [u64; PARTS], values: &[u64; PARTS]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.saturating_add(*value);
    }
}

/// A part of a value, after the value has become another.
fn scaled(part: u64, to: u64, from: u64) -> u64 {
    let scaled = u128::from(part) * u128::from(to) / u128::from(from.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

impl<const PARTS: usize> Costs<PARTS> {
    pub(super) fn new(functions: usize) -> Self {
        Self {
            own: vec![[0; PARTS]; functions],
            inclusive: vec![Sum::default(); functions],
            calls: IndexMap::default(),
            chosen_for_calls: ChosenForCalls::default(),
            stack_number: 0,
        }
    }

    /// Adds what a stack, of functions and the innermost first, cost in each part.
    pub(super) fn add(&mut self, functions: &[u32], values: &[u64; PARTS]) {
        // There are no 2^32 samples in what is read at once.
        self.stack_number = self.stack_number.wrapping_add(1);
        let number = self.stack_number;
        if let Some(own) = functions.first().and_then(|&leaf| self.own.get_mut(leaf as usize)) {
            add(own, values);
        }
        for &function in functions {
            if let Some(inclusive) = self.inclusive.get_mut(function as usize) {
                inclusive.add_once(values, number);
            }
        }
        let value = values.iter().fold(0_u64, |sum, value| sum.saturating_add(*value));
        if let Some(weight) = self.chosen_for_calls.weight(value) {
            self.add_calls(functions, &values.map(|part| scaled(part, weight, value)));
        }
    }

    fn add_calls(&mut self, functions: &[u32], values: &[u64; PARTS]) {
        for pair in functions.windows(2) {
            if let &[callee, caller] = pair
                && callee != caller
            {
                self.calls.entry((caller, callee)).or_default().add_once(values, self.stack_number);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_has_the_functions_of_its_locations_however_many_each_has() {
        let mut by_location = FunctionsByLocation::default();
        let of_locations: [&[u32]; 5] = [&[7], &[1, 2], &[3, 4, 5, 6], &[8, 7], &[9, 8, 7]];
        for functions in of_locations {
            by_location.add(functions.iter().copied());
        }
        let mut functions = vec![99];
        for stack in [&[][..], &[0], &[2], &[1, 0, 3], &[2, 4, 0, 1], &[0, 4, 2, 2], &[4, 9, 0]] {
            by_location.of_stack(stack, &mut functions);
            let expected = stack.iter().filter_map(|&location| of_locations.get(location as usize));
            assert_eq!(functions, expected.copied().flatten().copied().collect::<Vec<u32>>(), "{stack:?}");
        }
    }

    /// What stands for the stacks of each kind, of which stacks come in turn, each with its value.
    fn chosen(values: &[u64], stacks: usize) -> (usize, Vec<u64>) {
        let mut chosen = ChosenForCalls::default();
        let mut count = 0;
        let mut sums = vec![0; values.len()];
        // In no order, so that what comes in turn does not fall in step with what is chosen.
        let mut state = 7_u64;
        for _ in 0..stacks {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let kind = (state >> 33) as usize % values.len();
            if let Some(weight) = chosen.weight(values[kind]) {
                count += 1;
                sums[kind] += weight;
            }
        }
        (count, sums)
    }

    #[test]
    fn a_few_thousand_stacks_stand_for_all_in_proportion_to_their_values() {
        assert_eq!(chosen(&[7], 1_024), (1_024, vec![7 * 1_024]));
        let (count, sums) = chosen(&[1, 3, 40], 1_000_000);
        assert!(count < 10_000, "{count}");
        let all: u64 = sums.iter().sum();
        for (sum, share) in sums.iter().zip([1.0, 3.0, 40.0].map(|value| value / 44.0)) {
            let found = *sum as f64 / all as f64;
            // As of so many stacks that are chosen by chance: four standard errors.
            let error = ((1.0 - share) / (share * GREAT as f64)).sqrt();
            assert!((found / share - 1.0).abs() < 4.0 * error, "{found} instead of {share}");
        }
        assert!((all as f64 / (44e6 / 3.0) - 1.0).abs() < 0.01, "{all}");
        // What is great is not left to chance.
        let (_, sums) = chosen(&[1, 1, 1, 1, 1, 1, 1, 1_000_000], 8_000);
        assert_eq!(sums[7] % 1_000_000, 0);
    }
}
