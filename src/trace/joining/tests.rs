use std::sync::Arc;

use super::*;
use crate::model::span::{SpanResource, SpanStatus, ids_of_text, text_of};

const NOW: u64 = 1_800_000_000_000_000_000;
const MS: u64 = 1_000_000;

fn text(text: &str) -> AttributeValue {
    AttributeValue::Text(text.into())
}

/// A server's span of ours: from this millisecond for so many.
fn ours(trace: u8, id: u8, start_ms: u64, length_ms: u64) -> Span {
    let number = AttributeValue::Integer;
    Span {
        trace_id: TraceId::nonzero([trace; 16]),
        span_id: SpanId::nonzero([id; 8]),
        parent_span_id: None,
        trace_state: String::new(),
        name: "GET /cart".to_owned(),
        kind: SpanKind::Server,
        start_unix_ns: NOW + start_ms * MS,
        end_unix_ns: Some(NOW + (start_ms + length_ms) * MS),
        status: SpanStatus::Unset,
        status_message: String::new(),
        attributes: vec![
            ("http.request.method".into(), text("GET")),
            ("url.path".into(), text("/cart")),
            ("http.response.status_code".into(), number(200)),
            ("network.peer.port".into(), number(40_000)),
        ],
        events: Vec::new(),
        links: Vec::new(),
        resource: Arc::new(SpanResource {
            attributes: vec![
                ("host.name".into(), text("here")),
                ("process.pid".into(), number(10)),
                ("service.name".into(), text("shop")),
            ],
        }),
        scope: Arc::new((OWN_LIBRARY.to_owned(), String::new())),
    }
}

/// What an SDK with old conventions says: of its process the service alone, of the connection nothing.
fn theirs(trace: u8, id: u8, start_ms: u64) -> Span {
    Span {
        attributes: vec![
            ("http.method".into(), text("GET")),
            ("http.target".into(), text("/cart?id=7")),
            ("http.status_code".into(), AttributeValue::Integer(200)),
        ],
        resource: Arc::new(SpanResource { attributes: vec![("service.name".into(), text("shop"))] }),
        scope: Arc::new(("flask".to_owned(), String::new())),
        ..ours(trace, id, start_ms, 5)
    }
}

fn set(span: &mut Span, name: &'static str, value: AttributeValue) {
    span.attributes.retain(|(key, _)| key != name);
    span.attributes.push((name.into(), value));
}

/// Which of ours each of theirs came to be, by the first byte of the ids, `at_ns` after it came.
fn joined(ours: &[Span], theirs: &[Span], at_ns: u64) -> (Vec<(u8, u8, Evidence)>, JoinCounts) {
    let mut joiner = Joiner::default();
    ours.iter().for_each(|span| joiner.take_ours(span, NOW));
    theirs.iter().for_each(|span| joiner.take_theirs(span, NOW));
    let joins = joiner.settle(NOW + at_ns);
    let of = |join: &Join| {
        let [beside, gone] = &join.write;
        let to = text_of(&gone.attributes, JOINED_TO).and_then(ids_of_text).expect("its ids");
        let from = text_of(&beside.attributes, JOINED_FROM).and_then(ids_of_text).expect("its ids");
        assert_eq!(to, (beside.trace_id, beside.span_id));
        assert_eq!(from, (gone.trace_id, gone.span_id));
        assert_eq!((gone.start_unix_ns, gone.end_unix_ns), (beside.start_unix_ns, beside.end_unix_ns));
        assert_eq!(join.pid, Some(10));
        (from.1.bytes()[0], to.1.bytes()[0], join.evidence)
    };
    (joins.iter().map(of).collect(), joiner.counts())
}

#[test]
fn the_clients_port_tells_requests_of_one_time_apart() {
    let mut other = ours(2, 2, 0, 20);
    set(&mut other, "network.peer.port", AttributeValue::Integer(40_001));
    for name in ["net.peer.port", "network.peer.port", "net.sock.peer.port"] {
        let mut one = theirs(8, 8, 5);
        set(&mut one, name, text("40001"));
        let mut two = theirs(9, 9, 5);
        set(&mut two, name, AttributeValue::Integer(40_000));
        let (joins, counts) = joined(&[ours(1, 1, 0, 20), other.clone()], &[one, two], SETTLED_AFTER_NS);
        assert_eq!(joins, [(1, 9, Evidence::Connection), (2, 8, Evidence::Connection)]);
        assert_eq!((counts.by_connection, counts.waiting), (2, 0));
    }
}

