//! OpenTelemetry profiles: one binary `ProfilesData`, or requests for a receiver, whose fields have the
//! same numbers (opentelemetry/proto/profiles/v1development/profiles.proto, as of opentelemetry-proto
//! 1.9+).
//!
//! A resource for each process (labels `service`, `pid`, `comm`, `container_id`), under it one scope,
//! under that one profile for each value type, the one to show first; the `pprof.scope.*` attributes
//! tell their original order. All tables are in the one dictionary (`otlp_dictionary.rs`). Labels
//! `trace_id` and `span_id` become a link where both are there and well-formed, other labels attributes
//! of the sample.
//!
//! Resources carry their keys and values in plain text and not by reference into the dictionary, as the
//! format would permit: Pyroscope loses `service.name` otherwise and Parca refuses it. Every sample has
//! one value and no timestamps: with a period, Pyroscope refuses any other number of values.
//!
//! A sample whose values are all 0 is written once, under the first type, so that it is not lost. A label
//! without a name, or of a name that its owner has already, is left out and counted
//! (`dropped_attributes_count`).

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::profiles::v1development as proto;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::otlp_dictionary::{AttributeValue, Dictionary};
use super::svg::HOST_COMMENT;
use super::{ExportError, Options, otlp_attributes as names};
use crate::model::{Label, LabelValue, Profile, Sample};

/// Writes all values and labels.
///
/// # Errors
/// [`ExportError::TooLarge`] above 2^31 rows of a table, and [`ExportError::Stream`].
pub fn write(profile: &Profile, writer: &mut dyn Write, options: &Options) -> Result<(), ExportError> {
    let limit = i32::MAX as usize - 1;
    for (table, length) in [
        ("mappings", profile.mappings.len()),
        ("functions", profile.functions.len()),
        ("locations", profile.locations.len()),
        ("stacks", profile.stacks.len()),
        ("label sets", profile.label_sets.len()),
    ] {
        if length > limit {
            return Err(ExportError::TooLarge { table, limit });
        }
    }
    let message = to_message(profile, &profile.samples, &Naming::of(profile, options.value));
    writer.write_all(&message.encode_to_vec())?;
    Ok(())
}

/// A message that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// An `ExportProfilesServiceRequest`.
    pub bytes: Vec<u8>,
    /// How many profiles are in it: one for each process and value type.
    pub profiles: u64,
}

/// A profile as requests of at most `limit_bytes`, and the number of profiles that could not be made to
/// fit: those with a single sample that is larger. `host` is told where the profile does not say whose it
/// is.
#[must_use]
pub fn requests(profile: &Profile, host: &str, limit_bytes: usize) -> (Vec<Request>, u64) {
    let mut naming = Naming::of(profile, None);
    if naming.host.is_empty() {
        naming.host = host;
    }
    let mut requests = Vec::new();
    let mut too_large = 0;
    // Samples of one process stand side by side, so that a cut divides as few processes as can be.
    let mut samples = profile.samples.clone();
    samples.sort_by_key(|sample| sample.labels);
    let mut waiting: Vec<&[Sample]> = vec![&samples];
    while let Some(samples) = waiting.pop() {
        let message = to_message(profile, samples, &naming);
        let profiles = count_profiles(&message);
        if message.encoded_len() <= limit_bytes {
            requests.push(Request { bytes: message.encode_to_vec(), profiles });
        } else if samples.len() > 1 {
            let (first, second) = samples.split_at(samples.len() / 2);
            waiting.extend([second, first]);
        } else {
            too_large += profiles;
        }
    }
    (requests, too_large)
}

/// How many profiles the one request holds that [`requests`] makes of this if it is not divided.
#[must_use]
pub fn number_of_profiles(profile: &Profile) -> u64 {
    let resources: std::collections::BTreeSet<Vec<&Label>> = profile
        .label_sets
        .iter()
        .map(|labels| labels.iter().filter(|label| names::is_of_resource(&label.key)).collect())
        .collect();
    (resources.len().max(1) * profile.value_types.len()) as u64
}

