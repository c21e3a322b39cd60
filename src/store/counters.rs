//! What has happened to a store since it was opened, and what it holds.

use super::catalog::{self, Catalog};
use super::{SpanCuts, Statistics};

/// See the module; [`Statistics`] tells of each.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) windows_written: u64,
    pub(super) windows_failed: u64,
    pub(super) last_write_error: Option<String>,
    pub(super) spans_written: u64,
    pub(super) spans_failed: u64,
    pub(super) span_cuts: SpanCuts,
    pub(super) removed_by_age: u64,
    pub(super) removed_until_ns: u64,
    pub(super) removed_by_size: u64,
    pub(super) open_series: u64,
    pub(super) open_stack_nodes: u64,
}

impl Counters {
    /// All of it, with what the files of the catalog have.
    pub(super) fn statistics(&self, catalog: &Catalog, max_bytes: u64) -> Statistics {
        let extents: Vec<_> = catalog.segments.iter().map(|segment| segment.extent()).collect();
        let with_windows = || extents.iter().filter(|extent| extent.windows > 0);
        let with_spans = extents.iter().filter(|extent| extent.spans > 0);
        let paths = catalog.segments.iter().map(|segment| &segment.path);
        let paths = paths.chain(catalog.set_aside.iter().map(|file| &file.path));
        let bytes = paths.map(|path| catalog::bytes_of(path)).fold(0, u64::saturating_add);
        let set_aside_until_ns = catalog.set_aside.iter().map(|file| catalog::changed_ns(&file.path)).max();
        Statistics {
            segments: catalog.segments.len() as u64,
            windows: extents.iter().map(|extent| extent.windows).sum(),
            bytes,
            max_bytes,
            oldest_unix_ns: with_windows().map(|extent| extent.first_start_ns).min().unwrap_or(0),
            newest_unix_ns: with_windows().map(|extent| extent.last_end_ns).max().unwrap_or(0),
            open_series: self.open_series,
            open_stack_nodes: self.open_stack_nodes,
            windows_written: self.windows_written,
            windows_failed: self.windows_failed,
            last_write_error: self.last_write_error.clone(),
            spans: extents.iter().map(|extent| extent.spans).sum(),
            oldest_span_unix_ns: with_spans.map(|extent| extent.first_span_ns).min().unwrap_or(0),
            removed_until_unix_ns: self.removed_until_ns.max(set_aside_until_ns.unwrap_or(0)),
            spans_written: self.spans_written,
            spans_failed: self.spans_failed,
            span_cuts: self.span_cuts,
            segments_removed_by_age: self.removed_by_age,
            segments_removed_by_size: self.removed_by_size,
            set_aside: catalog.set_aside.clone(),
        }
    }
}
