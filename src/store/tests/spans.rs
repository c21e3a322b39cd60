//! Spans: what was written comes back, replaced, searched, paged, cut, removed; and what they take.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::synthetic::Numbers;
use super::{MIDNIGHT_NS, SECOND_NS, TestClock, open};
use crate::model::span::{
    AttributeValue, JOINED_FROM, JOINED_TO, Span, SpanEvent, SpanId, SpanKind, SpanLink, SpanResource,
    SpanStatus, TraceId, ids_text, integer_of, text_of,
};
use crate::store::{
    Options, Retention, SpanFilter, SpanQuery, SqliteStore, StatusFilter, StoreError, TimeRange, TraceQuery,
    WindowStore,
};

pub(in crate::store) fn trace_id(number: u64) -> TraceId {
    let high = crate::model::index_hash::mix(number).to_be_bytes();
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&high);
    TraceId::new(bytes).unwrap()
}

pub(in crate::store) fn span_id(number: u64) -> SpanId {
    SpanId::new(crate::model::index_hash::mix(number.wrapping_add(1 << 40)).to_be_bytes()).unwrap()
}

/// A server's span as the tracer makes them: number `span` of trace `trace`, 10 ms long.
pub(in crate::store) fn span(trace: u64, span: u64) -> Span {
    let start_unix_ns = MIDNIGHT_NS + span * 1_000_000;
    let text = |text: &str| AttributeValue::Text(text.into());
    Span {
        trace_id: trace_id(trace),
        span_id: span_id(span),
        parent_span_id: None,
        trace_state: String::new(),
        name: "GET /users/{id}".to_owned(),
        kind: SpanKind::Server,
        start_unix_ns,
        end_unix_ns: Some(start_unix_ns + 10_000_000),
        status: SpanStatus::Unset,
        status_message: String::new(),
        attributes: vec![
            ("client.address".into(), text("10.0.3.17")),
            ("http.request.method".into(), text("GET")),
            ("http.response.status_code".into(), AttributeValue::Integer(200)),
            ("http.route".into(), text("/users/{id}")),
            ("network.protocol.version".into(), text("1.1")),
            ("server.address".into(), text("shop.example")),
            ("server.port".into(), AttributeValue::Integer(8080)),
            ("spanflame.parent.absent_reason".into(), text("no_header")),
            ("spanflame.route.source".into(), text("inferred")),
            ("url.path".into(), text(&format!("/users/{span}"))),
            ("url.scheme".into(), text("http")),
            (
                "user_agent.original".into(),
                text("Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0 Safari/537.36"),
            ),
        ],
        events: Vec::new(),
        links: Vec::new(),
        resource: resource("shop"),
        scope: Arc::new(("spanflame".to_owned(), "0.1.0".to_owned())),
    }
}

fn resource(service: &str) -> Arc<SpanResource> {
    let text = |text: &str| AttributeValue::Text(text.into());
    Arc::new(SpanResource {
        attributes: vec![
            ("host.name".into(), text("host-1")),
            ("process.executable.path".into(), text("/usr/bin/shop")),
            ("process.pid".into(), AttributeValue::Integer(4711)),
            ("service.name".into(), text(service)),
        ],
    })
}

fn set(span: &mut Span, name: &str, value: AttributeValue) {
    span.attributes.retain(|(key, _)| key != name);
    span.attributes.push((name.to_owned().into(), value));
}

fn all(filter: SpanFilter, limit: usize) -> TraceQuery {
    TraceQuery { filter, range: TimeRange::ALL, limit, cursor: None }
}

fn ids(store: &SqliteStore, filter: SpanFilter) -> Vec<TraceId> {
    let page = store.traces(&all(filter, 1000)).unwrap();
    assert_eq!(page.next, None);
    page.traces.iter().map(|trace| trace.trace_id).collect()
}

