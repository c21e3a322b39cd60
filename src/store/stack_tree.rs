//! The stacks of an answer as a tree, and as the lists of locations that a profile has.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use hashbrown::HashTable;

use super::error::StoreError;
use super::gather::MAX_THREADS;
use super::rows::NodeRow;

/// Most frames of all stacks of an answer together: half a gigabyte.
const MAX_STACK_ENTRIES: usize = 128_000_000;
/// After so many stacks the other threads are told how many frames there are.
const STACKS_BETWEEN_LOOKS: usize = 256;
/// With fewer stacks, other threads are not worth their start.
const LEAST_STACKS_FOR_THREADS: usize = 20_000;

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

    /// The numbers of these nodes, by number, in an order in which neighbours have most in common.
    pub(super) fn depth_first(&self, is_wanted: &[bool]) -> Vec<u32> {
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
        let mut found = Vec::new();
        // Nodes from the root to where we are.
        let mut open = vec![0_u32];
        let mut next = 0;
        loop {
            if is_wanted.get(next as usize) == Some(&true) {
                found.push(next);
            }
            next = at(&first_child, next);
            while next == 0 {
                let Some(done) = open.pop().filter(|&done| done != 0) else { return found };
                next = at(&next_sibling, done);
            }
            open.push(next);
        }
    }

    /// The stacks of these nodes, leaf first. Neighbours should have much in common: to walk to the root elsewhere
    /// each time would be a cache miss a frame.
    pub(super) fn stacks(&self, leaves: &[u32]) -> Result<Vec<Vec<u32>>, StoreError> {
        self.stacks_within(MAX_STACK_ENTRIES, leaves)
    }

    fn stacks_within(&self, limit: usize, leaves: &[u32]) -> Result<Vec<Vec<u32>>, StoreError> {
        let frames = AtomicUsize::new(0);
        let part = |leaves: &[u32]| {
            let mut stacks = Vec::with_capacity(leaves.len());
            let mut stack = Vec::new();
            for leaves in leaves.chunks(STACKS_BETWEEN_LOOKS) {
                let mut added = 0;
                for &leaf in leaves {
                    self.stack(leaf, &mut stack);
                    added += stack.len();
                    if frames.load(Ordering::Relaxed) + added > limit {
                        return Err(StoreError::TooMuch { what: "frames of different stacks", limit });
                    }
                    stacks.push(stack.clone());
                }
                frames.fetch_add(added, Ordering::Relaxed);
            }
            Ok(stacks)
        };
        let processors = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        if leaves.len() < LEAST_STACKS_FOR_THREADS || processors == 1 {
            return part(leaves);
        }
        thread::scope(|scope| {
            let parts = leaves.chunks(leaves.len().div_ceil(processors));
            let running: Vec<_> = parts.map(|leaves| scope.spawn(move || part(leaves))).collect();
            let mut stacks = Vec::with_capacity(leaves.len());
            for thread in running {
                match thread.join() {
                    Ok(part) => stacks.append(&mut part?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(stacks)
        })
    }

    fn stack(&self, leaf: u32, stack: &mut Vec<u32>) {
        stack.clear();
        let mut at = leaf;
        // Towards the root numbers fall, so that a walk ends.
        while let Some(node) = (at as usize).checked_sub(1).and_then(|index| self.nodes.get(index)) {
            stack.push(node.location);
            at = node.parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of more stacks than one thread makes; each has its own number as the location of its leaf.
    #[test]
    fn stacks_made_on_several_threads_are_those_of_their_nodes_and_neighbours_share_their_callers() {
        let mut tree = Tree::default();
        let count = u32::try_from(LEAST_STACKS_FOR_THREADS * 2).unwrap();
        let root = tree.push(NodeRow { parent: 0, location: 1 });
        let callers: Vec<u32> =
            (0..100).map(|caller| tree.push(NodeRow { parent: root, location: 1000 + caller })).collect();
        let mut is_leaf = vec![false; tree.len() + 1];
        for leaf in 0..count {
            let caller = callers[leaf as usize % callers.len()];
            tree.push(NodeRow { parent: caller, location: 5000 + leaf });
            is_leaf.push(true);
        }
        let leaves = tree.depth_first(&is_leaf);
        assert_eq!(leaves.len(), count as usize);
        let stacks = tree.stacks(&leaves).unwrap();
        assert_eq!(stacks.len(), leaves.len());
        for (stack, &leaf) in stacks.iter().zip(&leaves) {
            let number = leaf - 102;
            assert_eq!(stack, &[5000 + number, 1000 + number % 100, 1]);
        }
        let changes = stacks.windows(2).filter(|pair| pair[0][1] != pair[1][1]).count();
        assert_eq!(changes, callers.len() - 1);
        assert_eq!(tree.stacks(&[0, root]).unwrap(), [vec![], vec![1]]);
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
        for location in 0..100 {
            leaf = tree.push(NodeRow { parent: leaf, location });
        }
        assert_eq!(tree.stacks_within(1000, &[leaf; 10]).unwrap().len(), 10);
        assert!(matches!(
            tree.stacks_within(1000, &[leaf; 11]),
            Err(StoreError::TooMuch { limit: 1000, .. })
        ));
        let many = vec![leaf; LEAST_STACKS_FOR_THREADS];
        assert!(tree.stacks_within(1_900_000, &many).is_err(), "of all threads together");
    }
}
