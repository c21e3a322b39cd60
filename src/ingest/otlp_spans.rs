//! A request of OTLP traces as spans.
//!
//! A span that has no ids, or that is of a time that cannot be, is left out and counted; the others are
//! taken. What SDKs have left out stands on the span as the attributes that count it. Sizes are the store's
//! business.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as proto;
use prost::Message as _;

use super::otlp_request::is_plausible;
use super::{IngestError, Limits, Rejected, wire};
use crate::model::span::{
    Attribute, AttributeValue, DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS, Span, SpanEvent, SpanId,
    SpanKind, SpanLink, SpanResource, SpanStatus, Text, TraceId,
};

/// What a request holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReceivedSpans {
    /// Its spans, in its order.
    pub spans: Vec<Span>,
    /// Spans that are left out, by reason.
    pub rejected: Vec<Rejected>,
}

/// Reads an `ExportTraceServiceRequest`, uncompressed.
///
/// # Errors
/// [`IngestError`]: then nothing of the request is of use.
pub fn read_spans(bytes: &[u8], limits: &Limits, now_unix_ns: u64) -> Result<ReceivedSpans, IngestError> {
    if bytes.len() > limits.file_bytes {
        return Err(IngestError::TooLarge { what: "bytes in the request", limit: limits.file_bytes });
    }
    wire::check_fields_deeply(bytes, limits.fields)?;
    let request = ExportTraceServiceRequest::decode(bytes).map_err(|error| IngestError::Malformed {
        format: "OTLP",
        place: "ExportTraceServiceRequest".to_owned(),
        what: error.to_string(),
    })?;
    let mut spans = Vec::new();
    let (mut without_ids, mut out_of_time) = (0, 0);
    for of_resource in request.resource_spans {
        let mut attributes = attributes(of_resource.resource.unwrap_or_default().attributes);
        attributes.sort_by(|(one, _), (other, _)| one.cmp(other));
        attributes.dedup_by(|(later, _), (first, _)| later == first);
        let resource = Arc::new(SpanResource { attributes });
        for of_scope in of_resource.scope_spans {
            let scope = of_scope.scope.unwrap_or_default();
            let scope = Arc::new((scope.name, scope.version));
            for span in of_scope.spans {
                if !is_plausible(span.start_time_unix_nano, 0, now_unix_ns)
                    || span.end_time_unix_nano != 0 && !is_plausible(span.end_time_unix_nano, 0, now_unix_ns)
                {
                    out_of_time += 1;
                    continue;
                }
                match read_span(span, &resource, &scope) {
                    Some(span) => spans.push(span),
                    None => without_ids += 1,
                }
            }
        }
    }
    let rejections = [
        (without_ids, "ingest_invalid_id", "trace_id has 16 bytes and span_id 8, not all of them zero"),
        (out_of_time, "ingest_time_out_of_range", "start or end is more than a year ago, or in the future"),
    ];
    let rejected = rejections.into_iter().filter(|&(items, ..)| items > 0).map(|(items, reason, message)| {
        Rejected { items, reason, message: format!("{items} spans: {message}") }
    });
    Ok(ReceivedSpans { spans, rejected: rejected.collect() })
}

fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    TraceId::new(bytes.try_into().ok()?)
}

fn span_id(bytes: &[u8]) -> Option<SpanId> {
    SpanId::new(bytes.try_into().ok()?)
}

