//! What a header block says, of a request or of a response.

use super::frame::{self, Frame};
use super::hpack::Decoder;
use crate::trace::exchange::{Known, ProtocolVersion, RequestHead};
use crate::trace::protocols::fields::{FieldName, RequestFields};

/// What a header block says, of either kind.
#[derive(Debug, Default)]
pub(super) struct Fields {
    method: Known,
    path: Known,
    scheme: Known,
    pub(super) status: Known,
    pub(super) grpc_status: Known,
    others: RequestFields,
    /// A pseudo-header may be among what is not known.
    pub(super) pseudo_is_unknown: bool,
    /// A regular field may be.
    pub(super) regular_is_unknown: bool,
    /// A regular field was seen, behind which no pseudo-header comes.
    is_regular: bool,
    /// One came all the same, or came twice (RFC 9113 section 8.3): nobody serves such a request, and what is told of
    /// blocks whose beginning is not known would be wrong.
    pub(super) is_malformed: bool,
}

impl Fields {
    /// Takes a field of a block; pseudo-headers come before all others (RFC 9113 section 8.3).
    pub(super) fn take(&mut self, name: Option<FieldName>, value: &Known) {
        let Some(name) = name else {
            self.pseudo_is_unknown |= !self.is_regular;
            self.regular_is_unknown = true;
            return;
        };
        if name.is_pseudo() {
            self.is_malformed |= self.is_regular;
            // So whatever was not known before it is one, too.
            self.regular_is_unknown = false;
        } else {
            self.is_regular = true;
        }
        let place = match name {
            FieldName::Method => &mut self.method,
            FieldName::Path => &mut self.path,
            FieldName::Scheme => &mut self.scheme,
            FieldName::Status => &mut self.status,
            FieldName::GrpcStatus => &mut self.grpc_status,
            name => {
                self.is_malformed |= name == FieldName::Authority && self.others.authority != Known::Absent;
                return self.others.take(name, || value.clone());
            }
        };
        if *place == Known::Absent {
            *place = value.clone();
        } else {
            self.is_malformed |= name.is_pseudo();
        }
    }

    /// Of a block that cannot be read.
    pub(super) fn unknown() -> Self {
        Self { pseudo_is_unknown: true, regular_is_unknown: true, ..Self::default() }
    }

    /// Whether the block is of a request. One that is not known to be of any may be of a request all the same, if
    /// its pseudo-headers are not known.
    pub(super) fn are_of_request(&self) -> bool {
        [&self.method, &self.path, &self.scheme].iter().any(|field| **field != Known::Absent)
    }

    pub(super) fn request_head(&mut self) -> RequestHead {
        if self.pseudo_is_unknown {
            for field in [&mut self.method, &mut self.path, &mut self.scheme, &mut self.others.authority] {
                if *field == Known::Absent {
                    *field = Known::Unknown;
                }
            }
        }
        if self.regular_is_unknown {
            self.others.absent_is_unknown();
        }
        let is_connect = self.method.value() == Some("CONNECT");
        RequestHead {
            version: ProtocolVersion::Http2,
            method: std::mem::take(&mut self.method),
            target: match is_connect {
                // Without the extension of RFC 8441 there is none.
                true if self.path == Known::Unknown => Known::Absent,
                _ => std::mem::take(&mut self.path),
            },
            scheme: std::mem::take(&mut self.scheme),
            b3: self.others.b3(),
            authority: std::mem::take(&mut self.others.authority),
            user_agent: std::mem::take(&mut self.others.user_agent),
            content_type: std::mem::take(&mut self.others.content_type),
            traceparent: std::mem::take(&mut self.others.traceparent),
            tracestate: std::mem::take(&mut self.others.tracestate),
        }
    }
}

/// Whether these frames carry requests, if the first header block among them tells.
pub(in crate::trace) fn carry_requests(bytes: &[u8]) -> Option<bool> {
    let mut rest = bytes;
    loop {
        let frame = Frame::at_beginning_of(rest)?;
        let end = frame::HEAD_BYTES + frame.length as usize;
        if frame.kind == frame::HEADERS {
            let block = frame.block_in(rest.get(frame::HEAD_BYTES..end)?)?;
            let mut fields = Fields::default();
            // The rest of it may be in other frames.
            let _ = Decoder::in_the_middle().decode(block, |name, value| fields.take(name, value));
            let is_request = fields.are_of_request();
            let is_response = fields.status != Known::Absent;
            if is_request != is_response {
                return Some(is_request);
            }
        }
        rest = rest.get(end..)?;
    }
}
