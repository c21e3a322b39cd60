//! One span of two: ours, and the one that an SDK made for the same piece of work.
//!
//! What stands in the store:
//!
//! ```text
//! trace  span  library    what
//! T      c     spanflame  our client's span: its request carried these ids, so they are its own
//! T      c     an SDK's   that span as the SDK tells it
//!
//! O      s     spanflame  joined to T x: our server's span, before its other name was known
//! T      x     spanflame  joined from O s: the same again, under the SDK's ids
//! T      x     an SDK's   that span as the SDK tells it
//! ```
//!
//! O may be T. **Shown is the SDK's**, and beside it what we know: our times, `spanflame.…`, and the parent
//! where the SDK's parent is the client beyond a proxy. Children that name `s` are `x`'s. Where O is not T, each
//! is a part of the other: whoever asks for one trace gets both. Samples carry `O s`; whoever looks for those
//! of one asks [`aliases`].

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use super::block::Joined;
use super::find::{FoundRow, Identity, SharedTexts, SpanSource};
use super::{MAX_SPANS_OF_TRACE, SpanPosition, SpanSummary};
use crate::model::span::{
    AttributeValue, JOINED_FROM, OWN_LIBRARY, Span, SpanId, SpanKind, TraceId, ids_of_text, text_of,
};
use crate::store::TimeRange;
use crate::store::error::StoreError;

/// A trace consists of so many at most: each SDK behind a proxy that passes no context on begins one.
const MAX_TRACES_JOINED: usize = 64;

type Ids = (TraceId, SpanId);

fn ids(row: &FoundRow) -> Ids {
    (row.row.trace_id, row.row.span_id)
}

fn is_own(row: &FoundRow) -> bool {
    &*row.library == OWN_LIBRARY
}

/// The spans that other libraries have.
pub(super) fn of_others<'a>(known: impl Iterator<Item = &'a Identity>) -> HashSet<Ids> {
    known
        .filter(|(_, _, library)| &**library != OWN_LIBRARY)
        .map(|&(trace_id, span_id, _)| (trace_id, span_id))
        .collect()
}

/// Whether a row is shown, of spans of which other libraries have these.
pub(super) fn is_shown(row: &FoundRow, of_others: &HashSet<Ids>) -> bool {
    let is_gone = matches!(row.row.joined, Some(Joined::To(_)));
    let is_told_by_another = is_own(row) && of_others.contains(&ids(row));
    !is_gone && !is_told_by_another
}

/// Those that are shown, of the newest rows of each span.
pub(super) fn shown<'a>(rows: impl Iterator<Item = &'a FoundRow> + Clone) -> Vec<&'a FoundRow> {
    let of_others: HashSet<Ids> = rows.clone().filter(|row| !is_own(row)).map(ids).collect();
    rows.filter(|row| is_shown(row, &of_others)).collect()
}

/// The newest row of each span of a trace and of those that it is joined with.
fn rows_of_joined_traces(
    source: &SpanSource<'_>,
    trace_id: TraceId,
    texts: &mut SharedTexts,
) -> Result<HashMap<Identity, FoundRow>, StoreError> {
    let mut newest: HashMap<Identity, FoundRow> = HashMap::new();
    let mut looked_at: HashSet<TraceId> = HashSet::new();
    let mut wanted = HashSet::from([trace_id]);
    while !wanted.is_empty() && looked_at.len() < MAX_TRACES_JOINED {
        let mut others = HashSet::new();
        source.rows_of_traces(&wanted, TimeRange::ALL, None, texts, |row| {
            if let Entry::Vacant(vacant) = newest.entry(row.identity()) {
                if let Some(Joined::To((other, _)) | Joined::From((other, _))) = row.row.joined {
                    others.insert(other);
                }
                vacant.insert(row);
            }
            match newest.len() > MAX_SPANS_OF_TRACE {
                true => Err(StoreError::TooMuch { what: "spans in the trace", limit: MAX_SPANS_OF_TRACE }),
                false => Ok(()),
            }
        })?;
        looked_at.extend(wanted.drain());
        wanted = others.difference(&looked_at).copied().collect();
    }
    Ok(newest)
}

