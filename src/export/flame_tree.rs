//! The samples of a profile merged into one tree: what a flame graph draws.
//!
//! Stacks that begin alike at the root share nodes. A node is a function in one place of the tree, so
//! the lines of one function count together; a frame is told from another by name, file, module, build
//! id and sort. Above the stacks stand, if wanted, labels of the samples (the process's name, the
//! service). A stack whose outer part is missing does not begin at the root of anything: it hangs below
//! a marker that names the reason, instead of beside the complete stacks as if it were one of them.

use std::borrow::Cow;

use hashbrown::hash_map::Entry;

use super::ExportError;
use super::frame_text::{FrameClass, frames_of_location};
use crate::model::{IndexMap, Interner, Label, LabelValue, Location, Outcome, Profile};

/// Frames of one path from the root: more than any runtime lets a thread recurse.
pub const MAX_DEPTH: usize = u16::MAX as usize;

/// What sort of frame a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeClass {
    /// The one node that has no parent.
    Root,
    /// Code, by its sort.
    Code(FrameClass),
    /// The value of a label, such as the name of the process.
    Label,
    /// Stands where the frames are that could not be found.
    Incomplete,
}

/// One frame, as nodes refer to it. Ordered by name first, which is the order of children.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeFrame<'a> {
    /// Name, `[module+0xoff]`, the value of a label, or `[incomplete: reason]`.
    pub name: Cow<'a, str>,
    /// What sort of frame it is.
    pub class: NodeClass,
    /// Whether `name` is an address because no name was found.
    pub unnamed: bool,
    /// Source file, empty if unknown.
    pub file: &'a str,
    /// The function's first line, 0 if unknown.
    pub line: u32,
    /// Path of the mapping; the key of a label; of [`NodeClass::Incomplete`] the sentence that
    /// explains the reason.
    pub module: &'a str,
    /// Build id of the mapping, empty if there is none.
    pub build_id: &'a str,
}

/// A node of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeNode {
    /// Steps from the root, which is at 0.
    pub depth: u32,
    /// Index in [`FlameTree::frames`].
    pub frame: u32,
    /// The part of the value that no child has.
    pub self_value: u64,
}

/// The tree. It has at least its root, and every leaf has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlameTree<'a> {
    /// Frames, the root's first, then those of the most nodes.
    pub frames: Vec<TreeFrame<'a>>,
    /// Nodes, each followed by all that is below it; children in the order of their frames.
    pub nodes: Vec<TreeNode>,
    /// The sum of all values, held at the end of `u64`.
    pub total: u64,
}

/// How to merge.
#[derive(Debug, Clone, Default)]
pub struct TreeOptions {
    /// Index in [`Profile::value_types`].
    pub value: usize,
    /// Keys of the labels that stand above the stacks, the outermost first. A sample without one of
    /// them is put below `[unknown]`.
    pub group_by: Vec<String>,
    /// Leave markers of incomplete stacks out.
    pub hide_incomplete: bool,
    /// More nodes than this are an error, told before they take more memory.
    pub max_nodes: Option<usize>,
}

