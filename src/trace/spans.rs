//! Exchanges → spans: which trace, whose child, what it is called, how it went.
//!
//! Whose child a span is, is found out by `parents.rs`.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::attributes::{self, Asked, Conventions};
use super::context::Incoming;
use super::exchange::{Began, Discarded, Ended, ExchangeEvent, ExchangeId};
use super::limit::SpanLimit;
use super::open::{Followed, Open, Style, unsampled};
use super::parents::{Parent, Place, RecentIds};
use super::requests::Requests;
use super::route::Routes;
use super::sampled_minutes::SampledMinutes;
use super::sampling::{Sampler, Sampling};
use super::streams::{StreamWork, Streams};
use super::typical::Typical;
use super::undecided::{Over, Undecided};
use crate::model::socket::{Direction, Endpoint, Opened};
use crate::model::{ConnectionId, RequestKey, Span, SpanId, SpanResource, TraceId, UnsampledRequest};

/// A request that has been open for so long is shown while it hangs.
const SHOWN_WHILE_OPEN_NS: u64 = 1_000_000_000;
/// What is asked of spans.
#[derive(Clone)]
pub struct SpanOptions {
    /// Names of attributes.
    pub conventions: Conventions,
    /// Whether queries stand in attributes.
    pub capture_query: bool,
    /// Whether contexts that requests carry are believed.
    pub read_context: bool,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// How many spans a second, about; `None`: as many as there are.
    pub spans_per_second: Option<u64>,
    /// Whether HTTP that is no gRPC is followed.
    pub http: bool,
    /// Whether gRPC is.
    pub grpc: bool,
    /// Whether no request is left out.
    pub excludes_nothing: bool,
    /// Whether a request to this path is left out.
    pub is_excluded: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl std::fmt::Debug for SpanOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { conventions, capture_query, read_context, sampler, spans_per_second, http, grpc, .. } =
            self;
        formatter
            .debug_struct("SpanOptions")
            .field("conventions", conventions)
            .field("capture_query", capture_query)
            .field("read_context", read_context)
            .field("sampler", sampler)
            .field("spans_per_second", spans_per_second)
            .field("http", http)
            .field("grpc", grpc)
            .finish_non_exhaustive()
    }
}

impl SpanOptions {
    /// Whether the ids of a request that came with a context are known, and will stay, before it is understood.
    #[must_use]
    pub fn ids_are_final_at_once(&self) -> bool {
        self.read_context && self.excludes_nothing
    }
}

/// What came of events.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Spans that have ended, and those that have been open for a second and are shown for the first time.
    pub spans: Vec<Span>,
    /// Requests that have ended and whose trace is not kept: only counted.
    pub unsampled: Vec<UnsampledRequest>,
}

impl Outcome {
    /// Spans in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len() + self.unsampled.len()
    }

    /// Whether nothing has come of them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Counts of what could not be told, by reason. Only ever grow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpanCounts {
    /// Server spans that ended, kept or not.
    pub server_requests: u64,
    /// Client spans that ended, kept or not.
    pub client_requests: u64,
    /// Spans by the evidence for their parent; those without one under `absent:REASON`.
    pub parents: HashMap<&'static str, u64>,
    /// Requests that were given up, by reason.
    pub discarded: HashMap<Discarded, u64>,
    /// Requests that were left out by path or protocol.
    pub excluded: u64,
    /// Requests whose trace is not kept.
    pub not_sampled: NotSampled,
    /// Spans that are kept although their trace is beyond the limit of spans a second, by reason.
    pub kept_late: HashMap<&'static str, u64>,
    /// Traces beyond that limit in which something was slow or failed, and that found no room.
    pub not_kept_late: u64,
    /// The share of traces that is kept now, of those that nobody else decides on and the configured share leaves.
    pub share: f64,
    /// Requests without a route because their service has too many.
    pub without_route: u64,
    /// Requests whose context in TCP's header named the span that was found at the other end of the connection.
    pub tcp_contexts_right: u64,
    /// … named another one.
    pub tcp_contexts_contradicted: u64,
    /// Requests whose context went out in TCP's header as part of another trace than they are of here.
    pub tcp_contexts_of_other_traces: u64,
}

