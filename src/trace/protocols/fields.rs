//! The header fields that anyone here cares for, whichever protocol carries them.

use crate::model::span::Text;
use crate::trace::exchange::Known;

/// Longest value that is kept; a longer one is unknown.
const MAX_VALUE_BYTES: usize = 8192;

/// A field's name, if it is one of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FieldName {
    Method,
    Path,
    Scheme,
    /// `:authority`, or `Host` where there is none.
    Authority,
    Host,
    Status,
    UserAgent,
    ContentType,
    Traceparent,
    Tracestate,
    B3,
    B3TraceId,
    B3SpanId,
    B3ParentSpanId,
    B3Sampled,
    B3Flags,
    ContentLength,
    TransferEncoding,
    Upgrade,
    GrpcStatus,
    /// Another pseudo-header of HTTP/2.
    OtherPseudo,
    /// Any other.
    Other,
}

impl FieldName {
    /// The name that is written so, in any case of letters.
    pub(super) fn of(name: &[u8]) -> Self {
        let (text, meaning): (&[u8], Self) = match name.len() {
            2 => (b"b3", Self::B3),
            4 => (b"host", Self::Host),
            5 => (b":path", Self::Path),
            7 => match name[0] {
                b':' if name[1] == b'm' => (b":method", Self::Method),
                b':' if name[2] == b'c' => (b":scheme", Self::Scheme),
                b':' => (b":status", Self::Status),
                _ => (b"upgrade", Self::Upgrade),
            },
            10 => match name[0] {
                b':' => (b":authority", Self::Authority),
                b'u' | b'U' => (b"user-agent", Self::UserAgent),
                b't' | b'T' => (b"tracestate", Self::Tracestate),
                _ => (b"x-b3-flags", Self::B3Flags),
            },
            11 => match name[0] {
                b'g' | b'G' => (b"grpc-status", Self::GrpcStatus),
                b't' | b'T' => (b"traceparent", Self::Traceparent),
                _ => (b"x-b3-spanid", Self::B3SpanId),
            },
            12 => match name[0] {
                b'c' | b'C' => (b"content-type", Self::ContentType),
                _ if name[6] == b'r' || name[6] == b'R' => (b"x-b3-traceid", Self::B3TraceId),
                _ => (b"x-b3-sampled", Self::B3Sampled),
            },
            14 => (b"content-length", Self::ContentLength),
            17 => match name[0] {
                b't' | b'T' => (b"transfer-encoding", Self::TransferEncoding),
                _ => (b"x-b3-parentspanid", Self::B3ParentSpanId),
            },
            _ => (b"", Self::Other),
        };
        if !text.is_empty() && name.eq_ignore_ascii_case(text) {
            meaning
        } else if name.first() == Some(&b':') {
            Self::OtherPseudo
        } else {
            Self::Other
        }
    }

    /// Whether it is one of HTTP/2's, which stand before all others.
    pub(super) fn is_pseudo(self) -> bool {
        matches!(
            self,
            Self::Method | Self::Path | Self::Scheme | Self::Authority | Self::Status | Self::OtherPseudo
        )
    }
}

/// A value as it is kept.
pub(super) fn known(value: &[u8]) -> Known {
    let value = value.trim_ascii();
    if value.len() > MAX_VALUE_BYTES {
        return Known::Unknown;
    }
    Known::Value(Text::from_utf8_lossy(value))
}

/// What the fields of a request say, beside what frames it.
#[derive(Debug, Default, Clone)]
pub(super) struct RequestFields {
    pub(super) authority: Known,
    pub(super) user_agent: Known,
    pub(super) content_type: Known,
    pub(super) traceparent: Known,
    pub(super) tracestate: Known,
    b3: Known,
    b3_lines: Option<Box<B3Lines>>,
}

/// The values of `X-B3-…`.
#[derive(Debug, Default, Clone)]
struct B3Lines {
    trace_id: Known,
    span_id: Known,
    parent_span_id: Known,
    sampled: Known,
    flags: Known,
}

impl RequestFields {
    /// Takes a field. Of several equal names the first counts; those of `tracestate` are joined by commas,
    /// and so are those of `traceparent`, of which there may be only one.
    pub(super) fn take(&mut self, name: FieldName, value: impl FnOnce() -> Known) {
        let (place, joins) = match name {
            FieldName::Authority | FieldName::Host => (&mut self.authority, false),
            FieldName::UserAgent => (&mut self.user_agent, false),
            FieldName::ContentType => (&mut self.content_type, false),
            FieldName::Traceparent => (&mut self.traceparent, true),
            FieldName::Tracestate => (&mut self.tracestate, true),
            FieldName::B3 => (&mut self.b3, false),
            FieldName::B3TraceId => (&mut self.b3_lines.get_or_insert_default().trace_id, false),
            FieldName::B3SpanId => (&mut self.b3_lines.get_or_insert_default().span_id, false),
            FieldName::B3ParentSpanId => (&mut self.b3_lines.get_or_insert_default().parent_span_id, false),
            FieldName::B3Sampled => (&mut self.b3_lines.get_or_insert_default().sampled, false),
            FieldName::B3Flags => (&mut self.b3_lines.get_or_insert_default().flags, false),
            _ => return,
        };
        match (&mut *place, joins) {
            (Known::Absent, _) => *place = value(),
            (_, false) => {}
            (Known::Unknown, true) => {}
            (Known::Value(before), true) => match value() {
                Known::Value(more) if before.len() + more.len() < MAX_VALUE_BYTES => {
                    before.push(',');
                    before.push_str(&more);
                }
                _ => *place = Known::Unknown,
            },
        }
    }

    /// What was not sent as far as was seen may have been sent where nothing was seen, except `:authority`.
    pub(super) fn absent_is_unknown(&mut self) {
        for field in [
            &mut self.user_agent,
            &mut self.content_type,
            &mut self.traceparent,
            &mut self.tracestate,
            &mut self.b3,
        ] {
            if *field == Known::Absent {
                *field = Known::Unknown;
            }
        }
    }

    /// `b3`, or the lines put together in its form (openzipkin/b3-propagation: "The value is
    /// `{TraceId}-{SpanId}-{SamplingState}-{ParentSpanId}`, the last two optional").
    pub(super) fn b3(&mut self) -> Known {
        if let Known::Value(_) = self.b3 {
            return std::mem::take(&mut self.b3);
        }
        let Some(lines) = self.b3_lines.take() else { return std::mem::take(&mut self.b3) };
        let sampling = match (lines.flags.value(), lines.sampled.value()) {
            (Some("1"), _) => "d",
            (_, Some("1" | "true")) => "1",
            (_, Some("0" | "false")) => "0",
            _ => "",
        };
        let (Some(trace_id), Some(span_id)) = (lines.trace_id.value(), lines.span_id.value()) else {
            return match sampling {
                _ if lines.trace_id == Known::Unknown || lines.span_id == Known::Unknown => Known::Unknown,
                "" => Known::Absent,
                sampling => Known::Value(sampling.into()),
            };
        };
        let mut b3 = format!("{trace_id}-{span_id}");
        if !sampling.is_empty() {
            b3.push('-');
            b3.push_str(sampling);
            if let Some(parent_span_id) = lines.parent_span_id.value() {
                b3.push('-');
                b3.push_str(parent_span_id);
            }
        }
        Known::Value(b3.into())
    }
}
