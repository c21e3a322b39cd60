//! The text of a Go executable: where it begins, and which of its functions are special.

use super::pclntab::Pclntab;
use crate::{ElfAddress, ObjectFile};

/// Bytes of code that are read together.
const WINDOW_BYTES: u64 = 64 << 10;
/// Largest padding that a linker puts behind the last function.
const MAX_PADDING_BYTES: u64 = 64;

/// Where the text begins in an executable whose module data was not found: what the pclntab's header
/// says, else the section, if all of it is the table's.
pub(super) fn start_without_module_data(object: &ObjectFile, table: &Pclntab) -> Option<ElfAddress> {
    let end = u64::from(table.entry(table.functions())?);
    let holds_text = |start: ElfAddress, segment: &crate::object_file::Segment| {
        let skipped = start.checked_sub(segment.address);
        let text_end = skipped.and_then(|skipped| skipped.checked_add(end));
        segment.executable && text_end.is_some_and(|text_end| text_end <= segment.file_bytes)
    };
    let in_header = ElfAddress(table.header.text_start);
    if in_header.0 != 0 && object.segments().iter().any(|segment| holds_text(in_header, segment)) {
        return Some(in_header);
    }
    // With C code in the section, Go's part of it begins nobody knows where.
    let section = object.section_header(".text")?;
    let padding = section.bytes.checked_sub(end)?;
    (padding < MAX_PADDING_BYTES).then_some(section.address)
}

/// Whether a function is what signal handlers return to.
pub(super) fn is_signal_return(name: &[u8]) -> bool {
    matches!(without_abi(name), b"runtime.sigreturn__sigaction" | b"runtime.sigreturn")
}

/// A function's name without the ABI that the linker appends when it has two.
pub(super) fn without_abi(name: &[u8]) -> &[u8] {
    name.strip_suffix(b".abi0").or(name.strip_suffix(b".abiinternal")).unwrap_or(name)
}

/// Code, read a piece at a time in the order of addresses.
#[derive(Debug)]
pub(super) struct Text<'a> {
    object: &'a ObjectFile,
    begin: ElfAddress,
    window: Vec<u8>,
}

impl<'a> Text<'a> {
    /// Nothing is read yet.
    pub fn new(object: &'a ObjectFile) -> Self {
        Self { object, begin: ElfAddress(0), window: vec![] }
    }

    /// Up to `count` bytes at `address`, fewer at the end of a segment; `None` if there are none.
    pub fn bytes(&mut self, address: ElfAddress, count: usize) -> Option<&[u8]> {
        let held = |offset: usize| offset.checked_add(count).is_some_and(|end| end <= self.window.len());
        let offset = address.checked_sub(self.begin).and_then(|offset| usize::try_from(offset).ok());
        let offset = match offset.filter(|offset| held(*offset)) {
            Some(offset) => offset,
            None => {
                self.begin = address;
                self.window =
                    self.object.read_loaded(address, WINDOW_BYTES.max(count as u64)).unwrap_or_default();
                0
            }
        };
        let end = offset.saturating_add(count).min(self.window.len());
        self.window.get(offset..end).filter(|bytes| !bytes.is_empty())
    }
}