#[test]
fn whatever_a_span_holds_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut rich = span(1, 1);
    rich.parent_span_id = Some(span_id(99));
    rich.trace_state = "vendor=1".to_owned();
    rich.status = SpanStatus::Error;
    rich.status_message = "it failed".to_owned();
    rich.kind = SpanKind::Consumer;
    rich.end_unix_ns = None;
    let list = AttributeValue::List(vec![
        AttributeValue::Real(f64::MIN_POSITIVE),
        AttributeValue::Truth(true),
        AttributeValue::Truth(false),
        AttributeValue::Bytes(vec![0, 255]),
        AttributeValue::Integer(i64::MIN),
    ]);
    set(
        &mut rich,
        "map",
        AttributeValue::Map(vec![("ä".to_owned(), list), (String::new(), AttributeValue::List(vec![]))]),
    );
    let attributes = rich.attributes.clone();
    rich.events = vec![
        SpanEvent { time_unix_ns: rich.start_unix_ns + 5, name: "exception".to_owned(), attributes },
        SpanEvent { time_unix_ns: 1, name: String::new(), attributes: Vec::new() },
    ];
    rich.links = vec![SpanLink {
        trace_id: trace_id(7),
        span_id: span_id(8),
        trace_state: "x=y".to_owned(),
        attributes: vec![("k".into(), AttributeValue::Integer(1))],
    }];
    let mut end_before_start = span(1, 2);
    end_before_start.start_unix_ns = rich.start_unix_ns - 1;
    end_before_start.end_unix_ns = Some(end_before_start.start_unix_ns);
    let other = span(2, 3);
    store.write_spans(&[rich.clone(), end_before_start.clone(), other.clone()]).unwrap();
    for _ in 0..2 {
        assert_eq!(store.trace(trace_id(1)).unwrap(), [end_before_start.clone(), rich.clone()]);
        assert_eq!(store.span(span_id(3), None).unwrap(), Some(other.clone()));
        assert_eq!(store.span(span_id(3), Some(trace_id(2))).unwrap(), Some(other.clone()));
        assert_eq!(store.span(span_id(3), Some(trace_id(1))).unwrap(), None);
        assert_eq!(store.span(span_id(4), None).unwrap(), None);
        assert_eq!(store.trace(trace_id(3)).unwrap(), []);
        // The second time from what is in the dictionary.
        store.write_spans(&[rich.clone(), end_before_start.clone(), other.clone()]).unwrap();
    }
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.trace(trace_id(1)).unwrap(), [end_before_start, rich.clone()]);
    let summaries = store.span_summaries(&[(trace_id(1), span_id(1)), (trace_id(2), span_id(1))]).unwrap();
    let summary = summaries[0].as_ref().unwrap();
    assert_eq!((summary.service.as_str(), summary.route.as_str()), ("shop", "/users/{id}"));
    assert_eq!((summary.method.as_str(), summary.status_code, summary.duration_ns), ("GET", Some(200), None));
    assert_eq!(summaries[1], None);
    assert_eq!(store.statistics().spans, 9);
}

