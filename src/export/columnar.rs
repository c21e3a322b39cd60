//! The flame graph as a browser reads it: a merged tree, column by column.
//!
//! A million nodes take about 4 MB and are ready to be drawn in some tens of milliseconds; as JSON they
//! are five times as large and take twenty times as long. `web/src/flamegraph/columnar.ts` is the
//! reader; the two are held together by the files in `web/testdata`.
//!
//! Little endian. A *varint* is an unsigned LEB128 number: seven bits a byte, lowest first, the highest
//! bit set on all bytes but the last.
//!
//! | offset | | |
//! |---|---|---|
//! | 0 | 4 bytes | `SFCG` |
//! | 4 | u16 | version, 1 |
//! | 6 | u16 | 0; a reader refuses anything else |
//! | 8 | u64 | total: the sum of all self values |
//! | 16 | u64 | how many samples that are, 0 if that is not known |
//! | 24 | u64 | start, nanoseconds since the Unix epoch, 0 if unknown |
//! | 32 | u64 | length, nanoseconds |
//! | 40 | u32 | string: what is measured (`cpu`) |
//! | 44 | u32 | string: its unit (`nanoseconds`) |
//! | 48 | u32 | number of strings |
//! | 52 | u32 | number of frames, at least 1 |
//! | 56 | u32 | number of nodes, at least 1 |
//! | 60 | u32 | 0; a reader refuses anything else |
//!
//! Then eleven columns, each a u32 with its length in bytes and that many bytes. Nothing follows.
//!
//! | | rows | |
//! |---|---|---|
//! | 0 | strings | varint: length in bytes |
//! | 1 | | all strings, UTF-8, end to end; the first is empty |
//! | 2 | frames | one byte: sort ([`class_code`]), plus 0x80 if the name is only an address, 0x40 if some sample has it by the runtime's nearest record alone |
//! | 3 | frames | varint: string, the name |
//! | 4 | frames | varint: string, the source file |
//! | 5 | frames | varint: the function's first line, 0 if unknown |
//! | 6 | frames | varint: string, the path of the object; see [`TreeFrame::module`] |
//! | 7 | frames | varint: string, the build id |
//! | 8 | nodes | varint: steps up from the node before it to this one's parent; the root has 0 |
//! | 9 | nodes | varint: frame |
//! | 10 | nodes | varint: self value |
//!
//! Nodes stand depth first, children in the order of their names. Steps up cannot name a depth that does
//! not exist, except too many of them, which a reader refuses. The first frame is the root's and no other
//! node's; no node is deeper than 65,535. Since a row takes at least a byte in each of its columns, a
//! reader can check every count against a length before it reserves memory. Values beyond 2^53 lose their
//! last digits in a browser.
//!
//! [`TreeFrame::module`]: super::flame_tree::TreeFrame::module

use std::io::Write;

use super::flame_tree::{FlameTree, NodeClass, TreeOptions, merge};
use super::folded::has_comm;
use super::frame_text::FrameClass;
use super::{ExportError, Options};
use crate::model::{Interner, Profile};

/// The first bytes of every file.
pub const MAGIC: [u8; 4] = *b"SFCG";
/// The version that is written.
pub const VERSION: u16 = 1;
/// Added to the sort of a frame whose name is only an address.
pub const UNNAMED: u8 = 0x80;
/// Added to the sort of a frame that is approximate, [`TreeFrame::is_approximate`](super::flame_tree::TreeFrame).
pub const APPROXIMATE: u8 = 0x40;

/// The number of a frame's sort in the file.
#[must_use]
pub fn class_code(class: NodeClass) -> u8 {
    match class {
        NodeClass::Root => 0,
        NodeClass::Code(FrameClass::Native) => 1,
        NodeClass::Code(FrameClass::Inlined) => 2,
        NodeClass::Code(FrameClass::Kernel) => 3,
        NodeClass::Code(FrameClass::Jit) => 4,
        NodeClass::Code(FrameClass::Interpreted) => 5,
        NodeClass::Label => 6,
        NodeClass::Incomplete => 7,
        NodeClass::Smaller => 8,
    }
}

/// Writes one value, by default [`Profile::default_value`], below the names of the processes where the
/// samples say them.
///
/// # Errors
/// [`ExportError::Stream`]; [`ExportError::TooLarge`] for a stack deeper than the format can say.
pub fn write(profile: &Profile, writer: &mut dyn Write, options: &Options) -> Result<(), ExportError> {
    let group_by = if has_comm(profile) { vec!["comm".to_owned()] } else { Vec::new() };
    let value = options.value.unwrap_or(profile.default_value);
    let tree = merge(profile, &TreeOptions { value, group_by, ..TreeOptions::default() })?;
    write_tree(profile, &tree, value, writer)
}

