//! A flame graph's tree while stacks are added, and its nodes put into their order at the end.

use hashbrown::hash_map::Entry;

use super::flame_tree::{FlameTree, MAX_DEPTH, TreeFrame, TreeNode};
use crate::model::IndexMap;

/// Why a stack cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has more than [`MAX_DEPTH`] frames.
    TooDeep,
    /// There would be too many nodes.
    TooManyNodes,
}

/// Each node knows its parent and is found by it.
pub(super) struct GrowingTree {
    parents: Vec<u32>,
    nodes: Vec<TreeNode>,
    children: IndexMap<(u32, u32), u32>,
    /// Frames and nodes of the path that was added last: the next one mostly begins with most of them, and each that
    /// need not be looked up saves a cache miss.
    last: Vec<(u32, u32)>,
    max_nodes: usize,
}

impl GrowingTree {
    pub(super) fn new(max_nodes: usize) -> Self {
        Self {
            max_nodes: max_nodes.min(u32::MAX as usize / 2),
            parents: vec![0],
            nodes: vec![TreeNode { depth: 0, frame: 0, self_value: 0 }],
            children: IndexMap::default(),
            last: Vec::new(),
        }
    }

    /// Adds `value` to the node at the end of `path`, which leads down from the root.
    pub(super) fn add(&mut self, path: impl Iterator<Item = u32>, value: u64) -> Result<(), Refused> {
        self.add_until(path, value, None)
    }

    /// The same, but where there are as many nodes as there may be and the path leads on to one that there is not, the
    /// value goes to a node of the frame `smaller` in its place. There is one such node below each other at most,
    /// beyond those that there may be.
    pub(super) fn add_or_fold(
        &mut self,
        path: impl Iterator<Item = u32>,
        value: u64,
        smaller: u32,
    ) -> Result<(), Refused> {
        self.add_until(path, value, Some(smaller))
    }

    /// Whether there are as many nodes as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.nodes.len() >= self.max_nodes
    }

    fn add_until(
        &mut self,
        path: impl Iterator<Item = u32>,
        value: u64,
        smaller: Option<u32>,
    ) -> Result<(), Refused> {
        let mut at = 0_u32;
        let mut is_as_last = true;
        for (depth, frame) in path.enumerate() {
            if is_as_last {
                match self.last.get(depth) {
                    Some(&(of_last, node)) if of_last == frame => {
                        at = node;
                        continue;
                    }
                    _ => self.last.truncate(depth),
                }
                is_as_last = false;
            }
            if depth >= MAX_DEPTH {
                return Err(Refused::TooDeep);
            }
            // The bound above keeps this below 2^16.
            let depth = depth as u32 + 1;
            let is_full = self.is_full();
            let known = match self.children.entry((at, frame)) {
                Entry::Occupied(child) => Some(*child.get()),
                Entry::Vacant(_) if is_full => None,
                Entry::Vacant(vacant) => {
                    let child = push(&mut self.parents, &mut self.nodes, at, depth, frame);
                    Some(*vacant.insert(child))
                }
            };
            let Some(known) = known else {
                let smaller = smaller.ok_or(Refused::TooManyNodes)?;
                let Self { parents, nodes, children, .. } = self;
                let of_parent = children.entry((at, smaller));
                at = *of_parent.or_insert_with(|| push(parents, nodes, at, depth, smaller));
                break;
            };
            self.last.push((frame, known));
            at = known;
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.self_value = node.self_value.saturating_add(value);
        }
        Ok(())
    }

    /// Puts nodes and frames into their order.
    pub(super) fn into_tree(self, frames: Vec<TreeFrame<'_>>, total: u64) -> FlameTree<'_> {
        let Self { parents, mut nodes, children, last: _, max_nodes: _ } = self;
        drop(children);

        let mut uses = vec![0_u32; frames.len()];
        for node in &nodes {
            uses[node.frame as usize] += 1;
        }
        // The position of each frame by name.
        let mut by_name: Vec<u32> = (0..frames.len() as u32).collect();
        by_name.sort_unstable_by(|&one, &other| frames[one as usize].cmp(&frames[other as usize]));
        let mut rank = vec![0_u32; frames.len()];
        for (position, &frame) in by_name.iter().enumerate() {
            rank[frame as usize] = position as u32;
        }

        // Depth first with children by name: first all nodes by parent and name, so that the children of
        // one node lie beside each other.
        let mut by_parent: Vec<u32> = (1..nodes.len() as u32).collect();
        by_parent.sort_unstable_by_key(|&node| {
            (parents[node as usize], rank[nodes[node as usize].frame as usize])
        });
        let mut first_child = vec![0_usize; nodes.len() + 1];
        for &node in &by_parent {
            first_child[parents[node as usize] as usize + 1] += 1;
        }
        for parent in 1..first_child.len() {
            first_child[parent] += first_child[parent - 1];
        }
        let mut ordered = Vec::with_capacity(nodes.len());
        let mut waiting = vec![0_u32];
        while let Some(node) = waiting.pop() {
            ordered.push(nodes[node as usize]);
            let its_children = &by_parent[first_child[node as usize]..first_child[node as usize + 1]];
            waiting.extend(its_children.iter().rev());
        }
        nodes = ordered;

        // Frames of many nodes get small numbers, those of none go.
        let mut kept: Vec<u32> = (0..frames.len() as u32).filter(|&frame| uses[frame as usize] > 0).collect();
        kept.sort_unstable_by_key(|&frame| {
            (frame != 0, std::cmp::Reverse(uses[frame as usize]), rank[frame as usize])
        });
        let mut number = vec![0_u32; frames.len()];
        for (position, &frame) in kept.iter().enumerate() {
            number[frame as usize] = position as u32;
        }
        for node in &mut nodes {
            node.frame = number[node.frame as usize];
        }
        let with_numbers = frames.into_iter().zip(uses.iter().zip(&number));
        let used = with_numbers.filter(|(_, (uses, _))| **uses > 0);
        let mut numbered: Vec<(u32, TreeFrame<'_>)> =
            used.map(|(frame, (_, &number))| (number, frame)).collect();
        numbered.sort_unstable_by_key(|(number, _)| *number);
        let frames = numbered.into_iter().map(|(_, frame)| frame).collect();
        FlameTree { frames, nodes, total }
    }
}

/// A new node's number.
fn push(parents: &mut Vec<u32>, nodes: &mut Vec<TreeNode>, parent: u32, depth: u32, frame: u32) -> u32 {
    parents.push(parent);
    nodes.push(TreeNode { depth, frame, self_value: 0 });
    // The limit of nodes is half of what numbers can say at least.
    u32::try_from(nodes.len() - 1).unwrap_or(u32::MAX)
}
