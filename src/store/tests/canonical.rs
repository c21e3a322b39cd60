//! One form for all profiles that say the same: rows in order of content, each once, none unused.

use std::collections::BTreeMap;

use crate::model::{Frame, Function, Interner, Location, Mapping, Profile, Sample};

/// The profile with its tables in the order of a text of each row.
pub(super) fn canonical(profile: &Profile) -> Profile {
    profile.validate().unwrap();
    let mapping_text = |mapping: u32| format!("{:?}", profile.mappings[mapping as usize]);
    let location_text = |location: u32| {
        let location = &profile.locations[location as usize];
        let frames =
            location.frames.iter().map(|frame| (&profile.functions[frame.function as usize], frame.line));
        let mapping = location.mapping.map(mapping_text);
        format!("{:?}", (location.address, location.kind, mapping, frames.collect::<Vec<_>>()))
    };
    let stack_text = |stack: u32| {
        profile.stacks[stack as usize].iter().map(|&location| location_text(location)).collect::<Vec<_>>()
    };
    let mut sums: BTreeMap<_, (u32, Vec<i64>)> = BTreeMap::new();
    for sample in &profile.samples {
        let labels = profile.label_sets[sample.labels as usize].clone();
        let (_, values) = sums
            .entry((labels, stack_text(sample.stack)))
            .or_insert_with(|| (sample.stack, vec![0; profile.value_types.len()]));
        for (sum, value) in values.iter_mut().zip(&sample.values) {
            *sum = sum.saturating_add(*value);
        }
    }
    let (mut mappings, mut functions) = (Interner::<Mapping>::new(), Interner::<Function>::new());
    let (mut locations, mut stacks, mut label_sets) = (Interner::new(), Interner::new(), Interner::new());
    let mut samples = Vec::new();
    for ((labels, _), (stack, values)) in sums {
        let mut rows = Vec::new();
        for &location in &profile.stacks[stack as usize] {
            let location = &profile.locations[location as usize];
            let frame = |frame: &Frame| Frame {
                function: functions.intern(profile.functions[frame.function as usize].clone()),
                line: frame.line,
            };
            let frames = location.frames.iter().map(frame).collect();
            let mapping = location.mapping.map(|row| mappings.intern(profile.mappings[row as usize].clone()));
            let (address, kind) = (location.address, location.kind);
            rows.push(locations.intern(Location { mapping, address, kind, frames }));
        }
        samples.push(Sample { stack: stacks.intern(rows), labels: label_sets.intern(labels), values });
    }
    Profile {
        mappings: mappings.into_values(),
        functions: functions.into_values(),
        locations: locations.into_values(),
        stacks: stacks.into_values().into_iter().collect(),
        label_sets: label_sets.into_values(),
        samples,
        ..profile.clone()
    }
}
