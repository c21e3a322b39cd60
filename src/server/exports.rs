//! What leaves this host by itself, as `/status`, `/ready` and the metrics tell it.
//!
//! The one place where the server asks the exporter: its state, to send what waits, and to go on as a new
//! configuration says.

use std::time::Duration;

use super::App;
use crate::config::Configuration;
use crate::export::otlp_client::TargetError;

pub use crate::export::otlp_client::{ExporterStatus, Flushed, Health as ExportHealth, SignalStatus};

/// How long a flush that somebody waits for may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// How long the last things may take to leave before the process ends.
const END_LIMIT: Duration = Duration::from_secs(5);

impl App {
    /// Whether the endpoint takes what is exported. Blocks, for two seconds at most.
    #[must_use]
    pub fn export_health(&self) -> ExportHealth {
        self.exporter.runtime().block_on(self.exporter.check())
    }

    /// What the exporter has done so far.
    #[must_use]
    pub fn export_status(&self) -> ExporterStatus {
        self.exporter.status()
    }

    /// Sends what waits. Blocks.
    pub fn flush_exports(&self) -> Flushed {
        self.exporter.runtime().block_on(self.exporter.flush(FLUSH_LIMIT))
    }

    /// Goes on as this configuration says.
    ///
    /// # Errors
    /// [`TargetError`], and it goes on as before.
    pub fn reconfigure_exports(&self, configuration: &Configuration) -> Result<(), TargetError> {
        self.exporter.reconfigure(&configuration.otlp)
    }

    /// Sends what waits before the process ends. Blocks.
    pub fn end_exports(&self) {
        let flushed = self.exporter.runtime().block_on(self.exporter.flush(END_LIMIT));
        if flushed.left > 0 {
            tracing::warn!(items = flushed.left, "Not everything could be exported before the end");
        }
    }
}
