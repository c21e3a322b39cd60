//! The story of each link: who sent it, who answered it, and what the evidence is.

use std::net::IpAddr;
use std::sync::Arc;

use super::attributes::Conventions;
use super::context::TraceContext;
use super::exchange::{
    Began, Discarded, Ended, ExchangeEvent, ExchangeId, Failure, FirstByte, Known, ProtocolVersion,
    RequestHead, ResponseHead,
};
use super::open::Open;
use super::requests::Requests;
use super::sampling::Sampler;
use super::spans::{Outcome, SpanOptions, Spans, WallClock, Whose};
use super::streams::StreamWork;
use crate::model::socket::{Actor, Direction, Endpoint, Minted, Opened, Role};
use crate::model::span::{AttributeValue, integer_of, text_of};
use crate::model::{ConnectionId, RequestKey, Span, SpanId, SpanKind, SpanResource, SpanStatus, Unstamped};

const CLOCK: WallClock = WallClock { offset_ns: 1_000_000_000_000 };
pub(super) const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(super) struct Host {
    pub(super) spans: Spans,
    pub(super) requests: Requests,
    pub(super) outcome: Outcome,
    options: SpanOptions,
    last_id: u8,
    is_go: bool,
}

pub(super) struct Request {
    pub(super) connection: u64,
    pub(super) exchange: u64,
    pub(super) direction: Direction,
    pub(super) actor: Actor,
    pub(super) traceparent: Option<String>,
    pub(super) within: Option<u64>,
    pub(super) by_event_loop: bool,
    pub(super) from_pool: bool,
    /// What stands behind its first line was not seen.
    pub(super) head_is_cut: bool,
    pub(super) path: &'static str,
    pub(super) at_ns: u64,
    /// The client's span, as TCP's header said.
    pub(super) received: Option<u8>,
    /// Of which trace, if that goes out in TCP's header.
    pub(super) sent: Option<u8>,
    /// Of HTTP/2, whose requests the kernel side does not see begin; else 0.
    pub(super) stream_id: u32,
    pub(super) first_byte: FirstByte,
}

impl Request {
    pub(super) fn server(connection: u64, pid: u32) -> Self {
        Self {
            connection,
            exchange: 1,
            direction: Direction::In,
            actor: Actor { pid, tid: pid, goroutine: 0 },
            traceparent: None,
            within: None,
            by_event_loop: false,
            from_pool: false,
            head_is_cut: false,
            path: "/users/7",
            at_ns: 100,
            received: None,
            sent: None,
            stream_id: 0,
            first_byte: FirstByte::Unknown,
        }
    }

    pub(super) fn client(connection: u64, pid: u32) -> Self {
        Self { direction: Direction::Out, ..Self::server(connection, pid) }
    }

    pub(super) fn within(self, key: u64) -> Self {
        Self { within: Some(key), ..self }
    }

    pub(super) fn at(self, exchange: u64, sequence: u32) -> Self {
        Self { exchange, first_byte: FirstByte::Sequence(sequence), ..self }
    }

    pub(super) fn with(self, traceparent: &str) -> Self {
        Self { traceparent: Some(traceparent.to_owned()), ..self }
    }
}

fn endpoint(last: u8, port: u16) -> Endpoint {
    Endpoint::Internet { address: IpAddr::from([10, 0, 0, last]), port }
}

