//! Any text as a perf map, read in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u16>, Vec<u64>, &[u8])| {
    let (ends, addresses, bytes) = input;
    let ends: Vec<usize> = ends.into_iter().map(usize::from).collect();
    spanflame_symbols::symbolize::fuzzing::perf_map(bytes, &ends, &addresses);
});
