//! Answers to questions: selected windows of all segments → [`Answer`] and lists; `timeline.rs` has those by time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalog::Segment;
use super::dictionary::Tables;
use super::error::StoreError;
use super::gather::SelectedSums;
use super::merge::{Merger, Part, Unmergeable};
use super::segment::{SegmentReader, broken};
use super::selection::Selection;
use super::varint::Malformed;
use super::{Answer, Coverage, ProfileQuery, ProfileType, Selector, ServiceSummary, TimeRange};
use crate::model::{Interner, Profile, ValueType};

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
        Ok(Self { tables, values, series })
    }

    /// The selected value of a format.
    pub(super) fn value(&self, format: u32) -> Option<usize> {
        *self.values.get(format as usize)?
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
    let value = selected.value(format)?;
    let &(kind, unit) = selected.tables.formats.get(format as usize)?.value_types.get(value)?;
    Some(ValueType::new(selected.tables.text(kind).ok()?, selected.tables.text(unit).ok()?))
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
            counted.push((samples, format));
        }
        // By series; most have several windows.
        let mut sums: Vec<Option<i64>> = vec![None; tables.series.len()];
        reader.windows(range, |window| {
            let Some(&(samples, format)) = counted.get(window.format as usize) else { return Ok(()) };
            let add = |series, totals: &[i64]| {
                if let Some(sum) = sums.get_mut(series as usize) {
                    let total = totals.get(samples).copied().unwrap_or(0);
                    *sum = Some(sum.unwrap_or(0).saturating_add(total));
                }
            };
            window.totals(format, add).map_err(|what| broken(reader.path(), "window", what))
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
