//! The samples of a profile merged into one tree: what a flame graph draws.
//!
//! Stacks that begin alike at the root share nodes. A node is a function in one place of the tree, so
//! the lines of one function count together; a frame is told from another by name, file, module, build
//! id and sort. Above the stacks stand, if wanted, labels of the samples (the process's name, the
//! service). A stack whose outer part is missing does not begin at the root of anything: it hangs below
//! a marker that names the reason, instead of beside the complete stacks as if it were one of them.

use std::borrow::Cow;
use std::collections::HashSet;

use super::ExportError;
use super::frame_text::{FrameClass, frames_of_location};
use super::growing_tree::{GrowingTree, Refused};
use crate::model::{Function, Interner, Label, LabelValue, Location, Outcome, Profile};

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
    /// Stands for stacks that were too small to be told apart from here on.
    Smaller,
}

/// The name of the frame of [`NodeClass::Smaller`], and what it means.
const SMALLER: (&str, &str) = (
    "[smaller]",
    "Stacks that are too small to be drawn one by one. A shorter range, one service, or one process shows them.",
);

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
    /// Path of the mapping; the key of a label; of [`NodeClass::Incomplete`] and [`NodeClass::Smaller`] the sentence
    /// that explains the reason.
    pub module: &'a str,
    /// Build id of the mapping, empty if there is none.
    pub build_id: &'a str,
    /// Whether some sample has it by the runtime's nearest record alone, [`Function::is_approximate`]. Tells no frame
    /// from another: what is certain and what is not count together.
    pub is_approximate: bool,
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
    /// There are no more nodes than this. If they do not suffice, the greatest stacks get half of them, all others end
    /// in a node of [`NodeClass::Smaller`] where no greater one goes the same way: every node that is shown has
    /// its whole value.
    pub max_nodes: Option<usize>,
}

/// The value of a stack below labels.
#[derive(Debug, Clone, Copy)]
struct Sum {
    prefix: u32,
    stack: u32,
    value: u64,
}