/// Requests whose trace is not kept, by who has decided that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotSampled {
    /// Their parent.
    pub parent: u64,
    /// The configured share.
    pub share: u64,
    /// The limit of spans a second.
    pub limit: u64,
}

/// The two ends of a connection, as one of them sees them. Loopback addresses are of a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    local: Endpoint,
    peer: Endpoint,
    network_namespace: u32,
}

impl Ends {
    pub(super) fn of(opened: &Opened) -> Self {
        let &Opened { local, peer, network_namespace, .. } = opened;
        let is_loopback = matches!(peer, Endpoint::Internet { address, .. } if address.is_loopback());
        Self { local, peer, network_namespace: if is_loopback { network_namespace } else { 0 } }
    }

    /// The same as the other end sees them.
    pub(super) fn from_other_end(opened: &Opened) -> Self {
        let &Opened { local, peer, .. } = opened;
        Self::of(&Opened { local: peer, peer: local, ..*opened })
    }
}

#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) opened: Option<Opened>,
    /// Boxed: they are a kilobyte each, and change hands six times.
    pub(super) open: HashMap<ExchangeId, Box<Open>>,
    /// Exchanges it has had.
    pub(super) exchanges: u64,
    pub(super) streams: Streams,
}

/// The spans that are open, and what is needed to make them.
#[derive(Debug)]
pub(super) struct Spans {
    options: SpanOptions,
    scope: Arc<(String, String)>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    /// The ends that send requests, by their own and their peer's endpoint.
    pub(super) clients: HashMap<Ends, ConnectionId>,
    /// Spans by the key of their request, while they are open.
    pub(super) by_key: HashMap<RequestKey, (ConnectionId, ExchangeId)>,
    /// Requests by their process and trace; some have ended since.
    pub(super) by_trace: HashMap<(u32, TraceId), Vec<(ConnectionId, ExchangeId)>>,
    pub(super) has_too_many_traces: bool,
    /// In order of their beginning: to be shown when they have been open for long.
    beginnings: VecDeque<(u64, ConnectionId, ExchangeId)>,
    routes: Routes,
    /// Parents that requests from elsewhere named.
    pub(super) received: RecentIds,
    /// Ids that our client spans took over from the headers they sent.
    pub(super) adopted: RecentIds,
    /// Processes that can receive requests which nobody can read.
    pub(super) opaque: HashSet<u32>,
    ids: IdSource,
    pub(super) limit: SpanLimit,
    pub(super) undecided: Undecided,
    typical: Typical,
    pub(super) minutes: SampledMinutes,
    /// Empty but while a request ends: kept for its room.
    pub(super) over: Vec<Over>,
    pub(super) counts: SpanCounts,
}

/// Whose exchange it is, and when that happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    /// The process at this end.
    pub(super) resource: &'a Arc<SpanResource>,
    /// Whether that is a Go program.
    pub(super) is_go: bool,
    /// Whether it was read inside of a TLS library.
    pub(super) is_decrypted: bool,
    /// The wall clock.
    pub(super) clock: WallClock,
}

/// When things happened on the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallClock {
    /// Unix time less `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) offset_ns: i128,
}

impl WallClock {
    pub(super) fn unix_ns(self, monotonic_ns: u64) -> u64 {
        u64::try_from(i128::from(monotonic_ns) + self.offset_ns).unwrap_or(0)
    }
}

impl Spans {
    pub(super) fn new(options: SpanOptions) -> Self {
        Self {
            limit: SpanLimit::new(options.sampler, options.spans_per_second),
            undecided: Undecided::default(),
            typical: Typical::default(),
            minutes: SampledMinutes::default(),
            over: Vec::new(),
            options,
            scope: Arc::new(("spanflame".to_owned(), env!("CARGO_PKG_VERSION").to_owned())),
            connections: HashMap::new(),
            clients: HashMap::new(),
            by_key: HashMap::new(),
            by_trace: HashMap::new(),
            has_too_many_traces: false,
            beginnings: VecDeque::new(),
            routes: Routes::default(),
            received: RecentIds::default(),
            adopted: RecentIds::default(),
            opaque: HashSet::new(),
            ids: IdSource::default(),
            counts: SpanCounts::default(),
        }
    }

