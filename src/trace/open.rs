//! A request that is not over, and the span that it becomes.
//!
//! What a span says is put together when it is handed on, and not before: of most requests of a busy host only their
//! number and duration are wanted.

use std::sync::Arc;

use super::attributes::{self, Asked, Conventions, Outcome};
use super::context::TraceContext;
use super::exchange::{Ended, FirstByte, Known, RequestHead};
use super::parents::{Parent, Received, attribute_of};
use super::requests::Request;
use super::sampling::Sampling;
use super::spans::SpanOptions;
use crate::model::socket::{Actor, Direction, Opened};
use crate::model::span::AttributeValue;
use crate::model::{
    RequestKey, Span, SpanId, SpanKind, SpanResource, SpanStatus, Stamp, TraceId, UnsampledRequest, Unstamped,
};

/// Says why a span is kept although its trace is beyond the limit.
pub(super) const KEPT_FOR: &str = "spanflame.sampling.kept_for";

/// See the module's description.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent: Parent,
    pub(super) trace_state: String,
    pub(super) start_unix_ns: u64,
    pub(super) resource: Arc<SpanResource>,
    pub(super) head: RequestHead,
    pub(super) opened: Option<Opened>,
    pub(super) is_encrypted: bool,
    pub(super) first_byte_ns: u64,
    pub(super) key: Option<RequestKey>,
    pub(super) actor: Actor,
    pub(super) asked: Asked,
    pub(super) direction: Direction,
    /// Of HTTP/2; else 0.
    pub(super) stream_id: u32,
    pub(super) first_byte: FirstByte,
    /// The context its head carried.
    pub(super) context: Option<TraceContext>,
    /// A part of its head was not seen, in which there may have been one.
    pub(super) context_is_unknown: bool,
    pub(super) sampling: Sampling,
    /// Its trace waits for its end to be kept or not.
    pub(super) is_undecided: bool,
    pub(super) is_excluded: bool,
    /// It is excluded as long as only its answer can tell whether it is of a protocol that is followed.
    pub(super) may_be_followed: bool,
    /// It is a Go program's, and which goroutine is at it is not known.
    pub(super) is_lost_goroutine: bool,
    /// Its trace is one that its program may know and send on.
    pub(super) is_of_known_trace: bool,
    /// A server's end of the same request has been found.
    pub(super) is_answered_for: bool,
    pub(super) is_shown: bool,
    /// Spans of other requests name this one as their parent.
    pub(super) has_children: bool,
    /// Its ids went out to whoever receives it, in TCP's header or its own.
    pub(super) is_sent: bool,
}

/// Whether a request is of a protocol that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    Yes,
    No,
    /// One of HTTP and gRPC is, and its head does not tell which it is.
    ByAnswer,
}

impl SpanOptions {
    /// As far as its head tells.
    pub(super) fn followed(&self, asked: &Asked, head: &RequestHead) -> Followed {
        match if asked.is_rpc { self.grpc } else { self.http } {
            _ if !asked.is_rpc && self.grpc != self.http && attributes::may_be_rpc(head) => {
                Followed::ByAnswer
            }
            true => Followed::Yes,
            false => Followed::No,
        }
    }

    /// What its head left open. A call of gRPC that ended as it should has a status; what that of an answer may be that was
    /// not read, nobody knows.
    pub(super) fn follows_by_answer(&self, ended: &Ended) -> bool {
        match &ended.grpc_status {
            Known::Value(_) => self.grpc,
            Known::Absent => self.http && ended.failure.is_none() && ended.response.is_some(),
            Known::Unknown => false,
        }
    }
}

/// How spans are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style<'a> {
    pub(super) conventions: Conventions,
    pub(super) capture_query: bool,
    pub(super) scope: &'a Arc<(String, String)>,
}

impl Open {
    pub(super) fn is_kept(&self) -> bool {
        self.sampling.is_kept() && !self.is_excluded
    }

    /// What a sample within it is told.
    pub(super) fn stamp(&self) -> Result<Stamp, Unstamped> {
        match self.is_kept() {
            true if self.is_lost_goroutine => Err(Unstamped::GoroutineUnknown),
            true => Ok(Stamp { trace_id: self.trace_id, span_id: self.span_id }),
            false => Err(Unstamped::NotTraced),
        }
    }

    /// What samples with its key are told from now on.
    pub(super) fn request(&self) -> Request {
        Request { stamp: self.stamp(), first_byte_ns: self.first_byte_ns, last_byte_ns: None, is_told: false }
    }

