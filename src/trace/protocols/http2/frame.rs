//! Frames of HTTP/2 (RFC 9113 section 4.1): 9 bytes of head, then the payload.

/// Longest payload that is believed: hardly anybody allows more, though the length has three bytes.
const LONGEST: u32 = 1 << 20;
/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 9;
/// What a client sends first.
pub(in crate::trace) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const HAS_PRIORITY: u8 = 0x20;

/// `CANCEL`
pub(super) const CODE_CANCEL: u32 = 8;

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Frame {
    /// The head of these bytes.
    pub(super) fn of(head: [u8; HEAD_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            // The highest bit is reserved, and to be ignored.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    /// Likewise, if there are as many.
    pub(super) fn at_beginning_of(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|head| Self::of(*head))
    }

    /// Whether a connection may have such a frame: what section 6 asks of each kind.
    pub(super) fn is_possible(self) -> bool {
        let Self { length, kind, flags, stream } = self;
        let (flags_allowed, is_length_right, is_stream_right) = match kind {
            DATA => (END_STREAM | PADDED, length >= u32::from(flags & PADDED != 0), stream != 0),
            HEADERS => {
                let (padding, priority) = (flags & PADDED != 0, flags & HAS_PRIORITY != 0);
                let least = u32::from(padding) + 5 * u32::from(priority) + 1;
                (END_STREAM | END_HEADERS | PADDED | HAS_PRIORITY, length >= least, stream != 0)
            }
            PRIORITY => (0, length == 5, stream != 0),
            RST_STREAM => (0, length == 4, stream != 0),
            SETTINGS => (
                ACK,
                length.is_multiple_of(6) && length <= 600 && (flags & ACK == 0 || length == 0),
                stream == 0,
            ),
            PUSH_PROMISE => (END_HEADERS | PADDED, length > 4, stream != 0),
            PING => (ACK, length == 8, stream == 0),
            GOAWAY => (0, length >= 8, stream == 0),
            WINDOW_UPDATE => (0, length == 4, true),
            CONTINUATION => (END_HEADERS, length > 0, stream != 0),
            // ALTSVC, ORIGIN, PRIORITY_UPDATE
            0xa | 0xc | 0x10 => (0, true, true),
            _ => (0, false, false),
        };
        length <= LONGEST && flags & !flags_allowed == 0 && is_length_right && is_stream_right
    }

    /// Whether it can be one where a frame begins for certain: kinds that nobody knows have to be borne.
    pub(super) fn is_bearable(self) -> bool {
        self.is_possible() || self.kind > CONTINUATION && self.length <= LONGEST
    }

    /// The part of a header block that is in its payload: without padding, priority and promised stream.
    pub(super) fn block_in(self, payload: &[u8]) -> Option<&[u8]> {
        let mut block = payload;
        if self.flags & PADDED != 0 {
            let (&padding, rest) = block.split_first()?;
            block = rest.get(..rest.len().checked_sub(usize::from(padding))?)?;
        }
        match self.kind {
            HEADERS if self.flags & HAS_PRIORITY != 0 => block.get(5..),
            PUSH_PROMISE => block.get(4..),
            _ => Some(block),
        }
    }

    /// Its bytes with the head.
    pub(super) fn total(self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.length)
    }
}

/// Whether a fragment of this length that begins so begins with a frame: each head that is seen is possible,
/// and there is more than one, or one that ends where the fragment ends or goes on behind what is seen.
pub(in crate::trace) fn may_begin_with_frame(bytes: &[u8], fragment_length: u64) -> bool {
    let mut at = 0_u64;
    let mut frames = 0;
    while let Some(frame) =
        usize::try_from(at).ok().and_then(|at| bytes.get(at..)).and_then(Frame::at_beginning_of)
    {
        if !frame.is_possible() {
            return false;
        }
        frames += 1;
        at += frame.total();
    }
    frames > 0
        && (frames > 1
            || at >= fragment_length
            || fragment_length == HEAD_BYTES as u64
            || at > bytes.len() as u64)
}
