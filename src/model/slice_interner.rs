//! Gives equal slices the same index, with nothing but their values held.
//!
//! The hash table holds indices only: a stack of 45 frames takes its 45 numbers and about 16 bytes more. The hash is
//! seeded anew in each process, since stacks come from programs and files that may mean ill.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::slices::Slices;

/// See the module.
#[derive(Debug, Clone)]
pub struct SliceInterner<T> {
    slices: Slices<T>,
    indices: HashTable<u32>,
    hasher: RandomState,
}

impl<T> Default for SliceInterner<T> {
    fn default() -> Self {
        Self { slices: Slices::default(), indices: HashTable::new(), hasher: RandomState::default() }
    }
}

impl<T: Copy + Eq + Hash> SliceInterner<T> {
    /// The index of `slice`, which is copied if it is new.
    pub fn intern(&mut self, slice: &[T]) -> u32 {
        let Self { slices, indices, hasher } = self;
        let hash = hasher.hash_one(slice);
        let at = |index: u32| slices.get(index).unwrap_or_default();
        if let Some(&known) = indices.find(hash, |&index| at(index) == slice) {
            return known;
        }
        // 2^32 different slices would be tens of gigabytes.
        let index = u32::try_from(slices.len()).unwrap_or(u32::MAX);
        indices.insert_unique(hash, index, |&index| hasher.hash_one(at(index)));
        slices.push(slice.iter().copied());
        index
    }

    /// The slice of an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&[T]> {
        self.slices.get(index)
    }

    /// The slices, in order of index.
    pub fn iter(&self) -> impl Iterator<Item = &[T]> {
        self.slices.iter()
    }

    /// The same, when no more are to come.
    #[must_use]
    pub fn into_slices(self) -> Slices<T> {
        self.slices
    }

    /// How many slices there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_slices_have_one_index_whatever_their_neighbours() {
        let mut interner = SliceInterner::default();
        let slices: [&[u32]; 5] = [&[1, 2], &[], &[1], &[2, 1], &[2]];
        for (index, slice) in slices.iter().enumerate() {
            assert_eq!(interner.intern(slice) as usize, index, "{slice:?} is new");
        }
        for (index, slice) in slices.iter().enumerate() {
            assert_eq!(interner.intern(slice) as usize, index, "{slice:?} is known");
            assert_eq!(interner.get(index as u32), Some(*slice));
        }
        assert_eq!(interner.len(), 5);
        assert!(interner.iter().eq(slices));
        assert_eq!(interner.get(5), None);
        assert_eq!(interner.get(u32::MAX), None);
    }

    #[test]
    fn indices_stay_while_the_table_grows() {
        let mut interner = SliceInterner::default();
        assert!(interner.is_empty());
        for number in 0..10_000_u64 {
            assert_eq!(interner.intern(&[number, number / 7]), number as u32);
        }
        for number in 0..10_000_u64 {
            assert_eq!(interner.intern(&[number, number / 7]), number as u32);
        }
    }
}
