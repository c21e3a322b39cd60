//! Spans as the API tells them (OTLP/JSON), with what a test asks of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::server::Server;

/// A span with what it says.
#[derive(Debug, Clone)]
pub struct Span {
    pub service: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    /// 2 server, 3 client.
    pub kind: u64,
    pub start_ns: u64,
    pub duration_ns: u64,
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    /// An attribute as text; empty if it is not there.
    pub fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// The attributes of something, as text.
pub fn attributes(of: &Value) -> BTreeMap<String, String> {
    let list = of["attributes"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| {
        let value = value.as_object().and_then(|value| value.values().next()).cloned().unwrap_or_default();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    list.iter().map(|one| (one["key"].as_str().unwrap_or_default().to_owned(), text(&one["value"]))).collect()
}

/// The spans of a trace.
pub fn spans_of(trace: &Value) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in trace["resourceSpans"].as_array().expect("resources") {
        let service = attributes(&resource["resource"]).remove("service.name").unwrap_or_default();
        for scope in resource["scopeSpans"].as_array().expect("scopes") {
            for span in scope["spans"].as_array().expect("spans") {
                let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
                let time = |key: &str| text(key).parse::<u64>().unwrap_or_default();
                spans.push(Span {
                    service: service.clone(),
                    trace: text("traceId"),
                    id: text("spanId"),
                    parent: text("parentSpanId"),
                    name: text("name"),
                    kind: span["kind"].as_u64().unwrap_or_default(),
                    start_ns: time("startTimeUnixNano"),
                    duration_ns: time("endTimeUnixNano").saturating_sub(time("startTimeUnixNano")),
                    attributes: attributes(span),
                });
            }
        }
    }
    spans
}

/// All traces that a question finds (`&service=…`), by their ids.
pub fn trace_ids(server: &Server, more: &str) -> Vec<String> {
    server.flush();
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = server.get(&format!("/api/v1/traces?limit=1000{more}{cursor}")).expect(200).json();
        let traces = answer["traces"].as_array().expect("traces");
        ids.extend(traces.iter().map(|one| one["trace_id"].as_str().expect("an id").to_owned()));
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

/// The spans of a trace, by its id.
pub fn trace(server: &Server, id: &str) -> Vec<Span> {
    spans_of(&server.get(&format!("/api/v1/traces/{id}")).expect(200).json())
}
