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
//! An uncertain end is the last byte seen before the next request began, the connection ended or a second
//! went by. On a connection that pipelines, a lost lane means that requests and responses cannot be paired
//! any more: what is open is given up, and the rest of the connection with it.

mod chunks;
pub(in crate::trace) mod head;

use std::collections::VecDeque;

use self::chunks::{Chunks, Progress};
use self::head::{Framing, Likeness, Parsed, Request, Response};
use super::{Output, failure, opposite};
use crate::model::socket::{Direction, Ending};
use crate::trace::exchange::{Began, Discarded, Ended, ExchangeId, Known, ResponseHead};
use crate::trace::stream::{Moment, Piece};

/// Unanswered requests that are followed on one connection.
const MAX_UNANSWERED: usize = 64;
/// Entries of the queue, with those that stand for requests that are not followed.
const MAX_QUEUE: usize = 256;
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
    /// Whether a response came while two requests waited. That a request comes while another waits is not
    /// enough: a response may have been lost.
    pipelines: bool,
    /// Whether every byte from the first on has been accounted for.
    is_aligned: bool,
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
    /// Of the fragment where it begins.
    moment: Moment,
}

#[derive(Debug)]
enum Slot {
    Exchange(Exchange),
    /// Requests that are not followed.
    Skipped {
        count: u64,
        is_head: bool,
    },
}

#[derive(Debug)]
struct Exchange {
    id: ExchangeId,
    is_head: bool,
    is_connect: bool,
    /// Where its head ends.
    head_end: u64,
    /// Length of the request's body, once that is complete.
    request_body_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    status: u16,
    first_byte_ns: u64,
    /// Where its body begins.
    body_begin: u64,
}

/// A message that begins.
struct Place {
    /// Position behind its head.
    head_end: u64,
    /// Of the fragment where it begins.
    first: Moment,
    /// Of the fragment where its head ends.
    last: Moment,
}

