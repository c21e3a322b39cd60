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

use std::collections::BTreeMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::pprof_proto as proto;
use super::{ExportError, Options};
use crate::model::{Frame, FrameKind, Interner, Label, LabelValue, Location, Profile, Sample, ValueType};

/// Rows that are encoded at once.
const ROWS_OF_PIECE: usize = 512;

/// Writes the profile with all its values and labels.
///
/// The message is never held as a whole: its samples with their labels are many times as large as the
/// profile itself. It is written in pieces, each with some rows of one table: encodings that follow each
/// other are the encoding of the messages merged (protobuf.dev, "Encoding", "Last One Wins"). Fields come
/// in the order of their numbers, as if it were one piece.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write(profile: &Profile, writer: &mut dyn Write, options: &Options) -> Result<(), ExportError> {
    if options.uncompressed {
        return Ok(write_message(profile, options.value, writer)?);
    }
    let mut encoder = GzEncoder::new(writer, Compression::default());
    write_message(profile, options.value, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}

/// Rows keep their order, so that id = index + 1 in every table.
fn write_message(profile: &Profile, shown: Option<usize>, writer: &mut dyn Write) -> io::Result<()> {
    // A text gets its number where it is first met, so all tables that have texts come before any piece
    // is written.
    let mut strings = Strings::new();
    let mappings = MappingRows::new(profile, &mut strings);
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
        .map(|labels| labels.iter().map(|label| to_label(label, &mut strings)).collect())
        .collect();
    let sample_type = profile.value_types.iter().map(|value| strings.value_type(value)).collect();
    let period_type = profile.period_type.as_ref().map(|value| strings.value_type(value));
    let comment = profile.comments.iter().map(|comment| strings.index(comment)).collect();
    let default_sample_type = profile
        .value_types
        .get(shown.unwrap_or(profile.default_value))
        .map_or(0, |value_type| strings.index(&value_type.kind));

    let mut pieces = Pieces { writer, encoded: Vec::new() };
    pieces.write(&proto::Profile { sample_type, ..proto::Profile::default() })?;
    for samples in profile.samples.chunks(ROWS_OF_PIECE) {
        let to_row = |sample| to_sample(profile, &label_sets, sample);
        let sample = samples.iter().map(to_row).collect();
        pieces.write(&proto::Profile { sample, ..proto::Profile::default() })?;
    }
    let of_kind = mappings.of_kind;
    pieces.write(&proto::Profile { mapping: mappings.rows, ..proto::Profile::default() })?;
    let mut id = 0;
    for locations in profile.locations.chunks(ROWS_OF_PIECE) {
        let to_row = |location: &Location| {
            id += 1;
            let mapping_id = match (location.mapping, location.kind) {
                (Some(mapping), _) => u64::from(mapping) + 1,
                (None, kind) => of_kind.get(&kind).copied().unwrap_or(0),
            };
            proto::Location {
                id,
                mapping_id,
                address: location.address,
                line: location.frames.iter().map(to_line).collect(),
            }
        };
        let location = locations.iter().map(to_row).collect();
        pieces.write(&proto::Profile { location, ..proto::Profile::default() })?;
    }
    pieces.write(&proto::Profile { function, ..proto::Profile::default() })?;
    let texts: Vec<&str> = strings.0.into_values();
    for texts in texts.chunks(ROWS_OF_PIECE) {
        let string_table = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        pieces.write(&proto::Profile { string_table, ..proto::Profile::default() })?;
    }
    pieces.write(&proto::Profile {
        time_nanos: i64::try_from(profile.start_unix_ns).unwrap_or(i64::MAX),
        duration_nanos: i64::try_from(profile.duration_ns).unwrap_or(i64::MAX),
        period_type,
        period: profile.period,
        comment,
        default_sample_type,
        ..proto::Profile::default()
    })
}

/// Encodes pieces of the message into one buffer and writes them.
struct Pieces<'writer> {
    writer: &'writer mut dyn Write,
    encoded: Vec<u8>,
}

impl Pieces<'_> {
    fn write(&mut self, piece: &proto::Profile) -> io::Result<()> {
        self.encoded.clear();
        // It fails for want of room only, and a vector grows.
        piece.encode(&mut self.encoded)?;
        self.writer.write_all(&self.encoded)
    }
}

/// Interned strings, the empty one first.
struct Strings<'profile>(Interner<&'profile str>);

impl<'profile> Strings<'profile> {
    fn new() -> Self {
        let mut interner = Interner::new();
        interner.intern("");
        Self(interner)
    }

    fn index(&mut self, text: &'profile str) -> i64 {
        i64::from(self.0.intern(text))
    }

    fn value_type(&mut self, value_type: &'profile ValueType) -> proto::ValueType {
        proto::ValueType { r#type: self.index(&value_type.kind), unit: self.index(&value_type.unit) }
    }
}

fn to_label<'profile>(label: &'profile Label, strings: &mut Strings<'profile>) -> proto::Label {
    let key = strings.index(&label.key);
    match &label.value {
        LabelValue::Text(text) => proto::Label { key, str: strings.index(text), ..proto::Label::default() },
        LabelValue::Number(number) => {
            proto::Label { key, num: *number, num_unit: key, ..proto::Label::default() }
        }
    }
}

fn to_sample(profile: &Profile, label_sets: &[Vec<proto::Label>], sample: &Sample) -> proto::Sample {
    let stack = profile.stacks.get(sample.stack).unwrap_or_default();
    proto::Sample {
        location_id: stack.iter().map(|&location| u64::from(location) + 1).collect(),
        value: sample.values.clone(),
        label: label_sets.get(sample.labels as usize).cloned().unwrap_or_default(),
    }
}

fn to_line(frame: &Frame) -> proto::Line {
    proto::Line { function_id: u64::from(frame.function) + 1, line: i64::from(frame.line) }
}

/// The mappings of the model, and after them those that code without a mapping is given.
struct MappingRows {
    rows: Vec<proto::Mapping>,
    /// Ids of the mappings for code without one, as far as there is such code.
    of_kind: BTreeMap<FrameKind, u64>,
}

impl MappingRows {
    fn new<'profile>(profile: &'profile Profile, strings: &mut Strings<'profile>) -> Self {
        let mut rows = Self { rows: Vec::new(), of_kind: BTreeMap::new() };
        for mapping in &profile.mappings {
            rows.push(proto::Mapping {
                id: 0,
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
        }
        let named =
            |path: i64| proto::Mapping { filename: path, has_functions: true, ..proto::Mapping::default() };
        let only_native = profile.locations.iter().all(|location| location.kind == FrameKind::Native);
        if rows.rows.is_empty() && !profile.locations.is_empty() && only_native {
            rows.push(named(0));
        }
        for location in profile.locations.iter().filter(|location| location.mapping.is_none()) {
            if let Some(path) = location.kind.mapping_path()
                && !rows.of_kind.contains_key(&location.kind)
            {
                let id = rows.push(named(strings.index(path)));
                rows.of_kind.insert(location.kind, id);
            }
        }
        rows
    }

    /// Adds a mapping, whose id is returned.
    fn push(&mut self, mapping: proto::Mapping) -> u64 {
        let id = self.rows.len() as u64 + 1;
        self.rows.push(proto::Mapping { id, ..mapping });
        id
    }
}
