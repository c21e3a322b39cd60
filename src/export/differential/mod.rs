//! Two profiles as one: the union of their trees, with the values of both sides on each node.
//!
//! Comes in: two profiles and which value of each. Goes out: a [`DiffTree`], and pictures, text, JSON or pprof of it.
//! Never: a judgement on whether a difference is more than noise. That takes several runs a side: `check`.
//!
//! Functions are the same if name and object are. Whether a function is inlined makes no difference, since a compiler
//! decides it anew each time. Objects are told by their file's name, and those that only one side has count as one: the
//! two may be versions of a program in two folders. The page in the browser does the same (`web/src/flamegraph/diff.ts`).

mod functions;
mod pprof;
mod svg;

use std::borrow::Cow;
use std::io::Write;

use hashbrown::{HashMap, HashSet};

pub use self::functions::{DiffFunction, functions, write_json};
pub use self::pprof::negate_base;
pub use self::svg::{Captions, Mark, write as write_svg};
use super::ExportError;
use super::flame_tree::{FlameTree, NodeClass, TreeFrame};
use super::frame_text::{FrameClass, module_name};
use crate::model::Interner;

/// A node of both trees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiffNode {
    /// Steps from the root, which is at 0.
    pub depth: u32,
    /// Index in [`DiffTree::frames`].
    pub frame: u32,
    /// The base's value that no child has; scaled if that was asked for.
    pub base_self: f64,
    /// The new side's.
    pub new_self: f64,
    /// The base's value with all that is below.
    pub base: f64,
    /// The new side's.
    pub new: f64,
}

/// Both trees. It has at least its root.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffTree<'a> {
    /// Frames, the root's first.
    pub frames: Vec<TreeFrame<'a>>,
    /// Nodes, each followed by all that is below it; children in the order of their names.
    pub nodes: Vec<DiffNode>,
    /// By what the base's values were multiplied.
    pub base_scale: f64,
}

/// What tells frames apart: class, name, and the object's file name where both sides have it.
type Key = (NodeClass, String, String);

