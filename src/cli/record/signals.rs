//! Signals that end a recording: they are noted, and looked at where the recording can end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Which signals came.
pub(in crate::cli) struct Signals {
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
}

impl Signals {
    /// From here on the signals are noted and end nothing by themselves.
    ///
    /// # Errors
    /// The system's.
    pub(in crate::cli) fn register() -> io::Result<Self> {
        let signals = Self { interrupt: Arc::default(), terminate: Arc::default() };
        signal_hook::flag::register(SIGINT, signals.interrupt.clone())?;
        signal_hook::flag::register(SIGTERM, signals.terminate.clone())?;
        Ok(signals)
    }

    /// Whether the recording is to end.
    pub(in crate::cli) fn any(&self) -> bool {
        self.which().is_some()
    }

    /// The signal that came; of both, the one that a person does not send by a key.
    pub(in crate::cli) fn which(&self) -> Option<i32> {
        if self.terminated() {
            return Some(SIGTERM);
        }
        self.interrupt.load(Ordering::Relaxed).then_some(SIGINT)
    }

    /// Whether `SIGTERM` came.
    pub(in crate::cli) fn terminated(&self) -> bool {
        self.terminate.load(Ordering::Relaxed)
    }

    /// What came so far has done its work.
    pub(in crate::cli) fn forget(&self) {
        self.interrupt.store(false, Ordering::Relaxed);
        self.terminate.store(false, Ordering::Relaxed);
    }
}
