//! Whose child is a request's span?
//!
//! Answered by evidence, and the span says by which (`spanflame.parent.source`):
//!
//! ```text
//! server  local_peer  the client's end of this connection is on this host, and we follow it
//!         header      traceparent or b3, as it was sent
//!         tcp_option  the context that came in TCP's header: the sender's host runs this, too
//! client  goroutine   the request that was open on the goroutine that wrote it
//!         thread      … on the thread that wrote it
//!         pool        … on the thread that took the connection out of a pool, for another one to write it
//!         sdk         an SDK in the process that sends it has said so in another request
//!         header      traceparent or b3, as it was passed on
//! ```
//!
//! A request that carries a context and whose sender is followed too has both. If the sender only passed on
//! what it had received (a proxy), its own span stands between, with an id of its own; if the sender made the
//! context up, an SDK in it has a span for this very request, and ours takes that span's id. Both ways nobody's
//! parent is missing and no span is there twice. Which of the two it is, is known
//!
//! - of what is sent within a request: by whether that request came with the same span's id;
//! - else by whether anybody has sent that id here. If the process can receive requests that nobody can read
//!   (TLS, a protocol that we do not know), it may have come with one of those, and then it is nobody's here.
//!
//! A request that came without a context, and within which its program sends one of its own making, is of that
//! trace: its SDK has begun it. Ours moves there while nobody knows it yet by the ids that it had.
//!
//! Where nothing is certain there is no parent, and the span says why (`spanflame.parent.absent_reason`).

use std::borrow::Cow;
use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt as _};

use super::attributes::Asked;
use super::context::TraceContext;
use super::exchange::{Began, ExchangeId};
use super::open::Open;
use super::requests::Requests;
use super::sampling::Sampling;
use super::spans::{Connection, Ends, Outcome, Spans};
use crate::model::socket::{Direction, Opened};
use crate::model::span::{Attribute, AttributeValue};
use crate::model::{ConnectionId, SpanId, Stamp, TraceId, Unstamped};

/// Ids of SDKs' spans that ours took, and ids that were sent here: one of each is remembered for so many
/// requests.
const REMEMBERED_IDS: usize = 1 << 16;
/// Processes that receive what nobody can read.
const MAX_OPAQUE: usize = 1 << 14;
/// Traces with an open request. While there are more nothing is told by the trace: what is not noted could be the
/// other request of it.
const MAX_TRACES: usize = 1 << 16;
/// Requests of a trace of which those that have ended are taken out, and again with each power of two.
const MANY_REQUESTS: usize = 64;

/// Evidence for a parent, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    Known { span_id: SpanId, source: &'static str },
    Absent { reason: &'static str },
}

/// Where a span stands in its trace.
pub(super) struct Place {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent: Parent,
    /// Whether the trace is kept, as far as that is decided.
    pub(super) decision: Option<Sampling>,
    pub(super) trace_state: String,
}

/// The span that has sent a request.
struct Caller {
    of: (ConnectionId, ExchangeId),
    trace_id: TraceId,
    span_id: SpanId,
    source: &'static str,
    sampling: Sampling,
    received: Received,
}

/// Several may be meant.
#[derive(Debug, Clone, Copy)]
struct Ambiguous;

/// The span that a request came from, as its header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    Span(SpanId),
    /// Its head named none.
    None,
    /// A part of its head was not seen.
    Unknown,
}

/// What the sender has decided.
fn decision_of(context: &TraceContext) -> Option<Sampling> {
    context.sampled.map(Sampling::by_parent)
}

pub(super) fn attribute_of(parent: Parent) -> Attribute {
    let (name, text) = match parent {
        Parent::Known { source, .. } => ("spanflame.parent.source", source),
        Parent::Absent { reason } => ("spanflame.parent.absent_reason", reason),
    };
    (Cow::Borrowed(name), AttributeValue::Text(text.into()))
}

/// Ids of which the newest are remembered, and by which process each was said first.
#[derive(Debug, Default)]
pub(super) struct RecentIds {
    known: HashMap<SpanId, u32>,
    order: VecDeque<SpanId>,
}