/// Writes a tree that was merged from the value number `value` of `profile`.
///
/// # Errors
/// [`ExportError::Stream`]; [`ExportError::TooLarge`] for a column of 4 GiB.
pub fn write_tree(
    profile: &Profile,
    tree: &FlameTree<'_>,
    value: usize,
    writer: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut strings: Interner<&str> = Interner::new();
    strings.intern("");
    let value_type = profile.value_types.get(value);
    let kind = strings.intern(value_type.map_or("", |value_type| value_type.kind.as_str()));
    let unit = strings.intern(value_type.map_or("", |value_type| value_type.unit.as_str()));

    let mut frames = FrameColumns::default();
    for frame in &tree.frames {
        let unnamed = if frame.unnamed { UNNAMED } else { 0 };
        let approximate = if frame.is_approximate { APPROXIMATE } else { 0 };
        frames.classes.push(class_code(frame.class) | unnamed | approximate);
        push_varint(&mut frames.names, strings.intern(&frame.name).into());
        push_varint(&mut frames.files, strings.intern(frame.file).into());
        push_varint(&mut frames.lines, frame.line.into());
        push_varint(&mut frames.modules, strings.intern(frame.module).into());
        push_varint(&mut frames.build_ids, strings.intern(frame.build_id).into());
    }

    let mut steps_up = Vec::with_capacity(tree.nodes.len());
    let mut node_frames = Vec::with_capacity(tree.nodes.len() * 2);
    let mut self_values = Vec::with_capacity(tree.nodes.len() * 2);
    let mut depth_before = 0_u32;
    for (index, node) in tree.nodes.iter().enumerate() {
        // The parent of a node is one step above it: the node before it, if it is that one's child.
        let steps = if index == 0 { 0 } else { (depth_before + 1).saturating_sub(node.depth) };
        push_varint(&mut steps_up, steps.into());
        push_varint(&mut node_frames, node.frame.into());
        push_varint(&mut self_values, node.self_value);
        depth_before = node.depth;
    }

    let mut string_lengths = Vec::new();
    let mut string_bytes = Vec::new();
    for text in strings.iter() {
        push_varint(&mut string_lengths, text.len() as u64);
        string_bytes.extend_from_slice(text.as_bytes());
    }

    writer.write_all(&MAGIC)?;
    writer.write_all(&VERSION.to_le_bytes())?;
    writer.write_all(&[0; 2])?;
    for number in [tree.total, sample_count(profile), profile.start_unix_ns, profile.duration_ns] {
        writer.write_all(&number.to_le_bytes())?;
    }
    writer.write_all(&kind.to_le_bytes())?;
    writer.write_all(&unit.to_le_bytes())?;
    for rows in [strings.len(), tree.frames.len(), tree.nodes.len(), 0] {
        writer.write_all(&number_of("rows", rows)?.to_le_bytes())?;
    }
    for column in [
        string_lengths,
        string_bytes,
        frames.classes,
        frames.names,
        frames.files,
        frames.lines,
        frames.modules,
        frames.build_ids,
        steps_up,
        node_frames,
        self_values,
    ] {
        writer.write_all(&number_of("bytes in one column", column.len())?.to_le_bytes())?;
        writer.write_all(&column)?;
    }
    Ok(())
}

#[derive(Default)]
struct FrameColumns {
    classes: Vec<u8>,
    names: Vec<u8>,
    files: Vec<u8>,
    lines: Vec<u8>,
    modules: Vec<u8>,
    build_ids: Vec<u8>,
}

fn number_of(table: &'static str, count: usize) -> Result<u32, ExportError> {
    u32::try_from(count).map_err(|_| ExportError::TooLarge { table, limit: u32::MAX as usize })
}

