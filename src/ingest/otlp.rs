//! OpenTelemetry profiles: a binary `ProfilesData`, or an `ExportProfilesServiceRequest`, whose fields
//! have the same numbers.
//!
//! All profiles of all resources become one: a value type for each different `sample_type`, samples of
//! equal stack and labels are added up, timestamps are not kept (one without a value counts as 1, as
//! the format says). Attributes of resources and samples become labels, by the names of
//! [`crate::export::otlp_attributes`]; a link becomes `trace_id` and `span_id`. An index that leads
//! nowhere is an error.

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::profiles::v1development as proto;
use prost::Message;

use super::budget::TextBudget;
use super::builder::{ProfileBuilder, Tables};
use super::{IngestError, Limits, frame_kind, wire};
use crate::export::otlp_attributes as names;
use crate::export::svg::HOST_COMMENT;
use crate::model::{Frame, Function, Label, LabelValue, Location, Mapping, Profile, ValueType};

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Profile, IngestError> {
    let data = decode(bytes, limits)?;
    let dictionary = data.dictionary.unwrap_or_default();
    let mut reader = Reader::new(&dictionary, limits);
    let tables = reader.tables()?;
    reader.check_stacks()?;
    let resources = &data.resource_profiles;
    let mut profile = reader.merged(resources, &members(resources), limits)?;
    if profile.value_types.is_empty() {
        return Err(malformed("file".to_owned(), "it holds no profile".to_owned()));
    }
    (profile.mappings, profile.functions, profile.locations) =
        (tables.mappings, tables.functions, tables.locations);
    Ok(profile)
}

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<proto::ProfilesData, IngestError> {
    wire::check_fields(bytes, limits.fields)?;
    proto::ProfilesData::decode(bytes)
        .map_err(|source| IngestError::Message { format: "OTLP ProfilesData", source })
}

/// Where a profile stands in a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) resource: usize,
    pub(super) scope: usize,
    pub(super) profile: usize,
}

/// All profiles of a message, in its order.
pub(super) fn members(resource_profiles: &[proto::ResourceProfiles]) -> Vec<Member> {
    let mut members = Vec::new();
    for (resource, resource_profile) in resource_profiles.iter().enumerate() {
        for (scope, scope_profile) in resource_profile.scope_profiles.iter().enumerate() {
            members.extend((0..scope_profile.profiles.len()).map(|profile| Member {
                resource,
                scope,
                profile,
            }));
        }
    }
    members
}

fn malformed(place: String, what: String) -> IngestError {
    IngestError::Malformed { format: "OTLP", place, what }
}

/// The row of a dictionary table.
fn row_of<'a, T>(
    table: &'a [T],
    index: i32,
    table_name: &str,
    place: &dyn Fn() -> String,
) -> Result<&'a T, IngestError> {
    usize::try_from(index)
        .ok()
        .and_then(|index| table.get(index))
        .ok_or_else(|| malformed(place(), format!("{table_name} {index} of a table of {}", table.len())))
}

/// The row in our tables, which lack the empty first row; none for that one.
fn our_row(index: i32) -> Option<u32> {
    u32::try_from(index).ok().and_then(|index| index.checked_sub(1))
}

pub(super) struct Reader<'a> {
    dictionary: &'a proto::ProfilesDictionary,
    budget: TextBudget,
}

/// What is gathered while the profiles of a file are read.
#[derive(Default)]
struct Gathered {
    start_unix_ns: Option<u64>,
    end_unix_ns: u64,
    period: Option<(ValueType, i64)>,
    comments: Vec<String>,
    shown: Option<String>,
    /// Value type and the place it says it had in the profile that this file was made from.
    order: Vec<(usize, i64)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(dictionary: &'a proto::ProfilesDictionary, limits: &Limits) -> Self {
        Self { dictionary, budget: TextBudget::new(limits.text_bytes) }
    }