impl RecentIds {
    fn insert(&mut self, id: SpanId, pid: u32) {
        if self.known.contains_key(&id) {
            return;
        }
        self.known.insert(id, pid);
        self.order.push_back(id);
        if self.order.len() > REMEMBERED_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn contains(&self, id: SpanId) -> bool {
        self.known.contains_key(&id)
    }

    fn are_of(&self, id: SpanId, pid: u32) -> bool {
        self.known.get(&id) == Some(&pid)
    }
}

impl Spans {
    /// Where a server's span stands.
    pub(super) fn place_server(
        &mut self,
        connection: ConnectionId,
        (began, asked): (&Began, &Asked),
        opened: Option<Opened>,
        context: Option<&TraceContext>,
        (own_trace, own_span): (TraceId, SpanId),
    ) -> Place {
        if let Some(context) = context {
            self.received.insert(context.parent_span_id, began.actor.pid);
        }
        let peer = opened.map_or(Ok(None), |opened| self.client_of(connection, began, opened));
        let sent = peer.unwrap_or_default().and_then(|(client, exchange)| {
            let open = self.connections.get_mut(&client)?.open.get_mut(&exchange)?;
            open.is_answered_for = true;
            Some(&*open)
        });
        // Where something was lost, or two requests have crossed, the two ends tell of different requests: what is
        // sent is what is received, on one connection.
        let (said, is_ambiguous) = match sent {
            Some(sent) if !sent.carries(context) || !sent.asks_what(asked) => (None, true),
            Some(sent) if sent.is_excluded => (None, false),
            Some(sent) => (Some((sent.trace_id, sent.span_id, sent.sampling)), false),
            None => (None, peer.is_err()),
        };
        let received = began.minted.and_then(|minted| minted.received_parent).and_then(SpanId::new);
        if let (Some((trace_id, span_id, _)), Some(received)) = (said, received) {
            match (trace_id, span_id) == (own_trace, received) {
                true => self.counts.tcp_contexts_right += 1,
                false => self.counts.tcp_contexts_contradicted += 1,
            }
        }
        match (said, context) {
            (Some((trace_id, span_id, sampling)), context) => {
                let is_named = context.is_some_and(|context| context.parent_span_id == span_id);
                Place {
                    trace_id,
                    span_id: own_span,
                    parent: Parent::Known { span_id, source: if is_named { "header" } else { "local_peer" } },
                    decision: context.and_then(decision_of).or(Some(sampling)),
                    trace_state: context.map(|context| context.trace_state.clone()).unwrap_or_default(),
                }
            }
            (None, Some(context)) => Place {
                trace_id: context.trace_id,
                span_id: own_span,
                parent: Parent::Known { span_id: context.parent_span_id, source: "header" },
                decision: decision_of(context),
                trace_state: context.trace_state.clone(),
            },
            (None, None) if let Some(span_id) = received => Place {
                trace_id: own_trace,
                span_id: own_span,
                parent: Parent::Known { span_id, source: "tcp_option" },
                decision: Some(Sampling::Asked),
                trace_state: String::new(),
            },
            (None, None) => Place {
                trace_id: own_trace,
                span_id: own_span,
                parent: Parent::Absent {
                    reason: match opened {
                        _ if is_ambiguous => "ambiguous",
                        Some(_) => "no_context_sent",
                        None => "connection_unknown",
                    },
                },
                decision: None,
                trace_state: String::new(),
            },
        }
    }

    /// The request at the other end of this connection that this one is. HTTP/2 says which by the stream, HTTP/1 by
    /// where it stands. Inside of TLS on a connection that is older than we are that is not known; then it is the
    /// only one that waits to be answered for, if one alone does.
    fn client_of(
        &self,
        connection: ConnectionId,
        began: &Began,
        opened: Opened,
    ) -> Result<Option<(ConnectionId, ExchangeId)>, Ambiguous> {
        let client = self.clients.get(&Ends::from_other_end(&opened)).filter(|&&client| client != connection);
        let Some((&client, of)) = client.and_then(|client| Some((client, self.connections.get(client)?)))
        else {
            return Ok(None);
        };
        let mut waiting = of.open.iter().filter(|(_, open)| {
            open.direction == Direction::Out
                && !open.is_answered_for
                && open.stream_id == began.stream_id
                && open.first_byte.may_be(began.first_byte)
        });
        let first = waiting.next().map(|(&exchange, _)| (client, exchange));
        if waiting.next().is_some() { Err(Ambiguous) } else { Ok(first) }
    }

