//! Finds rows: newest first by time and filter, or by ids.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::block::{Details, KEY_BYTES, Row, Rows, keys, span_key, trace_key};
use super::dictionary::SpanTexts;
use super::filter::BlockFilter;
use super::{SpanPosition, SpanSummary};
use crate::model::index_hash::IndexHasher;
use crate::model::span::{Span, SpanId, TraceId};
use crate::store::TimeRange;
use crate::store::catalog::Segment;
use crate::store::error::StoreError;
use crate::store::segment::{SegmentReader, broken};

/// Keys that are looked for. They are hashes already, and a few thousand at most.
type Keys = HashSet<u32, BuildHasherDefault<IndexHasher>>;

/// A row with its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct FoundRow {
    pub(in crate::store) position: SpanPosition,
    pub(in crate::store) row: Row,
    pub(in crate::store) service: Arc<str>,
    pub(in crate::store) name: Arc<str>,
    pub(in crate::store) library: Arc<str>,
    pub(in crate::store) route: Arc<str>,
    pub(in crate::store) method: Arc<str>,
    /// Whether the filter has it, where there is one.
    pub(in crate::store) is_asked_for: bool,
}

/// What makes two rows the same span.
pub(in crate::store) type Identity = (TraceId, SpanId, Arc<str>);

impl FoundRow {
    pub(in crate::store) fn identity(&self) -> Identity {
        (self.row.trace_id, self.row.span_id, Arc::clone(&self.library))
    }

    pub(in crate::store) fn summary(&self) -> SpanSummary {
        let row = &self.row;
        SpanSummary {
            trace_id: row.trace_id,
            span_id: row.span_id,
            service: self.service.to_string(),
            name: self.name.to_string(),
            kind: row.kind,
            start_unix_ns: row.start_unix_ns,
            duration_ns: row.duration_ns,
            status: row.status,
            route: self.route.to_string(),
            method: self.method.to_string(),
            status_code: row.status_code,
        }
    }
}

/// Texts of rows, each once for a question.
#[derive(Debug, Default)]
pub(in crate::store) struct SharedTexts(HashSet<Arc<str>>);

impl SharedTexts {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = Arc::from(text);
        self.0.insert(Arc::clone(&shared));
        shared
    }

    fn row(
        &mut self,
        position: SpanPosition,
        row: Row,
        rows: &Rows<'_>,
        is_asked_for: bool,
    ) -> Result<FoundRow, super::super::varint::Malformed> {
        let mut share = |place: Option<u32>| match place {
            Some(place) => rows.texts.text(place).map(|text| self.share(text)),
            None => Ok(self.share("")),
        };
        Ok(FoundRow {
            position,
            row,
            service: share(Some(row.service))?,
            name: share(Some(row.name))?,
            library: share(Some(row.library))?,
            route: share(row.route)?,
            method: share(row.method)?,
            is_asked_for,
        })
    }
}

/// The segments a question goes to, and what to do about one that cannot be read.
pub(in crate::store) struct SpanSource<'a> {
    pub(in crate::store) segments: &'a [Arc<Segment>],
    pub(in crate::store) on_broken: &'a dyn Fn(&Segment, &StoreError),
}

/// A segment that has spans, and its texts.
struct Opened {
    number: u64,
    reader: SegmentReader,
    texts: SpanTexts,
}

impl Opened {
    fn broken(&self, what: super::super::varint::Malformed) -> StoreError {
        broken(self.reader.path(), "spans", what)
    }

