//! What becomes of traces when there are more than are to be kept.

use super::beyond_limit::KEPT_FOR;
use super::exchange::{Discarded, ExchangeEvent, ExchangeId, Failure};
use super::limit::SpanLimit;
use super::open::KEPT_FOR as KEPT_FOR_ATTRIBUTE;
use super::sampling::{Sampler, Sampling};
use super::spans_tests::{Host, Request, TRACEPARENT};
use super::undecided::{Fate, Undecided};
use crate::metrics::requests::RequestLabels;
use crate::model::span::text_of;
use crate::model::{RequestKey, Span, TraceId, Unstamped};

const SECOND: u64 = 1_000_000_000;
/// Begins after the limit was reached.
const LATER: u64 = 2 * SECOND;

/// A host of whose traces next to none draws, and where this many spans a second may be kept late.
fn busy_host(late: u64) -> Host {
    let mut host = Host::with(|options| options.spans_per_second = Some(4 * late));
    (0..10_000 * late).for_each(|_| host.spans.limit.note_begun(Sampling::Beyond));
    assert!(host.spans.limit.adapt(SECOND));
    host.connect(1, 2);
    host.connect(3, 4);
    host
}

fn server(connection: u64, pid: u32) -> Request {
    Request { at_ns: LATER, ..Request::server(connection, pid) }
}

fn client(connection: u64, pid: u32) -> Request {
    Request { at_ns: LATER, ..Request::client(connection, pid) }
}

fn kept_for(span: &Span) -> Option<&str> {
    text_of(&span.attributes, KEPT_FOR_ATTRIBUTE)
}

fn end(host: &mut Host, connection: u64, exchange: u64, status: u16, at_ns: u64) {
    host.tell_end(connection, exchange, Some(status), None, at_ns);
}

#[test]
fn what_is_beyond_the_limit_counts_and_has_no_span() {
    let mut host = busy_host(10);
    let key = host.begin(server(2, 9));
    assert_eq!(host.requests.span_at(RequestKey(key), LATER), Err(Unstamped::NotTraced));
    host.begin(client(3, 9).within(key));
    end(&mut host, 3, 1, 200, LATER + 10);
    assert!(host.outcome.is_empty(), "the request that it was within may still fail");
    end(&mut host, 2, 1, 200, LATER + 20);
    assert_eq!((host.outcome.spans.len(), host.outcome.unsampled.len()), (0, 2));
    let counts = host.spans.counts();
    assert_eq!((counts.not_sampled.limit, counts.server_requests, counts.client_requests), (2, 1, 1));
    assert!(counts.share < 0.001);
    let sampled = host.spans.minutes.between(0, u64::MAX);
    assert_eq!((sampled.requests, sampled.kept), (2, 0));
}

#[test]
fn a_trace_beyond_the_limit_in_which_one_fails_is_kept_whole_and_says_why() {
    let mut host = busy_host(10);
    let key = host.begin(server(2, 9));
    let call = host.begin(client(3, 9).within(key));
    host.begin(server(4, 10));
    end(&mut host, 4, 1, 503, LATER + 10);
    end(&mut host, 3, 1, 503, LATER + 20);
    end(&mut host, 2, 1, 200, LATER + 30);
    let [callee, call_span, request] = host.outcome.spans.as_slice() else { panic!("{:?}", host.outcome) };
    assert!(host.outcome.unsampled.is_empty());
    assert_eq!(callee.parent_span_id, Some(call_span.span_id));
    assert_eq!(call_span.parent_span_id, Some(request.span_id));
    assert!(host.outcome.spans.iter().all(|span| kept_for(span) == Some("failed")));
    // Samples that are looked at now are of it.
    for key in [key, call] {
        assert!(host.requests.span_at(RequestKey(key), LATER + 5).is_ok());
    }
    let counts = host.spans.counts();
    assert_eq!((counts.kept_late.get("failed"), counts.not_sampled.limit), (Some(&3), 0));
    assert!(counts.kept_late.keys().all(|reason| KEPT_FOR.contains(reason)));
    assert_eq!(host.spans.minutes.between(0, u64::MAX).kept, 3);
}

