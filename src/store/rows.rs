//! The rows of a segment's dictionary, and the pages that hold them.
//!
//! A dictionary is a set of tables that only grow. Rows are numbered as they come, and those that a
//! window adds to one table are one page, written in the window's transaction: a reader that has a
//! window has all the rows that it needs, and whoever reads the pages in order has the tables.
//!
//! ```text
//! page      rows without anything between them
//! text      length, UTF-8
//! mapping   path, build id (texts), ordinal, start, limit, file offset, flags
//! function  name, system name, file (texts), start line
//! location  mapping + 1 or 0, kind, address (difference to the row before), count, (function, line)…
//! node      how many nodes ago the parent was, location (until version 3 of the schema; since then nodes.rs)
//! labels    count, (key, 0, text | 1, number)…
//! format    count, (kind, unit)…, default value, 0 | 1, kind, unit of the period, period
//! series    format, service, container id, comm (each text + 1, or 0 for none)
//! ```
//!
//! The numbers of stacks in each series are pages too (`stacks.rs`). Pages that become shorter by it are deflated
//! (`deflated.rs`).
//!
//! A stack is a node, its parent the rest of the stack towards the root, node 0 the empty stack: stacks
//! that have their beginnings in common share nodes, and a new stack is mostly a chain of nodes each of
//! which is the child of the one before, at two to four bytes.

use super::varint::{Malformed, Reader, put, put_signed, put_text};
use crate::model::FrameKind;

/// A row that can be written to a page and read back.
pub(super) trait Row: Sized {
    /// Number of its table in the column `kind`.
    const KIND: i64;

    /// Appends the row. `index` is its number, `before` the row before it in the same page.
    fn put(&self, out: &mut Vec<u8>, index: u32, before: Option<&Self>);

    /// Reads it back.
    fn take(bytes: &mut Reader<'_>, index: u32, before: Option<&Self>) -> Result<Self, Malformed>;
}

/// Index of a text.
pub(super) type TextId = u32;

impl Row for String {
    const KIND: i64 = 1;

    fn put(&self, out: &mut Vec<u8>, _: u32, _: Option<&Self>) {
        put_text(out, self);
    }

    fn take(bytes: &mut Reader<'_>, _: u32, _: Option<&Self>) -> Result<Self, Malformed> {
        Ok(bytes.text()?.to_owned())
    }
}

/// What makes a mapping a mapping. Where a path in brackets (`[kernel.kallsyms]`, `[jit]`) begins and
/// ends depends on what was seen of it in a window, so that is told by windows and is 0 here: otherwise
/// each window would make new mappings, locations and stacks of the same code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MappingRow {
    pub(super) path: TextId,
    pub(super) build_id: TextId,
    /// How many equal ones came before it in its profile.
    pub(super) ordinal: u32,
    pub(super) start: u64,
    pub(super) limit: u64,
    pub(super) file_offset: u64,
}

/// A mapping with what was known of it when it was first seen ([`flags`](super::window_row::flags)).
/// Later windows say so if they knew more or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlaggedMapping {
    pub(super) row: MappingRow,
    pub(super) flags: u8,
}

impl Row for FlaggedMapping {
    const KIND: i64 = 2;

    fn put(&self, out: &mut Vec<u8>, _: u32, _: Option<&Self>) {
        let MappingRow { path, build_id, ordinal, start, limit, file_offset } = self.row;
        for number in [path.into(), build_id.into(), ordinal.into(), start, limit, file_offset] {
            put(out, number);
        }
        out.push(self.flags);
    }