    /// Where a client's span stands.
    pub(super) fn place_client(
        &mut self,
        connection: ConnectionId,
        began: &Began,
        opened: Option<Opened>,
        context: Option<&TraceContext>,
        (own_trace, own_span): (TraceId, SpanId),
        is_lost_goroutine: bool,
    ) -> Place {
        let caller = match is_lost_goroutine {
            true => Err("goroutine_unknown"),
            false => self.caller_of(connection, began, opened),
        };
        let (caller, absent) = match caller {
            Ok(caller) => (Some(caller), ""),
            Err(reason) => (None, reason),
        };
        // What the kernel side took for the caller's trace has gone out in TCP's header. It can be another one where
        // somebody else on this host sends contexts, too; here, what is known of this host counts.
        let is_sent = began.minted.is_some_and(|minted| minted.is_sent);
        if is_sent && caller.as_ref().is_some_and(|caller| caller.trace_id != own_trace) {
            self.counts.tcp_contexts_of_other_traces += 1;
        }
        if let Some(caller) = &caller
            && context.is_none_or(|context| context.trace_id == caller.trace_id)
            && let Some(open) = self.open_mut(caller.of)
        {
            open.has_children = true;
        }
        let Some(context) = context else {
            return match caller {
                Some(caller) => Place {
                    trace_id: caller.trace_id,
                    span_id: own_span,
                    parent: Parent::Known { span_id: caller.span_id, source: caller.source },
                    decision: Some(caller.sampling),
                    trace_state: String::new(),
                },
                None => Place {
                    trace_id: own_trace,
                    span_id: own_span,
                    parent: Parent::Absent { reason: absent },
                    decision: None,
                    trace_state: String::new(),
                },
            };
        };
        let said = context.parent_span_id;
        let received = caller.as_ref().map(|caller| caller.received);
        let is_passed_on = received == Some(Received::Span(said));
        // Several requests of one span of an SDK: retries below it, redirects.
        let is_of_sdk = !is_passed_on && self.adopted.are_of(said, began.actor.pid);
        let is_of_others = is_passed_on
            || self.received.contains(said)
            || match received {
                Some(received) => received == Received::Unknown,
                None => self.opaque.contains(&began.actor.pid),
            };
        let is_adopted = !is_of_sdk && !is_of_others;
        if is_adopted {
            self.adopted.insert(said, began.actor.pid);
        }
        let caller = caller.filter(|caller| caller.trace_id == context.trace_id);
        let caller = match caller {
            None if !is_of_sdk => self.only_request_of(began, context),
            caller => caller,
        };
        if let Some(caller) = caller.as_ref().filter(|_| !is_of_sdk)
            && let Some(open) = self.open_mut(caller.of)
        {
            open.has_children = true;
        }
        let parent = match caller {
            _ if is_of_sdk => Parent::Known { span_id: said, source: "sdk" },
            Some(caller) if is_passed_on || is_adopted => {
                Parent::Known { span_id: caller.span_id, source: caller.source }
            }
            Some(caller) if caller.received == Received::Span(said) => {
                Parent::Known { span_id: caller.span_id, source: "header" }
            }
            // The request that it seems to be within did not come with it: another one did.
            _ if is_of_others => Parent::Known { span_id: said, source: "header" },
            _ => Parent::Absent { reason: "known_to_the_sdk_alone" },
        };
        Place {
            trace_id: context.trace_id,
            span_id: if is_adopted { said } else { own_span },
            parent,
            decision: decision_of(context),
            trace_state: context.trace_state.clone(),
        }
    }

