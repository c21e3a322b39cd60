//! pprof profiles of any producer: Go, gperftools' and perf's converters, py-spy, spanflame.
//!
//! Messages are in [`crate::export::pprof_proto`], where the fields that get lost are listed. As
//! `go tool pprof` does, this refuses ids that are 0, used twice or lead nowhere, strings beyond the
//! table, and samples with another number of values than there are types. It is more forgiving where
//! nothing depends on it: lines that do not fit become unknown, names that are no UTF-8 are repaired.

use prost::Message;

use super::budget::TextBudget;
use super::pprof_locations::RawLocation;
use super::pprof_parts::Parts;
use super::pprof_samples::{Labels, RawSample};
use super::{IngestError, Limits, frame_kind};
use crate::export::pprof_proto as proto;
use crate::model::{
    Frame, Function, Interner, Label, LabelValue, Location, Mapping, Profile, Sample, SliceInterner, Slices,
    ValueType,
};

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Profile, IngestError> {
    let mut stacks: SliceInterner<u32> = SliceInterner::default();
    let mut rows = Vec::new();
    let mut profile = visit(bytes, limits, |_| {
        |stack: &[u32], labels: u32, values: &[i64]| {
            rows.push(Sample { stack: stacks.intern(stack), labels, values: values.to_vec() });
        }
    })?;
    profile.stacks = stacks.into_slices();
    profile.samples = rows;
    Ok(profile)
}

/// Gives the samples one by one, as stack (rows of locations, leaf first), row of label sets and values, to what `begin`
/// makes of the profile's tables. Returns the profile without stacks and samples.
pub(super) fn visit<V>(
    bytes: &[u8],
    limits: &Limits,
    begin: impl FnOnce(&Profile) -> V,
) -> Result<Profile, IngestError>
where
    V: FnMut(&[u32], u32, &[i64]),
{
    let parts = Parts::of(bytes, limits.fields)?;
    let message = proto::Profile::decode(parts.rest.as_slice())
        .map_err(|source| IngestError::Message { format: "pprof", source })?;
    let mut reader = Reader {
        message: &message,
        parts: &parts,
        budget: TextBudget::new(limits.text_bytes),
        line_limit: limits.fields,
    };
    let (mut profile, location_rows) = reader.tables()?;
    let visitor = begin(&profile);
    profile.label_sets = reader.samples(&location_rows, visitor)?;
    Ok(profile)
}

/// By an id that the file gives.
type IdMap<T> = foldhash::HashMap<u64, T>;

fn malformed(place: String, what: String) -> IngestError {
    IngestError::Malformed { format: "pprof", place, what }
}

/// A row number as our tables have it.
fn row(index: usize) -> Result<u32, IngestError> {
    u32::try_from(index)
        .map_err(|_| IngestError::TooLarge { what: "rows of one table", limit: u32::MAX as usize })
}

struct Reader<'a> {
    /// All but what the parts have.
    message: &'a proto::Profile,
    parts: &'a Parts<'a>,
    budget: TextBudget,
    /// The most lines that all locations may have together.
    line_limit: usize,
}

