//! Which traces beyond the limit of spans a second are kept all the same: those in which something failed, or took
//! much longer than is usual or a second, while they take no more than their part of the limit (`limit.rs`).
//!
//! A trace is kept whole, as far as it was on this host: until the last of its requests is over, all wait
//! (`undecided.rs`). What went to other hosts was said to be kept by nobody, and is not. Spans say why they are kept
//! (`spanflame.sampling.kept_for`), so that nobody takes their number for that of all others.

use super::open::Open;
use super::requests::Requests;
use super::sampling::Sampling;
use super::spans::{Outcome, Spans};
use super::undecided::{Fate, Over};
use crate::model::TraceId;

const SLOW: &str = "slow";
const FAILED: &str = "failed";
/// The kernel side has passed it on as one that is kept.
const PASSED_ON: &str = "passed_on";
/// Why a trace is kept that is beyond the limit; every reason there is.
pub const KEPT_FOR: [&str; 3] = [SLOW, FAILED, PASSED_ON];

impl Spans {
    /// A request begins whose trace is beyond the limit. Returns whether it is kept by what is known now.
    pub(super) fn begin_undecided(
        &mut self,
        trace_id: TraceId,
        sampling: Sampling,
        is_sent: bool,
    ) -> Sampling {
        let fate = self.undecided.begin(trace_id);
        let reason = match sampling {
            Sampling::Late(reason) => Some(reason),
            _ if is_sent => Some(PASSED_ON),
            _ => None,
        };
        match (fate, reason) {
            (Fate::Kept(reason), _) => Sampling::Late(reason),
            (Fate::Open, Some(reason)) => {
                self.undecided.decide(trace_id, Fate::Kept(reason));
                Sampling::Late(reason)
            }
            _ => Sampling::Beyond,
        }
    }

    /// A request of the trace has been open for long. Returns whether it is kept.
    pub(super) fn keep_long(&mut self, trace_id: TraceId) -> Sampling {
        self.keep_late(trace_id, SLOW);
        match self.undecided.fate(trace_id) {
            Fate::Kept(reason) => Sampling::Late(reason),
            Fate::Open | Fate::Left => Sampling::Beyond,
        }
    }

    /// Something makes a trace worth keeping; it is if there is room.
    fn keep_late(&mut self, trace_id: TraceId, reason: &'static str) {
        if self.undecided.fate(trace_id) != Fate::Open {
            return;
        }
        let takes = self.limit.takes_late(self.undecided.requests(trace_id));
        self.counts.not_kept_late += u64::from(!takes);
        self.undecided.decide(trace_id, if takes { Fate::Kept(reason) } else { Fate::Left });
    }

    /// A request is over whose trace is beyond the limit.
    pub(super) fn end_undecided(
        &mut self,
        (open, ended): Over,
        is_slow: bool,
        requests: &mut Requests,
        outcome: &mut Outcome,
    ) {
        let reason = match open.outcome(&ended).error {
            Some(_) => Some(FAILED),
            None => is_slow.then_some(SLOW),
        };
        if let Some(reason) = reason {
            self.keep_late(open.trace_id, reason);
        }
        let mut over = std::mem::take(&mut self.over);
        let fate = self.undecided.end((open, ended), &mut over);
        self.hand_on(fate, &mut over, requests, outcome);
        self.over = over;
    }

    /// A request that is not over is not waited for any more.
    pub(super) fn leave_undecided(&mut self, open: &Open, requests: &mut Requests, outcome: &mut Outcome) {
        if open.is_undecided {
            self.leave_trace(open.trace_id, requests, outcome);
        }
    }

    /// One that belonged to this trace, which is beyond the limit, is given up or belongs to another one.
    pub(super) fn leave_trace(&mut self, trace_id: TraceId, requests: &mut Requests, outcome: &mut Outcome) {
        let mut over = std::mem::take(&mut self.over);
        let fate = self.undecided.leave(trace_id, &mut over);
        self.hand_on(fate, &mut over, requests, outcome);
        self.over = over;
    }

    /// Requests that are over, of a trace beyond the limit of which it is known now whether it is kept.
    fn hand_on(&mut self, fate: Fate, over: &mut Vec<Over>, requests: &mut Requests, outcome: &mut Outcome) {
        for (mut open, ended) in over.drain(..) {
            if let (Sampling::Beyond, Fate::Kept(reason)) = (open.sampling, fate) {
                open.sampling = Sampling::Late(reason);
            }
            let Sampling::Late(reason) = open.sampling else {
                self.count_unsampled(open, &ended, requests, outcome);
                continue;
            };
            *self.counts.kept_late.entry(reason).or_default() += 1;
            if let (Some(key), Ok(stamp)) = (open.key, open.stamp()) {
                requests.keep(key, stamp);
            }
            self.count_kept(&open, &ended);
            outcome.spans.push(open.ended_span(&ended, self.style()));
        }
    }
}
