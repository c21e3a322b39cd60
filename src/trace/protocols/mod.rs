//! What each protocol's bytes mean.
//!
//! Comes in: pieces of the two streams of one connection, those of each in order of position, with holes.
//! Goes out: exchanges that begin, end or are given up. Never: a guess at what stood in a hole, memory that
//! grows with what others send, a panic on bytes.

mod fields;
pub(super) mod http1;
pub(super) mod http2;

use super::exchange::{Began, Discarded, Ended, ExchangeEvent, ExchangeId, Failure};
use crate::model::socket::{Direction, Ending};

/// An exchange that is over, if the write that holds its last byte moves that.
#[derive(Debug)]
pub(super) struct Held {
    /// Where its last byte ends, in the stream that is written.
    pub(super) position: u64,
    /// What to say then.
    pub(super) ended: Ended,
}

/// Where a protocol says what it found.
pub(super) struct Output<'a> {
    /// What can be said now.
    pub(super) events: &'a mut Vec<ExchangeEvent>,
    /// What can be said when a write has settled.
    pub(super) held: &'a mut Vec<Held>,
    /// How many exchanges this connection has had.
    pub(super) exchanges: &'a mut u64,
}

impl Output<'_> {
    /// A name for the next exchange.
    pub(super) fn next_exchange(&mut self) -> ExchangeId {
        *self.exchanges += 1;
        ExchangeId(*self.exchanges)
    }

    /// An exchange begins.
    pub(super) fn began(&mut self, began: Began) {
        self.events.push(ExchangeEvent::Began(began));
    }

    /// An exchange is over whose last byte ends at `position` of the stream that goes `direction`.
    pub(super) fn ended_at(&mut self, ended: Ended, direction: Direction, position: u64) {
        match direction {
            Direction::In => self.events.push(ExchangeEvent::Ended(ended)),
            Direction::Out => self.held.push(Held { position, ended }),
        }
    }

    /// An exchange is over, and nothing more can be known about that.
    pub(super) fn ended(&mut self, ended: Ended) {
        self.events.push(ExchangeEvent::Ended(ended));
    }

    /// An exchange is given up, or something that never became one.
    pub(super) fn discarded(&mut self, exchange: Option<ExchangeId>, reason: Discarded) {
        self.events.push(ExchangeEvent::Discarded(exchange, reason));
    }
}

/// What the end of a connection means for an exchange that is not complete.
pub(super) fn failure(ending: Ending) -> Failure {
    match ending {
        Ending::Closed => Failure::EndOfStream,
        Ending::TimedOut => Failure::TimedOut,
        Ending::Reset | Ending::NotConnected(_) | Ending::Failed(_) => Failure::Reset,
    }
}

/// The other way.
pub(super) fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::In => Direction::Out,
        Direction::Out => Direction::In,
    }
}