#[test]
fn every_filter_selects_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut spans: Vec<Span> = (0..9).map(|number| span(number, number)).collect();
    spans[1].resource = resource("cart");
    set(&mut spans[2], "http.route", AttributeValue::Text("/carts".into()));
    set(&mut spans[3], "http.request.method", AttributeValue::Text("POST".into()));
    set(&mut spans[4], "http.response.status_code", AttributeValue::Integer(503));
    spans[4].status = SpanStatus::Error;
    spans[5].kind = SpanKind::Client;
    spans[6].end_unix_ns = Some(spans[6].start_unix_ns + 300_000_000);
    spans[7].end_unix_ns = None;
    let text = |text: &str| AttributeValue::Text(text.into());
    spans[8].attributes = vec![
        ("rpc.method".into(), text("Get")),
        ("rpc.service".into(), text("pkg.Users")),
        ("rpc.grpc.status_code".into(), AttributeValue::Integer(14)),
    ];
    for span in &spans {
        store.write_spans(std::slice::from_ref(span)).unwrap();
    }
    let some = |text: &str| Some(text.to_owned());
    let none = SpanFilter::default;
    for (filter, expected) in [
        (none(), vec![8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (SpanFilter { service: some("cart"), ..none() }, vec![1]),
        (SpanFilter { service: some(""), ..none() }, vec![]),
        (SpanFilter { route: some("/carts"), ..none() }, vec![2]),
        (SpanFilter { route: some("pkg.Users/Get"), ..none() }, vec![8]),
        (SpanFilter { method: some("POST"), ..none() }, vec![3]),
        (SpanFilter { method: some("Get"), ..none() }, vec![8]),
        (SpanFilter { status: Some(StatusFilter::Class(5)), ..none() }, vec![4]),
        (SpanFilter { status: Some(StatusFilter::Code(503)), ..none() }, vec![4]),
        (SpanFilter { status: Some(StatusFilter::Code(14)), ..none() }, vec![8]),
        (SpanFilter { kind: Some(SpanKind::Client), ..none() }, vec![5]),
        (SpanFilter { min_duration_ns: Some(300_000_000), ..none() }, vec![6]),
        (SpanFilter { min_duration_ns: Some(300_000_001), ..none() }, vec![]),
        (SpanFilter { max_duration_ns: Some(10_000_000), ..none() }, vec![8, 5, 4, 3, 2, 1, 0]),
        (SpanFilter { error: Some(true), ..none() }, vec![4]),
        (SpanFilter { is_open: Some(true), ..none() }, vec![7]),
        (SpanFilter { service: some("shop"), kind: Some(SpanKind::Client), ..none() }, vec![5]),
        (SpanFilter { service: some("cart"), kind: Some(SpanKind::Client), ..none() }, vec![]),
    ] {
        let expected: Vec<TraceId> = expected.into_iter().map(trace_id).collect();
        assert_eq!(ids(&store, filter.clone()), expected, "{filter:?}");
        let query = SpanQuery { filter: filter.clone(), range: TimeRange::ALL, limit: 5000 };
        let list = store.spans(&query).unwrap();
        assert!(!list.is_cut);
        let listed: Vec<TraceId> = list.spans.iter().map(|span| span.trace_id).collect();
        assert_eq!(listed, expected, "{filter:?}");
    }
    let start = spans[3].start_unix_ns;
    let range = TimeRange { from_unix_ns: start, to_unix_ns: start + 1 };
    let page = store.traces(&TraceQuery { range, ..all(none(), 10) }).unwrap();
    assert_eq!(page.traces.len(), 1);
    assert_eq!(page.traces[0].trace_id, trace_id(3));
}

#[test]
fn a_span_that_is_written_again_replaces_what_it_was_and_one_of_another_library_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(MIDNIGHT_NS);
    let store = SqliteStore::open(clock.options(folder.path())).unwrap();
    let mut spans: Vec<Span> = (0..3).map(|number| span(1, number)).collect();
    for span in &mut spans {
        span.end_unix_ns = None;
    }
    store.write_spans(&spans).unwrap();
    let open = SpanFilter { is_open: Some(true), ..SpanFilter::default() };
    let ended = SpanFilter { is_open: Some(false), ..SpanFilter::default() };
    let listed = |filter: &SpanFilter| {
        let query = SpanQuery { filter: filter.clone(), range: TimeRange::ALL, limit: 100 };
        store.spans(&query).unwrap().spans.len()
    };
    assert_eq!((ids(&store, open.clone()).len(), ids(&store, ended.clone()).len()), (1, 0));
    assert_eq!((listed(&open), listed(&ended)), (3, 0));
    // Of two of them the end comes in the next segment, after midnight.
    for number in [0_usize, 2] {
        clock.set(MIDNIGHT_NS + 86_400 * SECOND_NS);
        spans[number].end_unix_ns = Some(spans[number].start_unix_ns + 5);
        store.write_spans(&spans[number..=number]).unwrap();
        if number == 0 {
            assert_eq!((listed(&open), listed(&ended)), (2, 1));
        }
    }
    assert_eq!(store.statistics().segments, 2);
    let page = store.traces(&all(open.clone(), 10)).unwrap();
    assert_eq!(page.traces.len(), 1);
    assert_eq!((page.traces[0].spans, page.traces[0].open), (3, 1));
    assert_eq!(store.trace(trace_id(1)).unwrap(), spans);
    spans[1].end_unix_ns = Some(spans[1].start_unix_ns + 5);
    store.write_spans(&spans[1..2]).unwrap();
    assert_eq!((ids(&store, open.clone()).len(), ids(&store, ended.clone()).len()), (0, 1));
    assert_eq!((listed(&open), listed(&ended)), (0, 3));
    // Two SDKs' of the same id stand beside each other, and ours is each of them's.
    let sdk = Span { scope: Arc::new(("otelhttp".to_owned(), String::new())), ..spans[1].clone() };
    store.write_spans(std::slice::from_ref(&sdk)).unwrap();
    assert_eq!(store.trace(trace_id(1)).unwrap().len(), 3);
    let other = Span { scope: Arc::new(("other".to_owned(), String::new())), ..spans[1].clone() };
    store.write_spans(std::slice::from_ref(&other)).unwrap();
    assert_eq!(store.trace(trace_id(1)).unwrap().len(), 4);
    assert_eq!(store.statistics().spans, 8);
}