    /// These profiles of a message as one, without mappings, functions and locations: its stacks refer to
    /// those of [`Reader::tables`].
    pub(super) fn merged(
        &mut self,
        resource_profiles: &[proto::ResourceProfiles],
        members: &[Member],
        limits: &Limits,
    ) -> Result<Profile, IngestError> {
        let mut builder = ProfileBuilder::new(limits);
        let mut gathered = Gathered::default();
        let mut stacks: HashMap<i32, u32> = HashMap::new();
        for of_resource in members.chunk_by(|one, other| one.resource == other.resource) {
            let Some(resource_profile) =
                of_resource.first().and_then(|member| resource_profiles.get(member.resource))
            else {
                continue;
            };
            let attributes = resource_profile.resource.as_ref().map_or(&[][..], |r| &r.attributes);
            let resource_labels = self.resource_labels(attributes, &mut gathered)?;
            let mut label_sets: HashMap<(&[i32], i32), u32> = HashMap::new();
            for of_scope in of_resource.chunk_by(|one, other| one.scope == other.scope) {
                let scope_profile =
                    of_scope.first().and_then(|member| resource_profile.scope_profiles.get(member.scope));
                let Some(scope_profile) = scope_profile else { continue };
                let scope = scope_profile.scope.as_ref().map_or(&[][..], |scope| &scope.attributes);
                let order = self.scope_order(scope, &mut gathered)?;
                for member in of_scope {
                    let Some(profile) = scope_profile.profiles.get(member.profile) else { continue };
                    let place = || "profile".to_owned();
                    let sample_type = self.value_type(profile.sample_type.unwrap_or_default(), &place)?;
                    let value = builder.value_type(sample_type);
                    if let Some(&original) = order.get(member.profile) {
                        gathered.order.push((value, original));
                    }
                    self.gather(profile, &mut gathered)?;
                    for sample in &profile.samples {
                        let stack = match stacks.get(&sample.stack_index) {
                            Some(&known) => known,
                            None => {
                                let new = builder.stack(&self.stack(sample.stack_index)?)?;
                                stacks.insert(sample.stack_index, new);
                                new
                            }
                        };
                        let key = (sample.attribute_indices.as_slice(), sample.link_index);
                        let labels = match label_sets.get(&key) {
                            Some(&known) => known,
                            None => {
                                let labels = self.sample_labels(&resource_labels, sample)?;
                                let new = builder.labels(labels);
                                label_sets.insert(key, new);
                                new
                            }
                        };
                        builder.add(stack, labels, value, amount_of(sample)?)?;
                    }
                }
            }
        }
        let nothing = Tables { mappings: Vec::new(), functions: Vec::new(), locations: Vec::new() };
        let mut profile = builder.finish(Some(nothing));
        gathered.apply(&mut profile);
        Ok(profile)
    }

    fn text(&mut self, index: i32, place: &dyn Fn() -> String) -> Result<String, IngestError> {
        if index == 0 {
            return Ok(String::new());
        }
        let text = row_of(&self.dictionary.string_table, index, "string", place)?;
        self.budget.copy(text)
    }

    fn value_type(
        &mut self,
        value_type: proto::ValueType,
        place: &dyn Fn() -> String,
    ) -> Result<ValueType, IngestError> {
        Ok(ValueType {
            kind: self.text(value_type.type_strindex, place)?,
            unit: self.text(value_type.unit_strindex, place)?,
        })
    }

    /// An attribute of the dictionary: its key and its value as a label can hold it.
    fn attribute(
        &mut self,
        index: i32,
        place: &dyn Fn() -> String,
    ) -> Result<(String, LabelValue), IngestError> {
        let attribute = row_of(&self.dictionary.attribute_table, index, "attribute", place)?;
        let key = self.text(attribute.key_strindex, place)?;
        let value = self.label_value(attribute.value.as_ref(), place)?;
        Ok((key, value))
    }

