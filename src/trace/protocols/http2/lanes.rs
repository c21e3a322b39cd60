//! The bytes of one lane: frames, of which few are looked at, and header blocks that go on over several.

use super::frame::{self, Frame, PREFACE};
use super::header_block::Fields;
use super::hpack::Decoder;
use super::streams::LastByte;
use super::{Http2, MAX_ODDITIES};
use crate::trace::exchange::{Discarded, Failure};
use crate::trace::protocols::Output;
use crate::trace::stream::Moment;

/// Longest header block, and payload of a frame that is looked at.
const MAX_BLOCK_BYTES: usize = 65536;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) place: Place,
    pub(super) hpack: Decoder,
    /// A header block that is not complete.
    pub(super) block: Option<Block>,
    /// When something was last moved.
    pub(super) last_ns: u64,
}

impl Lane {
    pub(super) fn new(place: Place, hpack: Decoder) -> Self {
        Self { place, hpack, block: None, last_ns: 0 }
    }
}

/// Where in its frames a lane is.
#[derive(Debug)]
pub(super) enum Place {
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
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ends_stream: bool,
    is_push: bool,
    /// It was not kept.
    is_too_long: bool,
    pub(super) first: Moment,
    pub(super) bytes: Vec<u8>,
}

impl Http2 {
    /// Takes some of the bytes; how many.
    pub(super) fn step(
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
                    self.lose(is_request, moment, Discarded::Malformed, out);
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
                    self.lose(is_request, moment, Discarded::Malformed, out);
                    return all;
                };
                self.count_body(is_request, frame.stream, body, moment);
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
            self.stream_ends(is_request, stream, position, LastByte::seen(moment), out);
        }
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
        match &self.lane(is_request).place {
            Place::Seeking => self.doubt_all(is_request, moment.time_ns, Some(moment.time_ns)),
            Place::Skip { end, ends_stream } => {
                let (end, ends_stream) = (*end, *ends_stream);
                if end <= hole_end {
                    self.skipped(is_request, end, ends_stream, moment, out);
                }
                if end < hole_end {
                    self.lose(is_request, moment, Discarded::Gap, out);
                }
            }
            Place::Beginning
            | Place::Preface(_)
            | Place::Head { .. }
            | Place::Padding { .. }
            | Place::Payload { .. } => {
                self.lose(is_request, moment, Discarded::Gap, out);
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
        let lane = self.lane(is_request);
        let before = LastByte { time_ns: lane.last_ns, is_certain: false };
        if let Place::Skip { end, ends_stream } = lane.place {
            if end <= gap_end {
                lane.place = Place::head();
                if let Some(stream) = ends_stream {
                    self.stream_ends(is_request, stream, end, before, out);
                }
            }
            if end >= gap_end {
                return;
            }
        }
        self.positions_lost(is_request, now_ns, out);
    }

    /// Nothing is known of where anything stands.
    pub(super) fn positions_lost(&mut self, is_request: bool, now_ns: u64, out: &mut Output<'_>) {
        let was_sought = matches!(self.lane(is_request).place, Place::Seeking);
        self.forget_place(is_request);
        self.doubt_all(is_request, now_ns, None);
        if !was_sought {
            out.discarded(None, Discarded::Gap);
        }
    }

    /// A lane has lost its place, and with it what its table holds.
    fn lose(&mut self, is_request: bool, moment: &Moment, reason: Discarded, out: &mut Output<'_>) {
        self.forget_place(is_request);
        self.doubt_all(is_request, moment.time_ns, Some(moment.time_ns));
        out.discarded(None, reason);
        if reason == Discarded::Malformed {
            self.oddities = self.oddities.saturating_add(1);
            if self.oddities >= MAX_ODDITIES || !self.confirmed && !is_request && !self.streams.is_empty() {
                let reason = if self.confirmed { Discarded::Malformed } else { Discarded::NotConfirmed };
                for (_, open) in std::mem::take(&mut self.streams) {
                    open.discard(reason, out);
                }
                self.is_over = true;
            }
        }
    }

    fn forget_place(&mut self, is_request: bool) {
        let lane = self.lane(is_request);
        lane.place = Place::Seeking;
        lane.block = None;
        lane.hpack.forget();
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
            self.lose(is_request, moment, Discarded::Malformed, out);
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
            self.count_body(is_request, frame.stream, u64::from(frame.length), moment);
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
            self.doubt(is_request, frame.stream, moment);
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
                None => self.lose(is_request, moment, Discarded::Malformed, out),
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
                    open.fail(failure, moment.time_ns, out);
                }
            }
            frame::GOAWAY if !is_request => {
                // Streams above the last one have not been, and will not be, looked at.
                let Some(last) = payload.first_chunk().map(|last| u32::from_be_bytes(*last) & 0x7fff_ffff)
                else {
                    return;
                };
                for (_, open) in self.streams.split_off(&last.saturating_add(1)) {
                    open.fail(Failure::Reset, moment.time_ns, out);
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
            self.doubt(is_request, block.stream, moment);
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
        if decoded.is_err() || fields.is_malformed {
            fields = Fields::unknown();
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
}

impl Place {
    pub(super) fn head() -> Self {
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