#[test]
fn ours_that_an_sdk_tells_of_is_the_sdks_by_either_name_and_its_traces_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let text = |text: String| AttributeValue::Text(text.into());
    // A proxy asks a server that begins a trace of its own; both call others.
    let mut proxy = span(1, 1);
    proxy.kind = SpanKind::Client;
    let mut ours = span(1, 2);
    ours.parent_span_id = Some(proxy.span_id);
    set(&mut ours, "spanflame.parent.source", text("local_peer".to_owned()));
    let mut child = span(1, 3);
    child.parent_span_id = Some(ours.span_id);
    let library = Arc::new(("otelhttp".to_owned(), "0.63".to_owned()));
    let mut theirs = Span { scope: Arc::clone(&library), ..span(2, 4) };
    theirs.start_unix_ns += 17;
    theirs.attributes = vec![("http.route".into(), text("/carts/:id".to_owned()))];
    let mut inner = Span { scope: library, ..span(2, 5) };
    inner.parent_span_id = Some(theirs.span_id);
    store.write_spans(&[proxy.clone(), ours.clone(), child.clone(), theirs.clone(), inner.clone()]).unwrap();
    assert_eq!(store.trace(trace_id(1)).unwrap().len(), 3);
    let ids_of = |span: &Span| ids_text(span.trace_id, span.span_id);
    let mut gone = ours.clone();
    gone.attributes = vec![(JOINED_TO.into(), text(ids_of(&theirs)))];
    let mut beside = ours.clone();
    (beside.trace_id, beside.span_id) = (theirs.trace_id, theirs.span_id);
    set(&mut beside, JOINED_FROM, text(ids_of(&ours)));
    store.write_spans(&[gone, beside]).unwrap();

    for trace in [1, 2] {
        let spans = store.trace(trace_id(trace)).unwrap();
        let found: Vec<SpanId> = spans.iter().map(|span| span.span_id).collect();
        assert_eq!(found, [1, 3, 4, 5].map(span_id), "each once, ours not");
        assert_eq!(spans[1].parent_span_id, Some(theirs.span_id), "its children are the SDK's");
        let joined = &spans[2];
        assert_eq!((joined.trace_id, joined.scope.0.as_str()), (theirs.trace_id, "otelhttp"));
        assert_eq!(joined.start_unix_ns, theirs.start_unix_ns);
        assert_eq!(joined.parent_span_id, Some(proxy.span_id), "the SDK knows of none");
        assert_eq!(text_of(&joined.attributes, "http.route"), Some("/carts/:id"));
        assert_eq!(text_of(&joined.attributes, "spanflame.parent.source"), Some("local_peer"));
        let start = integer_of(&joined.attributes, "spanflame.start_unix_ns");
        assert_eq!(start, i64::try_from(ours.start_unix_ns).ok());
        assert_eq!(text_of(&joined.attributes, JOINED_FROM), Some(ids_of(&ours).as_str()));
    }
    for (span_id, trace_id) in
        [(ours.span_id, None), (ours.span_id, Some(ours.trace_id)), (theirs.span_id, None)]
    {
        let found = store.span(span_id, trace_id).unwrap().expect("it is there");
        assert_eq!((found.trace_id, found.span_id), (theirs.trace_id, theirs.span_id));
        assert_eq!(text_of(&found.attributes, JOINED_FROM), Some(ids_of(&ours).as_str()));
    }
    let wanted = [(ours.trace_id, ours.span_id), (theirs.trace_id, theirs.span_id)];
    for summary in store.span_summaries(&wanted).unwrap() {
        assert_eq!(summary.expect("it is there").route, "/carts/:id");
    }
    for (trace, span) in
        [(Some(trace_id(2)), None), (None, Some(span_id(2))), (Some(trace_id(2)), Some(span_id(4)))]
    {
        let aliases: HashSet<_> = store.span_aliases(trace, span).unwrap().into_iter().collect();
        assert_eq!(aliases, HashSet::from(wanted), "{trace:?} {span:?}");
    }
    assert_eq!(store.span_aliases(None, Some(span_id(3))).unwrap(), []);
    let query = SpanQuery { filter: SpanFilter::default(), range: TimeRange::ALL, limit: 100 };
    let mut listed: Vec<SpanId> =
        store.spans(&query).unwrap().spans.iter().map(|span| span.span_id).collect();
    listed.reverse();
    assert_eq!(listed, [1, 3, 4, 5].map(span_id));
    let traces = store.traces(&all(SpanFilter::default(), 10)).unwrap().traces;
    assert_eq!(traces.iter().map(|trace| trace.spans).sum::<u64>(), 4);
}