    /// A value as text or number. Lists and maps are written out; the format forbids neither.
    fn label_value(
        &mut self,
        value: Option<&AnyValue>,
        place: &dyn Fn() -> String,
    ) -> Result<LabelValue, IngestError> {
        let text = match value.and_then(|value| value.value.as_ref()) {
            None => String::new(),
            Some(Value::IntValue(number)) => return Ok(LabelValue::Number(*number)),
            Some(Value::StringValue(text)) => self.budget.copy(text)?,
            Some(Value::StringValueStrindex(index)) => self.text(*index, place)?,
            Some(Value::BoolValue(flag)) => flag.to_string(),
            Some(Value::DoubleValue(number)) => number.to_string(),
            Some(Value::BytesValue(bytes)) => self.budget.copy(&to_hex(bytes))?,
            Some(Value::ArrayValue(list)) => self.budget.copy(&format!("{:?}", list.values))?,
            Some(Value::KvlistValue(map)) => self.budget.copy(&format!("{:?}", map.values))?,
        };
        Ok(LabelValue::Text(text))
    }

    fn key<'b>(&'b self, attribute: &'b KeyValue) -> Result<&'b str, IngestError> {
        // The Collector may send both, and means the first.
        if attribute.key_strindex == 0 || !attribute.key.is_empty() {
            return Ok(&attribute.key);
        }
        let place = || "attribute".to_owned();
        let text = row_of(&self.dictionary.string_table, attribute.key_strindex, "string", &place)?;
        Ok(text)
    }

    fn resource_labels(
        &mut self,
        attributes: &[KeyValue],
        gathered: &mut Gathered,
    ) -> Result<Vec<Label>, IngestError> {
        let mut labels = Vec::new();
        for attribute in attributes {
            let key = self.key(attribute)?.to_owned();
            let value = self.label_value(attribute.value.as_ref(), &|| "resource".to_owned())?;
            match value {
                LabelValue::Text(host) if key == names::HOST_NAME => {
                    gathered.comment(format!("{HOST_COMMENT}{host}"));
                }
                value => labels.push(Label { key: names::label_of_attribute(&key).to_owned(), value }),
            }
        }
        Ok(labels)
    }

    /// For each profile of a scope the place of its type in the original, if the scope says so.
    fn scope_order(
        &mut self,
        attributes: &[KeyValue],
        gathered: &mut Gathered,
    ) -> Result<Vec<i64>, IngestError> {
        let mut order = Vec::new();
        for attribute in attributes {
            let key = self.key(attribute)?.to_owned();
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            match (key.as_str(), value) {
                (names::SAMPLE_TYPE_ORDER, Some(Value::ArrayValue(list))) => {
                    order = list
                        .values
                        .iter()
                        .filter_map(|value| match value.value {
                            Some(Value::IntValue(number)) => Some(number),
                            _ => None,
                        })
                        .collect();
                }
                (names::DEFAULT_SAMPLE_TYPE, Some(Value::StringValue(kind))) => {
                    gathered.shown = Some(self.budget.copy(kind)?);
                }
                _ => {}
            }
        }
        Ok(order)
    }

    fn gather(&mut self, profile: &proto::Profile, gathered: &mut Gathered) -> Result<(), IngestError> {
        let start = profile.time_unix_nano;
        gathered.start_unix_ns = Some(gathered.start_unix_ns.map_or(start, |known| known.min(start)));
        gathered.end_unix_ns = gathered.end_unix_ns.max(start.saturating_add(profile.duration_nano));
        if let (None, Some(period_type)) = (&gathered.period, profile.period_type) {
            let place = || "period type".to_owned();
            gathered.period = Some((self.value_type(period_type, &place)?, profile.period));
        }
        for &index in &profile.attribute_indices {
            let place = || "profile".to_owned();
            let attribute = row_of(&self.dictionary.attribute_table, index, "attribute", &place)?;
            if self.text(attribute.key_strindex, &place)? != names::COMMENT {
                continue;
            }
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            if let Some(Value::ArrayValue(list)) = value {
                for value in &list.values {
                    if let LabelValue::Text(comment) = self.label_value(Some(value), &place)? {
                        gathered.comment(comment);
                    }
                }
            }
        }
        Ok(())
    }

