//! Spans as OTLP's message of traces (opentelemetry-proto, `trace/v1/trace.proto`).
//!
//! Spans of one resource stand together, and in it those of one library, each in the order they came in. The
//! attributes that count what was left out (`otel.dropped_attributes_count`, …) go into the fields that OTLP has for that.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message as _;

use crate::model::span::{
    Attribute, AttributeValue, DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS, Span, SpanResource,
    integer_of,
};

const DROPPED: [&str; 3] = [DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS];
/// W3C's flag: it holds for whatever is exported.
const SAMPLED: u32 = 1;

/// The message of these spans.
#[must_use]
pub fn request<'a>(spans: impl IntoIterator<Item = &'a Span>) -> ExportTraceServiceRequest {
    let mut resources: Vec<(Arc<SpanResource>, proto::ResourceSpans)> = Vec::new();
    // Most spans of a process share one resource; equal ones of two batches do not.
    let mut places: HashMap<*const SpanResource, usize> = HashMap::new();
    for span in spans {
        let place = *places.entry(Arc::as_ptr(&span.resource)).or_insert_with(|| {
            if let Some(place) = resources.iter().position(|(resource, _)| *resource == span.resource) {
                return place;
            }
            let resource =
                Resource { attributes: attributes(&span.resource.attributes), ..Resource::default() };
            let resource =
                proto::ResourceSpans { resource: Some(resource), ..proto::ResourceSpans::default() };
            resources.push((Arc::clone(&span.resource), resource));
            resources.len() - 1
        });
        let Some((_, resource)) = resources.get_mut(place) else { continue };
        let (name, version) = &*span.scope;
        let is_it = |scope: &proto::ScopeSpans| {
            scope.scope.as_ref().is_some_and(|scope| scope.name == *name && scope.version == *version)
        };
        match resource.scope_spans.iter_mut().find(|scope| is_it(scope)) {
            Some(scope) => scope.spans.push(message(span)),
            None => {
                let scope = InstrumentationScope {
                    name: name.clone(),
                    version: version.clone(),
                    ..InstrumentationScope::default()
                };
                let scope = Some(scope);
                let spans = vec![message(span)];
                resource.scope_spans.push(proto::ScopeSpans { scope, spans, ..proto::ScopeSpans::default() });
            }
        }
    }
    ExportTraceServiceRequest { resource_spans: resources.into_iter().map(|(_, spans)| spans).collect() }
}

/// The message of these spans, on the wire: also `TracesData`.
#[must_use]
pub fn encoded<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Vec<u8> {
    request(spans).encode_to_vec()
}

/// Messages of at most `limit` bytes each, with how many spans each has, and how many spans are too large for
/// any.
#[must_use]
pub fn requests(spans: &[&Span], limit: usize) -> (Vec<(Vec<u8>, u64)>, u64) {
    let mut requests = Vec::new();
    let mut too_large = 0;
    // Halves of what is too large, the first ones on top.
    let mut waiting = vec![spans];
    while let Some(spans) = waiting.pop() {
        let expected: usize = spans.iter().map(|span| approximate_bytes(span)).sum();
        if expected <= limit || spans.len() <= 1 {
            let message = encoded(spans.iter().copied());
            if message.len() <= limit {
                if !spans.is_empty() {
                    requests.push((message, spans.len() as u64));
                }
                continue;
            }
            if spans.len() == 1 {
                too_large += 1;
                continue;
            }
        }
        let (first, second) = spans.split_at(spans.len() / 2);
        waiting.extend([second, first]);
    }
    (requests, too_large)
}