#[test]
fn a_request_that_takes_much_longer_than_its_like_is_kept() {
    let mut host = busy_host(10);
    for exchange in 1..=20 {
        host.begin(Request { exchange, ..server(2, 9) });
        end(&mut host, 2, exchange, 200, LATER + 1_000_000);
    }
    assert!(host.outcome.spans.is_empty());
    host.begin(Request { exchange: 21, ..server(2, 9) });
    end(&mut host, 2, 21, 200, LATER + 300_000_000);
    assert_eq!(kept_for(&host.outcome.spans[0]), Some("slow"));
}

#[test]
fn a_request_that_has_been_open_for_a_second_is_shown_and_those_below_it_are_kept() {
    let mut host = busy_host(10);
    let key = host.begin(server(2, 9));
    host.begin(client(3, 9).within(key));
    end(&mut host, 3, 1, 200, LATER + 10);
    host.spans.show_open(LATER + SECOND, &mut host.requests, &mut host.outcome);
    let [shown] = host.outcome.spans.as_slice() else { panic!("{:?}", host.outcome) };
    assert_eq!((kept_for(shown), shown.end_unix_ns), (Some("slow"), None));
    assert!(host.requests.span_at(RequestKey(key), LATER + 5).is_ok());
    // What it does from now on is kept, too.
    host.begin(Request { exchange: 2, ..client(3, 9).within(key) });
    end(&mut host, 3, 2, 200, LATER + 2 * SECOND);
    end(&mut host, 2, 1, 200, LATER + 3 * SECOND);
    let ended: Vec<_> = host.outcome.spans.iter().filter(|span| span.end_unix_ns.is_some()).collect();
    assert_eq!(ended.len(), 3);
    assert!(ended.iter().all(|span| kept_for(span) == Some("slow")));
    assert!(host.outcome.unsampled.is_empty());
}

#[test]
fn when_too_much_fails_the_rest_is_left_out_and_counted() {
    let mut host = busy_host(3);
    for exchange in 1..=5 {
        host.begin(Request { exchange, ..server(2, 9) });
        end(&mut host, 2, exchange, 500, LATER + 10);
    }
    assert_eq!((host.outcome.spans.len(), host.outcome.unsampled.len()), (3, 2));
    let counts = host.spans.counts();
    assert_eq!((counts.not_kept_late, counts.not_sampled.limit), (2, 2));
}

#[test]
fn what_others_have_decided_holds_beyond_the_limit() {
    let mut host = busy_host(1);
    host.begin(server(2, 9).with(TRACEPARENT));
    end(&mut host, 2, 1, 200, LATER + 10);
    assert_eq!((host.outcome.spans.len(), kept_for(&host.outcome.spans[0])), (1, None));
    host.begin(Request { exchange: 2, ..server(2, 9).with(&TRACEPARENT.replace("-01", "-00")) });
    end(&mut host, 2, 2, 500, LATER + 10);
    assert_eq!((host.outcome.spans.len(), host.outcome.unsampled.len()), (1, 1));
    assert_eq!(host.spans.counts().not_sampled.parent, 1, "not kept because it failed, either");
}

#[test]
fn what_has_been_passed_on_as_kept_is_kept() {
    let mut host = busy_host(1);
    host.begin(Request { sent: Some(77), ..client(3, 9) });
    end(&mut host, 3, 1, 200, LATER + 10);
    assert_eq!(kept_for(&host.outcome.spans[0]), Some("passed_on"));
}

