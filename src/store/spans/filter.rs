//! Which rows of a block are asked for.

use super::SpanFilter;
use super::block::{Row, Texts};
use crate::model::span::SpanStatus;
use crate::store::TimeRange;

/// A filter in terms of one block: texts are compared once a block.
#[derive(Debug)]
pub(in crate::store) struct BlockFilter<'a> {
    filter: &'a SpanFilter,
    range: TimeRange,
    service: Option<u32>,
    route: Option<u32>,
    method: Option<u32>,
}

impl<'a> BlockFilter<'a> {
    /// Nothing if no row of the block can be asked for.
    pub(in crate::store) fn new(filter: &'a SpanFilter, range: TimeRange, texts: &Texts<'_>) -> Option<Self> {
        let place = |wanted: &Option<String>| match wanted {
            None => Some(None),
            Some(text) => texts.find(text).map(Some),
        };
        Some(Self {
            filter,
            range,
            service: place(&filter.service)?,
            route: place(&filter.route)?,
            method: place(&filter.method)?,
        })
    }

    pub(in crate::store) fn has(&self, row: &Row) -> bool {
        let SpanFilter { status, kind, min_duration_ns, max_duration_ns, error, is_open, .. } = self.filter;
        self.range.overlaps(row.start_unix_ns, 0)
            && self.service.is_none_or(|service| row.service == service)
            && (self.route.is_none() || row.route == self.route)
            && (self.method.is_none() || row.method == self.method)
            && status.is_none_or(|status| row.status_code.is_some_and(|code| status.has(code)))
            && kind.is_none_or(|kind| row.kind == kind)
            && min_duration_ns.is_none_or(|least| row.duration_ns.is_some_and(|it| it >= least))
            && max_duration_ns.is_none_or(|most| row.duration_ns.is_some_and(|it| it <= most))
            && error.is_none_or(|error| (row.status == SpanStatus::Error) == error)
            && is_open.is_none_or(|is_open| row.duration_ns.is_none() == is_open)
    }
}
