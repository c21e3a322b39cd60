//! What a sample's request key came to: the border between those who sample and those who follow requests.

use super::{RequestKey, SpanId, TraceId};

/// Why a sample that was taken in a request does not say in which span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unstamped {
    /// Nothing was heard of the request: its bytes were lost, or are no request's.
    Unconfirmed,
    /// It was taken after the last byte of the response, or before the first one of the request.
    Outside,
    /// The request is one that is not traced: left out by its path or its port, or not chosen.
    NotTraced,
    /// It ended too long ago.
    Forgotten,
    /// A goroutine works on it, and which one was not known.
    GoroutineUnknown,
}

impl Unstamped {
    /// Every reason there is, with its name in metrics.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Unconfirmed, "unconfirmed"),
        (Self::Outside, "outside_of_request"),
        (Self::NotTraced, "not_traced"),
        (Self::Forgotten, "forgotten"),
        (Self::GoroutineUnknown, "goroutine_unknown"),
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|&&(reason, _)| reason == self).map_or("", |&(_, name)| name)
    }
}

/// A span, to be written on samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
}

/// Who knows what requests came to.
pub trait RequestSpans: Send + Sync {
    /// Waits until what was moved before this moment (`CLOCK_MONOTONIC`, nanoseconds) is known, for a bounded
    /// time: what comes later is unconfirmed.
    fn catch_up(&self, time_ns: u64);

    /// The span in which a sample of this request was taken at this moment.
    ///
    /// # Errors
    /// Why none is known; it is counted there.
    fn span_at(&self, request: RequestKey, time_ns: u64) -> Result<Stamp, Unstamped>;
}