impl Reader<'_> {
    fn text(&mut self, index: i64, place: impl Fn() -> String) -> Result<String, IngestError> {
        let table = &self.parts.texts;
        let bytes = usize::try_from(index).ok().and_then(|index| table.get(index));
        let Some(bytes) = bytes else {
            // An absent table has, in effect, its one obligatory entry.
            if index == 0 {
                return Ok(String::new());
            }
            let what = format!("string {index} of a table of {}", table.len());
            return Err(malformed(place(), what));
        };
        self.budget.copy(&String::from_utf8_lossy(bytes))
    }

    fn value_type(&mut self, value: proto::ValueType, place: &str) -> Result<ValueType, IngestError> {
        Ok(ValueType {
            kind: self.text(value.r#type, || place.to_owned())?,
            unit: self.text(value.unit, || place.to_owned())?,
        })
    }

    /// Everything but samples, their stacks and their labels.
    fn tables(&mut self) -> Result<(Profile, Rows), IngestError> {
        let message = self.message;
        if message.sample_type.is_empty() {
            return Err(malformed("profile".to_owned(), "no sample types".to_owned()));
        }
        if self.parts.texts.first().is_some_and(|first| !first.is_empty()) {
            let what = "the first string is not the empty one".to_owned();
            return Err(malformed("string table".to_owned(), what));
        }
        let mut value_types = Vec::new();
        for &sample_type in &message.sample_type {
            value_types.push(self.value_type(sample_type, "sample type")?);
        }
        let shown = self.text(message.default_sample_type, || "default sample type".to_owned())?;
        // profile.proto: unset means the last one.
        let default_value = value_types
            .iter()
            .position(|value_type| !shown.is_empty() && value_type.kind == shown)
            .unwrap_or(value_types.len() - 1);
        let period_type = match message.period_type {
            Some(period_type) if period_type != proto::ValueType::default() => {
                Some(self.value_type(period_type, "period type")?)
            }
            _ => None,
        };
        let mut comments = Vec::new();
        for &comment in &message.comment {
            comments.push(self.text(comment, || "comment".to_owned())?);
        }
        let (mappings, mapping_ids) = self.mappings()?;
        let (functions, function_ids) = self.functions()?;
        let (locations, location_ids) = self.locations(&mappings, &mapping_ids, &function_ids)?;
        let profile = Profile {
            value_types,
            default_value,
            period_type,
            period: message.period,
            start_unix_ns: u64::try_from(message.time_nanos).unwrap_or(0),
            duration_ns: u64::try_from(message.duration_nanos).unwrap_or(0),
            mappings,
            functions,
            locations,
            stacks: Slices::default(),
            label_sets: Vec::new(),
            samples: Vec::new(),
            comments,
        };
        Ok((profile, location_ids))
    }

    /// The mappings, and for each id the row, or none for one that says nothing: producers without
    /// mappings (Go before 1.9, our own writer) put an empty one in their place.
    #[allow(clippy::type_complexity)]
    fn mappings(&mut self) -> Result<(Vec<Mapping>, IdMap<Option<u32>>), IngestError> {
        let mut rows = Vec::new();
        let mut ids = IdMap::default();
        for mapping in &self.message.mapping {
            let place = || format!("mapping {}", mapping.id);
            let path = self.text(mapping.filename, place)?;
            let build_id = self.text(mapping.build_id, place)?;
            let addresses = (mapping.memory_start, mapping.memory_limit, mapping.file_offset);
            let empty = path.is_empty() && build_id.is_empty() && addresses == (0, 0, 0);
            let row = if empty { None } else { Some(row(rows.len())?) };
            insert_id(&mut ids, mapping.id, row, "mapping")?;
            if !empty {
                rows.push(Mapping {
                    start: mapping.memory_start,
                    limit: mapping.memory_limit,
                    file_offset: mapping.file_offset,
                    path,
                    build_id,
                    has_functions: mapping.has_functions,
                    has_filenames: mapping.has_filenames,
                    has_line_numbers: mapping.has_line_numbers,
                    has_inline_frames: mapping.has_inline_frames,
                });
            }
        }
        Ok((rows, ids))
    }

    fn functions(&mut self) -> Result<(Vec<Function>, Rows), IngestError> {
        let mut rows = Vec::with_capacity(self.message.function.len());
        let mut ids = IdMap::default();
        for function in &self.message.function {
            let place = || format!("function {}", function.id);
            insert_id(&mut ids, function.id, row(rows.len())?, "function")?;
            let system_name = self.text(function.system_name, place)?;
            let mut name = self.text(function.name, place)?;
            if name.is_empty() {
                name.clone_from(&system_name);
            }
            rows.push(Function {
                system_name: if system_name == name { String::new() } else { system_name },
                name,
                file: self.text(function.filename, place)?,
                start_line: u32::try_from(function.start_line).unwrap_or(0),
            });
        }
        Ok((rows, Rows::new(ids)))
    }

    fn locations(
        &self,
        mappings: &[Mapping],
        mapping_ids: &IdMap<Option<u32>>,
        function_rows: &Rows,
    ) -> Result<(Vec<Location>, Rows), IngestError> {
        let mut rows = Vec::with_capacity(self.parts.locations.len());
        let mut ids = IdMap::with_capacity_and_hasher(self.parts.locations.len(), Default::default());
        let mut lines = 0_usize;
        let mut raw = RawLocation::default();
        for &bytes in &self.parts.locations {
            raw.read(bytes)?;
            lines += raw.lines.len();
            if lines > self.line_limit {
                return Err(IngestError::TooLarge { what: "protocol-buffer fields", limit: self.line_limit });
            }
            let place = || format!("location {}", raw.id);
            insert_id(&mut ids, raw.id, row(rows.len())?, "location")?;
            let mapping = match raw.mapping_id {
                0 => None,
                id => *mapping_ids
                    .get(&id)
                    .ok_or_else(|| malformed(place(), format!("there is no mapping {id}")))?,
            };
            let mut frames = Vec::with_capacity(raw.lines.len());
            for &(function, line) in &raw.lines {
                let function = function_rows
                    .row(function)
                    .ok_or_else(|| malformed(place(), format!("there is no function {function}")))?;
                frames.push(Frame { function, line: u32::try_from(line).unwrap_or(0) });
            }
            let path = mapping.and_then(|mapping| mappings.get(mapping as usize));
            let path = path.map_or("", |mapping| mapping.path.as_str());
            let kind = frame_kind::of_address(path, raw.address);
            rows.push(Location { mapping, address: raw.address, kind, frames });
        }
        Ok((rows, Rows::new(ids)))
    }

    /// Returns the sets of labels.
    fn samples(
        &mut self,
        location_rows: &Rows,
        mut visitor: impl FnMut(&[u32], u32, &[i64]),
    ) -> Result<Vec<Vec<Label>>, IngestError> {
        let mut label_sets: Interner<Vec<Label>> = Interner::new();
        // Equal labels are equal bytes: only sets that differ are turned into text.
        let mut known_labels: foldhash::HashMap<Labels<'_>, u32> = foldhash::HashMap::default();
        let mut raw = RawSample::default();
        let mut stack: Vec<u32> = Vec::new();
        for (index, bytes) in self.parts.samples.iter().enumerate() {
            let place = || format!("sample {}", index + 1);
            raw.read(bytes)?;
            if raw.values.len() != self.message.sample_type.len() {
                let what = format!(
                    "{} values for {} sample types",
                    raw.values.len(),
                    self.message.sample_type.len()
                );
                return Err(malformed(place(), what));
            }
            stack.clear();
            for &id in &raw.locations {
                let location = location_rows.row(id);
                stack.push(location.ok_or_else(|| malformed(place(), format!("there is no location {id}")))?);
            }
            let labels = match known_labels.get(&raw.labels) {
                Some(&known) => known,
                None => {
                    let mut labels = Vec::new();
                    for label in raw.labels.decoded()? {
                        labels.push(self.label(label, index)?);
                    }
                    labels.sort();
                    let new = label_sets.intern(labels);
                    known_labels.insert(raw.labels.clone(), new);
                    new
                }
            };
            visitor(&stack, labels, &raw.values);
        }
        Ok(label_sets.into_values())
    }

    fn label(&mut self, label: proto::Label, sample: usize) -> Result<Label, IngestError> {
        let place = || format!("label of sample {}", sample + 1);
        let key = self.text(label.key, place)?;
        let is_number = label.str == 0 && (label.num != 0 || label.num_unit != 0);
        let value = if is_number {
            LabelValue::Number(label.num)
        } else {
            LabelValue::Text(self.text(label.str, place)?)
        };
        Ok(Label { key, value })
    }
}