fn count_profiles(message: &proto::ProfilesData) -> u64 {
    let scopes = message.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
    scopes.map(|scope| scope.profiles.len() as u64).sum()
}

/// What a message says beside its samples.
struct Naming<'a> {
    /// Index of the value type to show first.
    shown: usize,
    /// Empty if nobody knows.
    host: &'a str,
}

impl<'a> Naming<'a> {
    fn of(profile: &'a Profile, shown: Option<usize>) -> Self {
        let host = profile.comments.iter().find_map(|comment| comment.strip_prefix(HOST_COMMENT));
        Self { shown: shown.unwrap_or(profile.default_value), host: host.map_or("", str::trim) }
    }
}

/// What a set of labels becomes.
#[derive(Default)]
struct SplitLabels {
    resource: Vec<Label>,
    attribute_indices: Vec<i32>,
    link_index: i32,
    dropped: u32,
}

fn split_labels(labels: &[Label], dictionary: &mut Dictionary) -> SplitLabels {
    let text = |key: &str| {
        labels.iter().find(|label| label.key == key).and_then(|label| match &label.value {
            LabelValue::Text(text) => Some(text.as_str()),
            LabelValue::Number(_) => None,
        })
    };
    let trace_id = text(names::TRACE_ID).and_then(|id| from_hex(id, 16));
    let span_id = text(names::SPAN_ID).and_then(|id| from_hex(id, 8));
    let mut split = SplitLabels::default();
    let linked = if let (Some(trace_id), Some(span_id)) = (trace_id, span_id) {
        split.link_index = dictionary.link(trace_id, span_id);
        true
    } else {
        false
    };
    let mut of_sample: Vec<&str> = Vec::new();
    for label in labels {
        let key = label.key.as_str();
        if linked && (key == names::TRACE_ID || key == names::SPAN_ID) {
            continue;
        }
        let attribute = names::attribute_of_label(key);
        if names::is_of_resource(key) {
            if split.resource.iter().any(|known| known.key == key) {
                split.dropped += 1;
            } else {
                split.resource.push(label.clone());
            }
        } else if attribute.is_empty() || of_sample.contains(&attribute) {
            split.dropped += 1;
        } else {
            of_sample.push(attribute);
            split.attribute_indices.push(dictionary.attribute(attribute, (&label.value).into()));
        }
    }
    split
}

/// Lower-case hex digits as bytes, if there are exactly as many as `length` bytes need and the id is
/// a valid one, i.e. not all zero.
fn from_hex(text: &str, length: usize) -> Option<Vec<u8>> {
    let valid = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != length * 2 || !text.bytes().all(valid) || text.bytes().all(|byte| byte == b'0') {
        return None;
    }
    let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(pair).collect()
}