impl Host {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut SpanOptions)) -> Self {
        let mut options = SpanOptions {
            conventions: Conventions::Stable,
            capture_query: false,
            read_context: true,
            sampler: Sampler::new(1.0),
            spans_per_second: None,
            http: true,
            grpc: true,
            excludes_nothing: false,
            is_excluded: Arc::new(|path| path == "/healthz"),
        };
        change(&mut options);
        let spans = Spans::new(options.clone());
        Self {
            spans,
            requests: Requests::default(),
            outcome: Outcome::default(),
            options,
            last_id: 0,
            is_go: false,
        }
    }

    /// Both ends of a connection, `client` the one that connected.
    pub(super) fn connect(&mut self, client: u64, server: u64) {
        let (here, there) = (endpoint(1, 40_000 + client as u16), endpoint(2, 80));
        self.open(client, Role::Connected, here, there, None);
        self.open(server, Role::Accepted, there, here, None);
    }

    pub(super) fn open(
        &mut self,
        id: u64,
        role: Role,
        local: Endpoint,
        peer: Endpoint,
        opened_by: Option<u64>,
    ) {
        let opened = Opened {
            role,
            local,
            peer,
            network_namespace: 1,
            opened_by: opened_by.map(RequestKey),
            opener: Actor { pid: 7, tid: 7, goroutine: 0 },
        };
        self.spans.connection_opened(ConnectionId(id), opened);
    }

    /// A request begins; its key is that of its connection times a hundred and its exchange.
    pub(super) fn begin(&mut self, request: Request) -> u64 {
        self.last_id = self.last_id % 250 + 1;
        let key = request.connection * 100 + request.exchange;
        let head = RequestHead {
            version: ProtocolVersion::Http11,
            method: Known::Value("GET".into()),
            target: Known::Value(request.path.into()),
            scheme: Known::Absent,
            authority: Known::Absent,
            user_agent: Known::Absent,
            content_type: Known::Absent,
            traceparent: match request.head_is_cut {
                true => Known::Unknown,
                false => request.traceparent.map_or(Known::Absent, |text| Known::Value(text.into())),
            },
            tracestate: Known::Absent,
            b3: Known::Absent,
        };
        let began = Began {
            exchange: ExchangeId(request.exchange),
            stream_id: request.stream_id,
            first_byte: request.first_byte,
            direction: request.direction,
            first_byte_ns: request.at_ns,
            actor: request.actor,
            minted: (request.stream_id == 0).then(|| Minted {
                key: RequestKey(key),
                trace_id: [request.sent.unwrap_or(self.last_id); 16],
                span_id: [self.last_id; 8],
                received_parent: request.received.map(|id| [id; 8]),
                is_sent: request.sent.is_some(),
            }),
            within: request.within.map(RequestKey),
            by_event_loop: request.by_event_loop,
            from_pool: request.from_pool,
            overlaps: false,
            head,
        };
        self.tell(request.connection, ExchangeEvent::Began(began));
        key
    }

    pub(super) fn tell(&mut self, connection: u64, event: ExchangeEvent) {
        let resource = Arc::new(SpanResource::default());
        let Self { spans, requests, outcome, .. } = self;
        let of = Whose { resource: &resource, is_go: self.is_go, is_decrypted: false, clock: CLOCK };
        spans.take(ConnectionId(connection), event, &of, requests, outcome);
    }

    pub(super) fn end(&mut self, connection: u64, exchange: u64, status: u16, at_ns: u64) -> Option<Span> {
        self.end_with(connection, exchange, Some(status), None, at_ns)
    }

    pub(super) fn end_with(
        &mut self,
        connection: u64,
        exchange: u64,
        status: Option<u16>,
        failure: Option<Failure>,
        at_ns: u64,
    ) -> Option<Span> {
        self.outcome.spans.clear();
        self.tell_end(connection, exchange, status, failure, at_ns);
        self.outcome.spans.pop()
    }

    /// Likewise; what comes of it is added to the outcome.
    pub(super) fn tell_end(
        &mut self,
        connection: u64,
        exchange: u64,
        status: Option<u16>,
        failure: Option<Failure>,
        at_ns: u64,
    ) {
        self.tell(connection, ExchangeEvent::Ended(Self::ended(exchange, status, failure, at_ns)));
    }

    fn ended(exchange: u64, status: Option<u16>, failure: Option<Failure>, at_ns: u64) -> Ended {
        Ended {
            exchange: ExchangeId(exchange),
            response: status.map(|status| ResponseHead { status: Some(status) }),
            first_response_byte_ns: None,
            last_byte_ns: at_ns,
            end_is_certain: true,
            failure,
            request_body_bytes: Some(0),
            response_body_bytes: Some(5),
            grpc_status: Known::Absent,
            upgraded: false,
        }
    }

    /// A request that was sent, as it is known then.
    fn open_request(&mut self, exchange: u64, traceparent: Option<&str>) -> &Open {
        let request = Request { exchange, ..Request::client(1, 7) };
        self.begin(match traceparent {
            Some(traceparent) => request.with(traceparent),
            None => request,
        });
        let of = self.spans.connections.get(&ConnectionId(1)).expect("it is known");
        of.open.get(&ExchangeId(exchange)).expect("it has begun")
    }

    /// A request that is over, as it is known then.
    pub(super) fn over_request(&mut self, exchange: u64) -> super::undecided::Over {
        self.begin(Request { exchange, ..Request::server(2, 9) });
        let of = self.spans.connections.get_mut(&ConnectionId(2)).expect("it is known");
        let open = of.open.remove(&ExchangeId(exchange)).expect("it has begun");
        (open, Self::ended(exchange, Some(200), None, 400))
    }
}

fn source(span: &Span) -> Option<&str> {
    text_of(&span.attributes, "spanflame.parent.source")
}

fn absent(span: &Span) -> Option<&str> {
    text_of(&span.attributes, "spanflame.parent.absent_reason")
}

#[test]
fn a_request_becomes_a_span_with_the_ids_that_the_kernel_gave_it() {
    let mut host = Host::new();
    host.connect(1, 2);
    let key = host.begin(Request::server(2, 9));
    assert!(host.requests.span_at(RequestKey(key), 150).is_ok(), "samples know it while it is open");
    let span = host.end(2, 1, 200, 400).expect("a span");
    assert_eq!((span.name.as_str(), span.kind), ("GET /users/{id}", SpanKind::Server));
    assert_eq!((span.trace_id.bytes(), span.span_id.bytes()), ([1; 16], [1; 8]));
    assert_eq!((span.start_unix_ns, span.duration_ns()), (1_000_000_000_100, Some(300)));
    assert_eq!(integer_of(&span.attributes, "http.response.status_code"), Some(200));
    assert_eq!(integer_of(&span.attributes, "http.response.body.size"), Some(5));
    assert_eq!(span.status, SpanStatus::Unset);
    assert_eq!(host.requests.span_at(RequestKey(key), 401), Err(Unstamped::Outside));
}

#[test]
fn a_call_made_while_a_request_is_open_is_its_child_and_the_other_end_is_the_calls() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9));
    host.begin(Request::client(3, 9).within(key));
    host.begin(Request::server(4, 10));
    let callee = host.end(4, 1, 200, 300).expect("a span");
    let call = host.end(3, 1, 200, 310).expect("a span");
    let request = host.end(2, 1, 200, 320).expect("a span");
    assert_eq!((call.parent_span_id, source(&call)), (Some(request.span_id), Some("thread")));
    assert_eq!((callee.parent_span_id, source(&callee)), (Some(call.span_id), Some("local_peer")));
    assert!(call.trace_id == request.trace_id && callee.trace_id == request.trace_id);
    assert_eq!(absent(&request), Some("no_context_sent"));
}