/// About how many bytes a span takes, in memory and on the wire.
#[must_use]
pub fn approximate_bytes(span: &Span) -> usize {
    fn of_value(value: &AttributeValue) -> usize {
        8 + match value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Bytes(bytes) => bytes.len(),
            AttributeValue::Integer(_) | AttributeValue::Real(_) | AttributeValue::Truth(_) => 8,
            AttributeValue::List(values) => values.iter().map(of_value).sum(),
            AttributeValue::Map(values) => {
                values.iter().map(|(key, value)| key.len() + of_value(value)).sum()
            }
        }
    }
    let of_attributes = |attributes: &[Attribute]| -> usize {
        attributes.iter().map(|(key, value)| 8 + key.len() + of_value(value)).sum()
    };
    let events: usize = span.events.iter().map(|it| 32 + it.name.len() + of_attributes(&it.attributes)).sum();
    let links: usize =
        span.links.iter().map(|it| 40 + it.trace_state.len() + of_attributes(&it.attributes)).sum();
    let texts = span.name.len() + span.trace_state.len() + span.status_message.len();
    128 + texts + of_attributes(&span.attributes) + events + links
}

fn message(span: &Span) -> proto::Span {
    let dropped = |name: &str| {
        integer_of(&span.attributes, name).map_or(0, |count| u32::try_from(count.max(0)).unwrap_or(u32::MAX))
    };
    let told = span.attributes.iter().filter(|(name, _)| !DROPPED.contains(&&**name));
    proto::Span {
        trace_id: span.trace_id.bytes().to_vec(),
        span_id: span.span_id.bytes().to_vec(),
        trace_state: span.trace_state.clone(),
        parent_span_id: span.parent_span_id.map_or_else(Vec::new, |id| id.bytes().to_vec()),
        flags: SAMPLED,
        name: span.name.clone(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start_unix_ns,
        end_time_unix_nano: span.end_unix_ns.unwrap_or(0),
        attributes: told.map(key_value).collect(),
        dropped_attributes_count: dropped(DROPPED_ATTRIBUTES),
        events: span
            .events
            .iter()
            .map(|event| proto::span::Event {
                time_unix_nano: event.time_unix_ns,
                name: event.name.clone(),
                attributes: attributes(&event.attributes),
                dropped_attributes_count: 0,
            })
            .collect(),
        dropped_events_count: dropped(DROPPED_EVENTS),
        links: span
            .links
            .iter()
            .map(|link| proto::span::Link {
                trace_id: link.trace_id.bytes().to_vec(),
                span_id: link.span_id.bytes().to_vec(),
                trace_state: link.trace_state.clone(),
                attributes: attributes(&link.attributes),
                ..proto::span::Link::default()
            })
            .collect(),
        dropped_links_count: dropped(DROPPED_LINKS),
        status: Some(proto::Status { message: span.status_message.clone(), code: span.status as i32 }),
    }
}

fn attributes(attributes: &[Attribute]) -> Vec<KeyValue> {
    attributes.iter().map(key_value).collect()
}

fn key_value((key, value): &Attribute) -> KeyValue {
    KeyValue { key: key.to_string(), value: Some(any_value_of(value)), ..KeyValue::default() }
}

fn any_value_of(value: &AttributeValue) -> AnyValue {
    use any_value::Value;
    let value = match value {
        AttributeValue::Text(text) => Value::StringValue(text.to_string()),
        AttributeValue::Integer(number) => Value::IntValue(*number),
        AttributeValue::Real(number) => Value::DoubleValue(*number),
        AttributeValue::Truth(truth) => Value::BoolValue(*truth),
        AttributeValue::Bytes(bytes) => Value::BytesValue(bytes.clone()),
        AttributeValue::List(values) => {
            Value::ArrayValue(ArrayValue { values: values.iter().map(any_value_of).collect() })
        }
        AttributeValue::Map(values) => {
            let pair = |(key, value): &(String, AttributeValue)| KeyValue {
                key: key.clone(),
                value: Some(any_value_of(value)),
                ..KeyValue::default()
            };
            Value::KvlistValue(KeyValueList { values: values.iter().map(pair).collect() })
        }
    };
    AnyValue { value: Some(value) }
}
