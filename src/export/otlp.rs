//! OpenTelemetry profiles: one binary `ProfilesData`
//! (opentelemetry/proto/profiles/v1development/profiles.proto, as of opentelemetry-proto 1.9+).
//!
//! A resource for each process (labels `service`, `pid`, `comm`, `container_id`), under it one scope,
//! under that one profile for each value type, the one to show first; the `pprof.scope.*` attributes
//! tell their original order. All tables are in the one dictionary, whose first row of each is empty
//! as the format demands. Labels `trace_id` and `span_id` become a link where both are there and
//! well-formed, other labels attributes of the sample.
//!
//! A sample whose values are all 0 is written once, under the first type, so that it is not lost.

use std::collections::BTreeMap;
use std::io::Write;

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::profiles::v1development as proto;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::svg::HOST_COMMENT;
use super::{ExportError, Options, otlp_attributes as names};
use crate::model::{FrameKind, Interner, Label, LabelValue, Mapping, Profile, Sample, ValueType};

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
    writer.write_all(&to_message(profile, options.value).encode_to_vec())?;
    Ok(())
}

/// A row of our tables as a row of the dictionary, where row 0 is the empty one.
fn row(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX - 1) + 1
}

/// A value in the attribute table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum AttributeValue {
    Text(String),
    Number(i64),
    Flag(bool),
    Texts(Vec<String>),
}

impl AttributeValue {
    fn into_any(self) -> AnyValue {
        let text = |text| AnyValue { value: Some(Value::StringValue(text)) };
        match self {
            Self::Text(value) => text(value),
            Self::Number(number) => AnyValue { value: Some(Value::IntValue(number)) },
            Self::Flag(flag) => AnyValue { value: Some(Value::BoolValue(flag)) },
            Self::Texts(values) => {
                let values = values.into_iter().map(text).collect();
                AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }
            }
        }
    }
}

impl From<&LabelValue> for AttributeValue {
    fn from(value: &LabelValue) -> Self {
        match value {
            LabelValue::Text(text) => Self::Text(text.clone()),
            LabelValue::Number(number) => Self::Number(*number),
        }
    }
}

/// The dictionary while it grows.
struct Dictionary {
    strings: Interner<String>,
    attributes: Interner<Option<(i32, AttributeValue)>>,
    links: Interner<proto::Link>,
}

impl Dictionary {
    fn new() -> Self {
        let mut dictionary =
            Self { strings: Interner::new(), attributes: Interner::new(), links: Interner::new() };
        dictionary.strings.intern(String::new());
        dictionary.attributes.intern(None);
        dictionary.links.intern(proto::Link::default());
        dictionary
    }

    fn string(&mut self, text: &str) -> i32 {
        i32::try_from(self.strings.intern(text.to_owned())).unwrap_or(0)
    }

    fn attribute(&mut self, key: &str, value: AttributeValue) -> i32 {
        let key = self.string(key);
        i32::try_from(self.attributes.intern(Some((key, value)))).unwrap_or(0)
    }

    fn value_type(&mut self, value_type: &ValueType) -> proto::ValueType {
        proto::ValueType {
            type_strindex: self.string(&value_type.kind),
            unit_strindex: self.string(&value_type.unit),
        }
    }

    fn mapping(&mut self, mapping: &Mapping) -> proto::Mapping {
        let mut attribute_indices = Vec::new();
        if !mapping.build_id.is_empty() {
            let hex = mapping.build_id.bytes().all(|byte| byte.is_ascii_hexdigit());
            let key = if hex { names::BUILD_ID_GNU } else { names::BUILD_ID_GO };
            attribute_indices.push(self.attribute(key, AttributeValue::Text(mapping.build_id.clone())));
        }
        for (key, flag) in [
            (names::HAS_FUNCTIONS, mapping.has_functions),
            (names::HAS_FILENAMES, mapping.has_filenames),
            (names::HAS_LINE_NUMBERS, mapping.has_line_numbers),
            (names::HAS_INLINE_FRAMES, mapping.has_inline_frames),
        ] {
            if flag {
                attribute_indices.push(self.attribute(key, AttributeValue::Flag(true)));
            }
        }
        proto::Mapping {
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.file_offset,
            filename_strindex: self.string(&mapping.path),
            attribute_indices,
        }
    }
}

/// What a sample's labels become.
struct SampleAttributes {
    resource: Vec<Label>,
    attribute_indices: Vec<i32>,
    link_index: i32,
}