/// Merges the samples. Takes time proportional to the frames of all different stacks. Values that are
/// not positive are left out, as in folded stacks.
///
/// # Errors
/// [`ExportError::TooLarge`] for a stack deeper than [`MAX_DEPTH`], and for labels that would need more than half of
/// [`TreeOptions::max_nodes`] by themselves.
pub fn merge<'a>(profile: &'a Profile, options: &TreeOptions) -> Result<FlameTree<'a>, ExportError> {
    let mut frames: Interner<TreeFrame<'a>> = Interner::new();
    let root = frame_of(Cow::Borrowed(""), NodeClass::Root, "");
    frames.intern(root);
    let approximate = approximate_frames(profile);
    let frames_by_location: Vec<Vec<u32>> = profile
        .locations
        .iter()
        .map(|location| {
            let marked = tree_frames(profile, location).into_iter().map(|(frame, _)| {
                let is_approximate = approximate.contains(&frame);
                frames.intern(TreeFrame { is_approximate, ..frame })
            });
            marked.collect()
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

    // Samples differ in labels that are not shown, so that most stacks would be walked many times. Those beside each
    // other have most of their callers in common, as the store gives them.
    let mut sums: Vec<Sum> = Vec::with_capacity(profile.samples.len());
    for sample in &profile.samples {
        let value = sample.values.get(options.value).copied().unwrap_or(0);
        let Some(value) = u64::try_from(value).ok().filter(|&value| value > 0) else { continue };
        let prefix = prefix_by_labels.get(sample.labels as usize).copied().unwrap_or(u32::MAX);
        sums.push(Sum { prefix, stack: sample.stack, value });
    }
    sums.sort_unstable_by_key(|sum| (sum.prefix, sum.stack));
    sums.dedup_by(|next, sum| {
        let is_same = (next.prefix, next.stack) == (sum.prefix, sum.stack);
        if is_same {
            sum.value = sum.value.saturating_add(next.value);
        }
        is_same
    });

    let total = sums.iter().fold(0_u64, |total, sum| total.saturating_add(sum.value));
    let prefix = |prefix: u32| prefixes.get(prefix).map_or(&[][..], Vec::as_slice).iter().copied();
    let path = |sum: &Sum| {
        let stack = profile.stacks.get(sum.stack).unwrap_or_default();
        let of_location = |location: &u32| {
            frames_by_location.get(*location as usize).map_or(&[][..], Vec::as_slice).iter().copied()
        };
        prefix(sum.prefix).chain(stack.iter().rev().flat_map(of_location))
    };
    let max_nodes = options.max_nodes.unwrap_or(usize::MAX);
    let mut growing = GrowingTree::new(max_nodes);
    let added = sums.iter().try_for_each(|sum| growing.add(path(sum), sum.value));
    match added {
        Err(Refused::TooManyNodes) => {
            growing = GrowingTree::new(max_nodes / 2);
            // What stands above the stacks tells whose they are, and that they are incomplete.
            let added = sums.iter().try_for_each(|sum| growing.add(prefix(sum.prefix), 0));
            added.map_err(|refused| too_large(refused, max_nodes))?;
            let smaller = frames.intern(frame_of(SMALLER.0.into(), NodeClass::Smaller, SMALLER.1));
            sums.sort_unstable_by_key(|sum| (std::cmp::Reverse(sum.value), sum.prefix, sum.stack));
            let mut greatest = sums.iter();
            let mut added = Ok(());
            while added.is_ok() && !growing.is_full() {
                let Some(sum) = greatest.next() else { break };
                added = growing.add_or_fold(path(sum), sum.value, smaller);
            }
            // In which order the others come does not matter any more, but to the time that they take.
            let mut others: Vec<Sum> = greatest.copied().collect();
            others.sort_unstable_by_key(|sum| (sum.prefix, sum.stack));
            let mut others = others.iter();
            added = added
                .and_then(|()| others.try_for_each(|sum| growing.add_or_fold(path(sum), sum.value, smaller)));
            added.map_err(|refused| too_large(refused, max_nodes))?;
        }
        added => added.map_err(|refused| too_large(refused, max_nodes))?,
    }
    Ok(growing.into_tree(frames.into_values(), total))
}

fn too_large(refused: Refused, max_nodes: usize) -> ExportError {
    match refused {
        Refused::TooDeep => ExportError::TooLarge { table: "frames in one stack", limit: MAX_DEPTH },
        Refused::TooManyNodes => {
            ExportError::TooLarge { table: "nodes of the flame graph", limit: max_nodes }
        }
    }
}

/// A frame that is no code.
fn frame_of<'a>(name: Cow<'a, str>, class: NodeClass, module: &'a str) -> TreeFrame<'a> {
    TreeFrame { name, class, unnamed: false, file: "", line: 0, module, build_id: "", is_approximate: false }
}

/// The frames that some location has by the nearest record alone; none of them says so itself.
fn approximate_frames(profile: &Profile) -> HashSet<TreeFrame<'_>> {
    if !profile.functions.iter().any(Function::is_approximate) {
        return HashSet::new();
    }
    let frames = profile.locations.iter().flat_map(|location| tree_frames(profile, location));
    frames.filter_map(|(frame, is_approximate)| is_approximate.then_some(frame)).collect()
}

