//! The pclntab: functions, names, files, and tables of values by program counter.
//!
//! Layout (little-endian, 64-bit; `cmd/link/internal/ld/pcln.go`, `runtime/symtab.go`):
//!
//! ```text
//! header  u32 magic, u8 0, u8 0, u8 instruction quantum, u8 pointer size,
//!         u64 functions, u64 files, u64 text start (0 from Go 1.26),
//!         u64 offsets of: names, compilation units, files, pc tables, functions
//! names   NUL-terminated function names; a function has an offset into them
//! units   u32[]: offsets into `files`; a function has a first index, its file numbers count from there
//! files   NUL-terminated paths
//! tables  pc tables, see below; a function has offsets into them, 0 meaning none
//! funcs   { u32 entry, u32 record }[functions], u32 end of the last function, then the records;
//!         `entry` counts from the text start, `record` from the start of `funcs`
//! record  u32 entry, i32 name, i32 arguments, u32 deferreturn, u32 pcsp, u32 pcfile, u32 pcln,
//!         u32 pc data tables, u32 first unit, [i32 first line, from Go 1.20,] u8 function id,
//!         u8 flags, u8 0, u8 function data; then u32 pc data[], u32 function data[]
//! ```
//!
//! A pc table is a list of pairs of varints: a zigzag difference of the value (from -1) and a
//! difference of the pc (from the entry, in quanta): the new value holds up to the new pc. A value
//! difference of 0, except in the first pair, ends the list.
//!
//! Everything is read where it lies, a page at a time: that of a large program has 200 MB. The table is untrusted: offsets are checked at each use, a pc
//! table ends where its function ends, and a pair that does not advance ends it too, so that walking
//! one takes no more steps than its function has bytes.

use std::borrow::Cow;
use std::ops::Range;

use crate::ElfAddress;
use crate::little_endian::{u32_at, u64_at};
use crate::paged_bytes::{PageSource, PagedBytes};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 72;
/// Longest function name or path that is read; Go's linker has no limit, generic names grow.
const MAX_TEXT_BYTES: usize = 32 << 10;
/// Bytes of an entry of the function table.
const FUNCTION_ENTRY_BYTES: usize = 8;
/// Pc data tables of a function; Go 1.26 has five kinds.
const MAX_PC_DATA: u32 = 64;

/// Index of the table that gives the position in the tree of inlined calls (`PCDATA_InlTreeIndex`).
const PC_DATA_INLINE_INDEX: u32 = 2;
/// Index of the function data that is the tree of inlined calls (`FUNCDATA_InlTree`).
const FUNCTION_DATA_INLINE_TREE: u32 = 3;
/// A function has no function data of a kind.
const NO_FUNCTION_DATA: u32 = u32::MAX;

/// What differs between the versions of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Go 1.18 and 1.19.
    Go118,
    /// Go 1.20 and later: functions and inlined calls have first lines.
    Go120,
}

impl Version {
    fn from_magic(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fff0 => Some(Self::Go118),
            0xffff_fff1 => Some(Self::Go120),
            _ => None,
        }
    }

    fn record_bytes(self) -> usize {
        match self {
            Self::Go118 => 40,
            Self::Go120 => 44,
        }
    }
}

/// The header, checked against itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub version: Version,
    /// Bytes of the smallest instruction: 1 on x86-64, 4 on `AArch64`.
    pub quantum: u8,
    functions: usize,
    /// Where the text begins; 0 if the linker left it to the module data.
    pub text_start: u64,
    names: usize,
    units: usize,
    files: usize,
    pc_tables: usize,
    function_table: usize,
}

