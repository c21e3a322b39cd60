//! The bytes of one lane: heads are read, bodies stepped over, and a place that was lost is found again.

use super::chunks::{Chunks, Progress};
use super::head::{self, Likeness, Parsed};
use super::{Http1, MAX_HEAD_BYTES, PartialHead, Place, State, likeness};
use crate::trace::exchange::Discarded;
use crate::trace::protocols::Output;
use crate::trace::stream::Moment;

impl Http1 {
    #[expect(clippy::too_many_arguments, reason = "a piece's parts")]
    pub(super) fn bytes(
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
                if starts.is_some() && !is_request && !self.confirmed && self.pairing.is_aligned {
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
        let place = |length| Place {
            begin: position,
            head_end: position + length as u64,
            first: *moment,
            last: *moment,
        };
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
                let partial =
                    Box::new(PartialHead { bytes: bytes.to_vec(), begin: position, moment: *moment });
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
        let begin = partial.begin;
        let place = Place { begin, head_end: position + taken as u64, first: partial.moment, last: *moment };
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

    /// Bytes that were moved at this moment, and that nobody has seen.
    pub(super) fn hole(
        &mut self,
        is_request: bool,
        position: u64,
        length: u64,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        let hole_end = position.saturating_add(length);
        match &mut self.lane(is_request).state {
            State::Seeking | State::ChunksLost | State::HeadCut(_) | State::UntilClose { .. } => {}
            State::Between => self.lose(is_request, moment.time_ns, out),
            State::Head(_) => {
                self.head_is_cut(is_request, hole_end, moment, Discarded::Gap, out);
            }
            State::Body { end } => {
                let end = *end;
                if end <= hole_end {
                    self.message_ends(is_request, end, moment, out);
                }
                if end < hole_end {
                    self.lose(is_request, moment.time_ns, out);
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

    /// Bytes that were moved before this moment, nobody knows when, and that nobody has told of.
    pub(super) fn gap(
        &mut self,
        is_request: bool,
        position: u64,
        length: u64,
        now_ns: u64,
        out: &mut Output<'_>,
    ) {
        let gap_end = position.saturating_add(length);
        let last = Moment { time_ns: self.lane(is_request).last_ns, ..Moment::default() };
        match &mut self.lane(is_request).state {
            // Nothing else comes on this connection.
            State::UntilClose { .. } => {}
            State::Body { end } => {
                let end = *end;
                if end <= gap_end {
                    if let Some(answer) = self.answer.as_mut().filter(|_| !is_request) {
                        answer.has_gap = true;
                    }
                    self.message_ends(is_request, end, &last, out);
                }
                if end < gap_end {
                    self.lose(is_request, now_ns, out);
                }
            }
            State::Chunked(chunks) => {
                if !chunks.hole(position, length) {
                    self.chunks_are_lost(is_request, now_ns, out);
                }
            }
            State::ChunksLost => self.chunks_are_lost(is_request, now_ns, out),
            State::Head(partial) if !is_request => {
                // What it says is known, where it ends is not.
                let nothing = PartialHead { bytes: Vec::new(), begin: position, moment: last };
                let partial = std::mem::replace(&mut **partial, nothing);
                let begin = partial.begin;
                if let Some(response) = head::response_before_hole(&partial.bytes) {
                    let place = Place { begin, head_end: position, first: partial.moment, last };
                    self.response_begins(response, &place, out);
                }
                if self.over.is_none() {
                    self.lose(is_request, now_ns, out);
                }
            }
            State::Seeking | State::Between | State::Head(_) | State::HeadCut(_) => {
                self.lose(is_request, now_ns, out);
            }
        }
    }

    /// The body may have ended, and others have come and gone; or it may go on.
    fn chunks_are_lost(&mut self, is_request: bool, now_ns: u64, out: &mut Output<'_>) {
        if is_request {
            self.lose(is_request, now_ns, out);
            return;
        }
        self.response_lane.state = State::ChunksLost;
        if let Some(answer) = &mut self.answer {
            answer.has_gap = true;
        }
        self.lose_count(is_request, now_ns, out);
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
            let begin = partial.begin;
            let place = Place { begin, head_end: position, first: partial.moment, last: *moment };
            self.response_begins(response, &place, out);
        } else {
            self.odd(is_request, reason, out);
        }
    }

    /// The end of a request's head has been found whose middle was not seen.
    pub(super) fn cut_request_begins(
        &mut self,
        head_end: u64,
        first: Moment,
        last: &Moment,
        out: &mut Output<'_>,
    ) {
        let State::HeadCut(partial) = std::mem::replace(&mut self.request_lane.state, State::Seeking) else {
            return;
        };
        match head::request_before_hole(&partial.bytes) {
            Some(request) => {
                let place = Place { begin: partial.begin, head_end, first, last: *last };
                self.request_begins(request, &place, out);
            }
            None => out.discarded(None, Discarded::HeadTooLong),
        }
    }
}