fn sample_attributes(labels: &[Label], dictionary: &mut Dictionary) -> SampleAttributes {
    let text = |key: &str| {
        labels.iter().find(|label| label.key == key).and_then(|label| match &label.value {
            LabelValue::Text(text) => Some(text.as_str()),
            LabelValue::Number(_) => None,
        })
    };
    let trace_id = text(names::TRACE_ID).and_then(|id| from_hex(id, 16));
    let span_id = text(names::SPAN_ID).and_then(|id| from_hex(id, 8));
    let mut split = SampleAttributes { resource: Vec::new(), attribute_indices: Vec::new(), link_index: 0 };
    let linked = if let (Some(trace_id), Some(span_id)) = (trace_id, span_id) {
        let link = dictionary.links.intern(proto::Link { trace_id, span_id });
        split.link_index = i32::try_from(link).unwrap_or(0);
        true
    } else {
        false
    };
    for label in labels {
        let key = label.key.as_str();
        if linked && (key == names::TRACE_ID || key == names::SPAN_ID) {
            continue;
        }
        if names::RESOURCE_LABELS.iter().any(|(resource_label, _)| *resource_label == key) {
            split.resource.push(label.clone());
        } else {
            let attribute = names::attribute_of_label(key);
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

fn to_message(profile: &Profile, shown: Option<usize>) -> proto::ProfilesData {
    let mut dictionary = Dictionary::new();
    let shown = shown.unwrap_or(profile.default_value);
    let order = value_order(profile.value_types.len(), shown);

    let split: Vec<SampleAttributes> =
        profile.label_sets.iter().map(|labels| sample_attributes(labels, &mut dictionary)).collect();
    let mut by_resource: BTreeMap<&[Label], Vec<&Sample>> = BTreeMap::new();
    for sample in &profile.samples {
        let resource = split.get(sample.labels as usize).map_or(&[][..], |split| &split.resource);
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
            let of_this_value = |sample: &&&Sample| {
                let all_zero = sample.values.iter().all(|&value| value == 0);
                sample.values.get(value).is_some_and(|&value| value != 0) || (all_zero && position == 0)
            };
            let to_sample = |sample: &&Sample| {
                let split = split.get(sample.labels as usize);
                proto::Sample {
                    stack_index: row(sample.stack),
                    attribute_indices: split.map(|split| split.attribute_indices.clone()).unwrap_or_default(),
                    link_index: split.map_or(0, |split| split.link_index),
                    values: sample.values.get(value).copied().into_iter().collect(),
                    timestamps_unix_nano: Vec::new(),
                }
            };
            profiles.push(proto::Profile {
                sample_type: Some(dictionary.value_type(value_type)),
                samples: samples.iter().filter(of_this_value).map(to_sample).collect(),
                time_unix_nano: profile.start_unix_ns,
                duration_nano: profile.duration_ns,
                period_type,
                period: profile.period,
                attribute_indices: comments.into_iter().collect(),
                ..proto::Profile::default()
            });
        }
        resource_profiles.push(proto::ResourceProfiles {
            resource: Some(resource(profile, resource_labels)),
            scope_profiles: vec![proto::ScopeProfiles {
                scope: Some(scope(profile, &order, shown)),
                profiles,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        });
    }
    let dictionary = finish(profile, dictionary);
    proto::ProfilesData { resource_profiles, dictionary: Some(dictionary) }
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

fn resource(profile: &Profile, labels: &[Label]) -> Resource {
    let mut attributes: Vec<KeyValue> = labels
        .iter()
        .map(|label| key_value(names::attribute_of_label(&label.key), (&label.value).into()))
        .collect();
    if let Some(host) = profile.comments.iter().find_map(|comment| comment.strip_prefix(HOST_COMMENT)) {
        attributes.push(key_value(names::HOST_NAME, AttributeValue::Text(host.trim().to_owned())));
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

/// The tables that follow those of the model row by row, and then the ones that have grown.
fn finish(profile: &Profile, mut dictionary: Dictionary) -> proto::ProfilesDictionary {
    let mut mapping_table = vec![proto::Mapping::default()];
    mapping_table.extend(profile.mappings.iter().map(|mapping| dictionary.mapping(mapping)));

    let mut function_table = vec![proto::Function::default()];
    function_table.extend(profile.functions.iter().map(|function| proto::Function {
        name_strindex: dictionary.string(&function.name),
        system_name_strindex: dictionary.string(&function.system_name),
        filename_strindex: dictionary.string(&function.file),
        start_line: i64::from(function.start_line),
    }));

    let mut location_table = vec![proto::Location::default()];
    location_table.extend(profile.locations.iter().map(|location| {
        let frame_type = match location.kind {
            FrameKind::Native => "native",
            FrameKind::Kernel => "kernel",
            FrameKind::Jit => "jit",
        };
        let frame_type = dictionary.attribute(names::FRAME_TYPE, AttributeValue::Text(frame_type.to_owned()));
        let to_line = |frame: &crate::model::Frame| proto::Line {
            function_index: row(frame.function),
            line: i64::from(frame.line),
            column: 0,
        };
        proto::Location {
            mapping_index: location.mapping.map_or(0, row),
            address: location.address,
            lines: location.frames.iter().map(to_line).collect(),
            attribute_indices: vec![frame_type],
        }
    }));

    let mut stack_table = vec![proto::Stack::default()];
    stack_table.extend(profile.stacks.iter().map(|stack| proto::Stack {
        location_indices: stack.iter().map(|&location| row(location)).collect(),
    }));

    let attribute_table = dictionary
        .attributes
        .into_values()
        .into_iter()
        .map(|attribute| match attribute {
            None => proto::KeyValueAndUnit::default(),
            Some((key_strindex, value)) => {
                proto::KeyValueAndUnit { key_strindex, value: Some(value.into_any()), unit_strindex: 0 }
            }
        })
        .collect();
    proto::ProfilesDictionary {
        mapping_table,
        location_table,
        function_table,
        link_table: dictionary.links.into_values(),
        string_table: dictionary.strings.into_values(),
        attribute_table,
        stack_table,
    }
}
