//! `debug=1`: a profile as the text that Go programs print of profiles that count, which `go tool pprof`
//! reads too. Heaviest stacks first.
//!
//! ```text
//! cpu profile: total 12
//! 7 @ 0x401136 0x401166
//! # labels: {"comm":"shop", "pid":"42"}
//! # 0x401135 burn+0x0 /src/shop.c:12
//! ```
//!
//! Values are the samples; addresses are those of the objects' files. Names stand behind `#`, for people:
//! innermost first, inlined functions under the address that they share.

use std::collections::HashMap;
use std::fmt::Write;

use crate::export::frame_text::frames_of_location;
use crate::model::{LabelValue, Profile};

/// Writes the number of samples of each stack and set of labels.
pub fn write(profile: &Profile) -> String {
    let value = profile.value_types.iter().position(|value_type| value_type.unit == "count").unwrap_or(0);
    let kind =
        profile.value_types.get(profile.default_value).map_or("cpu", |value_type| value_type.kind.as_str());
    let mut rows: HashMap<(u32, u32), i64> = HashMap::new();
    for sample in &profile.samples {
        let sum = rows.entry((sample.stack, sample.labels)).or_default();
        *sum = sum.saturating_add(sample.values.get(value).copied().unwrap_or(0));
    }
    let mut rows: Vec<_> = rows.into_iter().filter(|(_, count)| *count > 0).collect();
    rows.sort_unstable_by_key(|&(key, count)| (std::cmp::Reverse(count), key));

    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "{} profile: total {}", kind.replace(char::is_whitespace, "_"), profile.total(value));
    for ((stack, labels), count) in rows {
        let stack = profile.stacks.get(stack).unwrap_or_default();
        let _ = write!(text, "{count} @");
        let locations = || stack.iter().filter_map(|&index| profile.locations.get(index as usize));
        for location in locations() {
            // Readers take these for return addresses and look one byte before them.
            let _ = write!(text, " {:#x}", location.address.saturating_add(1));
        }
        text.push('\n');
        write_labels(&mut text, profile, labels);
        for location in locations() {
            for frame in frames_of_location(profile, location).iter().rev() {
                let name = frame.name.replace(|character: char| character.is_control(), " ");
                let _ = write!(text, "#\t{:#x}\t{name}", location.address);
                if !frame.file.is_empty() {
                    let _ = write!(text, "\t{}:{}", frame.file.replace(char::is_control, " "), frame.line);
                }
                text.push('\n');
            }
        }
        text.push('\n');
    }
    text
}

fn write_labels(text: &mut String, profile: &Profile, labels: u32) {
    let labels = profile.label_sets.get(labels as usize).map_or(&[][..], Vec::as_slice);
    if labels.is_empty() {
        return;
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|label| {
            let value = match &label.value {
                LabelValue::Text(text) => text.clone(),
                LabelValue::Number(number) => number.to_string(),
            };
            format!("{:?}:{value:?}", label.key)
        })
        .collect();
    let _ = writeln!(text, "# labels: {{{}}}", pairs.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frame, Function, Label, Location, Sample, ValueType};

    #[test]
    fn heaviest_first_with_labels_names_and_inlined_functions() {
        let function = |name: &str, file: &str| Function {
            name: name.to_owned(),
            file: file.to_owned(),
            ..Function::default()
        };
        let frame = |function, line| Frame { function, line };
        let profile = Profile {
            value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
            default_value: 1,
            functions: vec![function("main", "/m.c"), function("in\nner", "")],
            locations: vec![
                Location { address: 0x10, frames: vec![frame(1, 3), frame(0, 7)], ..Location::default() },
                Location { address: 0x20, ..Location::default() },
            ],
            stacks: [vec![1], vec![0, 1]].into(),
            label_sets: vec![vec![], vec![Label::text("comm", "a \"b\""), Label::number("pid", 4)]],
            samples: vec![
                Sample { stack: 0, labels: 0, values: vec![2, 20] },
                Sample { stack: 1, labels: 1, values: vec![5, 50] },
                Sample { stack: 0, labels: 0, values: vec![1, 10] },
            ],
            ..Profile::default()
        };
        let expected = "cpu profile: total 8\n\
            5 @ 0x11 0x21\n# labels: {\"comm\":\"a \\\"b\\\"\", \"pid\":\"4\"}\n\
            #\t0x10\tin ner\n#\t0x10\tmain\t/m.c:7\n#\t0x20\t[unknown+0x20]\n\n\
            3 @ 0x21\n#\t0x20\t[unknown+0x20]\n\n";
        assert_eq!(write(&profile), expected);
        assert_eq!(write(&Profile::default()), "cpu profile: total 0\n");
    }
}
