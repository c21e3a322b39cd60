//! HotSpot's compressed numbers: debug information of compiled methods and line numbers of bytecode.
//!
//! Sources: `share/code/compressedStream.cpp` (JDK 11, 17: `UNSIGNED5` in base 64 with 192 one-byte values) and
//! `share/utilities/unsigned5.hpp` (JDK 20 and later: byte 0 is left out of the code, 191 one-byte values).

/// Which of the two encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Until JDK 19.
    WithZero,
    /// Since JDK 20: no byte of a number is 0.
    WithoutZero,
}

/// Bytes of a number at most.
const MAX_NUMBER_BYTES: u32 = 5;

/// Reads numbers one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream<'a> {
    bytes: &'a [u8],
    position: usize,
    encoding: Encoding,
}

impl<'a> Stream<'a> {
    pub(super) const fn new(bytes: &'a [u8], encoding: Encoding) -> Self {
        Self { bytes, position: 0, encoding }
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.position)?;
        self.position += 1;
        Some(byte)
    }

    /// `None` at the end of the bytes, and at what no encoder writes.
    pub(super) fn unsigned(&mut self) -> Option<u32> {
        let excluded: u32 = match self.encoding {
            Encoding::WithZero => 0,
            Encoding::WithoutZero => 1,
        };
        let one_byte_values = 192 - excluded;
        let mut sum = 0_u32;
        for index in 0..MAX_NUMBER_BYTES {
            let byte = u32::from(self.byte()?).checked_sub(excluded)?;
            sum = sum.wrapping_add(byte << (6 * index));
            if byte < one_byte_values {
                break;
            }
        }
        Some(sum)
    }

    pub(super) fn signed(&mut self) -> Option<i32> {
        let value = self.unsigned()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }
}

/// The line of a bytecode index, and the first one, of a compressed line number table
/// (`CompressedLineNumberReadStream`, `share/oops/method.cpp`). Pairs of differences: in one byte 5 bits of bytecode index and 3 of
/// line, or 255 and two signed numbers; 0 ends it. `None` for the line if there is none at or before it.
pub(super) fn line_of(bytes: &[u8], encoding: Encoding, bytecode_index: Option<u32>) -> (Option<u32>, u32) {
    let mut stream = Stream::new(bytes, encoding);
    let (mut index, mut line) = (0_i64, 0_i64);
    let mut first = 0;
    let mut best: Option<(i64, i64)> = None;
    while let Some(byte) = stream.byte() {
        match byte {
            0 => break,
            0xff => {
                let (Some(index_difference), Some(line_difference)) = (stream.signed(), stream.signed())
                else {
                    break;
                };
                index += i64::from(index_difference);
                line += i64::from(line_difference);
            }
            _ => {
                index += i64::from(byte >> 3);
                line += i64::from(byte & 7);
            }
        }
        if first == 0 {
            first = u32::try_from(line).unwrap_or(0);
        }
        // Tables need not be in order.
        if bytecode_index.is_some_and(|wanted| index <= i64::from(wanted))
            && best.is_none_or(|(best_index, _)| index >= best_index)
        {
            best = Some((index, line));
        }
    }
    (best.and_then(|(_, line)| u32::try_from(line).ok()).filter(|line| *line != 0), first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_edges_of_both_encodings() {
        let old = |bytes: &[u8]| Stream::new(bytes, Encoding::WithZero).unsigned();
        assert_eq!(old(&[0]), Some(0));
        assert_eq!(old(&[191]), Some(191));
        assert_eq!(old(&[192, 0]), Some(192));
        assert_eq!(old(&[193, 0]), Some(193));
        assert_eq!(old(&[192, 1]), Some(256));
        assert_eq!(old(&[192]), None, "cut off");
        assert_eq!(old(&[]), None);
        let new = |bytes: &[u8]| Stream::new(bytes, Encoding::WithoutZero).unsigned();
        assert_eq!(new(&[1]), Some(0));
        assert_eq!(new(&[191]), Some(190));
        assert_eq!(new(&[192, 1]), Some(191));
        assert_eq!(new(&[192, 2]), Some(255));
        assert_eq!(new(&[0]), None, "0 is no number");
        assert_eq!(new(&[255; 5]), Some(254_u32.wrapping_mul(0x0104_1041)));
    }

    #[test]
    fn signs_alternate() {
        let signed = |byte: u8| Stream::new(&[byte], Encoding::WithZero).signed();
        assert_eq!([0, 1, 2, 3, 4].map(|byte| signed(byte).unwrap_or(99)), [0, -1, 1, -2, 2]);
    }

    #[test]
    fn lines_of_a_table_with_an_escape() {
        // (0, 10), (5, 12), then +20 and -4 by escape: (25, 8).
        let table = [0xff, 0, 20, 5 << 3 | 2, 0xff, 40, 7, 0, 99];
        let line = |index| line_of(&table, Encoding::WithZero, Some(index));
        assert_eq!(line(0), (Some(10), 10));
        assert_eq!(line(4), (Some(10), 10));
        assert_eq!(line(5), (Some(12), 10));
        assert_eq!(line(24), (Some(12), 10));
        assert_eq!(line(25), (Some(8), 10));
        assert_eq!(line(60000), (Some(8), 10));
        assert_eq!(line_of(&table, Encoding::WithZero, None), (None, 10));
        assert_eq!(line_of(&[], Encoding::WithZero, Some(3)), (None, 0));
        assert_eq!(line_of(&[0xff, 200], Encoding::WithoutZero, Some(3)), (None, 0), "cut off");
    }
}
