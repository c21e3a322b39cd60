//! The functions of a profile with what they took: the rows of `profiles/top`.

use crate::export::frame_text::frames_of_location;
use crate::model::{Interner, Profile};

/// A function, told from another by everything here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName {
    /// Name, or `[module+0xoff]` where there is none.
    pub name: String,
    /// Source file, empty if unknown.
    pub file: String,
    /// The function's first line, 0 if unknown.
    pub line: u32,
    /// Path of the object, empty if unknown.
    pub module: String,
}

/// A function with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRow {
    /// Which.
    pub function: FunctionName,
    /// The value of stacks that end in it.
    pub value_self: i64,
    /// The value of stacks that it is on, once each however often it is there.
    pub value_total: i64,
}

/// Sums one value by function, most self value first. Stacks without any frame are in no row. Linear in
/// the frames of all different stacks.
#[must_use]
pub fn functions(profile: &Profile, value: usize) -> Vec<FunctionRow> {
    let mut names = Interner::new();
    // Leaf first, as stacks are.
    let by_location: Vec<Vec<u32>> = profile
        .locations
        .iter()
        .map(|location| {
            let mapping = location.mapping.and_then(|index| profile.mappings.get(index as usize));
            let outermost_first = frames_of_location(profile, location);
            let with_functions = location.frames.iter().map(Some).chain([None]);
            let leaf_first = outermost_first.into_iter().rev().zip(with_functions);
            let number = leaf_first.map(|(named, frame)| {
                let function = frame.and_then(|frame| profile.functions.get(frame.function as usize));
                names.intern(FunctionName {
                    name: named.name.into_owned(),
                    file: named.file.to_owned(),
                    line: function.map_or(0, |function| function.start_line),
                    module: mapping.map_or_else(String::new, |mapping| mapping.path.clone()),
                })
            });
            number.collect()
        })
        .collect();

    // By stack first: a stack has as many samples as threads ran it.
    let mut by_stack = vec![0_i64; profile.stacks.len()];
    for sample in &profile.samples {
        if let Some(sum) = by_stack.get_mut(sample.stack as usize) {
            *sum = sum.saturating_add(sample.values.get(value).copied().unwrap_or(0));
        }
    }
    let mut sums = vec![(0_i64, 0_i64); names.len()];
    // The last stack, plus one, that counted for each function.
    let mut counted = vec![0_usize; names.len()];
    for (index, (stack, sum)) in profile.stacks.iter().zip(by_stack).enumerate() {
        if sum == 0 {
            continue;
        }
        let locations = stack.iter().filter_map(|&location| by_location.get(location as usize));
        for (depth, &function) in locations.flatten().enumerate() {
            let function = function as usize;
            let (Some((of_self, of_total)), Some(last)) = (sums.get_mut(function), counted.get_mut(function))
            else {
                continue;
            };
            if depth == 0 {
                *of_self = of_self.saturating_add(sum);
            }
            if std::mem::replace(last, index + 1) != index + 1 {
                *of_total = of_total.saturating_add(sum);
            }
        }
    }
    let rows = names.into_values().into_iter().zip(sums);
    let mut rows: Vec<FunctionRow> = rows
        .map(|(function, (value_self, value_total))| FunctionRow { function, value_self, value_total })
        .filter(|row| row.value_self != 0 || row.value_total != 0)
        .collect();
    rows.sort_unstable_by(|one, other| {
        let key = |row: &FunctionRow| (std::cmp::Reverse(row.value_self), std::cmp::Reverse(row.value_total));
        key(one).cmp(&key(other)).then_with(|| one.function.cmp(&other.function))
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frame, Function, Location, Mapping, Sample, ValueType};

    fn profile(stacks: &[(&[u32], i64)]) -> Profile {
        let mut profile =
            Profile { value_types: vec![ValueType::new("cpu", "nanoseconds")], ..Profile::default() };
        profile.mappings.push(Mapping { path: "/bin/x".to_owned(), ..Mapping::default() });
        for name in ["main", "f", "g"] {
            profile.functions.push(Function { name: name.to_owned(), start_line: 3, ..Function::default() });
        }
        let location = |functions: &[u32]| Location {
            mapping: Some(0),
            address: 0x40,
            frames: functions.iter().map(|&function| Frame { function, line: 9 }).collect(),
            ..Location::default()
        };
        // main; f; g inlined into f; without a name.
        profile.locations = vec![location(&[0]), location(&[1]), location(&[2, 1]), location(&[])];
        profile.label_sets = vec![vec![], vec![]];
        for &(stack, value) in stacks {
            profile.samples.push(Sample {
                stack: profile.stacks.len() as u32,
                labels: 0,
                values: vec![value],
            });
            profile.stacks.push(stack.iter().copied());
        }
        profile.validate().unwrap();
        profile
    }

    fn rows(profile: &Profile) -> Vec<(String, i64, i64)> {
        functions(profile, 0)
            .into_iter()
            .map(|row| (row.function.name, row.value_self, row.value_total))
            .collect()
    }

    #[test]
    fn recursion_counts_once_and_the_innermost_inlined_function_is_the_leaf() {
        let profile = profile(&[(&[1, 1, 0], 10), (&[2, 0], 5), (&[3, 1, 0], 2), (&[], 1), (&[0], 0)]);
        let row = |name: &str, of_self, of_total| (name.to_owned(), of_self, of_total);
        let expected = [row("f", 10, 17), row("g", 5, 5), row("[x+0x40]", 2, 2), row("main", 0, 17)];
        assert_eq!(rows(&profile), expected);
    }

    #[test]
    fn samples_of_many_threads_on_one_stack_are_one_row_and_the_sums_are_those_of_the_profile() {
        let mut profile = profile(&[(&[1, 0], 3)]);
        profile.samples.push(Sample { stack: 0, labels: 1, values: vec![4] });
        assert_eq!(rows(&profile)[0], ("f".to_owned(), 7, 7));
        let of_self: i64 = functions(&profile, 0).iter().map(|row| row.value_self).sum();
        assert_eq!(of_self, profile.total(0));
        let first = &functions(&profile, 0)[0].function;
        assert_eq!((first.line, first.module.as_str()), (3, "/bin/x"));
    }
}
