//! Processes that export spans of their own: which they are is seen by what they send.
//!
//! Comes in: spans of ours, requests without one, and what SDKs' spans were joined with. Goes out: whether the process of a span exports
//! by itself. Never: a guess from an environment or a library that is loaded.
//!
//! A process that sends a request with traces (`POST …/v1/traces`, or OTLP's `TraceService/Export`) exports,
//! unless it has received one too: then it passes on what others made, as a Collector or a proxy does.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::model::UnsampledRequest;
use crate::model::span::{Span, SpanKind, SpanResource, integer_of, text_of};

const GRPC_METHOD: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP_PATH: &str = "/v1/traces";
/// Beyond so many, those that have ended are forgotten; if all live, no other is noted: spans of those are exported
/// beside their own.
const MAX_PROCESSES: usize = 16_384;

/// A process, by number and executable: numbers are used again.
type Process = (i64, String);

#[derive(Debug, Default)]
struct Known {
    senders: HashMap<i64, String>,
    receivers: HashSet<Process>,
}

impl Known {
    fn note_sender(&mut self, pid: i64, executable: String) {
        if self.senders.len() >= MAX_PROCESSES && !self.senders.contains_key(&pid) {
            self.senders.retain(|&pid, _| lives(pid));
        }
        if self.senders.len() < MAX_PROCESSES || self.senders.contains_key(&pid) {
            self.senders.insert(pid, executable);
        }
    }
}

fn lives(pid: i64) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct SelfExporters {
    known: Mutex<Known>,
}

impl SelfExporters {
    /// Looks at a span of ours.
    pub fn look_at(&self, span: &Span) {
        if is_export(span) {
            self.note(span.kind, &span.resource);
        }
    }

    /// Looks at a request that has no span.
    pub fn look_at_unsampled(&self, request: &UnsampledRequest) {
        let is_export = match &request.rpc {
            Some((service, method)) => GRPC_METHOD.split_once('/') == Some((service, method)),
            None => {
                request.http_method.as_deref() == Some("POST")
                    && request.path.as_deref().is_some_and(|path| path.ends_with(HTTP_PATH))
            }
        };
        if is_export {
            self.note(request.kind, &request.resource);
        }
    }

    fn note(&self, kind: SpanKind, resource: &SpanResource) {
        let Some((pid, executable)) = process_of(resource) else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            SpanKind::Client => known.note_sender(pid, executable),
            SpanKind::Server => {
                if known.receivers.len() >= MAX_PROCESSES {
                    known.receivers.retain(|(pid, _)| lives(*pid));
                }
                if known.receivers.len() < MAX_PROCESSES {
                    known.receivers.insert((pid, executable));
                }
            }
            _ => {}
        }
    }

    /// An SDK's span was joined with this one of ours: its process exports, whatever way that takes.
    pub fn was_joined(&self, span: &Span) {
        let Some((pid, executable)) = process_of(&span.resource) else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.note_sender(pid, executable);
    }

    /// Whether the process of this span exports spans of its own.
    #[must_use]
    pub fn has(&self, span: &Span) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.senders.is_empty() {
            return false;
        }
        let Some(process) = process_of(&span.resource) else { return false };
        known.senders.get(&process.0) == Some(&process.1) && !known.receivers.contains(&process)
    }

    /// How many there are that are known.
    #[must_use]
    pub fn count(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_relay =
            |(pid, executable): &(&i64, &String)| known.receivers.contains(&(**pid, (*executable).clone()));
        known.senders.iter().filter(|process| !is_relay(process)).count()
    }
}

fn process_of(resource: &SpanResource) -> Option<Process> {
    let pid = integer_of(&resource.attributes, "process.pid")?;
    Some((pid, resource.text("process.executable.path").unwrap_or_default().to_owned()))
}