#[test]
fn a_trace_whose_sdk_samples_it_is_kept_and_leaves_nobody_waiting() {
    let mut host = busy_host(1);
    let key = host.begin(server(2, 9));
    host.begin(client(3, 9).within(key).with(TRACEPARENT));
    end(&mut host, 3, 1, 200, LATER + 10);
    end(&mut host, 2, 1, 200, LATER + 20);
    let [call, request] = host.outcome.spans.as_slice() else { panic!("{:?}", host.outcome) };
    assert_eq!((call.trace_id, call.parent_span_id), (request.trace_id, Some(request.span_id)));
    assert_eq!(kept_for(request), None);
    assert!(host.requests.span_at(RequestKey(key), LATER + 5).is_ok());
    assert_eq!(host.spans.undecided.len(), 0);
}

#[test]
fn of_a_request_that_is_given_up_nobody_waits() {
    let mut host = busy_host(10);
    let key = host.begin(server(2, 9));
    host.begin(client(3, 9).within(key));
    end(&mut host, 3, 1, 200, LATER + 10);
    host.tell(2, ExchangeEvent::Discarded(Some(ExchangeId(1)), Discarded::Gap));
    assert_eq!((host.outcome.spans.len(), host.outcome.unsampled.len()), (0, 1));
    assert_eq!(host.spans.undecided.len(), 0);
    let key = host.begin(Request { exchange: 2, ..server(2, 9) });
    host.begin(Request { exchange: 2, ..client(3, 9).within(key) });
    host.tell_end(3, 2, None, Some(Failure::Reset), LATER + 10);
    host.spans.withdraw_open(&mut host.requests, &mut host.outcome);
    assert_eq!(host.outcome.spans.len(), 1, "its call has failed");
    assert_eq!(host.spans.undecided.len(), 0);
}

#[test]
fn a_request_counts_the_same_with_and_without_a_span() {
    let labels = |ratio: f64, direction_in: bool, path, status, failure| {
        let mut host = Host::with(|options| options.sampler = Sampler::new(ratio));
        host.connect(1, 2);
        let request = if direction_in { Request::server(2, 9) } else { Request::client(2, 9) };
        host.begin(Request { path, ..request });
        host.tell_end(2, 1, status, failure, 400);
        let spans = host.outcome.spans.iter().filter_map(RequestLabels::of);
        let labels = spans.chain(host.outcome.unsampled.iter().filter_map(RequestLabels::of_unsampled));
        let labels: Vec<RequestLabels> = labels.collect();
        assert_eq!((labels.len(), host.outcome.spans.len()), (1, usize::from(ratio > 0.5)));
        labels
    };
    for direction_in in [true, false] {
        for path in ["/users/7?token=1", "/a", "*"] {
            for (status, failure) in [
                (Some(200), None),
                (Some(404), None),
                (Some(503), None),
                (None, Some(Failure::Reset)),
                (Some(200), Some(Failure::TimedOut)),
            ] {
                let of = |ratio| labels(ratio, direction_in, path, status, failure);
                assert_eq!(of(1.0), of(0.0), "{direction_in} {path} {status:?} {failure:?}");
            }
        }
    }
}

#[test]
fn waiting_has_a_bound() {
    let mut undecided = Undecided::default();
    let mut host = busy_host(1);
    let trace_id = TraceId::nonzero([7; 16]);
    let mut over = Vec::new();
    undecided.begin(trace_id);
    let mut handed_on = 0;
    for exchange in 1..=2_000 {
        undecided.begin(trace_id);
        let mut request = host.over_request(exchange);
        request.0.trace_id = trace_id;
        undecided.end(request, &mut over);
        handed_on += over.drain(..).count();
        assert!(undecided.waiting() <= 512);
    }
    assert_eq!((handed_on, undecided.no_room, undecided.fate(trace_id)), (2_000, 1, Fate::Left));
    undecided.leave(trace_id, &mut over);
    assert_eq!(undecided.len(), 0);
    // Another limit does not lose what is known.
    let mut limit = SpanLimit::new(Sampler::new(1.0), None);
    limit.set(Sampler::new(0.0), None, 5);
    assert_eq!(limit.decide(trace_id, 6), Sampling::NotDrawn);
}
