//! Processes that are left alone: whose executable the configuration names. Of what they do nothing becomes of events
//! here, and from the moment at which the kernel side knows it there are none.
//!
//! A process that is over before its executable could be read is not known to be one of them, and is followed.

use crate::kernel::SocketTracer;

/// Whether processes of the executable with this path are left alone.
pub type Executables = Box<dyn Fn(&str) -> bool + Send>;

/// See the module's description.
#[derive(Default)]
pub struct LeftAlone {
    executables: Option<Executables>,
    /// Of which the kernel side does not know yet.
    new: Vec<u32>,
}

impl LeftAlone {
    /// `None`: all are followed.
    #[must_use]
    pub fn new(executables: Option<Executables>) -> Self {
        Self { executables, new: Vec::new() }
    }

    /// Whether any process may be left alone.
    pub(super) fn may_be(&self) -> bool {
        self.executables.is_some()
    }

    fn names(&self, executable: &str) -> bool {
        self.executables.as_ref().is_some_and(|executables| executables(executable))
    }

    /// Whether one with this executable is. The kernel side is told at the next [`Self::note`].
    pub(super) fn meet(&mut self, pid: u32, executable: &str) -> bool {
        let is_left = self.names(executable);
        if is_left {
            self.new.push(pid);
        }
        is_left
    }

    /// Tells the kernel side of those that were met since.
    pub(super) fn note(&mut self, socket: &SocketTracer) {
        for pid in std::mem::take(&mut self.new) {
            if let Err(error) = socket.leave_alone(pid, true) {
                tracing::debug!("what process {pid} does is looked at, and dropped: {error}");
            }
            // It may have become something else, or nothing, before the kernel side knew that it is left alone.
            let executable = std::fs::read_link(format!("/proc/{pid}/exe"));
            let is_same = executable
                .is_ok_and(|path| self.names(path.to_string_lossy().trim_end_matches(" (deleted)")));
            if !is_same {
                // It cannot fail.
                let _ = socket.leave_alone(pid, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_that_are_named_are_left_alone_and_all_are_followed_without_names() {
        let mut all = LeftAlone::default();
        assert!(!all.may_be() && !all.meet(1, "/usr/bin/wrk"));
        let mut some = LeftAlone::new(Some(Box::new(|path| path == "/usr/bin/wrk")));
        assert!(some.may_be());
        assert!(some.meet(2, "/usr/bin/wrk"));
        assert!(!some.meet(3, "/usr/bin/nginx"));
        assert!(!some.meet(4, ""), "a kernel thread");
        assert_eq!(some.new, [2]);
    }
}
