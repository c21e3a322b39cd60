//! A block, whose format `block.rs` tells, → its rows, and of each row the whole span.

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::{
    HAS_PARENT, HAS_STATUS_CODE, IS_JOINED_FROM, IS_JOINED_TO, IS_OPEN, Joined, KIND_BITS, MAX_DEPTH,
    STATUS_BITS, STATUS_SHIFT,
};
use crate::model::span::{
    Attribute, AttributeValue, Span, SpanEvent, SpanId, SpanKind, SpanLink, SpanResource, SpanStatus, TraceId,
};
use crate::store::spans::dictionary::SpanTexts;
use crate::store::varint::{Malformed, Reader};

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
