//! The tables in which HotSpot says what its structures look like, for its serviceability agent: `gHotSpotVMStructs`,
//! `gHotSpotVMTypes`, `gHotSpotVMIntConstants` and `gHotSpotVMLongConstants`.
//!
//! Source: `src/hotspot/share/runtime/vmStructs.hpp` of the JDK. Each table is a pointer to an array of entries
//! that ends with one of null names; strides and offsets within an entry are exported too, so nothing about them is
//! assumed. Entries that are wanted by nobody are passed over.

use std::cell::RefCell;
use std::collections::HashMap;

use super::SymbolTable;
use crate::process_memory::{ProcessMemory, Unreadable};

/// More entries than any table has (JDK 11 has 1900 fields).
const MAX_ENTRIES: u64 = 16384;
const MAX_STRIDE: u64 = 256;
const MAX_NAME_BYTES: usize = 192;
const PAGE_BYTES: u64 = 4096;
const MAX_PAGES: usize = 4096;

/// Why the tables gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TableError {
    /// Not filled in yet, or not readable.
    #[error("{0}")]
    NotReadable(String),
    /// Not as any known version has them.
    #[error("{0}")]
    Missing(String),
}

impl From<Unreadable> for TableError {
    fn from(error: Unreadable) -> Self {
        Self::NotReadable(error.to_string())
    }
}

/// What was in the tables under the names that [`WANTED_TYPES`] has.
#[derive(Debug, Default)]
pub(super) struct VmStructs {
    offsets: HashMap<(&'static str, String), u64>,
    statics: HashMap<(&'static str, String), u64>,
    sizes: HashMap<&'static str, u64>,
    integers: HashMap<String, i64>,
}

/// Types whose fields and sizes are kept.
const WANTED_TYPES: [&str; 25] = [
    "AbstractInterpreter",
    "Abstract_VM_Version",
    "Array<Method*>",
    "Array<int>",
    "CodeBlob",
    "CodeCache",
    "CodeHeap",
    "CompiledMethod",
    "ConstMethod",
    "ConstantPool",
    "GenericGrowableArray",
    "GrowableArray<int>",
    "GrowableArrayBase",
    "HeapBlock",
    "HeapBlock::Header",
    "InstanceKlass",
    "InterpreterCodelet",
    "JVMFlag",
    "Klass",
    "Method",
    "PcDesc",
    "StubQueue",
    "StubRoutines",
    "Symbol",
    "VirtualSpace",
];
const NMETHOD: &str = "nmethod";

fn wanted(name: &str) -> Option<&'static str> {
    if name == NMETHOD {
        return Some(NMETHOD);
    }
    WANTED_TYPES.binary_search(&name).ok().and_then(|index| WANTED_TYPES.get(index).copied())
}

/// Memory a page at a time: names of the tables lie close together.
struct Pages<'a> {
    memory: &'a dyn ProcessMemory,
    pages: RefCell<HashMap<u64, Box<[u8; PAGE_BYTES as usize]>>>,
}

impl ProcessMemory for Pages<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let unreadable = Unreadable { address, bytes: into.len() };
        let mut at = address;
        let mut filled = 0;
        let mut pages = self.pages.borrow_mut();
        while filled < into.len() {
            let page = at & !(PAGE_BYTES - 1);
            if !pages.contains_key(&page) {
                if pages.len() >= MAX_PAGES {
                    pages.clear();
                }
                let mut contents = Box::new([0; PAGE_BYTES as usize]);
                if self.memory.read(page, contents.as_mut_slice()).is_err() {
                    // Recorded memory need not end with a page.
                    return self.memory.read(address, into);
                }
                pages.insert(page, contents);
            }
            let offset = (at - page) as usize;
            let count = (PAGE_BYTES as usize - offset).min(into.len() - filled);
            let source = pages.get(&page).and_then(|contents| contents.get(offset..offset + count));
            let (Some(source), Some(target)) = (source, into.get_mut(filled..filled + count)) else {
                return Err(unreadable);
            };
            target.copy_from_slice(source);
            filled += count;
            at = at.checked_add(count as u64).ok_or(unreadable)?;
        }
        Ok(())
    }
}