/// A request of a connection that was there before us: its content type refers to what went by.
fn joined_late(exchange: u64, path: Known, content_type: Known) -> Began {
    Began {
        exchange: ExchangeId(exchange),
        stream_id: exchange as u32 * 2 + 1,
        first_byte: FirstByte::Unknown,
        direction: Direction::In,
        first_byte_ns: 100,
        actor: Actor { pid: 7, tid: 7, goroutine: 0 },
        minted: None,
        within: None,
        by_event_loop: false,
        from_pool: false,
        overlaps: false,
        head: RequestHead {
            version: ProtocolVersion::Http2,
            method: Known::Value("POST".into()),
            target: path,
            scheme: Known::Absent,
            authority: Known::Unknown,
            user_agent: Known::Unknown,
            content_type,
            traceparent: Known::Unknown,
            tracestate: Known::Unknown,
            b3: Known::Unknown,
        },
    }
}

fn answered(exchange: u64, grpc_status: Known, status: Option<u16>) -> Ended {
    Ended {
        exchange: ExchangeId(exchange),
        response: Some(ResponseHead { status }),
        first_response_byte_ns: None,
        last_byte_ns: 200,
        end_is_certain: true,
        failure: None,
        request_body_bytes: Some(0),
        response_body_bytes: Some(5),
        grpc_status,
        upgraded: false,
    }
}

#[test]
fn what_only_its_answer_shows_to_be_grpc_is_told_as_grpc() {
    let mut host = Host::new();
    host.connect(1, 2);
    let value = |text: &str| Known::Value(text.into());
    for (exchange, path) in [(1, value("/shop.Cart/Add")), (2, Known::Unknown), (3, value("/form/9"))] {
        host.tell(2, ExchangeEvent::Began(joined_late(exchange, path, Known::Unknown)));
    }
    let mut end = |exchange, grpc_status, status| {
        host.tell(2, ExchangeEvent::Ended(answered(exchange, grpc_status, status)));
        host.outcome.spans.pop().expect("a span")
    };
    let failed = end(1, value("13"), Some(200));
    assert_eq!((failed.name.as_str(), failed.status), ("shop.Cart/Add", SpanStatus::Error));
    assert_eq!(text_of(&failed.attributes, "rpc.method"), Some("Add"));
    assert_eq!(integer_of(&failed.attributes, "rpc.grpc.status_code"), Some(13));
    assert_eq!(text_of(&failed.attributes, "url.path"), None);
    let nameless = end(2, value("0"), None);
    assert_eq!((nameless.name.as_str(), nameless.status), ("POST", SpanStatus::Unset));
    assert_eq!(text_of(&nameless.attributes, "rpc.system"), Some("grpc"));
    assert_eq!(integer_of(&nameless.attributes, "rpc.grpc.status_code"), Some(0));
    let other = end(3, Known::Unknown, Some(200));
    assert_eq!((other.name.as_str(), text_of(&other.attributes, "rpc.system")), ("POST /form/{id}", None));
}

#[test]
fn of_grpc_and_http_only_that_is_followed_that_is_to_be_whatever_the_head_tells() {
    let value = |text: &str| Known::Value(text.into());
    let key = RequestKey(77);
    for (http, grpc) in [(true, false), (false, true), (true, true), (false, false)] {
        for (what, content_type, path, status, is_grpc) in [
            ("by its head", value("application/grpc"), value("/shop.Cart/Add"), value("0"), Some(true)),
            (
                "by a head without a path",
                value("application/grpc"),
                Known::Unknown,
                Known::Unknown,
                Some(true),
            ),
            ("a form", value("text/plain"), value("/form/9"), Known::Absent, Some(false)),
            ("by its answer", Known::Unknown, value("/shop.Cart/Add"), value("13"), Some(true)),
            ("by its answer none", Known::Unknown, value("/form/9"), Known::Absent, Some(false)),
            ("not even by that", Known::Unknown, value("/form/9"), Known::Unknown, None),
            ("a path that is left out", Known::Unknown, value("/healthz"), Known::Absent, Some(false)),
        ] {
            let mut host = Host::with(|options| (options.http, options.grpc) = (http, grpc));
            host.connect(1, 2);
            let is_left_out = path.value() == Some("/healthz");
            let mut began = joined_late(1, path, content_type);
            began.minted = Some(Minted {
                key,
                trace_id: [9; 16],
                span_id: [8; 8],
                received_parent: None,
                is_sent: false,
            });
            host.tell(2, ExchangeEvent::Began(began));
            let at_once = host.requests.span_at(key, 150);
            host.tell(2, ExchangeEvent::Ended(answered(1, status, Some(200))));
            let is_followed = match is_grpc {
                _ if is_left_out => false,
                Some(true) => grpc,
                Some(false) => http,
                None => http && grpc,
            };
            let told = format!("{what}, http: {http}, grpc: {grpc}");
            assert_eq!(host.outcome.spans.len(), usize::from(is_followed), "{told}");
            assert_eq!(host.spans.counts().excluded, u64::from(!is_followed), "{told}");
            assert_eq!(host.requests.span_at(key, 150).is_ok(), is_followed, "{told}");
            assert!(is_followed || at_once == Err(Unstamped::NotTraced), "{told}: nobody was told of a span");
        }
    }
}

#[test]
fn a_call_after_the_response_is_nobodys_child() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9));
    host.end(2, 1, 200, 200);
    host.begin(Request { at_ns: 250, ..Request::client(3, 9).within(key) });
    let call = host.end(3, 1, 200, 310).expect("a span");
    assert_eq!((call.parent_span_id, absent(&call)), (None, Some("request_ended_or_unconfirmed")));
    host.begin(Request { at_ns: 400, exchange: 2, ..Request::client(3, 9) });
    assert_eq!(absent(&host.end(3, 2, 200, 410).expect("a span")), Some("no_open_request"));
}

