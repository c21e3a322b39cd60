use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::socket::Fragment;
use crate::trace::exchange::ExchangeId;
use crate::trace::wire::{HEAD_BYTES, TAIL_BYTES, Wire};

/// What nobody has to keep for one connection, both ways together: a head or a header block each, and tables.
const MAX_FOOTPRINT_BYTES: usize = 1 << 19;

#[test]
fn what_is_none_of_our_protocols_costs_nothing_after_a_few_fragments() {
    for (first, answer) in [
        (&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], &b"SSH-2.0-OpenSSH_9.2p1\r\n"[..]),
        (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
        (b"\x00\x00\x00\x4e\x00\x03\x00\x00user\x00postgres\x00", b"R\x00\x00\x00\x08\x00\x00\x00\x00"),
        (b"CONNECT {\"verbose\":false}\r\n", b"PONG\r\n"),
        (b"EHLO example\r\n", b"250 fine\r\n"),
        (b"OPTIONS rtsp://a/b RTSP/1.0\r\n\r\n", b"RTSP/1.0 200 OK\r\n\r\n"),
        (&[0; 200], &[0; 200]),
        (&[0xff; 200], &[0xff; 200]),
    ] {
        for (role, tries) in [(Role::Accepted, 8), (Role::Connected, 8), (Role::Unknown, 64)] {
            let mut wire = Wire::new(role);
            for _ in 0..tries / 2 {
                assert_eq!(wire.conversation.capture(), Capture::Heads, "{first:?}");
                wire.read(first).wrote(answer);
            }
            // Redis and NATS may look like the beginning of a line once.
            wire.read(first).wrote(answer).read(first).wrote(answer);
            assert_eq!(wire.conversation.capture(), Capture::Nothing, "{first:?} {role:?}");
            assert_eq!(wire.events, []);
            assert!(!wire.conversation.is_confirmed() && !wire.conversation.is_encrypted());
            assert_eq!(wire.conversation.footprint(), 0);
        }
    }
}

