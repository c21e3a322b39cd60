//! How many spans a second are kept: beyond that, a smaller share of traces is.
//!
//! Comes in: spans that begin, with who has decided on them, and the time. Goes out: whether a trace that nobody else
//! has decided on is kept; what the ids of those that are kept lie below, for the kernel side, which passes the
//! contexts of those and no others on.
//!
//! The share follows from what was asked for in the last second, not from what was kept of it, so nothing swings: of
//! the limit, what others have decided on and what is kept late comes first, and what is left over is divided by the
//! spans whose traces may draw. A second that has used up its limit before it is over ends at once. The share falls as
//! far as it has to and at most doubles from one second to the next, so that bursts do not find it open each time.
//!
//! A trace is kept if what it draws lies below the bound: a smaller share keeps some of the same traces and none
//! of others, so whoever else decides by the id keeps no trace of which we have lost a part that he would have lost.
//! The bound that counts is the one of the moment when a request began, which is the one that the kernel side had.

use std::collections::VecDeque;

use super::sampling::{Sampler, Sampling, draw};
use crate::model::TraceId;

/// How long it is counted, if the limit is not reached before.
const WINDOW_NS: u64 = 1_000_000_000;
/// A shorter time says nothing of a rate.
const SHORTEST_WINDOW_NS: u64 = 20_000_000;
/// Bounds of the past that are remembered: requests whose head comes late began under them.
const MAX_BOUNDS: usize = 64;
/// The part of the limit that is left to traces which draw, whatever others decide.
const ALWAYS_DRAWN_PART: u64 = 20;
/// The part of it that traces may take which are kept although they have not drawn.
const LATE_PART: u64 = 4;

/// See the module's description.
#[derive(Debug)]
pub(super) struct SpanLimit {
    sampler: Sampler,
    /// `None`: as many as there are.
    spans_per_second: Option<u64>,
    /// Of the traces that the sampler keeps.
    share: f64,
    /// Since when (`CLOCK_MONOTONIC`, ns) which bound holds, in order of time.
    bounds: VecDeque<(u64, u64)>,
    window: Window,
}

/// Spans that have begun since.
#[derive(Debug, Default)]
struct Window {
    began_ns: u64,
    /// Which others have decided to keep.
    asked: u64,
    /// Whose traces may draw.
    drawing: u64,
    /// … and have.
    drawn: u64,
    /// Which are kept although they have not drawn.
    late: u64,
}

impl SpanLimit {
    pub(super) fn new(sampler: Sampler, spans_per_second: Option<u64>) -> Self {
        let bounds = VecDeque::from([(0, sampler.bound())]);
        Self { sampler, spans_per_second, share: 1.0, bounds, window: Window::default() }
    }

    /// Another share or limit from now on; what was counted goes on to count.
    pub(super) fn set(&mut self, sampler: Sampler, spans_per_second: Option<u64>, now_ns: u64) {
        self.sampler = sampler;
        self.spans_per_second = spans_per_second;
        if spans_per_second.is_none() {
            self.share = 1.0;
        }
        self.change(now_ns);
    }

    /// What the lowest 63 bits of the ids of traces lie below that are kept from now on.
    pub(super) fn bound(&self) -> u64 {
        if self.share >= 1.0 {
            return self.sampler.bound();
        }
        // Not below zero and not above the other one.
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bound = (self.sampler.bound() as f64 * self.share) as u64;
        bound
    }

    /// The share of traces that is kept, of those that nobody else decides on and the configured share leaves.
    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// Whether a trace is kept, of which a request began at this moment and on which nobody else has decided.
    pub(super) fn decide(&self, trace_id: TraceId, began_ns: u64) -> Sampling {
        let draw = draw(trace_id);
        let then = self.bounds.iter().rfind(|&&(since_ns, _)| since_ns <= began_ns).or(self.bounds.front());
        if draw < then.map_or(0, |&(_, bound)| bound) {
            Sampling::Drawn
        } else if draw < self.sampler.bound() {
            Sampling::Beyond
        } else {
            Sampling::NotDrawn
        }
    }