/// Nothing if it has no ids. A parent that is none counts as none.
fn read_span(span: proto::Span, resource: &Arc<SpanResource>, scope: &Arc<(String, String)>) -> Option<Span> {
    let status = span.status.unwrap_or_default();
    let mut attributes = attributes(span.attributes);
    let dropped = [
        (DROPPED_ATTRIBUTES, span.dropped_attributes_count),
        (DROPPED_EVENTS, span.dropped_events_count),
        (DROPPED_LINKS, span.dropped_links_count),
    ];
    for (name, count) in dropped.into_iter().filter(|&(_, count)| count > 0) {
        attributes.push((Cow::Borrowed(name), AttributeValue::Integer(count.into())));
    }
    Some(Span {
        trace_id: trace_id(&span.trace_id)?,
        span_id: span_id(&span.span_id)?,
        parent_span_id: span_id(&span.parent_span_id),
        trace_state: span.trace_state,
        name: span.name,
        kind: match span.kind {
            1 => SpanKind::Internal,
            2 => SpanKind::Server,
            3 => SpanKind::Client,
            4 => SpanKind::Producer,
            5 => SpanKind::Consumer,
            _ => SpanKind::Unspecified,
        },
        start_unix_ns: span.start_time_unix_nano,
        end_unix_ns: (span.end_time_unix_nano != 0)
            .then(|| span.end_time_unix_nano.max(span.start_time_unix_nano)),
        status: match status.code {
            1 => SpanStatus::Ok,
            2 => SpanStatus::Error,
            _ => SpanStatus::Unset,
        },
        status_message: status.message,
        attributes,
        events: span
            .events
            .into_iter()
            .map(|event| SpanEvent {
                time_unix_ns: event.time_unix_nano,
                name: event.name,
                attributes: self::attributes(event.attributes),
            })
            .collect(),
        links: span
            .links
            .into_iter()
            .filter_map(|link| {
                Some(SpanLink {
                    trace_id: trace_id(&link.trace_id)?,
                    span_id: span_id(&link.span_id)?,
                    trace_state: link.trace_state,
                    attributes: self::attributes(link.attributes),
                })
            })
            .collect(),
        resource: Arc::clone(resource),
        scope: Arc::clone(scope),
    })
}

fn attributes(attributes: Vec<KeyValue>) -> Vec<Attribute> {
    attributes.into_iter().map(|pair| (Cow::Owned(pair.key), value(pair.value))).collect()
}

