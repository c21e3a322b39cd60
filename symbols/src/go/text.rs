//! The text of a Go executable: where it begins, and which of its functions are special.

use super::pclntab::Pclntab;
use crate::{ElfAddress, ObjectFile};

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
    // The linker appends the ABI when a function has two.
    let name = name.strip_suffix(b".abi0").unwrap_or(name);
    name == b"runtime.sigreturn__sigaction" || name == b"runtime.sigreturn"
}
