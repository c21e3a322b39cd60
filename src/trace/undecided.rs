//! Traces beyond the limit of spans a second, until it is known whether something makes them worth keeping.
//!
//! Comes in: their requests as they begin and end on this host, and that one of them failed or took long. Goes out: their
//! requests that are over, together, when the last one is or the trace is worth keeping; and how that went. Never: a
//! part of a trace of which the rest was thrown away; where there is no room to wait, the trace is not kept.

use foldhash::HashMap;

use super::exchange::Ended;
use super::open::Open;
use crate::model::TraceId;

/// Requests that are over and wait for others, a kilobyte each.
const MAX_WAITING: usize = 1 << 14;
/// … of one trace.
const MAX_WAITING_OF_TRACE: usize = 1 << 9;

/// What becomes of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fate {
    /// That is not known yet.
    #[default]
    Open,
    /// It is kept, for this reason.
    Kept(&'static str),
    /// It is not.
    Left,
}

/// A request that is over.
pub(super) type Over = (Box<Open>, Ended);

#[derive(Debug, Default)]
struct Trace {
    /// Requests that are not over.
    open: u64,
    fate: Fate,
    waiting: Vec<Over>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    traces: HashMap<TraceId, Trace>,
    waiting: usize,
    /// Traces that found no room to wait.
    pub(super) no_room: u64,
}

impl Undecided {
    /// A request of this trace begins. Returns what is known of the trace's fate.
    pub(super) fn begin(&mut self, trace_id: TraceId) -> Fate {
        let trace = self.traces.entry(trace_id).or_default();
        trace.open += 1;
        trace.fate
    }

    /// Of this trace, what is known of its fate.
    pub(super) fn fate(&self, trace_id: TraceId) -> Fate {
        self.traces.get(&trace_id).map_or(Fate::Left, |trace| trace.fate)
    }

    /// How many requests of a trace have begun, of those that nobody has got back yet.
    pub(super) fn requests(&self, trace_id: TraceId) -> u64 {
        self.traces.get(&trace_id).map_or(0, |trace| trace.open + trace.waiting.len() as u64)
    }

    /// What has become of a trace is known; it stays so.
    pub(super) fn decide(&mut self, trace_id: TraceId, fate: Fate) {
        if let Some(trace) = self.traces.get_mut(&trace_id).filter(|trace| trace.fate == Fate::Open) {
            trace.fate = fate;
        }
    }

    /// Traces whose requests are not all over.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.traces.len()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// A request is over. All that are to be handed on now go to `over`, with the trace's fate, which is `Left` if
    /// nothing has made it worth keeping.
    pub(super) fn end(&mut self, request: Over, over: &mut Vec<Over>) -> Fate {
        let trace_id = request.0.trace_id;
        let Some(trace) = self.traces.get_mut(&trace_id) else {
            over.push(request);
            return Fate::Left;
        };
        let has_room = self.waiting < MAX_WAITING && trace.waiting.len() < MAX_WAITING_OF_TRACE;
        if trace.open > 1 && trace.fate == Fate::Open {
            if has_room {
                trace.open -= 1;
                self.waiting += 1;
                trace.waiting.push(request);
                return Fate::Open;
            }
            self.no_room += 1;
            trace.fate = Fate::Left;
        }
        over.push(request);
        self.leave(trace_id, over)
    }

    /// A request of the trace is given up, or is of another one: as [`Self::end`] without it.
    pub(super) fn leave(&mut self, trace_id: TraceId, over: &mut Vec<Over>) -> Fate {
        let Some(trace) = self.traces.get_mut(&trace_id) else { return Fate::Left };
        trace.open = trace.open.saturating_sub(1);
        if trace.open == 0 && trace.fate == Fate::Open {
            trace.fate = Fate::Left;
        }
        let fate = trace.fate;
        if fate != Fate::Open {
            self.waiting = self.waiting.saturating_sub(trace.waiting.len());
            over.append(&mut trace.waiting);
        }
        if trace.open == 0 {
            self.traces.remove(&trace_id);
        }
        fate
    }
}
