//! That what is exported keeps the rules of the data model, whatever the profile.

use std::collections::BTreeSet;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::export::otlp_conformance;
use crate::model::{Frame, FrameKind, Function, Location, Mapping, Slices, ValueType};

fn message_of(profile: &Profile) -> proto::ProfilesData {
    to_message(profile, &profile.samples, &Naming::of(profile, None))
}

fn ingested(bytes: &[u8]) -> Profile {
    let options = crate::ingest::Options::default();
    crate::ingest::read(bytes, crate::export::Format::Otlp, &options).expect("what we write can be read")
}

prop_compose! {
    /// Tables with equal rows, rows that nobody refers to, mappings without a range, labels of equal names.
    fn profile()(
        mappings in prop::collection::vec((0_u64..3, 0_u64..3, "[a-b]?", "([0-9a-f]{2})?"), 1..4),
        functions in prop::collection::vec(("[a-b]?", "[a-b]?", 0_u32..2), 1..5),
        locations in prop::collection::vec(
            (prop::option::of(0_u32..8), 0_u64..3, prop::collection::vec((0_u32..8, 0_u32..2), 0..3)), 1..6),
        stacks in prop::collection::vec(prop::collection::vec(0_u32..8, 0..4), 1..6),
        label_sets in prop::collection::vec(
            prop::collection::vec(
                ("pid|service|tid|thread.id|comm|||k", prop_oneof![
                    (0_i64..3).prop_map(LabelValue::Number),
                    "[a-b]?".prop_map(LabelValue::Text)]),
                0..5),
            1..4),
        linked in prop::option::of("[0-9a-f]{32}"),
        samples in prop::collection::vec((0_u32..8, 0_u32..8, -2_i64..3, -2_i64..3), 0..12),
        comments in prop::collection::vec("host: [a-b]|[a-b]", 0..3),
    ) -> Profile {
        let within = |index: u32, length: usize| index % u32::try_from(length).expect("small");
        let mut label_sets: Vec<Vec<Label>> = label_sets
            .into_iter()
            .map(|labels| labels.into_iter().map(|(key, value)| Label { key, value }).collect())
            .collect();
        if let (Some(id), Some(labels)) = (linked, label_sets.first_mut()) {
            labels.extend([Label::text("trace_id", &id), Label::text("span_id", &id[..16])]);
        }
        Profile {
            value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
            default_value: 1,
            period_type: Some(ValueType::new("cpu", "nanoseconds")),
            period: 10_000_000,
            start_unix_ns: 1_700_000_000_000_000_000,
            duration_ns: 10_000_000_000,
            locations: locations
                .into_iter()
                .map(|(mapping, address, frames)| Location {
                    mapping: mapping.map(|mapping| within(mapping, mappings.len())),
                    address,
                    kind: FrameKind::Native,
                    frames: frames
                        .into_iter()
                        .map(|(function, line)| Frame { function: within(function, functions.len()), line })
                        .collect(),
                })
                .collect(),
            stacks: Slices::default(),
            samples: samples
                .into_iter()
                .map(|(stack, labels, count, time)| Sample {
                    stack: within(stack, stacks.len()),
                    labels: within(labels, label_sets.len()),
                    values: vec![count, time],
                })
                .collect(),
            mappings: mappings
                .into_iter()
                .map(|(start, limit, path, build_id)| Mapping {
                    start, limit, path, build_id, has_functions: start == 1, ..Mapping::default()
                })
                .collect(),
            functions: functions
                .into_iter()
                .map(|(name, file, start_line)| Function { name, file, start_line, ..Function::default() })
                .collect(),
            label_sets,
            comments,
        }
        .with_stacks(stacks)
    }
}

impl Profile {
    fn with_stacks(mut self, stacks: Vec<Vec<u32>>) -> Self {
        let length = u32::try_from(self.locations.len()).expect("small");
        self.stacks = stacks.into_iter().map(|stack| stack.into_iter().map(move |l| l % length)).collect();
        self
    }
}

proptest! {
    #[test]
    fn every_message_conforms_and_reads_back_with_the_same_totals(profile in profile()) {
        profile.validate().expect("sound");
        let message = message_of(&profile);
        prop_assert_eq!(otlp_conformance::violations(&message), Vec::<String>::new());
        let back = ingested(&message.encode_to_vec());
        prop_assert_eq!(back.total(0), profile.total(0));
        prop_assert_eq!(back.total(1), profile.total(1));
        prop_assert_eq!(otlp_conformance::violations(&message_of(&back)), Vec::<String>::new());
    }

    #[test]
    fn divided_requests_conform_are_within_the_limit_and_hold_everything(
        profile in profile(), limit in 300_usize..2000,
    ) {
        let (requests, too_large) = requests(&profile, "here", limit);
        let (mut count, mut time) = (0, 0);
        for request in &requests {
            prop_assert!(request.bytes.len() <= limit);
            let message = proto::ProfilesData::decode(request.bytes.as_slice()).expect("ours");
            prop_assert_eq!(otlp_conformance::violations(&message), Vec::<String>::new());
            let back = ingested(&request.bytes);
            (count, time) = (count + back.total(0), time + back.total(1));
        }
        if too_large == 0 {
            prop_assert_eq!((count, time), (profile.total(0), profile.total(1)));
        }
    }
}

