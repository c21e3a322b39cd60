//! What a runtime's frames of a walk are called, beside what the walk says of them.

use spanflame_symbols::process_memory::ProcessMemory;
use spanflame_symbols::script::{Runtime, ScriptRuntime};
use spanflame_unwind_native::Walk;

use super::{Told, script_frame};

/// Kinds of frames; `SF_V8_*` and `SF_HOTSPOT_*` have the same numbers.
pub const INTERPRETED: u8 = 1;
pub const COMPILED: u8 = 2;

/// A frame as it was named, its kind, and which of the walk's frames it is of.
pub struct Named {
    pub told: Told,
    pub start_line: u32,
    pub kind: u8,
    pub script: usize,
}

/// Names all of them, from the leaf on; those that were inlined into one frame come each on its own.
pub fn names(
    kind: Runtime,
    runtime: &dyn ScriptRuntime,
    walk: &Walk,
    memory: &dyn ProcessMemory,
) -> Vec<Named> {
    let mut names = Vec::new();
    for (script, raw) in walk.scripts.iter().enumerate() {
        let functions = runtime.name(&script_frame(kind, raw), memory);
        let functions = functions.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", runtime.version()));
        names.extend(functions.into_iter().map(|function| {
            assert!(!function.is_approximate, "{function:?}");
            let file = if function.file.is_empty() { "-".to_owned() } else { function.file };
            let told = Told { line: function.line, name: function.name, file };
            Named { told, start_line: function.start_line, kind: raw.kind, script }
        }));
    }
    names
}

/// A runtime's layout as the kernel side has it.
pub fn layout_words(runtime: &dyn ScriptRuntime) -> Vec<u64> {
    runtime
        .layout()
        .chunks(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("it is made of words")))
        .collect()
}
