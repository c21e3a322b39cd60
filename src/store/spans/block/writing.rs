//! Spans → a block, whose format `block.rs` tells.

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::{
    EncodedBlock, HAS_PARENT, HAS_STATUS_CODE, IS_JOINED_FROM, IS_JOINED_TO, IS_OPEN, Joined, STATUS_SHIFT,
    span_key, trace_key,
};
use crate::model::span::{Attribute, AttributeValue, Span, SpanResource, TraceId, integer_of, text_of};
use crate::store::spans::dictionary::{Promote, SpanDictionary};
use crate::store::varint::{put, put_signed};

/// The texts of a blob as they are collected.
#[derive(Debug, Default)]
struct TextWriter {
    places: HashMap<Vec<u8>, u64>,
    bytes: Vec<u8>,
}

impl TextWriter {
    fn place(&mut self, text: &[u8], promote: Promote, dictionary: &mut SpanDictionary) -> u64 {
        if let Some(&place) = self.places.get(text) {
            return place;
        }
        let place = self.places.len() as u64;
        self.places.insert(text.to_owned(), place);
        match dictionary.number(text, promote) {
            Some(number) => put(&mut self.bytes, u64::from(number) + 1),
            None => {
                self.bytes.push(0);
                put(&mut self.bytes, text.len() as u64);
                self.bytes.extend_from_slice(text);
            }
        }
        place
    }

    /// The texts, and then the rest of the blob.
    fn before(self, rest: &[u8]) -> Vec<u8> {
        let mut blob = Vec::with_capacity(self.bytes.len() + rest.len() + 5);
        put(&mut blob, self.places.len() as u64);
        blob.extend_from_slice(&self.bytes);
        blob.extend_from_slice(rest);
        blob
    }
}

/// Puts a block together.
#[derive(Debug)]
pub(in crate::store) struct BlockWriter<'a> {
    dictionary: &'a mut SpanDictionary,
    block: EncodedBlock,
    traces: HashMap<TraceId, u64>,
    last_start_ns: u64,
    row_texts: TextWriter,
    detail_texts: TextWriter,
    detail: Vec<u8>,
    /// The resource of the span before, and where it is: those of one process come together.
    last_resource: Option<(Arc<SpanResource>, u64)>,
}

impl<'a> BlockWriter<'a> {
    pub(in crate::store) fn new(dictionary: &'a mut SpanDictionary) -> Self {
        Self {
            dictionary,
            block: EncodedBlock {
                spans: 0,
                first_start_ns: u64::MAX,
                last_start_ns: 0,
                keys: Vec::new(),
                rows: Vec::new(),
                details: Vec::new(),
            },
            traces: HashMap::new(),
            last_start_ns: 0,
            row_texts: TextWriter::default(),
            detail_texts: TextWriter::default(),
            detail: Vec::new(),
            last_resource: None,
        }
    }

    pub(in crate::store) fn spans(&self) -> u32 {
        self.block.spans
    }

    /// About how many bytes it has.
    pub(in crate::store) fn bytes(&self) -> usize {
        let texts = self.row_texts.bytes.len() + self.detail_texts.bytes.len();
        self.block.keys.len() + self.block.rows.len() + self.block.details.len() + texts
    }

    /// Adds a span that is within the limits.
    pub(in crate::store) fn add(&mut self, span: &Span) {
        self.block.keys.extend_from_slice(&trace_key(span.trace_id).to_le_bytes());
        self.block.keys.extend_from_slice(&span_key(span.span_id).to_le_bytes());
        self.add_row(span);
        self.add_detail(span);
        self.block.spans += 1;
        self.block.first_start_ns = self.block.first_start_ns.min(span.start_unix_ns);
        self.block.last_start_ns = self.block.last_start_ns.max(span.start_unix_ns);
    }