#[test]
fn requests_that_follow_each_other_on_a_connection_are_told_apart_by_time() {
    let spans = [ours(1, 1, 0, 3), ours(2, 2, 3, 3)];
    let mut one = theirs(8, 8, 1);
    set(&mut one, "net.peer.port", AttributeValue::Integer(40_000));
    let mut two = theirs(9, 9, 4);
    set(&mut two, "net.peer.port", AttributeValue::Integer(40_000));
    let (joins, _) = joined(&spans, &[two, one], SETTLED_AFTER_NS);
    assert_eq!(joins, [(1, 8, Evidence::Connection), (2, 9, Evidence::Connection)]);
}

#[test]
fn the_port_of_another_hosts_client_is_a_port_like_any_other() {
    let with_port = |mut span: Span| {
        set(&mut span, "net.peer.port", AttributeValue::Integer(40_000));
        span
    };
    let mine = with_port(theirs(8, 8, 5));
    // Of another service, another request.
    let mut other = with_port(theirs(9, 9, 5));
    set(&mut other, "http.target", text("/other"));
    other.resource = Arc::default();
    let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &[other.clone()], GIVE_UP_AFTER_NS);
    assert_eq!((joins.len(), counts.not_seen), (0, 1));
    // Of a replica, the same request: which of the two it is, nobody knows.
    let replica = with_port(theirs(9, 9, 6));
    let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &[replica, mine.clone()], SETTLED_AFTER_NS);
    assert_eq!((joins.len(), counts.ambiguous), (0, 2));
    let (joins, counts) = joined(&[ours(1, 1, 0, 20)], std::slice::from_ref(&mine), SETTLED_AFTER_NS - 1);
    assert_eq!((joins.len(), counts.waiting), (0, 1));
    // It goes on long after ours.
    let long = Span { end_unix_ns: Some(NOW + 500 * MS), ..mine };
    let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &[long], GIVE_UP_AFTER_NS);
    assert_eq!((joins.len(), counts.not_seen), (0, 1));
}

#[test]
fn of_one_trace_the_span_of_the_process_or_the_service_is_it_and_that_of_a_proxy_is_not() {
    let mut proxy = ours(1, 1, 0, 20);
    proxy.resource = Arc::new(SpanResource { attributes: vec![("service.name".into(), text("nginx"))] });
    let server = ours(1, 2, 1, 18);
    let both = [proxy.clone(), server.clone()];
    let (joins, _) = joined(&both, &[theirs(1, 9, 5)], SETTLED_AFTER_NS);
    assert_eq!(joins, [(2, 9, Evidence::Trace)]);
    // Another request of the same trace and process may be on its way.
    let (joins, counts) = joined(&both, &[theirs(1, 9, 5)], SETTLED_AFTER_NS - 1);
    assert_eq!((joins.len(), counts.waiting), (0, 1));
    // Before ours of it has come, the proxy's is not taken for it.
    let (joins, counts) = joined(&[proxy.clone()], &[theirs(1, 9, 5)], SETTLED_AFTER_NS);
    assert_eq!((joins.len(), counts.waiting), (0, 1));
    // The SDK says nothing of its process.
    let mut nobody = theirs(1, 9, 5);
    nobody.resource = Arc::default();
    let (joins, counts) = joined(&[proxy, server], &[nobody], GIVE_UP_AFTER_NS);
    assert_eq!((joins.len(), counts.not_seen), (0, 1));
}

#[test]
fn another_process_of_the_service_is_another_one() {
    let mut other = ours(1, 2, 0, 20);
    other.resource = Arc::new(SpanResource {
        attributes: vec![
            ("process.pid".into(), AttributeValue::Integer(11)),
            ("service.name".into(), text("shop")),
        ],
    });
    let mut told = theirs(1, 9, 5);
    let attributes = vec![
        ("process.pid".into(), AttributeValue::Integer(10)),
        ("service.name".into(), text("another name, which it gave itself")),
    ];
    told.resource = Arc::new(SpanResource { attributes });
    let (joins, _) = joined(&[ours(1, 1, 0, 20), other], &[told], SETTLED_AFTER_NS);
    assert_eq!(joins, [(1, 9, Evidence::Trace)]);
}

