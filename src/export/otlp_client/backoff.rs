//! How long to pause before a request is repeated.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first pause, on average.
const FIRST: Duration = Duration::from_secs(1);
/// The longest, on average, unless the receiver asks for more.
const LONGEST: Duration = Duration::from_secs(30);
/// What a receiver may ask for at most.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(300);

/// Pauses that double, each between half of and one and a half times its average, so that many agents
/// do not come back at the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    average: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { average: FIRST }
    }

    /// The next pause, `not_before` being what the receiver has asked for.
    pub(super) fn next(&mut self, not_before: Option<Duration>) -> Duration {
        let pause = self.average.mul_f64(0.5 + random_fraction());
        self.average = (self.average * 2).min(LONGEST);
        pause.max(not_before.unwrap_or_default().min(LONGEST_ASKED_FOR))
    }
}

/// From 0 up to 1, another one each time. The keys of hash maps are random, and that is random enough.
fn random_fraction() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let mut backoff = Backoff::new();
        let pauses: Vec<Duration> = (0..12).map(|_| backoff.next(None)).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST * 3 / 2);
        assert!(pauses.iter().all(|&pause| pause <= LONGEST * 3 / 2), "{pauses:?}");
        assert!(pauses.iter().skip(6).all(|&pause| pause >= LONGEST / 2), "{pauses:?}");
        let firsts: std::collections::HashSet<Duration> = (0..8).map(|_| Backoff::new().next(None)).collect();
        assert!(firsts.len() > 1, "they would all come back at once");
    }

    #[test]
    fn what_the_receiver_asks_for_is_waited_for_within_reason() {
        assert_eq!(Backoff::new().next(Some(Duration::from_secs(60))), Duration::from_secs(60));
        assert_eq!(Backoff::new().next(Some(Duration::from_secs(9_999))), LONGEST_ASKED_FOR);
        assert!(Backoff::new().next(Some(Duration::ZERO)) >= FIRST / 2);
    }
}
