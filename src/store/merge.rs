//! Puts what segments answer together: rows and sums of each → one [`Profile`].

use std::collections::{HashMap, HashSet};

use super::block::Thread;
use super::dictionary::Tables;
use super::encode::{extent_varies, to_hex};
use super::error::StoreError;
use super::rows::{FlaggedMapping, LabelValueRow, LabelsRow, MappingRow, NodeRow};
use super::stack_tree::Tree;
use super::sums::NodeSums;
use super::varint::Malformed;
use super::window_row::{SeenMapping, set_flags};
use crate::model::{
    Frame, Function, IndexMap, Interner, Label, LabelValue, Location, Mapping, Profile, Sample, Slices,
    ValueType,
};

/// Most samples of an answer.
pub(super) const MAX_SAMPLES: usize = 4_000_000;
/// Comments are about single windows; nobody reads those of a day.
const MAX_COMMENTS: usize = 64;

/// Whose samples a row of [`NodeSums`] adds up; what is left out does not tell samples apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct GroupKey {
    pub(super) series: Option<u32>,
    pub(super) thread: Option<Thread>,
    /// Labels that were chosen by their keys: an index in [`Part::kept_labels`].
    pub(super) kept: Option<u32>,
}

/// What windows said of mappings.
#[derive(Debug, Default)]
pub(super) struct SeenMappings {
    /// With the number of windows that said something.
    seen: HashMap<u32, (SeenMapping, u64)>,
    windows: u64,
}

impl SeenMappings {
    /// Takes what one more window said.
    pub(super) fn add_window(&mut self, mappings: Vec<SeenMapping>) {
        self.windows += 1;
        for mapping in mappings {
            let (all, windows) = self.seen.entry(mapping.mapping).or_insert((mapping, 0));
            all.start = all.start.min(mapping.start);
            all.limit = all.limit.max(mapping.limit);
            all.flags |= mapping.flags;
            *windows += 1;
        }
    }
}

/// What one segment has of one format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) tables: &'a Tables,
    pub(super) format: u32,
    pub(super) groups: &'a Interner<GroupKey>,
    pub(super) kept_labels: &'a [Vec<Label>],
    pub(super) sums: &'a NodeSums,
    pub(super) mappings: &'a SeenMappings,
}

/// Why a part cannot be added.
#[derive(Debug)]
pub(super) enum Unmergeable {
    Broken(Malformed),
    TooMuch { what: &'static str, limit: usize },
}

impl From<Malformed> for Unmergeable {
    fn from(what: Malformed) -> Self {
        Self::Broken(what)
    }
}

/// A profile that grows by parts.
#[derive(Debug, Default)]
pub(super) struct Merger {
    value_types: Interner<ValueType>,
    period: Option<(Option<ValueType>, i64)>,
    mappings: Vec<Mapping>,
    mapping_index: HashMap<(String, String, u32, u64, u64, u64), u32>,
    functions: Interner<Function>,
    locations: Interner<Location>,
    tree: Tree,
    label_sets: Interner<Vec<Label>>,
    samples: Samples,
    comments: Vec<String>,
}

/// Samples, each of a node and labels of its own; indexed as a [`Tree`] is.
#[derive(Debug, Default)]
struct Samples {
    rows: Vec<Sample>,
    index: IndexMap<(u32, u32), usize>,
    indexed: usize,
}

impl Samples {
    /// Adds values to the sample of this key. `is_new`: there is none yet.
    fn add(&mut self, (stack, labels): (u32, u32), is_new: bool, columns: &[usize], values: &[i64]) {
        let known = if is_new {
            None
        } else {
            for (number, sample) in self.rows.iter().enumerate().skip(self.indexed) {
                self.index.insert((sample.stack, sample.labels), number);
            }
            self.indexed = self.rows.len();
            self.index.get(&(stack, labels)).copied()
        };
        let number = known.unwrap_or_else(|| {
            self.rows.push(Sample { stack, labels, values: vec![0; columns.len()] });
            self.rows.len() - 1
        });
        let Some(sample) = self.rows.get_mut(number) else { return };
        for (&column, &value) in columns.iter().zip(values) {
            if sample.values.len() <= column {
                sample.values.resize(column + 1, 0);
            }
            if let Some(sum) = sample.values.get_mut(column) {
                *sum = sum.saturating_add(value);
            }
        }
    }
}

/// Rows of a segment's tables that are in the merged ones already.
struct Known {
    functions: Vec<Option<u32>>,
    locations: Vec<Option<u32>>,
    mappings: HashMap<u32, u32>,
    /// Numbers in the [`Tree`], 0 if they are not there yet.
    nodes: Vec<u32>,
    /// Whether the tree has nothing but nodes of this part.
    is_first: bool,
    /// Of a node, those above it that are not known yet; kept for the next.
    above: Vec<u32>,
}

impl Merger {
    pub(super) fn add_comments(&mut self, comments: Vec<String>) {
        for comment in comments {
            if self.comments.len() < MAX_COMMENTS && !self.comments.contains(&comment) {
                self.comments.push(comment);
            }
        }
    }

