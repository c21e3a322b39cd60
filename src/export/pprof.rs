//! pprof: a gzip-compressed `perftools.profiles.Profile`.
//!
//! Decisions, each tried with `go tool pprof` of Go 1.26:
//!
//! - `has_functions` is true wherever names were looked for, even if none was found: otherwise the
//!   tool opens the path on its own machine and complains. Locations without a name have no line and
//!   show as `[module]`.
//! - Code without any mapping would make the tool invent a nameless main binary and complain about
//!   it. JIT and kernel code without a mapping gets one named `[jit]` or `[kernel.kallsyms]`, which is
//!   how a reader knows it again; a profile that still has no mapping gets one that is empty except
//!   for its flags, which our reader leaves out again.
//! - A numeric label carries a unit, since the tool drops the number 0 without one: the label's own
//!   name, which is what the tool takes for the unit where there is none.
//! - An empty `system_name` tells the tool that `name` is demangled already and to be left alone.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::pprof_proto as proto;
use super::{ExportError, Options};
use crate::model::{FrameKind, Interner, LabelValue, Location, Mapping, Profile, ValueType};

/// Path of the mapping that JIT code without one is given.
pub const JIT_MAPPING: &str = "[jit]";
/// Path of the mapping that kernel code without one is given.
pub const KERNEL_MAPPING: &str = "[kernel.kallsyms]";

/// Writes the profile with all its values and labels.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write(profile: &Profile, writer: &mut dyn Write, options: &Options) -> Result<(), ExportError> {
    let bytes = to_message(profile, options.value).encode_to_vec();
    if options.uncompressed {
        writer.write_all(&bytes)?;
        return Ok(());
    }
    let mut encoder = GzEncoder::new(writer, Compression::default());
    encoder.write_all(&bytes)?;
    encoder.finish()?;
    Ok(())
}

/// Interned strings, the empty one first.
struct Strings(Interner<Vec<u8>>);

impl Strings {
    fn new() -> Self {
        let mut interner = Interner::new();
        interner.intern(Vec::new());
        Self(interner)
    }

    fn index(&mut self, text: &str) -> i64 {
        i64::from(self.0.intern(text.as_bytes().to_vec()))
    }

    fn value_type(&mut self, value_type: &ValueType) -> proto::ValueType {
        proto::ValueType { r#type: self.index(&value_type.kind), unit: self.index(&value_type.unit) }
    }
}

/// The profile as a message. Rows keep their order, so that id = index + 1 in every table.
fn to_message(profile: &Profile, shown: Option<usize>) -> proto::Profile {
    let mut strings = Strings::new();
    let mut mappings = MappingRows::new(profile, &mut strings);

    let location = profile
        .locations
        .iter()
        .enumerate()
        .map(|(index, location)| proto::Location {
            id: index as u64 + 1,
            mapping_id: mappings.id_for(location, &mut strings),
            address: location.address,
            line: location
                .frames
                .iter()
                .map(|frame| proto::Line {
                    function_id: u64::from(frame.function) + 1,
                    line: i64::from(frame.line),
                })
                .collect(),
        })
        .collect();

    let function = profile
        .functions
        .iter()
        .enumerate()
        .map(|(index, function)| proto::Function {
            id: index as u64 + 1,
            name: strings.index(&function.name),
            system_name: strings.index(&function.system_name),
            filename: strings.index(&function.file),
            start_line: i64::from(function.start_line),
        })
        .collect();

    let label_sets: Vec<Vec<proto::Label>> = profile
        .label_sets
        .iter()
        .map(|labels| {
            let to_label = |label: &crate::model::Label| {
                let key = strings.index(&label.key);
                match &label.value {
                    LabelValue::Text(text) => {
                        proto::Label { key, str: strings.index(text), ..proto::Label::default() }
                    }
                    LabelValue::Number(number) => {
                        proto::Label { key, num: *number, num_unit: key, ..proto::Label::default() }
                    }
                }
            };
            labels.iter().map(to_label).collect()
        })
        .collect();

    let sample = profile
        .samples
        .iter()
        .map(|sample| proto::Sample {
            location_id: profile
                .stacks
                .get(sample.stack as usize)
                .map(|stack| stack.iter().map(|&location| u64::from(location) + 1).collect())
                .unwrap_or_default(),
            value: sample.values.clone(),
            label: label_sets.get(sample.labels as usize).cloned().unwrap_or_default(),
        })
        .collect();

    let sample_type = profile.value_types.iter().map(|value| strings.value_type(value)).collect();
    let period_type = profile.period_type.as_ref().map(|value| strings.value_type(value));
    let comment = profile.comments.iter().map(|comment| strings.index(comment)).collect();
    let default_sample_type = profile
        .value_types
        .get(shown.unwrap_or(profile.default_value))
        .map_or(0, |value_type| strings.index(&value_type.kind));

    proto::Profile {
        sample_type,
        sample,
        mapping: mappings.rows,
        location,
        function,
        string_table: strings.0.into_values(),
        time_nanos: i64::try_from(profile.start_unix_ns).unwrap_or(i64::MAX),
        duration_nanos: i64::try_from(profile.duration_ns).unwrap_or(i64::MAX),
        period_type,
        period: profile.period,
        comment,
        default_sample_type,
    }
}

/// The mappings of the model, and after them those that code without a mapping is given.
struct MappingRows {
    rows: Vec<proto::Mapping>,
    jit: Option<u64>,
    kernel: Option<u64>,
}

impl MappingRows {
    fn new(profile: &Profile, strings: &mut Strings) -> Self {
        let mut rows = Self { rows: Vec::new(), jit: None, kernel: None };
        for mapping in &profile.mappings {
            rows.push(mapping, strings);
        }
        // Checked here and not after the locations, so that a model without mappings gives the same
        // rows whether or not the first location is JIT code.
        let only_native = profile.locations.iter().all(|location| location.kind == FrameKind::Native);
        if rows.rows.is_empty() && !profile.locations.is_empty() && only_native {
            rows.push(&Mapping { has_functions: true, ..Mapping::default() }, strings);
        }
        rows
    }

    fn push(&mut self, mapping: &Mapping, strings: &mut Strings) -> u64 {
        let id = self.rows.len() as u64 + 1;
        self.rows.push(proto::Mapping {
            id,
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.file_offset,
            filename: strings.index(&mapping.path),
            build_id: strings.index(&mapping.build_id),
            // Inlined functions are functions: who looked for the one looked for the other.
            has_functions: mapping.has_functions || mapping.has_inline_frames,
            has_filenames: mapping.has_filenames,
            has_line_numbers: mapping.has_line_numbers,
            has_inline_frames: mapping.has_inline_frames,
        });
        id
    }

    fn id_for(&mut self, location: &Location, strings: &mut Strings) -> u64 {
        if let Some(mapping) = location.mapping {
            return u64::from(mapping) + 1;
        }
        let (known, path) = match location.kind {
            FrameKind::Native => return 0,
            FrameKind::Kernel => (self.kernel, KERNEL_MAPPING),
            FrameKind::Jit => (self.jit, JIT_MAPPING),
        };
        if let Some(id) = known {
            return id;
        }
        let mapping = Mapping { path: path.to_owned(), has_functions: true, ..Mapping::default() };
        let id = self.push(&mapping, strings);
        match location.kind {
            FrameKind::Jit => self.jit = Some(id),
            _ => self.kernel = Some(id),
        }
        id
    }
}
