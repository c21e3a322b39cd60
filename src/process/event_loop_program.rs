//! Which processes run a program whose event loop is known, and where it says that it goes on to something else
//! (bpf/turns.bpf.c says what that is good for).
//!
//! An executable is looked at if it has a known name; that it is the program is told by the functions that it has.
//! What a file has is found out once.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use spanflame_symbols::{FileOffset, NamedFunction, ObjectFile, find_functions, indirect_calls};

use crate::kernel::{EventLoop, FileIdentity, ProbedFile};

/// Node, by the beginning of its name: `node`, `nodejs`, `node20`. `node::Environment::CheckImmediate(uv_check_s*)`.
const NODE: &str = "node";
const NODE_TURNS: [&str; 1] = ["_ZN4node11Environment14CheckImmediateEP10uv_check_s"];
/// nginx and its kin: timers, and what handlers have put off.
const NGINX: [&str; 3] = ["nginx", "angie", "freenginx"];
const NGINX_TURNS: [&str; 2] = ["ngx_event_expire_timers", "ngx_event_process_posted"];
/// Files that are remembered; beyond that all are looked at anew.
const MAX_FILES: usize = 1024;

/// A process with such a program.
#[derive(Debug)]
pub struct EventLoopProcess {
    /// Its executable.
    pub file: ProbedFile,
    /// Where the code is that runs when it goes on to something else.
    pub turns: Vec<FileOffset>,
    /// How it goes about its work.
    pub event_loop: EventLoop,
}

/// The executables that were looked at.
#[derive(Debug, Default)]
pub struct EventLoopPrograms {
    known: HashMap<FileIdentity, Vec<FileOffset>>,
}

impl EventLoopPrograms {
    /// Whether an executable with this path is looked at.
    #[must_use]
    pub fn may_be(executable: &str) -> bool {
        by_name(executable).is_some()
    }

    /// `None`: the process does not run such a program, or cannot be read. Reads some megabytes of a file that is
    /// new.
    pub fn of(&mut self, pid: u32, executable: &str) -> Option<EventLoopProcess> {
        let (event_loop, functions) = by_name(executable)?;
        let link = PathBuf::from(format!("/proc/{pid}/exe"));
        // The link leads to the file that runs, also if it was removed or replaced.
        let file = File::open(&link).ok()?;
        let path = std::fs::read_link(&link).ok()?;
        let again = file.try_clone().ok()?;
        let file = ProbedFile::new(file, &path).ok()?;
        if self.known.len() >= MAX_FILES {
            self.known.clear();
        }
        let turns = self.known.entry(file.identity()).or_insert_with(|| {
            let object = ObjectFile::new(again, &path).ok();
            let found = object.as_ref().and_then(|object| find_functions(object, functions).ok());
            let found = found.unwrap_or_default();
            let has_all = (0..functions.len()).all(|name| found.iter().any(|function| function.name == name));
            match &object {
                Some(object) if has_all => {
                    found.iter().flat_map(|f| turns_of(object, event_loop, f)).collect()
                }
                _ => Vec::new(),
            }
        });
        (!turns.is_empty()).then(|| EventLoopProcess { turns: turns.clone(), file, event_loop })
    }
}

/// Where in such a function it goes on to something else. nginx's two run in each turn and mostly find nothing to do: of
/// those it is where they call what has run out or was put off. Where that is not to be found, their beginning does.
fn turns_of(object: &ObjectFile, event_loop: EventLoop, function: &NamedFunction) -> Vec<FileOffset> {
    let calls = match event_loop {
        EventLoop::Prompt => indirect_calls(object, function),
        EventLoop::Turns => Vec::new(),
    };
    if calls.is_empty() { vec![function.at] } else { calls }
}

/// What is looked for in an executable with this path.
fn by_name(executable: &str) -> Option<(EventLoop, &'static [&'static str])> {
    let name = executable.rsplit('/').next()?;
    if NGINX.contains(&name) {
        return Some((EventLoop::Prompt, &NGINX_TURNS));
    }
    name.starts_with(NODE).then_some((EventLoop::Turns, &NODE_TURNS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_no_such_program_is_none_whatever_it_is_called() {
        assert!(EventLoopPrograms::default().of(std::process::id(), "/usr/bin/node").is_none());
        assert!(EventLoopPrograms::default().of(std::process::id(), "/usr/sbin/nginx").is_none());
        assert!(EventLoopPrograms::default().of(u32::MAX, "node").is_none());
        assert!(!EventLoopPrograms::may_be("/usr/bin/node/python3"));
    }
}
