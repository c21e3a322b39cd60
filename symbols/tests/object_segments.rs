//! From the offset of a mapping to an ELF address, for layouts that linkers really make.

use std::path::Path;

use spanflame_symbols::{ElfAddress, FileOffset, ObjectFile};

const READ: u32 = 4;
const EXECUTE: u32 = 1;

/// An ELF file of nothing but program headers: (offset, address, bytes, flags).
fn elf(segments: &[(u64, u64, u64, u32)]) -> ObjectFile {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [3_u16, 62] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1_u32.to_le_bytes());
    for word in [0_u64, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    let count = u16::try_from(segments.len()).expect("few");
    for half in [64_u16, 56, count, 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for &(offset, address, length, flags) in segments {
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in [offset, address, address, length, length, 0x1000] {
            bytes.extend(word.to_le_bytes());
        }
    }
    let end = segments.iter().map(|(offset, _, length, _)| offset + length).max().unwrap_or(0);
    bytes.resize(usize::try_from(end).expect("small").max(bytes.len()), 0);
    ObjectFile::from_bytes(bytes, Path::new("made up")).expect("a sound file")
}

#[test]
fn text_that_begins_within_a_page_is_found_by_the_offset_of_its_mapping() {
    // As lld lays it out: the mapping of text begins at 0x2000, which is also the last page of the
    // read-only segment, with another distance between offset and address.
    let object = elf(&[(0, 0, 0x2468, READ), (0x2480, 0x3480, 0x1000, READ | EXECUTE)]);
    assert_eq!(object.elf_address(FileOffset(0x2000)), Some(ElfAddress(0x3000)));
    assert_eq!(object.elf_address(FileOffset(0x2480)), Some(ElfAddress(0x3480)));
    assert_eq!(object.elf_address(FileOffset(0x1000)), Some(ElfAddress(0x1000)));
}

#[test]
fn a_position_dependent_executable_keeps_its_base() {
    let object = elf(&[(0, 0x40_0000, 0x800, READ), (0x1000, 0x40_1000, 0x1800, READ | EXECUTE)]);
    assert_eq!(object.elf_address(FileOffset(0x1000)), Some(ElfAddress(0x40_1000)));
    assert_eq!(object.elf_address(FileOffset(0x2fff)), Some(ElfAddress(0x40_2fff)));
    assert_eq!(object.elf_address(FileOffset(0x9000)), None, "behind every segment");
}