#[test]
fn pages_hold_every_trace_once_while_more_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // Traces of several spans that lie far apart, in batches of odd sizes.
    let mut numbers = Numbers(1);
    let mut written = 0;
    let mut write = |count: u64, traces: u64, first: u64| {
        let batch: Vec<Span> = (0..count)
            .map(|_| {
                written += 1;
                span(first + numbers.below(traces), written)
            })
            .collect();
        store.write_spans(&batch).unwrap();
        batch.iter().map(|span| span.trace_id).collect::<HashSet<_>>()
    };
    let mut expected = HashSet::new();
    for batch in 0..12 {
        expected.extend(write(1 + batch * 7, 60, 0));
    }
    let mut seen = HashSet::new();
    let mut query = all(SpanFilter::default(), 7);
    for page_number in 0.. {
        let page = store.traces(&query).unwrap();
        assert!(page.traces.len() == 7 || page.next.is_none());
        for trace in page.traces {
            assert!(seen.insert(trace.trace_id), "page {page_number} has one again");
            assert_eq!(trace.spans as usize, store.trace(trace.trace_id).unwrap().len());
        }
        // Traces of before go on, and new ones come.
        write(20, 60, 0);
        write(5, 60, 1000);
        query.cursor = page.next;
        if page.next.is_none() {
            assert_eq!(page_number, expected.len() / 7);
            break;
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_trace_is_told_in_short() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut root = span(1, 10);
    root.end_unix_ns = Some(root.start_unix_ns + 50_000_000);
    let mut child = span(1, 20);
    child.parent_span_id = Some(root.span_id);
    child.resource = resource("cart");
    child.status = SpanStatus::Error;
    let mut late = span(1, 58);
    late.parent_span_id = Some(child.span_id);
    late.end_unix_ns = None;
    // Children end before their parents.
    for span in [&late, &child, &root] {
        store.write_spans(std::slice::from_ref(span)).unwrap();
    }
    let errors = SpanFilter { error: Some(true), ..SpanFilter::default() };
    let trace = store.traces(&all(errors, 10)).unwrap().traces.remove(0);
    assert_eq!((trace.root.span_id, trace.matching.span_id), (root.span_id, child.span_id));
    assert_eq!((trace.start_unix_ns, trace.duration_ns), (root.start_unix_ns, 50_000_000));
    assert_eq!((trace.spans, trace.errors, trace.open), (3, 1, 1));
    assert_eq!(trace.services, ["cart", "shop"]);
    // Without its root, the one whose parent is missing stands for it.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut earlier = span(1, 1);
    earlier.parent_span_id = Some(child.span_id);
    store.write_spans(&[earlier, child.clone()]).unwrap();
    let trace = store.traces(&all(SpanFilter::default(), 10)).unwrap().traces.remove(0);
    assert_eq!(trace.root.span_id, child.span_id);
}

#[test]
fn spans_stay_below_the_limit_of_bytes_and_a_batch_larger_than_a_window_may_be_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(MIDNIGHT_NS);
    let store = SqliteStore::open(clock.options(folder.path())).unwrap();
    let mut number = 0;
    for _ in 0..4 {
        // Nothing of them comes twice.
        let batch: Vec<Span> = (0..3_000)
            .map(|_| {
                number += 1;
                let mut span = span(number / 3, number);
                set(&mut span, "note", AttributeValue::Text(format!("{number:05000}").into()));
                span
            })
            .collect();
        store.write_spans(&batch).unwrap();
        let files = std::fs::read_dir(folder.path()).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= Retention::LEAST_BYTES, "{bytes}");
    }
    let statistics = store.statistics();
    assert!(statistics.segments_removed_by_size > 0, "{statistics:?}");
    assert_eq!((statistics.spans_written, statistics.spans_failed), (12_000, 0));
    assert!(statistics.spans > 4_000 && statistics.spans < 12_000, "{statistics:?}");
    assert_eq!(store.trace(trace_id(number / 3)).unwrap().last().unwrap().span_id, span_id(number));
}

