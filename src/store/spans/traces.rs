//! Pages of traces, lists of spans, and single ones, from rows. Which of them are one span is told in
//! `joined.rs`.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use super::find::{FoundRow, Identity, Scanned, SharedTexts, SpanSource};
use super::joined::{self, shown};
use super::{
    MAX_SPANS, MAX_TRACES, SpanList, SpanPosition, SpanQuery, TraceCursor, TracePage, TraceQuery,
    TraceSummary,
};
use crate::model::span::{SpanId, SpanStatus, TraceId};
use crate::store::TimeRange;
use crate::store::error::StoreError;

/// A page looks at no more rows than this, and a list neither.
const MAX_ROWS_LOOKED_AT: u64 = 2_000_000;
/// A page has about so many rows in memory at most: of half of that, traces take what they have; the other half they
/// share evenly, and what is more is counted.
const MAX_ROWS_OF_PAGE: usize = if cfg!(test) { 4_000 } else { 400_000 };
/// How often a page fetches the traces of candidates, which may turn out not to belong there.
const MAX_ROUNDS: usize = 6;
/// Spans of a trace in a page are looked for so far from the span that is asked for.
const NEAR_NS: u64 = 24 * 3600 * 1_000_000_000;

/// Starts of one span, written twice, are not further apart.
const SAME_START_NS: u64 = 60 * 1_000_000_000;

