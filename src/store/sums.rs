//! Sums of values by thread group and stack: what a query adds up while it reads blocks.

use hashbrown::HashTable;

/// Spreads the bits of a number that we chose ourselves (the finalizer of `SplitMix64`).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// See the module. Values that would not fit stay at the ends of `i64`.
#[derive(Debug)]
pub(super) struct Sums {
    values_each: usize,
    /// Group and stack node of each row.
    keys: Vec<(u32, u32)>,
    values: Vec<i64>,
    /// Row of each node of group 0, plus 1. Without labels there is no other group, and a day of a host
    /// has tens of millions of samples to add: an array is three times faster than the hash table.
    of_first_group: Vec<u32>,
    of_others: HashTable<u32>,
}

impl Sums {
    /// `nodes` is how many stack nodes there are.
    pub(super) fn new(values_each: usize, nodes: usize) -> Self {
        Self {
            values_each: values_each.max(1),
            keys: Vec::new(),
            values: Vec::new(),
            of_first_group: vec![0; nodes.saturating_add(1)],
            of_others: HashTable::new(),
        }
    }

    /// Adds to the row of this group and node.
    pub(super) fn add(&mut self, group: u32, node: u32, values: &[i64]) {
        let row = self.row(group, node) as usize;
        let start = row * self.values_each;
        let Some(sums) = self.values.get_mut(start..start + self.values_each) else { return };
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
    }

    fn row(&mut self, group: u32, node: u32) -> u32 {
        let new = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        let Self { values_each, keys, values, of_first_group, of_others } = self;
        if group == 0
            && let Some(row) = of_first_group.get_mut(node as usize)
        {
            if let Some(row) = row.checked_sub(1) {
                return row;
            }
            *row = new.saturating_add(1);
        } else {
            let hash = |(group, node): (u32, u32)| mix(u64::from(group) << 32 | u64::from(node));
            let at = |row: u32| keys.get(row as usize).copied().unwrap_or((u32::MAX, u32::MAX));
            let wanted = (group, node);
            if let Some(&row) = of_others.find(hash(wanted), |&row| at(row) == wanted) {
                return row;
            }
            of_others.insert_unique(hash(wanted), new, |&row| hash(at(row)));
        }
        keys.push((group, node));
        values.resize(values.len() + *values_each, 0);
        new
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Every row: group, node, values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32, &[i64])> {
        let rows = self.keys.iter().zip(self.values.chunks_exact(self.values_each));
        rows.map(|(&(group, node), values)| (group, node, values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_are_one_row_in_the_first_group_as_in_others_and_beyond_the_known_nodes() {
        let mut sums = Sums::new(2, 10);
        for _ in 0..3 {
            for (group, node) in [(0, 1), (0, 10), (0, 11), (1, 1), (u32::MAX, u32::MAX)] {
                sums.add(group, node, &[1, i64::MAX]);
            }
        }
        assert_eq!(sums.len(), 5);
        assert!(sums.iter().all(|(_, _, values)| values == [3, i64::MAX]));
    }
}
