//! Any file → object → unwind table → look-ups.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_symbols::unwind::UnwindTable;
use spanflame_symbols::{ElfAddress, FileOffset, ObjectFile};

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = ObjectFile::from_bytes(bytes.to_vec(), "fuzz".as_ref()) else { return };
    let _ = object.build_id().to_hex();
    let _ = object.elf_address(FileOffset(bytes.len() as u64 / 2));
    let Ok(table) = UnwindTable::build(&object) else { return };
    assert_eq!(table.pages.len() % 4096, 0);
    let pages = u64::from(table.directory_pages) + u64::from(table.rule_pages) + u64::from(table.leaf_pages);
    assert_eq!(table.pages.len() as u64, pages * 4096);
    for segment in object.segments().iter().take(8) {
        for step in 0..32 {
            let _ = table.find(ElfAddress(segment.address.0.wrapping_add(step * 37)));
        }
    }
    let _ = table.find(ElfAddress(u64::MAX));
});