impl Header {
    /// Reads a header. `None` if these bytes are none: a search relies on that being likely for
    /// anything else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let version = Version::from_magic(u32_at(bytes, 0)?)?;
        let [pad_1, pad_2, quantum, pointer_bytes] = *bytes.get(4..8)? else { return None };
        if pad_1 != 0 || pad_2 != 0 || !matches!(quantum, 1 | 2 | 4) || pointer_bytes != 8 {
            return None;
        }
        let word = |index: usize| usize::try_from(u64_at(bytes, 8 + 8 * index)?).ok();
        let header = Self {
            version,
            quantum,
            functions: word(0)?,
            text_start: u64_at(bytes, 24)?,
            names: word(3)?,
            units: word(4)?,
            files: word(5)?,
            pc_tables: word(6)?,
            function_table: word(7)?,
        };
        let in_order = HEADER_BYTES <= header.names
            && header.names < header.units
            && header.units < header.files
            && header.files <= header.pc_tables
            && header.pc_tables < header.function_table;
        (in_order && header.functions > 0 && header.function_table().is_some()).then_some(header)
    }

    /// Where the function table begins, in bytes from the header, and its bytes.
    pub fn function_table(&self) -> Option<(usize, usize)> {
        let bytes = self.functions.checked_mul(FUNCTION_ENTRY_BYTES)?.checked_add(4)?;
        self.function_table.checked_add(bytes)?;
        Some((self.function_table, bytes))
    }

    /// Bytes of the whole pclntab, by the function table's contents: nothing else tells where the
    /// last record ends. A little more than it has, at most.
    pub fn table_bytes(&self, function_table: &[u8]) -> Option<usize> {
        let mut last_record = 0;
        let entries = function_table.get(..self.functions.checked_mul(FUNCTION_ENTRY_BYTES)?)?;
        for entry in entries.chunks_exact(FUNCTION_ENTRY_BYTES) {
            last_record = last_record.max(u32_at(entry, 4)?);
        }
        let tables = 4 * (MAX_PC_DATA as usize + usize::from(u8::MAX));
        let record_bytes = self.version.record_bytes() + tables;
        let records_end = usize::try_from(last_record).ok()?.checked_add(record_bytes)?;
        self.function_table.checked_add(records_end)
    }

    /// Where names, units, files, pc tables and functions begin, in bytes from the header: the module
    /// data points to them.
    pub fn part_offsets(&self) -> [usize; 5] {
        [self.names, self.units, self.files, self.pc_tables, self.function_table]
    }
}

/// A pclntab, of which those pages are in memory that were looked at.
#[derive(Debug)]
pub(super) struct Pclntab {
    pub header: Header,
    /// Where it is linked.
    pub address: ElfAddress,
    data: PagedBytes,
}

/// What is wrong with a pclntab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged(pub &'static str);

impl Pclntab {
    /// Takes a table, whose length is what [`Header::table_bytes`] said.
    pub fn new(data: &PageSource, address: ElfAddress) -> Result<Self, Damaged> {
        let data = data.open();
        let header = data.slice(0, HEADER_BYTES).ok().flatten();
        let header = header.and_then(|header| Header::parse(&header));
        let header = header.ok_or(Damaged("its pclntab has an impossible header"))?;
        let table = Self { header, address, data };
        let mut previous = 0;
        for index in 0..=table.functions() {
            match table.entry(index) {
                Some(entry) if entry >= previous => previous = entry,
                _ => return Err(Damaged("its pclntab is cut short or not sorted by address")),
            }
        }
        Ok(table)
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.data.held_bytes()
    }

    /// Drops what can be read again, if it is more than `max_bytes`.
    pub fn forget_over(&mut self, max_bytes: usize) {
        self.data.forget_over(max_bytes);
    }

    /// Number of functions.
    pub fn functions(&self) -> usize {
        self.header.functions
    }

    /// Where function `index` begins, in bytes from the text start; the end of the text for
    /// [`Self::functions`].
    pub fn entry(&self, index: usize) -> Option<u32> {
        if index > self.header.functions {
            return None;
        }
        self.data.u32_at(self.header.function_table + index * FUNCTION_ENTRY_BYTES)
    }

