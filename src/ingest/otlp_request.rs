//! A request of OTLP profiles as windows for the store.
//!
//! A Collector puts profiles of many services, times and types into one request. Those of equal time,
//! length and period that belong together become one [`Profile`]: all services of a window, with several
//! value types where the scope says that its profiles were one (`pprof.scope.sample_type_order`). Each
//! has the rows of the tables that it needs and no others.
//!
//! Profiles of counted samples with a period of CPU time, which is what the OpenTelemetry profiler sends,
//! get the time that their samples stand for as a second value, so that they can be asked for as `cpu`.

use std::collections::HashMap;

use indexmap::IndexMap;
use indexmap::map::Entry;
use opentelemetry_proto::tonic::profiles::v1development as proto;

use super::builder::Tables;
use super::otlp::{Member, Reader, decode, members};
use super::{IngestError, Limits};
use crate::model::{Profile, ValueType};

/// More windows than this are not made of one request: each needs tables of its own.
const MAX_WINDOWS: usize = 256;
/// A profile may end so long after now: clocks differ.
const MAX_FUTURE_NS: u64 = 3600 * 1_000_000_000;
/// And begin so long before: 1970 is a mistake of units.
const MAX_AGE_NS: u64 = 366 * 86_400 * 1_000_000_000;
/// And be so long.
const MAX_DURATION_NS: u64 = 86_400 * 1_000_000_000;

/// What a request holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceivedProfiles {
    /// Its windows, each with the number of OTLP profiles that it is made of.
    pub windows: Vec<(Profile, u64)>,
    /// Profiles that are left out, by reason.
    pub rejected: Vec<Rejected>,
}

/// Profiles, or spans, that are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// How many.
    pub items: u64,
    /// Why, as metrics name it.
    pub reason: &'static str,
    /// Why, for a person.
    pub message: String,
}

/// What profiles of one window have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowKey {
    start_unix_ns: u64,
    duration_ns: u64,
    period: i64,
    period_type: (i32, i32),
    /// The one type, or those that belong together.
    types: Vec<(i32, i32)>,
}

/// Reads an `ExportProfilesServiceRequest`, uncompressed. `now_unix_ns` stands for times that a profile
/// does not tell.
///
/// # Errors
/// [`IngestError`]: then nothing of the request is of use.
pub fn read_request(
    bytes: &[u8],
    limits: &Limits,
    now_unix_ns: u64,
) -> Result<ReceivedProfiles, IngestError> {
    if bytes.len() > limits.file_bytes {
        return Err(IngestError::TooLarge { what: "bytes in the request", limit: limits.file_bytes });
    }
    let mut data = decode(bytes, limits)?;
    let dictionary = data.dictionary.take().unwrap_or_default();
    let mut reader = Reader::new(&dictionary, limits);
    let tables = reader.tables()?;
    reader.check_stacks()?;

    let mut received = ReceivedProfiles::default();
    let groups = grouped(&mut data.resource_profiles, now_unix_ns, &mut received);
    for of_window in groups.values() {
        let mut profile = reader.merged(&data.resource_profiles, of_window, limits)?;
        add_tables(&mut profile, &tables);
        add_time_of_samples(&mut profile);
        profile.validate().map_err(|invalid| IngestError::Malformed {
            format: "OTLP",
            place: "tables".to_owned(),
            what: invalid.to_string(),
        })?;
        received.windows.push((profile, of_window.len() as u64));
    }
    Ok(received)
}

