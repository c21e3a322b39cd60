//! The dictionary of an OTLP profiles message while it grows, and its tables when it is done.
//!
//! The data model asks that each table begin with its zero value, hold nothing twice and nothing that
//! nobody refers to. So rows are put in when they are referred to, and equal ones are one.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value::Value};
use opentelemetry_proto::tonic::profiles::v1development as proto;

use super::otlp_attributes as names;
use crate::model::{Interner, LabelValue, Mapping, Profile, ValueType};

/// A value in the attribute table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum AttributeValue {
    Text(String),
    Number(i64),
    Flag(bool),
    Texts(Vec<String>),
}

impl AttributeValue {
    pub(super) fn into_any(self) -> AnyValue {
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

/// A location that can be compared. The message itself cannot be.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct LocationRow {
    mapping_index: i32,
    address: u64,
    lines: Vec<proto::Line>,
    /// Its one attribute, 0 for none.
    frame_type: i32,
}

impl LocationRow {
    fn into_message(self) -> proto::Location {
        proto::Location {
            mapping_index: self.mapping_index,
            address: self.address,
            lines: self.lines,
            attribute_indices: (self.frame_type != 0).then_some(self.frame_type).into_iter().collect(),
        }
    }
}

/// An index as the format writes it. Tables of 2^31 rows are refused before.
fn index(row: u32) -> i32 {
    i32::try_from(row).unwrap_or(i32::MAX)
}

/// See the module's description.
pub(super) struct Dictionary {
    strings: Interner<String>,
    attributes: Interner<Option<(i32, AttributeValue)>>,
    links: Interner<proto::Link>,
    mappings: Interner<proto::Mapping>,
    functions: Interner<proto::Function>,
    locations: Interner<LocationRow>,
    stacks: Interner<proto::Stack>,
    /// For each stack of the profile its row, once it was asked for.
    row_of_stack: Vec<Option<i32>>,
    /// Likewise.
    row_of_location: Vec<Option<i32>>,
}

impl Dictionary {
    /// Its zero rows, and the mappings that the samples reach, in the order of the profile: the main
    /// executable comes first.
    pub(super) fn new(profile: &Profile, stacks_in_use: impl Iterator<Item = u32>) -> Self {
        let mut dictionary = Self {
            strings: Interner::new(),
            attributes: Interner::new(),
            links: Interner::new(),
            mappings: Interner::new(),
            functions: Interner::new(),
            locations: Interner::new(),
            stacks: Interner::new(),
            row_of_stack: vec![None; profile.stacks.len()],
            row_of_location: vec![None; profile.locations.len()],
        };
        dictionary.strings.intern(String::new());
        dictionary.attributes.intern(None);
        dictionary.links.intern(proto::Link::default());
        dictionary.mappings.intern(proto::Mapping::default());
        dictionary.functions.intern(proto::Function::default());
        dictionary.locations.intern(LocationRow::default());
        dictionary.stacks.intern(proto::Stack::default());

        let mut stack_seen = vec![false; profile.stacks.len()];
        let mut mapping_used = vec![false; profile.mappings.len()];
        for stack in stacks_in_use {
            let Some(seen) = stack_seen.get_mut(stack as usize) else { continue };
            if std::mem::replace(seen, true) {
                continue;
            }
            for &location in profile.stacks.get(stack).into_iter().flatten() {
                let mapping = profile.locations.get(location as usize).and_then(|location| location.mapping);
                let used = mapping.and_then(|mapping| mapping_used.get_mut(mapping as usize));
                if let Some(used) = used {
                    *used = true;
                }
            }
        }
        for (mapping, used) in profile.mappings.iter().zip(mapping_used) {
            if used {
                dictionary.mapping(mapping);
            }
        }
        dictionary
    }

    pub(super) fn string(&mut self, text: &str) -> i32 {
        index(self.strings.intern(text.to_owned()))
    }

    pub(super) fn attribute(&mut self, key: &str, value: AttributeValue) -> i32 {
        let key = self.string(key);
        index(self.attributes.intern(Some((key, value))))
    }

