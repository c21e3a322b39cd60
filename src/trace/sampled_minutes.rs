//! How many requests there were and of how many the span was kept, minute by minute for a day: whoever looks at the
//! traces of some time wants to know of what share they are.

use std::collections::VecDeque;

/// A day.
const MAX_MINUTES: usize = 1_440;
const MINUTE_NS: u64 = 60_000_000_000;

/// Requests that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sampled {
    /// All.
    pub requests: u64,
    /// Those whose span was kept.
    pub kept: u64,
}

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(super) struct SampledMinutes {
    /// By the minute, since the Unix epoch, in order.
    minutes: VecDeque<(u64, Sampled)>,
}

impl SampledMinutes {
    /// A request has ended.
    pub(super) fn note(&mut self, end_unix_ns: u64, is_kept: bool) {
        let minute = end_unix_ns / MINUTE_NS;
        // What ended before the last minute that is known counts there: some are told of late.
        if self.minutes.back().is_none_or(|&(last, _)| last < minute) {
            if self.minutes.len() >= MAX_MINUTES {
                self.minutes.pop_front();
            }
            self.minutes.push_back((minute, Sampled::default()));
        }
        if let Some((_, sampled)) = self.minutes.back_mut() {
            sampled.requests += 1;
            sampled.kept += u64::from(is_kept);
        }
    }

    /// Those of the minutes in which something of this range lies.
    pub(super) fn between(&self, from_unix_ns: u64, to_unix_ns: u64) -> Sampled {
        let (first, last) = (from_unix_ns / MINUTE_NS, to_unix_ns / MINUTE_NS);
        let within = self.minutes.iter().filter(|&&(minute, _)| (first..=last).contains(&minute));
        within.fold(Sampled::default(), |sum, (_, sampled)| Sampled {
            requests: sum.requests + sampled.requests,
            kept: sum.kept + sampled.kept,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_minute_of_the_range_counts_and_a_day_is_remembered() {
        let mut minutes = SampledMinutes::default();
        for minute in 0..MAX_MINUTES as u64 + 5 {
            minutes.note(minute * MINUTE_NS + 7, minute % 2 == 0);
        }
        minutes.note(3, true);
        let last = MAX_MINUTES as u64 + 4;
        let sampled = |requests, kept| Sampled { requests, kept };
        assert_eq!(minutes.between(last * MINUTE_NS, u64::MAX), sampled(2, 2), "the late one, too");
        assert_eq!(minutes.between(10 * MINUTE_NS + 50, 11 * MINUTE_NS), sampled(2, 1));
        assert_eq!(minutes.between(0, 5 * MINUTE_NS), sampled(1, 0), "before that nothing is known");
        assert_eq!(minutes.between(0, u64::MAX).requests, MAX_MINUTES as u64 + 1);
    }
}
