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
/// stub
pub fn of_request(head: &super::exchange::RequestHead) -> Option<TraceContext> {
    let text = head.traceparent.value()?;
    Some(TraceContext {
        trace_id: TraceId::from_hex(text.get(3..35)?.as_bytes())?,
        parent_span_id: SpanId::from_hex(text.get(36..52)?.as_bytes())?,
        sampled: Some(text.ends_with("01")),
        trace_state: String::new(),
    })
}
