//! Has the SDK write spans to ORACLE_SPANS, a line of JSON each; see ../../../oracle/truth.py.

use std::env;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanId, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use serde_json::{Map, Value, json};

#[derive(Debug)]
struct SpanFile(Mutex<BufWriter<File>>);

fn unix_ns(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn line(span: &SpanData) -> Value {
    let attributes: Map<String, Value> = span
        .attributes
        .iter()
        .map(|attribute| (attribute.key.to_string(), Value::from(attribute.value.to_string())))
        .collect();
    let has_parent = span.parent_span_id != SpanId::INVALID;
    json!({
        "trace_id": span.span_context.trace_id().to_string(),
        "span_id": span.span_context.span_id().to_string(),
        "parent_span_id": if has_parent { span.parent_span_id.to_string() } else { String::new() },
        "kind": match span.span_kind { SpanKind::Server => "server", SpanKind::Client => "client", _ => "internal" },
        "name": span.name,
        "start_unix_ns": unix_ns(span.start_time),
        "end_unix_ns": unix_ns(span.end_time),
        "attributes": attributes,
    })
}

impl SpanExporter for SpanFile {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written: io::Result<()> =
            batch.iter().try_for_each(|span| writeln!(file, "{}", line(span))).and_then(|()| file.flush());
        written.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }
}

/// The SDK; `None` without ORACLE_SPANS. It propagates as OTEL_PROPAGATORS says.
pub fn provider() -> io::Result<Option<SdkTracerProvider>> {
    let Ok(path) = env::var("ORACLE_SPANS") else { return Ok(None) };
    let file = SpanFile(Mutex::new(BufWriter::new(File::create(path)?)));
    let provider = SdkTracerProvider::builder().with_batch_exporter(file).build();
    opentelemetry::global::set_tracer_provider(provider.clone());
    if env::var("OTEL_PROPAGATORS").is_ok_and(|propagators| propagators == "tracecontext") {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    }
    Ok(Some(provider))
}

/// A context with a new span in it, which lasts until it is ended.
pub fn start(
    name: &'static str,
    kind: SpanKind,
    attribute: &'static str,
    value: &str,
    parent: &Context,
) -> Context {
    let tracer = opentelemetry::global::tracer("oracle");
    let builder = tracer
        .span_builder(name)
        .with_kind(kind)
        .with_attributes([KeyValue::new(attribute, value.to_owned())]);
    parent.with_span(tracer.build_with_context(builder, parent))
}
