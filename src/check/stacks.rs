//! The stacks of one run as a tree of its functions: what the picture of a comparison is drawn of, and what tells which
//! part of its callers' costs a function is.
//!
//! Its functions are those of [`super::Run::functions`], so that the picture and the verdicts mean the same by a function.

use crate::export::flame_tree::MAX_DEPTH;
use crate::model::IndexMap;

/// A function in one place of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackNode {
    /// Steps from the outermost function, which is at 0.
    pub depth: u32,
    /// Index of [`super::Run::functions`].
    pub function: u32,
    /// The part of the value that nothing below it has.
    pub self_value: u64,
}

/// A stack deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooDeep;

/// The tree while stacks are added.
#[derive(Debug, Default)]
pub(super) struct GrowingStacks {
    nodes: Vec<StackNode>,
    /// By the parent's place in `nodes` ([`NONE`] if it is outermost) and function.
    known: IndexMap<(u32, u32), u32>,
    /// Of each node: the child that was added last, and the one that its parent had before it.
    last_child: Vec<u32>,
    previous: Vec<u32>,
    last_outermost: Option<u32>,
}

/// No node.
const NONE: u32 = u32::MAX;

impl GrowingStacks {
    /// Adds a stack, the outermost function first. One without functions has no place in the tree.
    pub(super) fn add(&mut self, root_first: impl Iterator<Item = u32>, value: u64) -> Result<(), TooDeep> {
        let mut at = NONE;
        for (depth, function) in root_first.enumerate() {
            if depth >= MAX_DEPTH {
                return Err(TooDeep);
            }
            at = self.child(at, function, depth as u32);
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.self_value = node.self_value.saturating_add(value);
        }
        Ok(())
    }

    fn child(&mut self, parent: u32, function: u32, depth: u32) -> u32 {
        let next = u32::try_from(self.nodes.len()).unwrap_or(NONE);
        let node = *self.known.entry((parent, function)).or_insert(next);
        if node == next {
            self.nodes.push(StackNode { depth, function, self_value: 0 });
            self.last_child.push(NONE);
            let previous = match self.last_child.get_mut(parent as usize) {
                Some(last) => std::mem::replace(last, next),
                None => self.last_outermost.replace(next).unwrap_or(NONE),
            };
            self.previous.push(previous);
        }
        node
    }

    /// The nodes, each followed by all that is below it.
    pub(super) fn into_nodes(self) -> Vec<StackNode> {
        let mut ordered = Vec::with_capacity(self.nodes.len());
        let mut open = vec![self.last_outermost.unwrap_or(NONE)];
        while let Some(at) = open.pop() {
            let Some(node) = self.nodes.get(at as usize) else { continue };
            ordered.push(*node);
            // What is below comes before what is beside.
            open.extend(self.previous.get(at as usize));
            open.extend(self.last_child.get(at as usize));
        }
        ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_followed_by_what_is_below_it() {
        let mut growing = GrowingStacks::default();
        for (stack, value) in [(&[0_u32, 1][..], 3), (&[0, 2, 1], 4), (&[5], 7), (&[0, 1], 10), (&[], 9)] {
            growing.add(stack.iter().copied(), value).expect("not deep");
        }
        let nodes = growing.into_nodes();
        let rows: Vec<(u32, u32, u64)> =
            nodes.iter().map(|node| (node.depth, node.function, node.self_value)).collect();
        assert_eq!(rows, [(0, 5, 7), (0, 0, 0), (1, 2, 0), (2, 1, 4), (1, 1, 13)]);
        assert!(GrowingStacks::default().into_nodes().is_empty());
    }

    #[test]
    fn a_stack_without_end_is_refused() {
        let mut growing = GrowingStacks::default();
        assert_eq!(growing.add(std::iter::repeat_n(1, MAX_DEPTH), 1), Ok(()));
        assert_eq!(growing.add(std::iter::repeat_n(1, MAX_DEPTH + 1), 1), Err(TooDeep));
    }
}
