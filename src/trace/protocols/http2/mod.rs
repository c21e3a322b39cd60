//! HTTP/2 (RFC 9113), and gRPC on top of it: frames of two lanes, header blocks, and the streams that are open.
//!
//! Every stream names itself, so that requests and responses are paired whatever was lost. What a loss
//! costs is the dynamic tables (`hpack.rs`): fields that refer to them are unknown until what they refer to has
//! been sent again. A lane that lost its place finds it where a fragment begins with frames that are
//! possible. An exchange whose end may have been lost, and of which nothing comes for a while, has ended where the
//! loss was, and not for certain; one whose response may have been lost is given up.
//!
//! Bodies are stepped over by position. Pushed responses are not followed, but their blocks are read, since they
//! change the tables. Settings are not needed: a table's size changes by what header blocks say.

pub(in crate::trace) mod frame;
mod hpack;
mod huffman;

use std::collections::BTreeMap;

use self::frame::{Frame, PREFACE};
use self::hpack::Decoder;
use super::fields::{FieldName, RequestFields};
use super::{Output, failure, opposite};
use crate::model::socket::{Direction, Ending};
use crate::trace::exchange::{
    Began, Discarded, Ended, ExchangeId, Failure, Known, ProtocolVersion, RequestHead, ResponseHead,
};
use crate::trace::stream::{Moment, Piece};

/// Exchanges that are followed at a time.
const MAX_STREAMS: usize = 1024;
/// Longest header block, and payload of a frame that is looked at.
const MAX_BLOCK_BYTES: usize = 65536;
/// For how long an exchange is kept without a sign whose end may have been lost: the end of its response,
const DOUBT_NS: u64 = 1_000_000_000;
/// or all of that.
const DOUBT_UNANSWERED_NS: u64 = 10_000_000_000;
/// Frames in a row that cannot be, after which a connection is given up.
const MAX_ODDITIES: u8 = 16;

/// A connection that speaks HTTP/2.
#[derive(Debug)]
pub(in crate::trace) struct Http2 {
    /// Which way requests go.
    requests: Direction,
    request_lane: Lane,
    response_lane: Lane,
    streams: BTreeMap<u32, Open>,
    /// The highest stream that a request has had.
    highest: u32,
    confirmed: bool,
    oddities: u8,
    is_over: bool,
    /// When to look at what is in doubt.
    doubts_at: Option<u64>,
}

#[derive(Debug)]
struct Lane {
    place: Place,
    hpack: Decoder,
    /// A header block that is not complete.
    block: Option<Block>,
}

/// Where in its frames a lane is.
#[derive(Debug)]
enum Place {
    /// Anywhere: a fragment that begins with frames will tell.
    Seeking,
    /// At the first byte, if it is that.
    Beginning,
    /// Within the client's preface, of which so many bytes were seen.
    Preface(usize),
    /// Within a frame's head.
    Head { seen: Vec<u8>, first: Option<Moment> },
    /// Within a payload that is looked at.
    Payload { frame: Frame, seen: Vec<u8>, first: Moment },
    /// Before the byte of a payload that says how much of it is padding.
    Padding { end: u64, frame: Frame },
    /// Within one that is not, which ends at this position.
    Skip { end: u64, ends_stream: Option<u32> },
}

#[derive(Debug)]
struct Block {
    stream: u32,
    ends_stream: bool,
    is_push: bool,
    /// It was not kept.
    is_too_long: bool,
    first: Moment,
    bytes: Vec<u8>,
}

/// An exchange that is open.
#[derive(Debug)]
struct Open {
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
    doubtful_since: Option<u64>,
}

/// What a header block says, of either kind.
#[derive(Debug, Default)]
struct Fields {
    method: Known,
    path: Known,
    scheme: Known,
    status: Known,
    grpc_status: Known,
    others: RequestFields,
    /// A pseudo-header may be among what is not known.
    pseudo_is_unknown: bool,
    /// A regular field may be.
    regular_is_unknown: bool,
    /// A regular field was seen, behind which no pseudo-header comes.
    is_regular: bool,
}