    fn add_row(&mut self, span: &Span) {
        let (rows, texts) = (&mut self.block.rows, &mut self.row_texts);
        let status_code = status_code(span);
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let joined = Joined::of(span);
        rows.push(
            match joined {
                None => span.kind as u8,
                Some(Joined::To(_)) => IS_JOINED_TO,
                Some(Joined::From(_)) => IS_JOINED_FROM,
            } | (span.status as u8) << STATUS_SHIFT
                | bit(span.parent_span_id.is_some(), HAS_PARENT)
                | bit(span.end_unix_ns.is_none(), IS_OPEN)
                | bit(status_code.is_some(), HAS_STATUS_CODE),
        );
        let traces = self.traces.len() as u64;
        match self.traces.get(&span.trace_id) {
            Some(&trace) => put(rows, traces - trace),
            None => {
                self.traces.insert(span.trace_id, traces);
                rows.push(0);
                rows.extend_from_slice(&span.trace_id.bytes());
            }
        }
        rows.extend_from_slice(&span.span_id.bytes());
        if let Some(parent) = span.parent_span_id {
            rows.extend_from_slice(&parent.bytes());
        }
        if let Some(Joined::To((trace_id, span_id)) | Joined::From((trace_id, span_id))) = joined {
            rows.push(span.kind as u8);
            rows.extend_from_slice(&trace_id.bytes());
            rows.extend_from_slice(&span_id.bytes());
        }
        put_signed(rows, span.start_unix_ns.wrapping_sub(self.last_start_ns).cast_signed());
        self.last_start_ns = span.start_unix_ns;
        if let Some(duration_ns) = span.duration_ns() {
            put(rows, duration_ns);
        }
        let mut place = |text: &str| texts.place(text.as_bytes(), Promote::AtOnce, self.dictionary);
        put(rows, place(span.resource.service()));
        put(rows, place(&span.name));
        put(rows, place(&span.scope.0));
        for text in [route(span), method(span)] {
            put(rows, text.map_or(0, |text| place(&text) + 1));
        }
        if let Some(code) = status_code {
            put(rows, u64::from(code));
        }
    }

    fn add_detail(&mut self, span: &Span) {
        self.detail.clear();
        let resource = match &self.last_resource {
            Some((last, place)) if Arc::ptr_eq(last, &span.resource) => *place,
            _ => {
                let resource = encode_resource(&span.resource);
                let place = self.detail_texts.place(&resource, Promote::AtOnce, self.dictionary);
                self.last_resource = Some((Arc::clone(&span.resource), place));
                place
            }
        };
        put(&mut self.detail, resource);
        let version = self.place(&span.scope.1, Promote::AtOnce);
        put(&mut self.detail, version);
        for text in [&span.trace_state, &span.status_message] {
            let place = self.place(text, Promote::WhenSeenAgain);
            put(&mut self.detail, place);
        }
        self.attributes(&span.attributes);
        put(&mut self.detail, span.events.len() as u64);
        for event in &span.events {
            put_signed(&mut self.detail, event.time_unix_ns.wrapping_sub(span.start_unix_ns).cast_signed());
            let name = self.place(&event.name, Promote::WhenSeenAgain);
            put(&mut self.detail, name);
            self.attributes(&event.attributes);
        }
        put(&mut self.detail, span.links.len() as u64);
        for link in &span.links {
            self.detail.extend_from_slice(&link.trace_id.bytes());
            self.detail.extend_from_slice(&link.span_id.bytes());
            let state = self.place(&link.trace_state, Promote::WhenSeenAgain);
            put(&mut self.detail, state);
            self.attributes(&link.attributes);
        }
        put(&mut self.block.details, self.detail.len() as u64);
        self.block.details.append(&mut self.detail);
    }

    fn place(&mut self, text: &str, promote: Promote) -> u64 {
        self.detail_texts.place(text.as_bytes(), promote, self.dictionary)
    }

