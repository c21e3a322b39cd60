//! HTTP/1.0 and 1.1 (RFC 9110, RFC 9112): two lanes of messages, one of requests and one of responses, and
//! the queue of requests that wait for their answer.
//!
//! Heads are read as bytes, bodies are stepped over by position, so that holes in them change nothing. What
//! a hole can hide, and what is done about it:
//!
//! | hole in | then |
//! |---|---|
//! | a body of known length, a chunk, a body that ends with the connection | nothing |
//! | the heads of chunks | the body ends with a fragment that ends in a last chunk; or its end is uncertain |
//! | a request's head | it begins when its end is found at the end of a fragment, or its response comes; fields that were not seen are unknown, and so is the length of its body |
//! | a response's head | its status is known, its end uncertain |
//! | the place between two messages | the lane is lost until a fragment begins with a message |
//!
//! What was lost (a [`Piece::Gap`]) hides more than that. An end within it is uncertain, since nobody knows
//! when it was. Where more than the rest of one body may be in it, whole messages may be, of both lanes: what
//! waits for its answer is given up, and nothing is paired before it is certain again (`pairing.rs`).
//!
//! An uncertain end is the last byte seen before the loss, the next request, the connection's end or a second
//! of silence.

mod chunks;
pub(in crate::trace) mod head;
mod lanes;
mod pairing;

use std::collections::VecDeque;

use self::chunks::Chunks;
use self::head::Likeness;
use self::pairing::{Answer, Pairing, Slot};
use super::{Output, failure, opposite};
use crate::model::socket::{Direction, Ending, UNKNOWN_GAP_BYTES};
use crate::trace::exchange::{Discarded, Ended, FirstByte, Known, ResponseHead};
use crate::trace::stream::{Moment, Piece};

/// Longest head.
const MAX_HEAD_BYTES: usize = 65536;
/// Things that cannot be, after which a connection is given up.
const MAX_ODDITIES: u8 = 8;
/// For how long nothing must have come of a response whose end is uncertain for it to be over.
const QUIET_NS: u64 = 1_000_000_000;

/// Why nothing more is to be had of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::trace) enum Over {
    /// It was made a tunnel by `CONNECT`.
    Tunnel,
    /// It speaks another protocol now.
    Upgraded,
    /// It speaks HTTP/2 now, beginning with the client's preface.
    Http2,
    /// It does not speak this protocol, or cannot be followed.
    GivenUp,
}

/// A connection that speaks HTTP/1.
#[derive(Debug)]
pub(in crate::trace) struct Http1 {
    /// Which way requests go.
    requests: Direction,
    request_lane: Lane,
    response_lane: Lane,
    /// Requests that wait for their response, oldest first.
    queue: VecDeque<Slot>,
    /// What the response to the oldest one says so far.
    answer: Option<Answer>,
    /// Whether where the response to the oldest one ends can no longer be told.
    end_is_doubtful: bool,
    confirmed: bool,
    pairing: Pairing,
    /// Whether positions count all bytes of the connection.
    counts_all: bool,
    oddities: u8,
    over: Option<Over>,
}

#[derive(Debug)]
struct Lane {
    state: State,
    /// When something was last moved.
    last_ns: u64,
    /// Where what has been seen ends.
    end: u64,
}

#[derive(Debug)]
enum State {
    /// Anywhere: a fragment that begins with a message will tell.
    Seeking,
    /// Where a message begins.
    Between,
    /// Within a head.
    Head(Box<PartialHead>),
    /// Within a request's head, behind a hole.
    HeadCut(Box<PartialHead>),
    /// Within a body that ends at this position.
    Body { end: u64 },
    /// Within a chunked body.
    Chunked(Chunks),
    /// Within a chunked body, behind a hole that may have held chunk heads.
    ChunksLost,
    /// Within a body that ends with the connection and began here.
    UntilClose { begin: u64 },
}

#[derive(Debug)]
struct PartialHead {
    bytes: Vec<u8>,
    /// Position of its first byte.
    begin: u64,
    /// Of the fragment where it begins.
    moment: Moment,
}

/// A message that begins.
struct Place {
    /// Position of its first byte.
    begin: u64,
    /// Position behind its head.
    head_end: u64,
    /// Of the fragment where it begins.
    first: Moment,
    /// Of the fragment where its head ends.
    last: Moment,
}

impl Http1 {
    /// A connection whose requests go that way. `is_aligned`: nothing came before what is seen. `may_have_missed`: a call
    /// that had begun before that may have read a response, after the first request that is seen.
    pub(in crate::trace) fn new(requests: Direction, is_aligned: bool, may_have_missed: bool) -> Self {
        let lane = || Lane { state: State::Seeking, last_ns: 0, end: 0 };
        Self {
            requests,
            request_lane: lane(),
            response_lane: lane(),
            queue: VecDeque::new(),
            answer: None,
            end_is_doubtful: false,
            confirmed: false,
            pairing: Pairing::new(is_aligned, may_have_missed),
            counts_all: is_aligned,
            oddities: 0,
            over: None,
        }
    }

    /// Whether a request and its response have been understood.
    pub(in crate::trace) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Why there will be nothing more.
    pub(in crate::trace) fn over(&self) -> Option<Over> {
        self.over
    }

    /// Whether no more than one request is unanswered: then a message one way means that what was written
    /// before it has arrived.
    pub(in crate::trace) fn alternates(&self) -> bool {
        self.queue.len() <= 1
    }

    /// When [`Self::settle`] has something to say.
    pub(in crate::trace) fn settles_at(&self) -> Option<u64> {
        (self.end_is_doubtful && self.answer.is_some())
            .then(|| self.response_lane.last_ns.saturating_add(QUIET_NS))
    }