impl Http2 {
    /// A connection whose requests go that way, seen from the client's preface on.
    pub(in crate::trace) fn from_preface(requests: Direction) -> Self {
        let hpack = Decoder::at_beginning;
        Self {
            request_lane: Lane { place: Place::Preface(0), hpack: hpack(), block: None },
            response_lane: Lane { place: Place::Beginning, hpack: hpack(), block: None },
            ..Self::in_the_middle(requests)
        }
    }

    /// A connection whose requests go that way.
    pub(in crate::trace) fn in_the_middle(requests: Direction) -> Self {
        let hpack = Decoder::in_the_middle;
        Self {
            requests,
            request_lane: Lane { place: Place::Seeking, hpack: hpack(), block: None },
            response_lane: Lane { place: Place::Seeking, hpack: hpack(), block: None },
            streams: BTreeMap::new(),
            highest: 0,
            confirmed: false,
            oddities: 0,
            is_over: false,
            doubts_at: None,
        }
    }

    pub(in crate::trace) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether there will be nothing more.
    pub(in crate::trace) fn is_over(&self) -> bool {
        self.is_over
    }

    /// When [`Self::settle`] has something to say.
    pub(in crate::trace) fn settles_at(&self) -> Option<u64> {
        self.doubts_at
    }

    /// Time went by.
    pub(in crate::trace) fn settle(&mut self, now_ns: u64, out: &mut Output<'_>) {
        if self.doubts_at.is_none_or(|at| at > now_ns) {
            return;
        }
        for (stream, open) in std::mem::take(&mut self.streams) {
            if open.doubts_at().is_some_and(|at| at <= now_ns) {
                open.end_doubtfully(out);
            } else {
                self.streams.insert(stream, open);
            }
        }
        self.doubts_at = self.streams.values().filter_map(Open::doubts_at).min();
    }

