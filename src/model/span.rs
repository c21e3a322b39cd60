//! A span: one piece of work that a request made somebody do, as OpenTelemetry defines it
//! (opentelemetry-proto, `trace/v1/trace.proto`).
//!
//! Spans come from the tracer, which infers them from what goes over sockets, and from SDKs that send
//! theirs; both are this type from there on.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What all spans of one trace have in common. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// Names a span within its trace. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

macro_rules! identifier {
    ($name:ident, $bytes:literal) => {
        impl $name {
            /// The id of these bytes, unless all are zero, which stands for none.
            #[must_use]
            pub fn new(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            /// The id of these bytes, of which the last bit is set if all are zero.
            #[must_use]
            pub fn nonzero(mut bytes: [u8; $bytes]) -> Self {
                if bytes == [0; $bytes] {
                    bytes[$bytes - 1] = 1;
                }
                Self(bytes)
            }

            /// The id that is written so: lower-case hexadecimal digits, as W3C Trace Context has them.
            #[must_use]
            pub fn from_hex(text: &[u8]) -> Option<Self> {
                let digit = |byte: u8| match byte {
                    b'0'..=b'9' => Some(byte - b'0'),
                    b'a'..=b'f' => Some(byte - b'a' + 10),
                    _ => None,
                };
                if text.len() != 2 * $bytes {
                    return None;
                }
                let mut bytes = [0; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
                    *byte = digit(pair[0])? << 4 | digit(pair[1])?;
                }
                Self::new(bytes)
            }

            /// Its bytes, in the order in which they are written.
            #[must_use]
            pub fn bytes(self) -> [u8; $bytes] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let mut text = [0; 2 * $bytes];
                for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    pair[0] = DIGITS[usize::from(byte >> 4)];
                    pair[1] = DIGITS[usize::from(byte & 15)];
                }
                // Digits are text.
                formatter.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }
    };
}

identifier!(TraceId, 16);
identifier!(SpanId, 8);

/// Who does the work of a span. The numbers are OpenTelemetry's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SpanKind {
    /// Nobody has said.
    #[default]
    Unspecified = 0,
    /// Within one program.
    Internal = 1,
    /// It answers a request.
    Server = 2,
    /// It has asked somebody else, and waits.
    Client = 3,
    /// It has put a message into a queue.
    Producer = 4,
    /// It works on a message of a queue.
    Consumer = 5,
}

/// How the work went. The numbers are OpenTelemetry's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SpanStatus {
    /// Nobody has said that it failed.
    #[default]
    Unset = 0,
    /// The application says that it went well.
    Ok = 1,
    /// It failed.
    Error = 2,
}

/// A text of a span: most are short, and lie in the span itself, of which there may be thousands a second.
pub type Text = compact_str::CompactString;

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum AttributeValue {
    /// Text.
    Text(Text),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// True or false.
    Truth(bool),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several values.
    List(Vec<AttributeValue>),
    /// Values by name.
    Map(Vec<(String, AttributeValue)>),
}

/// Attributes that count what was left out of a span, here or by whoever made it (OpenTelemetry
/// specification, "Mapping to non-OTLP formats").
pub const DROPPED_ATTRIBUTES: &str = "otel.dropped_attributes_count";
/// See [`DROPPED_ATTRIBUTES`].
pub const DROPPED_EVENTS: &str = "otel.dropped_events_count";
/// See [`DROPPED_ATTRIBUTES`].
pub const DROPPED_LINKS: &str = "otel.dropped_links_count";

/// Stands on a span of ours that has turned out to be the same piece of work as one that an SDK made: that
/// span's ids, `TRACE-SPAN`. Whoever reads takes that one instead.
pub const JOINED_TO: &str = "spanflame.joined.to";
/// Stands on what we know of such a span, written under the ids of the SDK's: the ids that ours had, which
/// samples and children carry.
pub const JOINED_FROM: &str = "spanflame.joined.from";
/// The name of our own library, as spans have it.
pub const OWN_LIBRARY: &str = "spanflame";

/// The ids of a span as one text.
#[must_use]
pub fn ids_text(trace_id: TraceId, span_id: SpanId) -> String {
    format!("{trace_id}-{span_id}")
}

