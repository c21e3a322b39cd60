//! The streams that are open: what header blocks and ends mean for them, and what becomes of those in doubt.

use super::header_block::Fields;
use super::lanes::{Block, Place};
use super::{Http2, MAX_STREAMS};
use crate::trace::exchange::{Began, Discarded, Ended, ExchangeId, Failure, FirstByte, Known, ResponseHead};
use crate::trace::protocols::{Output, opposite};
use crate::trace::stream::Moment;

/// For how long an exchange is kept without a sign whose end may have been lost: the end of its response,
const DOUBT_NS: u64 = 1_000_000_000;
/// all of that,
const DOUBT_UNANSWERED_NS: u64 = 10_000_000_000;
/// or that it was taken back: nothing says that it was not, and it may last for any time.
const DOUBT_CANCELLED_NS: u64 = 60_000_000_000;

/// When a message's last byte was moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastByte {
    pub(super) time_ns: u64,
    /// Else it is the last one that was seen before it.
    pub(super) is_certain: bool,
}

impl LastByte {
    pub(super) fn seen(moment: &Moment) -> Self {
        Self { time_ns: moment.time_ns, is_certain: true }
    }
}

/// The end of a response may have been lost.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    since_ns: u64,
    /// What is its last byte, then.
    last_byte_ns: u64,
}

/// An exchange that is open.
#[derive(Debug)]
pub(super) struct Open {
    id: ExchangeId,
    /// Where its request's head ends.
    head_end: u64,
    /// Bytes of the request's body so far; `None` where something was lost.
    request_body_bytes: Option<u64>,
    request_is_complete: bool,
    response: Option<ResponseHead>,
    first_response_byte_ns: Option<u64>,
    response_body_bytes: Option<u64>,
    grpc_status: Known,
    /// When something was last seen of it.
    last_ns: u64,
    doubt: Option<Doubt>,
    /// Since when its being taken back may have been lost.
    may_be_cancelled_since_ns: Option<u64>,
}

impl Http2 {
    pub(super) fn request_block(
        &mut self,
        block: &Block,
        mut fields: Fields,
        position: u64,
        moment: &mut Moment,
        out: &mut Output<'_>,
    ) {
        let stream = block.stream;
        if self.streams.contains_key(&stream) {
            // Trailers.
            if block.ends_stream {
                self.stream_ends(true, stream, position, LastByte::seen(moment), out);
            }
            return;
        }
        let is_head = fields.are_of_request();
        if stream <= self.highest && !is_head {
            return; // trailers of what is over, or is not followed
        }
        if stream.is_multiple_of(2) || stream <= self.highest {
            out.discarded(None, Discarded::Malformed);
            return;
        }
        if !is_head {
            // Its head was lost, or is this, and what stands in it is not known.
            out.discarded(None, Discarded::Gap);
            return;
        }
        self.highest = stream;
        if self.streams.len() >= MAX_STREAMS {
            out.discarded(None, Discarded::TooMany);
            return;
        }
        let id = out.next_exchange();
        let overlaps = !self.streams.is_empty();
        let since_ns = moment.time_ns;
        // Its answer may go by before the responses' frames are found again.
        let is_sought = matches!(self.response_lane.place, Place::Seeking) && self.response_lane.last_ns > 0;
        let doubt = is_sought.then_some(Doubt { since_ns, last_byte_ns: since_ns });
        self.streams.insert(
            stream,
            Open {
                id,
                head_end: position,
                request_body_bytes: Some(0),
                request_is_complete: block.ends_stream,
                response: None,
                first_response_byte_ns: None,
                response_body_bytes: Some(0),
                grpc_status: Known::Absent,
                last_ns: since_ns,
                doubt,
                may_be_cancelled_since_ns: None,
            },
        );
        if is_sought {
            self.note_doubts();
        }
        let minted = block.first.minted.or(moment.minted);
        moment.minted = None;
        out.began(Began {
            exchange: id,
            stream_id: stream,
            first_byte: FirstByte::Unknown,
            direction: self.requests,
            first_byte_ns: block.first.time_ns,
            actor: block.first.actor,
            minted,
            within: block.first.within,
            by_event_loop: block.first.by_event_loop,
            from_pool: block.first.from_pool,
            overlaps,
            head: fields.request_head(),
        });
    }

    pub(super) fn response_block(
        &mut self,
        block: &Block,
        fields: &Fields,
        position: u64,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        let Some(open) = self.streams.get_mut(&block.stream) else { return };
        open.is_seen(moment);
        let status = fields.status.value().and_then(|status| status.parse().ok());
        if !block.ends_stream && status.is_some_and(|status| (100..200).contains(&status)) {
            return; // it announces another one
        }
        if open.response.is_none() {
            open.response = Some(ResponseHead { status });
            // Without a status these are the trailers of a response whose head was lost.
            if status.is_some() || fields.pseudo_is_unknown {
                open.first_response_byte_ns = Some(block.first.time_ns);
            }
            self.confirmed |= status.is_some();
        }
        match &fields.grpc_status {
            Known::Absent if block.ends_stream && fields.regular_is_unknown => {
                open.grpc_status = Known::Unknown;
            }
            Known::Absent => {}
            status => open.grpc_status = status.clone(),
        }
        if block.ends_stream {
            self.stream_ends(false, block.stream, position, LastByte::seen(moment), out);
        }
    }

    pub(super) fn count_body(&mut self, is_request: bool, stream: u32, bytes: u64, moment: &Moment) {
        let Some(open) = self.streams.get_mut(&stream) else { return };
        let body = if is_request {
            open.may_be_cancelled_since_ns = None;
            &mut open.request_body_bytes
        } else {
            open.is_seen(moment);
            &mut open.response_body_bytes
        };
        *body = body.map(|before| before.saturating_add(bytes));
    }