    /// Takes a piece of a stream.
    pub(in crate::trace) fn take(
        &mut self,
        direction: Direction,
        mut position: u64,
        piece: Piece<'_>,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        if self.is_over {
            return;
        }
        let is_request = direction == self.requests;
        match piece {
            Piece::Bytes { bytes, starts, .. } => {
                let mut moment = *moment;
                let mut rest = bytes;
                let mut starts = starts;
                while !rest.is_empty() && !self.is_over {
                    let consumed = self.step(is_request, position, rest, starts, &mut moment, out);
                    if consumed > 0 {
                        starts = None;
                    }
                    position += consumed as u64;
                    rest = rest.get(consumed..).unwrap_or_default();
                }
            }
            Piece::Hole(length) => self.hole(is_request, position, length, moment, out),
            Piece::Lost => self.lose(is_request, moment.time_ns, Discarded::Gap, out),
        }
    }

    #[cfg(test)]
    pub(in crate::trace) fn footprint(&self) -> usize {
        let lane = |lane: &Lane| {
            let place = match &lane.place {
                Place::Head { seen, .. } | Place::Payload { seen, .. } => seen.capacity(),
                _ => 0,
            };
            place + lane.block.as_ref().map_or(0, |block| block.bytes.capacity()) + lane.hpack.footprint()
        };
        lane(&self.request_lane) + lane(&self.response_lane) + self.streams.len() * size_of::<(u32, Open)>()
    }

    fn lane(&mut self, is_request: bool) -> &mut Lane {
        if is_request { &mut self.request_lane } else { &mut self.response_lane }
    }

    /// Takes some of the bytes; how many.
    fn step(
        &mut self,
        is_request: bool,
        position: u64,
        bytes: &[u8],
        starts: Option<u64>,
        moment: &mut Moment,
        out: &mut Output<'_>,
    ) -> usize {
        let all = bytes.len();
        let lane = self.lane(is_request);
        match &mut lane.place {
            Place::Seeking => {
                if starts.is_some_and(|length| frame::may_begin_with_frame(bytes, length)) {
                    lane.place = Place::head();
                    return 0;
                }
                all
            }
            Place::Beginning => {
                // Another protocol may have been spoken before, and this one begun unseen.
                lane.place = if position == 0 { Place::head() } else { Place::Seeking };
                if position != 0 {
                    lane.hpack.forget();
                }
                0
            }
            Place::Preface(seen) => {
                let here = (PREFACE.len() - *seen).min(all);
                if bytes.get(..here) != PREFACE.get(*seen..*seen + here) {
                    self.lose(is_request, moment.time_ns, Discarded::Malformed, out);
                    return all;
                }
                *seen += here;
                if *seen == PREFACE.len() {
                    lane.place = Place::head();
                }
                here
            }
            Place::Head { seen, first } => {
                let first = *first.get_or_insert(*moment);
                let here = (frame::HEAD_BYTES - seen.len()).min(all);
                let new = bytes.get(..here).unwrap_or_default();
                let frame = if seen.is_empty() {
                    Frame::at_beginning_of(new)
                } else {
                    seen.extend_from_slice(new);
                    Frame::at_beginning_of(seen)
                };
                match frame {
                    None if seen.is_empty() => *seen = new.to_vec(),
                    None => {}
                    Some(frame) => {
                        self.frame_begins(is_request, position + here as u64, frame, first, moment, out);
                    }
                }
                here
            }
            Place::Payload { frame, seen, first } => {
                let (frame, first) = (*frame, *first);
                let here = (frame.length as usize).saturating_sub(seen.len()).min(all);
                let new = bytes.get(..here).unwrap_or_default();
                let is_whole = seen.len() + here == frame.length as usize;
                if !is_whole {
                    seen.extend_from_slice(new);
                    return here;
                }
                let mut payload = std::mem::take(seen);
                lane.place = Place::head();
                let end = position + here as u64;
                if payload.is_empty() {
                    self.frame_ends(is_request, end, frame, new, first, moment, out);
                } else {
                    payload.extend_from_slice(new);
                    self.frame_ends(is_request, end, frame, &payload, first, moment, out);
                }
                here
            }
            Place::Padding { end, frame } => {
                let (end, frame) = (*end, *frame);
                let padding = u64::from(bytes.first().copied().unwrap_or_default()) + 1;
                let Some(body) = u64::from(frame.length).checked_sub(padding) else {
                    self.lose(is_request, moment.time_ns, Discarded::Malformed, out);
                    return all;
                };
                self.count_body(is_request, frame.stream, body);
                let ends_stream = (frame.flags & frame::END_STREAM != 0).then_some(frame.stream);
                if frame.length == 1 {
                    self.skipped(is_request, end, ends_stream, moment, out);
                } else {
                    self.lane(is_request).place = Place::Skip { end, ends_stream };
                }
                1
            }
            Place::Skip { end, ends_stream } => {
                let (end, ends_stream) = (*end, *ends_stream);
                let left = end.saturating_sub(position);
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(all);
                if here as u64 == left {
                    self.skipped(is_request, end, ends_stream, moment, out);
                }
                here
            }
        }
    }

    fn skipped(
        &mut self,
        is_request: bool,
        position: u64,
        ends_stream: Option<u32>,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        self.lane(is_request).place = Place::head();
        if let Some(stream) = ends_stream {
            self.stream_ends(is_request, stream, position, moment, out);
        }
    }

    fn hole(&mut self, is_request: bool, position: u64, length: u64, moment: &Moment, out: &mut Output<'_>) {
        let hole_end = position.saturating_add(length);
        match &self.lane(is_request).place {
            Place::Seeking => {}
            Place::Skip { end, ends_stream } => {
                let (end, ends_stream) = (*end, *ends_stream);
                if end <= hole_end {
                    self.skipped(is_request, end, ends_stream, moment, out);
                }
                if end < hole_end {
                    self.lose(is_request, moment.time_ns, Discarded::Gap, out);
                }
            }
            Place::Beginning
            | Place::Preface(_)
            | Place::Head { .. }
            | Place::Padding { .. }
            | Place::Payload { .. } => {
                self.lose(is_request, moment.time_ns, Discarded::Gap, out);
            }
        }
    }

    /// A lane has lost its place, and with it what its table holds.
    fn lose(&mut self, is_request: bool, time_ns: u64, reason: Discarded, out: &mut Output<'_>) {
        let lane = self.lane(is_request);
        lane.place = Place::Seeking;
        lane.block = None;
        lane.hpack.forget();
        out.discarded(None, reason);
        for open in self.streams.values_mut() {
            if is_request {
                open.request_body_bytes = open.request_body_bytes.filter(|_| open.request_is_complete);
            } else {
                open.response_body_bytes = None;
                open.doubtful_since = Some(time_ns);
            }
        }
        self.doubts_at = self.streams.values().filter_map(Open::doubts_at).min();
        if reason == Discarded::Malformed {
            self.oddities = self.oddities.saturating_add(1);
            if self.oddities >= MAX_ODDITIES || !self.confirmed && !is_request && !self.streams.is_empty() {
                let reason = if self.confirmed { Discarded::Malformed } else { Discarded::NotConfirmed };
                for (_, open) in std::mem::take(&mut self.streams) {
                    out.discarded(Some(open.id), reason);
                }
                self.is_over = true;
            }
        }
    }

    /// A frame's head ends at `position`.
    fn frame_begins(
        &mut self,
        is_request: bool,
        position: u64,
        frame: Frame,
        first: Moment,
        moment: &mut Moment,
        out: &mut Output<'_>,
    ) {
        let lane = self.lane(is_request);
        let continues = lane.block.as_ref().map(|block| block.stream);
        let is_in_order = match frame.kind {
            frame::CONTINUATION => continues == Some(frame.stream),
            _ => continues.is_none(),
        };
        if !is_in_order || !frame.is_bearable() {
            self.lose(is_request, moment.time_ns, Discarded::Malformed, out);
            return;
        }
        let end = position.saturating_add(u64::from(frame.length));
        let is_data = frame.kind == frame::DATA;
        let ends_stream = (is_data && frame.flags & frame::END_STREAM != 0).then_some(frame.stream);
        let carries_block = matches!(frame.kind, frame::HEADERS | frame::CONTINUATION | frame::PUSH_PROMISE);
        let is_looked_at = carries_block || matches!(frame.kind, frame::RST_STREAM | frame::GOAWAY);
        if is_data && frame.flags & frame::PADDED != 0 {
            lane.place = Place::Padding { end, frame };
            return;
        }
        if is_data {
            self.count_body(is_request, frame.stream, u64::from(frame.length));
        }
        let is_too_long = frame.length as usize > MAX_BLOCK_BYTES;
        if is_looked_at && !is_too_long {
            if frame.length == 0 {
                self.lane(is_request).place = Place::head();
                self.frame_ends(is_request, end, frame, &[], first, moment, out);
            } else {
                self.lane(is_request).place = Place::Payload { frame, seen: Vec::new(), first };
            }
            return;
        }
        if carries_block {
            // What is in it is not known, and so neither is what the table holds, nor whether the stream ends.
            let lane = self.lane(is_request);
            lane.hpack.forget();
            lane.block = (frame.flags & frame::END_HEADERS == 0).then(|| Block::too_long(frame, first));
            out.discarded(None, Discarded::HeadTooLong);
            self.doubt(is_request, frame.stream, moment.time_ns);
        }
        if frame.length == 0 {
            self.skipped(is_request, end, ends_stream, moment, out);
        } else {
            self.lane(is_request).place = Place::Skip { end, ends_stream };
        }
    }

    /// A payload that is looked at is complete, and ends at `position`.
    #[expect(clippy::too_many_arguments, reason = "where a frame is, and whose")]
    fn frame_ends(
        &mut self,
        is_request: bool,
        position: u64,
        frame: Frame,
        payload: &[u8],
        first: Moment,
        moment: &mut Moment,
        out: &mut Output<'_>,
    ) {
        match frame.kind {
            frame::HEADERS | frame::PUSH_PROMISE => match frame.block_in(payload) {
                Some(bytes) => {
                    let block = Block {
                        stream: frame.stream,
                        ends_stream: frame.kind == frame::HEADERS && frame.flags & frame::END_STREAM != 0,
                        is_push: frame.kind == frame::PUSH_PROMISE,
                        is_too_long: false,
                        first,
                        bytes: Vec::new(),
                    };
                    self.block_goes_on(is_request, position, frame, block, bytes, moment, out);
                }
                None => self.lose(is_request, moment.time_ns, Discarded::Malformed, out),
            },
            frame::CONTINUATION => {
                if let Some(block) = self.lane(is_request).block.take() {
                    self.block_goes_on(is_request, position, frame, block, payload, moment, out);
                }
            }
            frame::RST_STREAM => {
                let code = payload.first_chunk().map(|code| u32::from_be_bytes(*code));
                let failure = match code {
                    Some(frame::CODE_CANCEL) if is_request => Failure::Cancelled,
                    _ => Failure::Reset,
                };
                if let Some(open) = self.streams.remove(&frame.stream) {
                    out.ended(open.failed(failure, moment.time_ns));
                }
            }
            frame::GOAWAY if !is_request => {
                // Streams above the last one have not been, and will not be, looked at.
                let Some(last) = payload.first_chunk().map(|last| u32::from_be_bytes(*last) & 0x7fff_ffff)
                else {
                    return;
                };
                for (_, open) in self.streams.split_off(&last.saturating_add(1)) {
                    out.ended(open.failed(Failure::Reset, moment.time_ns));
                }
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "where a block is, and whose")]
    fn block_goes_on(
        &mut self,
        is_request: bool,
        position: u64,
        frame: Frame,
        mut block: Block,
        bytes: &[u8],
        moment: &mut Moment,
        out: &mut Output<'_>,
    ) {
        let is_last = frame.flags & frame::END_HEADERS != 0;
        if block.bytes.len() + bytes.len() > MAX_BLOCK_BYTES && !block.is_too_long {
            block.is_too_long = true;
            block.bytes = Vec::new();
            self.lane(is_request).hpack.forget();
            out.discarded(None, Discarded::HeadTooLong);
            self.doubt(is_request, block.stream, moment.time_ns);
        }
        if !is_last {
            if !block.is_too_long {
                block.bytes.extend_from_slice(bytes);
            }
            self.lane(is_request).block = Some(block);
            return;
        }
        if block.is_too_long {
            return;
        }
        let joined;
        let bytes = if block.bytes.is_empty() {
            bytes
        } else {
            block.bytes.extend_from_slice(bytes);
            joined = std::mem::take(&mut block.bytes);
            &joined
        };
        let mut fields = Fields::default();
        let decoded = self.lane(is_request).hpack.decode(bytes, |name, value| fields.take(name, value));
        if decoded.is_err() {
            fields = Fields { pseudo_is_unknown: true, regular_is_unknown: true, ..Fields::default() };
            out.discarded(None, Discarded::Malformed);
            self.oddities = self.oddities.saturating_add(1);
        }
        if block.is_push {
            return;
        }
        if is_request {
            self.request_block(&block, fields, position, moment, out);
        } else {
            self.response_block(&block, &fields, position, moment, out);
        }
    }

    fn request_block(
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
                self.stream_ends(true, stream, position, moment, out);
            }
            return;
        }
        let is_head =
            [&fields.method, &fields.path, &fields.scheme].iter().any(|field| **field != Known::Absent);
        if !is_head || stream.is_multiple_of(2) || stream <= self.highest {
            return;
        }
        self.highest = stream;
        if self.streams.len() >= MAX_STREAMS {
            out.discarded(None, Discarded::TooMany);
            return;
        }
        let id = out.next_exchange();
        let overlaps = !self.streams.is_empty();
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
                doubtful_since: None,
            },
        );
        let minted = block.first.minted.or(moment.minted);
        moment.minted = None;
        out.began(Began {
            exchange: id,
            stream_id: stream,
            direction: self.requests,
            first_byte_ns: block.first.time_ns,
            actor: block.first.actor,
            minted,
            within: block.first.within,
            overlaps,
            head: fields.request_head(),
        });
    }

    fn response_block(
        &mut self,
        block: &Block,
        fields: &Fields,
        position: u64,
        moment: &Moment,
        out: &mut Output<'_>,
    ) {
        let Some(open) = self.streams.get_mut(&block.stream) else { return };
        open.doubtful_since = None;
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
            self.stream_ends(false, block.stream, position, moment, out);
        }
    }

    fn count_body(&mut self, is_request: bool, stream: u32, bytes: u64) {
        let Some(open) = self.streams.get_mut(&stream) else { return };
        let body = if is_request {
            &mut open.request_body_bytes
        } else {
            open.doubtful_since = None;
            &mut open.response_body_bytes
        };
        *body = body.map(|before| before.saturating_add(bytes));
    }

    /// Whether a stream has ended, or ends later, is not known.
    fn doubt(&mut self, is_request: bool, stream: u32, time_ns: u64) {
        if let Some(open) = self.streams.get_mut(&stream)
            && !is_request
        {
            open.doubtful_since = Some(time_ns);
            self.doubts_at = self.doubts_at.min(open.doubts_at()).or(open.doubts_at());
        }
    }

    /// Nothing more comes in this lane of a stream, whose last byte ends at `position`.
    fn stream_ends(
        &mut self,
        is_request: bool,
        stream: u32,
        position: u64,
        moment: &Moment,
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
            last_byte_ns: moment.time_ns,
            end_is_certain: true,
            failure: None,
            request_body_bytes: open.request_body_bytes.filter(|_| open.request_is_complete),
            response_body_bytes: open.response_body_bytes,
            grpc_status: open.grpc_status,
            upgraded: false,
        };
        out.ended_at(ended, opposite(self.requests), position);
    }

    /// The connection is no more. `written`: how much was really written to it.
    pub(in crate::trace) fn close(
        &mut self,
        time_ns: u64,
        ending: Ending,
        written: u64,
        out: &mut Output<'_>,
    ) {
        for (_, open) in std::mem::take(&mut self.streams) {
            if open.doubtful_since.is_some() {
                open.end_doubtfully(out);
            } else if self.requests == Direction::Out && open.response.is_none() && open.head_end > written {
                out.discarded(Some(open.id), Discarded::NotSent);
            } else {
                out.ended(open.failed(failure(ending), time_ns));
            }
        }
        self.is_over = true;
    }
}

