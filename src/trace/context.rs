//! Trace context as it arrives in header fields.

use crate::model::span::{SpanId, TraceId};

/// What a caller says of the trace it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span.
    pub parent_span_id: SpanId,
    /// Whether the caller records it; `None` if it leaves that to us.
    pub sampled: Option<bool>,
    /// `tracestate` as it is to be kept; empty if there is none.
    pub trace_state: String,
}