#[test]
fn the_conformance_check_finds_what_is_wrong() {
    let profile = Profile {
        value_types: vec![ValueType::new("samples", "count")],
        duration_ns: 10,
        mappings: vec![Mapping { start: 1, limit: 9, path: "m".to_owned(), ..Mapping::default() }],
        functions: vec![Function { name: "f".to_owned(), ..Function::default() }],
        locations: vec![Location {
            mapping: Some(0),
            address: 1,
            frames: vec![Frame { function: 0, line: 1 }],
            ..Location::default()
        }],
        stacks: [[0]].into(),
        label_sets: vec![vec![
            Label::number("tid", 1),
            Label::text("trace_id", "0af7651916cd43dd8448eb211c80319c"),
            Label::text("span_id", "b7ad6b7169203331"),
        ]],
        samples: vec![Sample { stack: 0, labels: 0, values: vec![1] }],
        ..Profile::default()
    };
    let good = message_of(&profile);
    assert_eq!(otlp_conformance::violations(&good), Vec::<String>::new());
    type Change = fn(&mut proto::ProfilesDictionary, &mut proto::Profile);
    let changes: &[(&str, Change)] = &[
        ("does not begin", |dictionary, _| dictionary.string_table[0] = "x".to_owned()),
        ("does not begin", |dictionary, _| {
            dictionary.mapping_table.remove(0);
        }),
        ("there twice", |dictionary, _| dictionary.string_table.push("f".to_owned())),
        ("there twice", |dictionary, _| dictionary.stack_table.push(dictionary.stack_table[1].clone())),
        ("nobody refers to string", |dictionary, _| dictionary.string_table.push("orphan".to_owned())),
        ("nobody refers to function", |dictionary, _| {
            let start_line = 7;
            dictionary.function_table.push(proto::Function { start_line, ..Default::default() });
        }),
        ("out of range", |_, profile| profile.samples[0].stack_index = 9),
        ("out of range", |_, profile| profile.samples[0].link_index = -1),
        ("out of range", |dictionary, _| dictionary.location_table[1].lines[0].function_index = 9),
        ("several shapes", |_, profile| {
            let mut other = profile.samples[0].clone();
            (other.link_index, other.values, other.timestamps_unix_nano) = (0, vec![], vec![1]);
            profile.samples.push(other);
        }),
        ("equal in stack", |_, profile| profile.samples.push(profile.samples[0].clone())),
        ("outside of its profile", |_, profile| profile.samples[0].timestamps_unix_nano = vec![10]),
        ("2 values and 0", |_, profile| profile.samples[0].values = vec![1, 2]),
        ("2 values and 1", |_, profile| {
            profile.samples[0].values = vec![1, 2];
            profile.samples[0].timestamps_unix_nano = vec![1];
        }),
        ("0 values and 0", |_, profile| profile.samples[0].values.clear()),
        ("ends before it begins", |dictionary, _| dictionary.mapping_table[1].memory_limit = 1),
        ("an attribute twice", |_, profile| {
            let attribute = profile.samples[0].attribute_indices[0];
            profile.samples[0].attribute_indices.push(attribute);
        }),
        ("ids of 15 and 8", |dictionary, _| {
            dictionary.link_table[1].trace_id.pop();
        }),
    ];
    for (expected, change) in changes {
        let mut message = good.clone();
        let mut dictionary = message.dictionary.take().expect("there is one");
        change(&mut dictionary, &mut message.resource_profiles[0].scope_profiles[0].profiles[0]);
        message.dictionary = Some(dictionary);
        let found = otlp_conformance::violations(&message);
        assert!(found.iter().any(|violation| violation.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn resources_are_plain_and_named_once() {
    let profile = Profile {
        value_types: vec![ValueType::new("samples", "count")],
        stacks: [[]].into(),
        label_sets: vec![vec![
            Label::text("comm", "nginx"),
            Label::number("pid", 42),
            Label::text("service", "shop"),
        ]],
        samples: vec![Sample { stack: 0, labels: 0, values: vec![3] }],
        ..Profile::default()
    };
    assert_eq!(number_of_profiles(&profile), 1);
    let (requests, too_large) = requests(&profile, "node-1", 1 << 20);
    assert_eq!((requests.len(), too_large, requests[0].profiles), (1, 0, 1));
    let message = proto::ProfilesData::decode(requests[0].bytes.as_slice()).expect("ours");
    let resource = message.resource_profiles[0].resource.clone().expect("there is one");
    let keys: BTreeSet<&str> = resource.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, BTreeSet::from(["host.name", "process.pid", "process.title", "service.name"]));
    let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name");
    let value = service.and_then(|service| service.value.clone()).and_then(|value| value.value);
    assert_eq!(value, Some(Value::StringValue("shop".to_owned())));
}