#[test]
fn a_connection_made_for_a_request_belongs_to_it_whoever_writes() {
    let mut host = Host::new();
    host.connect(1, 2);
    let key = host.begin(Request::server(2, 7));
    host.open(3, Role::Connected, endpoint(1, 50_000), endpoint(9, 80), Some(key));
    host.begin(Request { actor: Actor { pid: 7, tid: 8, goroutine: 0 }, ..Request::client(3, 7) });
    let call = host.end(3, 1, 200, 310).expect("a span");
    assert_eq!(source(&call), Some("thread"));
}

#[test]
fn the_header_names_the_parent_of_what_comes_from_elsewhere() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
    host.begin(Request::server(2, 9).with(TRACEPARENT));
    let span = host.end(2, 1, 200, 300).expect("a span");
    assert_eq!(span.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span.parent_span_id.expect("a parent").to_string(), "b7ad6b7169203331");
    assert_eq!(source(&span), Some("header"));
}

#[test]
fn a_context_that_is_not_to_be_read_has_no_part_in_the_span() {
    let mut host = Host::with(|options| options.read_context = false);
    host.connect(1, 2);
    // Not followed at the other end.
    host.begin(Request::server(2, 9).with(&TRACEPARENT.replace("-01", "-00")));
    let span = host.end(2, 1, 200, 400).expect("the sampled flag is not read either");
    assert_eq!((span.parent_span_id, absent(&span)), (None, Some("no_context_sent")));
    assert_ne!(span.trace_id.bytes(), [1; 16], "what the kernel side minted may be the head's trace id");
    // A call keeps its own id.
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9));
    host.begin(Request::client(3, 9).within(key).with(TRACEPARENT));
    let call = host.end(3, 1, 200, 500).expect("a span");
    assert_ne!(Some(call.span_id), SpanId::from_hex(&TRACEPARENT.as_bytes()[36..52]));
    assert_eq!(source(&call), Some("thread"));
}

#[test]
fn a_proxy_that_passes_a_context_on_stands_between() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9).with(TRACEPARENT));
    host.begin(Request::client(3, 9).within(key).with(TRACEPARENT));
    host.begin(Request::server(4, 10).with(TRACEPARENT));
    let callee = host.end(4, 1, 200, 300).expect("a span");
    let call = host.end(3, 1, 200, 310).expect("a span");
    let request = host.end(2, 1, 200, 320).expect("a span");
    assert_eq!((call.parent_span_id, source(&call)), (Some(request.span_id), Some("thread")));
    assert_eq!((callee.parent_span_id, source(&callee)), (Some(call.span_id), Some("local_peer")));
    assert_eq!(callee.trace_id, request.trace_id);
}

#[test]
fn the_span_of_an_sdk_that_sends_a_context_of_its_own_is_ours_too() {
    let mut host = Host::new();
    host.connect(3, 4);
    host.begin(Request::client(3, 9).with(TRACEPARENT));
    host.begin(Request::server(4, 10).with(TRACEPARENT));
    let callee = host.end(4, 1, 200, 300).expect("a span");
    let call = host.end(3, 1, 200, 310).expect("a span");
    assert_eq!(call.span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(absent(&call), Some("known_to_the_sdk_alone"));
    assert_eq!((callee.parent_span_id, source(&callee)), (Some(call.span_id), Some("header")));
    // A second request of the same context is another span: a retry below the SDK.
    host.begin(Request { exchange: 2, ..Request::client(3, 9).with(TRACEPARENT) });
    let again = host.end(3, 2, 200, 410).expect("a span");
    assert_ne!(again.span_id, call.span_id);
    assert_eq!((again.parent_span_id, source(&again)), (Some(call.span_id), Some("sdk")));
}

/// A context of the same trace with another span.
const OTHER_TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";

fn id_in(traceparent: &str) -> &str {
    &traceparent[36..52]
}

#[test]
fn an_sdk_that_makes_a_span_within_a_request_gives_ours_its_id_and_the_request_is_the_parent() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
    host.connect(3, 4);
    // Also in a process that receives other requests which nobody can read.
    host.spans.process_is_opaque(9);
    let key = host.begin(Request::server(2, 9).with(TRACEPARENT));
    host.begin(Request::client(3, 9).within(key).with(OTHER_TRACEPARENT));
    let call = host.end(3, 1, 200, 310).expect("a span");
    let request = host.end(2, 1, 200, 320).expect("a span");
    assert_eq!(call.span_id.to_string(), id_in(OTHER_TRACEPARENT));
    assert_eq!((call.parent_span_id, source(&call)), (Some(request.span_id), Some("thread")));
}

#[test]
fn what_a_proxy_passes_on_that_came_with_what_nobody_can_read_is_not_its_own() {
    let mut host = Host::new();
    host.connect(3, 4);
    host.spans.process_is_opaque(9);
    host.begin(Request::client(3, 9).with(TRACEPARENT));
    host.begin(Request::server(4, 10).with(TRACEPARENT));
    let callee = host.end(4, 1, 200, 300).expect("a span");
    let call = host.end(3, 1, 200, 310).expect("a span");
    assert_ne!(call.span_id.to_string(), id_in(TRACEPARENT));
    assert_eq!(call.parent_span_id.map(|id| id.to_string()).as_deref(), Some(id_in(TRACEPARENT)));
    assert_eq!((source(&call), source(&callee)), (Some("header"), Some("local_peer")));
    assert_eq!(callee.parent_span_id, Some(call.span_id));
    // Nor is one whose request's head was not all seen.
    let mut host = Host::new();
    host.connect(1, 2);
    host.connect(3, 4);
    let key = host.begin(Request { head_is_cut: true, ..Request::server(2, 9) });
    host.begin(Request::client(3, 9).within(key).with(TRACEPARENT));
    assert_ne!(host.end(3, 1, 200, 310).expect("a span").span_id.to_string(), id_in(TRACEPARENT));
}

