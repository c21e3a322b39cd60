//! Messages that are well-formed protocol buffers and lie: ids that are used twice, indices that lead
//! nowhere, counts that disagree. Random bytes hardly ever get that far.

use std::io::Write;

use opentelemetry_proto::tonic::profiles::v1development as otlp;
use proptest::prelude::*;
use prost::Message;
use spanflame::export::{self, Format, pprof_proto as pprof};
use spanflame::ingest::{self, IngestError};
use spanflame::model::Profile;

fn read(message: &impl Message, format: Format) -> Result<Profile, IngestError> {
    ingest::read(&message.encode_to_vec(), format, &ingest::Options::default())
}

/// Mostly valid, sometimes just beyond, sometimes absurd.
fn index(valid: i64) -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0..valid, 1 => Just(valid), 1 => Just(-1), 1 => any::<i64>()]
}

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 1_u64..4, 1 => Just(0), 1 => any::<u64>()]
}

prop_compose! {
    fn pprof_location()(id in id(), mapping_id in prop_oneof![Just(0), id()], address in any::<u64>(),
        lines in prop::collection::vec((id(), any::<i64>()), 0..3)) -> pprof::Location {
        let line = lines.into_iter().map(|(function_id, line)| pprof::Line { function_id, line }).collect();
        pprof::Location { id, mapping_id, address, line }
    }
}

prop_compose! {
    fn pprof_sample()(location_id in prop::collection::vec(id(), 0..4),
        value in prop::collection::vec(any::<i64>(), 1..3),
        label in prop::collection::vec((index(3), index(3), any::<i64>(), index(3)), 0..3)) -> pprof::Sample {
        let label = label
            .into_iter()
            .map(|(key, str, num, num_unit)| pprof::Label { key, str, num, num_unit })
            .collect();
        pprof::Sample { location_id, value, label }
    }
}

prop_compose! {
    fn pprof_message()(
        sample in prop::collection::vec(pprof_sample(), 0..4),
        location in prop::collection::vec(pprof_location(), 0..4),
        functions in prop::collection::vec((id(), index(3), any::<i64>()), 0..4),
        mappings in prop::collection::vec((id(), index(3), any::<u64>()), 0..4),
        strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 2..4),
        types in prop::collection::vec((index(3), index(3)), 1..3),
        times in (any::<i64>(), any::<i64>(), any::<i64>()),
    ) -> pprof::Profile {
        let mut string_table = vec![Vec::new()];
        string_table.extend(strings);
        pprof::Profile {
            sample_type: types
                .into_iter()
                .map(|(r#type, unit)| pprof::ValueType { r#type, unit })
                .collect(),
            sample,
            location,
            function: functions
                .into_iter()
                .map(|(id, name, start_line)| pprof::Function { id, name, start_line, ..Default::default() })
                .collect(),
            mapping: mappings
                .into_iter()
                .map(|(id, filename, memory_start)| pprof::Mapping {
                    id, filename, memory_start, ..Default::default()
                })
                .collect(),
            string_table,
            time_nanos: times.0,
            duration_nanos: times.1,
            period: times.2,
            ..Default::default()
        }
    }
}

fn small(valid: i32) -> impl Strategy<Value = i32> {
    prop_oneof![20 => 0..valid, 1 => Just(valid), 1 => Just(-1), 1 => any::<i32>()]
}

prop_compose! {
    fn otlp_message()(
        samples in prop::collection::vec(
            (small(3), prop::collection::vec(small(3), 0..3), small(2),
             prop::collection::vec(any::<i64>(), 0..3), prop::collection::vec(any::<u64>(), 0..3)), 0..4),
        locations in prop::collection::vec((small(3), prop::collection::vec(small(3), 0..3), small(3)), 0..3),
        stacks in prop::collection::vec(prop::collection::vec(small(3), 0..4), 0..3),
        attributes in prop::collection::vec((small(3), small(3)), 0..3),
        links in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..2),
        types in prop::collection::vec((small(3), small(3)), 1..3),
        rows in (0_usize..3, 0_usize..3),
        time in any::<(u64, u64)>(),
    ) -> otlp::ProfilesData {
        use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
        let samples: Vec<otlp::Sample> = samples
            .into_iter()
            .map(|(stack_index, attribute_indices, link_index, values, timestamps_unix_nano)| {
                otlp::Sample { stack_index, attribute_indices, link_index, values, timestamps_unix_nano }
            })
            .collect();
        let to_profile = |(type_strindex, unit_strindex)| otlp::Profile {
            sample_type: Some(otlp::ValueType { type_strindex, unit_strindex }),
            samples: samples.clone(),
            time_unix_nano: time.0,
            duration_nano: time.1,
            ..Default::default()
        };
        let profiles = types.into_iter().map(to_profile).collect();
        let mut dictionary = otlp::ProfilesDictionary {
            mapping_table: vec![otlp::Mapping::default(); rows.0],
            function_table: vec![otlp::Function::default(); rows.1],
            string_table: vec![String::new(), "process.pid".to_owned(), "x;\n".to_owned()],
            location_table: vec![otlp::Location::default()],
            stack_table: vec![otlp::Stack::default()],
            attribute_table: vec![otlp::KeyValueAndUnit::default()],
            link_table: vec![otlp::Link::default()],
        };
        for (mapping_index, functions, attribute) in locations {
            let to_line = |function_index| otlp::Line { function_index, line: -5, column: 0 };
            dictionary.location_table.push(otlp::Location {
                mapping_index,
                address: 1,
                lines: functions.into_iter().map(to_line).collect(),
                attribute_indices: vec![attribute],
            });
        }
        let to_stack = |location_indices| otlp::Stack { location_indices };
        dictionary.stack_table.extend(stacks.into_iter().map(to_stack));
        for (key_strindex, text) in attributes {
            let value = Some(AnyValue { value: Some(Value::StringValueStrindex(text)) });
            dictionary.attribute_table.push(otlp::KeyValueAndUnit { key_strindex, value, unit_strindex: 0 });
        }
        for id in links {
            dictionary.link_table.push(otlp::Link { trace_id: id.clone(), span_id: id });
        }
        otlp::ProfilesData {
            resource_profiles: vec![otlp::ResourceProfiles {
                scope_profiles: vec![otlp::ScopeProfiles { profiles, ..Default::default() }],
                ..Default::default()
            }],
            dictionary: Some(dictionary),
        }
    }
}

