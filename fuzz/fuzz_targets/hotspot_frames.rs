//! Any memory as that of a Java virtual machine, and any frame in it: names or refusals, and bounded work.
#![no_main]

use std::cell::Cell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spanflame_symbols::hotspot::fuzzing::machine;
use spanflame_symbols::process_memory::{ProcessMemory, Unreadable};
use spanflame_symbols::script::{Runtime, ScriptFrame, ScriptRuntime};

#[derive(Arbitrary, Debug)]
struct Input {
    memory: Vec<u8>,
    kind: u8,
    is_leaf: bool,
    is_25: bool,
    address: u32,
    object: u32,
    other: u64,
    position: u32,
    identity: u32,
}

/// The same bytes over and over, up to a limit, and how often they were read.
struct Repeated<'a> {
    bytes: &'a [u8],
    reads: Cell<usize>,
}

impl ProcessMemory for Repeated<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.set(self.reads.get() + 1);
        if self.bytes.is_empty() || address > 1 << 40 {
            return Err(Unreadable { address, bytes: into.len() });
        }
        for (index, byte) in into.iter_mut().enumerate() {
            *byte = self.bytes[(address as usize + index) % self.bytes.len()];
        }
        Ok(())
    }
}

fuzz_target!(|input: Input| {
    let memory = Repeated { bytes: &input.memory, reads: Cell::new(0) };
    let frame = ScriptFrame {
        runtime: Runtime::Hotspot,
        kind: input.kind % 7,
        is_entry: false,
        is_leaf: input.is_leaf,
        address: u64::from(input.address),
        object: u64::from(input.object),
        other: input.other,
        position: input.position,
        identity: input.identity,
    };
    if let Ok(functions) = machine(input.is_25).name(&frame, &memory) {
        assert!(functions.len() <= 256);
    }
    // A scope takes some forty reads, and there are at most 256.
    assert!(memory.reads.get() < 256 * 64);
});