    /// The open request of the sender's process that is of the trace it sends: whatever the thread is at, if one
    /// alone came with this very context, or is of this trace at all, it is sent for that one.
    fn only_request_of(&mut self, began: &Began, context: &TraceContext) -> Option<Caller> {
        let (pid, trace_id) = (began.actor.pid, context.trace_id);
        if self.has_too_many_traces {
            return None;
        }
        let connections = &self.connections;
        let requests = self.by_trace.get_mut(&(pid, trace_id))?;
        let open_at = |&(connection, exchange): &(ConnectionId, ExchangeId)| {
            let open = connections.get(&connection)?.open.get(&exchange)?.as_ref();
            (open.trace_id == trace_id && open.actor.pid == pid).then_some(open)
        };
        requests.retain(|of| open_at(of).is_some());
        let is_older = |open: &&Open| open.first_byte_ns <= began.first_byte_ns && !open.is_excluded;
        let all: Vec<_> =
            requests.iter().filter_map(|of| Some((*of, open_at(of).filter(is_older)?))).collect();
        let came_with_it: Vec<_> = all
            .iter()
            .copied()
            .filter(|(_, open)| open.received() == Received::Span(context.parent_span_id))
            .collect();
        let (of, open) = match (came_with_it.as_slice(), all.as_slice()) {
            ([only], _) | ([], [only]) => *only,
            _ => return None,
        };
        Some(Caller {
            of,
            trace_id,
            span_id: open.span_id,
            source: "sdk",
            sampling: open.sampling,
            received: open.received(),
        })
    }

    /// A request is of a trace that its program may send on.
    pub(super) fn note_trace(&mut self, connection: ConnectionId, exchange: ExchangeId) {
        if self.has_too_many_traces {
            return;
        }
        let find = |connections: &HashMap<ConnectionId, Connection>, of: &(ConnectionId, ExchangeId)| {
            let open = connections.get(&of.0)?.open.get(&of.1)?;
            Some((open.actor.pid, open.trace_id))
        };
        let connections = &self.connections;
        let keep = |key: &(u32, TraceId), requests: &mut Vec<(ConnectionId, ExchangeId)>| {
            requests.retain(|of| find(connections, of) == Some(*key));
            !requests.is_empty()
        };
        if self.by_trace.len() >= MAX_TRACES {
            self.by_trace.retain(keep);
        }
        let of = (connection, exchange);
        let Some(key) = find(connections, &of) else { return };
        let requests = self.by_trace.entry(key).or_default();
        if requests.len() >= MANY_REQUESTS && requests.len().is_power_of_two() {
            keep(&key, requests);
        }
        requests.push(of);
        if self.by_trace.len() > MAX_TRACES {
            self.has_too_many_traces = true;
            self.by_trace.clear();
        }
    }

    /// A request is over or given up. One whose process or trace is another one by now is found later.
    pub(super) fn forget_trace(&mut self, connection: ConnectionId, exchange: ExchangeId, open: &Open) {
        if !open.is_of_known_trace {
            return;
        }
        let key = (open.actor.pid, open.trace_id);
        if let Some(requests) = self.by_trace.get_mut(&key) {
            if let Some(place) = requests.iter().position(|of| *of == (connection, exchange)) {
                requests.swap_remove(place);
            }
            if requests.is_empty() {
                self.by_trace.remove(&key);
            }
        }
    }

    /// A process can receive requests that nobody can read, and pass on what came with them.
    pub(super) fn process_is_opaque(&mut self, pid: u32) {
        if self.opaque.len() >= MAX_OPAQUE {
            self.opaque.clear();
        }
        self.opaque.insert(pid);
    }

    /// After there were too many: those of the requests that are open now, if they are few enough by now.
    pub(super) fn note_traces_again(&mut self) {
        if !self.has_too_many_traces {
            return;
        }
        let open = self.connections.iter().flat_map(|(&connection, of)| {
            let served = of.open.iter().filter(|(_, open)| open.is_of_known_trace);
            served.map(move |(&exchange, open)| ((open.actor.pid, open.trace_id), (connection, exchange)))
        });
        let mut by_trace: HashMap<_, Vec<_>> = HashMap::new();
        for (key, of) in open {
            by_trace.entry(key).or_default().push(of);
            if by_trace.len() > MAX_TRACES / 2 {
                return;
            }
        }
        self.by_trace = by_trace;
        self.has_too_many_traces = false;
    }

