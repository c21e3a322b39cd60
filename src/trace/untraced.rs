//! Requests that are over and have no span, because their trace is not kept: when each ended, which is all that their
//! samples need.
//!
//! Beyond the limit of spans a second nearly all requests are such. Their keys are numbers that the kernel side counts, for
//! each processor (`spanflame.h`, `SF_REQUEST_CPU_SHIFT`), so that they are put one behind the other. In a hash table of
//! a million each would be a cache miss when it begins, when it ends and when it is forgotten.

use crate::model::RequestKey;

/// Requests that may be remembered, 16 bytes each: those of some 15 seconds of all that two processors can answer.
const PLACES: usize = 1 << 20;
/// The bits of a key that count; those above say where.
const NUMBER_BITS: u32 = 47;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Untraced {
    /// Key and when the request ended; a key's place is known, and the last one that has it stays. Empty until the first
    /// comes.
    places: Vec<[u64; 2]>,
    /// When the last one ended that another one has driven out.
    newest_forgotten_ns: u64,
}

fn place_of(key: RequestKey) -> usize {
    let (counter, number) = (key.0 >> NUMBER_BITS, key.0 & ((1 << NUMBER_BITS) - 1));
    // Counters begin far from each other (Knuth's multiplicative hashing).
    let begin = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (begin.wrapping_add(number) % PLACES as u64) as usize
}

impl Untraced {
    /// A request was over at `ended_ns`.
    pub(super) fn note(&mut self, key: RequestKey, ended_ns: u64) {
        if self.places.is_empty() {
            self.places = vec![[0; 2]; PLACES];
        }
        if let Some(place) = self.places.get_mut(place_of(key)) {
            let [before, before_ns] = std::mem::replace(place, [key.0, ended_ns]);
            if before != key.0 {
                self.newest_forgotten_ns = self.newest_forgotten_ns.max(before_ns);
            }
        }
    }

    /// When it was over, if it is one of these.
    pub(super) fn ended_ns(&self, key: RequestKey) -> Option<u64> {
        let &[known, ended_ns] = self.places.get(place_of(key))?;
        (known == key.0 && ended_ns != 0).then_some(ended_ns)
    }

    /// When the last one ended that is not remembered any more; 0 if all are.
    pub(super) fn newest_forgotten_ns(&self) -> u64 {
        self.newest_forgotten_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_ones_of_each_counter_are_remembered_and_those_before_are_said_to_be_forgotten() {
        let mut untraced = Untraced::default();
        let key = |counter: u64, number: u64| RequestKey(counter << NUMBER_BITS | number);
        assert_eq!(untraced.ended_ns(key(1, 1)), None);
        let half = PLACES as u64 / 4;
        for number in 1..=half {
            untraced.note(key(0, number), number);
            untraced.note(key(1, number), number);
        }
        assert_eq!(untraced.newest_forgotten_ns(), 0, "they have places of their own");
        assert_eq!(untraced.ended_ns(key(0, 1)), Some(1));
        assert_eq!(untraced.ended_ns(key(1, half)), Some(half));
        assert_eq!(untraced.ended_ns(key(2, 1)), None);
        for number in 1..=PLACES as u64 {
            untraced.note(key(0, half + number), half + number);
        }
        assert_eq!(untraced.ended_ns(key(0, half)), None);
        assert!(untraced.newest_forgotten_ns() >= half);
        assert_eq!(untraced.ended_ns(key(0, half + 1)), Some(half + 1));
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_was_noted_of_that_request_last(
            notes in prop::collection::vec((0_u64..4, 0_u64..200_000_000, 1_u64..1000), 0..200),
        ) {
            let mut untraced = Untraced::default();
            let mut noted = std::collections::HashMap::new();
            for (counter, number, ended_ns) in notes {
                let key = RequestKey(counter << NUMBER_BITS | number);
                untraced.note(key, ended_ns);
                noted.insert(key, ended_ns);
                prop_assert_eq!(untraced.ended_ns(key), Some(ended_ns));
            }
            for (key, ended_ns) in noted {
                let known = untraced.ended_ns(key);
                let is_forgotten = known.is_none() && untraced.newest_forgotten_ns() >= 1;
                prop_assert!(known == Some(ended_ns) || is_forgotten);
            }
        }
    }
}
