//! A block: some spans that were written together, in three blobs, so that a search reads only what it needs.
//!
//! ```text
//! keys     for each span 4 bytes of a hash of its trace id and 4 of its span id, little-endian: what is
//!          gone through to find an id, 8 bytes a span
//! rows     texts, then a row for each span: what can be asked for
//! details  texts, then for each span its length and all the rest
//!
//! texts    count, then for each 0, length, bytes | number in the segment's dictionary + 1
//! row      kind | status << 3 | has parent 32 | is open 64 | has status code 128
//!          0, trace id | how many traces ago it came in this block
//!          span id, parent's id if it has one
//!          if the kind was 6 or 7: the kind, trace id and span id of what it was joined to (6) or from (7)
//!          start (difference to the row before), duration unless open
//!          service, name, library (texts), route + 1 or 0, method + 1 or 0, status code if it has one
//! detail   resource, version of the library, trace state, status message (texts)
//!          attributes, count (time − start, name, attributes)…, count (trace id, span id, state, attributes)…
//! attributes  count, (key (text), value)…
//! value    0, text | 1, number | 2, 8 bytes | 3 (false) | 4 (true) | 5, length, bytes
//!          | 6, count, value… | 7, count, (key (text), value)…
//! resource attributes whose texts stand there themselves (length, bytes)
//! ```
//!
//! All numbers are varints. Texts are referred to by their place in the list of their blob.

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::dictionary::{Promote, SpanDictionary, SpanTexts};
use crate::model::index_hash::mix;
use crate::model::span::{
    Attribute, AttributeValue, JOINED_FROM, JOINED_TO, OWN_LIBRARY, Span, SpanEvent, SpanId, SpanKind,
    SpanLink, SpanResource, SpanStatus, TraceId, ids_of_text, integer_of, text_of,
};
use crate::store::varint::{Malformed, Reader, put, put_signed};

const KIND_BITS: u8 = 0b111;
/// In the place of a kind: the kind follows, and what the span was joined to.
const IS_JOINED_TO: u8 = 6;
/// Likewise, what it was joined from.
const IS_JOINED_FROM: u8 = 7;
const STATUS_SHIFT: u8 = 3;
const STATUS_BITS: u8 = 0b11;
const HAS_PARENT: u8 = 32;
const IS_OPEN: u8 = 64;
const HAS_STATUS_CODE: u8 = 128;
/// Values in values: as deep as the limits let them be, and one more.
const MAX_DEPTH: usize = 9;
/// Bytes of keys for each span.
pub(in crate::store) const KEY_BYTES: usize = 8;

/// A block that is ready to be written.
#[derive(Debug)]
pub(in crate::store) struct EncodedBlock {
    pub(in crate::store) spans: u32,
    pub(in crate::store) first_start_ns: u64,
    pub(in crate::store) last_start_ns: u64,
    pub(in crate::store) keys: Vec<u8>,
    pub(in crate::store) rows: Vec<u8>,
    pub(in crate::store) details: Vec<u8>,
}

/// What of a trace id is in the keys.
pub(in crate::store) fn trace_key(id: TraceId) -> u32 {
    let [a, b, c, d, e, f, g, h, rest @ ..] = id.bytes();
    mix(u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ mix(u64::from_le_bytes(rest))) as u32
}

/// What of a span id is in the keys.
pub(in crate::store) fn span_key(id: SpanId) -> u32 {
    mix(u64::from_le_bytes(id.bytes())) as u32
}

