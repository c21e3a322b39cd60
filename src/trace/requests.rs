//! What the kernel side's request keys came to: samples carry keys, spans have ids.
//!
//! A request is known from when its head is complete until a while after its last byte, so that samples of
//! a window that is cut later still find it. Bounded: the requests that ended first are forgotten first. Of those that
//! turned out to have no span only the end is remembered (`untraced.rs`).

use std::collections::VecDeque;

use foldhash::HashMap;

use super::untraced::Untraced;
use crate::model::{RequestKey, Stamp, Unstamped};

/// How long a request is known after its end: longer than a window, and than it takes to name one.
const KEEP_NS: u64 = 60_000_000_000;
/// Requests that may be known at a time, ended ones included: 100 bytes each.
const MAX_REQUESTS: usize = 1 << 20;

/// A request that the kernel side has seen begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// Its span, or why samples have none.
    pub(super) stamp: Result<Stamp, Unstamped>,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) first_byte_ns: u64,
    /// Of the response; `None` while there is more to come.
    pub(super) last_byte_ns: Option<u64>,
    /// Whether a sample has been told its span.
    pub(super) is_told: bool,
}

impl Request {
    fn may_have_span(&self) -> bool {
        matches!(self.stamp, Ok(_) | Err(Unstamped::NotTraced))
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Those that are not over, and those of which it is open whether they have a span. Apart from `over`, of which there
    /// are a hundred thousand: each of those is a cache miss, and most requests of a busy host never get there.
    open: HashMap<RequestKey, Request>,
    /// Those that have ended.
    over: HashMap<RequestKey, Request>,
    /// … the earliest first.
    ended: VecDeque<(u64, RequestKey)>,
    untraced: Untraced,
    newest_forgotten_ns: u64,
}

impl Requests {
    pub(super) fn begin(&mut self, key: RequestKey, request: Request) {
        if self.len() >= MAX_REQUESTS {
            self.forget_one();
        }
        // All of them are open: samples of this one will be counted as unconfirmed.
        if self.len() >= MAX_REQUESTS {
            return;
        }
        self.open.insert(key, request);
    }

    /// It is over. If its trace is not kept up to now, [`Self::keep`] or [`Self::leave`] says later what becomes of it.
    pub(super) fn end(&mut self, key: RequestKey, last_byte_ns: u64) {
        if let Some(request) = self.open.get_mut(&key) {
            request.last_byte_ns = Some(last_byte_ns);
            if request.stamp != Err(Unstamped::NotTraced) {
                self.remember(key, last_byte_ns);
            }
        }
        while self.ended.front().is_some_and(|&(ended, _)| ended.saturating_add(KEEP_NS) < last_byte_ns) {
            self.forget_one();
        }
    }

    /// It has ended, and it is known whether it has a span.
    fn remember(&mut self, key: RequestKey, last_byte_ns: u64) {
        self.over.extend(self.open.remove_entry(&key));
        self.ended.push_back((last_byte_ns, key));
    }

    /// Its span has other ids than were thought, unless somebody knows it by the first ones. Whether it has now.
    pub(super) fn rename(&mut self, key: RequestKey, stamp: Result<Stamp, Unstamped>) -> bool {
        match self.find(key) {
            Some(request) if !request.is_told && request.may_have_span() => {
                request.stamp = stamp;
                true
            }
            _ => false,
        }
    }

    /// Its trace is kept after all: who asks from now on is told its span.
    pub(super) fn keep(&mut self, key: RequestKey, stamp: Stamp) {
        if let Some(request) = self.open.get_mut(&key)
            && request.stamp == Err(Unstamped::NotTraced)
        {
            request.stamp = Ok(stamp);
            if let Some(last_byte_ns) = request.last_byte_ns {
                self.remember(key, last_byte_ns);
            }
        }
    }

    /// It is over, and its trace is not kept.
    pub(super) fn leave(&mut self, key: RequestKey) {
        if let Some(&Request { stamp: Err(Unstamped::NotTraced), last_byte_ns: Some(last_byte_ns), .. }) =
            self.open.get(&key)
        {
            self.open.remove(&key);
            self.untraced.note(key, last_byte_ns);
        }
    }

    /// The span of a request that is not over; `None` if it is, or has none.
    pub(super) fn open_stamp(&self, key: RequestKey) -> Option<Stamp> {
        let request = self.open.get(&key)?;
        request.stamp.ok().filter(|_| request.last_byte_ns.is_none())
    }

    /// Whether it is not over yet.
    pub(super) fn is_open(&self, key: RequestKey) -> bool {
        self.open.get(&key).is_some_and(|request| request.last_byte_ns.is_none())
    }

    /// Others know it by its name now.
    pub(super) fn note_told(&mut self, key: RequestKey) {
        if let Some(request) = self.find(key) {
            request.is_told = true;
        }
    }

    /// It was no request.
    pub(super) fn discard(&mut self, key: RequestKey) {
        self.open.remove(&key);
        self.over.remove(&key);
    }

    fn find(&mut self, key: RequestKey) -> Option<&mut Request> {
        self.open.get_mut(&key).or_else(|| self.over.get_mut(&key))
    }