#[test]
fn a_proxy_passes_on_what_an_sdk_on_this_host_has_sent_and_stands_between() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.connect(3, 4);
    host.begin(Request::client(1, 8).with(TRACEPARENT));
    let key = host.begin(Request::server(2, 9).with(TRACEPARENT));
    host.begin(Request::client(3, 9).within(key).with(TRACEPARENT));
    let call = host.end(3, 1, 200, 310).expect("a span");
    let request = host.end(2, 1, 200, 320).expect("a span");
    assert_eq!((call.parent_span_id, source(&call)), (Some(request.span_id), Some("thread")));
    let sent = host.end(1, 1, 200, 330).expect("a span");
    assert_eq!((request.parent_span_id, source(&request)), (Some(sent.span_id), Some("header")));
}

#[test]
fn a_header_that_came_with_another_request_than_the_thread_seems_to_be_at_names_the_parent() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
    host.open(5, Role::Accepted, endpoint(2, 80), endpoint(99, 6), None);
    host.connect(3, 4);
    host.begin(Request::server(5, 9).with(OTHER_TRACEPARENT));
    let key = host.begin(Request::server(2, 9).with(TRACEPARENT));
    host.begin(Request::client(3, 9).within(key).with(OTHER_TRACEPARENT));
    let call = host.end(3, 1, 200, 310).expect("a span");
    assert_eq!(call.parent_span_id.map(|id| id.to_string()).as_deref(), Some(id_in(OTHER_TRACEPARENT)));
    assert_eq!(source(&call), Some("header"));
}

#[test]
fn what_an_event_loop_asks_has_no_parent_and_says_why() {
    let mut host = Host::new();
    host.connect(3, 4);
    host.begin(Request { by_event_loop: true, ..Request::client(3, 9) });
    let call = host.end(3, 1, 200, 310).expect("a span");
    assert_eq!((call.parent_span_id, absent(&call)), (None, Some("event_loop")));
}

#[test]
fn what_another_thread_writes_on_a_pooled_connection_is_for_who_took_it_and_says_so() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9));
    let mut asked = Request { from_pool: true, ..Request::client(3, 9).within(key) };
    asked.actor.tid = 77;
    host.begin(asked);
    let call = host.end(3, 1, 200, 310).expect("a span");
    let request = host.end(2, 1, 200, 400).expect("a span");
    assert_eq!((call.parent_span_id, source(&call)), (Some(request.span_id), Some("pool")));
}

#[test]
fn a_request_without_a_context_is_of_the_trace_that_its_sdk_begins_for_it() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9));
    host.begin(Request::client(3, 9).within(key).with(TRACEPARENT));
    let call = host.end(3, 1, 200, 310).expect("a span");
    // A sample knows it by the new name.
    let stamp = host.requests.span_at(RequestKey(key), 250).expect("a stamp");
    let request = host.end(2, 1, 200, 320).expect("a span");
    assert_eq!(request.trace_id, call.trace_id);
    assert_eq!((stamp.trace_id, stamp.span_id), (request.trace_id, request.span_id));
    assert_eq!((call.parent_span_id, source(&call)), (Some(request.span_id), Some("thread")));
    assert_eq!(request.parent_span_id, None);
}

#[test]
fn a_request_that_is_known_by_its_own_trace_stays_there() {
    let in_time = |what: &dyn Fn(&mut Host, u64)| {
        let mut host = Host::new();
        host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
        host.connect(3, 4);
        host.connect(5, 6);
        let key = host.begin(Request::server(2, 9));
        what(&mut host, key);
        host.begin(Request::client(3, 9).within(key).with(TRACEPARENT));
        let call = host.end(3, 1, 200, 310).expect("a span");
        let request = host.end(2, 1, 200, 320).expect("a span");
        (request.trace_id != call.trace_id, absent(&call).map(str::to_owned))
    };
    let stays = (true, Some("known_to_the_sdk_alone".to_owned()));
    assert_eq!(in_time(&|_, _| {}), (false, None));
    let sampled = |host: &mut Host, key| assert!(host.requests.span_at(RequestKey(key), 150).is_ok());
    assert_eq!(in_time(&sampled), stays);
    let has_called = |host: &mut Host, key| {
        host.begin(Request::client(5, 9).within(key));
        host.end(5, 1, 200, 180).expect("a span");
    };
    assert_eq!(in_time(&has_called), stays);
}

#[test]
fn an_unsampled_parent_is_obeyed_and_the_request_still_counts() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
    let key = host.begin(Request::server(2, 9).with(&TRACEPARENT.replace("-01", "-00")));
    assert_eq!(host.requests.span_at(RequestKey(key), 150), Err(Unstamped::NotTraced));
    assert_eq!(host.end(2, 1, 500, 300), None);
    assert_eq!(host.outcome.unsampled.len(), 1);
    assert_eq!(host.outcome.unsampled[0].error.as_deref(), Some("500"));
}

#[test]
fn an_excluded_path_leaves_no_trace() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.connect(3, 4);
    let key = host.begin(Request { path: "/healthz?x=1", ..Request::server(2, 9) });
    host.begin(Request::client(3, 9).within(key));
    let call = host.end(3, 1, 200, 310).expect("a span");
    assert_eq!(absent(&call), Some("request_excluded"));
    assert_eq!(host.end(2, 1, 200, 320), None);
    assert!(host.outcome.is_empty());
    assert_eq!(host.spans.counts().excluded, 1);
}

