//! A cache with a fixed number of entries that forgets roughly the least recently used.
//!
//! Two generations: what is new or used goes to the young one; when that is full it becomes the old
//! one, and what was in the old one without having been asked for since is forgotten. Every operation
//! is O(1), with no list to keep in order, and the bound holds over both together.

use std::collections::HashMap;
use std::hash::Hash;

/// See the module.
#[derive(Debug)]
pub struct BoundedCache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    entries_per_generation: usize,
    evicted: u64,
}

impl<K: Eq + Hash, V> BoundedCache<K, V> {
    /// A cache of at most `max_entries` (at least two).
    pub fn new(max_entries: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            entries_per_generation: (max_entries / 2).max(1),
            evicted: 0,
        }
    }

    /// The value of `key`, which becomes young.
    pub fn get(&mut self, key: K) -> Option<&V>
    where
        K: Copy,
    {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.insert(key, value);
        }
        self.young.get(&key)
    }

    /// Adds or replaces.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.entries_per_generation && !self.young.contains_key(&key) {
            let full = std::mem::take(&mut self.young);
            self.evicted += std::mem::replace(&mut self.old, full).len() as u64;
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Entries forgotten for want of room since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Forgets everything, which counts as evicted.
    pub fn clear(&mut self) {
        self.evicted += self.len() as u64;
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_survives_and_what_is_not_is_counted() {
        let mut cache = BoundedCache::new(8);
        cache.insert(0, "kept");
        for key in 1..100 {
            assert_eq!(cache.get(0), Some(&"kept"), "before {key}");
            cache.insert(key, "other");
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.get(1), None);
        assert_eq!(cache.evicted() + cache.len() as u64, 100);
    }

    #[test]
    fn replacing_a_key_evicts_nothing() {
        let mut cache = BoundedCache::new(2);
        for value in 0..10 {
            cache.insert(7, value);
        }
        assert_eq!(cache.get(7), Some(&9));
        assert_eq!((cache.len(), cache.evicted()), (1, 0));
    }

    #[test]
    fn a_key_is_never_in_both_generations() {
        let mut cache = BoundedCache::new(4);
        for key in [1, 2, 3, 1, 4, 2, 5, 1] {
            cache.insert(key, key);
            assert!(cache.len() <= 4);
        }
        cache.clear();
        assert_eq!(cache.len(), 0);
    }
}