#[test]
fn a_block_that_is_broken_costs_its_segment_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(MIDNIGHT_NS);
    let store = SqliteStore::open(clock.options(folder.path())).unwrap();
    for day in 0..3 {
        clock.set(MIDNIGHT_NS + day * 86_400 * SECOND_NS);
        store.write_spans(&[span(day, day)]).unwrap();
    }
    drop(store);
    for (table, column) in [("span_rows", "rows"), ("span_keys", "keys"), ("span_texts", "texts")] {
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let connection = Connection::open(copy.path().join("windows-00000002.db")).unwrap();
        connection.execute_batch(&format!("UPDATE {table} SET {column} = x'ffff0002'")).unwrap();
        drop(connection);
        let store = SqliteStore::open(clock.options(copy.path())).unwrap();
        let found = ids(&store, SpanFilter::default());
        let after = store.trace(trace_id(2)).unwrap().len() + store.trace(trace_id(0)).unwrap().len();
        assert_eq!(after, 2, "{table}");
        if table != "span_keys" {
            assert_eq!(found, [trace_id(2), trace_id(0)], "{table}");
            assert_eq!(store.statistics().set_aside.len(), 1, "{table}");
        }
    }
}

#[test]
fn a_trace_of_more_spans_than_a_page_holds_is_shown_truncated_beside_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let plain = |trace: u64, number: u64| Span { attributes: Vec::new(), ..span(trace, number) };
    // Its root is written first, and so is the last to be looked at.
    let root = Span { parent_span_id: None, ..plain(1, 0) };
    let child = |number| Span { parent_span_id: Some(root.span_id), ..plain(1, number) };
    let batch: Vec<Span> = std::iter::once(root.clone()).chain((1..9_000).map(child)).collect();
    store.write_spans(&batch).unwrap();
    let others: Vec<Span> =
        (2..12).flat_map(|trace| (0..5).map(move |number| plain(trace, 10_000 + number))).collect();
    store.write_spans(&others).unwrap();
    let query = TraceQuery { filter: SpanFilter::default(), range: TimeRange::ALL, limit: 100, cursor: None };
    let page = store.traces(&query).unwrap();
    assert_eq!(page.traces.len(), 11);
    for trace in &page.traces {
        if trace.trace_id == trace_id(1) {
            assert_eq!(trace.spans + trace.left_out, 9_000);
            assert!((1_900..=4_000).contains(&trace.spans), "{} spans", trace.spans);
            assert_eq!(trace.root.span_id, root.span_id);
        } else {
            assert_eq!((trace.spans, trace.left_out), (5, 0));
        }
    }
}