    pub(super) fn set_options(&mut self, options: SpanOptions, now_ns: u64) {
        self.limit.set(options.sampler, options.spans_per_second, now_ns);
        self.options = options;
    }

    pub(super) fn counts(&self) -> SpanCounts {
        let mut counts = self.counts.clone();
        counts.without_route = self.routes.refused();
        counts.not_kept_late += self.undecided.no_room;
        counts.share = self.limit.share();
        counts
    }

    /// A connection has been heard of.
    pub(super) fn connection_opened(&mut self, connection: ConnectionId, opened: Opened) {
        self.connections.entry(connection).or_default().opened = Some(opened);
    }

    /// A connection is no more; its exchanges have ended before.
    pub(super) fn connection_ended(
        &mut self,
        connection: ConnectionId,
        requests: &mut Requests,
        outcome: &mut Outcome,
    ) {
        let Some(ended) = self.connections.remove(&connection) else { return };
        for open in ended.open.values() {
            if let Some(key) = open.key {
                self.by_key.remove(&key);
            }
            self.leave_undecided(open, requests, outcome);
        }
        let ends = ended.opened.map(|opened| Ends::of(&opened));
        if let Some(ends) = ends.filter(|ends| self.clients.get(ends) == Some(&connection)) {
            self.clients.remove(&ends);
        }
    }

    /// Who works on a stream of a connection became known.
    pub(super) fn stream_taken(
        &mut self,
        connection: ConnectionId,
        stream_id: u32,
        work: StreamWork,
        requests: &mut Requests,
    ) {
        let of = self.connections.entry(connection).or_default();
        let begun = of
            .open
            .iter_mut()
            .filter(|(_, open)| open.stream_id == stream_id && open.direction == work.direction)
            .max_by_key(|&(&exchange, _)| exchange);
        match (begun, work.direction) {
            (Some((&exchange, open)), Direction::In) => {
                open.actor = work.actor;
                open.is_lost_goroutine = false;
                if let Some(key) = work.request.filter(|_| open.key.is_none()) {
                    open.key = Some(key);
                    requests.begin(key, open.request());
                    self.by_key.insert(key, (connection, exchange));
                }
            }
            // It is written already: whoever joined in the middle of that comes too late.
            (Some(_), Direction::Out) => {}
            (None, _) => of.streams.add(stream_id, work),
        }
    }

    /// Takes what a conversation said.
    pub(super) fn take(
        &mut self,
        connection: ConnectionId,
        event: ExchangeEvent,
        of: &Whose<'_>,
        requests: &mut Requests,
        outcome: &mut Outcome,
    ) {
        match event {
            ExchangeEvent::Began(began) => self.begin(connection, began, of, requests, outcome),
            ExchangeEvent::Ended(ended) => self.end(connection, ended, requests, outcome),
            ExchangeEvent::Discarded(exchange, reason) => {
                *self.counts.discarded.entry(reason).or_default() += 1;
                let open = exchange.and_then(|exchange| {
                    let open = self.connections.get_mut(&connection)?.open.remove(&exchange)?;
                    Some((exchange, open))
                });
                if let Some((exchange, open)) = open {
                    if let Some(key) = open.key {
                        self.by_key.remove(&key);
                        requests.discard(key);
                    }
                    self.forget_trace(connection, exchange, &open);
                    self.withdraw(&open, reason != Discarded::NotConfirmed, requests, outcome);
                }
            }
        }
    }