#[test]
fn without_a_common_trace_only_one_request_may_be_meant_and_all_must_be_known() {
    let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &[theirs(9, 9, 5)], SETTLED_AFTER_NS - 1);
    assert_eq!((joins.len(), counts.waiting), (0, 1));
    let (joins, _) = joined(&[ours(1, 1, 0, 20)], &[theirs(9, 9, 5)], SETTLED_AFTER_NS);
    assert_eq!(joins, [(1, 9, Evidence::Request)]);
    // Two of ours at a time, two of theirs in one of ours.
    let (joins, counts) =
        joined(&[ours(1, 1, 0, 20), ours(2, 2, 0, 20)], &[theirs(9, 9, 5)], SETTLED_AFTER_NS);
    assert_eq!((joins.len(), counts.ambiguous), (0, 1));
    let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &[theirs(8, 8, 5), theirs(9, 9, 6)], SETTLED_AFTER_NS);
    assert_eq!((joins.len(), counts.ambiguous), (0, 2));
    for (name, value) in [
        ("http.target", text("/other")),
        ("http.status_code", AttributeValue::Integer(404)),
        ("http.method", text("POST")),
    ] {
        let mut other = theirs(9, 9, 5);
        set(&mut other, name, value);
        let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &[other], GIVE_UP_AFTER_NS);
        assert_eq!((joins.len(), counts.not_seen), (0, 1), "{name}");
    }
    let (joins, _) = joined(&[ours(1, 1, 0, 20)], &[theirs(9, 9, 25)], GIVE_UP_AFTER_NS);
    assert_eq!(joins, [], "it began after ours had ended");
}

/// One within a span of this id.
fn within(parent: u8, mut span: Span) -> Span {
    span.parent_span_id = Some(SpanId::nonzero([parent; 8]));
    span
}

fn with_port(mut span: Span) -> Span {
    set(&mut span, "network.peer.port", AttributeValue::Integer(40_000));
    span
}

#[test]
fn of_spans_within_each_other_the_outermost_is_the_request() {
    let mut inner = within(8, theirs(1, 9, 6));
    for _ in 0..2 {
        let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &[inner.clone(), theirs(1, 8, 5)], INNER_AFTER_NS);
        assert_eq!(joins, [(1, 8, Evidence::Trace)]);
        assert_eq!((counts.inner, counts.ambiguous, counts.waiting), (1, 0, 0));
        // Then the inner one knows the client's port, which the outer does not.
        inner = with_port(inner);
    }
    // In one trace that we know by other ids; and three deep.
    let three = [theirs(7, 8, 5), within(8, theirs(7, 9, 6)), within(9, theirs(7, 10, 7))];
    let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &three, INNER_AFTER_NS);
    assert_eq!(joins, [(1, 8, Evidence::Request)]);
    assert_eq!((counts.inner, counts.ambiguous), (2, 0));
}

#[test]
fn spans_that_are_not_sent_here_may_stand_between_the_outermost_and_the_inner() {
    // The inner one's parent is an internal span of the framework.
    let inner = with_port(within(77, theirs(1, 9, 6)));
    let (joins, counts) = joined(&[ours(1, 1, 0, 20)], &[inner.clone(), theirs(1, 8, 5)], INNER_AFTER_NS);
    assert_eq!(joins, [(1, 8, Evidence::Trace)]);
    assert_eq!(
        (counts.inner, counts.ambiguous, counts.waiting),
        (1, 0, 0),
        "all of a trace is below its root"
    );
    // And the outer one's is the sender's.
    let carried = within(5, ours(1, 1, 0, 20));
    let outer = with_port(within(5, theirs(1, 8, 5)));
    let (joins, counts) = joined(&[carried], &[inner, outer], 0);
    assert_eq!(joins, [(1, 8, Evidence::Connection)]);
    assert_eq!((counts.inner, counts.ambiguous, counts.waiting), (0, 0, 1));
}

#[test]
fn an_inner_span_that_comes_a_batch_before_the_outer_one_waits_for_it() {
    const BATCH_NS: u64 = 5_000 * MS;
    let mut joiner = Joiner::default();
    joiner.take_ours(&ours(1, 1, 0, 20), NOW);
    joiner.take_theirs(&with_port(within(8, theirs(1, 9, 6))), NOW);
    for at_ns in [0, SETTLED_AFTER_NS, BATCH_NS] {
        assert!(joiner.settle(NOW + at_ns).is_empty());
    }
    joiner.take_theirs(&theirs(1, 8, 5), NOW + BATCH_NS);
    assert!(joiner.settle(NOW + BATCH_NS).is_empty());
    let joins = joiner.settle(NOW + BATCH_NS + SETTLED_AFTER_NS);
    let [join] = &joins[..] else { panic!("{joins:?}") };
    assert_eq!(join.write[0].span_id, SpanId::nonzero([8; 8]));
    let counts = joiner.counts();
    assert_eq!((counts.by_trace, counts.inner, counts.waiting), (1, 1, 0));
}

