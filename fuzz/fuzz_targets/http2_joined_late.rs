//! An HTTP/2 connection of any frames and header blocks, seen from its beginning and joined late: what both know
//! of a request is the same. That is what reading header tables without their beginning stands on.
//!
//! Each fragment is whole frames, as it mostly is: a fragment that begins within a payload may look like frames.
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

use std::collections::HashMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use model::socket::{Ending, Role};
use trace::exchange::{ExchangeEvent, ExchangeId, Known, RequestHead};
use view::View;

/// A field of a header block, or what stands in its place.
#[derive(Arbitrary, Debug)]
enum Field {
    /// Of the static table or, from 62 on, of the dynamic one.
    Indexed(u8),
    Inserted(Name, Text),
    NotInserted(Name, Text),
    Resized(u16),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Name {
    Indexed(u8),
    Known(u8),
    Own(Text),
}

/// Short, so that tables have many.
#[derive(Arbitrary, Debug)]
struct Text([u8; 3], u8);

const NAMES: [&str; 8] =
    [":method", ":path", ":scheme", ":authority", ":status", "content-type", "grpc-status", "traceparent"];

#[derive(Arbitrary, Debug)]
enum Happening {
    /// The next stream, or the one so far before it.
    Headers {
        written: bool,
        back: u8,
        ends_stream: bool,
        is_padded: bool,
        cut_at: Option<u8>,
        block: Vec<Field>,
    },
    Data {
        written: bool,
        back: u8,
        ends_stream: bool,
        length: u8,
    },
    Reset {
        written: bool,
        back: u8,
    },
    Settings {
        written: bool,
    },
    Waited,
}

fn integer(bytes: &mut Vec<u8>, first: u8, prefix_bits: u32, value: u64) {
    let all_ones = (1_u64 << prefix_bits) - 1;
    if value < all_ones {
        bytes.push(first | value as u8);
        return;
    }
    bytes.push(first | all_ones as u8);
    let mut rest = value - all_ones;
    while rest >= 0x80 {
        bytes.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    integer(bytes, 0, 7, text.len() as u64);
    bytes.extend_from_slice(text);
}

fn literal(bytes: &mut Vec<u8>, first: u8, prefix_bits: u32, name: &Name, value: &Text) {
    match name {
        Name::Indexed(index) => integer(bytes, first, prefix_bits, (*index).max(1).into()),
        Name::Known(which) => {
            bytes.push(first);
            text(bytes, NAMES[usize::from(*which) % NAMES.len()].as_bytes());
        }
        Name::Own(Text(name, length)) => {
            bytes.push(first);
            text(bytes, &name[..usize::from(length % 4)]);
        }
    }
    // Some are large, so that little finds room beside them.
    let value = match value.1 {
        250.. => vec![value.0[0]; 1500],
        length => value.0[..usize::from(length % 4)].to_vec(),
    };
    text(bytes, &value);
}

fn block_of(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        match field {
            Field::Indexed(index) => integer(&mut bytes, 0x80, 7, (*index).into()),
            Field::Inserted(name, value) => literal(&mut bytes, 0x40, 6, name, value),
            Field::NotInserted(name, value) => literal(&mut bytes, 0, 4, name, value),
            Field::Resized(size) => integer(&mut bytes, 0x20, 5, (*size).into()),
            Field::Bytes(any) => bytes.extend_from_slice(any),
        }
    }
    bytes.truncate(8192);
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What it says of each request, named by its stream and when it began, once.
fn told(view: &View) -> HashMap<(u32, u64), (&RequestHead, Option<u16>)> {
    let mut told = HashMap::new();
    let mut names: HashMap<ExchangeId, (u32, u64)> = HashMap::new();
    for event in &view.events {
        match event {
            ExchangeEvent::Began(began) => {
                let name = (began.stream_id, began.first_byte_ns);
                assert_eq!(names.insert(began.exchange, name), None);
                told.insert(name, (&began.head, None));
            }
            ExchangeEvent::Ended(ended) => {
                let name = names.remove(&ended.exchange).expect("it began, and has not ended");
                if let Some((_, status)) = told.get_mut(&name) {
                    *status = ended.response.and_then(|response| response.status);
                }
            }
            ExchangeEvent::Discarded(Some(exchange), _) => {
                names.remove(exchange).expect("it began, and has not ended");
            }
            ExchangeEvent::Discarded(None, _) => {}
        }
    }
    assert!(names.is_empty(), "all of them have ended");
    told
}

fn agree(one: &Known, other: &Known) -> bool {
    match (one, other) {
        (Known::Value(one), Known::Value(other)) => one == other,
        // What the one has read, the other one cannot say was not sent.
        (Known::Value(_), Known::Absent) => false,
        _ => true,
    }
}

fuzz_target!(|input: (bool, u8, Vec<Happening>)| {
    let (is_client, joins_at, happenings) = input;
    let mut all = View::new(if is_client { Role::Connected } else { Role::Accepted });
    // Who joins knows which end it looks at, from /proc.
    let mut late = View::new(if is_client { Role::Connected } else { Role::Accepted });
    let mut now_ns = 1_000_000_000;
    let settings = frame(4, 0, 0, &[]);
    all.moved(now_ns, is_client, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat());
    all.moved(now_ns + 1, !is_client, &settings);
    let mut next_stream = 1_u32;
    for (nth, happening) in happenings.iter().enumerate().take(256) {
        now_ns += 1000;
        let stream_back = |back: u8, next: u32| next.saturating_sub(2 * u32::from(back)).max(1) | 1;
        let (written, bytes) = match happening {
            Happening::Headers { written, back, ends_stream, is_padded, cut_at, block } => {
                let is_request = *written == is_client;
                let stream =
                    if is_request && *back == 0 { next_stream } else { stream_back(*back, next_stream) };
                if is_request && *back == 0 {
                    next_stream += 2;
                }
                let (block, end) = (block_of(block), u8::from(*ends_stream));
                let bytes = match cut_at {
                    Some(at) if usize::from(*at) < block.len() => {
                        let (first, rest) = block.split_at(usize::from(*at));
                        [frame(1, end, stream, first), frame(9, 4, stream, rest)].concat()
                    }
                    _ if *is_padded => {
                        frame(1, end | 4 | 8, stream, &[&[3], block.as_slice(), &[0; 3]].concat())
                    }
                    _ => frame(1, end | 4, stream, &block),
                };
                (*written, bytes)
            }
            Happening::Data { written, back, ends_stream, length } => {
                let payload = vec![0; usize::from(*length)];
                (*written, frame(0, u8::from(*ends_stream), stream_back(*back, next_stream), &payload))
            }
            Happening::Reset { written, back } => {
                (*written, frame(3, 0, stream_back(*back, next_stream), &[0, 0, 0, 8]))
            }
            Happening::Settings { written } => (*written, settings.clone()),
            Happening::Waited => {
                now_ns += 100_000_000;
                all.settle(now_ns);
                late.settle(now_ns);
                continue;
            }
        };
        all.moved(now_ns, written, &bytes);
        if nth >= usize::from(joins_at) {
            late.moved(now_ns, written, &bytes);
        }
    }
    now_ns += 1_000_000;
    for view in [&mut all, &mut late] {
        view.conversation.end(now_ns, Ending::Closed, &mut view.events);
    }
    let (all, late) = (told(&all), told(&late));
    for (name, (head, status)) in &late {
        let Some((whole, whole_status)) = all.get(name) else { continue };
        // Of other fields the first one counts, and the first one may be what is not known.
        let fields = |head: &RequestHead| [head.method.clone(), head.target.clone(), head.scheme.clone()];
        for (one, other) in fields(whole).iter().zip(&fields(head)) {
            assert!(agree(one, other), "{name:?}: {whole:#?} {head:#?}");
        }
        assert!(status.is_none() || whole_status.is_none() || status == whole_status, "{name:?}");
    }
});