/// See [`WindowStore::traces`](crate::store::WindowStore::traces).
pub(in crate::store) fn traces(source: &SpanSource<'_>, query: &TraceQuery) -> Result<TracePage, StoreError> {
    let limit = query.limit.clamp(1, MAX_TRACES);
    let mut texts = SharedTexts::default();
    let mut page = TracePage::default();
    let mut newest = query.cursor.map(|cursor| cursor.newest);
    let mut after = query.cursor.map(|cursor| cursor.after);
    let mut known: HashSet<TraceId> = HashSet::new();
    let mut left = MAX_ROWS_LOOKED_AT;
    for round in 0..MAX_ROUNDS {
        // The first candidates are nearly always traces of the page; if not, more are fetched together.
        let wanted = (limit - page.traces.len()) << (2 * round);
        let mut candidates: Vec<FoundRow> = Vec::new();
        let mut reached: Option<SpanPosition> = None;
        let mut is_broken_off = false;
        let mut looked_at_now = 0;
        source.scan(&query.filter, query.range, newest, after, &mut texts, |scanned| {
            match scanned {
                Scanned::Row(row) => {
                    newest.get_or_insert(row.position);
                    reached = Some(row.position);
                    if known.insert(row.row.trace_id) {
                        candidates.push(row);
                    }
                    is_broken_off = candidates.len() >= wanted;
                }
                Scanned::BlockEnd { position, looked_at } => {
                    newest.get_or_insert(SpanPosition { row: u32::MAX, ..position });
                    reached = Some(position);
                    looked_at_now = looked_at;
                    is_broken_off = looked_at >= left;
                }
            }
            if is_broken_off { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        left = left.saturating_sub(looked_at_now);
        let accepted = summaries(source, query, &candidates, newest, &mut texts)?;
        for (candidate, summary) in candidates.iter().zip(accepted) {
            let Some(summary) = summary else { continue };
            page.traces.push(summary);
            if page.traces.len() == limit {
                // What came behind it is a candidate of the next page.
                reached = Some(candidate.position);
                is_broken_off = true;
                break;
            }
        }
        after = reached.or(after);
        if !is_broken_off {
            return Ok(page);
        }
        if page.traces.len() == limit || left == 0 {
            break;
        }
    }
    page.next = newest.zip(after).map(|(newest, after)| TraceCursor { newest, after });
    Ok(page)
}

/// The summary of each candidate's trace; nothing where the candidate has been replaced by a span that is not
/// asked for, or was a candidate of an earlier page.
fn summaries(
    source: &SpanSource<'_>,
    query: &TraceQuery,
    candidates: &[FoundRow],
    newest: Option<SpanPosition>,
    texts: &mut SharedTexts,
) -> Result<Vec<Option<TraceSummary>>, StoreError> {
    let wanted: HashSet<TraceId> = candidates.iter().map(|row| row.row.trace_id).collect();
    let starts = || candidates.iter().map(|row| row.row.start_unix_ns);
    let (Some(first), Some(last)) = (starts().min(), starts().max()) else { return Ok(Vec::new()) };
    let near =
        TimeRange { from_unix_ns: first.saturating_sub(NEAR_NS), to_unix_ns: last.saturating_add(NEAR_NS) };
    let mut traces: HashMap<TraceId, RowsOfTrace> = HashMap::new();
    let mut known: HashSet<Identity> = HashSet::new();
    let mut on_earlier_page: HashSet<TraceId> = HashSet::new();
    let share = MAX_ROWS_OF_PAGE / 2 / wanted.len();
    let filter = Some((&query.filter, query.range));
    let earlier = query.cursor.map(|cursor| cursor.after);
    source.rows_of_traces(&wanted, near, filter, texts, |row| {
        let was_seen = earlier.is_some_and(|after| row.position >= after)
            && newest.is_some_and(|newest| row.position <= newest);
        if was_seen && row.is_asked_for {
            on_earlier_page.insert(row.row.trace_id);
        }
        let of_trace = traces.entry(row.row.trace_id).or_default();
        if known.len() >= MAX_ROWS_OF_PAGE / 2
            && of_trace.rows.len() >= share
            && of_trace.can_do_without(&row)
        {
            of_trace.leave_out(row);
        } else if known.insert(row.identity()) {
            of_trace.has_asked_for |= row.is_asked_for;
            of_trace.rows.push(row);
        }
        Ok(())
    })?;
    let summary = |candidate: &FoundRow| {
        let trace_id = candidate.row.trace_id;
        if on_earlier_page.contains(&trace_id) {
            return None;
        }
        let of_trace = traces.get(&trace_id)?;
        let rows = of_trace.rows.iter().chain(&of_trace.root);
        let left_out = of_trace.left_out - u64::from(of_trace.root.is_some());
        summary(trace_id, &shown(rows), left_out)
    };
    Ok(candidates.iter().map(summary).collect())
}

/// What a page has of a trace.
#[derive(Debug, Default)]
struct RowsOfTrace {
    /// The newest row of each span, the newest span first.
    rows: Vec<FoundRow>,
    /// One of them is asked for.
    has_asked_for: bool,
    /// Rows that there was no room for,
    left_out: u64,
    /// of which this one has no parent, and begins first of those.
    root: Option<FoundRow>,
}

impl RowsOfTrace {
    fn can_do_without(&self, row: &FoundRow) -> bool {
        self.has_asked_for || !row.is_asked_for
    }

    fn leave_out(&mut self, row: FoundRow) {
        self.left_out += 1;
        let start = row.row.start_unix_ns;
        if row.row.parent_span_id.is_none()
            && self.root.as_ref().is_none_or(|root| start < root.row.start_unix_ns)
        {
            self.root = Some(row);
        }
    }
}

/// Rows are the newest of each span. Nothing if none of them is asked for.
fn summary(trace_id: TraceId, rows: &[&FoundRow], left_out: u64) -> Option<TraceSummary> {
    let rows = || rows.iter().copied();
    let matching = rows().filter(|row| row.is_asked_for).max_by_key(|row| row.position)?;
    let earliest = |row: &&FoundRow| (row.row.start_unix_ns, row.position);
    let without_parent = rows().filter(|row| row.row.parent_span_id.is_none()).min_by_key(earliest);
    let ids: HashSet<SpanId> = rows().map(|row| row.row.span_id).collect();
    let has_no_parent_here = |row: &&FoundRow| row.row.parent_span_id.is_none_or(|id| !ids.contains(&id));
    let root = without_parent
        .or_else(|| rows().filter(has_no_parent_here).min_by_key(earliest))
        .or_else(|| rows().min_by_key(earliest))?;
    let start_unix_ns = rows().map(|row| row.row.start_unix_ns).min()?;
    let end = |row: &FoundRow| row.row.start_unix_ns.saturating_add(row.row.duration_ns.unwrap_or(0));
    let end_unix_ns = rows().map(end).max()?;
    let count = |has: &dyn Fn(&FoundRow) -> bool| rows().filter(|row| has(row)).count() as u64;
    let mut services: Vec<String> = rows().map(|row| row.service.to_string()).collect();
    services.sort();
    services.dedup();
    Some(TraceSummary {
        trace_id,
        root: root.summary(),
        start_unix_ns,
        duration_ns: end_unix_ns.saturating_sub(start_unix_ns),
        spans: rows().count() as u64,
        left_out,
        errors: count(&|row| row.row.status == SpanStatus::Error),
        open: count(&|row| row.row.duration_ns.is_none()),
        services,
        matching: matching.summary(),
    })
}

/// See [`WindowStore::spans`](crate::store::WindowStore::spans).
pub(in crate::store) fn spans(source: &SpanSource<'_>, query: &SpanQuery) -> Result<SpanList, StoreError> {
    let limit = query.limit.clamp(1, MAX_SPANS);
    let mut texts = SharedTexts::default();
    let mut found: Vec<FoundRow> = Vec::new();
    let mut known: HashSet<Identity> = HashSet::new();
    let mut is_cut = false;
    source.scan(&query.filter, query.range, None, None, &mut texts, |scanned| {
        match scanned {
            Scanned::Row(row) if found.len() == limit => is_cut = known.insert(row.identity()),
            Scanned::Row(row) => {
                if known.insert(row.identity()) {
                    found.push(row);
                }
            }
            Scanned::BlockEnd { looked_at, .. } => is_cut = looked_at >= MAX_ROWS_LOOKED_AT,
        }
        if is_cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    // Those that have been replaced by what is not asked for go, and ours that are an SDK's.
    let newest = newest_of(source, &found, &mut texts)?;
    let of_others = joined::of_others(newest.keys());
    found.retain(|row| {
        newest.get(&row.identity()).is_none_or(|&newest| newest == row.position)
            && joined::is_shown(row, &of_others)
    });
    Ok(SpanList { spans: found.iter().map(FoundRow::summary).collect(), is_cut })
}

/// Where the newest row of each of these spans is. What replaces a span begins when it did, or nearly.
fn newest_of(
    source: &SpanSource<'_>,
    found: &[FoundRow],
    texts: &mut SharedTexts,
) -> Result<HashMap<Identity, SpanPosition>, StoreError> {
    let mut newest: HashMap<Identity, SpanPosition> = HashMap::new();
    let starts = || found.iter().map(|row| row.row.start_unix_ns);
    let (Some(first), Some(last)) = (starts().min(), starts().max()) else { return Ok(newest) };
    let near = TimeRange {
        from_unix_ns: first.saturating_sub(SAME_START_NS),
        to_unix_ns: last.saturating_add(SAME_START_NS),
    };
    let ids: HashSet<SpanId> = found.iter().map(|row| row.row.span_id).collect();
    source.rows_of_spans(&ids, near, texts, |row| {
        newest.entry(row.identity()).or_insert(row.position);
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}
