//! `CPython` 3.8 to 3.14: finds the interpreter in a process, says where it keeps its threads and frames, and gives
//! names to code objects.
//!
//! Comes in: the object files that a process has mapped, and its memory. Goes out: an [`Interpreter`], which is a
//! [`ScriptRuntime`]. Never: a write to the process, or a stop of it.
//!
//! What an interpreter is told by is the symbol `_PyRuntime`, wherever it is: in libpython or in the executable, in
//! `.dynsym` or in `.symtab`. Where things are in its structures:
//!
//! ```text
//! 3.13, 3.14   _PyRuntime begins with _Py_DebugOffsets, a table for debuggers; "xdebugpy" is its first word
//! 3.8 – 3.12   tables of ours, one for each minor version (layout.rs); they have not changed within one
//! ```
//!
//! Either way the layout is checked against the process before it is used: version, size of a code object as
//! `PyCode_Type` has it, the list of interpreters and that of threads, and a thread whose innermost frame leads to a
//! code object. How frames are linked is said at the head of `bpf/unwind/python.h`.
//!
//! A code object (`code.rs`) has name, file, first line and a table from instructions to lines, of which there are
//! three formats (`line_table.rs`). It may be freed and its memory used again between a sample and the reading of it:
//! the hash that the kernel side made of it tells.
//!
//! Not covered: free-threaded builds, builds `--with-pydebug` that trace references, 3.7 and before, 3.15 and later.
//! They are refused with their reason. `co_qualname` is there from 3.11 on; before, a method has its own name only.

mod code;
mod debug_offsets;
mod evaluation;
mod interpreter;
mod layout;
mod line_table;
mod objects;
mod symbols;

use std::sync::Arc;

pub use interpreter::{Interpreter, InterpreterPlace};

use crate::process_memory::ProcessMemory;
use crate::script::{MappedObject, NotRead, ScriptRuntime};

/// The interpreter of a process, if it has one.
///
/// # Errors
/// [`NotRead`]: there is one, but it is not set up yet, or not one of a kind that is known.
pub fn find(
    objects: &[MappedObject],
    memory: &dyn ProcessMemory,
) -> Result<Option<Arc<dyn ScriptRuntime>>, NotRead> {
    Ok(Interpreter::find(objects, memory)?.map(|interpreter| Arc::new(interpreter) as Arc<dyn ScriptRuntime>))
}

/// Names a frame out of memory that may hold anything: what the fuzz target calls.
#[cfg(feature = "fuzzing")]
pub fn name_for_fuzzing(
    minor: u8,
    frame: &crate::script::ScriptFrame,
    memory: &dyn ProcessMemory,
) -> Result<Vec<crate::script::ScriptFunction>, crate::script::Refusal> {
    let Some(layout) = layout::Layout::of_minor_version(minor) else {
        return Err(crate::script::Refusal::Unsupported);
    };
    code::name_frame(&layout, frame, memory)
}

/// Reads a line table of any bytes: what the fuzz target calls.
#[cfg(feature = "fuzzing")]
pub fn line_for_fuzzing(format: u8, table: &[u8], first_line: u32, position: u32) -> Option<u32> {
    let format = match format % 3 {
        0 => line_table::Format::Lnotab,
        1 => line_table::Format::Ranges,
        _ => line_table::Format::Locations,
    };
    line_table::line_at(format, table, first_line, position)
}
