//! What one process sees of a connection: calls that move whole bytes, in the order of the stream. For targets that have
//! `model` and `trace` at their root.

use crate::model::socket::{Actor, Direction, Fragment, Role};
use crate::trace::conversation::Conversation;
use crate::trace::exchange::ExchangeEvent;

pub struct View {
    pub conversation: Conversation,
    pub events: Vec<ExchangeEvent>,
    /// Bytes that were read, and that were written.
    positions: [u64; 2],
}

impl View {
    pub fn new(role: Role) -> Self {
        Self { conversation: Conversation::new(role), events: Vec::new(), positions: [0; 2] }
    }

    /// One call moves these bytes, and all of them are seen.
    pub fn moved(&mut self, now_ns: u64, written: bool, bytes: &[u8]) {
        let position = &mut self.positions[usize::from(written)];
        let fragment = Fragment {
            direction: if written { Direction::Out } else { Direction::In },
            is_decrypted: false,
            position: *position,
            sequence: None,
            length: bytes.len() as u64,
            head: bytes.to_vec(),
            tail: Vec::new(),
            minted: None,
            within: None,
            by_event_loop: false,
            from_pool: false,
        };
        *position += bytes.len() as u64;
        self.conversation.take(now_ns, Actor::default(), &fragment, &mut self.events);
    }

    /// Nothing happens up to then.
    pub fn settle(&mut self, now_ns: u64) {
        self.conversation.settle(now_ns, &mut self.events);
    }
}