#[test]
fn a_hanging_request_is_shown_once_and_ends_with_its_connection() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.begin(Request::server(2, 9));
    host.spans.show_open(1_000_000_099, &mut host.requests, &mut host.outcome);
    assert!(host.outcome.spans.is_empty(), "a second is not over yet");
    host.spans.show_open(1_000_000_100, &mut host.requests, &mut host.outcome);
    host.spans.show_open(9_000_000_000, &mut host.requests, &mut host.outcome);
    assert_eq!(host.outcome.spans.len(), 1);
    assert_eq!(host.outcome.spans[0].end_unix_ns, None);
    let span = host.end_with(2, 1, None, Some(Failure::Reset), 5_000_000_000).expect("a span");
    assert_eq!((span.status, text_of(&span.attributes, "error.type")), (SpanStatus::Error, Some("reset")));
}

#[test]
fn what_turned_out_to_be_no_request_has_no_span_and_no_child() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9));
    host.tell(2, ExchangeEvent::Discarded(Some(ExchangeId(1)), Discarded::NotConfirmed));
    assert_eq!(host.requests.span_at(RequestKey(key), 150), Err(Unstamped::Unconfirmed));
    host.begin(Request::client(3, 9).within(key));
    assert_eq!(host.end(3, 1, 200, 310).expect("a span").parent_span_id, None);
    assert_eq!(host.end(2, 1, 200, 320), None);
    assert_eq!(host.spans.counts().discarded.get(&Discarded::NotConfirmed), Some(&1));
}

#[test]
fn requests_that_crossed_are_not_tied_together() {
    let mut host = Host::new();
    host.connect(3, 4);
    host.begin(Request::client(3, 9).with(TRACEPARENT));
    // The server's end carries no context: it is another request, whose sender's bytes were lost.
    host.begin(Request::server(4, 10));
    let callee = host.end(4, 1, 200, 300).expect("a span");
    assert_eq!((callee.parent_span_id, absent(&callee)), (None, Some("ambiguous")));
}

#[test]
fn attributes_follow_the_options_of_the_moment() {
    let mut host = Host::with(|options| options.conventions = Conventions::Seed);
    host.connect(1, 2);
    host.begin(Request::server(2, 9));
    let span = host.end(2, 1, 200, 300).expect("a span");
    assert!(span.attributes.contains(&("http.status_code".into(), AttributeValue::Integer(200))));
    host.options.http = false;
    host.spans.set_options(host.options.clone(), 0);
    host.begin(Request { exchange: 2, ..Request::server(2, 9) });
    assert_eq!(host.end(2, 2, 200, 300), None);
}

#[test]
fn the_thread_of_a_goroutine_is_no_evidence() {
    let mut host = Host::new();
    host.is_go = true;
    host.connect(1, 2);
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9));
    assert_eq!(host.requests.span_at(RequestKey(key), 150), Err(Unstamped::GoroutineUnknown));
    host.begin(Request::client(3, 9).within(key));
    let call = host.end(3, 1, 200, 310).expect("a span");
    assert_eq!((call.parent_span_id, absent(&call)), (None, Some("goroutine_unknown")));
}

#[test]
fn equal_loopback_addresses_of_two_containers_are_two_connections() {
    let mut host = Host::new();
    let at = |port| Endpoint::Internet { address: IpAddr::from([127, 0, 0, 1]), port };
    let opened = |role, local, peer, network_namespace| Opened {
        role,
        local,
        peer,
        network_namespace,
        opened_by: None,
        opener: Actor::default(),
    };
    let here = opened(Role::Connected, at(40_000), at(80), 1);
    host.spans.connection_opened(ConnectionId(1), here);
    host.spans.connection_opened(ConnectionId(2), opened(Role::Accepted, at(80), at(40_000), 2));
    host.begin(Request::client(1, 9));
    host.begin(Request::server(2, 10));
    assert_eq!(host.end(2, 1, 200, 300).expect("a span").parent_span_id, None);
}

#[test]
fn a_request_that_was_shown_while_it_hung_is_not_shown_so_for_ever() {
    for is_stopped in [false, true] {
        let mut host = Host::new();
        host.connect(1, 2);
        host.begin(Request::server(2, 9));
        host.spans.show_open(2_000_000_000, &mut host.requests, &mut host.outcome);
        host.outcome.spans.clear();
        match is_stopped {
            true => host.spans.withdraw_open(&mut host.requests, &mut host.outcome),
            false => host.tell(2, ExchangeEvent::Discarded(Some(ExchangeId(1)), Discarded::Gap)),
        }
        let span = host.outcome.spans.pop().expect("it is told once more");
        assert_eq!(span.duration_ns(), Some(1_000_000_000), "it was surely open for so long");
        assert_eq!(text_of(&span.attributes, "spanflame.end.uncertain"), Some("not_seen"));
    }
}

#[test]
fn the_context_in_the_header_of_tcp_counts_where_nothing_else_is_known_of_the_sender() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(9, 40_000), None);
    host.begin(Request { received: Some(77), ..Request::server(2, 9) });
    let span = host.end(2, 1, 200, 400).expect("a span");
    assert_eq!(span.parent_span_id.map(SpanId::bytes), Some([77; 8]));
    assert_eq!(source(&span), Some("tcp_option"));

    // What the program itself has sent counts more.
    host.begin(Request { received: Some(77), exchange: 2, ..Request::server(2, 9) }.with(TRACEPARENT));
    let span = host.end(2, 2, 200, 400).expect("a span");
    assert_eq!(source(&span), Some("header"));
}

