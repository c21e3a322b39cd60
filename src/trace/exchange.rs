//! What a protocol's parser says of a connection: requests that began, and what came of them.

use crate::model::RequestKey;
use crate::model::socket::{Actor, Direction, Minted};
use crate::model::span::Text;

/// Names an exchange within its connection, in order of their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// A header's value, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Known {
    /// It was sent so.
    Value(Text),
    /// It was not sent.
    #[default]
    Absent,
    /// It cannot be known: it refers to something sent before we listened, or lies in a part that was not
    /// captured.
    Unknown,
}

impl Known {
    /// The value, if it is known.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unknown => None,
        }
    }
}

/// The protocol, with its version as `network.protocol.version` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// `1.0`.
    Http10,
    /// `1.1`.
    Http11,
    /// `2`; gRPC is HTTP/2 whose `content-type` begins with `application/grpc`.
    Http2,
}

/// A request's head, of whatever protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Protocol.
    pub version: ProtocolVersion,
    /// `GET`; `:method`.
    pub method: Known,
    /// As it was sent: path with query, `*`, or a whole URL to a proxy; `:path`. Not of `CONNECT`.
    pub target: Known,
    /// `http` or `https`, where the request says so (`:scheme`, a whole URL).
    pub scheme: Known,
    /// `Host`; `:authority`.
    pub authority: Known,
    /// `User-Agent`.
    pub user_agent: Known,
    /// `Content-Type`.
    pub content_type: Known,
    /// `traceparent`.
    pub traceparent: Known,
    /// `tracestate`; several lines joined by commas.
    pub tracestate: Known,
    /// `b3`, or the `X-B3-…` lines put together in its form.
    pub b3: Known,
}

/// A response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code; `None` if it cannot be known.
    pub status: Option<u16>,
}

/// Why an exchange has no complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The other end reset the connection, or the stream.
    Reset,
    /// The connection timed out.
    TimedOut,
    /// The connection ended in order before the response did.
    EndOfStream,
    /// The request was taken back (HTTP/2 `CANCEL`).
    Cancelled,
}

/// Where a request's first byte stands on its connection. What one end sends is what the other receives if it stands
/// at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstByte {
    /// TCP's number of it: modulo 2³², from anywhere.
    Sequence(u32),
    /// So many bytes went the same way before it.
    Position(u64),
    /// It is not known how many did.
    #[default]
    Unknown,
}

impl FirstByte {
    /// Whether the two can be the same byte, each as one end of the connection counts.
    #[must_use]
    pub fn may_be(self, other: Self) -> bool {
        match (self, other) {
            (Self::Sequence(one), Self::Sequence(other)) => one == other,
            (Self::Position(one), Self::Position(other)) => one == other,
            _ => true,
        }
    }
}

/// A request that has begun: its head is complete and well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Began {
    /// Which one.
    pub exchange: ExchangeId,
    /// Number of its stream where the protocol has such (HTTP/2), the same at both ends; else 0.
    pub stream_id: u32,
    /// Where it stands. Not said of protocols whose streams have numbers.
    pub first_byte: FirstByte,
    /// `In`: this end is the server. `Out`: it is the client.
    pub direction: Direction,
    /// When its first byte was read, or began to be written: `CLOCK_MONOTONIC`, ns.
    pub first_byte_ns: u64,
    /// Who read or wrote it.
    pub actor: Actor,
    /// Set if the kernel side saw it begin, too.
    pub minted: Option<Minted>,
    /// The request that was open on the writer's thread or goroutine, or on the one that it writes for.
    pub within: Option<RequestKey>,
    /// The writer serves many at a time, and which of them this is for is not known.
    pub by_event_loop: bool,
    /// `within` is of the thread that has taken the connection out of a pool.
    pub from_pool: bool,
    /// Whether another request of this connection was still unanswered: only HTTP/1 pipelining and HTTP/2
    /// can have that, and the thread's evidence is worth nothing then.
    pub overlaps: bool,
    /// What it asks.
    pub head: RequestHead,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which one.
    pub exchange: ExchangeId,
    /// The (last, not `1xx`) response's head, if one came.
    pub response: Option<ResponseHead>,
    /// When the response's first byte was moved.
    pub first_response_byte_ns: Option<u64>,
    /// When its last byte was moved; where it failed, when the connection ended.
    pub last_byte_ns: u64,
    /// Whether that is known to be the last byte: false if it is only the last one that was seen before
    /// something was lost.
    pub end_is_certain: bool,
    /// Why there is no complete response.
    pub failure: Option<Failure>,
    /// Body bytes, without chunk heads and frame heads; `None` where something was lost.
    pub request_body_bytes: Option<u64>,
    /// Likewise.
    pub response_body_bytes: Option<u64>,
    /// `grpc-status`: of the trailers, or of the head where it is all there is.
    pub grpc_status: Known,
    /// Whether the connection speaks something else from here on (`101`, `CONNECT`).
    pub upgraded: bool,
}

/// Why an exchange that began, or bytes that might have been one, were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discarded {
    /// Something was lost (a gap in the stream) and the response could not be told from others.
    Gap,
    /// More unanswered requests than are kept for one connection.
    TooMany,
    /// It turned out to be no request: the other end does not speak this protocol.
    NotConfirmed,
    /// A head longer than is kept.
    HeadTooLong,
    /// What stands there cannot be.
    Malformed,
    /// It was written to a connection that did not take it: the program asks again elsewhere, or gives up.
    NotSent,
}

impl Discarded {
    /// Every reason there is, with its name in metrics.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Gap, "gap"),
        (Self::TooMany, "too_many"),
        (Self::NotConfirmed, "not_confirmed"),
        (Self::HeadTooLong, "head_too_long"),
        (Self::Malformed, "malformed"),
        (Self::NotSent, "not_sent"),
    ];
}

/// What a conversation says. An exchange ends once, or is discarded once, or neither while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "they are few, and gone as soon as they are read")]
pub enum ExchangeEvent {
    /// A request's head is there.
    Began(Began),
    /// Its response is complete, or will never be.
    Ended(Ended),
    /// An exchange that began is given up (`Some`), or something that never was one (`None`).
    Discarded(Option<ExchangeId>, Discarded),
}
