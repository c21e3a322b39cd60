//! Any file → object → names, lines and inlined frames: symbol tables, DWARF, PLT.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use spanflame_symbols::symbolize::Symbolizer;
use spanflame_symbols::{ElfAddress, ObjectFile};

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = ObjectFile::from_bytes(bytes.to_vec(), "fuzz".as_ref()) else { return };
    let mut addresses = vec![ElfAddress(0), ElfAddress(u64::MAX)];
    for segment in object.segments().iter().take(4) {
        let step = (segment.file_bytes / 16).max(1);
        addresses.extend((0..16).map(|index| ElfAddress(segment.address.0.wrapping_add(index * step))));
    }
    let symbols = Symbolizer::new().object(&Arc::new(object), &addresses);
    assert_eq!(symbols.len(), addresses.len());
    for frames in symbols.into_iter().flatten() {
        assert!(!frames.is_empty(), "a name is a frame at least");
    }
});