#[test]
fn both_ways_to_learn_the_sender_are_compared() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.begin(Request { sent: Some(5), ..Request::client(1, 7) });
    host.begin(Request { received: Some(1), sent: Some(5), ..Request::server(2, 9) });
    let span = host.end(2, 1, 200, 400).expect("a span");
    assert_eq!((span.trace_id.bytes(), source(&span)), ([5; 16], Some("local_peer")));
    let counts = host.spans.counts();
    assert_eq!((counts.tcp_contexts_right, counts.tcp_contexts_contradicted), (1, 0));
}

#[test]
fn a_call_that_went_out_as_part_of_another_trace_is_the_requests_child_and_counted() {
    let mut host = Host::new();
    host.connect(3, 4);
    let key = host.begin(Request::server(2, 9));
    host.begin(Request { sent: Some(1), ..Request::client(3, 9) }.within(key));
    let span = host.end(3, 1, 200, 300).expect("a span");
    assert_eq!((source(&span), span.trace_id.bytes()), (Some("thread"), [1; 16]));
    host.begin(Request { sent: Some(200), exchange: 2, ..Request::client(3, 9) }.within(key));
    let span = host.end(3, 2, 200, 300).expect("a span");
    assert_eq!((source(&span), span.trace_id.bytes()), (Some("thread"), [1; 16]));
    assert_eq!(host.spans.counts().tcp_contexts_of_other_traces, 1);
}

#[test]
fn a_stream_whose_goroutine_becomes_known_is_stamped_and_has_children_whichever_comes_first() {
    for is_told_first in [true, false] {
        let mut host = Host::new();
        host.is_go = true;
        host.connect(1, 2);
        host.connect(3, 4);
        let goroutine = |goroutine| Actor { pid: 9, tid: 9, goroutine };
        let work = |direction, request, by| StreamWork {
            direction,
            request: RequestKey::of(request),
            actor: goroutine(by),
        };
        let tell = |host: &mut Host, connection, stream_id, work| {
            host.spans.stream_taken(ConnectionId(connection), stream_id, work, &mut host.requests);
        };
        if is_told_first {
            tell(&mut host, 2, 5, work(Direction::In, 4711, 33));
        }
        host.begin(Request { stream_id: 5, actor: goroutine(20), ..Request::server(2, 9) });
        if !is_told_first {
            assert_eq!(host.requests.span_at(RequestKey(4711), 150), Err(Unstamped::Unconfirmed));
            tell(&mut host, 2, 5, work(Direction::In, 4711, 33));
        }
        assert!(host.requests.span_at(RequestKey(4711), 150).is_ok());
        // It asks, and the writer of all streams writes; of the next stream nobody has said anything.
        tell(&mut host, 3, 7, work(Direction::Out, 4711, 33));
        let at_ns = 120;
        host.begin(Request { stream_id: 7, at_ns, actor: goroutine(21), ..Request::client(3, 9) });
        host.begin(Request {
            stream_id: 9,
            at_ns,
            exchange: 2,
            actor: goroutine(21),
            ..Request::client(3, 9)
        });
        let parent = host.end(3, 1, 200, 300).expect("a span").parent_span_id;
        let other = host.end(3, 2, 200, 300).expect("a span");
        let request = host.end(2, 1, 200, 400).expect("a span");
        assert_eq!(parent, Some(request.span_id));
        assert_eq!(other.parent_span_id, None);
        assert_eq!(host.requests.span_at(RequestKey(4711), 401), Err(Unstamped::Outside));
    }
}

#[test]
fn what_is_sent_by_another_thread_is_for_the_one_request_of_its_trace() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.connect(3, 4);
    host.begin(Request::server(2, 9).with(TRACEPARENT));
    // An SDK's client span on an event loop: no thread says within what.
    host.begin(Request::client(3, 9).with(OTHER_TRACEPARENT));
    let call = host.end(3, 1, 200, 300).expect("a span");
    assert_eq!(source(&call), Some("sdk"));
    let request = host.end(2, 1, 200, 400).expect("a span");
    assert_eq!(call.parent_span_id, Some(request.span_id));

    // It has ended.
    host.begin(
        Request { exchange: 2, ..Request::client(3, 9) }.with(&OTHER_TRACEPARENT.replace("b7-", "b8-")),
    );
    let call = host.end(3, 2, 200, 300).expect("a span");
    assert_eq!(absent(&call), Some("known_to_the_sdk_alone"));
}

#[test]
fn of_two_requests_of_a_trace_neither_is_the_one_unless_one_came_with_this_very_context() {
    let mut host = Host::new();
    for (client, server) in [(1, 2), (3, 4), (5, 6), (7, 8)] {
        host.connect(client, server);
    }
    host.begin(Request::server(2, 9).with(TRACEPARENT));
    host.begin(Request::server(4, 9).with(OTHER_TRACEPARENT));
    host.begin(Request::client(5, 9).with(&TRACEPARENT.replace("b7ad6b7169203331", "00000000000000bb")));
    let call = host.end(5, 1, 200, 300).expect("a span");
    assert_eq!(absent(&call), Some("known_to_the_sdk_alone"));
    // A proxy passes on what it has received.
    host.begin(Request::client(7, 9).with(OTHER_TRACEPARENT));
    let call = host.end(7, 1, 200, 300).expect("a span");
    let request = host.end(4, 1, 200, 400).expect("a span");
    assert_eq!((source(&call), call.parent_span_id), (Some("header"), Some(request.span_id)));
}

#[test]
fn after_a_loss_the_next_request_of_a_connection_is_not_taken_for_the_one_that_was_sent() {
    let mut host = Host::new();
    host.connect(1, 2);
    // Of this one the server's end was lost, of the next one the client's.
    host.begin(Request { path: "/lost/1", ..Request::client(1, 7) });
    host.begin(Request { path: "/lost/2", ..Request::server(2, 9) });
    let span = host.end(2, 1, 200, 400).expect("a span");
    assert_eq!((absent(&span), span.parent_span_id), (Some("ambiguous"), None));
}

