//! Whether a process is a Go program, and of which version.

use std::path::Path;

use spanflame_symbols::ObjectFile;
use spanflame_symbols::go::GoProgram;

/// What the executable of a process says of itself; `None` if it is no Go program, or cannot be read.
#[must_use]
pub fn go_program(pid: u32) -> Option<GoProgram> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // The link itself leads to the file that runs, also if it was removed or replaced.
    let file = std::fs::File::open(format!("/proc/{pid}/exe")).ok()?;
    let object = ObjectFile::new(file, Path::new(&path)).ok()?;
    GoProgram::read(&object).ok().flatten()
}