/// The profiles by window. Those without a time get one.
fn grouped(
    resource_profiles: &mut [proto::ResourceProfiles],
    now_unix_ns: u64,
    received: &mut ReceivedProfiles,
) -> IndexMap<WindowKey, Vec<Member>> {
    let mut groups: IndexMap<WindowKey, Vec<Member>> = IndexMap::new();
    let mut out_of_time = 0;
    let mut too_many = 0;
    for member in members(resource_profiles) {
        let scope_profiles =
            resource_profiles.get_mut(member.resource).map(|resource| &mut resource.scope_profiles);
        let Some(scope) = scope_profiles.and_then(|scopes| scopes.get_mut(member.scope)) else { continue };
        let Some(profile) = scope.profiles.get_mut(member.profile) else { continue };
        if profile.time_unix_nano == 0 {
            profile.time_unix_nano = now_unix_ns.saturating_sub(profile.duration_nano);
        }
        let (start_unix_ns, duration_ns) = (profile.time_unix_nano, profile.duration_nano);
        if !is_plausible(start_unix_ns, duration_ns, now_unix_ns) {
            out_of_time += 1;
            continue;
        }
        let type_of = |value_type: Option<proto::ValueType>| {
            let value_type = value_type.unwrap_or_default();
            (value_type.type_strindex, value_type.unit_strindex)
        };
        let mut key = WindowKey {
            start_unix_ns,
            duration_ns,
            period: profile.period,
            period_type: type_of(profile.period_type),
            types: vec![type_of(profile.sample_type)],
        };
        if belong_together(scope) {
            key.types = scope.profiles.iter().map(|profile| type_of(profile.sample_type)).collect();
        }
        let known = groups.len();
        match groups.entry(key) {
            Entry::Occupied(group) => group.into_mut().push(member),
            Entry::Vacant(place) if known < MAX_WINDOWS => {
                place.insert(vec![member]);
            }
            Entry::Vacant(_) => too_many += 1,
        }
    }
    let rejections = [
        (out_of_time, "ingest_time_out_of_range", "time_unix_nano or duration_nano is out of range"),
        (too_many, "ingest_too_many_windows", "too many different times in one request"),
    ];
    for (profiles, reason, message) in rejections {
        if profiles > 0 {
            let message = format!("{profiles} profiles: {message}");
            received.rejected.push(Rejected { items: profiles, reason, message });
        }
    }
    groups
}

/// Whether a scope's profiles are the values of one: few, each of another type, and the scope tells their
/// order.
fn belong_together(scope: &proto::ScopeProfiles) -> bool {
    let attributes = scope.scope.as_ref().map_or(&[][..], |scope| &scope.attributes);
    let says_order =
        attributes.iter().any(|attribute| attribute.key == crate::export::otlp_attributes::SAMPLE_TYPE_ORDER);
    says_order && (2..=16).contains(&scope.profiles.len())
}

/// Whether a profile can be of this time, now being `now_unix_ns`.
#[must_use]
pub fn is_plausible(start_unix_ns: u64, duration_ns: u64, now_unix_ns: u64) -> bool {
    duration_ns <= MAX_DURATION_NS
        && start_unix_ns >= now_unix_ns.saturating_sub(MAX_AGE_NS)
        && start_unix_ns.saturating_add(duration_ns) <= now_unix_ns.saturating_add(MAX_FUTURE_NS)
}

/// Gives a profile, whose stacks refer to `tables`, the rows of them that it needs.
fn add_tables(profile: &mut Profile, tables: &Tables) {
    let mut locations: HashMap<u32, u32> = HashMap::new();
    let mut functions: HashMap<u32, u32> = HashMap::new();
    let mut mappings: HashMap<u32, u32> = HashMap::new();
    for index in profile.stacks.values_mut() {
        let new = u32::try_from(profile.locations.len()).unwrap_or(u32::MAX);
        let known = *locations.entry(*index).or_insert(new);
        if known == new
            && let Some(location) = tables.locations.get(*index as usize)
        {
            let mut location = location.clone();
            for frame in &mut location.frames {
                let row = &mut profile.functions;
                frame.function = moved(frame.function, &mut functions, &tables.functions, row);
            }
            let row = &mut profile.mappings;
            location.mapping =
                location.mapping.map(|mapping| moved(mapping, &mut mappings, &tables.mappings, row));
            profile.locations.push(location);
        }
        *index = known;
    }
}

/// The place of a row in the new table, to which it is copied when it is asked for first.
fn moved<T: Clone>(row: u32, known: &mut HashMap<u32, u32>, from: &[T], to: &mut Vec<T>) -> u32 {
    *known.entry(row).or_insert_with(|| {
        let new = u32::try_from(to.len()).unwrap_or(u32::MAX);
        to.extend(from.get(row as usize).cloned());
        new
    })
}

