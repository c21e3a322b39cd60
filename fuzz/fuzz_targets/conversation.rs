//! Any fragments, true or not, as one connection: every exchange that begins ends once.
//!
//! The sources are taken as they are, since the crate they belong to needs libbpf and a browser's page.
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
    pub mod context;
    pub mod conversation;
    pub mod exchange;
    mod protocols;
    pub mod route;
    mod stream;
}

use std::collections::HashMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use model::socket::{Actor, Direction, Ending, Fragment, Moved, Role};
use trace::conversation::Conversation;
use trace::exchange::ExchangeEvent;

#[derive(Arbitrary, Debug)]
enum Happening {
    Moved { written: bool, is_decrypted: bool, skew: i8, hidden: u16, head: Vec<u8>, tail: Vec<u8> },
    Amended { is_decrypted: bool, back: u16, length: u16 },
    Waited(u32),
    ShutDown(bool),
}

fuzz_target!(|input: (u8, Vec<Happening>)| {
    let (role, happenings) = input;
    let mut conversation = Conversation::new(match role % 3 {
        0 => Role::Unknown,
        1 => Role::Accepted,
        _ => Role::Connected,
    });
    if role & 0x40 != 0 {
        conversation.was_read_late();
    }
    let (mut events, mut now_ns, mut positions) = (Vec::new(), 1_u64, [0_u64; 2]);
    for happening in happenings {
        now_ns += 1000;
        match happening {
            Happening::Moved { written, is_decrypted, skew, hidden, head, tail } => {
                let position = positions[usize::from(written)].saturating_add_signed(i64::from(skew));
                let length = head.len() as u64 + u64::from(hidden) + tail.len() as u64;
                positions[usize::from(written)] = position + length;
                let direction = if written { Direction::Out } else { Direction::In };
                let fragment = Fragment {
                    direction,
                    is_decrypted,
                    position,
                    sequence: None,
                    length,
                    head,
                    tail,
                    minted: None,
                    within: None,
                    by_event_loop: false,
                    from_pool: false,
                };
                conversation.take(now_ns, Actor::default(), &fragment, &mut events);
            }
            Happening::Amended { is_decrypted, back, length } => {
                let position = positions[1].saturating_sub(u64::from(back));
                conversation.amend(is_decrypted, position, u64::from(length));
                positions[1] = position + u64::from(length);
            }
            Happening::Waited(ns) => {
                now_ns += u64::from(ns);
                conversation.settle(now_ns, &mut events);
            }
            Happening::ShutDown(written) => {
                let direction = if written { Direction::Out } else { Direction::In };
                conversation.shut_down(direction, &mut events);
            }
        }
        let _ = (conversation.capture(), conversation.settles_at(), conversation.is_confirmed());
    }
    let moved = Moved { is_decrypted: role & 0x80 != 0, in_bytes: positions[0], out_bytes: positions[1] };
    conversation.has_moved(now_ns, &moved, &mut events);
    conversation.end(now_ns, Ending::Closed, &mut events);
    let mut outcomes = HashMap::new();
    for event in &events {
        match event {
            ExchangeEvent::Began(began) => {
                assert_eq!(outcomes.insert(began.exchange, 0), None);
                let _ = trace::context::Incoming::of(&began.head);
                if let Some(path) = began.head.target.value().and_then(trace::route::path) {
                    let _ = trace::route::template(path);
                }
            }
            ExchangeEvent::Ended(ended) => *outcomes.get_mut(&ended.exchange).expect("it began") += 1,
            ExchangeEvent::Discarded(Some(exchange), _) => {
                *outcomes.get_mut(exchange).expect("it began") += 1;
            }
            ExchangeEvent::Discarded(None, _) => {}
        }
    }
    assert!(outcomes.values().all(|&count| count == 1));
});