    /// Nothing more will be heard of a connection, though it may live on: its requests are given up.
    pub(super) fn connection_forgotten(
        &mut self,
        connection: ConnectionId,
        of: &Whose<'_>,
        requests: &mut Requests,
        outcome: &mut Outcome,
    ) {
        let known = self.connections.get(&connection);
        let open: Vec<ExchangeId> = known.into_iter().flat_map(|of| of.open.keys().copied()).collect();
        for exchange in open {
            let event = ExchangeEvent::Discarded(Some(exchange), Discarded::TooMany);
            self.take(connection, event, of, requests, outcome);
        }
        self.connection_ended(connection, requests, outcome);
    }

    /// Nothing more will be heard of any request: those that were shown while they were open are told to have
    /// an end that nobody saw.
    pub(super) fn withdraw_open(&mut self, requests: &mut Requests, outcome: &mut Outcome) {
        let connections = self.connections.values_mut();
        let open: Vec<Box<Open>> = connections.flat_map(|of| of.open.drain().map(|(_, open)| open)).collect();
        for open in &open {
            self.withdraw(open, true, requests, outcome);
        }
        self.by_key.clear();
    }

    fn begin(
        &mut self,
        connection: ConnectionId,
        mut began: Began,
        of: &Whose<'_>,
        requests: &mut Requests,
        outcome: &mut Outcome,
    ) {
        let mut key = began.minted.map(|minted| minted.key);
        let known = self.connections.entry(connection).or_default();
        let opened = known.opened;
        if let Some(work) = known.streams.take(began.stream_id, began.direction) {
            began.actor = work.actor;
            match began.direction {
                Direction::In => key = key.or(work.request),
                Direction::Out => began.within = work.request,
            }
        }
        // The thread that a goroutine runs on says nothing of it.
        let is_lost_goroutine = of.is_go && began.actor.goroutine == 0;
        if began.direction == Direction::Out
            && let Some(opened) = &opened
        {
            self.clients.insert(Ends::of(opened), connection);
        }
        let asked = Asked::of(&began.head);
        let followed = self.options.followed(&asked, &began.head);
        let is_excluded_by_path = asked.path.as_deref().is_some_and(|path| (self.options.is_excluded)(path));
        let is_excluded = followed != Followed::Yes || is_excluded_by_path;
        let carried = Incoming::of(&began.head);
        let is_ignored = !self.options.read_context && carried != Incoming::Nothing;
        let incoming = if is_ignored { Incoming::Nothing } else { carried };
        let (context, said) = match &incoming {
            Incoming::Context(context) => (Some(context), context.sampled),
            Incoming::Sampling(sampled) => (None, Some(*sampled)),
            Incoming::Nothing | Incoming::Malformed | Incoming::Unknown => (None, None),
        };
        // The kernel side has taken the trace id out of the head, too.
        let own = began
            .minted
            .filter(|_| !is_ignored)
            .and_then(|minted| Some((TraceId::new(minted.trace_id)?, SpanId::new(minted.span_id)?)));
        let (own_trace, own_span) = own.unwrap_or_else(|| self.ids.next());
        if began.direction == Direction::Out
            && !is_lost_goroutine
            && let Some(context) = context
        {
            self.move_to_trace_of_sdk(connection, &began, opened, context, requests, outcome);
        }
        let place = match began.direction {
            Direction::In => {
                self.place_server(connection, (&began, &asked), opened, context, (own_trace, own_span))
            }
            Direction::Out => self.place_client(
                connection,
                &began,
                opened,
                context,
                (own_trace, own_span),
                is_lost_goroutine,
            ),
        };
        let Place { trace_id, span_id, parent, decision, trace_state } = place;
        let decided = decision.or(said.map(Sampling::by_parent));
        let mut sampling = decided.unwrap_or_else(|| self.limit.decide(trace_id, began.first_byte_ns));
        let is_sent = began.minted.is_some_and(|minted| minted.is_sent);
        let is_undecided = !is_excluded && matches!(sampling, Sampling::Beyond | Sampling::Late(_));
        if is_undecided {
            sampling = self.begin_undecided(trace_id, sampling, is_sent);
        }
        if !is_excluded {
            self.limit.note_begun(sampling);
        }
        let source = match parent {
            Parent::Known { source, .. } => source,
            Parent::Absent { reason } => reason,
        };
        *self.counts.parents.entry(source).or_default() += 1;
        // An id of our own that no head carries is one that no program knows.
        let is_of_known_trace =
            began.direction == Direction::In && (context.is_some() || trace_id != own_trace);
        let open = Box::new(Open {
            trace_id,
            span_id,
            parent,
            trace_state,
            start_unix_ns: of.clock.unix_ns(began.first_byte_ns),
            resource: Arc::clone(of.resource),
            opened,
            is_encrypted: of.is_decrypted,
            first_byte_ns: began.first_byte_ns,
            key,
            actor: began.actor,
            asked,
            direction: began.direction,
            context: context.cloned(),
            context_is_unknown: matches!(incoming, Incoming::Unknown),
            stream_id: began.stream_id,
            first_byte: began.first_byte,
            sampling,
            is_undecided,
            is_excluded,
            may_be_followed: followed == Followed::ByAnswer && !is_excluded_by_path,
            is_lost_goroutine,
            is_of_known_trace,
            is_answered_for: false,
            is_shown: false,
            has_children: false,
            is_sent,
            head: began.head,
        });
        if open.is_kept() || is_undecided {
            self.beginnings.push_back((open.first_byte_ns, connection, began.exchange));
        }
        if let Some(key) = key {
            requests.begin(key, open.request());
            self.by_key.insert(key, (connection, began.exchange));
        }
        let of = self.connections.entry(connection).or_default();
        of.exchanges += 1;
        of.open.insert(began.exchange, open);
        if is_of_known_trace {
            self.note_trace(connection, began.exchange);
        }
    }

