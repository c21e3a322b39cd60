//! Sums of values by thread group and stack: what a query adds up while it reads blocks.

use hashbrown::HashTable;

use crate::model::index_hash::mix;

/// See the module. Values that would not fit stay at the ends of `i64`.
#[derive(Debug)]
pub(super) struct Sums {
    values_each: usize,
    /// For each node the first group that was seen on it, plus 1, and that group's values. Most stacks are of one
    /// group only, and a day of a host has tens of millions of samples to add, each of them somewhere else: what
    /// it needs lies in one place, so that it waits for memory once.
    of_first_groups: Vec<i64>,
    /// How many nodes have a first group.
    first_groups: usize,
    /// Group and node of each other row.
    keys: Vec<(u32, u32)>,
    values: Vec<i64>,
    indices: HashTable<u32>,
}

impl Sums {
    /// `nodes` is how many stack nodes there are.
    pub(super) fn new(values_each: usize, nodes: usize) -> Self {
        let values_each = values_each.max(1);
        Self {
            values_each,
            of_first_groups: vec![0; nodes.saturating_add(1).saturating_mul(values_each + 1)],
            first_groups: 0,
            keys: Vec::new(),
            values: Vec::new(),
            indices: HashTable::new(),
        }
    }

    /// Adds to the row of this group and node.
    pub(super) fn add(&mut self, group: u32, node: u32, values: &[i64]) {
        let width = self.values_each + 1;
        let start = (node as usize).saturating_mul(width);
        let own = i64::from(group) + 1;
        let of_node = self.of_first_groups.get_mut(start..start.saturating_add(width));
        if let Some((first, sums)) = of_node.and_then(<[i64]>::split_first_mut) {
            if *first == 0 {
                *first = own;
                self.first_groups += 1;
            }
            if *first == own {
                return add(sums, values);
            }
        }
        let start = self.row(group, node) as usize * self.values_each;
        if let Some(sums) = self.values.get_mut(start..start.saturating_add(self.values_each)) {
            add(sums, values);
        }
    }

    /// The row of a group that is not the first one of its node.
    fn row(&mut self, group: u32, node: u32) -> u32 {
        let Self { values_each, keys, values, indices, .. } = self;
        let wanted = (group, node);
        let at = |row: u32| keys.get(row as usize).copied().unwrap_or((u32::MAX, u32::MAX));
        let hash = |(group, node): (u32, u32)| mix(u64::from(group) << 32 | u64::from(node));
        if let Some(&row) = indices.find(hash(wanted), |&row| at(row) == wanted) {
            return row;
        }
        let new = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        indices.insert_unique(hash(wanted), new, |&row| hash(at(row)));
        keys.push(wanted);
        values.resize(values.len() + *values_each, 0);
        new
    }

    pub(super) fn len(&self) -> usize {
        self.first_groups + self.keys.len()
    }

    /// Every row, group, node and values: those of the nodes' first groups by node, then all others.
    pub(super) fn by_node(&self) -> impl Iterator<Item = (u32, u32, &[i64])> {
        let of_nodes = self.of_first_groups.chunks_exact(self.values_each + 1);
        let firsts = of_nodes.zip(0_u32..).filter_map(|(row, node)| {
            let (first, values) = row.split_first()?;
            Some((u32::try_from(first.checked_sub(1)?).ok()?, node, values))
        });
        let others = self.keys.iter().zip(self.values.chunks_exact(self.values_each));
        firsts.chain(others.map(|(&(group, node), values)| (group, node, values)))
    }
}

fn add(sums: &mut [i64], values: &[i64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.saturating_add(*value);
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
        assert_eq!(sums.by_node().count(), 8);
        assert!(sums.by_node().all(|(_, _, values)| values == [3, i64::MAX]));
    }
}