#[test]
fn a_trace_of_too_many_spans_is_refused_and_the_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let batch: Vec<Span> = (0..=crate::store::spans::MAX_SPANS_OF_TRACE as u64)
        .map(|number| Span { attributes: Vec::new(), ..span(1, number) })
        .collect();
    store.write_spans(&batch).unwrap();
    store.write_spans(&[span(2, 1)]).unwrap();
    assert!(matches!(store.trace(trace_id(1)), Err(StoreError::TooMuch { .. })));
    assert_eq!(store.trace(trace_id(2)).unwrap().len(), 1);
    let list =
        store.spans(&SpanQuery { filter: SpanFilter::default(), range: TimeRange::ALL, limit: 10 }).unwrap();
    assert!(list.is_cut && list.spans.len() == 10);
}

/// Prints what it finds; more spans show what questions take in a large store.
#[test]
fn what_spans_take() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { max_age: Duration::from_secs(86_400), max_bytes: 8 << 30 };
    let store = SqliteStore::open(Options { retention, ..Options::new(folder.path()) }).unwrap();
    let asked = std::env::var("SPANFLAME_TEST_SPANS").ok().and_then(|count| count.parse().ok());
    let count: u64 = asked.unwrap_or(40_000);
    let began = Instant::now();
    let mut writing = Duration::ZERO;
    for batch in 0..count / 200 {
        let batch: Vec<Span> =
            (batch * 200..batch * 200 + 200).map(|number| span(number / 2, number)).collect();
        let began = Instant::now();
        store.write_spans(&batch).unwrap();
        writing += began.elapsed();
    }
    println!("made and written in {:?}", began.elapsed());
    let timed = |what: &str, ask: &dyn Fn() -> usize| {
        let began = Instant::now();
        let found = ask();
        println!("{what}: {found} in {:?}", began.elapsed());
    };
    timed("page of traces", &|| store.traces(&all(SpanFilter::default(), 100)).unwrap().traces.len());
    let none = SpanFilter { status: Some(StatusFilter::Code(500)), ..SpanFilter::default() };
    timed("page of traces that there are none of", &|| {
        store.traces(&all(none.clone(), 100)).unwrap().traces.len()
    });
    let list = SpanQuery { filter: SpanFilter::default(), range: TimeRange::ALL, limit: 5000 };
    timed("list of spans", &|| store.spans(&list).unwrap().spans.len());
    timed("trace", &|| store.trace(trace_id(7)).unwrap().len());
    timed("span", &|| usize::from(store.span(span_id(7), None).unwrap().is_some()));
    drop(store);
    let files = std::fs::read_dir(folder.path()).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    println!("{} bytes a span, {:.0} spans a second", bytes / count, count as f64 / writing.as_secs_f64());
    assert!(bytes / count < 250, "{} bytes a span", bytes / count);
}