    /// Processes that are no more, whose numbers will be others'.
    pub(super) fn forget_processes(&mut self, lives: impl Fn(u32) -> bool) {
        self.opaque.retain(|&pid| lives(pid));
    }

    /// Within a request that nobody has told a trace, its program sends a context of its own: an SDK has begun
    /// that trace for this request. Ours moves there, unless somebody knows it by the ids that it had.
    pub(super) fn move_to_trace_of_sdk(
        &mut self,
        connection: ConnectionId,
        began: &Began,
        opened: Option<Opened>,
        context: &TraceContext,
        requests: &mut Requests,
        outcome: &mut Outcome,
    ) {
        if self.received.contains(context.parent_span_id) {
            return;
        }
        let Ok(caller) = self.caller_of(connection, began, opened) else { return };
        let decided = decision_of(context);
        let mut sampling =
            decided.unwrap_or_else(|| self.limit.decide(context.trace_id, began.first_byte_ns));
        let Some(open) = self.open_mut(caller.of) else { return };
        let is_free = open.received() == Received::None
            && matches!(open.parent, Parent::Absent { .. })
            && (open.is_kept() || open.is_undecided)
            && !open.is_shown
            && !open.has_children;
        let Some(key) = open.key.filter(|_| is_free) else { return };
        let stamp = Stamp { trace_id: context.trace_id, span_id: open.span_id };
        let stamp = if sampling.is_kept() { Ok(stamp) } else { Err(Unstamped::NotTraced) };
        if !requests.rename(key, stamp) {
            return;
        }
        let (trace_before, was_undecided) = (open.trace_id, open.is_undecided);
        if was_undecided {
            self.leave_trace(trace_before, requests, outcome);
        }
        let is_undecided = sampling == Sampling::Beyond;
        if is_undecided {
            sampling = self.begin_undecided(context.trace_id, sampling, false);
        }
        let Some(open) = self.open_mut(caller.of) else { return };
        open.trace_id = context.trace_id;
        open.sampling = sampling;
        open.is_undecided = is_undecided;
        open.is_of_known_trace = true;
        self.note_trace(caller.of.0, caller.of.1);
    }

    fn open_mut(&mut self, (connection, exchange): (ConnectionId, ExchangeId)) -> Option<&mut Open> {
        self.connections.get_mut(&connection)?.open.get_mut(&exchange).map(Box::as_mut)
    }

    /// The server's span within which a request was sent.
    fn caller_of(
        &self,
        connection: ConnectionId,
        began: &Began,
        opened: Option<Opened>,
    ) -> Result<Caller, &'static str> {
        let is_first = self.connections.get(&connection).is_none_or(|of| of.exchanges == 0);
        let (key, actor) = match (began.within, opened) {
            (Some(key), _) => (key, began.actor),
            // Another thread writes, or the same one after it has waited, but the connection was made for one
            // request. Only the first thing sent is surely that request's: pools hand connections on.
            (None, Some(Opened { opened_by: Some(key), opener, .. })) if is_first => (key, opener),
            _ if began.by_event_loop => return Err("event_loop"),
            _ => return Err("no_open_request"),
        };
        // Whoever writes to a connection of many streams writes for others, too; a goroutine does not.
        if began.stream_id != 0 && actor.goroutine == 0 {
            return Err("multiplexed");
        }
        let &(connection, exchange) = self.by_key.get(&key).ok_or("request_ended_or_unconfirmed")?;
        let open = self.connections.get(&connection).and_then(|of| of.open.get(&exchange));
        let open = open.ok_or("request_ended_or_unconfirmed")?;
        if open.is_excluded {
            return Err("request_excluded");
        }
        if open.actor.pid != actor.pid || began.first_byte_ns < open.first_byte_ns {
            return Err("request_of_another_process");
        }
        let source = match actor.goroutine {
            0 if began.from_pool => "pool",
            0 => "thread",
            _ => "goroutine",
        };
        let (trace_id, span_id) = (open.trace_id, open.span_id);
        let of = (connection, exchange);
        Ok(Caller { of, trace_id, span_id, source, sampling: open.sampling, received: open.received() })
    }
}