/// Merges the samples. Takes time proportional to the frames of all different stacks. Values that are
/// not positive are left out, as in folded stacks.
///
/// # Errors
/// [`ExportError::TooLarge`] for a stack deeper than [`MAX_DEPTH`], and for more nodes than
/// [`TreeOptions::max_nodes`].
pub fn merge<'a>(profile: &'a Profile, options: &TreeOptions) -> Result<FlameTree<'a>, ExportError> {
    let mut frames: Interner<TreeFrame<'a>> = Interner::new();
    let root = TreeFrame {
        name: Cow::Borrowed(""),
        class: NodeClass::Root,
        unnamed: false,
        file: "",
        line: 0,
        module: "",
        build_id: "",
    };
    frames.intern(root);
    let frames_by_location: Vec<Vec<u32>> = profile
        .locations
        .iter()
        .map(|location| {
            tree_frames(profile, location).into_iter().map(|frame| frames.intern(frame)).collect()
        })
        .collect();
    let mut prefixes: Interner<Vec<u32>> = Interner::new();
    let prefix_by_labels: Vec<u32> = profile
        .label_sets
        .iter()
        .map(|labels| {
            let prefix = prefix(labels, options).into_iter().map(|frame| frames.intern(frame)).collect();
            prefixes.intern(prefix)
        })
        .collect();

    // Samples differ in labels that are not shown, so that most stacks would be walked many times.
    let mut sums: IndexMap<(u32, u32), u64> = IndexMap::default();
    for sample in &profile.samples {
        let value = sample.values.get(options.value).copied().unwrap_or(0);
        let Some(value) = u64::try_from(value).ok().filter(|&value| value > 0) else { continue };
        let prefix = prefix_by_labels.get(sample.labels as usize).copied().unwrap_or(u32::MAX);
        let sum = sums.entry((sample.stack, prefix)).or_default();
        *sum = sum.saturating_add(value);
    }

    let mut growing = GrowingTree::new(options.max_nodes.unwrap_or(u32::MAX as usize));
    let mut total = 0_u64;
    for ((stack, prefix), sum) in sums {
        total = total.saturating_add(sum);
        let prefix = prefixes.get(prefix).map_or(&[][..], Vec::as_slice);
        let stack = profile.stacks.get(stack as usize).map_or(&[][..], Vec::as_slice);
        let of_location = |location: &u32| {
            frames_by_location.get(*location as usize).map_or(&[][..], Vec::as_slice).iter().copied()
        };
        let path = prefix.iter().copied().chain(stack.iter().rev().flat_map(of_location));
        growing.add(path, sum)?;
    }
    Ok(growing.into_tree(frames.into_values(), total))
}

/// The frames of a location, the outermost first.
fn tree_frames<'a>(profile: &'a Profile, location: &Location) -> Vec<TreeFrame<'a>> {
    let mapping = location.mapping.and_then(|index| profile.mappings.get(index as usize));
    let mut named = Vec::new();
    for (index, frame) in frames_of_location(profile, location).into_iter().enumerate() {
        // `frames_of_location` gives the outermost first, the location has it last.
        let function = location
            .frames
            .iter()
            .rev()
            .nth(index)
            .and_then(|frame| profile.functions.get(frame.function as usize));
        named.push(TreeFrame {
            name: frame.name,
            class: NodeClass::Code(frame.class),
            unnamed: frame.unnamed,
            file: frame.file,
            line: function.map_or(0, |function| function.start_line),
            module: mapping.map_or("", |mapping| mapping.path.as_str()),
            build_id: mapping.map_or("", |mapping| mapping.build_id.as_str()),
        });
    }
    named
}

/// What stands above the stacks of samples with these labels.
fn prefix<'a>(labels: &'a [Label], options: &TreeOptions) -> Vec<TreeFrame<'a>> {
    let text_of = |key: &str| {
        let label = labels.iter().find(|label| label.key == key)?;
        let text = match &label.value {
            LabelValue::Text(text) => Cow::Borrowed(text.as_str()),
            LabelValue::Number(number) => Cow::Owned(number.to_string()),
        };
        (!text.is_empty()).then_some((label.key.as_str(), text))
    };
    let frame = |name, class, module| TreeFrame {
        name,
        class,
        unnamed: false,
        file: "",
        line: 0,
        module,
        build_id: "",
    };
    let mut frames = Vec::new();
    for key in &options.group_by {
        let (key, name) = text_of(key).unwrap_or(("", Cow::Borrowed("[unknown]")));
        frames.push(frame(name, NodeClass::Label, key));
    }
    if !options.hide_incomplete
        && let Some((_, reason)) = text_of("unwind")
    {
        let sentence = Outcome::from_name(&reason).map_or("", Outcome::sentence);
        let name = Cow::Owned(format!("[incomplete: {reason}]"));
        frames.push(frame(name, NodeClass::Incomplete, sentence));
    }
    frames
}

/// A tree while stacks are added: each node knows its parent and is found by it.
struct GrowingTree {
    parents: Vec<u32>,
    nodes: Vec<TreeNode>,
    children: IndexMap<(u32, u32), u32>,
    max_nodes: usize,
}

impl GrowingTree {
    fn new(max_nodes: usize) -> Self {
        Self {
            max_nodes,
            parents: vec![0],
            nodes: vec![TreeNode { depth: 0, frame: 0, self_value: 0 }],
            children: IndexMap::default(),
        }
    }

