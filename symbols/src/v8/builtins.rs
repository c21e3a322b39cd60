//! Where V8's builtins are in an object: code that was generated when it was built, without call-frame information.

use std::ops::Range;

use super::elf_symbols::{exports, for_each};
use crate::little_endian::u32_at;
use crate::{ElfAddress, ObjectError, ObjectFile};

/// What every V8 of a Node exports, or keeps in `.symtab` (24.11).
pub(super) const MARKER: &str = "_ZN2v88internal7Version6major_E";
/// Objects below this have no V8 in them, so their `.symtab` is not looked through: the smallest Node has 70 MB.
const MIN_OBJECT_BYTES: u64 = 32 << 20;
/// Those of Node 24 have 2.1 MB.
const MAX_CODE_BYTES: u32 = 64 << 20;

/// The builtins of an object; ELF addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Builtins {
    /// All of them.
    pub(crate) code: Range<u64>,
    /// Handlers of bytecodes, which are the last ones.
    pub(crate) handlers_begin: u64,
    /// What makes the frame of an interpreted function.
    pub(crate) trampoline: Range<u64>,
}

/// Whether an object has V8 in it, as far as that can be told with little work.
pub(super) fn may_have_v8(object: &ObjectFile) -> bool {
    object.file_bytes() >= MIN_OBJECT_BYTES && (exports(object, MARKER) || has_private_marker(object))
}

fn has_private_marker(object: &ObjectFile) -> bool {
    let mut found = false;
    // What cannot be read is not looked into.
    let _ = for_each(object, |name, _, _| found |= name == MARKER.as_bytes());
    found
}

/// Finds them. `None` if there are none, or if the object was stripped of the symbols that tell where.
///
/// # Errors
/// [`ObjectError`] if a table of the object cannot be read.
pub(crate) fn find(object: &ObjectFile) -> Result<Option<Builtins>, ObjectError> {
    if object.file_bytes() < MIN_OBJECT_BYTES {
        return Ok(None);
    }
    let (mut begin, mut size_at, mut handlers_begin, mut trampoline_begin) = (None, None, None, None);
    let mut starts = Vec::new();
    for_each(object, |name, address, _| match name {
        // In V8 10 that of the code is a pointer to it.
        b"v8_Default_embedded_blob_code_data_" => begin = Some(address.0),
        b"v8_Default_embedded_blob_code_" => {
            begin.get_or_insert(address.0);
        }
        b"v8_Default_embedded_blob_code_size_" => size_at = Some(address),
        b"Builtins_WideHandler" => handlers_begin = Some(address.0),
        b"Builtins_InterpreterEntryTrampoline" => trampoline_begin = Some(address.0),
        _ if name.starts_with(b"Builtins_Interpreter") => starts.push(address.0),
        _ => {}
    })?;
    let (Some(begin), Some(size_at), Some(handlers_begin), Some(trampoline_begin)) =
        (begin, size_at, handlers_begin, trampoline_begin)
    else {
        return Ok(None);
    };
    Ok(assemble(object, begin, size_at, handlers_begin, trampoline_begin, &starts))
}

fn assemble(
    object: &ObjectFile,
    begin: u64,
    size_at: ElfAddress,
    handlers_begin: u64,
    trampoline_begin: u64,
    starts: &[u64],
) -> Option<Builtins> {
    let bytes = u32_at(&object.read_loaded(size_at, 4).ok()?, 0)?;
    let code = begin..begin.checked_add(u64::from(bytes))?;
    let trampoline_end = *starts.iter().filter(|start| **start > trampoline_begin).min()?;
    let is_right = bytes > 0
        && bytes <= MAX_CODE_BYTES
        && code.contains(&handlers_begin)
        && code.contains(&trampoline_begin)
        && code.contains(&trampoline_end)
        && trampoline_end - trampoline_begin < 1 << 14;
    is_right.then_some(Builtins { code, handlers_begin, trampoline: trampoline_begin..trampoline_end })
}