/// The newest row of each of these spans, in any trace.
fn rows_of(
    source: &SpanSource<'_>,
    span_ids: &HashSet<SpanId>,
    texts: &mut SharedTexts,
) -> Result<HashMap<Identity, FoundRow>, StoreError> {
    let mut newest: HashMap<Identity, FoundRow> = HashMap::new();
    source.rows_of_spans(span_ids, TimeRange::ALL, texts, |row| {
        newest.entry(row.identity()).or_insert(row);
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}

/// Whole spans of these rows, each once, by start.
fn spans_of(source: &SpanSource<'_>, newest: &HashMap<Identity, FoundRow>) -> Result<Vec<Span>, StoreError> {
    let mut becomes: HashMap<Ids, SpanId> = HashMap::new();
    let mut positions: Vec<SpanPosition> = Vec::new();
    for row in newest.values() {
        match row.row.joined {
            Some(Joined::To((_, other))) => drop(becomes.insert(ids(row), other)),
            _ => positions.push(row.position),
        }
    }
    let (own, mut spans): (Vec<Span>, Vec<Span>) =
        source.spans_at(&positions)?.into_iter().partition(|span| span.scope.0 == OWN_LIBRARY);
    let mut own: HashMap<Ids, Span> =
        own.into_iter().map(|span| ((span.trace_id, span.span_id), span)).collect();
    for span in &mut spans {
        if let Some(own) = own.remove(&(span.trace_id, span.span_id)) {
            put_beside(span, own);
        }
    }
    spans.extend(own.into_values());
    for span in &mut spans {
        if let Some(parent) = span.parent_span_id
            && let Some(&other) = becomes.get(&(span.trace_id, parent))
        {
            span.parent_span_id = Some(other);
        }
    }
    spans.sort_by_key(|span| (span.start_unix_ns, span.span_id));
    Ok(spans)
}

/// Adds what we know of a span to what an SDK says of it.
fn put_beside(span: &mut Span, own: Span) {
    let duration_ns = own.duration_ns();
    let mut put = |name: &'static str, number: u64| {
        let number = AttributeValue::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        span.attributes.push((name.into(), number));
    };
    put("spanflame.start_unix_ns", own.start_unix_ns);
    if let Some(duration_ns) = duration_ns {
        put("spanflame.duration_ns", duration_ns);
    }
    let from = text_of(&own.attributes, JOINED_FROM).and_then(ids_of_text);
    let was_in_its_trace = from.is_none_or(|(trace_id, _)| trace_id == span.trace_id);
    // Of two parents of a server's span in one trace ours is the nearer one: the header's client may be
    // beyond a proxy. A client's span may be below one that the SDK made within the program.
    span.parent_span_id = if span.kind == SpanKind::Server && was_in_its_trace {
        own.parent_span_id.or(span.parent_span_id)
    } else {
        span.parent_span_id.or(own.parent_span_id)
    };
    for (name, value) in own.attributes {
        if name.starts_with("spanflame.") && !span.attributes.iter().any(|(known, _)| *known == name) {
            span.attributes.push((name, value));
        }
    }
}

/// See [`WindowStore::trace`](crate::store::WindowStore::trace).
pub(in crate::store) fn trace(source: &SpanSource<'_>, trace_id: TraceId) -> Result<Vec<Span>, StoreError> {
    let newest = rows_of_joined_traces(source, trace_id, &mut SharedTexts::default())?;
    spans_of(source, &newest)
}

/// See [`WindowStore::span`](crate::store::WindowStore::span).
pub(in crate::store) fn span(
    source: &SpanSource<'_>,
    span_id: SpanId,
    trace_id: Option<TraceId>,
) -> Result<Option<Span>, StoreError> {
    let mut texts = SharedTexts::default();
    let mut wanted = (trace_id, span_id);
    // What it was joined to is joined to nothing else.
    for _ in 0..2 {
        let mut newest = rows_of(source, &HashSet::from([wanted.1]), &mut texts)?;
        newest.retain(|_, row| wanted.0.is_none_or(|trace_id| row.row.trace_id == trace_id));
        if let Some(row) = shown(newest.values()).into_iter().max_by_key(|row| row.position) {
            let ids = ids(row);
            newest.retain(|(trace_id, span_id, _), _| (*trace_id, *span_id) == ids);
            return Ok(spans_of(source, &newest)?.into_iter().max_by_key(|span| span.scope.0 != OWN_LIBRARY));
        }
        let Some(Joined::To(other)) = newest.values().find_map(|row| row.row.joined) else { return Ok(None) };
        wanted = (Some(other.0), other.1);
    }
    Ok(None)
}

/// See [`WindowStore::span_summaries`](crate::store::WindowStore::span_summaries).
pub(in crate::store) fn span_summaries(
    source: &SpanSource<'_>,
    wanted: &[Ids],
) -> Result<Vec<Option<SpanSummary>>, StoreError> {
    let mut texts = SharedTexts::default();
    let mut newest = rows_of(source, &wanted.iter().map(|ids| ids.1).collect(), &mut texts)?;
    let becomes: HashMap<Ids, Ids> = newest
        .values()
        .filter_map(|row| match row.row.joined {
            Some(Joined::To(other)) => Some((ids(row), other)),
            _ => None,
        })
        .collect();
    if !becomes.is_empty() {
        newest.extend(rows_of(source, &becomes.values().map(|ids| ids.1).collect(), &mut texts)?);
    }
    // Of several libraries that have it, the one that wrote last.
    let mut found: HashMap<Ids, &FoundRow> = HashMap::new();
    for row in shown(newest.values()) {
        let known = found.entry(ids(row)).or_insert(row);
        if row.position > known.position {
            *known = row;
        }
    }
    let summary = |ids: &Ids| found.get(becomes.get(ids).unwrap_or(ids)).map(|row| row.summary());
    Ok(wanted.iter().map(summary).collect())
}

/// See [`WindowStore::span_aliases`](crate::store::WindowStore::span_aliases).
pub(in crate::store) fn aliases(
    source: &SpanSource<'_>,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
) -> Result<Vec<Ids>, StoreError> {
    let mut texts = SharedTexts::default();
    let mut aliases: HashSet<Ids> = HashSet::new();
    let mut take = |rows: &HashMap<Identity, FoundRow>| {
        for row in rows.values() {
            if let Some(Joined::To(other) | Joined::From(other)) = row.row.joined {
                aliases.extend([ids(row), other]);
            }
        }
    };
    match (trace_id, span_id) {
        (_, Some(span_id)) => {
            let mut rows = rows_of(source, &HashSet::from([span_id]), &mut texts)?;
            rows.retain(|_, row| trace_id.is_none_or(|trace_id| row.row.trace_id == trace_id));
            take(&rows);
        }
        (Some(trace_id), None) => take(&rows_of_joined_traces(source, trace_id, &mut texts)?),
        (None, None) => {}
    }
    Ok(aliases.into_iter().collect())
}