#[test]
fn tls_is_told_from_outside_and_read_from_inside() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for parts in [vec![&hello[..]], vec![&hello[..5], &hello[5..]]] {
        let mut wire = Wire::new(Role::Accepted);
        for part in parts {
            wire.read(part);
        }
        wire.wrote(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76");
        assert!(wire.conversation.is_encrypted());
        let outside = wire.positions;
        (wire.is_decrypted, wire.positions) = (true, [0; 2]);
        wire.read("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        (wire.is_decrypted, wire.positions) = (false, outside);
        wire.wrote("GET /outside HTTP/1.1\r\nHost: a\r\n\r\n");
        (wire.is_decrypted, wire.positions) = (true, [27, 0]);
        wire.wrote("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").wait(50_000_000);
        assert_eq!(wire.summary(), ["GET /a → 200"]);
        assert!(!wire.conversation.is_encrypted());
    }
    // Nobody shows what is inside: after a while, nothing is to be had.
    let mut wire = Wire::new(Role::Accepted);
    wire.read(hello);
    for _ in 0..64 {
        wire.read(b"\x17\x03\x03\x00\x7a");
    }
    assert_eq!(wire.conversation.capture(), Capture::Nothing);
    assert!(wire.conversation.is_encrypted());
}

/// One exchange of HTTP/1, in the steps in which it takes place.
fn http1_exchange() -> impl Strategy<Value = Vec<(Direction, Vec<u8>)>> {
    let request = prop_oneof![
        "/[a-z0-9/]{0,20}".prop_map(|path| (false, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))),
        "/[a-z]{0,5}".prop_map(|path| (true, format!("HEAD {path} HTTP/1.1\r\nA: b\r\n c\r\n\r\n"))),
        ("/[a-z]{1,5}", 0_usize..5000).prop_map(|(path, length)| {
            (false, format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{}", "b".repeat(length)))
        }),
        ("/[a-z]{1,5}", prop::collection::vec(1_usize..300, 0..5)).prop_map(|(path, chunks)| {
            (false, format!("PUT {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunked(&chunks)))
        }),
    ];
    let response = prop_oneof![
        (200_u16..300, 0_usize..9000).prop_map(|(status, length)| {
            let head =
                format!("HTTP/1.1 {status} Some Thing\r\nServer: x\r\nContent-Length: {length}\r\n\r\n");
            (head, "r".repeat(if status == 204 { 0 } else { length }))
        }),
        (400_u16..600, prop::collection::vec(1_usize..500, 0..8)).prop_map(|(status, chunks)| {
            (format!("HTTP/1.1 {status} No\r\nTransfer-Encoding: chunked\r\n\r\n"), chunked(&chunks))
        }),
        Just(("HTTP/1.1 304 Same\r\nContent-Length: 77\r\n\r\n".to_owned(), String::new())),
        Just(("HTTP/1.1 100 Go\r\n\r\nHTTP/1.0 200 OK\nContent-Length: 0\n\n".to_owned(), String::new())),
    ];
    (request, response).prop_map(|((is_head, request), (head, body))| {
        let response = if is_head { head } else { head + &body };
        vec![(Direction::In, request.into_bytes()), (Direction::Out, response.into_bytes())]
    })
}

fn chunked(chunks: &[usize]) -> String {
    let chunks: String = chunks.iter().map(|&size| format!("{size:x}\r\n{}\r\n", "c".repeat(size))).collect();
    chunks + "0\r\nTrailer: t\r\n\r\n"
}

/// Several exchanges of HTTP/2 at once.
fn http2_steps() -> impl Strategy<Value = Vec<(Direction, Vec<u8>)>> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    prop::collection::vec((0_usize..3000, 0_usize..3000, any::<bool>()), 1..12).prop_map(move |exchanges| {
        let mut requests = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let mut responses = frame(4, 0, 0, &[]);
        for (nth, (request_length, response_length, has_trailers)) in exchanges.iter().enumerate() {
            let stream = 2 * nth as u32 + 1;
            let path = format!("/{nth}");
            let block = [&[0x83, 0x86, 0x44, path.len() as u8], path.as_bytes(), &[0x40, 1, b'k', 1, b'v']];
            requests.extend(frame(1, 4, stream, &block.concat()));
            requests.extend(frame(0, 1, stream, &vec![b'x'; *request_length]));
            responses.extend(frame(1, 4, stream, &[0x88]));
            responses.extend(frame(0, u8::from(!has_trailers), stream, &vec![0; *response_length]));
            if *has_trailers {
                responses.extend(frame(1, 5, stream, b"\x40\x0bgrpc-status\x011"));
            }
        }
        vec![(Direction::In, requests), (Direction::Out, responses)]
    })
}

/// All that is said, but times.
fn told(wire: &Wire) -> Vec<String> {
    let mut lengths: Vec<_> = wire
        .ended()
        .iter()
        .map(|ended| {
            (ended.exchange, ended.request_body_bytes, ended.response_body_bytes, ended.grpc_status.clone())
        })
        .collect();
    lengths.sort_by_key(|(exchange, ..)| *exchange);
    let mut told = wire.summary();
    told.extend(lengths.iter().map(|lengths| format!("{lengths:?}")));
    told.extend(wire.began().iter().map(|began| format!("{:?}", began.head)));
    told.extend(wire.discarded().iter().map(|discarded| format!("{discarded:?}")));
    told
}

fn play(steps: &[(Direction, Vec<u8>)], head_bytes: usize, mut cut: impl FnMut() -> usize) -> Wire {
    let mut wire = Wire { head_bytes, ..Wire::new(Role::Accepted) };
    for (direction, bytes) in steps {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(cut().clamp(1, rest.len()));
            wire.moved(*direction, part);
            rest = after;
        }
    }
    wire.wait(60_000_000);
    wire
}

proptest! {
    #[test]
    fn any_split_of_http_1_gives_the_same_exchanges(
        exchanges in prop::collection::vec(http1_exchange(), 1..8),
        cuts in prop::collection::vec(1_usize..3000, 1..20),
    ) {
        let steps = exchanges.concat();
        let whole = play(&steps, usize::MAX, || usize::MAX);
        prop_assert_eq!(whole.ended().len(), exchanges.len());
        prop_assert_eq!(whole.discarded(), vec![]);
        let mut cuts = cuts.iter().cycle();
        let split = play(&steps, usize::MAX, || *cuts.next().unwrap_or(&1));
        prop_assert_eq!(told(&split), told(&whole));
        prop_assert!(split.began().iter().all(|began| !began.overlaps));
    }

    #[test]
    fn any_split_of_http_2_gives_the_same_exchanges(
        steps in http2_steps(),
        cuts in prop::collection::vec(prop_oneof![1_usize..20, 1_usize..3000], 1..20),
    ) {
        let whole = play(&steps, usize::MAX, || usize::MAX);
        prop_assert_eq!(whole.ended().len(), whole.began().len());
        prop_assert_eq!(whole.discarded(), vec![]);
        let mut cuts = cuts.iter().cycle();
        let split = play(&steps, usize::MAX, || *cuts.next().unwrap_or(&1));
        prop_assert_eq!(told(&split), told(&whole));
    }

    #[test]
    fn holes_in_bodies_change_nothing(
        exchanges in prop::collection::vec((0_usize..200_000, 0_usize..200_000, any::<bool>()), 1..8),
        cuts in prop::collection::vec(500_usize..50_000, 1..20),
        lost in any::<u64>(),
    ) {
        let steps: Vec<_> = exchanges.iter().enumerate().flat_map(|(nth, &(request, response, is_chunk))| {
            let body = "r".repeat(response);
            let response = match is_chunk {
                true if response > 0 => {
                    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{response:x}\r\n{body}\r\n0\r\n\r\n")
                }
                _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {response}\r\n\r\n{body}"),
            };
            [
                (Direction::In, format!("PUT /{nth} HTTP/1.1\r\nContent-Length: {request}\r\n\r\n{}", "b".repeat(request))),
                (Direction::Out, response),
            ]
        }).map(|(direction, text)| (direction, text.into_bytes())).collect();
        let whole = play(&steps, usize::MAX, || usize::MAX);
        let mut cuts = cuts.iter().cycle();
        let captured = play(&steps, HEAD_BYTES, || *cuts.next().unwrap_or(&1));
        prop_assert_eq!(told(&captured), told(&whole));

        // And whole fragments within bodies are lost.
        let mut wire = Wire { head_bytes: HEAD_BYTES, ..Wire::new(Role::Accepted) };
        for (direction, bytes) in &steps {
            let parts: Vec<&[u8]> = bytes.chunks(700).collect();
            for (nth, part) in parts.iter().enumerate() {
                // The last chunk is more than the body.
                let is_body = nth > 0 && 700 * (nth + 1) + 16 < bytes.len();
                if is_body && lost >> (nth % 64) & 1 == 1 {
                    wire.lost(*direction, part.len() as u64);
                } else {
                    wire.moved(*direction, part);
                }
            }
        }
        wire.wait(60_000_000);
        prop_assert_eq!(told(&wire), told(&whole));
    }

    #[test]
    fn short_writes_change_nothing_but_times(
        exchanges in prop::collection::vec(http1_exchange(), 1..6),
        shorts in prop::collection::vec(0_usize..6000, 1..20),
    ) {
        let steps = exchanges.concat();
        let whole = play(&steps, usize::MAX, || usize::MAX);
        let mut shorts = shorts.iter().cycle();
        let mut wire = Wire { head_bytes: usize::MAX, ..Wire::new(Role::Accepted) };
        for (direction, bytes) in &steps {
            let mut rest = bytes.as_slice();
            for _ in 0..5 {
                let moved = *shorts.next().unwrap_or(&0);
                if *direction == Direction::Out && moved < rest.len() {
                    wire.wrote_only(rest, moved as u64);
                    rest = &rest[moved..];
                }
            }
            wire.moved(*direction, rest);
        }
        wire.wait(60_000_000);
        prop_assert_eq!(told(&wire), told(&whole));
        let writes: Vec<_> = wire.ended().iter().map(|ended| (ended.first_response_byte_ns, ended.last_byte_ns)).collect();
        prop_assert!(writes.iter().all(|(first, last)| first.is_some_and(|first| first <= *last)));
    }

    #[test]
    fn anything_is_borne_and_every_exchange_ends_once(
        role in prop_oneof![Just(Role::Unknown), Just(Role::Accepted), Just(Role::Connected)],
        happenings in prop::collection::vec(happening(), 0..60),
        ending in prop_oneof![Just(Ending::Closed), Just(Ending::Reset)],
    ) {
        let mut wire = Wire::new(role);
        for happening in &happenings {
            happening.happen(&mut wire);
            prop_assert!(wire.conversation.footprint() < MAX_FOOTPRINT_BYTES);
        }
        wire.end(ending);
        prop_assert_eq!(wire.conversation.footprint(), 0);
        let mut outcomes: BTreeMap<ExchangeId, usize> = BTreeMap::new();
        for event in &wire.events {
            match event {
                ExchangeEvent::Began(began) => prop_assert_eq!(outcomes.insert(began.exchange, 0), None),
                ExchangeEvent::Ended(ended) => {
                    *outcomes.get_mut(&ended.exchange).expect("it began") += 1;
                    prop_assert!(ended.last_byte_ns <= wire.now_ns);
                }
                ExchangeEvent::Discarded(Some(exchange), _) => *outcomes.get_mut(exchange).expect("it began") += 1,
                ExchangeEvent::Discarded(None, _) => {}
            }
        }
        prop_assert!(outcomes.values().all(|&count| count == 1), "{:?}", outcomes);
    }
}

/// Something that the kernel side may tell, true or not.
#[derive(Debug, Clone)]
enum Happening {
    Moved { direction: Direction, is_decrypted: bool, bytes: Vec<u8>, hidden: u64, skew: i64 },
    Amended { back: u64, length: u64 },
    Waited(u64),
    ShutDown(Direction),
}

fn happening() -> impl Strategy<Value = Happening> {
    let direction = || prop_oneof![Just(Direction::In), Just(Direction::Out)];
    let bytes = prop_oneof![
        4 => prop::sample::select(vec![
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HEAD / HTTP/1.1\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 50\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
            "0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.1 101 Up\r\nUpgrade: h2c\r\n\r\n",
            "HTTP/1.1 100 Go\r\n\r\n",
            "HTTP/1.1 204 OK\r\nServer: ",
            "\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        3 => prop::sample::select(vec![
            b"\0\0\0\x04\0\0\0\0\0".to_vec(),
            b"\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84".to_vec(),
            b"\0\0\x03\x01\x04\0\0\0\x03\x83\x86\x84".to_vec(),
            b"\0\0\x01\x01\x05\0\0\0\x01\x88".to_vec(),
            b"\0\0\x01\x01\x04\0\0\0\x03\x88".to_vec(),
            b"\0\x01\0\0\x01\0\0\0\x03".to_vec(),
            b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08".to_vec(),
        ]),
        3 => prop::collection::vec(any::<u8>(), 0..300),
    ];
    prop_oneof![
        12 => (direction(), prop::bool::weighted(0.2), bytes, prop_oneof![4 => Just(0), 1 => 0_u64..5000], prop_oneof![
            8 => Just(0),
            1 => -300_i64..300,
        ])
            .prop_map(|(direction, is_decrypted, bytes, hidden, skew)| Happening::Moved {
                direction, is_decrypted, bytes, hidden, skew
            }),
        2 => (0_u64..400, 0_u64..300).prop_map(|(back, length)| Happening::Amended { back, length }),
        1 => (0_u64..20_000_000_000).prop_map(Happening::Waited),
        1 => direction().prop_map(Happening::ShutDown),
    ]
}

impl Happening {
    fn happen(&self, wire: &mut Wire) {
        match self {
            Self::Moved { direction, is_decrypted, bytes, hidden, skew } => {
                let tail = if *hidden > 0 { bytes.len().min(TAIL_BYTES) } else { 0 };
                wire.take(&Fragment {
                    direction: *direction,
                    is_decrypted: *is_decrypted,
                    position: wire.positions[*direction as usize].saturating_add_signed(*skew),
                    sequence: None,
                    length: bytes.len() as u64 + hidden,
                    head: bytes[..bytes.len() - tail].to_vec(),
                    tail: bytes[bytes.len() - tail..].to_vec(),
                    minted: None,
                    within: None,
                    by_event_loop: false,
                    from_pool: false,
                });
            }
            Self::Amended { back, length } => {
                let position = wire.positions[1].saturating_sub(*back);
                wire.amend(position, *length);
            }
            Self::Waited(ns) => {
                wire.wait(*ns);
            }
            Self::ShutDown(direction) => wire.conversation.shut_down(*direction, &mut wire.events),
        }
    }
}

/// Prints what a pair costs: `cargo test --release --lib trace::conversation -- --ignored --nocapture`.
#[test]
#[ignore = "it measures"]
fn cost_of_a_request_and_its_response() {
    const PAIRS: u64 = 500_000;
    let request = b"GET /api/items/17?x=y HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\
        Accept-Encoding: gzip\r\nX-Request-Id: 0123456789abcdef\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Mon, 21 Oct 2013 20:13:21 GMT\r\nContent-Type: text/plain\r\n\
        Content-Length: 2\r\n\r\nok";
    let http2 = |flags: u8, stream: u64, block: &[u8]| {
        let mut frame = (block.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([1, flags]);
        frame.extend((stream as u32).to_be_bytes());
        frame.extend(block);
        frame
    };
    let block = [
        &[0x82, 0x86, 0x04, 0x8c],
        &[0x62, 0x03, 0x2e, 0x8e, 0x44, 0x23, 0x08, 0x41, 0x17, 0x5a, 0x2d, 0x7f][..],
    ];
    for is_http2 in [false, true] {
        let mut wire = Wire { head_bytes: 16384, ..Wire::new(Role::Accepted) };
        if is_http2 {
            wire.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").wrote(b"\0\0\0\x04\0\0\0\0\0");
        }
        let mut spent = std::time::Duration::ZERO;
        for nth in 0..PAIRS {
            let (request, response) = if is_http2 {
                (http2(5, 2 * nth + 1, &block.concat()), http2(5, 2 * nth + 1, &[0x88]))
            } else {
                (request.to_vec(), response.to_vec())
            };
            let pair = [(Direction::In, request), (Direction::Out, response)];
            for (direction, bytes) in pair {
                let fragment = wire.fragment(direction, &bytes);
                let begin = std::time::Instant::now();
                wire.take(&fragment);
                spent += begin.elapsed();
            }
            if nth % 1024 == 0 {
                wire.events.clear();
            }
        }
        let name = if is_http2 { "HTTP/2" } else { "HTTP/1" };
        println!("{name}: {} ns per request and response", spent.as_nanos() / u128::from(PAIRS));
    }
}

#[test]
fn what_was_lost_with_nothing_behind_it_is_no_failure() {
    let request = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let told = |seen: &str, in_bytes: usize, role| {
        let mut wire = Wire::new(role);
        let (asks, answers) = match role {
            Role::Accepted => (Direction::In, Direction::Out),
            _ => (Direction::Out, Direction::In),
        };
        wire.moved(asks, request);
        if !seen.is_empty() {
            wire.moved(answers, seen);
        }
        let mut bytes = [request.len() as u64; 2];
        bytes[answers as usize] = in_bytes as u64;
        let moved = Moved { is_decrypted: false, in_bytes: bytes[0], out_bytes: bytes[1] };
        wire.conversation.has_moved(wire.now_ns + 1, &moved, &mut wire.events);
        wire.end(Ending::Closed).summary()
    };
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    for role in [Role::Accepted, Role::Connected] {
        assert_eq!(told("", 40, role), ["GET /a → ×Gap"], "an answer that nobody told of");
        assert_eq!(told("", 0, role), ["GET /a → - !EndOfStream"], "none");
        assert_eq!(told(answer, answer.len() + 5, role), ["GET /a → 200 ~"], "its end");
        assert_eq!(told(answer, answer.len(), role), ["GET /a → 200 !EndOfStream"], "a part");
    }
}