    /// The function whose code, padding included, holds `offset` from the text start. O(log n).
    pub fn find(&self, offset: u32) -> Option<Function<'_>> {
        let (mut low, mut high) = (0, self.functions());
        if offset < self.entry(0)? || offset >= self.entry(high)? {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.entry(middle)? <= offset {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.function(low)
    }

    /// Function `index`, if its record is sound.
    pub fn function(&self, index: usize) -> Option<Function<'_>> {
        let entry = self.entry(index)?;
        let next = self.entry(index + 1)?;
        let record_at = self.header.function_table + index * FUNCTION_ENTRY_BYTES + 4;
        let record = usize::try_from(self.data.u32_at(record_at)?).ok()?;
        let record = self.header.function_table.checked_add(record)?;
        let fixed = self.data.slice(record, self.header.version.record_bytes()).ok()??;
        let [.., flags, _, function_data] = *fixed else { return None };
        let fixed = &*fixed;
        let function = Function {
            table: self,
            index,
            entry,
            bytes: next.checked_sub(entry)?,
            name_offset: u32_at(fixed, 4)?,
            pcsp: u32_at(fixed, 16)?,
            pcfile: u32_at(fixed, 20)?,
            pcln: u32_at(fixed, 24)?,
            pc_data: u32_at(fixed, 28)?,
            first_unit: u32_at(fixed, 32)?,
            first_line: if self.header.version == Version::Go120 { u32_at(fixed, 36)? } else { 0 },
            flags,
            function_data,
            variable: record.checked_add(fixed.len())?,
        };
        (u32_at(fixed, 0) == Some(entry) && function.pc_data <= MAX_PC_DATA).then_some(function)
    }

    /// The function name at an offset, if one begins there.
    pub fn name(&self, offset: u32) -> Option<Cow<'_, [u8]>> {
        let names = self.header.names..self.header.units;
        let at = names.start.checked_add(usize::try_from(offset).ok()?)?;
        // A name begins after the end of another: an offset into the midst of one is damage.
        if at > names.start && self.data.slice(at - 1, 1).ok()??.first() != Some(&0) {
            return None;
        }
        self.text(at..names.end)
    }

    fn text(&self, range: Range<usize>) -> Option<Cow<'_, [u8]>> {
        let most = range.end.checked_sub(range.start)?.min(MAX_TEXT_BYTES);
        // Nearly all end within the page they begin on, and are borrowed from it.
        let rest = self.data.rest_of_page(range.start).ok()?;
        let rest = rest.get(..rest.len().min(most))?;
        let end = match rest.iter().position(|byte| *byte == 0) {
            Some(end) => end,
            None => {
                let most = most.min(self.data.len().checked_sub(range.start)?);
                self.data.slice(range.start, most).ok()??.iter().position(|byte| *byte == 0)?
            }
        };
        self.data.slice(range.start, end).ok()?.filter(|text| !text.is_empty())
    }

    fn file(&self, unit: u32) -> Option<Cow<'_, [u8]>> {
        let at = self.header.units.checked_add(usize::try_from(unit).ok()?.checked_mul(4)?)?;
        if at.checked_add(4)? > self.header.files {
            return None;
        }
        let offset = self.data.u32_at(at).filter(|offset| *offset != u32::MAX)?;
        let at = self.header.files.checked_add(usize::try_from(offset).ok()?)?;
        self.text(at..self.header.pc_tables)
    }

    fn pc_table(&self, offset: u32) -> Option<PcBytes<'_>> {
        let at =
            self.header.pc_tables.checked_add(usize::try_from(offset).ok().filter(|offset| *offset > 0)?)?;
        let end = self.header.function_table.min(self.data.len());
        (at <= end).then_some(PcBytes { data: Some(&self.data), position: at, end, window: &[] })
    }
}

/// The bytes of a pc table and what follows it.
#[derive(Debug, Clone, Copy)]
struct PcBytes<'a> {
    data: Option<&'a PagedBytes>,
    position: usize,
    end: usize,
    /// What is at hand at `position`; may be longer than up to `end`.
    window: &'a [u8],
}

impl PcBytes<'_> {
    fn next(&mut self) -> Option<u8> {
        if self.position >= self.end {
            return None;
        }
        if self.window.is_empty() {
            self.window = self.data?.rest_of_page(self.position).ok()?;
        }
        let (&byte, rest) = self.window.split_first()?;
        self.window = rest;
        self.position += 1;
        Some(byte)
    }
}

