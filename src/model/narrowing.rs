//! Profiles cut down to a part of their samples, and put in the order that readers expect.

use super::profile::{Label, Profile};

impl Profile {
    /// Keeps the samples whose labels are wanted, and of the tables what they need. Linear in the size of
    /// the profile.
    pub fn keep_samples(&mut self, wanted: impl Fn(&[Label]) -> bool) {
        let wanted: Vec<bool> = self.label_sets.iter().map(|labels| wanted(labels)).collect();
        self.samples.retain(|sample| wanted.get(sample.labels as usize).copied().unwrap_or(false));
        self.remove_unused();
    }

    /// Removes rows of tables that no sample leads to. The first mapping stays: it is the main one.
    pub fn remove_unused(&mut self) {
        let mut stacks = Used::new(self.stacks.len());
        let mut label_sets = Used::new(self.label_sets.len());
        for sample in &self.samples {
            stacks.mark(sample.stack);
            label_sets.mark(sample.labels);
        }
        let (stacks, is_used) = stacks.numbers();
        let mut is_used = is_used.into_iter();
        self.stacks.retain(|_| is_used.next().unwrap_or(false));
        let label_sets = label_sets.keep(&mut self.label_sets);
        for sample in &mut self.samples {
            sample.stack = renumbered(&stacks, sample.stack);
            sample.labels = renumbered(&label_sets, sample.labels);
        }
        let mut locations = Used::new(self.locations.len());
        self.stacks.values().iter().for_each(|&location| locations.mark(location));
        let locations = locations.keep(&mut self.locations);
        for location in self.stacks.values_mut() {
            *location = renumbered(&locations, *location);
        }
        let mut mappings = Used::new(self.mappings.len());
        mappings.mark(0);
        let mut functions = Used::new(self.functions.len());
        for location in &self.locations {
            location.mapping.into_iter().for_each(|mapping| mappings.mark(mapping));
            location.frames.iter().for_each(|frame| functions.mark(frame.function));
        }
        let mappings = mappings.keep(&mut self.mappings);
        let functions = functions.keep(&mut self.functions);
        for location in &mut self.locations {
            location.mapping = location.mapping.map(|mapping| renumbered(&mappings, mapping));
            for frame in &mut location.frames {
                frame.function = renumbered(&functions, frame.function);
            }
        }
    }

    /// Puts a mapping before all others, whose order stays: readers take the first one for the program.
    pub fn put_mapping_first(&mut self, index: u32) {
        let Some(before) = self.mappings.get_mut(..=index as usize) else { return };
        before.rotate_right(1);
        for mapping in self.locations.iter_mut().filter_map(|location| location.mapping.as_mut()) {
            if *mapping == index {
                *mapping = 0;
            } else if *mapping < index {
                *mapping += 1;
            }
        }
    }
}

/// Which rows of a table are needed.
struct Used(Vec<bool>);

impl Used {
    fn new(rows: usize) -> Self {
        Self(vec![false; rows])
    }

    fn mark(&mut self, row: u32) {
        if let Some(used) = self.0.get_mut(row as usize) {
            *used = true;
        }
    }

    /// The new number of each row that stays when the others have gone, and which ones stay.
    fn numbers(self) -> (Vec<u32>, Vec<bool>) {
        let mut next = 0;
        let numbers = self.0.iter().map(|&used| {
            let number = next;
            next += u32::from(used);
            number
        });
        (numbers.collect(), self.0)
    }

    /// Removes the other rows; answers the new number of each that stays.
    fn keep<T>(self, table: &mut Vec<T>) -> Vec<u32> {
        let (numbers, used) = self.numbers();
        let mut used = used.into_iter();
        table.retain(|_| used.next().unwrap_or(false));
        numbers
    }
}

fn renumbered(numbers: &[u32], old: u32) -> u32 {
    // An index that led nowhere goes on doing so, for `validate` to find.
    numbers.get(old as usize).copied().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::profile::{Frame, Function, Location, Mapping, Sample, ValueType};
    use super::*;

    /// Sample n is of stack n, labels n % 2, and location n alone, which is function n in mapping n.
    fn profile() -> Profile {
        let rows = 0..4_u32;
        Profile {
            value_types: vec![ValueType::new("samples", "count")],
            mappings: rows
                .clone()
                .map(|row| Mapping { path: format!("/m{row}"), ..Mapping::default() })
                .collect(),
            functions: rows
                .clone()
                .map(|row| Function { name: format!("f{row}"), ..Function::default() })
                .collect(),
            locations: rows
                .clone()
                .map(|row| Location {
                    mapping: Some(row),
                    frames: vec![Frame { function: row, line: 1 }],
                    ..Location::default()
                })
                .collect(),
            stacks: rows.clone().map(|row| [row]).collect(),
            label_sets: vec![vec![Label::number("pid", 0)], vec![Label::number("pid", 1)]],
            samples: rows.map(|row| Sample { stack: row, labels: row % 2, values: vec![1] }).collect(),
            ..Profile::default()
        }
    }

    /// Function and mapping of each sample, by name.
    fn told(profile: &Profile) -> Vec<(String, String)> {
        profile.validate().unwrap();
        let told = profile.samples.iter().map(|sample| {
            let location = &profile.locations[profile.stacks[sample.stack as usize][0] as usize];
            let function = &profile.functions[location.frames[0].function as usize];
            let mapping = &profile.mappings[location.mapping.unwrap() as usize];
            (function.name.clone(), mapping.path.clone())
        });
        told.collect()
    }

    #[test]
    fn what_is_kept_reads_as_before_and_nothing_else_is_left() {
        let mut profile = profile();
        profile.keep_samples(|labels| labels.contains(&Label::number("pid", 1)));
        let pair = |row: u32| (format!("f{row}"), format!("/m{row}"));
        assert_eq!(told(&profile), [pair(1), pair(3)]);
        assert_eq!((profile.functions.len(), profile.locations.len(), profile.stacks.len()), (2, 2, 2));
        assert_eq!(profile.label_sets.len(), 1);
        let paths: Vec<_> = profile.mappings.iter().map(|mapping| mapping.path.as_str()).collect();
        assert_eq!(paths, ["/m0", "/m1", "/m3"], "the first one stays");
        profile.keep_samples(|_| false);
        assert!(profile.samples.is_empty() && profile.locations.is_empty() && profile.mappings.len() == 1);
    }

    #[test]
    fn the_main_mapping_comes_first_and_the_others_keep_their_order() {
        let before = told(&profile());
        for index in 0..4 {
            let mut moved = profile();
            moved.put_mapping_first(index);
            assert_eq!(told(&moved), before);
            assert_eq!(moved.mappings[0].path, format!("/m{index}"));
            assert!(moved.mappings[1..].is_sorted_by_key(|mapping| mapping.path.clone()));
        }
        let mut same = profile();
        same.put_mapping_first(4);
        assert_eq!(same, profile());
    }
}