#[test]
fn where_no_outer_span_comes_the_one_that_came_is_the_request() {
    // Its sender is a proxy that passes contexts on: ours of the proxy stands between.
    let (request, behind_proxy) = (within(3, ours(1, 1, 0, 20)), with_port(within(77, theirs(1, 9, 6))));
    let (request, behind_proxy) = ([request], [behind_proxy]);
    let (joins, counts) = joined(&request, &behind_proxy, INNER_AFTER_NS - 1);
    assert_eq!((joins.len(), counts.waiting), (0, 1));
    let (joins, _) = joined(&request, &behind_proxy, INNER_AFTER_NS);
    assert_eq!(joins, [(1, 9, Evidence::Connection)]);
}

#[test]
fn a_span_of_another_process_is_not_around_it() {
    // Before it is a replica of the service that passes on its own span's id: either may be meant.
    let mut replica = within(77, theirs(1, 8, 5));
    replica.resource = Arc::new(SpanResource {
        attributes: vec![("service.name".into(), text("shop")), ("host.name".into(), text("here"))],
    });
    let (joins, counts) =
        joined(&[ours(1, 1, 0, 20)], &[replica, within(8, theirs(1, 9, 6))], INNER_AFTER_NS);
    assert_eq!((joins.len(), counts.inner, counts.ambiguous), (0, 0, 2));
}

#[test]
fn a_request_that_is_open_is_joined_when_it_has_ended() {
    let mut joiner = Joiner::default();
    let open = Span { end_unix_ns: None, ..ours(1, 1, 0, 20) };
    joiner.take_ours(&open, NOW);
    joiner.take_theirs(&theirs(1, 9, 5), NOW);
    assert!(joiner.settle(NOW + SETTLED_AFTER_NS).is_empty());
    joiner.take_ours(&ours(1, 1, 0, 20), NOW + SETTLED_AFTER_NS);
    assert_eq!(joiner.settle(NOW + SETTLED_AFTER_NS).len(), 1);
    assert_eq!((joiner.counts().kept, joiner.is_waiting()), (0, false));
}

#[test]
fn what_is_kept_is_bounded_by_time_and_number() {
    let mut joiner = Joiner::default();
    let numbered = |number: u64| {
        let mut span = ours(1, 1, number, 1);
        span.span_id = SpanId::nonzero(number.to_be_bytes());
        span
    };
    for number in 0..MAX_OURS as u64 + 50 {
        joiner.take_ours(&numbered(number), NOW);
        joiner.take_theirs(&theirs(7, 7, 0), NOW);
    }
    assert_eq!(joiner.counts().kept, MAX_OURS as u64);
    assert_eq!((joiner.counts().waiting, joiner.counts().no_room), (MAX_THEIRS as u64, 50));
    joiner.take_ours(&numbered(1 << 40), NOW + KEEP_OURS_NS + 1);
    assert_eq!(joiner.counts().kept, 1);
    assert_eq!(joiner.by_trace.values().map(Vec::len).sum::<usize>(), 1);
    joiner.settle(NOW + KEEP_OURS_NS);
    assert_eq!(joiner.counts().waiting, 0);
}

#[test]
fn internal_spans_clients_and_our_own_do_not_wait() {
    let mut joiner = Joiner::default();
    joiner.take_theirs(&Span { kind: SpanKind::Client, ..theirs(1, 1, 0) }, NOW);
    joiner.take_theirs(&Span { kind: SpanKind::Internal, ..theirs(1, 1, 0) }, NOW);
    joiner.take_theirs(&ours(1, 1, 0, 1), NOW);
    assert!(!joiner.is_waiting());
}

#[test]
fn a_span_that_waits_is_looked_at_soon_and_then_ever_more_seldom_but_when_something_is_decided() {
    assert_eq!(next_look(0), LOOK_AGAIN_AFTER_NS, "soon");
    assert_eq!(next_look(400 * MS), 800 * MS);
    // What is known by then decides: neither moment is passed over.
    assert_eq!(next_look(1_500 * MS), SETTLED_AFTER_NS);
    assert_eq!(next_look(SETTLED_AFTER_NS), 2 * SETTLED_AFTER_NS);
    assert_eq!(next_look(INNER_AFTER_NS - 1), INNER_AFTER_NS);
    assert_eq!(next_look(GIVE_UP_AFTER_NS - 1), GIVE_UP_AFTER_NS);
    // It always goes on, to the end of time, and not often.
    let (mut age_ns, mut looks) = (0, 0);
    while age_ns < GIVE_UP_AFTER_NS {
        let next = next_look(age_ns);
        assert!(next > age_ns);
        (age_ns, looks) = (next, looks + 1);
    }
    assert!(looks <= 8, "{looks}");
    assert_eq!(next_look(u64::MAX), u64::MAX);
}
