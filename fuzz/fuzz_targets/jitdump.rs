//! Any bytes as a jitdump.
#![no_main]

use std::fs::File;
use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

fuzz_target!(|bytes: &[u8]| {
    let mut file = File::from(memfd_create("jitdump", MemfdFlags::CLOEXEC).expect("memory"));
    file.write_all(bytes).expect("memory");
    spanflame_symbols::symbolize::fuzzing::jitdump(&file, &[0, 0x1000, 0x1001, u64::MAX]);
});