    /// Whether a stream has ended, or ends later, is not known.
    pub(super) fn doubt(&mut self, is_request: bool, stream: u32, moment: &Moment) {
        if let Some(open) = self.streams.get_mut(&stream)
            && !is_request
        {
            open.doubt = Some(Doubt { since_ns: moment.time_ns, last_byte_ns: moment.time_ns });
            self.note_doubts();
        }
    }

    /// Of all streams it is not known, since `now_ns`. `moved_ns`: when what nobody has seen was moved, if that is
    /// known.
    pub(super) fn doubt_all(&mut self, is_request: bool, now_ns: u64, moved_ns: Option<u64>) {
        for open in self.streams.values_mut() {
            if is_request {
                open.request_body_bytes = open.request_body_bytes.filter(|_| open.request_is_complete);
                open.may_be_cancelled_since_ns = Some(now_ns);
            } else {
                open.response_body_bytes = None;
                let last_byte_ns = moved_ns.unwrap_or(open.last_ns);
                open.doubt = Some(Doubt { since_ns: now_ns, last_byte_ns });
            }
        }
        self.note_doubts();
    }

    pub(super) fn note_doubts(&mut self) {
        self.doubts_at = self.streams.values().filter_map(Open::doubts_at).min();
    }

    /// Gives those up that have been in doubt for too long.
    pub(super) fn settle_doubts(&mut self, now_ns: u64, out: &mut Output<'_>) {
        for (stream, open) in std::mem::take(&mut self.streams) {
            if open.doubts_at().is_some_and(|at| at <= now_ns) {
                open.end_doubtfully(out);
            } else {
                self.streams.insert(stream, open);
            }
        }
        self.note_doubts();
    }

    /// Nothing more comes in this lane of a stream, whose last byte ends at `position`.
    pub(super) fn stream_ends(
        &mut self,
        is_request: bool,
        stream: u32,
        position: u64,
        last: LastByte,
        out: &mut Output<'_>,
    ) {
        if is_request {
            if let Some(open) = self.streams.get_mut(&stream) {
                open.request_is_complete = true;
            }
            return;
        }
        let Some(open) = self.streams.remove(&stream) else { return };
        let ended = Ended {
            exchange: open.id,
            response: Some(open.response.unwrap_or(ResponseHead { status: None })),
            first_response_byte_ns: open.first_response_byte_ns,
            last_byte_ns: last.time_ns,
            end_is_certain: last.is_certain,
            failure: None,
            request_body_bytes: open.request_body_bytes.filter(|_| open.request_is_complete),
            response_body_bytes: open.response_body_bytes,
            grpc_status: open.grpc_status,
            upgraded: false,
        };
        out.ended_at(ended, opposite(self.requests), position);
    }
}

impl Open {
    /// When it is over, if nothing more comes of it.
    fn doubts_at(&self) -> Option<u64> {
        let patience = if self.response.is_some() { DOUBT_NS } else { DOUBT_UNANSWERED_NS };
        let is_over_at = self.doubt.map(|doubt| doubt.since_ns.saturating_add(patience));
        let cancelled_at = self
            .may_be_cancelled_since_ns
            .map(|since_ns| since_ns.max(self.last_ns).saturating_add(DOUBT_CANCELLED_NS));
        is_over_at.into_iter().chain(cancelled_at).min()
    }

    /// Something of its response was seen.
    fn is_seen(&mut self, moment: &Moment) {
        self.last_ns = moment.time_ns;
        self.doubt = None;
    }

    /// Its end was lost, or all of its response.
    fn end_doubtfully(self, out: &mut Output<'_>) {
        let last_byte_ns = self.doubt.map_or(self.last_ns, |doubt| doubt.last_byte_ns);
        match self.response {
            Some(response) => out.ended(Ended {
                exchange: self.id,
                response: Some(response),
                first_response_byte_ns: self.first_response_byte_ns,
                last_byte_ns,
                end_is_certain: false,
                failure: None,
                request_body_bytes: self.request_body_bytes.filter(|_| self.request_is_complete),
                response_body_bytes: None,
                grpc_status: Known::Unknown,
                upgraded: false,
            }),
            None => self.discard(Discarded::Gap, out),
        }
    }

    pub(super) fn discard(self, reason: Discarded, out: &mut Output<'_>) {
        out.discarded(Some(self.id), reason);
    }

    /// Its connection is no more. `written`: how much was really written to it; `None` if this end answers.
    pub(super) fn close(self, failure: Failure, time_ns: u64, written: Option<u64>, out: &mut Output<'_>) {
        if self.doubt.is_some() {
            self.end_doubtfully(out);
        } else if self.response.is_none() && written.is_some_and(|written| self.head_end > written) {
            self.discard(Discarded::NotSent, out);
        } else {
            self.fail(failure, time_ns, out);
        }
    }

    /// It has ended without a complete response.
    pub(super) fn fail(self, failure: Failure, time_ns: u64, out: &mut Output<'_>) {
        out.ended(Ended {
            exchange: self.id,
            response: self.response,
            first_response_byte_ns: self.first_response_byte_ns,
            last_byte_ns: time_ns,
            end_is_certain: true,
            failure: Some(failure),
            request_body_bytes: self.request_body_bytes.filter(|_| self.request_is_complete),
            response_body_bytes: self.response_body_bytes.filter(|_| self.response.is_some()),
            grpc_status: self.grpc_status,
            upgraded: false,
        });
    }
}