    /// Whether it was received with this context: the one that it was written with, or its own if we have put that into
    /// its head.
    pub(super) fn carries(&self, received: Option<&TraceContext>) -> bool {
        let is_ours = |context: &TraceContext| context.parent_span_id == self.span_id;
        self.context.as_ref() == received || self.context.is_none() && received.is_some_and(is_ours)
    }

    /// Whether what was received can be this request, as far as both are known.
    pub(super) fn asks_what(&self, received: &Asked) -> bool {
        let may_be = |sent: Option<&str>, received: Option<&str>| {
            sent.zip(received).is_none_or(|(sent, received)| sent == received)
        };
        may_be(self.asked.method.as_deref(), received.method.as_deref())
            && may_be(self.asked.path.as_deref(), received.path.as_deref())
            && may_be(self.asked.query.as_deref(), received.query.as_deref())
    }

    /// What its head said of who sent it.
    pub(super) fn received(&self) -> Received {
        match &self.context {
            Some(context) => Received::Span(context.parent_span_id),
            None if self.context_is_unknown => Received::Unknown,
            None => Received::None,
        }
    }

    /// Whether it may be gRPC, and only its answer can tell.
    pub(super) fn may_be_rpc(&self) -> bool {
        self.asked.rpc.is_none() && attributes::may_be_rpc(&self.head)
    }

    /// The span as far as it is known while the request goes on.
    pub(super) fn span(&self, style: Style<'_>) -> Span {
        let mut attributes = attributes::Request {
            conventions: style.conventions,
            direction: self.direction,
            head: &self.head,
            asked: &self.asked,
            opened: self.opened.as_ref(),
            is_encrypted: self.is_encrypted,
            capture_query: style.capture_query,
        }
        .attributes();
        attributes.push(attribute_of(self.parent));
        if let Sampling::Late(reason) = self.sampling {
            attributes.push((KEPT_FOR.into(), AttributeValue::Text(reason.into())));
        }
        Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: match self.parent {
                Parent::Known { span_id, .. } => Some(span_id),
                Parent::Absent { .. } => None,
            },
            trace_state: self.trace_state.clone(),
            name: self.asked.name(),
            kind: if self.direction == Direction::In { SpanKind::Server } else { SpanKind::Client },
            start_unix_ns: self.start_unix_ns,
            end_unix_ns: None,
            status: SpanStatus::Unset,
            status_message: String::new(),
            attributes,
            events: Vec::new(),
            links: Vec::new(),
            resource: Arc::clone(&self.resource),
            scope: Arc::clone(style.scope),
        }
    }

    /// By one clock: between two looks at the other one it may have been set.
    pub(super) fn duration_ns(&self, ended: &Ended) -> u64 {
        ended.last_byte_ns.saturating_sub(self.first_byte_ns)
    }

    pub(super) fn end_unix_ns(&self, ended: &Ended) -> u64 {
        self.start_unix_ns.saturating_add(self.duration_ns(ended))
    }

    /// How it went.
    pub(super) fn outcome(&self, ended: &Ended) -> Outcome {
        Outcome::of(self.direction, self.asked.is_rpc, ended)
    }

    /// The span of the request when it is over.
    pub(super) fn ended_span(&self, ended: &Ended, style: Style<'_>) -> Span {
        let mut span = self.span(style);
        let is_rpc = self.asked.is_rpc;
        attributes::note_unknown_answer(&mut span.attributes, is_rpc, ended);
        span.status = self.outcome(ended).write(style.conventions, ended, &mut span.attributes);
        span.end_unix_ns = Some(self.end_unix_ns(ended));
        span
    }
}

/// What a request counts as that is over and has no span.
pub(super) fn unsampled(open: Open, ended: &Ended) -> UnsampledRequest {
    let Outcome { http_status, grpc_status, error, .. } = open.outcome(ended);
    let (duration_ns, end_unix_ns) = (open.duration_ns(ended), open.end_unix_ns(ended));
    let Asked { method, path, route, rpc, is_rpc, .. } = open.asked;
    let is_server = open.direction == Direction::In;
    UnsampledRequest {
        kind: if is_server { SpanKind::Server } else { SpanKind::Client },
        is_rpc,
        resource: open.resource,
        http_method: method,
        rpc,
        path,
        route: route.filter(|_| is_server),
        status_code: if is_rpc { grpc_status } else { http_status },
        error,
        duration_ns,
        end_unix_ns,
    }
}