    fn attributes(&mut self, attributes: &[Attribute]) {
        put(&mut self.detail, attributes.len() as u64);
        for (key, value) in attributes {
            let key = self.place(key, Promote::WhenSeenAgain);
            put(&mut self.detail, key);
            self.value(value);
        }
    }

    fn value(&mut self, value: &AttributeValue) {
        match value {
            AttributeValue::Text(text) => {
                let place = self.place(text, Promote::WhenSeenAgain);
                self.detail.push(0);
                put(&mut self.detail, place);
            }
            AttributeValue::List(values) => {
                self.detail.push(6);
                put(&mut self.detail, values.len() as u64);
                for value in values {
                    self.value(value);
                }
            }
            AttributeValue::Map(values) => {
                self.detail.push(7);
                put(&mut self.detail, values.len() as u64);
                for (key, value) in values {
                    let key = self.place(key, Promote::WhenSeenAgain);
                    put(&mut self.detail, key);
                    self.value(value);
                }
            }
            flat => put_flat(&mut self.detail, flat),
        }
    }

    pub(in crate::store) fn finish(self) -> EncodedBlock {
        let Self { mut block, row_texts, detail_texts, .. } = self;
        block.rows = row_texts.before(&block.rows);
        block.details = detail_texts.before(&block.details);
        block
    }
}

/// Values that hold no text.
fn put_flat(out: &mut Vec<u8>, value: &AttributeValue) {
    match value {
        AttributeValue::Integer(number) => {
            out.push(1);
            put_signed(out, *number);
        }
        AttributeValue::Real(number) => {
            out.push(2);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        AttributeValue::Truth(truth) => out.push(if *truth { 4 } else { 3 }),
        AttributeValue::Bytes(bytes) => {
            out.push(5);
            put(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        AttributeValue::Text(_) | AttributeValue::List(_) | AttributeValue::Map(_) => {}
    }
}

fn encode_resource(resource: &SpanResource) -> Vec<u8> {
    fn put_bytes(out: &mut Vec<u8>, text: &str) {
        put(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    fn put_value(out: &mut Vec<u8>, value: &AttributeValue) {
        match value {
            AttributeValue::Text(text) => {
                out.push(0);
                put_bytes(out, text);
            }
            AttributeValue::List(values) => {
                out.push(6);
                put(out, values.len() as u64);
                values.iter().for_each(|value| put_value(out, value));
            }
            AttributeValue::Map(values) => {
                out.push(7);
                put(out, values.len() as u64);
                for (key, value) in values {
                    put_bytes(out, key);
                    put_value(out, value);
                }
            }
            flat => put_flat(out, flat),
        }
    }
    let mut bytes = Vec::new();
    put(&mut bytes, resource.attributes.len() as u64);
    for (key, value) in &resource.attributes {
        put_bytes(&mut bytes, key);
        put_value(&mut bytes, value);
    }
    bytes
}

/// What [`SpanFilter::route`](super::SpanFilter::route) is compared with. RPC conventions of before 1.38 have the service
/// apart from the method.
fn route(span: &Span) -> Option<Cow<'_, str>> {
    if let Some(route) = text_of(&span.attributes, "http.route") {
        return Some(Cow::Borrowed(route));
    }
    let method = text_of(&span.attributes, "rpc.method")?;
    match text_of(&span.attributes, "rpc.service") {
        Some(service) => Some(Cow::Owned(format!("{service}/{method}"))),
        None => Some(Cow::Borrowed(method)),
    }
}

fn method(span: &Span) -> Option<Cow<'_, str>> {
    ["http.request.method", "http.method", "rpc.method"]
        .iter()
        .find_map(|name| text_of(&span.attributes, name))
        .map(Cow::Borrowed)
}

fn status_code(span: &Span) -> Option<u16> {
    ["http.response.status_code", "http.status_code", "rpc.grpc.status_code"]
        .iter()
        .find_map(|name| integer_of(&span.attributes, name))
        .and_then(|code| u16::try_from(code).ok())
}