    /// Adds `value` to the node at the end of `path`, which leads down from the root.
    fn add(&mut self, path: impl Iterator<Item = u32>, value: u64) -> Result<(), ExportError> {
        let mut at = 0_u32;
        for (depth, frame) in path.enumerate() {
            if depth >= MAX_DEPTH {
                return Err(ExportError::TooLarge { table: "frames in one stack", limit: MAX_DEPTH });
            }
            at = match self.children.entry((at, frame)) {
                Entry::Occupied(child) => *child.get(),
                Entry::Vacant(vacant) => {
                    let limit = self.max_nodes;
                    let child = u32::try_from(self.nodes.len()).ok().filter(|&at| (at as usize) < limit);
                    let table = "nodes of the flame graph";
                    let child = child.ok_or(ExportError::TooLarge { table, limit })?;
                    self.parents.push(at);
                    // The bound above keeps this below 2^16.
                    self.nodes.push(TreeNode { depth: depth as u32 + 1, frame, self_value: 0 });
                    *vacant.insert(child)
                }
            };
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.self_value = node.self_value.saturating_add(value);
        }
        Ok(())
    }

    /// Puts nodes and frames into their order.
    fn into_tree(self, frames: Vec<TreeFrame<'_>>, total: u64) -> FlameTree<'_> {
        let Self { parents, mut nodes, children, max_nodes: _ } = self;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frame, FrameKind, Function, Mapping, Sample, ValueType};

    /// A stack, root first; labels; a value.
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], i64);

    /// A profile of functions `a`, `b`, … with these samples.
    fn profile(rows: &[Row<'_>]) -> Profile {
        let mut profile =
            Profile { value_types: vec![ValueType::new("cpu", "nanoseconds")], ..Profile::default() };
        profile.mappings.push(Mapping { path: "/bin/x".into(), build_id: "ab".into(), ..Mapping::default() });
        for letter in 'a'..='z' {
            let index = profile.functions.len() as u32;
            profile.functions.push(Function { name: letter.into(), start_line: 3, ..Function::default() });
            profile.locations.push(Location {
                mapping: Some(0),
                frames: vec![Frame { function: index, line: index + 1 }],
                ..Location::default()
            });
        }
        for (row, (stack, labels, value)) in rows.iter().enumerate() {
            let stack = stack.bytes().rev().map(|letter| u32::from(letter - b'a')).collect();
            profile.stacks.push(stack);
            profile.label_sets.push(labels.iter().map(|(key, text)| Label::text(key, text)).collect());
            profile.samples.push(Sample { stack: row as u32, labels: row as u32, values: vec![*value] });
        }
        profile.validate().expect("the test's profile");
        profile
    }

    /// `depth name self` of each node.
    fn rows(tree: &FlameTree<'_>) -> Vec<String> {
        let row = |node: &TreeNode| {
            format!("{} {} {}", node.depth, tree.frames[node.frame as usize].name, node.self_value)
        };
        tree.nodes.iter().map(row).collect()
    }

    #[test]
    fn stacks_that_begin_alike_share_nodes_and_children_are_sorted() {
        let profile =
            profile(&[("mb", &[], 2), ("ma", &[], 3), ("m", &[], 5), ("mab", &[], 7), ("ma", &[], 1)]);
        let tree = merge(&profile, &TreeOptions::default()).expect("merged");
        assert_eq!(rows(&tree), ["0  0", "1 m 5", "2 a 4", "3 b 7", "2 b 2"]);
        assert_eq!(tree.total, 18);
        assert_eq!(tree.frames[0].class, NodeClass::Root);
        assert_eq!(tree.frames[1].name, "b", "the frame of the most nodes has the smallest number");
        assert_eq!(
            (tree.frames[1].line, tree.frames[1].module, tree.frames[1].build_id),
            (3, "/bin/x", "ab")
        );
    }

    #[test]
    fn lines_of_one_function_count_together_and_equal_names_of_two_objects_do_not() {
        let mut profile = profile(&[("a", &[], 1), ("b", &[], 2), ("c", &[], 4)]);
        profile.mappings.push(Mapping { path: "/bin/y".into(), ..Mapping::default() });
        for (location, mapping) in [(0, 0), (1, 0), (2, 1)] {
            profile.locations[location].frames[0].function = 0;
            profile.locations[location].mapping = Some(mapping);
        }
        let tree = merge(&profile, &TreeOptions::default()).expect("merged");
        assert_eq!(rows(&tree), ["0  0", "1 a 3", "1 a 4"]);
    }

    #[test]
    fn nothing_positive_leaves_the_root_alone_and_an_empty_stack_is_the_roots_own() {
        let not_positive = profile(&[("a", &[], 0), ("b", &[], -4)]);
        let tree = merge(&not_positive, &TreeOptions::default()).expect("merged");
        assert_eq!((rows(&tree), tree.total), (vec!["0  0".to_owned()], 0));
        let empty_stack = profile(&[("", &[], 4)]);
        assert_eq!(rows(&merge(&empty_stack, &TreeOptions::default()).expect("merged")), ["0  4"]);
    }

    #[test]
    fn labels_stand_above_and_incomplete_stacks_hang_below_their_reason() {
        let profile = profile(&[
            ("ab", &[("comm", "srv")], 1),
            ("b", &[("comm", "srv"), ("unwind", "no_rule")], 2),
            ("b", &[("unwind", "new_reason")], 4),
        ]);
        let options = TreeOptions { group_by: vec!["comm".into()], ..TreeOptions::default() };
        let tree = merge(&profile, &options).expect("merged");
        assert_eq!(
            rows(&tree),
            [
                "0  0",
                "1 [unknown] 0",
                "2 [incomplete: new_reason] 0",
                "3 b 4",
                "1 srv 0",
                "2 [incomplete: no_rule] 0",
                "3 b 2",
                "2 a 0",
                "3 b 1"
            ]
        );
        let marker = tree.frames.iter().find(|frame| frame.name == "[incomplete: no_rule]").expect("marker");
        assert_eq!(marker.class, NodeClass::Incomplete);
        assert_eq!(marker.module, Outcome::NoRule.sentence());

        let without = TreeOptions { hide_incomplete: true, ..TreeOptions::default() };
        assert_eq!(rows(&merge(&profile, &without).expect("merged")), ["0  0", "1 a 0", "2 b 1", "1 b 6"]);
    }

    #[test]
    fn an_inlined_function_is_a_frame_of_its_own_below_its_caller() {
        let mut profile = profile(&[("a", &[], 9)]);
        profile.locations[0].frames = vec![Frame { function: 1, line: 8 }, Frame { function: 0, line: 2 }];
        profile.locations[0].kind = FrameKind::Native;
        let tree = merge(&profile, &TreeOptions::default()).expect("merged");
        assert_eq!(rows(&tree), ["0  0", "1 a 0", "2 b 9"]);
        let class = |node: usize| tree.frames[tree.nodes[node].frame as usize].class;
        assert_eq!(class(1), NodeClass::Code(FrameClass::Native));
        assert_eq!(class(2), NodeClass::Code(FrameClass::Inlined));
    }

    #[test]
    fn a_stack_at_the_limit_is_merged_and_a_deeper_one_refused() {
        let deepest = "a".repeat(MAX_DEPTH);
        let tree = profile(&[(&deepest, &[], 1)]);
        assert_eq!(merge(&tree, &TreeOptions::default()).expect("merged").nodes.len(), MAX_DEPTH + 1);
        let deeper = profile(&[(&"a".repeat(MAX_DEPTH + 1), &[], 1)]);
        let refused = merge(&deeper, &TreeOptions::default());
        assert!(matches!(refused, Err(ExportError::TooLarge { limit: MAX_DEPTH, .. })));
    }

    #[test]
    fn values_at_the_end_of_their_type_are_held_there() {
        let profile = profile(&[("a", &[], i64::MAX), ("a", &[], i64::MAX), ("a", &[], i64::MAX)]);
        let tree = merge(&profile, &TreeOptions::default()).expect("merged");
        assert_eq!((tree.total, tree.nodes[1].self_value), (u64::MAX, u64::MAX));
    }

    #[test]
    fn as_many_nodes_as_are_allowed_are_merged_and_not_one_more() {
        let profile = profile(&[("abc", &[], 1), ("abd", &[], 2), ("x", &[], 4)]);
        // The root, a, b, c, d and x.
        let options = |nodes| TreeOptions { max_nodes: Some(nodes), ..TreeOptions::default() };
        assert_eq!(merge(&profile, &options(6)).expect("just enough").nodes.len(), 6);
        let error = merge(&profile, &options(5)).expect_err("one too many");
        assert!(matches!(error, ExportError::TooLarge { limit: 5, .. }), "{error}");
    }
}