/// See the module's description.
fn add_time_of_samples(profile: &mut Profile) {
    let counts_samples = profile.value_types == [ValueType::new("samples", "count")];
    let cpu_time = ValueType::new("cpu", "nanoseconds");
    if !counts_samples || profile.period_type.as_ref() != Some(&cpu_time) || profile.period <= 0 {
        return;
    }
    for sample in &mut profile.samples {
        let count = sample.values.first().copied().unwrap_or(0);
        sample.values.push(count.saturating_mul(profile.period));
    }
    profile.value_types.push(cpu_time);
    profile.default_value = 1;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::export::otlp;
    use crate::model::{Frame, Function, Label, LabelValue, Location, Mapping, Sample};

    const NOW: u64 = 1_790_000_000_000_000_000;
    const SECOND: u64 = 1_000_000_000;

    fn window(start_unix_ns: u64, service: &str, function: &str) -> Profile {
        Profile {
            value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
            default_value: 1,
            period_type: Some(ValueType::new("cpu", "nanoseconds")),
            period: 10_000_000,
            start_unix_ns,
            duration_ns: 10 * SECOND,
            mappings: vec![Mapping { path: "/bin/x".to_owned(), ..Mapping::default() }],
            functions: vec![Function { name: function.to_owned(), ..Function::default() }],
            locations: vec![Location {
                mapping: Some(0),
                frames: vec![Frame { function: 0, line: 3 }],
                ..Location::default()
            }],
            stacks: [[0]].into(),
            label_sets: vec![vec![Label::number("pid", 7), Label::text("service", service)]],
            samples: vec![Sample { stack: 0, labels: 0, values: vec![2, 20_000_000] }],
            ..Profile::default()
        }
    }

    fn message(profile: &Profile) -> proto::ProfilesData {
        let (requests, _) = otlp::requests(profile, "", usize::MAX);
        proto::ProfilesData::decode(requests[0].bytes.as_slice()).expect("ours")
    }

    fn read(message: &proto::ProfilesData) -> ReceivedProfiles {
        read_request(&message.encode_to_vec(), &Limits::default(), NOW).expect("readable")
    }

    #[test]
    fn what_is_exported_is_read_again_as_it_was() {
        let profile = window(NOW - 20 * SECOND, "shop", "checkout");
        let received = read(&message(&profile));
        assert_eq!(received, ReceivedProfiles { windows: vec![(profile, 2)], rejected: vec![] });
    }

    #[test]
    fn times_become_windows_and_services_of_one_time_stay_together() {
        // As a Collector batches: one dictionary, many resources.
        let mut batch = message(&window(NOW - 20 * SECOND, "shop", "checkout"));
        let mut other_service = batch.resource_profiles[0].clone();
        let attributes = &mut other_service.resource.as_mut().expect("there is one").attributes;
        let service = attributes.iter_mut().find(|attribute| attribute.key == "service.name").expect("one");
        service.value = Some(opentelemetry_proto::tonic::common::v1::AnyValue {
            value: Some(opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(
                "cart".to_owned(),
            )),
        });
        let mut other_time = batch.resource_profiles[0].clone();
        for profile in &mut other_time.scope_profiles[0].profiles {
            profile.time_unix_nano += 10 * SECOND;
        }
        batch.resource_profiles.extend([other_time, other_service]);
        let received = read(&batch);
        let windows: Vec<_> = received
            .windows
            .iter()
            .map(|(profile, profiles)| {
                let services: Vec<_> =
                    profile.samples.iter().filter_map(|s| profile.label_text(s, "service")).collect();
                (profile.start_unix_ns, services, *profiles, profile.total(1))
            })
            .collect();
        assert_eq!(
            windows,
            [
                (NOW - 20 * SECOND, vec!["shop", "cart"], 4, 40_000_000),
                (NOW - 10 * SECOND, vec!["shop"], 2, 20_000_000),
            ]
        );
        assert!(received.windows.iter().all(|(profile, _)| profile.functions.len() == 1));
    }

    #[test]
    fn counted_samples_get_their_time_and_other_types_stay_apart() {
        let mut only_counted = window(NOW - 20 * SECOND, "shop", "f");
        only_counted.value_types.truncate(1);
        only_counted.default_value = 0;
        only_counted.samples[0].values.truncate(1);
        let received = read(&message(&only_counted));
        let (profile, profiles) = &received.windows[0];
        assert_eq!((profile.value_index("cpu"), profile.default_value, *profiles), (Some(1), 1, 1));
        assert_eq!(profile.samples[0].values, [2, 20_000_000]);

        // Two types in a scope that does not say that they are one.
        let mut apart = message(&window(NOW - 20 * SECOND, "shop", "f"));
        apart.resource_profiles[0].scope_profiles[0].scope = None;
        assert_eq!(read(&apart).windows.len(), 2);
    }

    #[test]
    fn times_that_cannot_be_are_rejected_and_missing_ones_are_now() {
        let mut data = message(&window(NOW - 20 * SECOND, "shop", "f"));
        for (time, duration, accepted) in [
            (0, 10 * SECOND, true),
            (NOW / SECOND, 10 * SECOND, false),
            (NOW / 1_000_000, 10 * SECOND, false),
            (NOW + MAX_FUTURE_NS, 1, false),
            (u64::MAX, u64::MAX, false),
            (NOW - SECOND, u64::MAX, false),
            (NOW - 86_400 * SECOND, 0, true),
        ] {
            for profile in &mut data.resource_profiles[0].scope_profiles[0].profiles {
                (profile.time_unix_nano, profile.duration_nano) = (time, duration);
            }
            let received = read(&data);
            assert_eq!(received.windows.len(), usize::from(accepted), "{time} {duration}");
            let rejected: u64 = received.rejected.iter().map(|rejected| rejected.items).sum();
            assert_eq!(rejected, if accepted { 0 } else { 2 });
            if time == 0 {
                assert_eq!(received.windows[0].0.start_unix_ns, NOW - 10 * SECOND);
            }
        }
    }

    #[test]
    fn a_request_makes_no_more_windows_than_it_may() {
        let mut data = message(&window(NOW - 20 * SECOND, "shop", "f"));
        let scope = &mut data.resource_profiles[0].scope_profiles[0];
        scope.scope = None;
        let profile = scope.profiles[0].clone();
        scope.profiles = (0..MAX_WINDOWS as u64 + 50)
            .map(|n| proto::Profile { time_unix_nano: NOW - n * SECOND - 60 * SECOND, ..profile.clone() })
            .collect();
        let received = read(&data);
        assert_eq!(received.windows.len(), MAX_WINDOWS);
        assert_eq!(
            (received.rejected[0].items, received.rejected[0].reason),
            (50, "ingest_too_many_windows")
        );
    }

    #[test]
    fn attributes_of_a_foreign_resource_become_labels() {
        use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
        let mut data = message(&window(NOW - 20 * SECOND, "shop", "f"));
        let strings = &mut data.dictionary.as_mut().expect("there is one").string_table;
        strings.extend(["k8s.pod.name".to_owned(), "cart-1".to_owned()]);
        let last = i32::try_from(strings.len() - 1).expect("few");
        // By reference, as the format permits; and both ways at once, as the Collector may send it.
        let by_reference = KeyValue {
            key_strindex: last - 1,
            value: Some(AnyValue { value: Some(Value::StringValueStrindex(last)) }),
            ..Default::default()
        };
        let both = KeyValue { key: "k8s.pod.name".to_owned(), ..by_reference.clone() };
        for attribute in [by_reference, both] {
            data.resource_profiles[0].resource.as_mut().expect("there is one").attributes.push(attribute);
            let (profile, _) = read(&data).windows.remove(0);
            assert_eq!(profile.label_text(&profile.samples[0], "k8s.pod.name"), Some("cart-1"));
            data.resource_profiles[0].resource.as_mut().expect("there is one").attributes.pop();
        }
    }

    proptest! {
        #[test]
        fn hostile_messages_are_an_error_or_sound(
            times in prop::collection::vec((any::<u64>(), any::<u64>(), -2_i32..4, -2_i32..4), 0..4),
            samples in prop::collection::vec((-1_i32..4, prop::collection::vec(any::<i64>(), 0..3)), 0..4),
            stacks in prop::collection::vec(prop::collection::vec(-1_i32..4, 0..4), 0..3),
            near in any::<bool>(),
        ) {
            let mut data = message(&window(NOW - 20 * SECOND, "shop", "f"));
            let dictionary = data.dictionary.as_mut().expect("there is one");
            for stack in stacks {
                dictionary.stack_table.push(proto::Stack { location_indices: stack });
            }
            let scope = &mut data.resource_profiles[0].scope_profiles[0];
            for (time, duration, kind, unit) in times {
                let sample_type = Some(proto::ValueType { type_strindex: kind, unit_strindex: unit });
                let (time, duration) = if near { (NOW - time % SECOND, duration % SECOND) } else { (time, duration) };
                let samples = samples.iter().map(|(stack_index, values)| proto::Sample {
                    stack_index: *stack_index, values: values.clone(), ..Default::default()
                });
                scope.profiles.push(proto::Profile {
                    sample_type, samples: samples.collect(), time_unix_nano: time, duration_nano: duration,
                    ..Default::default()
                });
            }
            if let Ok(received) = read_request(&data.encode_to_vec(), &Limits::default(), NOW) {
                for (profile, _) in received.windows {
                    profile.validate().expect("sound");
                    let one = |value: &LabelValue| matches!(value, LabelValue::Number(7));
                    prop_assert!(profile.label_sets.iter().flatten().any(|label| one(&label.value))
                        || profile.samples.is_empty());
                }
            }
        }
    }
}