/// Whatever was read holds together and can be written.
fn assert_sound(profile: &Profile) {
    profile.validate().expect("sound");
    for format in [Format::Pprof, Format::Folded, Format::Speedscope, Format::Otlp, Format::Svg] {
        let mut bytes = Vec::new();
        export::write(profile, format, &mut bytes, &export::Options::default()).expect("writable");
    }
}

proptest! {
    #[test]
    fn pprof_messages_that_lie_are_errors_or_sound_profiles(message in pprof_message()) {
        if let Ok(profile) = read(&message, Format::Pprof) {
            assert_sound(&profile);
        }
    }

    #[test]
    fn otlp_messages_that_lie_are_errors_or_sound_profiles(message in otlp_message()) {
        if let Ok(profile) = read(&message, Format::Otlp) {
            assert_sound(&profile);
        }
    }
}

/// One sound message of pprof, to be spoilt in one place.
fn sound_pprof() -> pprof::Profile {
    pprof::Profile {
        sample_type: vec![pprof::ValueType { r#type: 1, unit: 2 }],
        sample: vec![pprof::Sample { location_id: vec![7], value: vec![5], label: vec![] }],
        location: vec![pprof::Location {
            id: 7,
            mapping_id: 9,
            address: 0x10,
            line: vec![pprof::Line { function_id: 8, line: 1 }],
        }],
        function: vec![pprof::Function { id: 8, name: 1, ..Default::default() }],
        mapping: vec![pprof::Mapping { id: 9, filename: 1, ..Default::default() }],
        string_table: vec![vec![], b"samples".to_vec(), b"count".to_vec()],
        ..Default::default()
    }
}

#[test]
fn each_way_in_which_pprof_can_lie_has_an_error_that_says_where() {
    assert_eq!(read(&sound_pprof(), Format::Pprof).expect("sound").total(0), 5);
    type Spoil = fn(&mut pprof::Profile);
    let ways: [(Spoil, &str); 10] = [
        (|p| p.sample[0].location_id = vec![6], "sample 1: there is no location 6"),
        (|p| p.sample[0].value.push(1), "sample 1: 2 values for 1 sample types"),
        (|p| p.location[0].mapping_id = 1, "location 7: there is no mapping 1"),
        (|p| p.location[0].line[0].function_id = 0, "location 7: there is no function 0"),
        (|p| p.location.push(p.location[0].clone()), "location 7: the id is used twice"),
        (|p| p.function[0].id = 0, "its id is 0"),
        (|p| p.function[0].name = 3, "function 8: string 3 of a table of 3"),
        (|p| p.function[0].name = -1, "string -1"),
        (|p| p.string_table[0] = b"x".to_vec(), "the first string is not the empty one"),
        (|p| p.sample_type.clear(), "no sample types"),
    ];
    for (spoil, expected) in ways {
        let mut message = sound_pprof();
        spoil(&mut message);
        let error = read(&message, Format::Pprof).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn symbols_that_are_no_utf_8_are_repaired_and_not_refused() {
    let mut message = sound_pprof();
    message.string_table.push(b"caf\xe9".to_vec());
    message.function[0].name = 3;
    let profile = read(&message, Format::Pprof).expect("readable");
    assert_eq!(profile.functions[0].name, "caf\u{fffd}");
}

#[test]
fn one_long_string_referred_to_a_million_times_is_refused_before_it_is_copied_that_often() {
    let mut message = sound_pprof();
    message.string_table.push(vec![b'x'; 1 << 20]);
    message.function = (1..=20_000).map(|id| pprof::Function { id, name: 3, ..Default::default() }).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&message.encode_to_vec()).expect("memory takes it");
    let bytes = gzip.finish().expect("memory takes it");
    assert!(bytes.len() < 200_000, "{} bytes ask for 20 GB", bytes.len());
    let limits = ingest::Limits { text_bytes: 16 << 20, ..ingest::Limits::default() };
    let options = ingest::Options { limits, ..ingest::Options::default() };
    let refused = ingest::read(&bytes, Format::Pprof, &options);
    assert!(matches!(refused, Err(IngestError::TooLarge { .. })));
}