    /// A span has begun.
    pub(super) fn note_begun(&mut self, sampling: Sampling) {
        match sampling {
            Sampling::Asked => self.window.asked += 1,
            Sampling::Drawn => {
                self.window.drawing += 1;
                self.window.drawn += 1;
            }
            Sampling::Late(_) => {
                self.window.drawing += 1;
                self.window.late += 1;
            }
            Sampling::Beyond => self.window.drawing += 1,
            Sampling::NotAsked | Sampling::NotDrawn => {}
        }
    }

    /// Whether so many spans more that have not drawn may be kept in this second; then they are counted.
    pub(super) fn takes_late(&mut self, spans: u64) -> bool {
        let takes = self
            .spans_per_second
            .is_none_or(|limit| self.window.late.saturating_add(spans) <= (limit / LATE_PART).max(1));
        if takes {
            self.window.late = self.window.late.saturating_add(spans);
        }
        takes
    }

    /// It is that late now. Returns whether another bound holds from now on.
    pub(super) fn adapt(&mut self, now_ns: u64) -> bool {
        let Some(limit) = self.spans_per_second else { return false };
        let Window { began_ns, asked, drawing, drawn, late } = self.window;
        let elapsed_ns = now_ns.saturating_sub(began_ns);
        let is_used_up = asked + drawn + late >= limit && elapsed_ns >= SHORTEST_WINDOW_NS;
        let is_over = elapsed_ns >= WINDOW_NS;
        if !is_over && !is_used_up {
            return false;
        }
        self.window = Window { began_ns: now_ns, ..Window::default() };
        #[expect(clippy::cast_precision_loss, reason = "rates of at most millions")]
        let a_second = |spans: u64| spans as f64 * WINDOW_NS as f64 / elapsed_ns as f64;
        #[expect(clippy::cast_precision_loss, reason = "rates of at most millions")]
        let limit = limit as f64;
        let left_over = (limit - a_second(asked) - a_second(late)).max(limit / ALWAYS_DRAWN_PART as f64);
        let fitting = if drawing == 0 { 1.0 } else { (left_over / a_second(drawing)).min(1.0) };
        let before = self.share;
        self.share = match is_over {
            true => fitting.min(before * 2.0),
            // There is more to come of this second.
            false => fitting.min(before),
        };
        let is_other = self.share.to_bits() != before.to_bits();
        if is_other {
            self.change(now_ns);
        }
        is_other
    }

