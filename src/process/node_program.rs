//! Which processes run Node, and where its event loop says that it goes on to something else
//! (bpf/turns.bpf.c says what that is good for).
//!
//! An executable is looked at if its name begins with `node`; that it is Node is told by the function that it
//! exports. What a file has is found out once.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use spanflame_symbols::{FileOffset, ObjectFile, find_functions};

use crate::kernel::{FileIdentity, ProbedFile};

/// `node::Environment::CheckImmediate(uv_check_s*)`.
const POLLING_IS_OVER: &str = "_ZN4node11Environment14CheckImmediateEP10uv_check_s";
/// Files that are remembered; beyond that all are looked at anew.
const MAX_FILES: usize = 1024;

/// A process that runs Node.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its executable.
    pub file: ProbedFile,
    /// Where the code is that runs when a turn's polling is over.
    pub polling_is_over: FileOffset,
}

/// The executables that were looked at.
#[derive(Debug, Default)]
pub struct NodePrograms {
    known: HashMap<FileIdentity, Option<FileOffset>>,
}

impl NodePrograms {
    /// Whether an executable of this name is looked at.
    #[must_use]
    pub fn may_be(name: &str) -> bool {
        name.starts_with("node")
    }

    /// `None`: the process does not run Node, or cannot be read. Reads some megabytes of a file that is new.
    pub fn of(&mut self, pid: u32) -> Option<NodeProcess> {
        let link = PathBuf::from(format!("/proc/{pid}/exe"));
        // The link leads to the file that runs, also if it was removed or replaced.
        let file = File::open(&link).ok()?;
        let path = std::fs::read_link(&link).ok()?;
        let again = file.try_clone().ok()?;
        let file = ProbedFile::new(file, &path).ok()?;
        if self.known.len() >= MAX_FILES {
            self.known.clear();
        }
        let polling_is_over = *self.known.entry(file.identity()).or_insert_with(|| {
            let object = ObjectFile::new(again, &path).ok()?;
            find_functions(&object, &[POLLING_IS_OVER]).ok()?.first().map(|function| function.at)
        });
        Some(NodeProcess { file, polling_is_over: polling_is_over? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_run_node_is_none() {
        assert!(NodePrograms::default().of(std::process::id()).is_none());
        assert!(NodePrograms::default().of(u32::MAX).is_none());
    }
}