/// Whether these frames carry requests, if the first header block among them tells.
pub(in crate::trace) fn carry_requests(bytes: &[u8]) -> Option<bool> {
    let mut rest = bytes;
    loop {
        let frame = Frame::at_beginning_of(rest)?;
        let end = frame::HEAD_BYTES + frame.length as usize;
        if frame.kind == frame::HEADERS {
            let block = frame.block_in(rest.get(frame::HEAD_BYTES..end)?)?;
            let mut fields = Fields::default();
            // The rest of it may be in other frames.
            let _ = Decoder::in_the_middle().decode(block, |name, value| fields.take(name, value));
            let is_request =
                [&fields.method, &fields.path, &fields.scheme].iter().any(|f| **f != Known::Absent);
            let is_response = fields.status != Known::Absent;
            if is_request != is_response {
                return Some(is_request);
            }
        }
        rest = rest.get(end..)?;
    }
}

impl Place {
    fn head() -> Self {
        Self::Head { seen: Vec::new(), first: None }
    }
}

impl Block {
    fn too_long(frame: Frame, first: Moment) -> Self {
        Self {
            stream: frame.stream,
            ends_stream: false,
            is_push: false,
            is_too_long: true,
            first,
            bytes: Vec::new(),
        }
    }
}

impl Open {
    /// When it is over, if nothing more comes of it.
    fn doubts_at(&self) -> Option<u64> {
        let patience = if self.response.is_some() { DOUBT_NS } else { DOUBT_UNANSWERED_NS };
        self.doubtful_since.map(|since| since.saturating_add(patience))
    }