    fn forget_one(&mut self) {
        if let Some((ended_ns, key)) = self.ended.pop_front() {
            self.over.remove(&key);
            self.newest_forgotten_ns = self.newest_forgotten_ns.max(ended_ns);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len() + self.over.len()
    }

    pub(super) fn span_at(&mut self, key: RequestKey, time_ns: u64) -> Result<Stamp, Unstamped> {
        let Some(request) = self.find(key) else {
            return Err(match self.untraced.ended_ns(key) {
                Some(ended_ns) if time_ns <= ended_ns => Unstamped::NotTraced,
                Some(_) => Unstamped::Outside,
                None if time_ns <= self.newest_forgotten_ns.max(self.untraced.newest_forgotten_ns()) => {
                    Unstamped::Forgotten
                }
                None => Unstamped::Unconfirmed,
            });
        };
        if time_ns < request.first_byte_ns || request.last_byte_ns.is_some_and(|last| time_ns > last) {
            return Err(Unstamped::Outside);
        }
        request.is_told |= request.stamp.is_ok();
        request.stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SpanId, TraceId};

    fn request(first_byte_ns: u64) -> Request {
        let stamp = Stamp {
            trace_id: TraceId::new([1; 16]).expect("not zero"),
            span_id: SpanId::new([2; 8]).expect("not zero"),
        };
        Request { stamp: Ok(stamp), first_byte_ns, last_byte_ns: None, is_told: false }
    }

    #[test]
    fn a_sample_counts_between_the_first_and_the_last_byte_both_included() {
        let mut requests = Requests::default();
        let key = RequestKey(7);
        assert_eq!(requests.span_at(key, 10), Err(Unstamped::Unconfirmed));
        requests.begin(key, request(10));
        assert_eq!(requests.span_at(key, 9), Err(Unstamped::Outside));
        assert!(requests.span_at(key, 10).is_ok());
        assert!(requests.span_at(key, u64::MAX).is_ok(), "while it is open there is no end");
        requests.end(key, 20);
        assert!(requests.span_at(key, 20).is_ok());
        assert_eq!(requests.span_at(key, 21), Err(Unstamped::Outside));
    }

    #[test]
    fn a_request_has_another_name_until_a_sample_knows_it_by_the_first() {
        let mut requests = Requests::default();
        let key = RequestKey(7);
        let other = Ok(Stamp { trace_id: TraceId::nonzero([9; 16]), span_id: SpanId::nonzero([2; 8]) });
        assert!(!requests.rename(key, other));
        requests.begin(key, request(10));
        assert!(requests.rename(key, other));
        assert_eq!(requests.span_at(key, 9), Err(Unstamped::Outside));
        assert!(requests.rename(key, other), "nobody was told");
        assert_eq!(requests.span_at(key, 11), other);
        assert!(!requests.rename(key, other));
    }

    #[test]
    fn a_request_whose_trace_is_kept_late_has_its_span_for_those_who_ask_then() {
        let mut requests = Requests::default();
        let (key, stamp) = (RequestKey(7), request(10).stamp.expect("a stamp"));
        requests.begin(key, Request { stamp: Err(Unstamped::NotTraced), ..request(10) });
        assert_eq!(requests.span_at(key, 11), Err(Unstamped::NotTraced));
        requests.end(key, 20);
        requests.keep(key, stamp);
        assert_eq!(requests.span_at(key, 11), Ok(stamp));
        // What has none for another reason has none.
        requests.begin(RequestKey(8), Request { stamp: Err(Unstamped::GoroutineUnknown), ..request(10) });
        requests.keep(RequestKey(8), stamp);
        assert_eq!(requests.span_at(RequestKey(8), 11), Err(Unstamped::GoroutineUnknown));
    }

    #[test]
    fn of_a_request_whose_trace_is_not_kept_the_end_is_remembered() {
        let mut requests = Requests::default();
        let key = RequestKey(7);
        requests.begin(key, Request { stamp: Err(Unstamped::NotTraced), ..request(10) });
        requests.leave(key);
        assert_eq!(requests.len(), 1, "it is not over");
        requests.end(key, 20);
        requests.leave(key);
        assert_eq!(requests.len(), 0);
        assert_eq!(requests.span_at(key, 20), Err(Unstamped::NotTraced));
        assert_eq!(requests.span_at(key, 21), Err(Unstamped::Outside));
        requests.keep(key, request(10).stamp.expect("a stamp"));
        assert_eq!(requests.span_at(key, 20), Err(Unstamped::NotTraced), "too late");
    }

    #[test]
    fn what_is_kept_after_its_end_is_forgotten_after_a_minute_too() {
        let mut requests = Requests::default();
        requests.begin(RequestKey(1), Request { stamp: Err(Unstamped::NotTraced), ..request(10) });
        requests.end(RequestKey(1), 20);
        requests.keep(RequestKey(1), request(10).stamp.expect("a stamp"));
        requests.begin(RequestKey(2), request(30));
        requests.end(RequestKey(2), 21 + KEEP_NS);
        assert_eq!(requests.span_at(RequestKey(1), 15), Err(Unstamped::Forgotten));
        assert_eq!(requests.len(), 1);
    }

    #[test]
    fn a_request_that_turned_out_to_be_none_is_unconfirmed() {
        let mut requests = Requests::default();
        requests.begin(RequestKey(1), request(10));
        requests.discard(RequestKey(1));
        requests.end(RequestKey(1), 20);
        assert_eq!(requests.span_at(RequestKey(1), 15), Err(Unstamped::Unconfirmed));
    }

    #[test]
    fn what_ended_a_minute_ago_is_forgotten_and_said_to_be() {
        let mut requests = Requests::default();
        for (key, end) in [(1, 20), (2, 30), (3, 21 + KEEP_NS)] {
            requests.begin(RequestKey(key), request(end - 5));
            requests.end(RequestKey(key), end);
        }
        assert_eq!(requests.span_at(RequestKey(1), 18), Err(Unstamped::Forgotten));
        assert!(requests.span_at(RequestKey(2), 28).is_ok());
        assert_eq!(requests.span_at(RequestKey(9), KEEP_NS), Err(Unstamped::Unconfirmed));
        assert_eq!(requests.len(), 2);
    }
}
