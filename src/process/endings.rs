//! When has a process ended? With its last thread.
//!
//! The kernel's record of a thread's exit is written while `/proc` still lists the thread as running, so
//! a process is over when no thread is left but those whose exit was reported. A process that lives on
//! is not looked at again before another of its threads ends, and then at most every [`LOOK_INTERVAL`].

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::task_state::{self, TaskState};

/// Threads may end by the thousand; their process's list of threads is not read for each.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Leaving {
    exited_tids: Vec<u32>,
    looked_at: Option<Instant>,
}

/// Processes of which threads ended.
#[derive(Debug, Default)]
pub(super) struct Endings {
    leaving: HashMap<u32, Leaving>,
}

impl Endings {
    /// A thread ended.
    pub(super) fn thread_exited(&mut self, pid: u32, tid: u32) {
        self.leaving.entry(pid).or_default().exited_tids.push(tid);
    }

    /// A process may be gone, though no record says so.
    pub(super) fn suspect(&mut self, pid: u32) {
        // No thread has number 0.
        self.thread_exited(pid, 0);
    }

    /// A process was made or runs another program: the threads of before do not count any more. The
    /// thread that calls `execve` takes over the number of the first one, whose end was reported.
    pub(super) fn began_anew(&mut self, pid: u32) {
        self.leaving.remove(&pid);
    }

    /// The processes that have ended since the last call.
    pub(super) fn take(&mut self, now: Instant) -> Vec<u32> {
        let mut ended = Vec::new();
        self.leaving.retain(|&pid, leaving| {
            let recently = leaving.looked_at.is_some_and(|looked_at| now - looked_at < LOOK_INTERVAL);
            if recently || leaving.exited_tids.is_empty() {
                return recently;
            }
            match is_over(pid, &leaving.exited_tids) {
                Ok(true) => {
                    ended.push(pid);
                    false
                }
                Ok(false) => {
                    leaving.exited_tids.clear();
                    leaving.looked_at = Some(now);
                    true
                }
                // Typically no descriptor left: looked at again later.
                Err(_) => {
                    leaving.looked_at = Some(now);
                    true
                }
            }
        });
        ended
    }

    /// How long from now until a process should be looked at, if any should.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        let waiting = self.leaving.values().filter(|leaving| !leaving.exited_tids.is_empty());
        let due = waiting.map(|leaving| match leaving.looked_at {
            Some(looked_at) => (looked_at + LOOK_INTERVAL).saturating_duration_since(now),
            None => Duration::ZERO,
        });
        due.min()
    }
}

/// Whether no thread of `pid` is left but those of `exited_tids`.
fn is_over(pid: u32, exited_tids: &[u32]) -> std::io::Result<bool> {
    let gone = |error: &std::io::Error| {
        error.kind() == ErrorKind::NotFound
            || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
    };
    let tasks = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(tasks) => tasks,
        Err(error) if gone(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    for task in tasks {
        let task = match task {
            Ok(task) => task,
            Err(error) if gone(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        let tid = task.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if tid.is_some_and(|tid| exited_tids.contains(&tid)) {
            continue;
        }
        match task_state::read(&task.path()) {
            Ok(TaskState::Over) => {}
            Ok(TaskState::Running | TaskState::Waiting) => return Ok(false),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far beyond `pid_max`: no such process can exist.
    const NOBODY: u32 = 0x7fff_0000;

    #[test]
    fn a_process_is_over_when_only_threads_are_left_that_ended() {
        let mut endings = Endings::default();
        let this = std::process::id();
        let now = Instant::now();
        endings.thread_exited(NOBODY, NOBODY);
        endings.thread_exited(this, this);
        assert_eq!(endings.take(now), [NOBODY], "the thread of this test is left of ours");
        assert_eq!(endings.due_in(now), None, "nothing is polled for");
    }

    #[test]
    fn a_process_that_loses_many_threads_is_not_looked_at_for_each() {
        let mut endings = Endings::default();
        let this = std::process::id();
        let now = Instant::now();
        endings.thread_exited(this, NOBODY);
        assert!(endings.take(now).is_empty());
        endings.thread_exited(this, NOBODY + 1);
        assert!(endings.take(now).is_empty());
        assert_eq!(endings.due_in(now), Some(LOOK_INTERVAL));
        assert!(endings.take(now + LOOK_INTERVAL).is_empty());
        assert_eq!(endings.due_in(now + LOOK_INTERVAL), None);
    }

    #[test]
    fn a_new_program_forgets_the_threads_of_the_old_one() {
        let mut endings = Endings::default();
        endings.thread_exited(NOBODY, NOBODY);
        endings.began_anew(NOBODY);
        assert!(endings.take(Instant::now()).is_empty());
    }
}
