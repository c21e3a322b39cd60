//! The reader is preferred by the scheduler while it listens.
//!
//! On a host whose processors are all busy, which is when people look, a thread that wakes waits for its
//! turn behind the very load that it watches. Meanwhile new processes run unknown and rings fill up. The
//! reader needs a fraction of a percent of a processor, so it is given its turn at once; the threads
//! that build tables are not.

use std::marker::PhantomData;

use rustix::process::{getpriority_process, setpriority_process};

const PREFERRED: i32 = -10;

/// The calling thread is preferred until this is dropped, on that thread. Without the capability
/// (`CAP_SYS_NICE`) it stays as it was, and more is lost under load.
#[derive(Debug)]
pub struct PreferredThread {
    before: i32,
    /// Priorities belong to threads: whoever raised one puts it back.
    not_send: PhantomData<*const ()>,
}

impl PreferredThread {
    /// Raises the calling thread's priority, unless it is as high already.
    #[must_use]
    pub fn begin() -> Self {
        // Without a pid it is the calling thread that is meant, on Linux (setpriority(2), "C library").
        let before = getpriority_process(None).unwrap_or(0);
        if before > PREFERRED
            && let Err(error) = setpriority_process(None, PREFERRED)
        {
            tracing::debug!("the reader is scheduled like everything else: {error}");
        }
        Self { before, not_send: PhantomData }
    }
}

impl Drop for PreferredThread {
    fn drop(&mut self) {
        if self.before > PREFERRED
            && let Err(error) = setpriority_process(None, self.before)
        {
            tracing::debug!("the reader keeps its priority: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_its_priority_back() {
        let before = getpriority_process(None).unwrap();
        let preferred = PreferredThread::begin();
        let during = getpriority_process(None).unwrap();
        drop(preferred);
        assert!(during <= before);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
