//! One direction of a connection: fragments in, pieces of the stream out, in order of position.
//!
//! A fragment is what one call moved; only its head and its tail are there. A parser sees them as bytes,
//! what lies between as a hole of known length, and so is what was lost: a parser that knows where the
//! next thing of interest stands steps over either. When the bytes of a hole within a fragment were moved is
//! known, and by whom; of what was lost it is only known that it was before the next fragment.
//!
//! **Short writes.** A write is announced when it begins with the length that was asked for. If it moved
//! less, perhaps nothing, an amendment says so when it returns; until then its reader may have answered.
//! Nothing is taken back for that: what a program wanted to write it writes next, at the corrected
//! position, or never, because the connection is no more. So what was parsed ahead of what was moved
//! stays parsed, and the same bytes are stepped over when they come again. Only two things wait: the part
//! of an announced write that was not captured ([`Stream::settle`]), because when it comes again more of it
//! may be seen, and an end of an exchange, whose time is that of the write that really moved its last byte
//! (`conversation.rs`).
//!
//! An amendment counts for the latest fragment. One for an earlier fragment means that two threads wrote
//! at once, and that the later one stood elsewhere than was said: the stream is lost there.
//!
//! Memory: nothing but the tail of the latest write until it settles.

use crate::model::RequestKey;
use crate::model::socket::{Actor, Direction, Fragment, Minted};

/// What is known of all bytes of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moment {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) time_ns: u64,
    /// Who moved them.
    pub(super) actor: Actor,
    /// Which number TCP gives position 0 of the stream, see [`Fragment::sequence`].
    pub(super) sequence_of_start: Option<u32>,
    /// See [`Fragment::minted`].
    pub(super) minted: Option<Minted>,
    /// See [`Fragment::within`].
    pub(super) within: Option<RequestKey>,
    /// See [`Fragment::by_event_loop`].
    pub(super) by_event_loop: bool,
    /// See [`Fragment::from_pool`].
    pub(super) from_pool: bool,
}

/// A piece of a stream. Each begins where the one before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes as they were moved.
    Bytes {
        /// Them; never none.
        bytes: &'a [u8],
        /// Set if a fragment begins with them: its length.
        starts: Option<u64>,
        /// Whether a fragment ends with them.
        ends: bool,
    },
    /// So many bytes that were moved at this moment and were not captured.
    Hole(u64),
    /// So many bytes of which nobody has told: they were moved between the fragment before and this moment.
    Gap(u64),
    /// Positions mean nothing any more: what comes next stands anywhere.
    Lost,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Where the latest fragment begins.
    latest: u64,
    /// Where what has really been moved ends, as far as is known.
    moved_to: u64,
    /// Where what the parser has been given ends.
    parsed_to: u64,
    /// Two writes overlapped.
    broken: bool,
    /// The end of the latest write, which may yet turn out not to have been moved.
    unsettled: Option<Box<Unsettled>>,
}

#[derive(Debug)]
struct Unsettled {
    end: u64,
    tail: Vec<u8>,
    moment: Moment,
}

impl Stream {
    /// Takes a fragment; what it says is given to `parse`, with the position of each piece. What was
    /// unsettled must have been settled before.
    pub(super) fn take(
        &mut self,
        moment: Moment,
        fragment: &Fragment,
        mut parse: impl FnMut(u64, Piece<'_>, &Moment),
    ) {
        let start = fragment.position;
        let Some(end) = start.checked_add(fragment.length) else {
            self.broken = true;
            return;
        };
        // The kernel side counts from where it began to look, so that the first fragment begins at 0.
        if start < self.latest || std::mem::take(&mut self.broken) {
            parse(start, Piece::Lost, &moment);
            self.parsed_to = start;
        }
        self.broken = false;
        self.unsettled = None;
        self.latest = start;
        self.moved_to = end;
        if start > self.parsed_to {
            parse(self.parsed_to, Piece::Gap(start - self.parsed_to), &moment);
            self.parsed_to = start;
        }

        let captured = fragment.head.len().min(usize::try_from(fragment.length).unwrap_or(usize::MAX));
        let head = fragment.head.get(..captured).unwrap_or_default();
        let head_end = start + captured as u64;
        if head_end > self.parsed_to {
            let already = usize::try_from(self.parsed_to - start).unwrap_or(usize::MAX);
            if let Some(bytes) = head.get(already..).filter(|bytes| !bytes.is_empty()) {
                let starts = (already == 0).then_some(fragment.length);
                parse(self.parsed_to, Piece::Bytes { bytes, starts, ends: head_end == end }, &moment);
                self.parsed_to = head_end;
            }
        }
        if end <= self.parsed_to {
            return;
        }
        match fragment.direction {
            Direction::In => self.rest(end, &fragment.tail, &moment, parse),
            Direction::Out => {
                self.unsettled = Some(Box::new(Unsettled { end, tail: fragment.tail.clone(), moment }));
            }
        }
    }

    /// Steps over a fragment: nobody wants to see it.
    pub(super) fn pass(&mut self, fragment: &Fragment) {
        self.take(Moment::default(), fragment, |_, _, _| {});
        self.settle(|_, _, _| {});
    }

    /// What is to be moved to the end of a fragment after its head: a hole, and the tail.
    fn rest(
        &mut self,
        end: u64,
        tail: &[u8],
        moment: &Moment,
        mut parse: impl FnMut(u64, Piece<'_>, &Moment),
    ) {
        let tail_start = end.saturating_sub(tail.len() as u64);
        if tail_start > self.parsed_to {
            parse(self.parsed_to, Piece::Hole(tail_start - self.parsed_to), moment);
            self.parsed_to = tail_start;
        }
        let already = usize::try_from(self.parsed_to - tail_start).unwrap_or(usize::MAX);
        if let Some(bytes) = tail.get(already..).filter(|bytes| !bytes.is_empty()) {
            parse(self.parsed_to, Piece::Bytes { bytes, starts: None, ends: true }, moment);
        }
        self.parsed_to = end;
    }

    /// The latest write has moved what it announced.
    pub(super) fn settle(&mut self, parse: impl FnMut(u64, Piece<'_>, &Moment)) {
        if let Some(unsettled) = self.unsettled.take() {
            self.rest(unsettled.end, &unsettled.tail, &unsettled.moment, parse);
        }
    }

    /// The write at `position` moved only `length` bytes.
    pub(super) fn amend(&mut self, position: u64, length: u64) {
        let end = position.saturating_add(length);
        if position > self.latest {
            return; // the fragment itself was lost, which the next one will show
        }
        if position < self.latest {
            self.broken = true;
            return;
        }
        if end >= self.moved_to {
            return;
        }
        self.moved_to = end;
        if let Some(unsettled) = &mut self.unsettled {
            // Its tail lay at the end that has not been reached.
            unsettled.tail.clear();
            unsettled.end = end;
            if end <= self.parsed_to {
                self.unsettled = None;
            }
        }
    }

    /// Where what has really been moved ends, as far as is known.
    pub(super) fn moved_to(&self) -> u64 {
        self.moved_to
    }

    /// Whether something of the latest write waits for [`Self::settle`].
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled.is_some()
    }
}