    /// Adds the values of a format, and its period; the period of the last one that is added holds.
    pub(super) fn add_format(&mut self, tables: &Tables, format: u32) -> Result<Vec<usize>, Malformed> {
        let row = tables.format(format)?;
        let value_type = |(kind, unit): (u32, u32)| -> Result<ValueType, Malformed> {
            Ok(ValueType::new(tables.text(kind)?, tables.text(unit)?))
        };
        let mut columns = Vec::with_capacity(row.value_types.len());
        for &names in &row.value_types {
            // A profile may have a value type twice.
            let mut column = self.value_types.intern(value_type(names)?) as usize;
            if columns.contains(&column) {
                column = columns.len();
            }
            columns.push(column);
        }
        let period_type = row.period_type.map(value_type).transpose()?;
        self.period = Some((period_type, row.period));
        Ok(columns)
    }

    /// Adds the sums of a part. Nothing is added if it is broken.
    pub(super) fn add(&mut self, part: Part<'_>) -> Result<(), Unmergeable> {
        let columns = self.add_format(part.tables, part.format)?;
        let mut known = Known {
            functions: vec![None; part.tables.functions.len()],
            locations: vec![None; part.tables.locations.len()],
            mappings: HashMap::new(),
            nodes: vec![0; part.tables.nodes.len() + 1],
            is_first: self.tree.is_empty(),
            above: Vec::new(),
        };
        let mut label_sets = Vec::with_capacity(part.groups.len());
        for group in part.groups.iter() {
            let labels = match group.kept {
                Some(kept) => part.kept_labels.get(kept as usize).cloned().unwrap_or_default(),
                None => labels_of(group, part.tables)?,
            };
            label_sets.push(self.label_sets.intern(labels));
        }
        // Groups may have the same labels after all.
        let different: HashSet<u32> = label_sets.iter().copied().collect();
        let is_new = self.samples.rows.is_empty() && different.len() == label_sets.len();
        let mut keys = Vec::with_capacity(part.sums.len());
        for (group, node, values) in part.sums.rows() {
            let labels = label_sets.get(group as usize).copied().unwrap_or(0);
            keys.push(((self.node(node, &part, &mut known)?, labels), values));
        }
        self.samples.rows.reserve(if is_new { keys.len() } else { 0 });
        for (key, values) in keys {
            self.samples.add(key, is_new, &columns, values);
        }
        if self.samples.rows.len() > MAX_SAMPLES {
            return Err(Unmergeable::TooMuch { what: "different samples", limit: MAX_SAMPLES });
        }
        Ok(())
    }

