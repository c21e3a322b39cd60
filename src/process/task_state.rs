//! `/proc/PID/task/TID/stat`: what a thread is doing.
//!
//! The file reads `pid (comm) state …` (proc(5)), and comm may hold anything, spaces and parentheses
//! included; so the state is looked for from the end.

use std::io;
use std::path::Path;

/// What matters here of a thread's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskState {
    /// On a processor, or waiting for one.
    Running,
    /// Sleeping, stopped, waiting for a disk.
    Waiting,
    /// Ended; what is left is its number.
    Over,
}

/// The state of the thread with this directory, `/proc/PID/task/TID`.
///
/// # Errors
/// The system's, `NotFound` or `ESRCH` for a thread that is gone.
pub(super) fn read(task: &Path) -> io::Result<TaskState> {
    std::fs::read(task.join("stat")).map(|stat| parse(&stat))
}

fn parse(stat: &[u8]) -> TaskState {
    let name_end = stat.iter().rposition(|&byte| byte == b')');
    match name_end.and_then(|end| stat.get(end + 2)) {
        Some(b'R') => TaskState::Running,
        Some(b'Z' | b'X' | b'x') => TaskState::Over,
        _ => TaskState::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_a_state() {
        assert_eq!(parse(b"1 (sh) R 0 1"), TaskState::Running);
        assert_eq!(parse(b"1 (a) Z) S 0 1"), TaskState::Waiting);
        assert_eq!(parse(b"1 (\xff R) Z 0 1"), TaskState::Over);
        assert_eq!(parse(b"1 (x)"), TaskState::Waiting);
        assert_eq!(parse(b""), TaskState::Waiting);
    }
}