/// The row of each id. Producers count them from 1, so that nearly always a table will do.
enum Rows {
    /// By id; [`NO_ROW`] where there is none.
    Counted(Vec<u32>),
    Any(IdMap<u32>),
}

const NO_ROW: u32 = u32::MAX;

impl Rows {
    fn new(ids: IdMap<u32>) -> Self {
        let length = ids.keys().max().and_then(|&greatest| usize::try_from(greatest).ok()?.checked_add(1));
        // A table takes no more memory than what it is made from.
        let Some(length) = length.filter(|&length| length <= 4 * ids.len()) else { return Self::Any(ids) };
        let mut rows = vec![NO_ROW; length];
        for (id, row) in ids {
            if let Some(place) = usize::try_from(id).ok().and_then(|id| rows.get_mut(id)) {
                *place = row;
            }
        }
        Self::Counted(rows)
    }

    #[inline]
    fn row(&self, id: u64) -> Option<u32> {
        match self {
            Self::Counted(rows) => rows.get(usize::try_from(id).ok()?).copied().filter(|&row| row != NO_ROW),
            Self::Any(ids) => ids.get(&id).copied(),
        }
    }
}

fn insert_id<T>(ids: &mut IdMap<T>, id: u64, row: T, table: &str) -> Result<(), IngestError> {
    if id == 0 {
        return Err(malformed(format!("a {table}"), "its id is 0, which is reserved".to_owned()));
    }
    if ids.insert(id, row).is_some() {
        return Err(malformed(format!("{table} {id}"), "the id is used twice".to_owned()));
    }
    Ok(())
}