/// The keys of a block: `(trace, span)` for each of its rows.
pub(in crate::store) fn keys(bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    bytes
        .as_chunks::<KEY_BYTES>()
        .0
        .iter()
        .map(|&[a, b, c, d, e, f, g, h]| (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
}

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

/// The texts of a blob as they are read.
#[derive(Debug)]
pub(in crate::store) struct Texts<'a>(Vec<&'a [u8]>);

impl<'a> Texts<'a> {
    fn read(bytes: &mut Reader<'a>, dictionary: &'a SpanTexts) -> Result<Self, Malformed> {
        let count = bytes.count(1)?;
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(match bytes.id()? {
                0 => {
                    let length = bytes.count(1)?;
                    bytes.bytes(length)?
                }
                number => dictionary.get(number - 1)?,
            });
        }
        Ok(Self(texts))
    }

    fn bytes(&self, place: u32) -> Result<&'a [u8], Malformed> {
        self.0.get(place as usize).copied().ok_or(Malformed("a text of a block that does not exist"))
    }

    /// The text at this place.
    pub(in crate::store) fn text(&self, place: u32) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(place)?).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    /// Where a text is, if it is.
    pub(in crate::store) fn find(&self, text: &str) -> Option<u32> {
        let at = self.0.iter().position(|known| *known == text.as_bytes())?;
        u32::try_from(at).ok()
    }
}

/// What a span of ours has to do with one that an SDK made ([`JOINED_TO`], [`JOINED_FROM`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Joined {
    /// It has become that one, and is not shown.
    To((TraceId, SpanId)),
    /// It is what was known of that one under other ids.
    From((TraceId, SpanId)),
}

impl Joined {
    fn of(span: &Span) -> Option<Self> {
        if span.scope.0 != OWN_LIBRARY {
            return None;
        }
        let ids = |name: &str| text_of(&span.attributes, name).and_then(ids_of_text);
        ids(JOINED_TO).map(Self::To).or_else(|| ids(JOINED_FROM).map(Self::From))
    }
}

/// A row; its texts are places in the block's [`Texts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Row {
    pub(in crate::store) trace_id: TraceId,
    pub(in crate::store) span_id: SpanId,
    pub(in crate::store) parent_span_id: Option<SpanId>,
    pub(in crate::store) joined: Option<Joined>,
    pub(in crate::store) start_unix_ns: u64,
    pub(in crate::store) duration_ns: Option<u64>,
    pub(in crate::store) kind: SpanKind,
    pub(in crate::store) status: SpanStatus,
    pub(in crate::store) status_code: Option<u16>,
    pub(in crate::store) service: u32,
    pub(in crate::store) name: u32,
    pub(in crate::store) library: u32,
    pub(in crate::store) route: Option<u32>,
    pub(in crate::store) method: Option<u32>,
}

/// The rows of a block.
#[derive(Debug)]
pub(in crate::store) struct Rows<'a> {
    pub(in crate::store) texts: Texts<'a>,
    pub(in crate::store) rows: Vec<Row>,
}

impl<'a> Rows<'a> {
    /// Reads the blob `rows`.
    pub(in crate::store) fn read(blob: &'a [u8], dictionary: &'a SpanTexts) -> Result<Self, Malformed> {
        let mut bytes = Reader::new(blob);
        let texts = Texts::read(&mut bytes, dictionary)?;
        let (mut rows, mut traces, mut start) = (Vec::new(), Vec::new(), 0_u64);
        while !bytes.is_empty() {
            rows.push(read_row(&mut bytes, &mut traces, &mut start)?);
        }
        Ok(Self { texts, rows })
    }
}

