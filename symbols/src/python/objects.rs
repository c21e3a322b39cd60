//! Strings and byte strings of an interpreter (`PEP 393`, `Include/cpython/unicodeobject.h`).

use super::layout::Layout;
use crate::little_endian::{u16_at, u32_at};
use crate::process_memory::ProcessMemory;
use crate::script::Refusal;

/// Bytes before the contents of a `bytes` object: `offsetof(PyBytesObject, ob_sval)` in all versions.
pub(super) const BYTES_HEADER: u16 = 32;
/// `ob_size` of an object of variable size, and `length` of a string.
const LENGTH: u64 = 16;
const MAX_LINE_TABLE_BYTES: u64 = 1 << 20;
/// Of a name no more characters are taken than this, of a path likewise.
pub(super) const MAX_CHARACTERS: u64 = 4096;

fn at(address: u64, offset: impl Into<u64>) -> Result<u64, Refusal> {
    address.checked_add(offset.into()).ok_or(Refusal::Malformed)
}

/// A string object, cut to [`MAX_CHARACTERS`].
pub(super) fn read_string(
    layout: &Layout,
    memory: &dyn ProcessMemory,
    address: u64,
) -> Result<String, Refusal> {
    let length = memory.u64_at(at(address, LENGTH)?)?;
    // struct { interned: 2, kind: 3, compact: 1, ascii: 1, … }: these bits are the same in all versions.
    let state = memory.u8_at(at(address, layout.string_state)?)?;
    let (character_bytes, is_compact, is_ascii) =
        (u64::from(state >> 2 & 7), state & 0x20 != 0, state & 0x40 != 0);
    if !is_compact || !matches!(character_bytes, 1 | 2 | 4) || (is_ascii && character_bytes != 1) {
        return Err(Refusal::Malformed);
    }
    let header = if is_ascii { layout.string_header } else { layout.compact_header };
    let bytes =
        usize::try_from(length.min(MAX_CHARACTERS) * character_bytes).map_err(|_| Refusal::Malformed)?;
    let contents = read_contents(memory, at(address, header)?, bytes)?;
    if is_ascii && !contents.is_ascii() {
        return Err(Refusal::Malformed);
    }
    let text: Option<String> = match character_bytes {
        1 => Some(contents.iter().map(|byte| char::from(*byte)).collect()),
        2 => contents.chunks_exact(2).map(|unit| Some(or_replacement(u32::from(u16_at(unit, 0)?)))).collect(),
        // Above U+10FFFF there is no character: that is no string.
        _ => (contents.chunks_exact(4))
            .map(|unit| u32_at(unit, 0).filter(|number| *number <= 0x10_ffff).map(or_replacement))
            .collect(),
    };
    text.ok_or(Refusal::Malformed)
}

/// Of an empty object nothing is read: what follows its header need not be there.
fn read_contents(memory: &dyn ProcessMemory, address: u64, bytes: usize) -> Result<Vec<u8>, Refusal> {
    let mut contents = vec![0; bytes];
    if !contents.is_empty() {
        memory.read(address, &mut contents)?;
    }
    Ok(contents)
}

/// Lone surrogates stand for bytes of a path that are not UTF-8 (`surrogateescape`).
fn or_replacement(number: u32) -> char {
    char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The contents of a `bytes` object that is a line table.
pub(super) fn read_line_table(memory: &dyn ProcessMemory, address: u64) -> Result<Vec<u8>, Refusal> {
    let length = memory.u64_at(at(address, LENGTH)?)?;
    if length > MAX_LINE_TABLE_BYTES {
        return Err(Refusal::Malformed);
    }
    let bytes = usize::try_from(length).map_err(|_| Refusal::Malformed)?;
    read_contents(memory, at(address, BYTES_HEADER)?, bytes)
}
