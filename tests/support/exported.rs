//! What the server has exported to a [`Receiver`]: spans, in plain words.

use std::collections::{BTreeMap, HashSet};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;

use super::collector::Receiver;
use super::server::Server;

/// Spans of servers, and of clients.
pub const SERVER: i32 = 2;
pub const CLIENT: i32 = 3;

/// A span with what it says, its resource's attributes among its own.
#[derive(Debug, Clone)]
pub struct Exported {
    pub id: Vec<u8>,
    pub trace: Vec<u8>,
    /// Empty if there is none.
    pub parent: Vec<u8>,
    pub kind: i32,
    pub name: String,
    pub start_ns: u64,
    pub duration_ns: u64,
    pub attributes: BTreeMap<String, String>,
}

impl Exported {
    /// An attribute; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    pub fn status(&self) -> u64 {
        self.text("http.response.status_code").parse().unwrap_or(0)
    }

    /// Whether it says that this was sent and could not be read.
    pub fn has_unknown(&self, what: &str) -> bool {
        self.text("spanflame.unknown").split(',').any(|one| one == what)
    }

    /// The path, of either kind.
    pub fn path(&self) -> &str {
        let url = self.text("url.full");
        let behind_scheme = url.find("://").map_or("", |at| &url[at + 3..]);
        match self.text("url.path") {
            "" => behind_scheme.find('/').map_or("", |at| &behind_scheme[at..]),
            path => path,
        }
    }
}

/// A configuration that exports spans, and nothing else, to a receiver.
pub fn exporting_spans_to(receiver: &Receiver) -> String {
    format!(
        "otlp: {{endpoint: '127.0.0.1:{}', insecure: true, protocol: http/protobuf, profiles: {{enabled: false}}, \
         metrics: {{enabled: false}}, traces: {{enabled: true}}}}\n",
        receiver.port
    )
}

/// All spans that have left up to now.
pub fn spans(server: &Server, receiver: &Receiver) -> Vec<Exported> {
    server.flush();
    let requests = receiver.received();
    let bodies = requests.iter().filter(|request| request.path == "/v1/traces").map(|request| &request.body);
    let mut all: Vec<Exported> = Vec::new();
    // Whoever does not hear that a batch has arrived sends it again.
    let mut seen = HashSet::new();
    for body in bodies {
        let message = ExportTraceServiceRequest::decode(body.as_slice()).expect("a request");
        for resource in message.resource_spans {
            let of_resource =
                resource.resource.map(|resource| words(&resource.attributes)).unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if !seen.insert((span.span_id.clone(), span.end_time_unix_nano)) {
                    continue;
                }
                let mut attributes = of_resource.clone();
                attributes.extend(words(&span.attributes));
                all.push(Exported {
                    id: span.span_id,
                    trace: span.trace_id,
                    parent: span.parent_span_id,
                    kind: span.kind,
                    name: span.name,
                    start_ns: span.start_time_unix_nano,
                    duration_ns: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                    attributes,
                });
            }
        }
    }
    all
}

/// A value in words; those of a list are joined by commas.
fn plain(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => format!("{other:?}"),
    }
}

fn words(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let word = |one: &KeyValue| one.value.as_ref().map(plain).unwrap_or_default();
    attributes.iter().map(|one| (one.key.clone(), word(one))).collect()
}
