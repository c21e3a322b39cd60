//! Both profiles as one of pprof's: the base's values negated, and its samples labelled, as `go tool pprof -diff_base`
//! expects of what it reads. So the result opens there as a comparison, shares included.

use crate::model::{Frame, Label, Location, Profile, Sample, ValueType};

/// The label by which pprof knows the base (`profile.Profile.isDiffBaseSample`).
const BASE_LABEL: &str = "pprof::base";

/// The new profile's samples and the base's, negated and multiplied by `base_scale`. Only values that both have
/// (kind and unit) stay, in the order of the new one; none if there is no such value. Tables are not merged: readers do.
#[must_use]
pub fn negate_base(base: &Profile, new: &Profile, base_scale: f64) -> Option<Profile> {
    let shared: Vec<(usize, usize)> = new
        .value_types
        .iter()
        .enumerate()
        .filter_map(|(of_new, value_type)| {
            Some((base.value_types.iter().position(|other| other == value_type)?, of_new))
        })
        .collect();
    if shared.is_empty() {
        return None;
    }
    let value_types: Vec<ValueType> =
        shared.iter().filter_map(|&(_, of_new)| new.value_types.get(of_new).cloned()).collect();
    let default_value = shared.iter().position(|&(_, of_new)| of_new == new.default_value).unwrap_or(0);
    let mut both = Profile { value_types, default_value, samples: Vec::new(), ..new.clone() };
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (mappings, functions) = (number(both.mappings.len()), number(both.functions.len()));
    let (locations, stacks, label_sets) =
        (number(both.locations.len()), number(both.stacks.len()), number(both.label_sets.len()));
    both.mappings.extend(base.mappings.iter().cloned());
    both.functions.extend(base.functions.iter().cloned());
    both.locations.extend(base.locations.iter().map(|location| {
        Location {
            mapping: location.mapping.map(|mapping| mapping.saturating_add(mappings)),
            frames: location
                .frames
                .iter()
                .map(|frame| Frame { function: frame.function.saturating_add(functions), ..*frame })
                .collect(),
            ..location.clone()
        }
    }));
    for stack in base.stacks.iter() {
        both.stacks.push(stack.iter().map(|location| location.saturating_add(locations)));
    }
    both.label_sets.extend(base.label_sets.iter().map(|labels| {
        let mut labels = labels.clone();
        labels.push(Label::text(BASE_LABEL, "true"));
        labels.sort_by(|one, other| one.key.cmp(&other.key));
        labels
    }));
    let value_at = |sample: &Sample, index: usize| sample.values.get(index).copied().unwrap_or(0);
    for sample in &new.samples {
        let values = shared.iter().map(|&(_, of_new)| value_at(sample, of_new)).collect();
        both.samples.push(Sample { values, ..sample.clone() });
    }
    for sample in &base.samples {
        // Beyond 2^53 a nanosecond is lost: after 104 days of CPU time in one stack.
        let scaled = |value: i64| (value as f64 * base_scale).round() as i64;
        let values = shared.iter().map(|&(of_base, _)| -scaled(value_at(sample, of_base))).collect();
        both.samples.push(Sample {
            stack: sample.stack.saturating_add(stacks),
            labels: sample.labels.saturating_add(label_sets),
            values,
        });
    }
    Some(both)
}

#[cfg(test)]
mod tests {
    use super::super::tests::profile;
    use super::*;

    #[test]
    fn the_base_is_subtracted_and_can_be_told() {
        let (base, new) = (profile("main;a 10\n"), profile("main;a 12\nmain;b 3\n"));
        let both = negate_base(&base, &new, 2.0).expect("they count the same");
        both.validate().expect("it holds together");
        let of = |is_base: bool| {
            both.samples
                .iter()
                .filter(|sample| both.label_text(sample, BASE_LABEL).is_some() == is_base)
                .map(|sample| sample.values[0])
                .sum::<i64>()
        };
        assert_eq!((of(true), of(false)), (-20, 15));
    }

    #[test]
    fn profiles_that_count_different_things_have_nothing_to_subtract() {
        let base = profile("main;a 10\n");
        let new = Profile { value_types: vec![ValueType::new("alloc", "bytes")], ..profile("main;a 12\n") };
        assert_eq!(negate_base(&base, &new, 1.0), None);
    }
}