impl Http1 {
    /// A connection whose requests go that way. `is_aligned`: nothing came before what is seen.
    pub(in crate::trace) fn new(requests: Direction, is_aligned: bool) -> Self {
        let lane = || Lane { state: State::Seeking, last_ns: 0, end: 0 };
        Self {
            requests,
            request_lane: lane(),
            response_lane: lane(),
            queue: VecDeque::new(),
            answer: None,
            end_is_doubtful: false,
            confirmed: false,
            pipelines: false,
            is_aligned,
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
            Piece::Lost => self.lose(is_request, out),
        }
        let lane = self.lane(is_request);
        lane.last_ns = moment.time_ns;
        lane.end = match piece {
            Piece::Bytes { bytes, .. } => position.saturating_add(bytes.len() as u64),
            Piece::Hole(length) => position.saturating_add(length),
            Piece::Lost => position,
        };
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

    #[expect(clippy::too_many_arguments, reason = "a piece's parts")]
    fn bytes(
        &mut self,
        is_request: bool,
        mut position: u64,
        bytes: &[u8],
        starts: Option<u64>,
        ends: bool,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        let mut moment = *moment;
        let mut rest = bytes;
        let mut starts = starts;
        while !rest.is_empty() && self.over.is_none() {
            let consumed = self.step(is_request, position, rest, starts, ends, &moment, out);
            if consumed > 0 {
                starts = None;
                // The kernel side's word is about what stands at the beginning of a fragment.
                moment.minted = None;
            }
            position += consumed as u64;
            rest = rest.get(consumed..).unwrap_or_default();
        }
    }

    /// Takes some of the bytes; how many.
    #[expect(clippy::too_many_arguments, reason = "a piece's parts")]
    fn step(
        &mut self,
        is_request: bool,
        position: u64,
        bytes: &[u8],
        starts: Option<u64>,
        ends: bool,
        moment: &Moment,
        out: &mut Output<'_>,
    ) -> usize {
        let all = bytes.len();
        match &mut self.lane(is_request).state {
            State::Seeking => {
                if starts.is_some() && likeness(is_request, bytes) != Likeness::No {
                    self.lane(is_request).state = State::Between;
                    return 0;
                }
                if starts.is_some() && !is_request && !self.confirmed && self.is_aligned {
                    self.odd(is_request, Discarded::NotConfirmed, out);
                }
                all
            }
            State::Between => {
                let empty_lines = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                if empty_lines > 0 {
                    return empty_lines;
                }
                self.head_begins(is_request, position, bytes, moment, out)
            }
            State::Head(partial) => {
                partial.moment.minted = partial.moment.minted.or(moment.minted);
                let before = partial.bytes.len();
                let room = MAX_HEAD_BYTES.saturating_sub(before).min(all);
                partial.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
                match head::head_end(&partial.bytes, before) {
                    Some(end) => self.head_completes(is_request, position, end, before, moment, out),
                    None if room < all => {
                        self.head_is_cut(is_request, position, moment, Discarded::HeadTooLong, out);
                        all
                    }
                    None => all,
                }
            }
            State::HeadCut(partial) => {
                if starts.is_some() && head::may_be_request(bytes) == Likeness::Yes {
                    self.lane(is_request).state = State::Between;
                    out.discarded(None, Discarded::HeadTooLong);
                    return 0;
                }
                if ends && (bytes.ends_with(b"\r\n\r\n") || bytes.ends_with(b"\n\n")) {
                    let first = partial.moment;
                    self.cut_request_begins(position + all as u64, first, moment, out);
                }
                all
            }
            State::Body { end } => {
                let left = end.saturating_sub(position);
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(all);
                if here as u64 == left {
                    self.message_ends(is_request, position + left, moment, out);
                }
                here
            }
            State::Chunked(chunks) => match chunks.bytes(position, bytes) {
                Progress::More => all,
                Progress::Complete(length) => {
                    self.message_ends(is_request, position + length as u64, moment, out);
                    length
                }
                Progress::Malformed => {
                    self.lane(is_request).state = State::ChunksLost;
                    self.end_is_doubtful |= !is_request;
                    all
                }
            },
            State::ChunksLost => {
                if let Some(length) = starts {
                    if Chunks::is_one_chunk(bytes, length) {
                        // The chunks before it are not known, nor how long the body is.
                        self.lane(is_request).state = State::Chunked(Chunks::found_again());
                        return 0;
                    }
                    if likeness(is_request, bytes) == Likeness::Yes {
                        self.lane(is_request).state = State::Seeking;
                        return 0;
                    }
                }
                if ends && Chunks::ends_with_last_chunk(bytes) {
                    self.message_ends(is_request, position + all as u64, moment, out);
                }
                all
            }
            State::UntilClose { .. } => all,
        }
    }

    /// A message begins with these bytes; how many were taken.
    fn head_begins(
        &mut self,
        is_request: bool,
        position: u64,
        bytes: &[u8],
        moment: &Moment,
        out: &mut Output<'_>,
    ) -> usize {
        if likeness(is_request, bytes) == Likeness::No {
            self.odd(is_request, Discarded::Malformed, out);
            return bytes.len();
        }
        let place = |length| Place { head_end: position + length as u64, first: *moment, last: *moment };
        let parsed = if is_request {
            match head::request(bytes) {
                Parsed::Complete(request, length) => {
                    self.request_begins(request, &place(length), out);
                    Parsed::Complete((), length)
                }
                Parsed::Partial => Parsed::Partial,
                Parsed::Malformed => Parsed::Malformed,
            }
        } else {
            match head::response(bytes) {
                Parsed::Complete(response, length) => {
                    self.response_begins(response, &place(length), out);
                    Parsed::Complete((), length)
                }
                Parsed::Partial => Parsed::Partial,
                Parsed::Malformed => Parsed::Malformed,
            }
        };
        match parsed {
            Parsed::Complete((), length) => length,
            Parsed::Partial => {
                let partial = Box::new(PartialHead { bytes: bytes.to_vec(), moment: *moment });
                self.lane(is_request).state = State::Head(partial);
                bytes.len()
            }
            Parsed::Malformed => {
                self.odd(is_request, Discarded::Malformed, out);
                bytes.len()
            }
        }
    }

    /// The head that was read in parts is `end` long; `before` of that were there before. How many of the
    /// new bytes belong to it.
    fn head_completes(
        &mut self,
        is_request: bool,
        position: u64,
        end: usize,
        before: usize,
        moment: &Moment,
        out: &mut Output<'_>,
    ) -> usize {
        let taken = end.saturating_sub(before);
        let lane = self.lane(is_request);
        let State::Head(partial) = std::mem::replace(&mut lane.state, State::Between) else { return taken };
        let place = Place { head_end: position + taken as u64, first: partial.moment, last: *moment };
        let head = partial.bytes.get(..end).unwrap_or_default();
        let is_understood = if is_request {
            match head::request(head) {
                Parsed::Complete(request, _) => {
                    self.request_begins(request, &place, out);
                    true
                }
                Parsed::Partial | Parsed::Malformed => false,
            }
        } else {
            match head::response(head) {
                Parsed::Complete(response, _) => {
                    self.response_begins(response, &place, out);
                    true
                }
                Parsed::Partial | Parsed::Malformed => false,
            }
        };
        if !is_understood {
            self.odd(is_request, Discarded::Malformed, out);
        }
        taken
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

    /// The last byte that was seen is the response's last.
    fn response_ends_with_stream(&mut self, out: &mut Output<'_>) {
        let last = Moment {
            time_ns: self.response_lane.last_ns,
            actor: crate::model::socket::Actor::default(),
            minted: None,
            within: None,
        };
        self.response_ends(self.response_lane.end, &last, false, out);
    }

    /// What stands between two messages, or where a lane is sought, cannot be.
    fn odd(&mut self, is_request: bool, reason: Discarded, out: &mut Output<'_>) {
        self.lane(is_request).state = State::Seeking;
        self.oddities = self.oddities.saturating_add(1);
        if !is_request && !self.confirmed && self.is_aligned {
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

    fn hole(&mut self, is_request: bool, position: u64, length: u64, moment: &Moment, out: &mut Output<'_>) {
        let hole_end = position.saturating_add(length);
        match &mut self.lane(is_request).state {
            State::Seeking | State::ChunksLost | State::HeadCut(_) | State::UntilClose { .. } => {}
            State::Between => self.lose(is_request, out),
            State::Head(_) => {
                self.head_is_cut(is_request, hole_end, moment, Discarded::Gap, out);
            }
            State::Body { end } => {
                let end = *end;
                if end <= hole_end {
                    self.message_ends(is_request, end, moment, out);
                }
                if end < hole_end {
                    self.lose(is_request, out);
                }
            }
            State::Chunked(chunks) => {
                if !chunks.hole(position, length) {
                    self.lane(is_request).state = State::ChunksLost;
                    self.end_is_doubtful |= !is_request;
                }
            }
        }
    }

    /// What stands between two messages was not seen, or nothing is known of where anything stands.
    fn lose(&mut self, is_request: bool, out: &mut Output<'_>) {
        self.is_aligned = false;
        self.lane(is_request).state = State::Seeking;
        if self.pipelines && !self.queue.is_empty() {
            self.give_up(Discarded::Gap, out);
            return;
        }
        out.discarded(None, Discarded::Gap);
        if is_request {
            return;
        }
        // Responses were lost to all but the newest request, as far as one waits for the other.
        self.answer = None;
        while self.queue.len() > 1 {
            if let Some(exchange) = self.pop_front() {
                out.discarded(Some(exchange.id), Discarded::Gap);
            }
        }
        self.end_is_doubtful = !self.queue.is_empty();
    }

    /// There is a hole in a head, or it is longer than is kept.
    fn head_is_cut(
        &mut self,
        is_request: bool,
        position: u64,
        moment: &Moment,
        reason: Discarded,
        out: &mut Output<'_>,
    ) {
        let lane = self.lane(is_request);
        let State::Head(partial) = std::mem::replace(&mut lane.state, State::Seeking) else { return };
        if is_request {
            self.request_lane.state = State::HeadCut(partial);
        } else if let Some(response) = head::response_before_hole(&partial.bytes) {
            let place = Place { head_end: position, first: partial.moment, last: *moment };
            self.response_begins(response, &place, out);
        } else {
            self.odd(is_request, reason, out);
        }
    }

    /// The end of a request's head has been found whose middle was not seen.
    fn cut_request_begins(&mut self, head_end: u64, first: Moment, last: &Moment, out: &mut Output<'_>) {
        let State::HeadCut(partial) = std::mem::replace(&mut self.request_lane.state, State::Seeking) else {
            return;
        };
        match head::request_before_hole(&partial.bytes) {
            Some(request) => self.request_begins(request, &Place { head_end, first, last: *last }, out),
            None => out.discarded(None, Discarded::HeadTooLong),
        }
    }

    fn request_begins(&mut self, request: Request, place: &Place, out: &mut Output<'_>) {
        let is_over = matches!(self.response_lane.state, State::UntilClose { .. }) || self.end_is_doubtful;
        if is_over && !self.pipelines {
            self.end_doubtfully(out);
        }
        self.request_lane.state = match request.framing {
            Framing::Length(length) if length > 0 => {
                State::Body { end: place.head_end.saturating_add(length) }
            }
            Framing::Length(_) | Framing::Unsaid => State::Between,
            Framing::Chunked => State::Chunked(Chunks::begin()),
            Framing::UntilClose | Framing::Unknown => State::Seeking,
        };
        let overlaps = !self.queue.is_empty();
        let followed = self.queue.iter().filter(|slot| matches!(slot, Slot::Exchange(_))).count();
        if followed >= MAX_UNANSWERED {
            self.skip(request.is_head, out);
            return;
        }
        let id = out.next_exchange();
        self.queue.push_back(Slot::Exchange(Exchange {
            id,
            is_head: request.is_head,
            is_connect: request.is_connect,
            head_end: place.head_end,
            request_body_bytes: matches!(request.framing, Framing::Length(0) | Framing::Unsaid).then_some(0),
        }));
        out.began(Began {
            exchange: id,
            stream_id: 0,
            direction: self.requests,
            first_byte_ns: place.first.time_ns,
            actor: place.first.actor,
            minted: place.first.minted,
            within: place.first.within,
            overlaps,
            head: request.head,
        });
    }

    /// A request that is one too many: its response will come all the same.
    fn skip(&mut self, is_head: bool, out: &mut Output<'_>) {
        let is_full = self.queue.len() >= MAX_QUEUE;
        match self.queue.back_mut() {
            Some(Slot::Skipped { count, is_head: before }) if *before == is_head => *count += 1,
            _ if is_full => {
                self.give_up(Discarded::TooMany, out);
                return;
            }
            _ => self.queue.push_back(Slot::Skipped { count: 1, is_head }),
        }
        out.discarded(None, Discarded::TooMany);
    }

    fn response_begins(&mut self, response: Response, place: &Place, out: &mut Output<'_>) {
        self.confirmed = true;
        if self.queue.is_empty()
            && let State::HeadCut(partial) = &self.request_lane.state
        {
            // What is answered has ended.
            let (first, last) = (partial.moment, place.first);
            self.cut_request_begins(self.request_lane.end, first, &last, out);
        }
        if (100..200).contains(&response.status) && response.status != 101 {
            // It announces another one. Where it ends is not known if it was cut.
            self.response_lane.state =
                if response.framing == Framing::Unknown { State::Seeking } else { State::Between };
            return;
        }
        if self.answer.is_some() {
            // The one before it has ended, unseen.
            self.end_doubtfully(out);
        }
        self.end_is_doubtful = false;
        if self.queue.len() > 1 {
            self.pipelines = true;
            if !self.is_aligned {
                // Which response belongs to which request depends on how many went unseen.
                self.give_up(Discarded::Gap, out);
                return;
            }
        }
        let (is_head, is_connect, is_followed) = match self.queue.front() {
            None => {
                // Nobody knows what was asked, and so whether there is a body.
                self.response_lane.state = State::Seeking;
                return;
            }
            Some(Slot::Skipped { is_head, .. }) => (*is_head, false, false),
            Some(Slot::Exchange(exchange)) => (exchange.is_head, exchange.is_connect, true),
        };
        if is_followed {
            self.answer = Some(Answer {
                status: response.status,
                first_byte_ns: place.first.time_ns,
                body_begin: place.head_end,
            });
        }
        let is_success = (200..300).contains(&response.status);
        let over = match response.status {
            101 if response.names_http2 => Some(Over::Http2),
            101 => Some(Over::Upgraded),
            _ if is_connect && is_success => Some(Over::Tunnel),
            _ => None,
        };
        let has_no_body = is_head || over.is_some() || matches!(response.status, 204 | 304);
        match response.framing {
            _ if over.is_some() => {
                self.response_ends(place.head_end, &place.last, true, out);
                // Others that were asked for in the meantime will have no answer of this protocol.
                for slot in self.queue.drain(..) {
                    if let Slot::Exchange(exchange) = slot {
                        out.discarded(Some(exchange.id), Discarded::Malformed);
                    }
                }
                self.over = over;
            }
            Framing::Unknown => {
                self.response_lane.state = State::Seeking;
                self.response_lane.last_ns = place.last.time_ns;
                self.end_is_doubtful = true;
            }
            Framing::Length(0) => self.message_ends(false, place.head_end, &place.last, out),
            _ if has_no_body => self.message_ends(false, place.head_end, &place.last, out),
            Framing::Length(length) => {
                self.response_lane.state = State::Body { end: place.head_end.saturating_add(length) };
            }
            Framing::Chunked => self.response_lane.state = State::Chunked(Chunks::begin()),
            Framing::Unsaid | Framing::UntilClose => {
                self.response_lane.state = State::UntilClose { begin: place.head_end };
            }
        }
    }

    /// A message's last byte ends at `position`.
    fn message_ends(&mut self, is_request: bool, position: u64, moment: &Moment, out: &mut Output<'_>) {
        if !is_request {
            self.response_ends(position, moment, false, out);
            return;
        }
        let state = std::mem::replace(&mut self.request_lane.state, State::Between);
        if let Some(Slot::Exchange(exchange)) = self.queue.back_mut() {
            exchange.request_body_bytes = match state {
                State::Body { end } => Some(end.saturating_sub(exchange.head_end)),
                State::Chunked(chunks) => chunks.body_bytes,
                _ => None,
            };
        }
    }

    fn response_ends(&mut self, position: u64, moment: &Moment, is_upgrade: bool, out: &mut Output<'_>) {
        let state = std::mem::replace(&mut self.response_lane.state, State::Between);
        self.end_is_doubtful = false;
        let answer = self.answer.take();
        let Some(exchange) = self.pop_front() else { return };
        let Some(answer) = answer else { return };
        let response_body_bytes = match state {
            State::Body { end } => Some(end.saturating_sub(answer.body_begin)),
            State::UntilClose { begin } => Some(position.saturating_sub(begin)),
            State::Chunked(chunks) => chunks.body_bytes,
            State::ChunksLost => None,
            _ => Some(0),
        };
        let ended = Ended {
            exchange: exchange.id,
            response: Some(ResponseHead { status: Some(answer.status) }),
            first_response_byte_ns: Some(answer.first_byte_ns),
            last_byte_ns: moment.time_ns,
            end_is_certain: true,
            failure: None,
            request_body_bytes: exchange.request_body_bytes,
            response_body_bytes,
            grpc_status: Known::Absent,
            upgraded: is_upgrade,
        };
        out.ended_at(ended, opposite(self.requests), position);
    }

    /// The oldest request, if it is followed; it waits no longer.
    fn pop_front(&mut self) -> Option<Exchange> {
        if let Some(Slot::Skipped { count, .. }) = self.queue.front_mut()
            && *count > 1
        {
            *count -= 1;
            return None;
        }
        match self.queue.pop_front()? {
            Slot::Exchange(exchange) => Some(exchange),
            Slot::Skipped { .. } => None,
        }
    }

    /// The oldest exchange is over, and nobody saw how it ended.
    fn end_doubtfully(&mut self, out: &mut Output<'_>) {
        self.end_is_doubtful = false;
        if matches!(self.response_lane.state, State::UntilClose { .. }) {
            self.response_lane.state = State::Seeking;
        }
        let answer = self.answer.take();
        let Some(exchange) = self.pop_front() else { return };
        match answer {
            Some(answer) => out.ended(Ended {
                exchange: exchange.id,
                response: Some(ResponseHead { status: Some(answer.status) }),
                first_response_byte_ns: Some(answer.first_byte_ns),
                last_byte_ns: self.response_lane.last_ns,
                end_is_certain: false,
                failure: None,
                request_body_bytes: exchange.request_body_bytes,
                response_body_bytes: None,
                grpc_status: Known::Absent,
                upgraded: false,
            }),
            None => out.discarded(Some(exchange.id), Discarded::Gap),
        }
    }
}

fn likeness(is_request: bool, bytes: &[u8]) -> Likeness {
    if is_request { head::may_be_request(bytes) } else { head::may_be_response(bytes) }
}

#[cfg(test)]
mod tests;
