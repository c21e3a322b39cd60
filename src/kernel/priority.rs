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

/// A priority that a thread had, for threads that are started later: they begin with that of whoever starts them.
#[derive(Debug, Clone, Copy)]
pub struct ThreadPriority(i32);

impl ThreadPriority {
    /// The calling thread's.
    #[must_use]
    pub fn current() -> Self {
        Self(getpriority_process(None).unwrap_or(0))
    }

    /// Gives it to the calling thread.
    pub fn take_on(self) {
        if let Err(error) = setpriority_process(None, self.0) {
            tracing::debug!("a thread keeps the priority of the one that started it: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_started_later_has_the_priority_of_before() {
        let before = ThreadPriority::current();
        let _preferred = PreferredThread::begin();
        let of_thread = std::thread::spawn(move || {
            before.take_on();
            getpriority_process(None).unwrap()
        });
        assert_eq!(of_thread.join().unwrap(), before.0);
    }

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
