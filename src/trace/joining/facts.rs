//! What a server's span says of its request, whichever conventions it follows: OpenTelemetry's stable ones for
//! HTTP and RPC, or those before them, which most SDKs still write.

use crate::model::span::{Attribute, AttributeValue, Span, SpanId, TraceId, integer_of, text_of};

/// Of a request and of who answered it, as far as the span says so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    method: Option<String>,
    path: Option<String>,
    /// `package.Service/Method`.
    rpc: Option<String>,
    status: Option<i64>,
    /// The client's port on the connection.
    peer_port: Option<i64>,
    service: Option<String>,
    pid: Option<i64>,
    host: Option<String>,
    container: Option<String>,
}

/// A server's span, in short.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent_span_id: Option<SpanId>,
    pub(super) start_unix_ns: u64,
    /// `None` while the work goes on.
    pub(super) end_unix_ns: Option<u64>,
    pub(super) facts: Facts,
}

impl Told {
    pub(super) fn of(span: &Span) -> Self {
        let &Span { trace_id, span_id, parent_span_id, start_unix_ns, end_unix_ns, .. } = span;
        Self { trace_id, span_id, parent_span_id, start_unix_ns, end_unix_ns, facts: Facts::of(span) }
    }
}

/// How much two spans say alike of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SameProcess {
    /// Nothing that both say.
    Unknown,
    /// The service, of which there may be several.
    Service,
    /// The process or its container.
    Known,
}

impl Facts {
    fn of(span: &Span) -> Self {
        let own = &span.attributes;
        let resource = &span.resource.attributes;
        let text = |names: &[&str]| names.iter().find_map(|name| text_of(own, name)).map(str::to_owned);
        let number = |names: &[&str]| names.iter().find_map(|name| number_of(own, name));
        let of_process =
            |name: &str| text_of(resource, name).filter(|text| !text.is_empty()).map(str::to_owned);
        let path = text(&["url.path", "http.target"]).or_else(|| path_of_url(text_of(own, "http.url")?));
        Self {
            method: text(&["http.request.method", "http.method"]),
            path: path.map(|path| path.split('?').next().unwrap_or_default().to_owned()),
            rpc: text_of(own, "rpc.method").map(|method| match text_of(own, "rpc.service") {
                Some(service) if !method.contains('/') => format!("{service}/{method}"),
                _ => method.trim_start_matches('/').to_owned(),
            }),
            status: number(&["http.response.status_code", "http.status_code", "rpc.grpc.status_code"]),
            peer_port: number(&["network.peer.port", "net.sock.peer.port", "net.peer.port"]),
            service: of_process("service.name"),
            pid: integer_of(resource, "process.pid"),
            host: of_process("host.name"),
            container: of_process("container.id"),
        }
    }

    /// Whether they cannot be of one request.
    pub(super) fn contradict(&self, other: &Self) -> bool {
        let is_other_process = match (&self.container, &other.container) {
            (Some(one), Some(other)) => one != other,
            // A process in a container knows itself by another number, and another name of its host.
            (None, None) => differ(&self.pid, &other.pid) || differ(&self.host, &other.host),
            _ => false,
        };
        is_other_process
            || differ(&self.method, &other.method)
            || differ(&self.rpc, &other.rpc)
            || differ(&self.peer_port, &other.peer_port)
    }

    /// Whether they say the same of their process, be it nothing: as all spans of one SDK do.
    pub(super) fn is_same_resource(&self, other: &Self) -> bool {
        self.service == other.service
            && self.pid == other.pid
            && self.host == other.host
            && self.container == other.container
    }

    pub(super) fn is_same_connection(&self, other: &Self) -> bool {
        self.peer_port.is_some() && self.peer_port == other.peer_port
    }

    pub(super) fn same_process(&self, other: &Self) -> SameProcess {
        let same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
        let is_same_pid = self.pid.is_some() && self.pid == other.pid;
        if same(&self.container, &other.container)
            || (is_same_pid && self.container.is_none() && other.container.is_none())
        {
            SameProcess::Known
        } else if same(&self.service, &other.service) {
            SameProcess::Service
        } else {
            SameProcess::Unknown
        }
    }

    /// Whether both say what was asked for and what was answered, and the same.
    pub(super) fn is_same_request(&self, other: &Self) -> bool {
        let is_same_rpc = self.rpc.is_some() && self.rpc == other.rpc;
        let is_same_http = self.method.is_some() && self.path.is_some() && self.path == other.path;
        let is_same_status = self.status.is_some() && self.status == other.status;
        is_same_rpc && !differ(&self.status, &other.status) || is_same_http && is_same_status
    }
}

fn differ<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// Some write ports and codes as text.
fn number_of(attributes: &[Attribute], name: &str) -> Option<i64> {
    match &attributes.iter().find(|(key, _)| key == name)?.1 {
        AttributeValue::Integer(number) => Some(*number),
        AttributeValue::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn path_of_url(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    rest.find('/').and_then(|at| rest.get(at..)).map(str::to_owned)
}