/// Puts two sides together, each of one tree or of several, whose mean is taken. `normalize`: the base's values are scaled
/// so that both sides have the same total, and shares are compared instead of values. Takes time proportional to the
/// nodes of all.
#[must_use]
pub fn unite<'a>(base: &[FlameTree<'a>], new: &[FlameTree<'a>], normalize: bool) -> DiffTree<'a> {
    let mean = |trees: &[FlameTree<'_>]| {
        trees.iter().map(|tree| tree.total as f64).sum::<f64>() / trees.len().max(1) as f64
    };
    let totals = (mean(base), mean(new));
    let base_scale = if normalize && totals.0 > 0.0 && totals.1 > 0.0 { totals.1 / totals.0 } else { 1.0 };
    let part = |trees: &[FlameTree<'_>]| 1.0 / trees.len().max(1) as f64;
    let base: Vec<_> = base.iter().map(|tree| (tree, base_scale * part(base))).collect();
    let new: Vec<_> = new.iter().map(|tree| (tree, part(new))).collect();
    unite_weighted(&base, &new, base_scale)
}

/// The same of trees that each count as much as is said with them: a side's values are the sum of its trees' values, each
/// multiplied by its weight. `base_scale` is handed on: by what the base was multiplied to be comparable.
#[must_use]
pub fn unite_weighted<'a>(
    base: &[(&FlameTree<'a>, f64)],
    new: &[(&FlameTree<'a>, f64)],
    base_scale: f64,
) -> DiffTree<'a> {
    let modules = [base, new].map(|trees| {
        let frames = trees.iter().flat_map(|(tree, _)| &tree.frames);
        frames.map(|frame| module_name(frame.module)).collect::<HashSet<_>>()
    });
    let key_of = |frame: &TreeFrame<'_>| -> Key {
        let class = match frame.class {
            NodeClass::Code(FrameClass::Inlined) => NodeClass::Code(FrameClass::Native),
            other => other,
        };
        let module = match class {
            NodeClass::Code(_) => Some(module_name(frame.module))
                .filter(|name| modules.iter().all(|names| names.contains(name))),
            _ => Some(frame.module),
        };
        (class, frame.name.to_string(), module.unwrap_or_default().to_owned())
    };
    let mut keys: Interner<Key> = Interner::new();
    let mut frames: Vec<TreeFrame<'a>> = Vec::new();
    let mut growing = Growing::default();
    for (trees, is_new) in [(base, false), (new, true)] {
        for &(tree, weight) in trees {
            let numbers: Vec<u32> = tree
                .frames
                .iter()
                .map(|frame| {
                    let number = keys.intern(key_of(frame));
                    if number as usize == frames.len() {
                        frames.push(frame.clone());
                    } else if is_new && let Some(known) = frames.get_mut(number as usize) {
                        // What a reader wants to look up is the source as it is now.
                        *known = frame.clone();
                    }
                    number
                })
                .collect();
            growing.add(tree, &numbers, weight, is_new);
        }
    }
    let nodes = growing.into_nodes(&frames);
    DiffTree { frames, nodes, base_scale }
}

#[derive(Default)]
struct Growing {
    /// By parent and frame.
    known: HashMap<(u32, u32), u32>,
    nodes: Vec<DiffNode>,
    children: Vec<Vec<u32>>,
}

impl Growing {
    fn add(&mut self, tree: &FlameTree<'_>, numbers: &[u32], scale: f64, is_new: bool) {
        let mut path: Vec<u32> = Vec::new();
        for node in &tree.nodes {
            path.truncate(node.depth as usize);
            let frame = numbers.get(node.frame as usize).copied().unwrap_or(0);
            let merged = self.child(path.last().copied(), frame, node.depth);
            let value = node.self_value as f64 * scale;
            if let Some(merged) = self.nodes.get_mut(merged as usize) {
                *(if is_new { &mut merged.new_self } else { &mut merged.base_self }) += value;
            }
            path.push(merged);
        }
    }

    fn child(&mut self, parent: Option<u32>, frame: u32, depth: u32) -> u32 {
        let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let node = *self.known.entry((parent.unwrap_or(u32::MAX), frame)).or_insert(next);
        if node == next {
            self.nodes.push(DiffNode { depth, frame, base_self: 0.0, new_self: 0.0, base: 0.0, new: 0.0 });
            self.children.push(Vec::new());
            if let Some(children) = parent.and_then(|parent| self.children.get_mut(parent as usize)) {
                children.push(node);
            }
        }
        node
    }

    /// In order, with sums.
    fn into_nodes(self, frames: &[TreeFrame<'_>]) -> Vec<DiffNode> {
        let name = |node: u32| {
            let node = self.nodes.get(node as usize);
            node.and_then(|node| frames.get(node.frame as usize)).map(|frame| (&frame.name, frame.class))
        };
        let mut ordered: Vec<DiffNode> = Vec::with_capacity(self.nodes.len());
        let mut open: Vec<u32> = if self.nodes.is_empty() { Vec::new() } else { vec![0] };
        while let Some(node) = open.pop() {
            ordered.extend(self.nodes.get(node as usize));
            let mut children = self.children.get(node as usize).cloned().unwrap_or_default();
            // The last one that is put there is taken first.
            children.sort_by(|one, other| name(*other).cmp(&name(*one)));
            open.append(&mut children);
        }
        // Each is followed by what is below it, so from behind every child is complete before its parent.
        let mut sums: Vec<(f64, f64)> = Vec::new();
        for node in ordered.iter_mut().rev() {
            let depth = node.depth as usize;
            if sums.len() < depth + 2 {
                sums.resize(depth + 2, (0.0, 0.0));
            }
            let (base, new) = std::mem::take(&mut sums[depth + 1]);
            node.base = node.base_self + base;
            node.new = node.new_self + new;
            sums[depth].0 += node.base;
            sums[depth].1 += node.new;
        }
        ordered
    }
}

/// Writes folded stacks with both values, `root;…;leaf BASE NEW`, as Brendan Gregg's difffolded.pl does: what
/// inferno's and FlameGraph's differential pictures are made of. Values are whole numbers, the scaled ones rounded.
///
/// # Errors
/// [`ExportError::Stream`].
pub fn write_folded(tree: &DiffTree<'_>, writer: &mut dyn Write) -> Result<(), ExportError> {
    let mut path: Vec<Cow<'_, str>> = Vec::new();
    for node in tree.nodes.iter().skip(1) {
        path.truncate((node.depth as usize).saturating_sub(1));
        let frame = tree.frames.get(node.frame as usize);
        path.push(
            frame.map_or(Cow::Borrowed("[unknown]"), |frame| super::frame_text::safe_name(&frame.name)),
        );
        if node.base_self > 0.0 || node.new_self > 0.0 {
            writeln!(writer, "{} {:.0} {:.0}", path.join(";"), node.base_self, node.new_self)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::flame_tree::{TreeOptions, merge};
    use crate::ingest;
    use crate::model::Profile;

    pub(super) fn profile(folded: &str) -> Profile {
        let options = ingest::Options { first_field_is_frame: true, ..ingest::Options::default() };
        ingest::read(folded.as_bytes(), super::super::Format::Folded, &options).expect("folded stacks")
    }

    fn by_path(tree: &DiffTree<'_>) -> Vec<(String, f64, f64)> {
        let mut path: Vec<&str> = Vec::new();
        tree.nodes
            .iter()
            .map(|node| {
                path.truncate(node.depth as usize);
                path.push(&tree.frames[node.frame as usize].name);
                (path.join(";"), node.base, node.new)
            })
            .collect()
    }

    fn united<'a>(base: &'a Profile, new: &'a Profile, normalize: bool) -> DiffTree<'a> {
        let tree = |profile: &'a Profile| merge(profile, &TreeOptions::default()).expect("a tree");
        unite(&[tree(base)], &[tree(new)], normalize)
    }

    #[test]
    fn what_is_gone_stands_beside_what_is_new_and_sums_are_of_both() {
        let (base, new) =
            (profile("main;a;b 10\nmain;gone 5\n"), profile("main;a;b 20\nmain;fresh 1\nmain 2\n"));
        let tree = united(&base, &new, false);
        let expected = [
            ("", 15.0, 23.0),
            (";main", 15.0, 23.0),
            (";main;a", 10.0, 20.0),
            (";main;a;b", 10.0, 20.0),
            (";main;fresh", 0.0, 1.0),
            (";main;gone", 5.0, 0.0),
        ];
        assert_eq!(by_path(&tree), expected.map(|(path, base, new)| (path.to_owned(), base, new)));
        let mut folded = Vec::new();
        write_folded(&tree, &mut folded).expect("written");
        let folded = String::from_utf8(folded).expect("text");
        assert_eq!(folded, "main 0 2\nmain;a;b 10 20\nmain;fresh 0 1\nmain;gone 5 0\n");
    }

    #[test]
    fn shares_are_compared_when_both_sides_are_brought_to_one_total() {
        let (base, new) = (profile("main;a 30\nmain;b 10\n"), profile("main;a 150\nmain;b 50\n"));
        let tree = united(&base, &new, true);
        assert!(tree.nodes.iter().all(|node| (node.base - node.new).abs() < 1e-9), "{tree:?}");
        assert!((tree.base_scale - 5.0).abs() < 1e-12);
    }

    #[test]
    fn of_several_recordings_a_side_the_mean_is_compared() {
        let (one, two, new) =
            (profile("main;a 30\n"), profile("main;a 10\nmain;b 2\n"), profile("main;a 21\n"));
        let tree = |profile| merge(profile, &TreeOptions::default()).expect("a tree");
        let united = unite(&[tree(&one), tree(&two)], &[tree(&new)], false);
        let expected =
            [("", 21.0, 21.0), (";main", 21.0, 21.0), (";main;a", 20.0, 21.0), (";main;b", 1.0, 0.0)];
        assert_eq!(by_path(&united), expected.map(|(path, base, new)| (path.to_owned(), base, new)));
    }

    #[test]
    fn trees_count_as_much_as_their_weights_say() {
        let (one, two, new) = (profile("main;a 30\n"), profile("main;a 10\n"), profile("main;b 21\n"));
        let tree = |profile| merge(profile, &TreeOptions::default()).expect("a tree");
        let (one, two, new) = (tree(&one), tree(&two), tree(&new));
        let united = unite_weighted(&[(&one, 0.5), (&two, 2.0)], &[(&new, 1.0)], 1.0);
        let expected =
            [("", 35.0, 21.0), (";main", 35.0, 21.0), (";main;a", 35.0, 0.0), (";main;b", 0.0, 21.0)];
        assert_eq!(by_path(&united), expected.map(|(path, base, new)| (path.to_owned(), base, new)));
    }

    #[test]
    fn an_empty_side_is_all_gone_or_all_new() {
        let (none, some) = (profile(""), profile("main;a 3\n"));
        assert_eq!(by_path(&united(&none, &some, true))[0], (String::new(), 0.0, 3.0));
        assert_eq!(by_path(&united(&some, &none, true))[0], (String::new(), 3.0, 0.0));
        assert_eq!(by_path(&united(&none, &none, true)), [(String::new(), 0.0, 0.0)]);
    }
}