    /// Time went by.
    pub(in crate::trace) fn settle(&mut self, now_ns: u64, out: &mut Output<'_>) {
        if self.settles_at().is_some_and(|at| at <= now_ns) {
            self.end_doubtfully(out);
        }
    }

    /// Takes a piece of a stream.
    pub(in crate::trace) fn take(
        &mut self,
        direction: Direction,
        position: u64,
        piece: Piece<'_>,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        if self.over.is_some() {
            return;
        }
        let is_request = direction == self.requests;
        match piece {
            Piece::Bytes { bytes, starts, ends } => {
                self.bytes(is_request, position, bytes, starts, ends, moment, out);
            }
            Piece::Hole(length) => self.hole(is_request, position, length, moment, out),
            Piece::Gap(length) => {
                self.counts_all &= length < UNKNOWN_GAP_BYTES;
                self.gap(is_request, position, length, moment.time_ns, out);
            }
            Piece::Lost => {
                self.counts_all = false;
                self.lose(is_request, moment.time_ns, out);
            }
        }
        let lane = self.lane(is_request);
        let length = match piece {
            Piece::Bytes { bytes, .. } => bytes.len() as u64,
            Piece::Hole(length) | Piece::Gap(length) => length,
            Piece::Lost => 0,
        };
        lane.end = position.saturating_add(length);
        if matches!(piece, Piece::Bytes { .. } | Piece::Hole(_)) {
            lane.last_ns = moment.time_ns;
        }
    }

    /// Where a request's first byte stands, of which this is the position.
    fn first_byte(&self, position: u64, moment: &Moment) -> FirstByte {
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2³²")]
        match moment.sequence_of_start {
            Some(start) => FirstByte::Sequence(start.wrapping_add(position as u32)),
            None if self.counts_all => FirstByte::Position(position),
            None => FirstByte::Unknown,
        }
    }

    #[cfg(test)]
    pub(in crate::trace) fn footprint(&self) -> usize {
        let lane = |lane: &Lane| match &lane.state {
            State::Head(partial) | State::HeadCut(partial) => partial.bytes.capacity(),
            _ => 0,
        };
        lane(&self.request_lane) + lane(&self.response_lane) + self.queue.len() * size_of::<Slot>()
    }

    fn lane(&mut self, is_request: bool) -> &mut Lane {
        if is_request { &mut self.request_lane } else { &mut self.response_lane }
    }

    /// Nothing more goes that way.
    pub(in crate::trace) fn shut_down(&mut self, direction: Direction, out: &mut Output<'_>) {
        if direction != self.requests && matches!(self.response_lane.state, State::UntilClose { .. }) {
            self.response_ends_with_stream(out);
        }
    }

    /// The connection is no more. `written`: how much was really written to it.
    pub(in crate::trace) fn close(
        &mut self,
        time_ns: u64,
        ending: Ending,
        written: u64,
        out: &mut Output<'_>,
    ) {
        if ending == Ending::Closed {
            self.shut_down(opposite(self.requests), out);
        }
        if self.end_is_doubtful {
            self.end_doubtfully(out);
        }
        let answer = self.answer.take();
        let failure = failure(ending);
        for (nth, slot) in std::mem::take(&mut self.queue).into_iter().enumerate() {
            let Slot::Exchange(exchange) = slot else { continue };
            let answer = answer.filter(|_| nth == 0);
            if self.requests == Direction::Out && answer.is_none() && exchange.head_end > written {
                out.discarded(Some(exchange.id), Discarded::NotSent);
                continue;
            }
            out.ended(Ended {
                exchange: exchange.id,
                response: answer.map(|answer| ResponseHead { status: Some(answer.status) }),
                first_response_byte_ns: answer.map(|answer| answer.first_byte_ns),
                last_byte_ns: time_ns,
                end_is_certain: true,
                failure: Some(failure),
                request_body_bytes: exchange.request_body_bytes,
                response_body_bytes: match (&self.response_lane.state, answer) {
                    (State::Body { .. } | State::UntilClose { .. }, Some(answer)) => {
                        Some(self.response_lane.end.saturating_sub(answer.body_begin))
                    }
                    _ => None,
                },
                grpc_status: Known::Absent,
                upgraded: false,
            });
        }
        self.over = Some(Over::GivenUp);
    }

    /// What stands between two messages, or where a lane is sought, cannot be.
    fn odd(&mut self, is_request: bool, reason: Discarded, out: &mut Output<'_>) {
        self.lane(is_request).state = State::Seeking;
        self.oddities = self.oddities.saturating_add(1);
        if !is_request && !self.confirmed && self.pairing.is_aligned {
            // The other end does not answer as HTTP does.
            self.give_up(Discarded::NotConfirmed, out);
        } else if self.oddities >= MAX_ODDITIES {
            self.give_up(reason, out);
        } else {
            out.discarded(None, reason);
            if !is_request && !self.queue.is_empty() {
                self.end_is_doubtful = true;
            }
        }
    }

    /// Nothing more is to be had of this connection.
    fn give_up(&mut self, reason: Discarded, out: &mut Output<'_>) {
        let mut any = false;
        for slot in self.queue.drain(..) {
            if let Slot::Exchange(exchange) = slot {
                out.discarded(Some(exchange.id), reason);
                any = true;
            }
        }
        if !any {
            out.discarded(None, reason);
        }
        self.answer = None;
        self.end(Over::GivenUp);
    }

    fn end(&mut self, over: Over) {
        self.over = Some(over);
        self.end_is_doubtful = false;
        self.request_lane.state = State::Seeking;
        self.response_lane.state = State::Seeking;
    }
}

fn likeness(is_request: bool, bytes: &[u8]) -> Likeness {
    if is_request { head::may_be_request(bytes) } else { head::may_be_response(bytes) }
}

#[cfg(test)]
mod tests;
