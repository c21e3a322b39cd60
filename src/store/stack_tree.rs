//! The stacks of an answer as a tree, and as the lists of locations that a profile has.

use hashbrown::HashTable;

use super::error::StoreError;
use super::rows::NodeRow;
use crate::model::Slices;

/// Most frames of all stacks of an answer together: half a gigabyte.
const MAX_STACK_ENTRIES: usize = 128_000_000;

/// Stacks as a tree of locations: what they have in common towards the root is put together once. The nodes of one
/// part differ as they are, and most answers have one part: what is equal is only looked for when another comes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The number of a node is its index + 1, and 0 is the empty stack.
    nodes: Vec<NodeRow>,
    /// Of the nodes before `indexed`.
    index: HashTable<u32>,
    indexed: usize,
}

impl Tree {
    /// The number of a node that there is not yet.
    pub(super) fn push(&mut self, node: NodeRow) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// The number of a node that there may be.
    pub(super) fn intern(&mut self, node: NodeRow) -> u32 {
        let Self { nodes, index, indexed } = self;
        let hash = |number: &u32| nodes.get((*number as usize).wrapping_sub(1)).map_or(0, |node| node.hash());
        if *indexed < nodes.len() {
            index.reserve(nodes.len() - *indexed, hash);
            for number in *indexed + 1..=nodes.len() {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                index.insert_unique(hash(&number), number, hash);
            }
            *indexed = nodes.len();
        }
        let is_it = |number: &u32| nodes.get((*number as usize).wrapping_sub(1)) == Some(&node);
        match index.find(node.hash(), is_it) {
            Some(&known) => known,
            None => self.push(node),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The stacks of these nodes, leaf first, in an order in which neighbours have most of their callers in common; and
    /// by node which of them is its. `is_wanted` is by node.
    pub(super) fn stacks(&self, is_wanted: &[bool]) -> Result<(Slices<u32>, Vec<u32>), StoreError> {
        self.stacks_within(MAX_STACK_ENTRIES, is_wanted)
    }

    fn stacks_within(&self, limit: usize, is_wanted: &[bool]) -> Result<(Slices<u32>, Vec<u32>), StoreError> {
        let nodes = &self.nodes;
        let (mut first_child, mut next_sibling) =
            (vec![0_u32; nodes.len() + 1], vec![0_u32; nodes.len() + 1]);
        for (index, node) in nodes.iter().enumerate().rev() {
            let first = first_child.get_mut(node.parent as usize);
            let next = next_sibling.get_mut(index + 1);
            if let (Some(first), Some(next)) = (first, next) {
                *next = std::mem::replace(first, u32::try_from(index + 1).unwrap_or(u32::MAX));
            }
        }
        let at = |table: &[u32], node: u32| table.get(node as usize).copied().unwrap_or(0);
        let mut stacks = Slices::default();
        let mut stack_of_node = vec![0_u32; nodes.len() + 1];
        // Nodes from the root to where we are, and the locations of all but the root.
        let (mut open, mut path) = (vec![0_u32], Vec::new());
        let mut next = 0;
        loop {
            if is_wanted.get(next as usize) == Some(&true) {
                if let Some(stack) = stack_of_node.get_mut(next as usize) {
                    *stack = u32::try_from(stacks.len()).unwrap_or(u32::MAX);
                }
                stacks.push(path.iter().rev().copied());
                if stacks.values().len() > limit {
                    return Err(StoreError::TooMuch { what: "frames of different stacks", limit });
                }
            }
            next = at(&first_child, next);
            while next == 0 {
                let Some(done) = open.pop().filter(|&done| done != 0) else {
                    return Ok((stacks, stack_of_node));
                };
                path.pop();
                next = at(&next_sibling, done);
            }
            open.push(next);
            path.push(nodes.get(next as usize - 1).map_or(0, |node| node.location));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_those_of_their_nodes_leaf_first_and_neighbours_share_their_callers() {
        let mut tree = Tree::default();
        let root = tree.push(NodeRow { parent: 0, location: 1 });
        let callers: Vec<u32> =
            (0..100).map(|caller| tree.push(NodeRow { parent: root, location: 1000 + caller })).collect();
        let mut is_leaf = vec![false; tree.len() + 1];
        for leaf in 0..5000_u32 {
            let caller = callers[leaf as usize % callers.len()];
            tree.push(NodeRow { parent: caller, location: 5000 + leaf });
            is_leaf.push(true);
        }
        let (stacks, stack_of_node) = tree.stacks(&is_leaf).unwrap();
        assert_eq!(stacks.len(), 5000);
        for leaf in 0..5000_u32 {
            let stack = stacks.get(stack_of_node[leaf as usize + 102]);
            assert_eq!(stack, Some(&[5000 + leaf, 1000 + leaf % 100, 1][..]));
        }
        let callers_of: Vec<u32> = stacks.iter().map(|stack| stack[1]).collect();
        let changes = callers_of.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(changes, callers.len() - 1);
        assert_eq!(
            tree.stacks(&[true, true]).unwrap().0,
            [vec![], vec![1]].into(),
            "the empty one, the root's"
        );
        assert_eq!(
            tree.intern(NodeRow { parent: root, location: 1007 }),
            callers[7],
            "found, not made again"
        );
    }

    #[test]
    fn more_frames_than_an_answer_may_have_are_refused() {
        let mut tree = Tree::default();
        let mut leaf = 0;
        for location in 0..44 {
            leaf = tree.push(NodeRow { parent: leaf, location });
        }
        // 1 + 2 + … + 44 frames.
        let all = vec![true; tree.len() + 1];
        assert_eq!(tree.stacks_within(990, &all).unwrap().0.len(), 45);
        assert!(matches!(tree.stacks_within(989, &all), Err(StoreError::TooMuch { limit: 989, .. })));
    }
}
