//! What the tracer tells of itself.

use std::collections::HashMap;

use super::spans::SpanCounts;
use super::tls::TlsStatus;
use crate::kernel::{GoCounters, HeaderCounters, SocketCounters, UserProbesStatus};
use crate::model::Unstamped;

/// What the tracer has done so far.
#[derive(Debug, Clone, Default)]
pub struct TracerStatus {
    /// What the kernel side counted.
    pub socket: SocketCounters,
    /// What has become of contexts that were to go out as headers of HTTP.
    pub headers: HeaderCounters,
    /// What has become of TLS libraries.
    pub tls: TlsStatus,
    /// Go programs.
    pub go: GoCounters,
    /// Executables of programs with probes, by what the probes are for.
    pub programs: Vec<(&'static str, UserProbesStatus)>,
    /// Events that were read.
    pub events: u64,
    /// Spans and what could not be told of them.
    pub spans: SpanCounts,
    /// What could not be done.
    pub failures: TracerFailures,
    /// Connections that are followed.
    pub connections: usize,
    /// Connections that were let go of because there were too many.
    pub forgotten_connections: u64,
    /// Requests that samples can be in.
    pub known_requests: usize,
    /// Samples that were stamped.
    pub stamped_samples: u64,
    /// Samples in a request that were not, by reason.
    pub unstamped_samples: HashMap<Unstamped, u64>,
    /// Requests that other profilers were told of once their ids were known: those of which they were told at once are
    /// not counted.
    pub published_requests: u64,
    /// Requests that other profilers were not told of, since too many were open at a time.
    pub unpublished_requests: u64,
    /// Kernel memory of all maps, bytes.
    pub map_bytes: u64,
    /// Who moved bytes by `io_uring`, which is not followed.
    pub unexplained: Vec<UnexplainedProcess>,
}

/// A process that moves bytes of sockets in a way that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnexplainedProcess {
    /// Its id.
    pub pid: u32,
    /// Its service.
    pub service: String,
    /// What it read.
    pub in_bytes: u64,
    /// What it wrote.
    pub out_bytes: u64,
}

/// What could not be done, each time. Nothing of it loses an event by itself but the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TracerFailures {
    /// Events whose meaning could not be found: mistakes of ours.
    pub events: u64,
    /// Changes of how much of a connection is captured.
    pub captures: u64,
    /// Searches for connections whose end no event told.
    pub sweeps: u64,
    /// Looks for threads at requests that other profilers were to be told of.
    pub published: u64,
    /// Changes of which traces' contexts are passed on.
    pub bounds: u64,
}