fn read_row(bytes: &mut Reader<'_>, traces: &mut Vec<TraceId>, start: &mut u64) -> Result<Row, Malformed> {
    let head = bytes.byte()?;
    let trace_id = match bytes.id()? as usize {
        0 => {
            let id = TraceId::new(bytes.array()?).ok_or(Malformed("a trace id of zeros"))?;
            traces.push(id);
            id
        }
        ago => traces
            .len()
            .checked_sub(ago)
            .and_then(|at| traces.get(at).copied())
            .ok_or(Malformed("a trace before the first"))?,
    };
    let span_id = SpanId::new(bytes.array()?).ok_or(Malformed("a span id of zeros"))?;
    let parent_span_id = if head & HAS_PARENT != 0 { SpanId::new(bytes.array()?) } else { None };
    let (kind, joined) = match head & KIND_BITS {
        how @ (IS_JOINED_TO | IS_JOINED_FROM) => {
            let kind = bytes.byte()?;
            let zeros = Malformed("ids of zeros of a span that was joined");
            let ids = TraceId::new(bytes.array()?).zip(SpanId::new(bytes.array()?)).ok_or(zeros)?;
            (kind, Some(if how == IS_JOINED_TO { Joined::To(ids) } else { Joined::From(ids) }))
        }
        kind => (kind, None),
    };
    *start = start.wrapping_add(bytes.signed()?.cast_unsigned());
    let duration_ns = if head & IS_OPEN == 0 { Some(bytes.number()?) } else { None };
    let (service, name, library) = (bytes.id()?, bytes.id()?, bytes.id()?);
    let (route, method) = (bytes.id()?.checked_sub(1), bytes.id()?.checked_sub(1));
    let status_code = if head & HAS_STATUS_CODE != 0 {
        Some(u16::try_from(bytes.number()?).map_err(|_| Malformed("a status code of more than 16 bits"))?)
    } else {
        None
    };
    Ok(Row {
        trace_id,
        span_id,
        parent_span_id,
        joined,
        start_unix_ns: *start,
        duration_ns,
        kind: kind_of(kind)?,
        status: status_of(head >> STATUS_SHIFT & STATUS_BITS)?,
        status_code,
        service,
        name,
        library,
        route,
        method,
    })
}

fn kind_of(number: u8) -> Result<SpanKind, Malformed> {
    Ok(match number {
        0 => SpanKind::Unspecified,
        1 => SpanKind::Internal,
        2 => SpanKind::Server,
        3 => SpanKind::Client,
        4 => SpanKind::Producer,
        5 => SpanKind::Consumer,
        _ => return Err(Malformed("a kind of span that there is not")),
    })
}

fn status_of(number: u8) -> Result<SpanStatus, Malformed> {
    Ok(match number {
        0 => SpanStatus::Unset,
        1 => SpanStatus::Ok,
        2 => SpanStatus::Error,
        _ => return Err(Malformed("a status of a span that there is not")),
    })
}

/// The details of a block.
#[derive(Debug)]
pub(in crate::store) struct Details<'a> {
    texts: Texts<'a>,
    /// Where each span's are.
    parts: Vec<&'a [u8]>,
    /// By place, so that spans of one process share one.
    resources: HashMap<u32, Arc<SpanResource>>,
    scopes: HashMap<(u32, u32), Arc<(String, String)>>,
}

