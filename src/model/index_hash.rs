//! A hash of indices: numbers that this program gave out itself, one after the other. Nobody chooses them, so
//! nobody can make them collide, and the general hash, which guards against that, is half the time of merging
//! stacks.

use std::hash::{BuildHasherDefault, Hasher};

/// A map by an index or a few of them.
pub type IndexMap<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<IndexHasher>>;

/// See the module. Made for keys of one to three numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(32) ^ number;
        // Two halves are full now; a third number would fall onto the first.
        self.0 = mix(self.0);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Spreads the bits of a number (the finalizer of `SplitMix64`); no two have the same result.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;

    #[test]
    fn neighbours_spread_over_low_and_high_bits() {
        let build = BuildHasherDefault::<IndexHasher>::default();
        let (mut low, mut high, mut all) = (HashSet::new(), HashSet::new(), HashSet::new());
        for one in 0..256_u32 {
            for other in 0..256_u32 {
                let hash = build.hash_one((one, other));
                all.insert(hash);
                low.insert(hash & 0xffff);
                high.insert(hash >> 57);
            }
        }
        assert_eq!(all.len(), 1 << 16);
        // Of 65,536 balls in as many urns, 63 % of the urns get one.
        assert!(low.len() > 40_000, "{}", low.len());
        assert_eq!(high.len(), 128, "hashbrown takes its tags from the highest seven bits");
        assert_ne!(build.hash_one((1_u32, 0_u32)), build.hash_one((0_u32, 1_u32)));
    }
}