fn to_message(profile: &Profile, samples: &[Sample], naming: &Naming<'_>) -> proto::ProfilesData {
    let mut dictionary = Dictionary::new(profile, samples.iter().map(|sample| sample.stack));
    let order = value_order(profile.value_types.len(), naming.shown);

    let mut split: HashMap<u32, SplitLabels> = HashMap::new();
    for sample in samples {
        split.entry(sample.labels).or_insert_with(|| {
            let labels = profile.label_sets.get(sample.labels as usize).map_or(&[][..], Vec::as_slice);
            split_labels(labels, &mut dictionary)
        });
    }
    let mut by_resource: BTreeMap<&[Label], Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        let resource = split.get(&sample.labels).map_or(&[][..], |split| &split.resource);
        by_resource.entry(resource).or_default().push(sample);
    }
    if by_resource.is_empty() {
        // An empty profile still says what it would have counted.
        by_resource.insert(&[], Vec::new());
    }

    let comments = (!profile.comments.is_empty())
        .then(|| dictionary.attribute(names::COMMENT, AttributeValue::Texts(profile.comments.clone())));
    let period_type = profile.period_type.as_ref().map(|value| dictionary.value_type(value));
    let mut resource_profiles = Vec::new();
    for (resource_labels, samples) in by_resource {
        let mut profiles = Vec::new();
        for (position, &value) in order.iter().enumerate() {
            let Some(value_type) = profile.value_types.get(value) else { continue };
            let written = written_samples(profile, &samples, value, position == 0, &split, &mut dictionary);
            let dropped = samples.iter().filter_map(|sample| split.get(&sample.labels));
            let dropped = dropped.map(|split| split.dropped).max().unwrap_or(0);
            profiles.push(proto::Profile {
                sample_type: Some(dictionary.value_type(value_type)),
                samples: written,
                time_unix_nano: profile.start_unix_ns,
                duration_nano: profile.duration_ns,
                period_type,
                period: profile.period,
                attribute_indices: comments.into_iter().collect(),
                dropped_attributes_count: dropped,
                ..proto::Profile::default()
            });
        }
        resource_profiles.push(proto::ResourceProfiles {
            resource: Some(resource(resource_labels, naming.host)),
            scope_profiles: vec![proto::ScopeProfiles {
                scope: Some(scope(profile, &order, naming.shown)),
                profiles,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        });
    }
    proto::ProfilesData { resource_profiles, dictionary: Some(dictionary.finish()) }
}

/// The samples of one process with one of their values. Stack, attributes and link are what a sample is
/// known by, so those that are equal in all three become one.
fn written_samples(
    profile: &Profile,
    samples: &[&Sample],
    value: usize,
    is_first: bool,
    split: &HashMap<u32, SplitLabels>,
    dictionary: &mut Dictionary,
) -> Vec<proto::Sample> {
    let mut written: Vec<proto::Sample> = Vec::new();
    let mut known: HashMap<(i32, &[i32], i32), usize> = HashMap::new();
    for sample in samples {
        let all_zero = sample.values.iter().all(|&value| value == 0);
        let Some(&amount) = sample.values.get(value) else { continue };
        if amount == 0 && !(all_zero && is_first) {
            continue;
        }
        let Some(split) = split.get(&sample.labels) else { continue };
        let stack_index = dictionary.stack(profile, sample.stack);
        let identity = (stack_index, split.attribute_indices.as_slice(), split.link_index);
        match known.get(&identity).and_then(|&place| written.get_mut(place)) {
            Some(equal) => {
                for sum in &mut equal.values {
                    *sum = sum.saturating_add(amount);
                }
            }
            None => {
                known.insert(identity, written.len());
                written.push(proto::Sample {
                    stack_index,
                    attribute_indices: split.attribute_indices.clone(),
                    link_index: split.link_index,
                    values: vec![amount],
                    timestamps_unix_nano: Vec::new(),
                });
            }
        }
    }
    written
}

/// The value types in the order of their profiles: the one to show first, as readers expect.
fn value_order(types: usize, shown: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..types).collect();
    order.sort_by_key(|&value| value != shown);
    order
}

fn key_value(key: &str, value: AttributeValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value.into_any()), ..KeyValue::default() }
}

fn resource(labels: &[Label], host: &str) -> Resource {
    let mut attributes: Vec<KeyValue> = labels
        .iter()
        .map(|label| key_value(names::attribute_of_label(&label.key), (&label.value).into()))
        .collect();
    if !host.is_empty() {
        attributes.push(key_value(names::HOST_NAME, AttributeValue::Text(host.into())));
    }
    Resource { attributes, ..Resource::default() }
}

fn scope(profile: &Profile, order: &[usize], shown: usize) -> InstrumentationScope {
    let mut attributes = Vec::new();
    if let Some(value_type) = profile.value_types.get(shown) {
        let kind = AttributeValue::Text(value_type.kind.clone());
        attributes.push(key_value(names::DEFAULT_SAMPLE_TYPE, kind));
    }
    let values = order
        .iter()
        .map(|&value| AttributeValue::Number(i64::try_from(value).unwrap_or(i64::MAX)).into_any())
        .collect();
    attributes.push(KeyValue {
        key: names::SAMPLE_TYPE_ORDER.to_owned(),
        value: Some(AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }),
        ..KeyValue::default()
    });
    InstrumentationScope {
        name: "spanflame".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        attributes,
        dropped_attributes_count: 0,
    }
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;
