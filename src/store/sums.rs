//! Sums of values by thread group and stack: what a query adds up while it reads blocks ([`Sums`]), and what comes of
//! it for the nodes of a segment ([`NodeSums`]).

use hashbrown::HashTable;

use crate::model::index_hash::mix;

/// See the module. Values that would not fit stay at the ends of `i64`.
#[derive(Debug)]
pub(super) struct Sums {
    values_each: usize,
    /// For each stack the first group that was seen on it, plus 1, and that group's values. Most stacks are of one
    /// group only, and a day of a host has tens of millions of samples to add, each of them somewhere else: what
    /// it needs lies in one place, so that it waits for memory once.
    of_first_groups: Vec<i64>,
    /// How many stacks have a first group.
    first_groups: usize,
    /// Group and stack of each other row.
    keys: Vec<(u32, u32)>,
    values: Vec<i64>,
    indices: HashTable<u32>,
}

impl Sums {
    /// `stacks` is how many stacks there are.
    pub(super) fn new(values_each: usize, stacks: usize) -> Self {
        let values_each = values_each.max(1);
        Self {
            values_each,
            of_first_groups: vec![0; stacks.saturating_mul(values_each + 1)],
            first_groups: 0,
            keys: Vec::new(),
            values: Vec::new(),
            indices: HashTable::new(),
        }
    }

    /// Adds to the row of this group and stack.
    #[inline]
    pub(super) fn add(&mut self, group: u32, stack: u32, values: &[i64]) {
        let width = self.values_each + 1;
        let start = (stack as usize).saturating_mul(width);
        let own = i64::from(group) + 1;
        let of_stack = self.of_first_groups.get_mut(start..start.saturating_add(width));
        if let Some((first, sums)) = of_stack.and_then(<[i64]>::split_first_mut) {
            if *first == 0 {
                *first = own;
                self.first_groups += 1;
            }
            if *first == own {
                return add(sums, values);
            }
        }
        self.add_to_other(group, stack, values);
    }

    /// Adds to the row of a group that is not the first one of its stack.
    fn add_to_other(&mut self, group: u32, stack: u32, values: &[i64]) {
        let Self { values_each, keys, values: sums, indices, .. } = self;
        let row = find_or_push(indices, keys, (group, stack));
        if row == keys.len() - 1 {
            sums.resize(keys.len() * *values_each, 0);
        }
        let start = row * *values_each;
        if let Some(sums) = sums.get_mut(start..start.saturating_add(*values_each)) {
            add(sums, values);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.first_groups + self.keys.len()
    }

    /// Every row, group, stack and values: those of the stacks' first groups by stack, then all others.
    pub(super) fn by_stack(&self) -> impl Iterator<Item = (u32, u32, &[i64])> {
        let of_stacks = self.of_first_groups.chunks_exact(self.values_each + 1);
        let firsts = of_stacks.zip(0_u32..).filter_map(|(row, stack)| {
            let (first, values) = row.split_first()?;
            Some((u32::try_from(first.checked_sub(1)?).ok()?, stack, values))
        });
        let others = self.keys.iter().zip(self.values.chunks_exact(self.values_each));
        firsts.chain(others.map(|(&(group, stack), values)| (group, stack, values)))
    }
}

/// The row of a key, which may be new.
fn find_or_push(indices: &mut HashTable<u32>, keys: &mut Vec<(u32, u32)>, wanted: (u32, u32)) -> usize {
    let at = |row: u32| keys.get(row as usize).copied().unwrap_or((u32::MAX, u32::MAX));
    let hash = |(group, stack): (u32, u32)| mix(u64::from(group) << 32 | u64::from(stack));
    if let Some(&row) = indices.find(hash(wanted), |&row| at(row) == wanted) {
        return row as usize;
    }
    let new = keys.len();
    indices.insert_unique(hash(wanted), u32::try_from(new).unwrap_or(u32::MAX), |&row| hash(at(row)));
    keys.push(wanted);
    new
}

/// Sums by group and node of a segment. There are fewer rows than nodes, in the order in which they came.
#[derive(Debug)]
pub(super) struct NodeSums {
    values_each: usize,
    /// The first row of each node, plus 1; 0 for none.
    first_rows: Vec<u32>,
    /// Group and node of each row.
    keys: Vec<(u32, u32)>,
    values: Vec<i64>,
    /// Rows that are not the first of their node.
    indices: HashTable<u32>,
}

impl NodeSums {
    /// `nodes` is how many nodes there are.
    pub(super) fn new(values_each: usize, nodes: usize) -> Self {
        Self {
            values_each: values_each.max(1),
            first_rows: vec![0; nodes.saturating_add(1)],
            keys: Vec::new(),
            values: Vec::new(),
            indices: HashTable::new(),
        }
    }

    /// Adds to the row of this group and node.
    pub(super) fn add(&mut self, group: u32, node: u32, values: &[i64]) {
        let Self { values_each, first_rows, keys, values: sums, indices } = self;
        let wanted = (group, node);
        let new = u32::try_from(keys.len() + 1).unwrap_or(u32::MAX);
        let row = match first_rows.get_mut(node as usize) {
            Some(first) if *first == 0 => {
                *first = new;
                keys.push(wanted);
                keys.len() - 1
            }
            Some(first) if keys.get(*first as usize - 1) == Some(&wanted) => *first as usize - 1,
            _ => find_or_push(indices, keys, wanted),
        };
        let start = row * *values_each;
        sums.resize(keys.len() * *values_each, 0);
        if let Some(sums) = sums.get_mut(start..start + *values_each) {
            add(sums, values);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Every row: group, node and values.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u32, u32, &[i64])> {
        let values = self.values.chunks_exact(self.values_each);
        self.keys.iter().zip(values).map(|(&(group, node), values)| (group, node, values))
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

    const KEYS: [(u32, u32); 8] =
        [(0, 1), (0, 10), (0, 11), (1, 1), (2, 1), (2, 3), (0, 3), (u32::MAX, u32::MAX)];

    #[test]
    fn equal_keys_are_one_row_of_the_first_group_of_a_stack_as_of_others_and_beyond_the_known_stacks() {
        let (mut sums, mut of_nodes) = (Sums::new(2, 11), NodeSums::new(2, 10));
        for _ in 0..3 {
            for (group, stack) in KEYS {
                sums.add(group, stack, &[1, i64::MAX]);
                of_nodes.add(group, stack, &[1, i64::MAX]);
            }
        }
        assert_eq!((sums.len(), of_nodes.len()), (8, 8));
        for rows in [sums.by_stack().collect::<Vec<_>>(), of_nodes.rows().collect()] {
            let mut keys: Vec<_> = rows.iter().map(|&(group, stack, _)| (group, stack)).collect();
            keys.sort_unstable();
            let mut expected = KEYS.to_vec();
            expected.sort_unstable();
            assert_eq!(keys, expected);
            assert!(rows.iter().all(|(_, _, values)| values == &[3, i64::MAX]));
        }
    }
}