    fn sample_labels(
        &mut self,
        resource_labels: &[Label],
        sample: &proto::Sample,
    ) -> Result<Vec<Label>, IngestError> {
        let place = || "sample".to_owned();
        let mut labels = Vec::with_capacity(resource_labels.len() + sample.attribute_indices.len());
        for label in resource_labels {
            self.budget.copy(&label.key)?;
            if let LabelValue::Text(text) = &label.value {
                self.budget.copy(text)?;
            }
            labels.push(label.clone());
        }
        for &index in &sample.attribute_indices {
            let (key, value) = self.attribute(index, &place)?;
            let key = names::label_of_attribute(&key).to_owned();
            // What is said of the sample is more exact than what is said of its resource.
            labels.retain(|label| label.key != key);
            labels.push(Label { key, value });
        }
        if sample.link_index != 0 {
            let link = row_of(&self.dictionary.link_table, sample.link_index, "link", &place)?;
            for (key, id) in [(names::TRACE_ID, &link.trace_id), (names::SPAN_ID, &link.span_id)] {
                if !id.is_empty() {
                    labels.push(Label { key: key.to_owned(), value: LabelValue::Text(to_hex(id)) });
                }
            }
        }
        Ok(labels)
    }

    pub(super) fn tables(&mut self) -> Result<Tables, IngestError> {
        let dictionary = self.dictionary;
        let mut mappings = Vec::new();
        for (index, mapping) in dictionary.mapping_table.iter().enumerate().skip(1) {
            mappings.push(self.mapping(mapping, &|| format!("mapping {index}"))?);
        }
        let mut functions = Vec::new();
        for (index, function) in dictionary.function_table.iter().enumerate().skip(1) {
            let place = || format!("function {index}");
            let system_name = self.text(function.system_name_strindex, &place)?;
            let mut name = self.text(function.name_strindex, &place)?;
            if name.is_empty() {
                name.clone_from(&system_name);
            }
            functions.push(Function {
                system_name: if system_name == name { String::new() } else { system_name },
                name,
                file: self.text(function.filename_strindex, &place)?,
                start_line: u32::try_from(function.start_line).unwrap_or(0),
            });
        }
        let mut locations = Vec::new();
        for (index, location) in dictionary.location_table.iter().enumerate().skip(1) {
            let location = self.location(location, &mappings, &|| format!("location {index}"))?;
            locations.push(location);
        }
        Ok(Tables { mappings, functions, locations })
    }

    fn mapping(
        &mut self,
        mapping: &proto::Mapping,
        place: &dyn Fn() -> String,
    ) -> Result<Mapping, IngestError> {
        let mut read = Mapping {
            start: mapping.memory_start,
            limit: mapping.memory_limit,
            file_offset: mapping.file_offset,
            path: self.text(mapping.filename_strindex, place)?,
            ..Mapping::default()
        };
        // A GNU build id names the file for every tool; the others are better than none.
        let mut best_rank = 0;
        for &index in &mapping.attribute_indices {
            let (key, value) = self.attribute(index, place)?;
            let LabelValue::Text(value) = value else { continue };
            let rank = match key.as_str() {
                names::BUILD_ID_GNU => 3,
                names::BUILD_ID_GO => 2,
                names::BUILD_ID_HASH => 1,
                names::HAS_FUNCTIONS => {
                    read.has_functions = value == "true";
                    continue;
                }
                names::HAS_FILENAMES => {
                    read.has_filenames = value == "true";
                    continue;
                }
                names::HAS_LINE_NUMBERS => {
                    read.has_line_numbers = value == "true";
                    continue;
                }
                names::HAS_INLINE_FRAMES => {
                    read.has_inline_frames = value == "true";
                    continue;
                }
                _ => continue,
            };
            if rank > best_rank {
                best_rank = rank;
                read.build_id = value;
            }
        }
        Ok(read)
    }