    /// Its end was lost, or all of its response.
    fn end_doubtfully(self, out: &mut Output<'_>) {
        match (self.response, self.doubtful_since) {
            (Some(response), Some(since)) => out.ended(Ended {
                exchange: self.id,
                response: Some(response),
                first_response_byte_ns: self.first_response_byte_ns,
                last_byte_ns: since,
                end_is_certain: false,
                failure: None,
                request_body_bytes: self.request_body_bytes.filter(|_| self.request_is_complete),
                response_body_bytes: None,
                grpc_status: Known::Unknown,
                upgraded: false,
            }),
            _ => out.discarded(Some(self.id), Discarded::Gap),
        }
    }

    /// It has ended without a complete response.
    fn failed(self, failure: Failure, time_ns: u64) -> Ended {
        Ended {
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
        }
    }
}

impl Fields {
    /// Takes a field of a block; pseudo-headers come before all others (RFC 9113 section 8.3).
    fn take(&mut self, name: Option<FieldName>, value: &Known) {
        let Some(name) = name else {
            self.pseudo_is_unknown |= !self.is_regular;
            self.regular_is_unknown = true;
            return;
        };
        if name.is_pseudo() {
            // So whatever was not known before it is one, too.
            self.regular_is_unknown = false;
        } else {
            self.is_regular = true;
        }
        let place = match name {
            FieldName::Method => &mut self.method,
            FieldName::Path => &mut self.path,
            FieldName::Scheme => &mut self.scheme,
            FieldName::Status => &mut self.status,
            FieldName::GrpcStatus => &mut self.grpc_status,
            name => return self.others.take(name, || value.clone()),
        };
        if *place == Known::Absent {
            *place = value.clone();
        }
    }

    fn request_head(&mut self) -> RequestHead {
        if self.pseudo_is_unknown {
            for field in [&mut self.method, &mut self.path, &mut self.scheme, &mut self.others.authority] {
                if *field == Known::Absent {
                    *field = Known::Unknown;
                }
            }
        }
        if self.regular_is_unknown {
            self.others.absent_is_unknown();
        }
        let is_connect = self.method.value() == Some("CONNECT");
        RequestHead {
            version: ProtocolVersion::Http2,
            method: std::mem::take(&mut self.method),
            target: match is_connect {
                // Without the extension of RFC 8441 there is none.
                true if self.path == Known::Unknown => Known::Absent,
                _ => std::mem::take(&mut self.path),
            },
            scheme: std::mem::take(&mut self.scheme),
            b3: self.others.b3(),
            authority: std::mem::take(&mut self.others.authority),
            user_agent: std::mem::take(&mut self.others.user_agent),
            content_type: std::mem::take(&mut self.others.content_type),
            traceparent: std::mem::take(&mut self.others.traceparent),
            tracestate: std::mem::take(&mut self.others.tracestate),
        }
    }
}

#[cfg(test)]
mod tests;
