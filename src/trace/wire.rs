//! A connection for tests: what its ends move, as the kernel side would tell it.

use super::conversation::Conversation;
use super::exchange::{Began, Discarded, Ended, ExchangeEvent, ExchangeId};
use crate::model::RequestKey;
use crate::model::socket::{Actor, Direction, Ending, Fragment, Minted, Role};

/// As `SF_HEAD_BYTES`, less the tail.
pub(super) const HEAD_BYTES: usize = 1984;
/// As `SF_TAIL_BYTES`.
pub(super) const TAIL_BYTES: usize = 64;

/// See the module's description. Each fragment is moved a microsecond after the one before it.
pub(super) struct Wire {
    pub(super) conversation: Conversation,
    pub(super) events: Vec<ExchangeEvent>,
    pub(super) now_ns: u64,
    pub(super) positions: [u64; 2],
    pub(super) is_decrypted: bool,
    pub(super) head_bytes: usize,
}

impl Wire {
    pub(super) fn new(role: Role) -> Self {
        Self {
            conversation: Conversation::new(role),
            events: Vec::new(),
            now_ns: 1_000_000_000,
            positions: [0; 2],
            is_decrypted: false,
            head_bytes: HEAD_BYTES,
        }
    }

    /// A fragment as it is captured of these bytes.
    pub(super) fn fragment(&self, direction: Direction, bytes: &[u8]) -> Fragment {
        let head = bytes.len().min(self.head_bytes);
        let tail = bytes.len().saturating_sub(head).min(TAIL_BYTES);
        Fragment {
            direction,
            is_decrypted: self.is_decrypted,
            position: self.positions[direction as usize],
            sequence: None,
            length: bytes.len() as u64,
            head: bytes[..head].to_vec(),
            tail: bytes[bytes.len() - tail..].to_vec(),
            minted: None,
            within: None,
            by_event_loop: false,
            from_pool: false,
        }
    }

    pub(super) fn take(&mut self, fragment: &Fragment) {
        self.now_ns += 1000;
        self.positions[fragment.direction as usize] = fragment.position + fragment.length;
        let actor = Actor { pid: 1, tid: 1, goroutine: 0 };
        self.conversation.take(self.now_ns, actor, fragment, &mut self.events);
    }

    pub(super) fn moved(&mut self, direction: Direction, bytes: impl AsRef<[u8]>) -> &mut Self {
        let fragment = self.fragment(direction, bytes.as_ref());
        self.take(&fragment);
        self
    }

    pub(super) fn read(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.moved(Direction::In, bytes)
    }

    pub(super) fn wrote(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.moved(Direction::Out, bytes)
    }

    /// Bytes that nobody has told of.
    pub(super) fn lost(&mut self, direction: Direction, length: u64) -> &mut Self {
        self.positions[direction as usize] += length;
        self
    }

    /// Announces a write of these bytes that moves fewer; the positions are those after it.
    pub(super) fn wrote_only(&mut self, bytes: impl AsRef<[u8]>, length: u64) -> &mut Self {
        let begin = self.positions[1];
        self.wrote(bytes);
        self.amend(begin, length)
    }

    pub(super) fn amend(&mut self, position: u64, length: u64) -> &mut Self {
        self.conversation.amend(self.is_decrypted, position, length);
        self.positions[1] = position + length;
        self
    }

    /// Lets so much time go by.
    pub(super) fn wait(&mut self, ns: u64) -> &mut Self {
        self.now_ns += ns;
        self.conversation.settle(self.now_ns, &mut self.events);
        self
    }

    pub(super) fn end(&mut self, ending: Ending) -> &mut Self {
        self.now_ns += 1000;
        self.conversation.end(self.now_ns, ending, &mut self.events);
        self
    }

    pub(super) fn began(&self) -> Vec<&Began> {
        self.events
            .iter()
            .filter_map(|event| match event {
                ExchangeEvent::Began(began) => Some(began),
                _ => None,
            })
            .collect()
    }

    pub(super) fn ended(&self) -> Vec<&Ended> {
        self.events
            .iter()
            .filter_map(|event| match event {
                ExchangeEvent::Ended(ended) => Some(ended),
                _ => None,
            })
            .collect()
    }

    pub(super) fn discarded(&self) -> Vec<(Option<ExchangeId>, Discarded)> {
        self.events
            .iter()
            .filter_map(|event| match event {
                ExchangeEvent::Discarded(exchange, reason) => Some((*exchange, *reason)),
                _ => None,
            })
            .collect()
    }

    /// `METHOD target → status` of every exchange in order of its beginning; `…` while it is open, `!` and
    /// the failure if it failed, `~` if its end is uncertain, `×` and the reason if it was given up.
    pub(super) fn summary(&self) -> Vec<String> {
        let outcome = |id: ExchangeId| {
            let mut outcomes = self.events.iter().filter_map(|event| match event {
                ExchangeEvent::Ended(ended) if ended.exchange == id => {
                    let status = ended.response.map_or("-".to_owned(), |response| {
                        response.status.map_or("?".to_owned(), |status| status.to_string())
                    });
                    let failure = ended.failure.map(|failure| format!(" !{failure:?}")).unwrap_or_default();
                    Some(format!("{status}{}{failure}", if ended.end_is_certain { "" } else { " ~" }))
                }
                ExchangeEvent::Discarded(Some(given_up), reason) if *given_up == id => {
                    Some(format!("×{reason:?}"))
                }
                _ => None,
            });
            let first = outcomes.next().unwrap_or("…".to_owned());
            assert_eq!(outcomes.next(), None, "{id:?} ended twice");
            first
        };
        self.began()
            .iter()
            .map(|began| {
                let method = began.head.method.value().unwrap_or("?");
                let target = began.head.target.value().unwrap_or("?");
                format!("{method} {target} → {}", outcome(began.exchange))
            })
            .collect()
    }
}

/// A key and ids that go with it.
pub(super) fn minted(number: u64) -> Minted {
    Minted {
        key: RequestKey::of(number).expect("not 0"),
        trace_id: [number as u8; 16],
        span_id: [number as u8; 8],
        received_parent: None,
        is_sent: false,
    }
}