/// A text that ends with a zero, of at most `max` bytes; longer ones are cut.
pub(super) fn text_at(
    memory: &dyn ProcessMemory,
    address: u64,
    max: usize,
) -> Result<Option<String>, Unreadable> {
    if address == 0 {
        return Ok(None);
    }
    let mut text = Vec::new();
    let mut at = address;
    while text.len() < max {
        // Up to the end of a 64-byte piece: what follows may not be mapped.
        let mut piece = [0; 64];
        let bytes = (64 - at % 64) as usize;
        let Some(piece) = piece.get_mut(..bytes) else { break };
        memory.read(at, piece)?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(piece.get(..end).unwrap_or_default());
            break;
        }
        text.extend_from_slice(piece);
        at = at.checked_add(bytes as u64).ok_or(Unreadable { address, bytes: max })?;
    }
    text.truncate(max);
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// A table's entries: where the array is and how long each is.
struct Table<'a> {
    pages: &'a Pages<'a>,
    symbols: &'a SymbolTable,
    prefix: &'static str,
    begin: u64,
    stride: u64,
}

impl<'a> Table<'a> {
    fn open(
        pages: &'a Pages<'a>,
        symbols: &'a SymbolTable,
        pointer: &str,
        prefix: &'static str,
    ) -> Result<Self, TableError> {
        let begin = pages.u64_at(symbols.address(pointer)?)?;
        let stride = pages.u64_at(symbols.address(&format!("{prefix}ArrayStride"))?)?;
        if begin == 0 || stride == 0 {
            return Err(TableError::NotReadable(format!("{pointer} is not filled in")));
        }
        if stride > MAX_STRIDE {
            return Err(TableError::Missing(format!("{prefix}ArrayStride is {stride}")));
        }
        Ok(Self { pages, symbols, prefix, begin, stride })
    }

    fn offset(&self, of: &str) -> Result<u64, TableError> {
        let name = format!("{}{of}Offset", self.prefix);
        let offset = self.pages.u64_at(self.symbols.address(&name)?)?;
        if offset >= self.stride {
            return Err(TableError::Missing(format!("{name} is {offset}")));
        }
        Ok(offset)
    }

    fn entry(&self, number: u64) -> Result<u64, TableError> {
        number
            .checked_mul(self.stride)
            .and_then(|offset| self.begin.checked_add(offset))
            .filter(|_| number < MAX_ENTRIES)
            .ok_or_else(|| TableError::Missing(format!("{} has no end", self.prefix)))
    }

    fn text(&self, at: u64) -> Result<Option<String>, TableError> {
        Ok(text_at(self.pages, self.pages.u64_at(at)?, MAX_NAME_BYTES)?)
    }
}

impl VmStructs {
    /// Reads the tables.
    pub(super) fn read(symbols: &SymbolTable, memory: &dyn ProcessMemory) -> Result<Self, TableError> {
        let pages = Pages { memory, pages: RefCell::default() };
        let mut structs = Self::default();
        structs.read_fields(&Table::open(&pages, symbols, "gHotSpotVMStructs", "gHotSpotVMStructEntry")?)?;
        structs.read_types(&Table::open(&pages, symbols, "gHotSpotVMTypes", "gHotSpotVMTypeEntry")?)?;
        structs.read_integers(&Table::open(
            &pages,
            symbols,
            "gHotSpotVMIntConstants",
            "gHotSpotVMIntConstantEntry",
        )?)?;
        Ok(structs)
    }