impl<'a> Details<'a> {
    /// Reads the blob `details`.
    pub(in crate::store) fn read(blob: &'a [u8], dictionary: &'a SpanTexts) -> Result<Self, Malformed> {
        let mut bytes = Reader::new(blob);
        let texts = Texts::read(&mut bytes, dictionary)?;
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let length = bytes.count(1)?;
            parts.push(bytes.bytes(length)?);
        }
        Ok(Self { texts, parts, resources: HashMap::new(), scopes: HashMap::new() })
    }

    /// The whole span of a row.
    pub(in crate::store) fn span(&mut self, index: usize, rows: &Rows<'_>) -> Result<Span, Malformed> {
        let missing = Malformed("a span without details");
        let row = rows.rows.get(index).ok_or(missing)?;
        let mut bytes = Reader::new(self.parts.get(index).ok_or(missing)?);
        let resource = self.resource(bytes.id()?)?;
        let version = bytes.id()?;
        let scope = match self.scopes.get(&(row.library, version)) {
            Some(scope) => Arc::clone(scope),
            None => {
                let name = rows.texts.text(row.library)?.to_owned();
                let scope = Arc::new((name, self.texts.text(version)?.to_owned()));
                self.scopes.insert((row.library, version), Arc::clone(&scope));
                scope
            }
        };
        let trace_state = self.texts.text(bytes.id()?)?.to_owned();
        let status_message = self.texts.text(bytes.id()?)?.to_owned();
        let attributes = self.attributes(&mut bytes)?;
        let mut events = Vec::new();
        for _ in 0..bytes.count(3)? {
            events.push(SpanEvent {
                time_unix_ns: row.start_unix_ns.wrapping_add(bytes.signed()?.cast_unsigned()),
                name: self.texts.text(bytes.id()?)?.to_owned(),
                attributes: self.attributes(&mut bytes)?,
            });
        }
        let mut links = Vec::new();
        for _ in 0..bytes.count(26)? {
            let zeros = Malformed("a link to zeros");
            links.push(SpanLink {
                trace_id: TraceId::new(bytes.array()?).ok_or(zeros)?,
                span_id: SpanId::new(bytes.array()?).ok_or(zeros)?,
                trace_state: self.texts.text(bytes.id()?)?.to_owned(),
                attributes: self.attributes(&mut bytes)?,
            });
        }
        if !bytes.is_empty() {
            return Err(Malformed("a span with more than its details"));
        }
        Ok(Span {
            trace_id: row.trace_id,
            span_id: row.span_id,
            parent_span_id: row.parent_span_id,
            trace_state,
            name: rows.texts.text(row.name)?.to_owned(),
            kind: row.kind,
            start_unix_ns: row.start_unix_ns,
            end_unix_ns: row.duration_ns.map(|duration_ns| row.start_unix_ns.saturating_add(duration_ns)),
            status: row.status,
            status_message,
            attributes,
            events,
            links,
            resource,
            scope,
        })
    }

    fn resource(&mut self, place: u32) -> Result<Arc<SpanResource>, Malformed> {
        if let Some(known) = self.resources.get(&place) {
            return Ok(Arc::clone(known));
        }
        let mut bytes = Reader::new(self.texts.bytes(place)?);
        let attributes = read_attributes(&mut bytes, &mut |bytes| Ok(bytes.text()?.to_owned()))?;
        let resource = Arc::new(SpanResource { attributes });
        self.resources.insert(place, Arc::clone(&resource));
        Ok(resource)
    }

    fn attributes(&self, bytes: &mut Reader<'_>) -> Result<Vec<Attribute>, Malformed> {
        read_attributes(bytes, &mut |bytes| Ok(self.texts.text(bytes.id()?)?.to_owned()))
    }
}

type ReadText<'t> = dyn FnMut(&mut Reader<'_>) -> Result<String, Malformed> + 't;

fn read_attributes(bytes: &mut Reader<'_>, text: &mut ReadText<'_>) -> Result<Vec<Attribute>, Malformed> {
    let mut attributes = Vec::new();
    for _ in 0..bytes.count(2)? {
        let key = text(bytes)?;
        attributes.push((Cow::Owned(key), read_value(bytes, text, MAX_DEPTH)?));
    }
    Ok(attributes)
}