/// An empty value is an empty text. Values within values are as deep as the decoder lets them be.
fn value(value: Option<AnyValue>) -> AttributeValue {
    use any_value::Value;
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => AttributeValue::Text(text.into()),
        Some(Value::BoolValue(truth)) => AttributeValue::Truth(truth),
        Some(Value::IntValue(number)) => AttributeValue::Integer(number),
        Some(Value::DoubleValue(number)) => AttributeValue::Real(number),
        Some(Value::BytesValue(bytes)) => AttributeValue::Bytes(bytes),
        Some(Value::ArrayValue(array)) => {
            AttributeValue::List(array.values.into_iter().map(|it| self::value(Some(it))).collect())
        }
        Some(Value::KvlistValue(list)) => {
            AttributeValue::Map(list.values.into_iter().map(|it| (it.key, self::value(it.value))).collect())
        }
        // References into a table that only profiles have.
        Some(Value::StringValueStrindex(_)) | None => AttributeValue::Text(Text::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::otlp_spans;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000_000_000;

    fn span(number: u8) -> Span {
        let all = AttributeValue::Map(vec![
            (
                "list".to_owned(),
                AttributeValue::List(vec![AttributeValue::Real(0.5), AttributeValue::Truth(true)]),
            ),
            ("bytes".to_owned(), AttributeValue::Bytes(vec![0, 255])),
        ]);
        let attributes = vec![
            (Cow::Borrowed("all"), all),
            (Cow::Borrowed("number"), AttributeValue::Integer(-1)),
            (Cow::Borrowed("text"), AttributeValue::Text("é".into())),
        ];
        Span {
            trace_id: TraceId::new([number; 16]).unwrap(),
            span_id: SpanId::new([number; 8]).unwrap(),
            parent_span_id: SpanId::new([9; 8]),
            trace_state: "a=b".to_owned(),
            name: "GET /".to_owned(),
            kind: SpanKind::Client,
            start_unix_ns: NOW,
            end_unix_ns: Some(NOW + 5),
            status: SpanStatus::Error,
            status_message: "no".to_owned(),
            attributes: attributes.clone(),
            events: vec![SpanEvent {
                time_unix_ns: NOW + 1,
                name: "e".to_owned(),
                attributes: attributes.clone(),
            }],
            links: vec![SpanLink {
                trace_id: TraceId::new([3; 16]).unwrap(),
                span_id: SpanId::new([4; 8]).unwrap(),
                trace_state: String::new(),
                attributes: attributes.clone(),
            }],
            resource: Arc::new(SpanResource { attributes }),
            scope: Arc::new(("spanflame".to_owned(), "1".to_owned())),
        }
    }

    #[test]
    fn what_was_exported_is_read_back() {
        let mut spans = vec![span(1), span(2), span(3)];
        spans[0].attributes.push((Cow::Borrowed(DROPPED_EVENTS), AttributeValue::Integer(7)));
        spans[1].scope = Arc::default();
        spans[2].resource = Arc::default();
        spans[2].end_unix_ns = None;
        let message = otlp_spans::encoded(&spans);
        let received = read_spans(&message, &Limits::default(), NOW).unwrap();
        assert_eq!(received, ReceivedSpans { spans, rejected: Vec::new() });
        let request = ExportTraceServiceRequest::decode(message.as_slice()).unwrap();
        assert_eq!(request.resource_spans.len(), 2);
        assert_eq!(request.resource_spans[0].scope_spans.len(), 2);
        let first = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((first.dropped_events_count, first.attributes.len()), (7, 3));
    }

    #[test]
    fn requests_are_cut_to_the_limit_and_what_is_too_large_for_any_is_counted() {
        let mut spans: Vec<Span> = (1..=40).map(span).collect();
        spans[7].attributes.push((Cow::Borrowed("large"), AttributeValue::Text("x".repeat(10_000).into())));
        let all: Vec<&Span> = spans.iter().collect();
        let (requests, too_large) = otlp_spans::requests(&all, 5_000);
        assert_eq!(too_large, 1);
        assert_eq!(requests.iter().map(|(_, spans)| spans).sum::<u64>(), 39);
        assert!(requests.len() > 3 && requests.iter().all(|(message, _)| message.len() <= 5_000));
        let mut names = Vec::new();
        for (message, count) in &requests {
            let received = read_spans(message, &Limits::default(), NOW).unwrap();
            assert_eq!(received.spans.len() as u64, *count);
            names.extend(received.spans.iter().map(|span| span.span_id));
        }
        spans.remove(7);
        assert_eq!(names, spans.iter().map(|span| span.span_id).collect::<Vec<_>>());
        assert_eq!(otlp_spans::requests(&[], 5_000), (Vec::new(), 0));
    }

    #[test]
    fn spans_without_ids_and_of_impossible_times_are_counted_and_the_others_taken() {
        let mut request = otlp_spans::request(&[span(1), span(2), span(3), span(4)]);
        let spans = &mut request.resource_spans[0].scope_spans[0].spans;
        spans[0].trace_id = vec![0; 16];
        spans[1].span_id = vec![1; 7];
        spans[2].start_time_unix_nano = 0;
        spans[3].parent_span_id = vec![1];
        let received = read_spans(&request.encode_to_vec(), &Limits::default(), NOW).unwrap();
        assert_eq!(received.spans, [Span { parent_span_id: None, ..span(4) }]);
        let rejected: Vec<_> = received.rejected.iter().map(|it| (it.items, it.reason)).collect();
        assert_eq!(rejected, [(2, "ingest_invalid_id"), (1, "ingest_time_out_of_range")]);
    }

    #[test]
    fn values_in_values_in_values_are_counted_before_they_are_decoded() {
        // A list of two million empty values, at the bottom of twenty others: two bytes each.
        let wrap = |number: u8, inner: &[u8]| {
            let mut bytes = vec![number << 3 | 2];
            prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
            bytes.extend_from_slice(inner);
            bytes
        };
        let mut value = [0x0a, 0x00].repeat(2_000_000);
        for _ in 0..20 {
            // AnyValue.array_value, ArrayValue.values
            value = wrap(1, &wrap(5, &value));
        }
        let attribute = wrap(2, &wrap(5, &value));
        let request = wrap(1, &wrap(2, &wrap(2, &wrap(9, &attribute))));
        let limits = Limits { fields: 100_000, ..Limits::default() };
        assert!(matches!(read_spans(&request, &limits, NOW), Err(IngestError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = read_spans(&bytes, &Limits::default(), NOW);
        }

        #[test]
        fn damaged_requests_never_panic(at: usize, byte: u8) {
            let mut message = otlp_spans::encoded(&[span(1), span(2)]);
            let at = at % message.len();
            message[at] = byte;
            let _ = read_spans(&message, &Limits::default(), NOW);
            message.truncate(at);
            let _ = read_spans(&message, &Limits::default(), NOW);
        }
    }
}
