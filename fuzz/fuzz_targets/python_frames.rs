//! CPython's frames in memory of any contents: the kernel side's walk and the names of what it found must end without
//! harm, and a line table of any bytes likewise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_symbols::process_memory::{ProcessMemory, RecordedMemory};
use spanflame_symbols::python::{line_for_fuzzing, name_for_fuzzing};
use spanflame_symbols::script::{Runtime, ScriptFrame};
use spanflame_unwind_native::{Image, Registers, Walker};

/// Memory of `SPAN` bytes which begins with the input and repeats it; addresses are taken modulo that, so that most
/// pointers lead somewhere.
struct Everywhere<'a>(&'a [u8]);

const SPAN: u64 = 1 << 16;

impl ProcessMemory for Everywhere<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), spanflame_symbols::process_memory::Unreadable> {
        for (index, byte) in (address % SPAN..).zip(into.iter_mut()) {
            *byte = self.0[index as usize % self.0.len()];
        }
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((head, contents)) = bytes.split_first_chunk::<96>().filter(|(_, rest)| !rest.is_empty()) else {
        return;
    };
    let memory = Everywhere(contents);
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight"));
    let mut image = Image::new();
    // struct sf_python is ten words, of any contents.
    image.python = Some((0..10).map(|index| word(index * 8)).collect());
    image.thread_pointer = word(80);
    let mut walker = Walker::default();
    for _ in 0..2 {
        let walk = walker.walk_in(&image, &Registers::default(), &memory);
        for script in walk.scripts.iter().take(8) {
            let frame = ScriptFrame {
                runtime: Runtime::Python,
                kind: script.kind,
                is_entry: false,
                is_leaf: false,
                address: script.address,
                object: script.object,
                other: script.other,
                position: script.position,
                identity: script.identity,
            };
            let minor = 8 + head[88] % 7;
            let _ = name_for_fuzzing(minor, &frame, &memory);
            let _ = name_for_fuzzing(minor, &frame, &RecordedMemory::default());
        }
    }
    let _ = line_for_fuzzing(head[89], contents, word(80) as u32, word(88) as u32);
});