    /// Calls `each` with the whole rows of a block.
    fn rows<T>(
        &self,
        block: u64,
        each: impl FnOnce(&Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.reader
            .span_rows(block, |blob| each(&Rows::read(blob, &self.texts).map_err(|what| self.broken(what))?))
    }
}

impl SpanSource<'_> {
    /// Calls `each` with every segment that has spans which begin in the range, the newest first.
    fn visit(
        &self,
        range: TimeRange,
        mut each: impl FnMut(&Opened) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        for segment in self.segments.iter().rev() {
            if !segment.extent().has_spans_in(range) {
                continue;
            }
            let asked = SegmentReader::open(&segment.path).and_then(|reader| {
                let texts = reader.span_texts()?;
                each(&Opened { number: segment.number, reader, texts })
            });
            match asked {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                // It has been removed meanwhile.
                Err(error) if error.is_missing() && !segment.path.exists() => {}
                Err(error) if error.is_corrupt() => (self.on_broken)(segment, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Calls `each` with every row that is asked for and is not newer than `newest` and older than `after`,
    /// the newest first, and with how many rows were looked at up to there.
    pub(in crate::store) fn scan(
        &self,
        filter: &super::SpanFilter,
        range: TimeRange,
        newest: Option<SpanPosition>,
        after: Option<SpanPosition>,
        texts: &mut SharedTexts,
        mut each: impl FnMut(Scanned) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut looked_at = 0_u64;
        let last = match (newest, after) {
            (Some(newest), Some(after)) => Some(newest.min(after)),
            (newest, after) => newest.or(after),
        };
        self.visit(range, |opened| {
            let last_block = match last {
                Some(last) if opened.number > last.segment => return Ok(ControlFlow::Continue(())),
                Some(last) if opened.number == last.segment => last.block,
                _ => u64::MAX,
            };
            opened.reader.span_blocks(range, last_block, |block, blob| {
                let rows = Rows::read(blob, &opened.texts).map_err(|what| opened.broken(what))?;
                looked_at += rows.rows.len() as u64;
                let filter = BlockFilter::new(filter, range, &rows.texts);
                for (index, row) in rows.rows.iter().enumerate().rev() {
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    let position = SpanPosition { segment: opened.number, block, row: index };
                    if newest.is_some_and(|newest| position > newest)
                        || after.is_some_and(|after| position >= after)
                    {
                        continue;
                    }
                    if filter.as_ref().is_some_and(|filter| filter.has(row)) {
                        let found = texts.row(position, *row, &rows, true);
                        let found = found.map_err(|what| opened.broken(what))?;
                        if each(Scanned::Row(found)).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                }
                let end = SpanPosition { segment: opened.number, block, row: 0 };
                Ok(each(Scanned::BlockEnd { position: end, looked_at }))
            })
        })
    }

    /// Calls `each` with every row of these traces, the newest first, and says of each whether the filter has
    /// it.
    pub(in crate::store) fn rows_of_traces(
        &self,
        wanted: &HashSet<TraceId>,
        within: TimeRange,
        filter: Option<(&super::SpanFilter, TimeRange)>,
        texts: &mut SharedTexts,
        mut each: impl FnMut(FoundRow) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let wanted_keys: Keys = wanted.iter().map(|&id| trace_key(id)).collect();
        self.visit(within, |opened| {
            for (block, indices) in candidates(opened, within, |trace, _| wanted_keys.contains(&trace))? {
                opened.rows(block, |rows| {
                    let filter =
                        filter.and_then(|(filter, range)| BlockFilter::new(filter, range, &rows.texts));
                    for index in indices {
                        let Some(row) = rows.rows.get(index as usize) else { continue };
                        if !wanted.contains(&row.trace_id) {
                            continue;
                        }
                        let position = SpanPosition { segment: opened.number, block, row: index };
                        let is_asked_for = filter.as_ref().is_some_and(|filter| filter.has(row));
                        let found = texts.row(position, *row, rows, is_asked_for);
                        each(found.map_err(|what| opened.broken(what))?)?;
                    }
                    Ok(())
                })?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Calls `each` with every row of these spans that is in a block of the range, the newest first.
    pub(in crate::store) fn rows_of_spans(
        &self,
        wanted: &HashSet<SpanId>,
        within: TimeRange,
        texts: &mut SharedTexts,
        mut each: impl FnMut(FoundRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let wanted_keys: Keys = wanted.iter().map(|&id| span_key(id)).collect();
        self.visit(within, |opened| {
            for (block, indices) in candidates(opened, within, |_, span| wanted_keys.contains(&span))? {
                let flow = opened.rows(block, |rows| {
                    for index in indices {
                        let Some(row) = rows.rows.get(index as usize) else { continue };
                        if !wanted.contains(&row.span_id) {
                            continue;
                        }
                        let position = SpanPosition { segment: opened.number, block, row: index };
                        let found = texts.row(position, *row, rows, false);
                        if each(found.map_err(|what| opened.broken(what))?).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
                if flow.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The whole spans at these positions, in no promised order.
    pub(in crate::store) fn spans_at(&self, positions: &[SpanPosition]) -> Result<Vec<Span>, StoreError> {
        let mut wanted: HashMap<u64, HashMap<u64, Vec<u32>>> = HashMap::new();
        for position in positions {
            let blocks = wanted.entry(position.segment).or_default();
            blocks.entry(position.block).or_default().push(position.row);
        }
        let mut spans = Vec::with_capacity(positions.len());
        self.visit(TimeRange::ALL, |opened| {
            for (&block, rows_wanted) in wanted.get(&opened.number).into_iter().flatten() {
                opened.rows(block, |rows| {
                    opened.reader.span_details(block, |blob| {
                        let details = Details::read(blob, &opened.texts);
                        let mut details = details.map_err(|what| opened.broken(what))?;
                        for &row in rows_wanted {
                            let span = details.span(row as usize, rows);
                            spans.push(span.map_err(|what| opened.broken(what))?);
                        }
                        Ok(())
                    })
                })?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(spans)
    }
}

/// What [`SpanSource::scan`] comes across.
#[derive(Debug)]
pub(in crate::store) enum Scanned {
    /// A row that is asked for.
    Row(FoundRow),
    /// All rows of a block have been looked at.
    BlockEnd {
        /// Its first row.
        position: SpanPosition,
        /// How many rows have been looked at so far.
        looked_at: u64,
    },
}

/// Blocks and rows whose keys are wanted, the newest first.
fn candidates(
    opened: &Opened,
    range: TimeRange,
    wanted: impl Fn(u32, u32) -> bool,
) -> Result<Vec<(u64, Vec<u32>)>, StoreError> {
    let mut candidates = Vec::new();
    opened.reader.span_keys(range, |block, blob| {
        if blob.len() % KEY_BYTES != 0 {
            return Err(StoreError::corrupt(opened.reader.path(), "spans: half a key"));
        }
        let mut indices: Vec<u32> = (0..)
            .zip(keys(blob))
            .filter(|&(_, (trace, span))| wanted(trace, span))
            .map(|(index, _)| index)
            .collect();
        if !indices.is_empty() {
            indices.reverse();
            candidates.push((block, indices));
        }
        Ok(())
    })?;
    Ok(candidates)
}
