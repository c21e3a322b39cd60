//! What the exporter tells of itself, for `/status/export` and the metrics.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Shared;
use super::signal::{Signal, SignalStatus};
use crate::config::{Compression, Protocol};
use crate::metrics::HistogramSnapshot;

/// The exporter at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ExporterStatus {
    /// As it is configured; none if nothing is exported.
    pub endpoint: Option<String>,
    /// `grpc`, `http/protobuf` or `http/json`.
    pub protocol: Option<&'static str>,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// `gzip` or `none`.
    pub compression: Option<&'static str>,
    /// Whether the last that was heard of the endpoint was an answer.
    pub connected: bool,
    /// When the last request was taken.
    pub last_export: Option<SystemTime>,
    /// Why the last failed request failed, as long as none was taken since.
    pub last_error: Option<String>,
    /// Spans.
    pub traces: SignalStatus,
    /// Data points.
    pub metrics: SignalStatus,
    /// Profiles.
    pub profiles: SignalStatus,
    /// Time from a request to its answer, seconds, whatever the answer.
    pub latency: HistogramSnapshot,
    /// Items in a request.
    pub batch_size: HistogramSnapshot,
}

impl ExporterStatus {
    pub(super) fn of(shared: &Shared) -> Self {
        let target = shared.target.load_full();
        let configuration = target.as_ref().map(|target| target.configuration());
        let signal = |signal: Signal| {
            let enabled = target.as_ref().is_some_and(|target| target.wants(signal));
            shared.queue(signal).status(enabled)
        };
        let facts = shared.health.facts();
        Self {
            endpoint: target.as_ref().map(|target| target.endpoint.clone()),
            protocol: configuration.map(|otlp| otlp.protocol).map(Protocol::as_str),
            tls: configuration.is_some_and(crate::config::Otlp::uses_tls),
            compression: configuration.map(|otlp| otlp.compression).map(Compression::as_str),
            connected: facts.connected,
            last_export: facts.last_export,
            last_error: facts.last_error,
            traces: signal(Signal::Traces),
            metrics: signal(Signal::Metrics),
            profiles: signal(Signal::Profiles),
            latency: shared.latency.snapshot(),
            batch_size: shared.batch_size.snapshot(),
        }
    }

    /// The three signals, by name.
    #[must_use]
    pub fn signals(&self) -> [(&'static str, &SignalStatus); 3] {
        [("traces", &self.traces), ("metrics", &self.metrics), ("profiles", &self.profiles)]
    }

    /// Items of all signals that were dropped, by reason; every reason there is.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        let mut lost = BTreeMap::new();
        for (_, signal) in self.signals() {
            for (&reason, &count) in &signal.dropped {
                *lost.entry(reason).or_default() += count;
            }
        }
        lost
    }

    /// Requests of all signals that were sent, repetitions included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.signals().iter().map(|(_, signal)| signal.requests).sum()
    }

    /// Those of them that failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.signals().iter().map(|(_, signal)| signal.errors).sum()
    }
}
