//! Traces beyond the limit of spans a second, until it is known whether something makes them worth keeping.
//!
//! Comes in: their requests as they begin and end on this host, and that one of them failed or took long. Goes out: their
//! requests that are over, together, when the last one is or the trace is worth keeping; and how that went. Never: a
//! part of a trace of which the rest was thrown away; where there is no room to wait, the trace is not kept.

use std::collections::hash_map::{Entry, OccupiedEntry};

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
        let Entry::Occupied(mut trace) = self.traces.entry(request.0.trace_id) else {
            over.push(request);
            return Fate::Left;
        };
        let of = trace.get_mut();
        let has_room = self.waiting < MAX_WAITING && of.waiting.len() < MAX_WAITING_OF_TRACE;
        if of.open > 1 && of.fate == Fate::Open {
            if has_room {
                of.open -= 1;
                self.waiting += 1;
                of.waiting.push(request);
                return Fate::Open;
            }
            self.no_room += 1;
            of.fate = Fate::Left;
        }
        over.push(request);
        leave(trace, &mut self.waiting, over)
    }

    /// A request of the trace is given up, or is of another one: as [`Self::end`] without it.
    pub(super) fn leave(&mut self, trace_id: TraceId, over: &mut Vec<Over>) -> Fate {
        match self.traces.entry(trace_id) {
            Entry::Occupied(trace) => leave(trace, &mut self.waiting, over),
            Entry::Vacant(_) => Fate::Left,
        }
    }
}

/// One request fewer of a trace is open; `waiting` counts those of all traces.
fn leave(mut trace: OccupiedEntry<'_, TraceId, Trace>, waiting: &mut usize, over: &mut Vec<Over>) -> Fate {
    let of = trace.get_mut();
    of.open = of.open.saturating_sub(1);
    if of.open == 0 && of.fate == Fate::Open {
        of.fate = Fate::Left;
    }
    let fate = of.fate;
    if fate != Fate::Open {
        *waiting = waiting.saturating_sub(of.waiting.len());
        over.append(&mut of.waiting);
    }
    if of.open == 0 {
        trace.remove();
    }
    fate
}