    fn read_fields(&mut self, table: &Table<'_>) -> Result<(), TableError> {
        let (type_name, field_name) = (table.offset("TypeName")?, table.offset("FieldName")?);
        let (is_static, offset, address) =
            (table.offset("IsStatic")?, table.offset("Offset")?, table.offset("Address")?);
        for number in 0.. {
            let entry = table.entry(number)?;
            let Some(of) = table.text(entry + type_name)? else { break };
            let Some(of) = wanted(&of) else { continue };
            let Some(field) = table.text(entry + field_name)? else { continue };
            if table.pages.u32_at(entry + is_static)? != 0 {
                self.statics.insert((of, field), table.pages.u64_at(entry + address)?);
            } else {
                self.offsets.insert((of, field), table.pages.u64_at(entry + offset)?);
            }
        }
        Ok(())
    }

    fn read_types(&mut self, table: &Table<'_>) -> Result<(), TableError> {
        let (type_name, size) = (table.offset("TypeName")?, table.offset("Size")?);
        for number in 0.. {
            let entry = table.entry(number)?;
            let Some(of) = table.text(entry + type_name)? else { break };
            if let Some(of) = wanted(&of) {
                self.sizes.insert(of, table.pages.u64_at(entry + size)?);
            }
        }
        Ok(())
    }

    fn read_integers(&mut self, table: &Table<'_>) -> Result<(), TableError> {
        let (name, value) = (table.offset("Name")?, table.offset("Value")?);
        for number in 0.. {
            let entry = table.entry(number)?;
            let Some(of) = table.text(entry + name)? else { break };
            if of.starts_with("frame::") || of == "InvocationEntryBci" {
                let value = table.pages.u32_at(entry + value)?.cast_signed();
                self.integers.insert(of, i64::from(value));
            }
        }
        Ok(())
    }

    /// Offset of a field, if the version has it.
    pub(super) fn optional_offset(&self, of: &'static str, field: &str) -> Option<u64> {
        // The map's key owns its second half.
        self.offsets.get(&(of, field.to_owned())).copied()
    }

    /// Offset of a field.
    pub(super) fn offset(&self, of: &'static str, field: &str) -> Result<u64, TableError> {
        self.optional_offset(of, field)
            .filter(|offset| *offset < 4096)
            .ok_or_else(|| TableError::Missing(format!("{of}::{field} is not in its tables")))
    }

    /// Address of a static field.
    pub(super) fn address(&self, of: &'static str, field: &str) -> Result<u64, TableError> {
        self.statics
            .get(&(of, field.to_owned()))
            .copied()
            .filter(|address| *address != 0)
            .ok_or_else(|| TableError::Missing(format!("{of}::{field} is not in its tables")))
    }

    /// Bytes of a type.
    pub(super) fn size(&self, of: &'static str) -> Result<u64, TableError> {
        self.sizes
            .get(of)
            .copied()
            .filter(|size| (1..4096).contains(size))
            .ok_or_else(|| TableError::Missing(format!("the size of {of} is not in its tables")))
    }

    /// A constant of `frame::…` or `InvocationEntryBci`.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.integers.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_memory::RecordedMemory;

    #[test]
    fn the_types_that_are_wanted_are_in_order() {
        assert!(WANTED_TYPES.is_sorted());
        assert_eq!(wanted("nmethod"), Some("nmethod"));
        assert_eq!(wanted("CodeBlob"), Some("CodeBlob"));
        assert_eq!(wanted("CodeBlo"), None);
    }

    #[test]
    fn texts_end_with_their_zero_or_their_limit_and_not_beyond_their_memory() {
        let mut memory = RecordedMemory::default();
        memory.add(0x1030, [b"0123456789abcdef".as_slice(), b"tail\0", &[7; 59]].concat());
        assert_eq!(text_at(&memory, 0x1030, 100), Ok(Some("0123456789abcdeftail".to_owned())));
        assert_eq!(text_at(&memory, 0x1030, 5), Ok(Some("01234".to_owned())));
        assert_eq!(text_at(&memory, 0, 5), Ok(None));
        memory.add(0x2000, vec![b'x'; 64]);
        assert!(text_at(&memory, 0x2000, 100).is_err(), "no zero before the memory ends");
        assert!(text_at(&memory, u64::MAX - 3, 100).is_err());
    }
}