    /// The number of a part's node in the tree.
    fn node(&mut self, node: u32, part: &Part<'_>, known: &mut Known) -> Result<u32, Malformed> {
        let mut above = std::mem::take(&mut known.above);
        above.clear();
        let mut at = node;
        let mut merged = loop {
            if at == 0 {
                break 0;
            }
            match known.nodes.get(at as usize) {
                Some(0) => above.push(at),
                Some(merged) => break *merged,
                None => return Err(Malformed("a stack node that does not exist")),
            }
            // Parents have smaller numbers: `take` of a node's row sees to it.
            at = part.tables.nodes.get(at as usize - 1).map_or(0, |row| row.parent);
        };
        for &at in above.iter().rev() {
            let row = part.tables.nodes.get(at as usize - 1);
            let row = row.ok_or(Malformed("a stack node that does not exist"))?;
            let location = self.location(row.location, part, known)?;
            let row = NodeRow { parent: merged, location };
            merged = if known.is_first { self.tree.push(row) } else { self.tree.intern(row) };
            if let Some(entry) = known.nodes.get_mut(at as usize) {
                *entry = merged;
            }
        }
        known.above = above;
        Ok(merged)
    }

    /// The stacks of the samples, which have nodes of the tree until now.
    fn stacks(&mut self) -> Result<Slices<u32>, StoreError> {
        let mut is_leaf = vec![false; self.tree.len() + 1];
        for sample in &self.samples.rows {
            if let Some(is_leaf) = is_leaf.get_mut(sample.stack as usize) {
                *is_leaf = true;
            }
        }
        let (stacks, stack_of_node) = self.tree.stacks(&is_leaf)?;
        for sample in &mut self.samples.rows {
            sample.stack = stack_of_node.get(sample.stack as usize).copied().unwrap_or(0);
        }
        Ok(stacks)
    }

    fn location(&mut self, row: u32, part: &Part<'_>, known: &mut Known) -> Result<u32, Malformed> {
        let found = known.locations.get(row as usize).ok_or(Malformed("a location that does not exist"))?;
        if let Some(location) = found {
            return Ok(*location);
        }
        let location =
            part.tables.locations.get(row as usize).ok_or(Malformed("a location that does not exist"))?;
        let mapping = match location.mapping {
            Some(mapping) => Some(self.mapping(mapping, part, known)?),
            None => None,
        };
        let mut frames = Vec::with_capacity(location.frames.len());
        for &(function, line) in &location.frames {
            frames.push(Frame { function: self.function(function, part, known)?, line });
        }
        let (address, kind) = (location.address, location.kind);
        let location = self.locations.intern(Location { mapping, address, kind, frames });
        if let Some(entry) = known.locations.get_mut(row as usize) {
            *entry = Some(location);
        }
        Ok(location)
    }

    fn function(&mut self, row: u32, part: &Part<'_>, known: &mut Known) -> Result<u32, Malformed> {
        let found = known.functions.get(row as usize).ok_or(Malformed("a function that does not exist"))?;
        if let Some(function) = found {
            return Ok(*function);
        }
        let tables = part.tables;
        let function =
            tables.functions.get(row as usize).ok_or(Malformed("a function that does not exist"))?;
        let function = self.functions.intern(Function {
            name: tables.text(function.name)?.to_owned(),
            system_name: tables.text(function.system_name)?.to_owned(),
            file: tables.text(function.file)?.to_owned(),
            start_line: function.start_line,
        });
        if let Some(entry) = known.functions.get_mut(row as usize) {
            *entry = Some(function);
        }
        Ok(function)
    }

