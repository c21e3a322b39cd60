//! What a person at a terminal sees while a recording runs.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A line that is rewritten on a terminal, and nothing elsewhere.
pub(super) struct Progress {
    enabled: bool,
    shown: Option<Instant>,
    whole: Duration,
}

impl Progress {
    pub(super) fn new(whole: Duration) -> Self {
        Self { enabled: std::io::stderr().is_terminal(), shown: None, whole }
    }

    pub(super) fn show(&mut self, elapsed: Duration, samples: u64) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() > Duration::from_millis(250));
        if self.enabled && due {
            self.shown = Some(Instant::now());
            let (elapsed, whole) = (elapsed.as_secs_f64(), self.whole.as_secs_f64());
            // A terminal that is gone is no reason to end the recording.
            let mut terminal = std::io::stderr();
            let _ = write!(
                terminal,
                "\r\x1b[KRecording: {elapsed:.1} of {whole:.0} s, {samples} samples (Ctrl-C writes what there is)"
            );
            let _ = terminal.flush();
        }
    }

    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
