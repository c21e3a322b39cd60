//! Answers to questions: selected windows of all segments → [`Answer`] and lists; `timeline.rs` has those by time.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::block::Groups;
use super::catalog::Segment;
use super::dictionary::Tables;
use super::error::StoreError;
use super::merge::{GroupKey, MAX_SAMPLES, Merger, Part, SeenMappings, Unmergeable, labels_of};
use super::segment::{SegmentReader, broken};
use super::selection::Selection;
use super::sums::Sums;
use super::varint::Malformed;
use super::window_row::{read_comments, read_mappings, read_totals};
use super::{
    Answer, Coverage, Detail, ProfileQuery, ProfileType, STRETCH, Selector, ServiceSummary, TimeRange,
};
use crate::model::{Interner, Label, Profile, ValueType};

/// The segments that a question goes to, and what to do about one that cannot be read.
pub(super) struct Source<'a> {
    pub(super) segments: &'a [Arc<Segment>],
    pub(super) on_broken: &'a dyn Fn(&Segment, &StoreError),
}

impl Source<'_> {
    /// Calls `each` with every segment that may have windows in the range.
    pub(super) fn visit(
        &self,
        range: TimeRange,
        mut each: impl FnMut(&SegmentReader, Arc<Tables>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for segment in self.segments.iter().filter(|segment| segment.extent().overlaps(range)) {
            // The last one is asked again and again by whoever watches the present. Of the others the
            // dictionaries would take more memory than reading them takes time.
            let keep = self.segments.last().is_some_and(|last| last.number == segment.number);
            let asked = SegmentReader::open(&segment.path).and_then(|reader| {
                let tables = segment.tables(&reader, keep)?;
                each(&reader, tables)
            });
            match asked {
                Ok(()) => {}
                // It has been removed meanwhile.
                Err(error) if error.is_missing() && !segment.path.exists() => {}
                Err(error) if error.is_corrupt() => (self.on_broken)(segment, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What there is in a segment, in terms of a selector.
pub(super) struct Selected {
    pub(super) tables: Arc<Tables>,
    /// The selected value of each format that has it.
    values: Vec<Option<usize>>,
    /// How many values each format has.
    value_counts: Vec<usize>,
    series: Vec<bool>,
}

impl Selected {
    pub(super) fn new(
        reader: &SegmentReader,
        tables: Arc<Tables>,
        selection: &Selection<'_>,
    ) -> Result<Self, StoreError> {
        let failed = |what| broken(reader.path(), "dictionary", what);
        let mut values = Vec::with_capacity(tables.formats.len());
        for format in &tables.formats {
            values.push(selection.value(format, &tables).map_err(failed)?);
        }
        // Labels that no row has are of no sample: its blocks need not be read.
        let has_labels = selection.has_labels(&tables).map_err(failed)?;
        let mut series = Vec::with_capacity(tables.series.len());
        for row in &tables.series {
            let has_value = has_labels && values.get(row.format as usize).is_some_and(Option::is_some);
            series.push(has_value && selection.has_series(row, &tables).map_err(failed)?);
        }
        let value_counts = tables.formats.iter().map(|format| format.value_types.len()).collect();
        Ok(Self { tables, values, value_counts, series })
    }

    /// The selected value of a format, and how many it has.
    pub(super) fn value(&self, format: u32) -> Option<(usize, usize)> {
        let value = (*self.values.get(format as usize)?)?;
        Some((value, *self.value_counts.get(format as usize)?))
    }

    pub(super) fn has_series(&self, series: u32) -> bool {
        self.series.get(series as usize).copied().unwrap_or(false)
    }
}

/// Times of windows.
#[derive(Default)]
pub(super) struct Times(Vec<(u64, u64)>);

impl Times {
    pub(super) fn add(&mut self, start_ns: u64, duration_ns: u64) {
        self.0.push((start_ns, start_ns.saturating_add(duration_ns)));
    }

    pub(super) fn coverage(mut self) -> Coverage {
        self.0.sort_unstable();
        let (mut covered_ns, mut covered_to) = (0, 0);
        for &(start, end) in &self.0 {
            covered_ns += end.saturating_sub(start.max(covered_to));
            covered_to = covered_to.max(end);
        }
        Coverage {
            windows: self.0.len() as u64,
            from_unix_ns: self.0.first().map_or(0, |&(start, _)| start),
            to_unix_ns: covered_to,
            covered_ns,
        }
    }
}

/// See [`WindowStore::profile`](super::WindowStore::profile).
pub(super) fn profile(source: &Source<'_>, query: &ProfileQuery) -> Result<Answer, StoreError> {
    let selection = Selection::new(&query.selector)?;
    let mut merger = Merger::default();
    let mut times = Times::default();
    let mut matched = false;
    let mut shown: Option<ValueType> = None;
    source.visit(query.range, |reader, tables| {
        let found = SelectedSums::collect(reader, tables, &selection, query)?;
        for (format, part) in &found.formats {
            let failed = |problem| match problem {
                Unmergeable::Broken(what) => broken(reader.path(), "dictionary", what),
                Unmergeable::TooMuch { what, limit } => StoreError::TooMuch { what, limit },
            };
            let (tables, format) = (&found.selected.tables, *format);
            let (groups, sums, mappings) = (&found.groups, &part.sums, &part.mappings);
            let kept_labels = &found.kept_labels;
            let part = Part { tables, format, groups, kept_labels, sums, mappings };
            merger.add(part).map_err(failed)?;
            if shown.is_none() {
                shown = value_type(&found.selected, format);
            }
        }
        merger.add_comments(found.comments);
        times.0.extend(found.times.0);
        matched |= found.matched;
        Ok(())
    })?;
    let coverage = times.coverage();
    let mut profile = merger.finish(|value_type| Some(value_type) == shown.as_ref())?;
    if profile.value_types.is_empty() {
        profile = Profile { value_types: vec![asked_for(&query.selector)], ..Profile::default() };
    }
    profile.start_unix_ns = coverage.from_unix_ns;
    profile.duration_ns = coverage.to_unix_ns - coverage.from_unix_ns;
    Ok(Answer { profile, coverage, matched })
}

/// What an empty profile is of: a profile without any value type cannot be written.
pub(super) fn asked_for(selector: &Selector) -> ValueType {
    let (kind, unit) = selector.profile_type.split_once('/').unwrap_or((&selector.profile_type, "count"));
    ValueType::new(kind, unit)
}

pub(super) fn value_type(selected: &Selected, format: u32) -> Option<ValueType> {
    let (value, _) = selected.value(format)?;
    let &(kind, unit) = selected.tables.formats.get(format as usize)?.value_types.get(value)?;
    Some(ValueType::new(selected.tables.text(kind).ok()?, selected.tables.text(unit).ok()?))
}

/// What a segment has of what is selected.
struct SelectedSums {
    selected: Selected,
    groups: Interner<GroupKey>,
    kept_labels: Vec<Vec<Label>>,
    formats: BTreeMap<u32, FormatSums>,
    times: Times,
    comments: Vec<String>,
    matched: bool,
}

struct FormatSums {
    sums: Sums,
    factors: Vec<i64>,
    mappings: SeenMappings,
}

impl SelectedSums {
    fn collect(
        reader: &SegmentReader,
        tables: Arc<Tables>,
        selection: &Selection<'_>,
        query: &ProfileQuery,
    ) -> Result<Self, StoreError> {
        let selected = Selected::new(reader, tables, selection)?;
        let nodes = selected.tables.nodes.len();
        let mut times = Times::default();
        let mut formats: BTreeMap<u32, FormatSums> = BTreeMap::new();
        let mut comments = Vec::new();
        let mut windows = Windows::default();
        let mut kept_labels = KeptLabels::new(&query.detail);
        let mut stretches: HashMap<i64, GroupKey> = HashMap::new();
        reader.windows(query.range, |window| {
            let failed = |what| broken(reader.path(), "window", what);
            let Some((_, values)) = selected.value(window.format) else { return Ok(()) };
            times.add(window.start_ns, window.duration_ns);
            if let Detail::Stretches(starts_ns) = &query.detail {
                stretches.insert(window.id, kept_labels.stretch(starts_ns, window.start_ns));
            }
            let format = formats.entry(window.format).or_insert_with(|| {
                let row = selected.tables.formats.get(window.format as usize);
                let factors = row.map(super::rows::FormatRow::expected_factors).unwrap_or_default();
                let sums = Sums::new(factors.len() + 1, nodes);
                FormatSums { sums, factors, mappings: SeenMappings::default() }
            });
            format.mappings.add_window(read_mappings(window.mappings).map_err(failed)?);
            comments.extend(read_comments(window.comments).map_err(failed)?);
            windows.add(window.id, window.totals, values, &selected).map_err(failed)
        })?;
        let mut groups = Interner::new();
        let mut matched = !windows.wanted.is_empty() && !selection.is_by_thread();
        windows.read(reader, |window, series, block| {
            let Some(row) = selected.tables.series.get(series as usize) else { return Ok(()) };
            let Some(format) = formats.get_mut(&row.format) else { return Ok(()) };
            let failed = |what| broken(reader.path(), "block", what);
            for group in Groups::new(block) {
                let group = group.map_err(failed)?;
                if selection.is_by_thread() {
                    if !selection.has_thread(&group.thread, &selected.tables).map_err(failed)? {
                        continue;
                    }
                    matched = true;
                }
                let all = GroupKey { series: Some(series), thread: Some(group.thread), kept: None };
                let index = groups.intern(match query.detail {
                    Detail::Stacks => GroupKey::default(),
                    Detail::Series => GroupKey { thread: None, ..all },
                    Detail::Keys(_) => kept_labels.group(all, &selected.tables).map_err(failed)?,
                    Detail::Stretches(_) => stretches.get(&window).copied().unwrap_or_default(),
                    Detail::Labels => all,
                });
                let FormatSums { sums, factors, .. } = format;
                group.samples(factors, |stack, values| sums.add(index, stack, values)).map_err(failed)?;
                if sums.len() > MAX_SAMPLES {
                    return Err(StoreError::TooMuch { what: "different samples", limit: MAX_SAMPLES });
                }
            }
            Ok(())
        })?;
        let kept_labels = kept_labels.sets.into_values();
        Ok(Self { selected, groups, kept_labels, formats, times, comments, matched })
    }
}

/// What is kept of labels when only some keys are wanted ([`Detail::Keys`]).
struct KeptLabels<'a> {
    keys: &'a [String],
    /// The first one is empty, so that whatever has none of the keys is in the group that is added up
    /// the fastest.
    sets: Interner<Vec<Label>>,
    /// By what the labels are of, without what no key asks for.
    known: HashMap<GroupKey, u32>,
}

impl<'a> KeptLabels<'a> {
    fn new(detail: &'a Detail) -> Self {
        let keys = if let Detail::Keys(keys) = detail { keys.as_slice() } else { &[] };
        let mut sets = Interner::new();
        sets.intern(Vec::new());
        Self { keys, sets, known: HashMap::new() }
    }

    /// The group of a window that begins at this time. What begins before the first stretch is of it.
    fn stretch(&mut self, starts_ns: &[u64], start_ns: u64) -> GroupKey {
        let number = starts_ns.partition_point(|&start| start <= start_ns).saturating_sub(1);
        let label = Label::number(STRETCH, i64::try_from(number).unwrap_or(i64::MAX));
        GroupKey { series: None, thread: None, kept: Some(self.sets.intern(vec![label])) }
    }

    fn wants(&self, key: &str) -> bool {
        self.keys.iter().any(|wanted| wanted == key)
    }

    /// The group of samples that have all the labels of `key`.
    fn group(&mut self, mut key: GroupKey, tables: &Tables) -> Result<GroupKey, Malformed> {
        let (pid, tid) = (self.wants("pid"), self.wants("tid"));
        let (trace_id, span_id) = (self.wants("trace_id"), self.wants("span_id"));
        if let Some(thread) = &mut key.thread {
            thread.pid = thread.pid.filter(|_| pid);
            thread.tid = thread.tid.filter(|_| tid);
            thread.trace_id = thread.trace_id.filter(|_| trace_id);
            thread.span_id = thread.span_id.filter(|_| span_id);
        }
        let kept = match self.known.get(&key) {
            Some(&kept) => kept,
            None => {
                let mut labels = labels_of(&key, tables)?;
                labels.retain(|label| self.wants(&label.key));
                let kept = self.sets.intern(labels);
                self.known.insert(key, kept);
                kept
            }
        };
        Ok(GroupKey { series: None, thread: None, kept: Some(kept) })
    }
}

/// The windows of a segment that are to be read, and which of their blocks.
#[derive(Default)]
pub(super) struct Windows {
    ids: Vec<i64>,
    wanted: Vec<(i64, u32)>,
    /// How many blocks they have in all.
    blocks: usize,
}

impl Windows {
    pub(super) fn add(
        &mut self,
        id: i64,
        totals: &[u8],
        values: usize,
        selected: &Selected,
    ) -> Result<(), Malformed> {
        self.ids.push(id);
        read_totals(totals, values, |series, _| {
            self.blocks += 1;
            if selected.has_series(series) {
                self.wanted.push((id, series));
            }
        })
    }

    /// Reads the wanted blocks: one by one if they are few, else all in one go, which takes a tenth of
    /// the time for each.
    pub(super) fn read(
        &self,
        reader: &SegmentReader,
        mut each: impl FnMut(i64, u32, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (Some(&first), Some(&last)) = (self.wanted.first(), self.wanted.last()) else { return Ok(()) };
        if self.wanted.len() < self.blocks / 8 {
            return reader.blocks(&self.wanted, each);
        }
        let mut wanted = self.wanted.iter().peekable();
        let mut found = 0;
        let mut batch = Batch::default();
        reader.all_blocks(first.0, last.0, |window, series, block| {
            while wanted.next_if(|next| **next < (window, series)).is_some() {}
            if wanted.next_if(|next| **next == (window, series)).is_none() {
                return Ok(());
            }
            found += 1;
            batch.add(window, series, block);
            if batch.bytes.len() >= BATCH_BYTES { batch.hand_on(&mut each) } else { Ok(()) }
        })?;
        batch.hand_on(&mut each)?;
        if found < self.wanted.len() {
            return Err(StoreError::corrupt(reader.path(), "a window lacks a block"));
        }
        Ok(())
    }
}

/// How many bytes of blocks are put into another order at a time.
const BATCH_BYTES: usize = 8 << 20;

/// Blocks of many windows, to be handed on series by series: those of one series add to the same stacks, which
/// stay in the processor's caches then. Of a day of a host every sample would be a cache miss.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Series, window, and where the block lies.
    blocks: Vec<(u32, i64, Range<usize>)>,
}

impl Batch {
    fn add(&mut self, window: i64, series: u32, block: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(block);
        self.blocks.push((series, window, start..self.bytes.len()));
    }

    fn hand_on(
        &mut self,
        each: &mut impl FnMut(i64, u32, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.blocks.sort_unstable_by_key(|&(series, window, _)| (series, window));
        for (series, window, place) in self.blocks.drain(..) {
            each(window, series, self.bytes.get(place).unwrap_or_default())?;
        }
        self.bytes.clear();
        Ok(())
    }
}

/// See [`WindowStore::services`](super::WindowStore::services).
pub(super) fn services(source: &Source<'_>, range: TimeRange) -> Result<Vec<ServiceSummary>, StoreError> {
    let mut services: BTreeMap<String, (i64, Vec<ValueType>)> = BTreeMap::new();
    source.visit(range, |reader, tables| {
        let failed = |what| broken(reader.path(), "dictionary", what);
        let mut counted = Vec::with_capacity(tables.formats.len());
        for format in &tables.formats {
            let mut samples = 0;
            for (index, &(kind, _)) in format.value_types.iter().enumerate() {
                if tables.text(kind).map_err(failed)? == "samples" {
                    samples = index;
                }
            }
            counted.push((samples, format.value_types.len()));
        }
        // By series; most have several windows.
        let mut sums: Vec<Option<i64>> = vec![None; tables.series.len()];
        reader.windows(range, |window| {
            let Some(&(samples, values)) = counted.get(window.format as usize) else { return Ok(()) };
            read_totals(window.totals, values, |series, totals| {
                if let Some(sum) = sums.get_mut(series as usize) {
                    let total = totals.get(samples).copied().unwrap_or(0);
                    *sum = Some(sum.unwrap_or(0).saturating_add(total));
                }
            })
            .map_err(|what| broken(reader.path(), "window", what))
        })?;
        for (row, sum) in tables.series.iter().zip(sums) {
            let Some(sum) = sum else { continue };
            let name = row.service.map_or(Ok(""), |service| tables.text(service)).map_err(failed)?;
            let shown = default_value_type(&tables, row.format).map_err(failed)?;
            let (samples, types) = services.entry(name.to_owned()).or_default();
            *samples = samples.saturating_add(sum);
            if !types.contains(&shown) {
                types.push(shown);
            }
        }
        Ok(())
    })?;
    let summary = |(name, (samples, types))| ServiceSummary { name, samples, types };
    Ok(services.into_iter().map(summary).collect())
}

fn default_value_type(tables: &Tables, format: u32) -> Result<ValueType, Malformed> {
    let format = tables.format(format)?;
    let default = format.value_types.get(format.default_value as usize);
    let &(kind, unit) = default.ok_or(Malformed("a format whose default value does not exist"))?;
    Ok(ValueType::new(tables.text(kind)?, tables.text(unit)?))
}

/// See [`WindowStore::types`](super::WindowStore::types).
pub(super) fn types(source: &Source<'_>, range: TimeRange) -> Result<Vec<ProfileType>, StoreError> {
    let mut defaults = Interner::new();
    let mut others = Interner::new();
    source.visit(range, |reader, tables| {
        let failed = |what| broken(reader.path(), "dictionary", what);
        let mut used = vec![false; tables.formats.len()];
        reader.windows(range, |window| {
            if let Some(used) = used.get_mut(window.format as usize) {
                *used = true;
            }
            Ok(())
        })?;
        for ((index, format), _) in (0..).zip(&tables.formats).zip(used).filter(|(_, used)| *used) {
            defaults.intern(default_value_type(&tables, index).map_err(failed)?);
            for &(kind, unit) in &format.value_types {
                let (kind, unit) = (tables.text(kind).map_err(failed)?, tables.text(unit).map_err(failed)?);
                others.intern(ValueType::new(kind, unit));
            }
        }
        Ok(())
    })?;
    let defaults = defaults.into_values();
    let others = others.into_values().into_iter().filter(|value_type| !defaults.contains(value_type));
    let others: Vec<_> = others.map(|value_type| ProfileType { value_type, is_default: false }).collect();
    let defaults = defaults.into_iter().map(|value_type| ProfileType { value_type, is_default: true });
    Ok(defaults.chain(others).collect())
}