#[test]
fn what_was_sent_is_what_stands_at_the_same_place_and_nothing_else() {
    let mut host = Host::new();
    host.connect(1, 2);
    // All ask for the same. The server's end of the first was lost, and so was the client's of the second; the third
    // and the fourth were sent without waiting.
    host.begin(Request::client(1, 7).at(1, 100));
    host.begin(Request::server(2, 9).at(1, 200));
    for (exchange, sequence) in [(2, 300), (3, u32::MAX)] {
        host.begin(Request::client(1, 7).at(exchange, sequence));
    }
    for (exchange, sequence) in [(2, 300), (3, u32::MAX)] {
        host.begin(Request::server(2, 9).at(exchange, sequence));
    }
    let served: Vec<_> = (1..=3).map(|exchange| host.end(2, exchange, 200, 400).expect("a span")).collect();
    let sent: Vec<_> = (1..=3).map(|exchange| host.end(1, exchange, 200, 500).expect("a span")).collect();
    assert_eq!(absent(&served[0]), Some("no_context_sent"));
    for (served, sent) in [(&served[1], &sent[1]), (&served[2], &sent[2])] {
        assert_eq!((source(served), served.parent_span_id), (Some("local_peer"), Some(sent.span_id)));
    }
}

#[test]
fn of_two_requests_that_wait_neither_is_taken_if_nobody_knows_where_they_stand() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.begin(Request { exchange: 1, ..Request::client(1, 7) });
    host.begin(Request { exchange: 2, ..Request::client(1, 7) });
    host.begin(Request::server(2, 9).at(1, 200));
    let span = host.end(2, 1, 200, 400).expect("a span");
    assert_eq!((absent(&span), span.parent_span_id), (Some("ambiguous"), None));
}

#[test]
fn a_request_whose_end_was_lost_stays_where_others_are_below_it() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.begin(Request::client(1, 7));
    host.begin(Request::server(2, 9));
    let served = host.end(2, 1, 200, 400).expect("a span");
    host.tell(1, ExchangeEvent::Discarded(Some(ExchangeId(1)), Discarded::Gap));
    let sent = host.outcome.spans.pop().expect("its parent");
    assert_eq!(served.parent_span_id, Some(sent.span_id));
    assert_eq!(text_of(&sent.attributes, "spanflame.end.uncertain"), Some("not_seen"));
    // Of nobody's parent nothing is said.
    host.begin(Request { exchange: 2, ..Request::client(1, 7) });
    host.tell(1, ExchangeEvent::Discarded(Some(ExchangeId(2)), Discarded::Gap));
    assert_eq!(host.outcome.spans, []);
}

#[test]
fn what_was_no_request_at_all_has_no_span_although_both_ends_took_it_for_one() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.begin(Request::client(1, 7));
    host.begin(Request::server(2, 9));
    for connection in [1, 2] {
        host.tell(connection, ExchangeEvent::Discarded(Some(ExchangeId(1)), Discarded::NotConfirmed));
    }
    assert_eq!(host.outcome.spans, []);
}

#[test]
fn a_request_was_received_as_it_was_sent_or_with_the_ids_that_we_put_into_it() {
    let mut host = Host::new();
    host.connect(1, 2);
    let context = |text| super::context::w3c(text, "").expect("a context");
    let (own, other) = (context(TRACEPARENT), context(OTHER_TRACEPARENT));
    let with = host.open_request(1, Some(TRACEPARENT));
    assert!(with.carries(Some(&own)) && !with.carries(Some(&other)) && !with.carries(None));
    let without = host.open_request(2, None);
    let ours = TraceContext { parent_span_id: without.span_id, ..other.clone() };
    assert!(without.carries(None) && without.carries(Some(&ours)) && !without.carries(Some(&other)));
}

#[test]
fn a_request_that_has_gone_out_with_its_ids_stays_although_its_end_was_lost() {
    let mut host = Host::new();
    host.connect(1, 2);
    host.begin(Request { sent: Some(9), ..Request::client(1, 7) });
    host.tell(1, ExchangeEvent::Discarded(Some(ExchangeId(1)), Discarded::Gap));
    let sent = host.outcome.spans.pop().expect("whoever received it is below it");
    assert_eq!(text_of(&sent.attributes, "spanflame.end.uncertain"), Some("not_seen"));
    // What turned out to be none was nobody's parent.
    host.begin(Request { sent: Some(9), exchange: 2, ..Request::client(1, 7) });
    host.tell(1, ExchangeEvent::Discarded(Some(ExchangeId(2)), Discarded::NotConfirmed));
    assert_eq!(host.outcome.spans, []);
}

#[test]
fn a_request_whose_end_was_lost_stays_where_it_was_told_by_its_trace_to_be_a_parent() {
    let mut host = Host::new();
    host.open(2, Role::Accepted, endpoint(2, 80), endpoint(99, 5), None);
    host.connect(3, 4);
    host.begin(Request::server(2, 9).with(TRACEPARENT));
    // On an event loop: only its trace says for which request it is.
    host.begin(Request { by_event_loop: true, ..Request::client(3, 9).with(OTHER_TRACEPARENT) });
    let call = host.end(3, 1, 200, 300).expect("a span");
    host.tell(2, ExchangeEvent::Discarded(Some(ExchangeId(1)), Discarded::Gap));
    let request = host.outcome.spans.pop().expect("it has a child");
    assert_eq!((source(&call), call.parent_span_id), (Some("sdk"), Some(request.span_id)));
    assert_eq!(text_of(&request.attributes, "spanflame.end.uncertain"), Some("not_seen"));
}
