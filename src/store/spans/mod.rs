//! Spans in the store: what is asked for and what is answered, and how they lie in a segment.
//!
//! A span is written once when it ends, and perhaps once before that while it is open; an SDK's may be
//! sent twice. All of them are kept as they come: what has the trace id, the span id and the library's
//! name of one that was written before **replaces** it, which is done by whoever reads, newest first.
//! So writing only ever appends, as it does for windows: an index by random ids would rewrite a page of
//! 8 KiB for each span.
//!
//! ```text
//! limits.rs      a span as it came → one of bounded size, what is cut counted
//! dictionary.rs  texts that come again and again, by number, for a whole segment
//! block.rs       a batch of spans → keys, rows, details (three blobs), and back
//! filter.rs      which rows are asked for
//! find.rs        rows of a segment by position, by id, by time
//! traces.rs      pages of traces, lists
//! joined.rs      ours and an SDK's that are one span
//! ```

pub(super) mod block;
pub(super) mod dictionary;
pub(super) mod filter;
pub(super) mod find;
pub(super) mod joined;
pub(super) mod limits;
pub(super) mod traces;

use super::TimeRange;
use crate::model::span::{SpanId, SpanKind, SpanStatus, TraceId};

/// The most traces of a page.
pub const MAX_TRACES: usize = 1_000;
/// The most spans of a list.
pub const MAX_SPANS: usize = 5_000;
/// The most spans of a trace that are read; a trace of more is refused.
pub const MAX_SPANS_OF_TRACE: usize = 100_000;

/// What a span has to be. What is left out is not asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpanFilter {
    /// `service.name`; the empty text selects spans that have none.
    pub service: Option<String>,
    /// `http.route`, or `package.Service/Method` of an RPC.
    pub route: Option<String>,
    /// `http.request.method`, or `rpc.method`.
    pub method: Option<String>,
    /// Status code of HTTP or gRPC.
    pub status: Option<StatusFilter>,
    /// Who did the work.
    pub kind: Option<SpanKind>,
    /// Least duration, nanoseconds. Open spans have none.
    pub min_duration_ns: Option<u64>,
    /// Greatest duration, nanoseconds. Open spans have none.
    pub max_duration_ns: Option<u64>,
    /// Whether its status is an error.
    pub error: Option<bool>,
    /// Whether the work goes on.
    pub is_open: Option<bool>,
}

/// Which status codes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    /// This one.
    Code(u16),
    /// All of HTTP from this many hundreds on: 5 is 500 to 599.
    Class(u16),
}

impl StatusFilter {
    /// Whether this code is asked for.
    #[must_use]
    pub fn has(self, code: u16) -> bool {
        match self {
            Self::Code(wanted) => code == wanted,
            Self::Class(hundreds) => code / 100 == hundreds,
        }
    }
}

/// A question for traces: those that have a span which is asked for and begins in the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceQuery {
    /// What the span has to be.
    pub filter: SpanFilter,
    /// When it has to begin.
    pub range: TimeRange,
    /// How many traces at most; at most [`MAX_TRACES`].
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<TraceCursor>,
}

/// Where a row of a span stands: segment, block, row. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanPosition {
    /// Number of the segment.
    pub segment: u64,
    /// Number of the block in it.
    pub block: u64,
    /// Number of the row in that.
    pub row: u32,
}

/// Where a page of traces ended. It stays true while spans come in: what was written after the first page
/// was asked for is on none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceCursor {
    /// The newest row when the first page was asked for.
    pub newest: SpanPosition,
    /// The row at which the page before ended: what is older comes next.
    pub after: SpanPosition,
}

/// Traces, the most lately written first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TracePage {
    /// At most as many as were asked for; fewer also where the search went on for too long.
    pub traces: Vec<TraceSummary>,
    /// Where to go on; nothing at the end.
    pub next: Option<TraceCursor>,
}

/// A trace in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSummary {
    /// Its id.
    pub trace_id: TraceId,
    /// The span without a parent, or the earliest.
    pub root: SpanSummary,
    /// Start of the earliest span, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// From there to the latest end, or latest start of one that is open.
    pub duration_ns: u64,
    /// How many spans are stored, less those that were left out.
    pub spans: u64,
    /// How many more there are, which were not looked at: the trace is too large for a page. One that was written
    /// twice counts twice.
    pub left_out: u64,
    /// How many of them failed.
    pub errors: u64,
    /// How many of them go on.
    pub open: u64,
    /// Names of their services, each once, in order.
    pub services: Vec<String>,
    /// The span for which this trace is on the page, the most lately written one if several are.
    pub matching: SpanSummary,
}

/// A question for spans, whatever their trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanQuery {
    /// What a span has to be.
    pub filter: SpanFilter,
    /// When it has to begin.
    pub range: TimeRange,
    /// How many at most, the most lately written ones; at most [`MAX_SPANS`].
    pub limit: usize,
}

/// Spans, the most lately written first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpanList {
    /// In short.
    pub spans: Vec<SpanSummary>,
    /// Whether there may be more.
    pub is_cut: bool,
}

/// A span in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanSummary {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// `service.name`, or nothing.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Who did the work.
    pub kind: SpanKind,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Its length; `None` while the work goes on.
    pub duration_ns: Option<u64>,
    /// How it went.
    pub status: SpanStatus,
    /// See [`SpanFilter::route`]; empty without.
    pub route: String,
    /// See [`SpanFilter::method`]; empty without.
    pub method: String,
    /// Status code of HTTP or gRPC.
    pub status_code: Option<u16>,
}

/// What was cut off spans that were larger than they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanCuts {
    /// Attributes that were left out.
    pub attributes: u64,
    /// Events that were left out.
    pub events: u64,
    /// Links that were left out.
    pub links: u64,
    /// Texts that were shortened.
    pub texts: u64,
}

impl SpanCuts {
    /// Whether nothing was.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn add(&mut self, other: &Self) {
        let Self { attributes, events, links, texts } = other;
        self.attributes += attributes;
        self.events += events;
        self.links += links;
        self.texts += texts;
    }
}
