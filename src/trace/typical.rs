//! How long requests of a kind take: what takes much longer is worth a look.
//!
//! A kind is a service, a side, a method and a route. Of each the mean of about the last 64 requests is known.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashMapExt as _};

use super::open::Open;

/// Kinds that are known; of all others nothing is slow.
const MAX_KINDS: usize = 1 << 13;
/// Of fewer requests nothing is typical.
const FEW: u32 = 16;
/// A request weighs so much in the mean, one part of so many.
const WEIGHT: u64 = 64;
/// So many times the mean is slow.
const SLOW_TIMES: u64 = 8;
/// Whatever the others take, this is not.
const NEVER_SLOW_NS: u64 = 5_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    seen: u32,
    mean_ns: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Typical {
    means: HashMap<u64, Mean>,
    keys: RandomState,
}

impl Default for Typical {
    fn default() -> Self {
        Self { means: HashMap::new(), keys: RandomState::default() }
    }
}

impl Typical {
    /// Takes a request that is over into account. Whether it took much longer than others of its kind before it.
    pub(super) fn is_slow(&mut self, open: &Open, duration_ns: u64) -> bool {
        let mut hasher = self.keys.build_hasher();
        open.resource.service().hash(&mut hasher);
        open.direction.hash(&mut hasher);
        open.asked.method.hash(&mut hasher);
        open.asked.route.hash(&mut hasher);
        open.asked.rpc.hash(&mut hasher);
        self.is_slow_of(hasher.finish(), duration_ns)
    }

    fn is_slow_of(&mut self, kind: u64, duration_ns: u64) -> bool {
        if self.means.len() >= MAX_KINDS && !self.means.contains_key(&kind) {
            return false;
        }
        let Mean { seen, mean_ns } = self.means.entry(kind).or_default();
        let is_slow =
            *seen >= FEW && duration_ns >= NEVER_SLOW_NS && duration_ns > mean_ns.saturating_mul(SLOW_TIMES);
        *seen = seen.saturating_add(1);
        let parts = WEIGHT.min((*seen).into());
        *mean_ns = match duration_ns >= *mean_ns {
            true => *mean_ns + (duration_ns - *mean_ns) / parts,
            false => *mean_ns - (*mean_ns - duration_ns) / parts,
        };
        is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_many_times_as_long_as_the_others_is_slow_once_there_were_others() {
        let mut typical = Typical::default();
        assert!(!typical.is_slow_of(1, 900_000_000), "the first of all");
        for _ in 0..1_000 {
            assert!(!typical.is_slow_of(1, 1_000_000));
        }
        assert!(!typical.is_slow_of(1, 4_900_000), "never that short");
        assert!(typical.is_slow_of(1, 300_000_000));
        assert!(!typical.is_slow_of(2, 300_000_000), "of another kind");
        // When all of them are, none is.
        for _ in 0..1_000 {
            typical.is_slow_of(1, 300_000_000);
        }
        assert!(!typical.is_slow_of(1, 310_000_000));
        assert!(!typical.is_slow_of(1, u64::MAX) || typical.is_slow_of(1, u64::MAX), "and nothing overflows");
    }

    #[test]
    fn kinds_are_bounded() {
        let mut typical = Typical::default();
        for kind in 0..3 * MAX_KINDS as u64 {
            typical.is_slow_of(kind, 1);
        }
        assert_eq!(typical.means.len(), MAX_KINDS);
    }
}
