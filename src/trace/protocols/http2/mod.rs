//! HTTP/2 (RFC 9113), and gRPC on top of it: frames of two lanes, header blocks, and the streams that are open.
//!
//! Every stream names itself, so that requests and responses are paired whatever was lost. What a loss
//! costs is the dynamic tables (`hpack.rs`): fields that refer to them are unknown until what they refer to has
//! been sent again. A lane that lost its place finds it where a fragment begins with frames that are
//! possible. An exchange whose end may have been lost, and of which nothing comes for a while, has ended where the
//! loss was, and not for certain; one whose response may have been lost is given up, and after a longer while
//! one that may have been taken back. What is lost was moved at a time that nobody knows: an end that lies in it
//! has the time of the last byte before it, and is uncertain, too.
//!
//! Bodies are stepped over by position. Pushed responses are not followed, but their blocks are read, since they
//! change the tables. Settings are not needed: a table's size changes by what header blocks say.

pub(in crate::trace) mod frame;
mod header_block;
mod hpack;
mod huffman;
mod lanes;
mod streams;

use std::collections::BTreeMap;

pub(in crate::trace) use self::header_block::carry_requests;
use self::hpack::Decoder;
use self::lanes::{Lane, Place};
use self::streams::Open;
use super::{Output, failure};
use crate::model::socket::{Direction, Ending};
use crate::trace::stream::{Moment, Piece};

/// Exchanges that are followed at a time.
const MAX_STREAMS: usize = 1024;
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

impl Http2 {
    /// A connection whose requests go that way, seen from the client's preface on.
    pub(in crate::trace) fn from_preface(requests: Direction) -> Self {
        let hpack = Decoder::at_beginning;
        Self {
            request_lane: Lane::new(Place::Preface(0), hpack()),
            response_lane: Lane::new(Place::Beginning, hpack()),
            ..Self::in_the_middle(requests)
        }
    }

    /// A connection whose requests go that way.
    pub(in crate::trace) fn in_the_middle(requests: Direction) -> Self {
        let hpack = Decoder::in_the_middle;
        Self {
            requests,
            request_lane: Lane::new(Place::Seeking, hpack()),
            response_lane: Lane::new(Place::Seeking, hpack()),
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
        if self.doubts_at.is_some_and(|at| at <= now_ns) {
            self.settle_doubts(now_ns, out);
        }
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
            Piece::Gap(length) => self.gap(is_request, position, length, moment.time_ns, out),
            Piece::Lost => self.positions_lost(is_request, moment.time_ns, out),
        }
        if matches!(piece, Piece::Bytes { .. } | Piece::Hole(_)) {
            self.lane(is_request).last_ns = moment.time_ns;
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

    /// The connection is no more. `written`: how much was really written to it.
    pub(in crate::trace) fn close(
        &mut self,
        time_ns: u64,
        ending: Ending,
        written: u64,
        out: &mut Output<'_>,
    ) {
        let written = (self.requests == Direction::Out).then_some(written);
        for (_, open) in std::mem::take(&mut self.streams) {
            open.close(failure(ending), time_ns, written, out);
        }
        self.is_over = true;
    }
}

#[cfg(test)]
mod tests;
