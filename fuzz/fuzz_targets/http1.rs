//! Two streams of HTTP/1 messages, right and wrong ones, cut into calls anywhere: every exchange that begins ends once,
//! and where all calls are seen whole, what is understood does not depend on where the bytes were cut.
#![no_main]
#![allow(dead_code)]

#[path = "../../src/model"]
mod model {
    pub mod socket;
    pub mod span;
    pub use socket::RequestKey;
}
#[path = "../../src/trace"]
mod trace {
    pub mod conversation;
    pub mod exchange;
    mod protocols;
    mod stream;
}
mod view;

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use model::socket::{Ending, Role};
use trace::exchange::{ExchangeEvent, ExchangeId};
use view::View;

#[derive(Arbitrary, Debug)]
enum Body {
    None,
    /// So many bytes; as many are sent, or others.
    Length(u8, i8),
    /// Chunks of these sizes, and a last one.
    Chunks(Vec<u8>, bool),
}

#[derive(Arbitrary, Debug)]
enum Exchange {
    /// A request and its answer.
    Whole {
        method: u8,
        path: u8,
        asks: Body,
        status: u16,
        answers: Body,
    },
    /// Announced by 100 first.
    Continued {
        asks: Body,
        status: u16,
    },
    /// Any bytes of either end.
    Bytes {
        written: bool,
        bytes: Vec<u8>,
    },
    /// A line more in the heads that follow.
    Header(Vec<u8>),
    Waited(u16),
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "CONNECT", "PURGE", "OPTIONS"];

fn body(head: &mut Vec<u8>, body: &Body) -> Vec<u8> {
    match body {
        Body::None => Vec::new(),
        Body::Length(length, more) => {
            head.extend(format!("Content-Length: {length}\r\n").into_bytes());
            vec![b'x'; usize::from(length.saturating_add_signed(*more))]
        }
        Body::Chunks(sizes, has_trailer) => {
            head.extend(b"Transfer-Encoding: chunked\r\n");
            let mut body = Vec::new();
            for size in sizes.iter().take(8).filter(|&&size| size > 0) {
                body.extend(format!("{size:x};a=b\r\n").into_bytes());
                body.resize(body.len() + usize::from(*size), b'x');
                body.extend(b"\r\n");
            }
            body.extend(if *has_trailer { b"0\r\nA: b\r\n\r\n".as_slice() } else { b"0\r\n\r\n" });
            body
        }
    }
}

/// What one end moves, in order; and pauses between.
fn moves(exchanges: &[Exchange]) -> Vec<Option<(bool, Vec<u8>)>> {
    let mut moves = Vec::new();
    let mut header = Vec::new();
    let message = |first: String, of: &Body, header: &[u8]| {
        let mut head = first.into_bytes();
        head.extend_from_slice(header);
        let body = body(&mut head, of);
        head.extend(b"\r\n");
        head.extend(body);
        head
    };
    for exchange in exchanges.iter().take(64) {
        match exchange {
            Exchange::Whole { method, path, asks, status, answers } => {
                let method = METHODS[usize::from(*method) % METHODS.len()];
                moves.push(Some((true, message(format!("{method} /{path} HTTP/1.1\r\n"), asks, &header))));
                let status = 200 + status % 400;
                moves.push(Some((false, message(format!("HTTP/1.1 {status} X\r\n"), answers, &header))));
            }
            Exchange::Continued { asks, status } => {
                let mut head = b"POST /c HTTP/1.1\r\nExpect: 100-continue\r\n".to_vec();
                let body = body(&mut head, asks);
                head.extend(b"\r\n");
                moves.push(Some((true, head)));
                moves.push(Some((false, b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())));
                moves.push(Some((true, body)));
                let status = 200 + status % 400;
                moves.push(Some((false, message(format!("HTTP/1.1 {status} X\r\n"), &Body::None, &header))));
            }
            Exchange::Bytes { written, bytes } => moves.push(Some((*written, bytes.clone()))),
            Exchange::Header(bytes) => {
                header.clone_from(bytes);
                header.retain(|byte| !matches!(byte, b'\r' | b'\n'));
                header.truncate(200);
                header.extend(b"\r\n");
            }
            Exchange::Waited(_) => moves.push(None),
        }
    }
    moves
}