/// How many samples there are, if the profile counts them.
fn sample_count(profile: &Profile) -> u64 {
    let counted = profile.value_types.iter().position(|value_type| value_type.unit == "count");
    counted.and_then(|value| u64::try_from(profile.total(value)).ok()).unwrap_or(0)
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frame, Function, Label, Location, Sample, ValueType};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A reader of its own, straight from the table above.
    struct Reader<'a>(&'a [u8]);

    impl<'a> Reader<'a> {
        fn take(&mut self, count: usize) -> &'a [u8] {
            let (taken, rest) = self.0.split_at(count);
            self.0 = rest;
            taken
        }

        fn u32(&mut self) -> u32 {
            u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
        }

        fn u64(&mut self) -> u64 {
            u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
        }

        fn varint(&mut self) -> u64 {
            let mut number = 0;
            for shift in (0..64).step_by(7) {
                let byte = self.take(1)[0];
                number |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            number
        }
    }

    #[derive(Debug)]
    struct Read {
        total: u64,
        samples: u64,
        unit: String,
        /// Sum by path of names from the root.
        sums: BTreeMap<Vec<String>, u64>,
        nodes: usize,
    }

    fn read(bytes: &[u8]) -> Read {
        let mut header = Reader(bytes);
        assert_eq!(header.take(8), b"SFCG\x01\0\0\0");
        let [total, samples, _start, _length] = std::array::from_fn(|_| header.u64());
        let [_kind, unit, string_count, frame_count, node_count, zero] =
            std::array::from_fn(|_| header.u32());
        assert_eq!(zero, 0);
        let mut columns: [Reader<'_>; 11] = std::array::from_fn(|_| {
            let length = header.u32() as usize;
            Reader(header.take(length))
        });
        assert!(header.0.is_empty(), "something follows");
        let mut strings = Vec::new();
        for _ in 0..string_count {
            let length = columns[0].varint() as usize;
            strings.push(String::from_utf8(columns[1].take(length).to_vec()).expect("UTF-8"));
        }
        assert_eq!(strings[0], "");
        let mut names = Vec::new();
        for _ in 0..frame_count {
            columns[2].take(1);
            names.push(strings[columns[3].varint() as usize].clone());
            for texts in [4, 6, 7] {
                assert!(columns[texts].varint() < u64::from(string_count));
            }
            columns[5].varint();
        }
        let mut path: Vec<String> = Vec::new();
        let mut sums = BTreeMap::new();
        for node in 0..node_count {
            let steps_up = columns[8].varint() as usize;
            let name = &names[columns[9].varint() as usize];
            let self_value = columns[10].varint();
            if node > 0 {
                path.truncate(path.len().checked_sub(steps_up).expect("no more steps than there are"));
                path.push(name.clone());
            }
            if self_value > 0 {
                assert_eq!(sums.insert(path.clone(), self_value), None, "one node a path");
            }
        }
        assert!(columns.iter().all(|column| column.0.is_empty()), "rows and bytes agree");
        Read { total, samples, unit: strings[unit as usize].clone(), sums, nodes: node_count as usize }
    }

    fn profile(rows: &[(Vec<u8>, i64)]) -> Profile {
        let mut profile = Profile {
            value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
            default_value: 1,
            label_sets: vec![vec![Label::text("comm", "größe")]],
            ..Profile::default()
        };
        for function in 0..=u8::MAX {
            profile.functions.push(Function { name: format!("f{function}"), ..Function::default() });
            let frames = vec![Frame { function: u32::from(function), line: 0 }];
            profile.locations.push(Location { frames, ..Location::default() });
        }
        for (row, (stack, value)) in rows.iter().enumerate() {
            profile.stacks.push(stack.iter().map(|&function| u32::from(function)));
            profile.samples.push(Sample { stack: row as u32, labels: 0, values: vec![1, *value] });
        }
        profile
    }

    fn written(profile: &Profile) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(profile, &mut bytes, &Options::default()).expect("memory takes it");
        bytes
    }

    proptest! {
        #[test]
        fn what_is_read_back_are_the_sums_of_equal_stacks(
            rows in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..8), any::<i32>()), 0..60)
        ) {
            let rows: Vec<(Vec<u8>, i64)> =
                rows.into_iter().map(|(stack, value)| (stack, i64::from(value) << 20)).collect();
            let mut expected: BTreeMap<Vec<String>, u64> = BTreeMap::new();
            for (stack, value) in rows.iter().filter(|(_, value)| *value > 0) {
                let mut path = vec!["größe".to_owned()];
                path.extend(stack.iter().rev().map(|function| format!("f{function}")));
                *expected.entry(path).or_default() += *value as u64;
            }
            let read = read(&written(&profile(&rows)));
            prop_assert_eq!(read.total, expected.values().sum::<u64>());
            prop_assert_eq!(read.samples, rows.len() as u64);
            prop_assert_eq!(read.unit, "nanoseconds");
            prop_assert_eq!(read.sums, expected);
        }
    }

    #[test]
    fn equal_profiles_are_equal_bytes() {
        let rows: Vec<(Vec<u8>, i64)> =
            (0..200_u8).map(|row| (vec![row, row / 3, row / 20], i64::from(row) + 1)).collect();
        assert_eq!(written(&profile(&rows)), written(&profile(&rows)));
    }

    #[test]
    fn varints_at_the_edges_of_a_byte_and_of_their_type() {
        for (number, bytes) in [
            (0, &[0][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 1]),
            (0x3fff, &[0xff, 0x7f]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut pushed = Vec::new();
            push_varint(&mut pushed, number);
            assert_eq!(pushed, bytes, "{number}");
            assert_eq!(Reader(&pushed).varint(), number);
        }
    }

    #[test]
    fn a_node_takes_about_four_bytes() {
        let mut rows = Vec::new();
        for row in 0..40_000_u32 {
            let [low, high, ..] = row.wrapping_mul(2_654_435_761).to_le_bytes();
            let stack = vec![low, high, low ^ high, (row % 7) as u8, (row % 3) as u8, 0];
            rows.push((stack, i64::from(row % 100) + 1));
        }
        let bytes = written(&profile(&rows));
        let nodes = read(&bytes).nodes;
        assert!(nodes > 50_000, "{nodes} nodes");
        assert!(bytes.len() < nodes * 5, "{} bytes for {nodes} nodes", bytes.len());
    }
}