    fn mapping(&mut self, row: u32, part: &Part<'_>, known: &mut Known) -> Result<u32, Malformed> {
        if let Some(&mapping) = known.mappings.get(&row) {
            return Ok(mapping);
        }
        let found = part.tables.mappings.get(row as usize);
        let FlaggedMapping { row: found, flags } =
            *found.ok_or(Malformed("a mapping that does not exist"))?;
        let MappingRow { path, build_id, ordinal, start, limit, file_offset } = found;
        let (path, build_id) = (part.tables.text(path)?, part.tables.text(build_id)?);
        let key = (path.to_owned(), build_id.to_owned(), ordinal, start, limit, file_offset);
        let new = u32::try_from(self.mappings.len()).unwrap_or(u32::MAX);
        let index = *self.mapping_index.entry(key).or_insert(new);
        if index == new {
            let (path, build_id) = (path.to_owned(), build_id.to_owned());
            let mapping = Mapping { path, build_id, start, limit, file_offset, ..Mapping::default() };
            self.mappings.push(mapping);
        }
        let Some(mapping) = self.mappings.get_mut(index as usize) else { return Ok(index) };
        let seen = part.mappings.seen.get(&row);
        if let Some((seen, _)) = seen {
            set_flags(mapping, seen.flags);
            if extent_varies(&mapping.path) {
                let is_first = index == new;
                mapping.start = if is_first { seen.start } else { mapping.start.min(seen.start) };
                mapping.limit = mapping.limit.max(seen.limit);
                mapping.file_offset = if is_first { seen.file_offset } else { mapping.file_offset };
            }
        }
        // The windows that said nothing knew what the dictionary says.
        if !extent_varies(&mapping.path) && seen.is_none_or(|(_, windows)| *windows < part.mappings.windows) {
            set_flags(mapping, flags);
        }
        known.mappings.insert(row, index);
        Ok(index)
    }

    /// The profile, without its time. `shown` is the value to show by default.
    ///
    /// # Errors
    /// [`StoreError::TooMuch`].
    pub(super) fn finish(mut self, shown: impl Fn(&ValueType) -> bool) -> Result<Profile, StoreError> {
        let stacks = self.stacks()?;
        let value_types = self.value_types.into_values();
        let mut samples = self.samples.rows;
        for sample in &mut samples {
            sample.values.resize(value_types.len(), 0);
        }
        let (period_type, period) = self.period.unwrap_or((None, 0));
        Ok(Profile {
            default_value: value_types.iter().position(shown).unwrap_or(0),
            value_types,
            period_type,
            period,
            start_unix_ns: 0,
            duration_ns: 0,
            mappings: self.mappings,
            functions: self.functions.into_values(),
            locations: self.locations.into_values(),
            stacks,
            label_sets: self.label_sets.into_values(),
            samples,
            comments: self.comments,
        })
    }
}

/// The labels of a group, sorted, as they were written.
pub(super) fn labels_of(group: &GroupKey, tables: &Tables) -> Result<Vec<Label>, Malformed> {
    let mut labels = Vec::new();
    if let Some(series) = group.series {
        let series = tables.series(series)?;
        let texts =
            [("service", series.service), ("container_id", series.container_id), ("comm", series.comm)];
        for (key, text) in texts {
            if let Some(text) = text {
                labels.push(Label::text(key, tables.text(text)?));
            }
        }
    }
    if let Some(thread) = &group.thread {
        for (key, number) in [("pid", thread.pid), ("tid", thread.tid)] {
            labels.extend(number.and_then(|number| Some(Label::number(key, i64::try_from(number).ok()?))));
        }
        labels.extend(thread.trace_id.map(|id| Label::text("trace_id", &to_hex(&id))));
        labels.extend(thread.span_id.map(|id| Label::text("span_id", &to_hex(&id))));
        let others = tables.labels.get(thread.labels as usize);
        let LabelsRow(others) = others.ok_or(Malformed("labels that do not exist"))?;
        for &(key, value) in others {
            let value = match value {
                LabelValueRow::Text(text) => LabelValue::Text(tables.text(text)?.to_owned()),
                LabelValueRow::Number(number) => LabelValue::Number(number),
            };
            labels.push(Label { key: tables.text(key)?.to_owned(), value });
        }
    }
    labels.sort();
    Ok(labels)
}