/// Whether it is a request with traces, sent or received.
fn is_export(span: &Span) -> bool {
    if span.name == GRPC_METHOD {
        return true;
    }
    let text = |names: [&str; 2]| names.iter().find_map(|name| text_of(&span.attributes, name));
    if text(["http.request.method", "http.method"]) != Some("POST") {
        return false;
    }
    let path = match span.kind {
        SpanKind::Server => text(["url.path", "http.url"]),
        _ => text(["url.full", "http.url"]),
    };
    path.is_some_and(|path| path.split('?').next().is_some_and(|path| path.ends_with(HTTP_PATH)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::span::{AttributeValue, SpanId, SpanResource, SpanStatus, TraceId};

    fn span(kind: SpanKind, pid: i64, name: &str, attributes: &[(&'static str, &str)]) -> Span {
        let text = |text: &str| AttributeValue::Text(text.into());
        Span {
            trace_id: TraceId::nonzero([1; 16]),
            span_id: SpanId::nonzero([1; 8]),
            parent_span_id: None,
            trace_state: String::new(),
            name: name.to_owned(),
            kind,
            start_unix_ns: 1,
            end_unix_ns: Some(2),
            status: SpanStatus::Unset,
            status_message: String::new(),
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), text(value))).collect(),
            events: Vec::new(),
            links: Vec::new(),
            resource: Arc::new(SpanResource {
                attributes: vec![("process.pid".into(), AttributeValue::Integer(pid))],
            }),
            scope: Arc::default(),
        }
    }

    #[test]
    fn who_sends_traces_exports_and_who_passes_them_on_does_not() {
        let exporters = SelfExporters::default();
        let post = ("http.request.method", "POST");
        let sent = |pid, url| span(SpanKind::Client, pid, "POST /v1/traces", &[post, ("url.full", url)]);
        exporters.look_at(&sent(1, "http://127.0.0.1:4318/v1/traces"));
        exporters.look_at(&span(SpanKind::Client, 2, GRPC_METHOD, &[]));
        exporters.look_at(&sent(3, "http://collector/base/v1/traces?x=y"));
        exporters.look_at(&span(SpanKind::Server, 3, "POST", &[post, ("url.path", "/base/v1/traces")]));
        exporters.look_at(&sent(4, "http://127.0.0.1:4318/v1/metrics"));
        exporters.look_at(&span(SpanKind::Server, 5, GRPC_METHOD, &[]));
        let unsampled = |pid, method: &'static str, path: &str| UnsampledRequest {
            kind: SpanKind::Client,
            is_rpc: false,
            resource: span(SpanKind::Client, pid, "", &[]).resource,
            http_method: Some(method.into()),
            rpc: None,
            path: Some(path.into()),
            route: None,
            status_code: Some(200),
            error: None,
            duration_ns: 1,
            end_unix_ns: 2,
        };
        exporters.look_at_unsampled(&unsampled(6, "POST", "/base/v1/traces"));
        exporters.look_at_unsampled(&unsampled(7, "GET", "/v1/traces"));
        let (service, method) = GRPC_METHOD.split_once('/').expect("a method");
        let rpc = Some((service.to_owned(), method.to_owned()));
        let by_rpc =
            UnsampledRequest { is_rpc: true, http_method: Some("POST".into()), rpc, ..unsampled(8, "", "") };
        exporters.look_at_unsampled(&by_rpc);
        let has = |pid| exporters.has(&span(SpanKind::Server, pid, "GET /", &[]));
        assert_eq!([1, 2, 3, 4, 5].map(has), [true, true, false, false, false]);
        assert_eq!([6, 7, 8].map(has), [true, false, true], "sampled or not");
        assert_eq!(exporters.count(), 4);
        let mut another_program = span(SpanKind::Server, 1, "GET /", &[]);
        Arc::make_mut(&mut another_program.resource)
            .attributes
            .push(("process.executable.path".into(), AttributeValue::Text("/bin/other".into())));
        assert!(!exporters.has(&another_program), "its number is used again");
        exporters.was_joined(&another_program);
        assert!(exporters.has(&another_program));
    }
}
