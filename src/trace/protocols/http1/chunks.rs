//! A chunked body (RFC 9112 section 7.1): chunk heads and trailers byte by byte, chunks by position.

/// Digits of a chunk's size at most; more would not fit.
const MAX_SIZE_DIGITS: u32 = 15;

/// Where in a chunked body its reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunks {
    place: Place,
    /// Bytes of chunks, without their heads; unknown where not all were seen.
    pub(super) body_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Within the digits of a chunk's size.
    Size { size: u64, digits: u32 },
    /// Behind them, before the end of the line.
    Extension { size: u64 },
    /// Within a chunk, which ends at this position of the stream.
    Data { end: u64 },
    /// Behind a chunk, before its end of line.
    DataEnd,
    /// Behind the last chunk; whether the line is empty so far.
    Trailer { line_is_empty: bool },
}

const BEGIN: Place = Place::Size { size: 0, digits: 0 };

/// What became of bytes of a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// All were taken, and it goes on.
    More,
    /// It ends behind so many.
    Complete(usize),
    /// That is no chunk's head.
    Malformed,
}

impl Chunks {
    /// Where a body begins.
    pub(super) fn begin() -> Self {
        Self { place: BEGIN, body_bytes: Some(0) }
    }

    /// Where a chunk begins, behind others that are not known.
    pub(super) fn found_again() -> Self {
        Self { place: BEGIN, body_bytes: None }
    }

    /// Takes bytes that stand at `position`.
    pub(super) fn bytes(&mut self, position: u64, bytes: &[u8]) -> Progress {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match &mut self.place {
                Place::Size { size, digits } => match (byte as char).to_digit(16) {
                    Some(digit) if *digits < MAX_SIZE_DIGITS => {
                        *size = *size << 4 | u64::from(digit);
                        *digits += 1;
                    }
                    None if *digits > 0 && byte == b'\n' => self.size_known(position + at as u64 + 1),
                    None if *digits > 0 && matches!(byte, b'\r' | b';' | b' ' | b'\t') => {
                        self.place = Place::Extension { size: *size };
                    }
                    _ => return Progress::Malformed,
                },
                Place::Extension { .. } => {
                    if byte == b'\n' {
                        self.size_known(position + at as u64 + 1);
                    }
                }
                Place::Data { end } => {
                    let left = end.saturating_sub(position + at as u64);
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += here;
                    if here as u64 == left {
                        self.place = Place::DataEnd;
                    }
                    continue;
                }
                Place::DataEnd => match byte {
                    b'\r' => {}
                    b'\n' => self.place = BEGIN,
                    _ => return Progress::Malformed,
                },
                Place::Trailer { line_is_empty } => match byte {
                    b'\r' => {}
                    b'\n' if *line_is_empty => return Progress::Complete(at + 1),
                    b'\n' => *line_is_empty = true,
                    _ => *line_is_empty = false,
                },
            }
            at += 1;
        }
        Progress::More
    }

    fn size_known(&mut self, data_begins: u64) {
        let (Place::Size { size, .. } | Place::Extension { size }) = self.place else { return };
        self.body_bytes = self.body_bytes.map(|bytes| bytes.saturating_add(size));
        self.place = match size {
            0 => Place::Trailer { line_is_empty: true },
            size => Place::Data { end: data_begins.saturating_add(size) },
        };
    }

    /// Steps over a hole from `position`; whether that is possible.
    pub(super) fn hole(&mut self, position: u64, length: u64) -> bool {
        let Place::Data { end } = self.place else { return false };
        let hole_end = position.saturating_add(length);
        if hole_end == end {
            self.place = Place::DataEnd;
        }
        hole_end <= end
    }

    /// Whether a fragment of this length that begins so is exactly one chunk with its head: found again.
    pub(super) fn is_one_chunk(bytes: &[u8], fragment_length: u64) -> bool {
        let mut chunks = Self::begin();
        let head = bytes.iter().take(32).position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if head == 0 || chunks.bytes(0, bytes.get(..head).unwrap_or_default()) != Progress::More {
            return false;
        }
        matches!(chunks.place, Place::Data { end } if end.checked_add(2) == Some(fragment_length))
    }

    /// Whether a fragment that ends so ends a chunked body: with a chunk of no bytes, perhaps trailers, and an
    /// empty line.
    pub(super) fn ends_with_last_chunk(bytes: &[u8]) -> bool {
        if !bytes.ends_with(b"\r\n\r\n") {
            return false;
        }
        let Some(last) = bytes.windows(5).rposition(|window| window == b"\r\n0\r\n") else {
            return bytes == b"0\r\n\r\n";
        };
        let trailers = bytes.get(last + 5..bytes.len() - 2).unwrap_or_default();
        trailers
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .all(|line| line.ends_with(b"\r") && (line == b"\r" || line.contains(&b':')))
            && trailers.windows(4).all(|window| window != b"\r\n\r\n")
    }
}