/// The ids that such a text holds.
#[must_use]
pub fn ids_of_text(text: &str) -> Option<(TraceId, SpanId)> {
    let (trace_id, span_id) = text.split_once('-')?;
    Some((TraceId::from_hex(trace_id.as_bytes())?, SpanId::from_hex(span_id.as_bytes())?))
}

/// An attribute: most names are the conventions' own and need no memory.
pub type Attribute = (Cow<'static, str>, AttributeValue);

/// Who made a span: a process, its service, its container, its host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanResource {
    /// `service.name`, `process.pid`, … in order of name, each name once.
    pub attributes: Vec<Attribute>,
}

impl SpanResource {
    /// The text of an attribute, if there is one of this name and it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        text_of(&self.attributes, name)
    }

    /// `service.name`, or nothing.
    #[must_use]
    pub fn service(&self) -> &str {
        self.text("service.name").unwrap_or_default()
    }
}

/// The text of an attribute, if there is one of this name and it is text.
#[must_use]
pub fn text_of<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key == name).and_then(|(_, value)| match value {
        AttributeValue::Text(text) => Some(text.as_str()),
        _ => None,
    })
}

/// The number of an attribute, if there is one of this name and it is a whole number.
#[must_use]
pub fn integer_of(attributes: &[Attribute], name: &str) -> Option<i64> {
    attributes.iter().find(|(key, _)| key == name).and_then(|(_, value)| match value {
        AttributeValue::Integer(number) => Some(*number),
        _ => None,
    })
}

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanEvent {
    /// When, nanoseconds since the Unix epoch.
    pub time_unix_ns: u64,
    /// What.
    pub name: String,
    /// More about it.
    pub attributes: Vec<Attribute>,
}

/// A span of any trace that this one has to do with.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanLink {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// `tracestate`, as it was sent.
    pub trace_state: String,
    /// More about it.
    pub attributes: Vec<Attribute>,
}

/// A span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The span that caused it; `None` for the first of a trace.
    pub parent_span_id: Option<SpanId>,
    /// `tracestate`, as it came.
    pub trace_state: String,
    /// `GET /users/{id}`, `pkg.Service/Method`.
    pub name: String,
    /// Who did the work.
    pub kind: SpanKind,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// End; `None` while the work goes on.
    pub end_unix_ns: Option<u64>,
    /// How it went.
    pub status: SpanStatus,
    /// What the application says of the status.
    pub status_message: String,
    /// More about it.
    pub attributes: Vec<Attribute>,
    /// What happened meanwhile.
    pub events: Vec<SpanEvent>,
    /// What else it has to do with.
    pub links: Vec<SpanLink>,
    /// Who made it.
    pub resource: Arc<SpanResource>,
    /// The library that made it, name and version: ours is `spanflame`.
    pub scope: Arc<(String, String)>,
}

impl Span {
    /// Its length; `None` while the work goes on.
    #[must_use]
    pub fn duration_ns(&self) -> Option<u64> {
        self.end_unix_ns.map(|end| end.saturating_sub(self.start_unix_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_and_read_in_lower_case_only() {
        let text = b"00f067aa0ba902b7";
        let id = SpanId::from_hex(text).expect("an id");
        assert_eq!(id.to_string().as_bytes(), text);
        assert_eq!(SpanId::from_hex(b"00F067AA0BA902B7"), None);
        assert_eq!(SpanId::from_hex(b"00f067aa0ba902b"), None);
        assert_eq!(SpanId::from_hex(b"00f067aa0ba902b70"), None);
    }

    #[test]
    fn ids_come_back_from_their_text() {
        let ids = (TraceId::nonzero([7; 16]), SpanId::nonzero([9; 8]));
        let text = ids_text(ids.0, ids.1);
        assert_eq!(ids_of_text(&text), Some(ids));
        for length in 0..text.len() {
            assert_eq!(ids_of_text(&text[..length]), None);
        }
    }

    #[test]
    fn an_id_of_zeros_is_none() {
        assert_eq!(TraceId::from_hex(&[b'0'; 32]), None);
        assert_eq!(SpanId::new([0; 8]), None);
    }
}
