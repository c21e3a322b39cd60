//! Gives equal slices the same index, with nothing but their values held.
//!
//! Slices lie end to end in one vector, and the hash table holds their indices only: a stack of 45
//! frames takes its 45 numbers and about 16 bytes more. A set of vectors would add a pointer, a length, a
//! capacity, the allocator's own and a stored hash to each. The hash is seeded anew in each process, since stacks come from
//! programs and files that may mean ill.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// See the module.
#[derive(Debug, Clone)]
pub struct SliceInterner<T> {
    values: Vec<T>,
    /// Where each slice ends in `values`; it begins where the one before it ends.
    ends: Vec<usize>,
    indices: HashTable<u32>,
    hasher: RandomState,
}

impl<T> Default for SliceInterner<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            ends: Vec::new(),
            indices: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl<T: Copy + Eq + Hash> SliceInterner<T> {
    /// The index of `slice`, which is copied if it is new.
    pub fn intern(&mut self, slice: &[T]) -> u32 {
        let Self { values, ends, indices, hasher } = self;
        let hash = hasher.hash_one(slice);
        let at = |index: u32| slice_at(values, ends, index).unwrap_or_default();
        if let Some(&known) = indices.find(hash, |&index| at(index) == slice) {
            return known;
        }
        // 2^32 different slices would be tens of gigabytes.
        let index = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        indices.insert_unique(hash, index, |&index| hasher.hash_one(at(index)));
        values.extend_from_slice(slice);
        ends.push(values.len());
        index
    }

    /// The slice of an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&[T]> {
        slice_at(&self.values, &self.ends, index)
    }

    /// The slices, in order of index.
    pub fn iter(&self) -> impl Iterator<Item = &[T]> {
        let mut begin = 0;
        self.ends
            .iter()
            .map(move |&end| self.values.get(std::mem::replace(&mut begin, end)..end).unwrap_or_default())
    }

    /// How many slices there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

fn slice_at<'a, T>(values: &'a [T], ends: &[usize], index: u32) -> Option<&'a [T]> {
    let index = index as usize;
    let begin = match index.checked_sub(1) {
        Some(before) => *ends.get(before)?,
        None => 0,
    };
    values.get(begin..*ends.get(index)?)
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