    fn take(bytes: &mut Reader<'_>, _: u32, _: Option<&Self>) -> Result<Self, Malformed> {
        let row = MappingRow {
            path: bytes.id()?,
            build_id: bytes.id()?,
            ordinal: bytes.id()?,
            start: bytes.number()?,
            limit: bytes.number()?,
            file_offset: bytes.number()?,
        };
        Ok(Self { row, flags: bytes.byte()? })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FunctionRow {
    pub(super) name: TextId,
    pub(super) system_name: TextId,
    pub(super) file: TextId,
    pub(super) start_line: u32,
}

impl Row for FunctionRow {
    const KIND: i64 = 3;

    fn put(&self, out: &mut Vec<u8>, _: u32, _: Option<&Self>) {
        for number in [self.name, self.system_name, self.file, self.start_line] {
            put(out, number.into());
        }
    }

    fn take(bytes: &mut Reader<'_>, _: u32, _: Option<&Self>) -> Result<Self, Malformed> {
        Ok(Self { name: bytes.id()?, system_name: bytes.id()?, file: bytes.id()?, start_line: bytes.id()? })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LocationRow {
    pub(super) mapping: Option<u32>,
    pub(super) address: u64,
    pub(super) kind: FrameKind,
    /// Function and line, innermost first.
    pub(super) frames: Vec<(u32, u32)>,
}

impl Row for LocationRow {
    const KIND: i64 = 4;

    fn put(&self, out: &mut Vec<u8>, _: u32, before: Option<&Self>) {
        put(out, self.mapping.map_or(0, |mapping| u64::from(mapping) + 1));
        out.push(code_of_kind(self.kind));
        let base = before.map_or(0, |before| before.address);
        put_signed(out, self.address.wrapping_sub(base).cast_signed());
        put(out, self.frames.len() as u64);
        for &(function, line) in &self.frames {
            put(out, function.into());
            put(out, line.into());
        }
    }

    fn take(bytes: &mut Reader<'_>, _: u32, before: Option<&Self>) -> Result<Self, Malformed> {
        let mapping = optional(bytes)?;
        let code = bytes.byte()?;
        let kind = FrameKind::ALL.into_iter().find(|&kind| code_of_kind(kind) == code);
        let kind = kind.ok_or(Malformed("a frame of an unknown kind"))?;
        let base = before.map_or(0, |before| before.address);
        let address = base.wrapping_add(bytes.signed()?.cast_unsigned());
        let count = bytes.count(2)?;
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            frames.push((bytes.id()?, bytes.id()?));
        }
        Ok(Self { mapping, address, kind, frames })
    }
}

/// On disk: only add.
const fn code_of_kind(kind: FrameKind) -> u8 {
    match kind {
        FrameKind::Native => 0,
        FrameKind::Kernel => 1,
        FrameKind::Jit => 2,
        FrameKind::Python => 3,
        FrameKind::V8 => 4,
        FrameKind::V8Jit => 5,
        FrameKind::Jvm => 6,
        FrameKind::JvmJit => 7,
    }
}

/// A frame of a stack; the number of a node is its index + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeRow {
    /// The node towards the root, always of a smaller number; 0 if this is the root.
    pub(super) parent: u32,
    pub(super) location: u32,
}

impl NodeRow {
    /// A hash of two indices that we gave ourselves: nobody outside can choose them to collide.
    pub(super) fn hash(self) -> u64 {
        crate::model::index_hash::mix(u64::from(self.parent) << 32 | u64::from(self.location))
    }
}

impl Row for NodeRow {
    const KIND: i64 = 5;

    fn put(&self, out: &mut Vec<u8>, index: u32, _: Option<&Self>) {
        put(out, u64::from(index) + 1 - u64::from(self.parent));
        put(out, self.location.into());
    }

    fn take(bytes: &mut Reader<'_>, index: u32, _: Option<&Self>) -> Result<Self, Malformed> {
        let number = u64::from(index) + 1;
        let ago = bytes.number()?;
        // Towards the root numbers fall, so that a walk ends.
        let parent = number.checked_sub(ago).filter(|&parent| parent < number);
        let parent = parent.and_then(|parent| u32::try_from(parent).ok());
        let parent = parent.ok_or(Malformed("a stack node that is its own ancestor"))?;
        Ok(Self { parent, location: bytes.id()? })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LabelValueRow {
    Text(TextId),
    Number(i64),
}

/// Labels that are neither those of a series nor those that a block holds itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct LabelsRow(pub(super) Vec<(TextId, LabelValueRow)>);

impl Row for LabelsRow {
    const KIND: i64 = 6;

    fn put(&self, out: &mut Vec<u8>, _: u32, _: Option<&Self>) {
        put(out, self.0.len() as u64);
        for &(key, value) in &self.0 {
            put(out, key.into());
            match value {
                LabelValueRow::Text(text) => {
                    out.push(0);
                    put(out, text.into());
                }
                LabelValueRow::Number(number) => {
                    out.push(1);
                    put_signed(out, number);
                }
            }
        }
    }

    fn take(bytes: &mut Reader<'_>, _: u32, _: Option<&Self>) -> Result<Self, Malformed> {
        let count = bytes.count(3)?;
        let mut labels = Vec::with_capacity(count);
        for _ in 0..count {
            let key = bytes.id()?;
            let value = match bytes.byte()? {
                0 => LabelValueRow::Text(bytes.id()?),
                1 => LabelValueRow::Number(bytes.signed()?),
                _ => return Err(Malformed("a label of an unknown kind")),
            };
            labels.push((key, value));
        }
        Ok(Self(labels))
    }
}

/// What the samples of a profile count: all that profiles must have in common to be merged as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FormatRow {
    /// Kind and unit of each value.
    pub(super) value_types: Vec<(TextId, TextId)>,
    pub(super) default_value: u32,
    pub(super) period_type: Option<(TextId, TextId)>,
    pub(super) period: i64,
}

impl FormatRow {
    /// What each value but the first is expected to be for each one of the first, so that only what
    /// differs from it takes bytes: a sample of a fixed rate stands for the period.
    pub(super) fn expected_factors(&self) -> Vec<i64> {
        let factor = |value_type| if Some(value_type) == self.period_type { self.period } else { 0 };
        self.value_types.iter().skip(1).map(|&value_type| factor(value_type)).collect()
    }
}

impl Row for FormatRow {
    const KIND: i64 = 7;

    fn put(&self, out: &mut Vec<u8>, _: u32, _: Option<&Self>) {
        put(out, self.value_types.len() as u64);
        for &(kind, unit) in &self.value_types {
            put(out, kind.into());
            put(out, unit.into());
        }
        put(out, self.default_value.into());
        match self.period_type {
            None => out.push(0),
            Some((kind, unit)) => {
                out.push(1);
                put(out, kind.into());
                put(out, unit.into());
            }
        }
        put_signed(out, self.period);
    }

    fn take(bytes: &mut Reader<'_>, _: u32, _: Option<&Self>) -> Result<Self, Malformed> {
        let count = bytes.count(2)?;
        let mut value_types = Vec::with_capacity(count);
        for _ in 0..count {
            value_types.push((bytes.id()?, bytes.id()?));
        }
        let default_value = bytes.id()?;
        if default_value as usize >= count {
            return Err(Malformed("a format whose default value does not exist"));
        }
        let period_type = match bytes.byte()? {
            0 => None,
            1 => Some((bytes.id()?, bytes.id()?)),
            _ => return Err(Malformed("a period of an unknown kind")),
        };
        Ok(Self { value_types, default_value, period_type, period: bytes.signed()? })
    }
}

/// What has a block of its own in each window. Processes and threads are no part of it: a compile storm
/// starts hundreds of thousands of them a day, and they share a few names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SeriesRow {
    pub(super) format: u32,
    pub(super) service: Option<TextId>,
    pub(super) container_id: Option<TextId>,
    pub(super) comm: Option<TextId>,
}

impl Row for SeriesRow {
    const KIND: i64 = 8;

    fn put(&self, out: &mut Vec<u8>, _: u32, _: Option<&Self>) {
        put(out, self.format.into());
        for text in [self.service, self.container_id, self.comm] {
            put(out, text.map_or(0, |text| u64::from(text) + 1));
        }
    }

    fn take(bytes: &mut Reader<'_>, _: u32, _: Option<&Self>) -> Result<Self, Malformed> {
        Ok(Self {
            format: bytes.id()?,
            service: optional(bytes)?,
            container_id: optional(bytes)?,
            comm: optional(bytes)?,
        })
    }
}

/// An index + 1, or 0 for none.
fn optional(bytes: &mut Reader<'_>) -> Result<Option<u32>, Malformed> {
    match bytes.number()?.checked_sub(1) {
        None => Ok(None),
        Some(index) => u32::try_from(index).map(Some).map_err(|_| Malformed("an index of more than 32 bits")),
    }
}

/// The page of `rows`, the first of which has the number `first`.
pub(super) fn write_page<'a, R: Row + 'a>(first: usize, rows: impl Iterator<Item = &'a R>) -> Vec<u8> {
    let mut page = Vec::new();
    let mut before = None;
    for (offset, row) in rows.enumerate() {
        row.put(&mut page, u32::try_from(first + offset).unwrap_or(u32::MAX), before);
        before = Some(row);
    }
    page
}

/// Appends the rows of a page to the table that it belongs to.
pub(super) fn read_page<R: Row>(table: &mut Vec<R>, page: &[u8]) -> Result<(), Malformed> {
    let first = table.len();
    let mut bytes = Reader::new(page);
    while !bytes.is_empty() {
        let index = u32::try_from(table.len()).map_err(|_| Malformed("more rows than can be numbered"))?;
        let before = if table.len() > first { table.last() } else { None };
        let row = R::take(&mut bytes, index, before)?;
        table.push(row);
    }
    Ok(())
}
