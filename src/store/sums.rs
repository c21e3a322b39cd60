//! Sums of values by thread group and stack: what a query adds up while it reads blocks.

use hashbrown::HashTable;

use crate::model::index_hash::mix;

/// See the module. Values that would not fit stay at the ends of `i64`.
#[derive(Debug)]
pub(super) struct Sums {
    values_each: usize,
    /// Group and stack node of each row.
    keys: Vec<(u32, u32)>,
    values: Vec<i64>,
    /// For each node, the row of the first group that was seen on it, plus 1. Most stacks are of one group
    /// only, and a day of a host has tens of millions of samples to add: an array is three times faster than
    /// the hash table.
    of_first_groups: Vec<u32>,
    of_others: HashTable<u32>,
}

impl Sums {
    /// `nodes` is how many stack nodes there are.
    pub(super) fn new(values_each: usize, nodes: usize) -> Self {
        Self {
            values_each: values_each.max(1),
            keys: Vec::new(),
            values: Vec::new(),
            of_first_groups: vec![0; nodes.saturating_add(1)],
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
        let Self { values_each, keys, values, of_first_groups, of_others } = self;
        let wanted = (group, node);
        let at = |row: u32| keys.get(row as usize).copied().unwrap_or((u32::MAX, u32::MAX));
        match of_first_groups.get_mut(node as usize) {
            Some(free @ 0) => *free = new.saturating_add(1),
            Some(&mut row) if at(row - 1) == wanted => return row - 1,
            _ => {
                let hash = |(group, node): (u32, u32)| mix(u64::from(group) << 32 | u64::from(node));
                if let Some(&row) = of_others.find(hash(wanted), |&row| at(row) == wanted) {
                    return row;
                }
                of_others.insert_unique(hash(wanted), new, |&row| hash(at(row)));
            }
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
    fn equal_keys_are_one_row_of_the_first_group_of_a_node_as_of_others_and_beyond_the_known_nodes() {
        let mut sums = Sums::new(2, 10);
        for _ in 0..3 {
            for (group, node) in
                [(0, 1), (0, 10), (0, 11), (1, 1), (2, 1), (2, 3), (0, 3), (u32::MAX, u32::MAX)]
            {
                sums.add(group, node, &[1, i64::MAX]);
            }
        }
        assert_eq!(sums.len(), 8);
        assert!(sums.iter().all(|(_, _, values)| values == [3, i64::MAX]));
    }
}
