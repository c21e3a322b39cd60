//! A request that is over and has no span, since its trace is not sampled: what it counts as.

use std::borrow::Cow;
use std::sync::Arc;

use super::span::{SpanKind, SpanResource, Text};

/// See the module's description.
#[derive(Debug, Clone, PartialEq)]
pub struct UnsampledRequest {
    /// `Server` or `Client`.
    pub kind: SpanKind,
    /// Whether it is gRPC.
    pub is_rpc: bool,
    /// At which end.
    pub resource: Arc<SpanResource>,
    /// Of HTTP; `None` if unknown.
    pub http_method: Option<Cow<'static, str>>,
    /// Of gRPC: service and method.
    pub rpc: Option<(String, String)>,
    /// Path without its query; `None` if unknown.
    pub path: Option<Text>,
    /// The path's template, of servers.
    pub route: Option<Text>,
    /// Of HTTP, or of gRPC if it is that.
    pub status_code: Option<u16>,
    /// `error.type`.
    pub error: Option<Text>,
    /// Its length.
    pub duration_ns: u64,
    /// When it ended, nanoseconds since the Unix epoch.
    pub end_unix_ns: u64,
}
