//! Which response answers which request: the queue of those that wait, and what makes pairing uncertain.
//!
//! Responses come in the order of their requests, so that pairing takes nothing but counting. After a loss
//! the count is wrong, and nothing in the bytes sets it right. Then only who sends requests can help: one
//! that waits for each response before it sends the next request has none outstanding when it sends one.
//! That it does so is believed once it has done it for a while; or it has been silent for a while. Of a connection
//! that was seen to send without waiting (pipelining, RFC 9112 section 9.3.2) nothing more is to be had.

use super::chunks::Chunks;
use super::head::{Framing, Request, Response};
use super::{Http1, Over, Place, QUIET_NS, State};
use crate::trace::exchange::{Began, Discarded, Ended, ExchangeId, Known, ResponseHead};
use crate::trace::protocols::{Output, opposite};
use crate::trace::stream::Moment;

/// Unanswered requests that are followed on one connection.
const MAX_UNANSWERED: usize = 64;
/// Entries of the queue, with those that stand for requests that are not followed.
const MAX_QUEUE: usize = 256;
/// Requests and responses that have to take turns for so many rounds before the other end is believed to wait
/// for each response.
const ROUNDS: u32 = 4;

#[derive(Debug)]
pub(super) enum Slot {
    Exchange(Exchange),
    /// Requests that are not followed.
    Skipped {
        count: u64,
        is_head: bool,
    },
}

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    is_head: bool,
    is_connect: bool,
    /// Where its head ends.
    pub(super) head_end: u64,
    /// Length of the request's body, once that is complete.
    pub(super) request_body_bytes: Option<u64>,
}

/// What the response to the oldest request says so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) first_byte_ns: u64,
    /// Where its body begins.
    pub(super) body_begin: u64,
    /// Something was lost since, which may have been its end: what seems to end it may end another one.
    pub(super) has_gap: bool,
}

/// What is known of how requests and responses take turns.
#[derive(Debug)]
pub(super) struct Pairing {
    /// Every byte from the first on has been accounted for.
    pub(super) is_aligned: bool,
    /// Not so, and one response may have gone by after the first request that was seen.
    may_have_missed: bool,
    /// A response came while two requests waited, or two requests came in one call. That a request comes while
    /// another waits is not enough: a response may have been lost.
    pipelines: bool,
    /// Each request has waited for the response to the one before it, for long enough to be a habit.
    waits: bool,
    rounds: u32,
    last_was_request: bool,
    /// When the latest request began to be moved.
    last_request_ns: u64,
    /// Since when it is not known how many requests wait for their response.
    uncertain_since_ns: Option<u64>,
    /// The latest request is the last one in the queue.
    latest_is_followed: bool,
}

impl Pairing {
    pub(super) fn new(is_aligned: bool, may_have_missed: bool) -> Self {
        Self {
            is_aligned,
            may_have_missed,
            pipelines: false,
            waits: false,
            rounds: 0,
            last_was_request: false,
            last_request_ns: 0,
            uncertain_since_ns: None,
            latest_is_followed: false,
        }
    }

    fn request(&mut self, time_ns: u64) {
        self.pipelines |= self.last_request_ns == time_ns;
        self.last_request_ns = time_ns;
        self.rounds = if self.last_was_request { 0 } else { self.rounds.saturating_add(1) };
        self.last_was_request = true;
        self.waits |= self.rounds > ROUNDS;
    }

    fn response(&mut self) {
        if !self.last_was_request {
            self.rounds = 0;
        }
        self.last_was_request = false;
    }
}

impl Http1 {
    /// What stands between two messages was not seen, or nothing is known of where anything stands.
    pub(super) fn lose(&mut self, is_request: bool, time_ns: u64, out: &mut Output<'_>) {
        self.lane(is_request).state = State::Seeking;
        self.lose_count(is_request, time_ns, out);
        if !is_request && self.answer.is_some() {
            self.end_doubtfully(out);
        }
    }