fn read_value(
    bytes: &mut Reader<'_>,
    text: &mut ReadText<'_>,
    depth: usize,
) -> Result<AttributeValue, Malformed> {
    let inner = || depth.checked_sub(1).ok_or(Malformed("a value too deep in others"));
    Ok(match bytes.byte()? {
        0 => AttributeValue::Text(text(bytes)?.into()),
        1 => AttributeValue::Integer(bytes.signed()?),
        2 => AttributeValue::Real(f64::from_bits(u64::from_le_bytes(bytes.array()?))),
        3 => AttributeValue::Truth(false),
        4 => AttributeValue::Truth(true),
        5 => {
            let length = bytes.count(1)?;
            AttributeValue::Bytes(bytes.bytes(length)?.to_owned())
        }
        6 => {
            let depth = inner()?;
            let mut values = Vec::new();
            for _ in 0..bytes.count(1)? {
                values.push(read_value(bytes, text, depth)?);
            }
            AttributeValue::List(values)
        }
        7 => {
            let depth = inner()?;
            let mut values = Vec::new();
            for _ in 0..bytes.count(2)? {
                let key = text(bytes)?;
                values.push((key, read_value(bytes, text, depth)?));
            }
            AttributeValue::Map(values)
        }
        _ => return Err(Malformed("a value of an unknown kind")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::spans::span;
    use proptest::prelude::*;

    /// The block of these spans, and the dictionary it needs.
    fn encoded(spans: &[Span]) -> (EncodedBlock, SpanTexts) {
        let mut dictionary = SpanDictionary::default();
        let mut writer = BlockWriter::new(&mut dictionary);
        for span in spans {
            writer.add(span);
        }
        let block = writer.finish();
        let mut texts = SpanTexts::default();
        texts.read(dictionary.new_page()).unwrap();
        (block, texts)
    }

    fn decoded(block: &EncodedBlock, texts: &SpanTexts) -> Result<Vec<Span>, Malformed> {
        let rows = Rows::read(&block.rows, texts)?;
        let mut details = Details::read(&block.details, texts)?;
        (0..rows.rows.len()).map(|index| details.span(index, &rows)).collect()
    }

    #[test]
    fn a_block_comes_back_and_its_keys_are_those_of_its_rows() {
        let mut spans: Vec<Span> = (0..20).map(|number| span(number / 3, number)).collect();
        // Starts that go back, and further than a difference of 63 bits.
        spans[4].start_unix_ns = 0;
        spans[4].end_unix_ns = Some(u64::MAX);
        spans[5].start_unix_ns = u64::MAX;
        spans[5].end_unix_ns = None;
        spans[6].parent_span_id = Some(spans[5].span_id);
        let (block, texts) = encoded(&spans);
        assert_eq!((block.spans, block.first_start_ns, block.last_start_ns), (20, 0, u64::MAX));
        assert_eq!(decoded(&block, &texts), Ok(spans.clone()));
        let expected: Vec<(u32, u32)> =
            spans.iter().map(|span| (trace_key(span.trace_id), span_key(span.span_id))).collect();
        assert_eq!(keys(&block.keys).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_later_span_of_a_process_takes_little() {
        let spans: Vec<Span> = (0..1000).map(|number| span(number, number)).collect();
        let (block, _) = encoded(&spans);
        let bytes = block.keys.len() + block.rows.len() + block.details.len();
        assert!(bytes < 130 * 1000, "{bytes}");
    }

    #[test]
    fn every_truncation_is_refused_or_has_fewer_spans() {
        let spans = [span(1, 1), span(1, 2)];
        let (block, texts) = encoded(&spans);
        for length in 0..block.rows.len() {
            if let Ok(rows) = Rows::read(&block.rows[..length], &texts) {
                assert!(rows.rows.len() < 2);
            }
        }
        let rows = Rows::read(&block.rows, &texts).unwrap();
        for length in 0..block.details.len() {
            let details = Details::read(&block.details[..length], &texts);
            assert!(details.is_err() || details.is_ok_and(|mut details| details.span(1, &rows).is_err()));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(rows: Vec<u8>, details: Vec<u8>) {
            let texts = SpanTexts::default();
            let block = EncodedBlock {
                spans: 0, first_start_ns: 0, last_start_ns: 0, keys: rows.clone(), rows, details,
            };
            prop_assert!(keys(&block.keys).count() <= block.keys.len());
            let _ = decoded(&block, &texts);
        }

        #[test]
        fn a_block_that_was_damaged_never_panics(at: usize, byte: u8, in_rows: bool) {
            let (mut block, texts) = encoded(&[span(1, 1), span(2, 2), span(1, 3)]);
            let blob = if in_rows { &mut block.rows } else { &mut block.details };
            let at = at % blob.len();
            blob[at] = byte;
            let _ = decoded(&block, &texts);
        }
    }
}