/// One function of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function<'a> {
    table: &'a Pclntab,
    pub index: usize,
    /// Bytes from the text start.
    pub entry: u32,
    /// Bytes of code up to the next function, padding included.
    pub bytes: u32,
    name_offset: u32,
    pcsp: u32,
    pcfile: u32,
    pcln: u32,
    pc_data: u32,
    first_unit: u32,
    /// Line of the `func` or `TEXT`; 0 if the table has none.
    pub first_line: u32,
    flags: u8,
    function_data: u8,
    /// Where its tables' offsets begin.
    variable: usize,
}

impl<'a> Function<'a> {
    /// Its name as the linker wrote it.
    pub fn name(&self) -> Option<Cow<'a, [u8]>> {
        self.table.name(self.name_offset)
    }

    /// Outermost function of a stack (`FuncFlagTopFrame`).
    pub fn is_top_frame(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Writes the stack pointer in a way that pcsp does not tell (`FuncFlagSPWrite`).
    pub fn writes_stack_pointer(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Bytes that the function has pushed below its return address, by pc. `None`: nothing is known,
    /// as of C code that Go's linker took in.
    pub fn stack_depths(&self) -> Option<PcValues<'a>> {
        Some(self.values(self.table.pc_table(self.pcsp)?))
    }

    /// Whether the table has lines for this function at all.
    pub fn has_lines(&self) -> bool {
        self.table.pc_table(self.pcln).is_some()
    }

    /// Source line at `pc` from the entry. `None`: padding, or no line.
    pub fn line(&self, pc: u32) -> Option<u32> {
        let line = self.values(self.table.pc_table(self.pcln)?).at(pc)?;
        u32::try_from(line).ok()
    }

    /// Source file at `pc` from the entry.
    pub fn file(&self, pc: u32) -> Option<Cow<'a, [u8]>> {
        let number = self.values(self.table.pc_table(self.pcfile)?).at(pc)?;
        self.table.file(self.first_unit.checked_add(u32::try_from(number).ok()?)?)
    }

    /// Position in the tree of inlined calls at `pc` from the entry; `None`: nothing is inlined there.
    pub fn inline_index(&self, pc: u32) -> Option<u32> {
        u32::try_from(self.inline_indices()?.at(pc)?).ok()
    }

    /// All positions in the tree of inlined calls, by pc.
    pub fn inline_indices(&self) -> Option<PcValues<'a>> {
        if self.pc_data <= PC_DATA_INLINE_INDEX {
            return None;
        }
        let offset = self.word(PC_DATA_INLINE_INDEX)?;
        Some(self.values(self.table.pc_table(offset)?))
    }

    /// Where the tree of inlined calls lies in the function data.
    pub fn inline_tree(&self) -> Option<u32> {
        if u32::from(self.function_data) <= FUNCTION_DATA_INLINE_TREE {
            return None;
        }
        let tree = self.word(self.pc_data.checked_add(FUNCTION_DATA_INLINE_TREE)?)?;
        (tree != NO_FUNCTION_DATA).then_some(tree)
    }

    /// One of the offsets that follow the record.
    fn word(&self, index: u32) -> Option<u32> {
        let offset = usize::try_from(index.checked_mul(4)?).ok()?;
        self.table.data.u32_at(self.variable.checked_add(offset)?)
    }

    fn values(&self, table: PcBytes<'a>) -> PcValues<'a> {
        PcValues { rest: table, quantum: self.table.header.quantum, pc: 0, end: self.bytes, value: -1 }
    }
}

/// A value that holds for some pcs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PcValue {
    /// From here, in bytes from the function's entry.
    pub begin: u32,
    /// Up to here.
    pub end: u32,
    pub value: i32,
}

/// Walks a pc table. Yields at most one value for each byte of the function.
#[derive(Debug, Clone)]
pub(super) struct PcValues<'a> {
    rest: PcBytes<'a>,
    quantum: u8,
    pc: u32,
    end: u32,
    value: i32,
}

