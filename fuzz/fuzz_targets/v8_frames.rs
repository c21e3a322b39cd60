//! Names of V8's frames out of memory that may hold anything: no panic, no endless work, nothing allocated without
//! bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_symbols::process_memory::RecordedMemory;
use spanflame_symbols::script::{Runtime, ScriptFrame};
use spanflame_symbols::v8;

const BASE: u64 = 0x10_0000;

fuzz_target!(|data: (u8, bool, u64, u64, u32, Vec<u16>)| {
    let (version, is_interpreted, object, other, position, words) = data;
    let versions = [(10, 2), (11, 3), (12, 4), (13, 6)];
    let version = versions[usize::from(version) % versions.len()];
    let Some(runtime) = v8::of_version(version) else { return };
    // Words that lead to one another, with the tag of pointers: chance alone hardly makes any.
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| match word % 3 {
            0 => (BASE + u64::from(*word) % 4096 / 8 * 8 + 1).to_le_bytes(),
            1 => (u64::from(*word) << 32).to_le_bytes(),
            _ => (u64::from(*word) >> 2).to_le_bytes(),
        })
        .collect();
    let mut memory = RecordedMemory::default();
    memory.add(BASE, bytes);
    let mut frame = ScriptFrame {
        runtime: Runtime::V8,
        kind: if is_interpreted { 1 } else { 2 },
        is_entry: false,
        is_leaf: true,
        address: BASE + other % 4096,
        object: BASE + object % 512 * 8,
        other: BASE + other % 512 * 8,
        position,
        identity: 0,
    };
    if let Some(identity) = v8::identity_of(version, frame.object, &memory) {
        frame.identity = identity;
    }
    let _ = runtime.name(&frame, &memory);
});