    /// How spans are written now.
    pub(super) fn style(&self) -> Style<'_> {
        let SpanOptions { conventions, capture_query, .. } = self.options;
        Style { conventions, capture_query, scope: &self.scope }
    }

    /// The route, now that the answer is known, and the name that follows from it.
    fn settle_route(&mut self, open: &mut Open, status: Option<u16>) {
        if open.asked.is_rpc {
            return;
        }
        let is_found = status.is_some_and(|status| !matches!(status, 400 | 404 | 405 | 414));
        let routes = &mut self.routes;
        open.asked.route.take_if(|template| !routes.takes(open.resource.service(), template, is_found));
    }

    fn end(
        &mut self,
        connection: ConnectionId,
        ended: Ended,
        requests: &mut Requests,
        outcome: &mut Outcome,
    ) {
        let of = self.connections.get_mut(&connection);
        let Some(mut open) = of.and_then(|of| of.open.remove(&ended.exchange)) else { return };
        if let Some(key) = open.key {
            self.by_key.remove(&key);
            requests.end(key, ended.last_byte_ns);
        }
        self.forget_trace(connection, ended.exchange, &open);
        if open.may_be_followed && self.options.follows_by_answer(&ended) {
            open.is_excluded = false;
            self.limit.note_begun(open.sampling);
            if let (Some(key), Ok(stamp)) = (open.key, open.stamp()) {
                requests.keep(key, stamp);
            }
        }
        if open.is_excluded {
            self.counts.excluded += 1;
            if let Some(key) = open.key {
                requests.leave(key);
            }
            return;
        }
        match open.direction {
            Direction::In => self.counts.server_requests += 1,
            Direction::Out => self.counts.client_requests += 1,
        }
        // Only gRPC has such a status.
        if open.may_be_rpc() && ended.grpc_status.value().is_some() {
            open.asked.become_rpc();
        } else {
            self.settle_route(&mut open, ended.response.and_then(|response| response.status));
        }
        let is_slow = self.typical.is_slow(&open, open.duration_ns(&ended));
        if open.is_undecided {
            self.end_undecided((open, ended), is_slow, requests, outcome);
        } else if open.is_kept() {
            self.count_kept(&open, &ended);
            outcome.spans.push(open.ended_span(&ended, self.style()));
        } else {
            self.count_unsampled(open, &ended, requests, outcome);
        }
    }

    /// A request is over and has no span.
    pub(super) fn count_unsampled(
        &mut self,
        open: Box<Open>,
        ended: &Ended,
        requests: &mut Requests,
        outcome: &mut Outcome,
    ) {
        if let Some(key) = open.key {
            requests.leave(key);
        }
        let NotSampled { parent, share, limit } = &mut self.counts.not_sampled;
        *match open.sampling {
            Sampling::NotAsked => parent,
            Sampling::NotDrawn => share,
            _ => limit,
        } += 1;
        let request = unsampled(*open, ended);
        self.minutes.note(request.end_unix_ns, false);
        outcome.unsampled.push(request);
    }

    /// A request is over and has one.
    pub(super) fn count_kept(&mut self, open: &Open, ended: &Ended) {
        self.minutes.note(open.end_unix_ns(ended), true);
    }

    /// Hands on those that have been open for a second, once. A trace beyond the limit in which one has is kept.
    pub(super) fn show_open(&mut self, now_ns: u64, requests: &mut Requests, outcome: &mut Outcome) {
        while let Some(&(began_ns, connection, exchange)) = self.beginnings.front() {
            if began_ns.saturating_add(SHOWN_WHILE_OPEN_NS) > now_ns {
                return;
            }
            self.beginnings.pop_front();
            let of = self.connections.get(&connection);
            // A later exchange of the same number began later.
            let open = of.and_then(|of| of.open.get(&exchange));
            let Some(open) = open.filter(|open| open.first_byte_ns == began_ns && !open.is_shown) else {
                continue;
            };
            let (sampling, trace_id) = (open.sampling, open.trace_id);
            let sampling = match sampling {
                Sampling::Beyond if open.is_undecided => self.keep_long(trace_id),
                decided => decided,
            };
            let of = self.connections.get_mut(&connection);
            let Some(open) = of.and_then(|of| of.open.get_mut(&exchange)) else { continue };
            open.sampling = sampling;
            if !open.is_kept() {
                continue;
            }
            open.is_shown = true;
            if let (Some(key), Ok(stamp)) = (open.key, open.stamp()) {
                requests.keep(key, stamp);
            }
            let SpanOptions { conventions, capture_query, .. } = self.options;
            outcome.spans.push(open.span(Style { conventions, capture_query, scope: &self.scope }));
        }
    }

    /// A request of which nothing more will be heard. If it was shown while it was open, it would be shown so for
    /// ever; if others are below it, and it was a request (`is_request`), they would be below nothing. Then it gets an
    /// end, the last moment at which it was surely open, that is said to be none.
    fn withdraw(&mut self, open: &Open, is_request: bool, requests: &mut Requests, outcome: &mut Outcome) {
        let is_known_to_others = is_request && (open.has_children || open.is_answered_for || open.is_sent);
        if open.is_kept() && (open.is_shown || is_known_to_others) {
            let surely_open_ns = if open.is_shown { SHOWN_WHILE_OPEN_NS } else { 0 };
            let mut span = open.span(self.style());
            span.end_unix_ns = Some(span.start_unix_ns.saturating_add(surely_open_ns));
            span.attributes.push(attributes::uncertain_end("not_seen"));
            outcome.spans.push(span);
        }
        self.leave_undecided(open, requests, outcome);
    }
}

/// Makes ids for requests that the kernel side has not seen begin: not all of HTTP/2 stands where it looks.
/// `SipHash` of a count under keys that the system chose at random: nobody can tell the next one.
#[derive(Debug, Default)]
struct IdSource {
    keys: RandomState,
    made: u64,
}

impl IdSource {
    fn next(&mut self) -> (TraceId, SpanId) {
        let mut word = || {
            self.made += 1;
            self.keys.hash_one(self.made).to_be_bytes()
        };
        let (high, low, span) = (word(), word(), word());
        let mut trace = [0; 16];
        trace[..8].copy_from_slice(&high);
        trace[8..].copy_from_slice(&low);
        (TraceId::nonzero(trace), SpanId::nonzero(span))
    }
}