    fn location(
        &mut self,
        location: &proto::Location,
        mappings: &[Mapping],
        place: &dyn Fn() -> String,
    ) -> Result<Location, IngestError> {
        let dictionary = self.dictionary;
        let mapping = match location.mapping_index {
            0 => None,
            index => {
                row_of(&dictionary.mapping_table, index, "mapping", place)?;
                our_row(index)
            }
        };
        let mut frames = Vec::with_capacity(location.lines.len());
        for line in &location.lines {
            row_of(&dictionary.function_table, line.function_index, "function", place)?;
            // Row 0 is no function: the line says nothing that could be shown.
            if let Some(function) = our_row(line.function_index) {
                frames.push(Frame { function, line: u32::try_from(line.line).unwrap_or(0) });
            }
        }
        let path = mapping.and_then(|mapping| mappings.get(mapping as usize));
        let path = path.map_or("", |mapping| mapping.path.as_str());
        let mut kind = None;
        for &index in &location.attribute_indices {
            let (key, value) = self.attribute(index, place)?;
            if let (names::FRAME_TYPE, LabelValue::Text(frame_type)) = (key.as_str(), value) {
                kind = Some(frame_kind::of_frame_type(&frame_type, path));
            }
        }
        let kind = kind.unwrap_or_else(|| frame_kind::of_address(path, location.address));
        Ok(Location { mapping, address: location.address, kind, frames })
    }

    /// A stack in rows of our tables.
    fn stack(&self, index: i32) -> Result<Vec<u32>, IngestError> {
        let table = &self.dictionary.stack_table;
        if table.is_empty() && index == 0 {
            // Samples without a stack refer to row 0 even where the table was left out.
            return Ok(Vec::new());
        }
        let place = || format!("stack {index}");
        let stack = row_of(table, index, "stack", &|| "sample".to_owned())?;
        let mut locations = Vec::with_capacity(stack.location_indices.len());
        for &location in &stack.location_indices {
            row_of(&self.dictionary.location_table, location, "location", &place)?;
            locations.push(our_row(location).ok_or_else(|| {
                malformed(place(), "it refers to location 0, which stands for none".to_owned())
            })?);
        }
        Ok(locations)
    }

    /// That every stack, in use or not, is one.
    pub(super) fn check_stacks(&self) -> Result<(), IngestError> {
        for index in 0..self.dictionary.stack_table.len() {
            self.stack(i32::try_from(index).unwrap_or(i32::MAX))?;
        }
        Ok(())
    }
}

/// What a sample amounts to: its values together, or 1 for each timestamp.
fn amount_of(sample: &proto::Sample) -> Result<i64, IngestError> {
    let overflow = || malformed("sample".to_owned(), "its values do not fit 64 bits".to_owned());
    if sample.values.is_empty() {
        return i64::try_from(sample.timestamps_unix_nano.len()).map_err(|_| overflow());
    }
    let mut sum = 0_i64;
    for &value in &sample.values {
        sum = sum.checked_add(value).ok_or_else(overflow)?;
    }
    Ok(sum)
}

impl Gathered {
    fn comment(&mut self, comment: String) {
        if !self.comments.contains(&comment) && self.comments.len() < 1_000 {
            self.comments.push(comment);
        }
    }

    fn apply(self, profile: &mut Profile) {
        profile.start_unix_ns = self.start_unix_ns.unwrap_or(0);
        profile.duration_ns = self.end_unix_ns.saturating_sub(profile.start_unix_ns);
        profile.comments = self.comments;
        if let Some((period_type, period)) = self.period {
            profile.period_type = Some(period_type);
            profile.period = period;
        }
        // The first profile is the one to show; then the types go back to their original places.
        let shown = self.shown.as_deref().and_then(|kind| profile.value_index(kind)).unwrap_or(0);
        let place = |value: usize| {
            let known = self.order.iter().find(|(known, _)| *known == value);
            known.map_or(i64::MAX, |(_, place)| *place)
        };
        let mut order: Vec<usize> = (0..profile.value_types.len()).collect();
        order.sort_by_key(|&value| place(value));
        profile.default_value = order.iter().position(|&value| value == shown).unwrap_or(0);
        let reordered = order.iter().filter_map(|&value| profile.value_types.get(value).cloned()).collect();
        profile.value_types = reordered;
        for sample in &mut profile.samples {
            sample.values =
                order.iter().map(|&value| sample.values.get(value).copied().unwrap_or(0)).collect();
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
