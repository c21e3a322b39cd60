//! What leaves this host by itself, as `/status`, `/ready` and the metrics tell it.
//!
//! The one place where the server asks the exporter: its state, to send what waits, and to go on as a new
//! configuration says.

use std::time::Duration;

use super::App;
use crate::config::Configuration;
use crate::export::otlp_client::TargetError;

pub use crate::export::otlp_client::{ExporterStatus, Health as ExportHealth, SignalStatus};

/// How long a flush that somebody waits for may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// How long the last things may take to leave before the process ends.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How many items a flush has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flushed {
    /// Spans.
    pub traces: u64,
    /// Data points of metrics.
    pub metrics: u64,
    /// Profiles.
    pub profiles: u64,
}

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

    /// Sends what waits, and the metrics as they are now; tells how much was exported since `before`.
    /// Blocks.
    pub fn flush_exports(&self, before: &ExporterStatus) -> Flushed {
        self.offer_metrics();
        if let Some(own_traces) = &self.own_traces {
            own_traces.flush();
        }
        self.exporter.runtime().block_on(self.exporter.flush(FLUSH_LIMIT));
        let after = self.export_status();
        Flushed {
            traces: after.traces.exported.saturating_sub(before.traces.exported),
            metrics: after.metrics.exported.saturating_sub(before.metrics.exported),
            profiles: after.profiles.exported.saturating_sub(before.profiles.exported),
        }
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
        if let Some(own_traces) = &self.own_traces {
            own_traces.flush();
        }
        let left = self.exporter.runtime().block_on(self.exporter.flush(END_LIMIT));
        if left > 0 {
            tracing::warn!(items = left, "Not everything could be exported before the end");
        }
    }
}
