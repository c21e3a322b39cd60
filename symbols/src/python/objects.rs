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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_memory::RecordedMemory;

    const ADDRESS: u64 = 0x7000;

    fn string(state: u8, length: u64, header: usize, characters: &[u8]) -> RecordedMemory {
        let mut object = vec![0; header];
        object[16..24].copy_from_slice(&length.to_le_bytes());
        object[32] = state;
        object.extend_from_slice(characters);
        let mut memory = RecordedMemory::default();
        memory.add(ADDRESS, object);
        memory
    }

    fn read(memory: &RecordedMemory) -> Result<String, Refusal> {
        read_string(&Layout::of_minor_version(12).expect("known"), memory, ADDRESS)
    }

    #[test]
    fn strings_of_each_width() {
        assert_eq!(read(&string(0x65, 3, 40, b"abc")).as_deref(), Ok("abc"));
        assert_eq!(read(&string(0x64, 0, 40, b"")).as_deref(), Ok(""));
        assert_eq!(read(&string(0x24, 2, 56, &[b'h', 0xe9])).as_deref(), Ok("hé"));
        assert_eq!(read(&string(0x28, 2, 56, &[0x16, 4, b'a', 0])).as_deref(), Ok("Жa"));
        assert_eq!(read(&string(0x30, 1, 56, &[0, 0xf6, 1, 0])).as_deref(), Ok("😀"));
        assert_eq!(read(&string(0x28, 1, 56, &[0x80, 0xdc])).as_deref(), Ok("\u{fffd}"), "a lone surrogate");
    }

    #[test]
    fn what_is_no_string_is_refused_and_a_long_one_is_cut() {
        assert_eq!(read(&string(0x45, 3, 40, b"abc")), Err(Refusal::Malformed), "not compact");
        assert_eq!(read(&string(0x6c, 3, 40, b"abc")), Err(Refusal::Malformed), "three bytes a character");
        assert_eq!(read(&string(0x65, 2, 40, &[b'a', 0x80])), Err(Refusal::Malformed), "not ASCII");
        assert_eq!(read(&string(0x30, 1, 56, &[0, 0, 0x11, 0])), Err(Refusal::Malformed), "above U+10FFFF");
        assert_eq!(read(&string(0x65, 4, 40, b"abc")), Err(Refusal::Unreadable));
        assert_eq!(read(&string(0x30, u64::MAX, 56, b"abc")), Err(Refusal::Unreadable));
        let long = vec![b'x'; 5000];
        assert_eq!(read(&string(0x65, 5000, 40, &long)).map(|text| text.len()), Ok(4096));
    }

    #[test]
    fn a_line_table_over_the_limit_is_refused() {
        assert_eq!(
            read_line_table(&string(0, MAX_LINE_TABLE_BYTES + 1, 40, b""), ADDRESS),
            Err(Refusal::Malformed)
        );
        assert_eq!(read_line_table(&string(0, 0, 40, b""), ADDRESS), Ok(Vec::new()));
        assert_eq!(read_line_table(&RecordedMemory::default(), u64::MAX), Err(Refusal::Malformed));
    }
}