    /// How many messages were lost of a lane is not known. If of responses, so may have been the requests that they
    /// answered: what comes next may answer any of those, or one of those that wait.
    pub(super) fn lose_count(&mut self, is_request: bool, time_ns: u64, out: &mut Output<'_>) {
        self.pairing.is_aligned = false;
        self.pairing.uncertain_since_ns = Some(time_ns);
        if self.pairing.pipelines {
            self.give_up(Discarded::Gap, out);
            return;
        }
        out.discarded(None, Discarded::Gap);
        if is_request {
            return;
        }
        let answered = usize::from(self.answer.is_some());
        for slot in self.queue.split_off(answered.min(self.queue.len())) {
            if let Slot::Exchange(exchange) = slot {
                out.discarded(Some(exchange.id), Discarded::Gap);
            }
        }
        self.end_is_doubtful = self.answer.is_some();
        self.pairing.latest_is_followed &= !self.queue.is_empty();
    }

    /// Whether the response to a request that begins now will be known for its own.
    fn can_be_paired(&mut self, time_ns: u64) -> bool {
        let Some(since_ns) = self.pairing.uncertain_since_ns else { return true };
        let last_ns = since_ns.max(self.request_lane.last_ns).max(self.response_lane.last_ns);
        if self.pairing.waits || time_ns >= last_ns.saturating_add(QUIET_NS) {
            self.pairing.uncertain_since_ns = None;
            return true;
        }
        false
    }

    pub(super) fn request_begins(&mut self, request: Request, place: &Place, out: &mut Output<'_>) {
        let is_over = matches!(self.response_lane.state, State::UntilClose { .. }) || self.end_is_doubtful;
        if is_over && !self.pairing.pipelines {
            self.end_doubtfully(out);
        }
        let time_ns = place.first.time_ns;
        self.pairing.request(time_ns);
        self.request_lane.state = match request.framing {
            Framing::Length(length) if length > 0 => {
                State::Body { end: place.head_end.saturating_add(length) }
            }
            Framing::Length(_) | Framing::Unsaid => State::Between,
            Framing::Chunked => State::Chunked(Chunks::begin()),
            Framing::UntilClose | Framing::Unknown => State::Seeking,
        };
        self.pairing.latest_is_followed = self.can_be_paired(time_ns);
        if !self.pairing.latest_is_followed {
            out.discarded(None, Discarded::Gap);
            return;
        }
        let overlaps = !self.queue.is_empty();
        let followed = self.queue.iter().filter(|slot| matches!(slot, Slot::Exchange(_))).count();
        if followed >= MAX_UNANSWERED {
            self.pairing.latest_is_followed = false;
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
            first_byte: self.first_byte(place.begin, &place.first),
            direction: self.requests,
            first_byte_ns: place.first.time_ns,
            actor: place.first.actor,
            minted: place.first.minted,
            within: place.first.within,
            by_event_loop: place.first.by_event_loop,
            from_pool: place.first.from_pool,
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

    pub(super) fn response_begins(&mut self, response: Response, place: &Place, out: &mut Output<'_>) {
        if self.queue.is_empty()
            && let State::HeadCut(partial) = &self.request_lane.state
        {
            // What is answered has ended.
            let (first, last) = (partial.moment, place.first);
            self.cut_request_begins(self.request_lane.end, first, &last, out);
        }
        self.confirmed |= !self.queue.is_empty();
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
        self.pairing.response();
        if self.queue.len() > 1 && !self.pairing.is_aligned {
            // Which response belongs to which request depends on how many went unseen.
            if self.pairing.pipelines || !std::mem::take(&mut self.pairing.may_have_missed) {
                self.give_up(Discarded::Gap, out);
                return;
            }
            // It went by in what began before anybody listened. When they have taken turns for a while, they do.
            self.response_lane.state = State::Seeking;
            self.lose_count(false, place.first.time_ns, out);
            return;
        }
        self.pairing.pipelines |= self.queue.len() > 1;
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
                has_gap: false,
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
    pub(super) fn message_ends(
        &mut self,
        is_request: bool,
        position: u64,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        if !is_request {
            self.response_ends(position, moment, false, out);
            return;
        }
        let is_followed = std::mem::take(&mut self.pairing.latest_is_followed);
        let state = std::mem::replace(&mut self.request_lane.state, State::Between);
        if is_followed && let Some(Slot::Exchange(exchange)) = self.queue.back_mut() {
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
            end_is_certain: !answer.has_gap,
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
    pub(super) fn end_doubtfully(&mut self, out: &mut Output<'_>) {
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

    /// The last byte that was seen is the response's last.
    pub(super) fn response_ends_with_stream(&mut self, out: &mut Output<'_>) {
        let last = Moment { time_ns: self.response_lane.last_ns, ..Moment::default() };
        self.response_ends(self.response_lane.end, &last, false, out);
    }
}