impl PcValues<'_> {
    /// The value at `pc` from the entry.
    fn at(mut self, pc: u32) -> Option<i32> {
        self.find(|value| pc < value.end).map(|value| value.value)
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.rest.next()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Iterator for PcValues<'_> {
    type Item = PcValue;

    fn next(&mut self) -> Option<PcValue> {
        let begin = self.pc;
        let difference = self.varint()?;
        if begin >= self.end || (difference == 0 && begin != 0) {
            self.rest.end = 0;
            return None;
        }
        let zigzag = (difference >> 1) ^ (difference & 1).wrapping_neg();
        self.value = self.value.wrapping_add(zigzag.cast_signed());
        let quanta = self.varint().filter(|quanta| *quanta > 0)?;
        let end = begin.checked_add(quanta.checked_mul(u32::from(self.quantum))?)?;
        self.pc = end;
        Some(PcValue { begin, end: end.min(self.end), value: self.value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object_file::Contents;

    /// A table of two functions, as Go 1.20 and later write it: `main.one` with 16 bytes, line 10 and a
    /// call of `main.two` inlined at [4, 8); `main.two` with 32 bytes and nothing.
    fn small_table() -> Vec<u8> {
        let names = b"\0main.one\0main.two\0";
        let units = 0_u32.to_le_bytes();
        let files = b"/src/main.go\0";
        // Offset 0 means none. At 1: value 0 to the end; at 4: line 10 up to 8, then 12 up to 16; at 9:
        // index -1 up to 4, 0 up to 8, -1 up to 16.
        let pc_tables = [&[0_u8][..], &[2, 16, 0], &[22, 8, 4, 8, 0], &[0, 4, 2, 4, 1, 8, 0]].concat();
        let (names_at, units_at) = (HEADER_BYTES, HEADER_BYTES + names.len());
        let files_at = units_at + units.len();
        let tables_at = files_at + files.len();
        let functions_at = tables_at + pc_tables.len();
        let mut data = 0xffff_fff1_u32.to_le_bytes().to_vec();
        data.extend([0, 0, 1, 8]);
        for word in [2, 1, 0, names_at, units_at, files_at, tables_at, functions_at] {
            data.extend((word as u64).to_le_bytes());
        }
        data.extend(names);
        data.extend(units);
        data.extend(files);
        data.extend(&pc_tables);
        let records = 2 * 8 + 4;
        for word in [0_u32, records, 16, records + 44 + 28, 48] {
            data.extend(word.to_le_bytes());
        }
        // Entry, name, arguments, deferreturn, pcsp, pcfile, pcln, pc data, unit, first line, id and flags,
        // then three pc data and four function data.
        for word in [0_u32, 1, 0, 0, 1, 1, 4, 3, 0, 9, 4 << 24, 0, 0, 9, u32::MAX, u32::MAX, u32::MAX, 0x40] {
            data.extend(word.to_le_bytes());
        }
        for word in [16_u32, 10, 0, 0, 0, 0, 0, 0, 0, 20, 1 << 8] {
            data.extend(word.to_le_bytes());
        }
        data
    }

    fn table(data: Vec<u8>) -> Result<Pclntab, Damaged> {
        let bytes = data.len();
        Pclntab::new(&PageSource::of_contents(Contents::Memory(data), bytes), ElfAddress(0x40_0000))
    }

    #[test]
    fn a_function_holds_its_first_byte_and_not_the_next_function_s() {
        let table = table(small_table()).unwrap();
        let found = |offset| table.find(offset).and_then(|function| function.name().map(Cow::into_owned));
        assert_eq!(found(0).unwrap(), b"main.one");
        assert_eq!(found(15).unwrap(), b"main.one");
        assert_eq!(found(16).unwrap(), b"main.two");
        assert_eq!(found(47).unwrap(), b"main.two");
        assert_eq!(found(48), None, "behind the last function");
    }

    #[test]
    fn values_hold_up_to_the_pc_that_ends_them() {
        let table = table(small_table()).unwrap();
        let one = table.function(0).unwrap();
        assert_eq!((one.line(0), one.line(7), one.line(8), one.line(15), one.line(16)), {
            (Some(10), Some(10), Some(12), Some(12), None)
        });
        assert_eq!(*one.file(3).unwrap(), *b"/src/main.go");
        assert_eq!((one.inline_index(3), one.inline_index(4), one.inline_index(8)), (None, Some(0), None));
        assert_eq!(one.inline_tree(), Some(0x40));
        assert_eq!(one.first_line, 9);
        let two = table.function(1).unwrap();
        assert!(two.stack_depths().is_none() && two.inline_tree().is_none() && !two.has_lines());
        assert!(two.is_top_frame() && !one.is_top_frame());
    }

    #[test]
    fn a_name_that_does_not_begin_where_it_should_is_none() {
        let table = table(small_table()).unwrap();
        assert_eq!(*table.name(1).unwrap(), *b"main.one");
        assert_eq!(table.name(2), None, "in the midst of a name");
        assert_eq!(table.name(18), None, "the name behind the last");
        assert_eq!(table.name(u32::MAX), None);
    }

    #[test]
    fn a_pc_table_that_does_not_advance_or_goes_beyond_the_function_ends() {
        let values = |rest: &'static [u8]| {
            let rest = PcBytes { data: None, position: 0, end: rest.len(), window: rest };
            let values = PcValues { rest, quantum: 1, pc: 0, end: 16, value: -1 };
            values.map(|value| (value.begin, value.end, value.value)).collect::<Vec<_>>()
        };
        assert_eq!(values(&[2, 4, 2, 0, 2, 4, 0]), [(0, 4, 0)], "a step of 0");
        assert_eq!(values(&[2, 4, 2, 100, 2, 4]), [(0, 4, 0), (4, 16, 1)], "beyond the end");
        assert_eq!(values(&[2, 0x80, 0x80, 0x80, 0x80, 0x80, 1]), [], "a varint of six bytes");
        assert_eq!(values(&[2, 4, 2]), [(0, 4, 0)], "cut short");
        assert_eq!(values(&[]), []);
        assert_eq!(values(&[0, 4]), [(0, 4, -1)], "a first difference of 0 is no end");
    }

    #[test]
    fn a_table_cut_short_anywhere_is_refused_or_answers() {
        let whole = small_table();
        for end in 0..whole.len() {
            if let Ok(table) = table(whole[..end].to_vec()) {
                ask_everything(&table);
            }
        }
    }

    fn ask_everything(table: &Pclntab) {
        for offset in 0..64 {
            let Some(function) = table.find(offset) else { continue };
            let pc = offset - function.entry;
            let _ = (function.name(), function.file(pc), function.line(pc), function.inline_tree());
            let _ = (function.inline_index(pc), function.is_top_frame(), function.writes_stack_pointer());
            let depths = function.stack_depths().into_iter().flatten().count();
            assert!(depths as u64 <= u64::from(function.bytes), "more pieces than bytes");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_table_is_refused_or_answers(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut data = small_table();
            for (index, byte) in changes {
                let at = index.index(data.len());
                data[at] = byte;
            }
            if let Some((begin, _)) = Header::parse(&data).and_then(|header| header.function_table()) {
                let _ = Header::parse(&data).unwrap().table_bytes(data.get(begin..).unwrap_or_default());
            }
            if let Ok(table) = table(data) {
                ask_everything(&table);
            }
        }

        #[test]
        fn any_bytes_as_a_pc_table_end(rest in prop::collection::vec(any::<u8>(), 0..64), end in any::<u32>()) {
            let rest = PcBytes { data: None, position: 0, end: rest.len(), window: &rest };
            let values = PcValues { rest, quantum: 4, pc: 0, end, value: -1 };
            let mut previous = 0;
            for value in values {
                prop_assert!(value.begin == previous && value.end <= end);
                previous = value.end;
            }
        }
    }
}