/// The frames of a location, the outermost first, and whether they are approximate there.
fn tree_frames<'a>(profile: &'a Profile, location: &Location) -> Vec<(TreeFrame<'a>, bool)> {
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
        let is_approximate = function.is_some_and(Function::is_approximate);
        let frame = TreeFrame {
            name: frame.name,
            class: NodeClass::Code(frame.class),
            unnamed: frame.unnamed,
            file: frame.file,
            line: function.map_or(0, |function| function.start_line),
            module: mapping.map_or("", |mapping| mapping.path.as_str()),
            build_id: mapping.map_or("", |mapping| mapping.build_id.as_str()),
            is_approximate: false,
        };
        named.push((frame, is_approximate));
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
    let mut frames = Vec::new();
    for key in &options.group_by {
        let (key, name) = text_of(key).unwrap_or(("", Cow::Borrowed("[unknown]")));
        frames.push(frame_of(name, NodeClass::Label, key));
    }
    if !options.hide_incomplete
        && let Some((_, reason)) = text_of("unwind")
    {
        let sentence = Outcome::from_name(&reason).map_or("", Outcome::sentence);
        let name = Cow::Owned(format!("[incomplete: {reason}]"));
        frames.push(frame_of(name, NodeClass::Incomplete, sentence));
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frame, FrameKind, Mapping, Sample, ValueType};

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
            profile.stacks.push(stack.bytes().rev().map(|letter| u32::from(letter - b'a')));
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
    fn a_function_that_is_approximate_in_some_places_counts_together_and_says_so() {
        let mut profile = profile(&[("a", &[], 1), ("b", &[], 2), ("c", &[], 4)]);
        let exact = profile.functions[0].clone();
        profile.functions[1] = Function { system_name: Function::APPROXIMATE.to_owned(), ..exact };
        let tree = merge(&profile, &TreeOptions::default()).expect("merged");
        assert_eq!(rows(&tree), ["0  0", "1 a 3", "1 c 4"]);
        let marked: Vec<_> = tree.frames.iter().map(|frame| (&*frame.name, frame.is_approximate)).collect();
        assert_eq!(marked, [("", false), ("a", true), ("c", false)]);
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
    fn as_many_nodes_as_are_allowed_are_merged_and_of_more_the_smallest_stacks_are_one_where_they_leave_greater_ones()
     {
        let profile =
            profile(&[("abc", &[], 1), ("abde", &[], 9), ("abf", &[], 2), ("x", &[], 4), ("ab", &[], 3)]);
        // The root, a, b, c, d, e, f and x.
        let options = |nodes| TreeOptions { max_nodes: Some(nodes), ..TreeOptions::default() };
        assert_eq!(merge(&profile, &options(8)).expect("just enough").nodes.len(), 8);
        let tree = merge(&profile, &options(7)).expect("without the smallest");
        assert_eq!(rows(&tree), ["0  0", "1 [smaller] 4", "1 a 0", "2 b 3", "3 [smaller] 12"]);
        assert_eq!(tree.total, 19);
        let smaller = tree.frames.iter().find(|frame| frame.class == NodeClass::Smaller).expect("its frame");
        assert!(smaller.module.contains("one service"), "{smaller:?}");
    }

    #[test]
    fn labels_stand_above_what_is_too_small_and_too_many_of_them_are_refused() {
        let rows_of: Vec<Row<'_>> = vec![
            ("abcd", &[("comm", "one")], 5),
            ("abce", &[("comm", "two"), ("unwind", "no_rule")], 1),
            ("abc", &[("comm", "three")], 2),
        ];
        let profile = profile(&rows_of);
        let options = |nodes| TreeOptions {
            max_nodes: Some(nodes),
            group_by: vec!["comm".into()],
            ..TreeOptions::default()
        };
        let tree = merge(&profile, &options(10)).expect("without the smallest");
        assert_eq!(
            rows(&tree),
            [
                "0  0",
                "1 one 0",
                "2 [smaller] 5",
                "1 three 0",
                "2 [smaller] 2",
                "1 two 0",
                "2 [incomplete: no_rule] 0",
                "3 [smaller] 1"
            ]
        );
        let error = merge(&profile, &options(9)).expect_err("more labels than half of the nodes");
        assert!(matches!(error, ExportError::TooLarge { limit: 9, .. }), "{error}");
    }
}