    pub(super) fn value_type(&mut self, value_type: &ValueType) -> proto::ValueType {
        proto::ValueType {
            type_strindex: self.string(&value_type.kind),
            unit_strindex: self.string(&value_type.unit),
        }
    }

    pub(super) fn link(&mut self, trace_id: Vec<u8>, span_id: Vec<u8>) -> i32 {
        index(self.links.intern(proto::Link { trace_id, span_id }))
    }

    /// The row of a stack of the profile, with everything that it needs.
    pub(super) fn stack(&mut self, profile: &Profile, stack: u32) -> i32 {
        if let Some(&Some(known)) = self.row_of_stack.get(stack as usize) {
            return known;
        }
        let locations = profile.stacks.get(stack).unwrap_or_default();
        let location_indices = locations.iter().map(|&location| self.location(profile, location)).collect();
        let row = index(self.stacks.intern(proto::Stack { location_indices }));
        if let Some(known) = self.row_of_stack.get_mut(stack as usize) {
            *known = Some(row);
        }
        row
    }

    fn location(&mut self, profile: &Profile, number: u32) -> i32 {
        if let Some(&Some(known)) = self.row_of_location.get(number as usize) {
            return known;
        }
        let Some(location) = profile.locations.get(number as usize) else { return 0 };
        let frame_type = location.kind.frame_type();
        let frame_type = self.attribute(names::FRAME_TYPE, AttributeValue::Text(frame_type.into()));
        let mapping = location.mapping.and_then(|mapping| profile.mappings.get(mapping as usize));
        let mut lines = Vec::with_capacity(location.frames.len());
        for frame in &location.frames {
            let function_index = self.function(profile, frame.function);
            // A function of which nothing is known is row 0, which is none.
            if function_index != 0 {
                lines.push(proto::Line { function_index, line: i64::from(frame.line), column: 0 });
            }
        }
        let location = LocationRow {
            mapping_index: mapping.map_or(0, |mapping| self.mapping(mapping)),
            address: location.address,
            lines,
            frame_type,
        };
        let row = index(self.locations.intern(location));
        if let Some(known) = self.row_of_location.get_mut(number as usize) {
            *known = Some(row);
        }
        row
    }

    fn function(&mut self, profile: &Profile, function: u32) -> i32 {
        let Some(function) = profile.functions.get(function as usize) else { return 0 };
        let function = proto::Function {
            name_strindex: self.string(&function.name),
            system_name_strindex: self.string(&function.system_name),
            filename_strindex: self.string(&function.file),
            start_line: i64::from(function.start_line),
        };
        index(self.functions.intern(function))
    }

    fn mapping(&mut self, mapping: &Mapping) -> i32 {
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
        // The format knows a range or none; one that ends before it begins says nothing.
        let (start, limit) = match mapping.start < mapping.limit {
            true => (mapping.start, mapping.limit),
            false => (0, 0),
        };
        let mapping = proto::Mapping {
            memory_start: start,
            memory_limit: limit,
            file_offset: mapping.file_offset,
            filename_strindex: self.string(&mapping.path),
            attribute_indices,
        };
        index(self.mappings.intern(mapping))
    }

    pub(super) fn finish(self) -> proto::ProfilesDictionary {
        let attributes = self.attributes.into_values().into_iter().map(|attribute| match attribute {
            None => proto::KeyValueAndUnit::default(),
            Some((key_strindex, value)) => {
                proto::KeyValueAndUnit { key_strindex, value: Some(value.into_any()), unit_strindex: 0 }
            }
        });
        proto::ProfilesDictionary {
            attribute_table: attributes.collect(),
            mapping_table: self.mappings.into_values(),
            location_table: self.locations.into_values().into_iter().map(LocationRow::into_message).collect(),
            function_table: self.functions.into_values(),
            link_table: self.links.into_values(),
            string_table: self.strings.into_values(),
            stack_table: self.stacks.into_values(),
        }
    }
}