/// What is understood of these moves when each is cut as `cut` says.
fn understood(
    role: Role,
    moves: &[Option<(bool, Vec<u8>)>],
    cut: impl Fn(usize, usize) -> usize,
) -> Vec<String> {
    let (mut view, mut now_ns) = (View::new(role), 1_000_u64);
    for (nth, one) in moves.iter().enumerate() {
        let Some((written, bytes)) = one else {
            now_ns += 2_000_000_000;
            view.settle(now_ns);
            continue;
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            now_ns += 1000;
            let (here, after) = rest.split_at(cut(nth, rest.len()).clamp(1, rest.len()));
            rest = after;
            view.moved(now_ns, *written, here);
        }
    }
    let View { mut conversation, mut events, .. } = view;
    conversation.end(now_ns + 1000, Ending::Closed, &mut events);
    let mut told: BTreeMap<ExchangeId, (String, usize)> = BTreeMap::new();
    for event in &events {
        match event {
            ExchangeEvent::Began(began) => {
                let what = format!("{:?} {:?}", began.head.method, began.head.target);
                assert!(told.insert(began.exchange, (what, 0)).is_none());
            }
            ExchangeEvent::Ended(ended) => {
                let (what, ends) = told.get_mut(&ended.exchange).expect("it began");
                *ends += 1;
                let status = ended.response.map(|response| response.status);
                let sizes = (ended.request_body_bytes, ended.response_body_bytes);
                what.push_str(&format!(" {status:?} {:?} {sizes:?}", ended.failure));
            }
            ExchangeEvent::Discarded(Some(exchange), reason) => {
                let (what, ends) = told.get_mut(exchange).expect("it began");
                *ends += 1;
                what.push_str(&format!(" {reason:?}"));
            }
            ExchangeEvent::Discarded(None, _) => {}
        }
    }
    assert!(told.values().all(|&(_, ends)| ends == 1), "{told:#?}");
    told.into_values().map(|(what, _)| what).collect()
}

fuzz_target!(|input: (bool, Vec<u8>, Vec<Exchange>)| {
    let (is_client, cuts, exchanges) = input;
    let role = if is_client { Role::Connected } else { Role::Accepted };
    let mut moves = moves(&exchanges);
    for (written, _) in moves.iter_mut().flatten() {
        *written = *written == is_client;
    }
    // All that happens is seen; only bytes that nobody would call HTTP may be taken for more or less than they are.
    let is_plain = !exchanges.iter().any(|exchange| matches!(exchange, Exchange::Bytes { .. }));
    let whole = understood(role, &moves, |_, length| length);
    let cut = understood(role, &moves, |nth, length| {
        match cuts.get(nth % cuts.len().max(1)) {
            // Where a connection begins is told within a few calls.
            Some(&at) if nth > 1 => usize::from(at).max(1),
            _ => length,
        }
    });
    let is_right = |body: &Body| match body {
        Body::Length(_, more) => *more == 0,
        _ => true,
    };
    let is_well_formed = exchanges.iter().all(|exchange| match exchange {
        Exchange::Whole { method, asks, answers, status, .. } => {
            let method = METHODS[usize::from(*method) % METHODS.len()];
            let has_answer_body = !matches!(answers, Body::None);
            let status = 200 + status % 400;
            // Those have none, whatever their head says; and what has no length ends with the connection.
            let may_have_body = method != "HEAD" && method != "CONNECT" && !matches!(status, 204 | 304);
            is_right(asks) && is_right(answers) && may_have_body == has_answer_body && method != "CONNECT"
        }
        // The answer's body is what is left of the connection; and a line may be one that changes everything.
        Exchange::Continued { .. } | Exchange::Header(_) => false,
        _ => true,
    });
    if is_plain && is_well_formed {
        assert_eq!(whole, cut);
        let asked = exchanges.iter().take(64).filter(|one| matches!(one, Exchange::Whole { .. })).count();
        assert_eq!(whole.len(), asked, "{whole:#?}");
    }
});