    fn change(&mut self, now_ns: u64) {
        self.bounds.push_back((now_ns, self.bound()));
        if self.bounds.len() > MAX_BOUNDS {
            self.bounds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Ids that draw evenly.
    fn traces(count: u64) -> impl Iterator<Item = TraceId> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..count).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = (state ^ state >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mut bytes = [1; 16];
            bytes[8..].copy_from_slice(&(mixed ^ mixed >> 32).to_be_bytes());
            TraceId::new(bytes).expect("not zero")
        })
    }

    /// Requests of two spans each come at this rate for a second. How many spans were kept.
    fn a_second(limit: &mut SpanLimit, second: u64, requests: u64) -> u64 {
        let mut kept = 0;
        for (nth, trace_id) in traces(requests).enumerate() {
            let now_ns = second * SECOND + nth as u64 * SECOND / requests;
            let sampling = limit.decide(trace_id, now_ns);
            for _ in 0..2 {
                limit.note_begun(sampling);
                kept += u64::from(sampling.is_kept());
            }
            // As often as the ring is looked at under load.
            if nth % 64 == 0 {
                limit.adapt(now_ns);
            }
        }
        limit.adapt((second + 1) * SECOND);
        kept
    }

    #[test]
    fn what_is_within_the_limit_is_kept_whole() {
        let mut limit = SpanLimit::new(Sampler::new(1.0), Some(2_000));
        for second in 1..10 {
            assert_eq!(a_second(&mut limit, second, 900), 1_800);
        }
        assert!(limit.share() >= 1.0);
    }

    #[test]
    fn beyond_the_limit_about_as_much_is_kept_as_it_says_from_the_first_second_on() {
        let mut limit = SpanLimit::new(Sampler::new(1.0), Some(2_000));
        a_second(&mut limit, 1, 100);
        let first = a_second(&mut limit, 2, 40_000);
        assert!((2_000..=6_000).contains(&first), "{first}");
        for second in 3..10 {
            let kept = a_second(&mut limit, second, 40_000);
            assert!((1_600..=2_400).contains(&kept), "{kept}");
        }
        assert!((0.02..0.03).contains(&limit.share()), "{}", limit.share());
        // It takes seconds until all are kept again.
        let shares: Vec<f64> = (10..17)
            .map(|second| {
                a_second(&mut limit, second, 100);
                limit.share()
            })
            .collect();
        assert!(shares[0] < 0.06 && shares[6] >= 1.0, "{shares:?}");
    }

    #[test]
    fn what_others_have_decided_comes_first_and_some_may_always_draw() {
        let mut limit = SpanLimit::new(Sampler::new(1.0), Some(1_000));
        for second in 1..5 {
            for _ in 0..5_000 {
                limit.note_begun(Sampling::Asked);
                limit.note_begun(Sampling::Beyond);
            }
            limit.adapt((second + 1) * SECOND);
        }
        assert!((0.009..0.011).contains(&limit.share()), "50 of 5,000: {}", limit.share());
    }

    #[test]
    fn the_configured_share_is_the_whole_of_which_less_is_kept() {
        let mut limit = SpanLimit::new(Sampler::new(0.5), Some(1_000_000));
        let of = |limit: &SpanLimit| {
            let decided: Vec<Sampling> = traces(10_000).map(|id| limit.decide(id, u64::MAX)).collect();
            [Sampling::Drawn, Sampling::Beyond, Sampling::NotDrawn]
                .map(|what| decided.iter().filter(|&&it| it == what).count())
        };
        let [drawn, beyond, not_drawn] = of(&limit);
        assert!(drawn.abs_diff(5_000) < 300 && beyond == 0 && drawn + not_drawn == 10_000);
        limit.set(Sampler::new(0.5), Some(100), 0);
        for second in 1..4 {
            a_second(&mut limit, second, 1_000);
        }
        let [few, beyond, same] = of(&limit);
        assert!(few.abs_diff(500) < 150 && few + beyond == drawn && same == not_drawn, "{few} {beyond}");
    }

    #[test]
    fn the_bound_that_counts_is_that_of_the_moment_when_the_request_began() {
        let mut limit = SpanLimit::new(Sampler::new(1.0), Some(100));
        let all: Vec<TraceId> = traces(1_000).collect();
        for second in 1..3 {
            a_second(&mut limit, second, 1_000);
        }
        let kept =
            |limit: &SpanLimit, at_ns| all.iter().filter(|&&id| limit.decide(id, at_ns).is_kept()).count();
        assert_eq!(kept(&limit, 1), 1_000, "before anything was too much");
        assert!(kept(&limit, 10 * SECOND) < 100);
        // A smaller share keeps none that a larger one does not.
        let now = all.iter().filter(|&&id| limit.decide(id, 10 * SECOND).is_kept());
        assert!(now.copied().all(|id| limit.decide(id, 1).is_kept()));
        limit.set(Sampler::new(1.0), None, 20 * SECOND);
        assert_eq!(kept(&limit, 20 * SECOND), 1_000);
        assert!(!limit.adapt(30 * SECOND));
    }

    #[test]
    fn what_is_kept_late_has_a_part_of_its_own() {
        let mut limit = SpanLimit::new(Sampler::new(1.0), Some(400));
        assert!(limit.takes_late(60) && limit.takes_late(40) && !limit.takes_late(1));
        limit.adapt(2 * SECOND);
        assert!(limit.takes_late(100), "of the next second");
        assert!(!SpanLimit::new(Sampler::new(1.0), Some(400)).takes_late(101));
    }
}
