//! From an instruction of a code object to the line it is of.
//!
//! ```text
//! 3.8, 3.9   co_lnotab: pairs (bytes of code: u8, lines: i8), each a step from the place before
//!            (Objects/lnotab_notes.txt)
//! 3.10       co_linetable: pairs (bytes of code: u8, lines: i8), each a range; lines = -128: a range of no line
//!            (PEP 626, Objects/lnotab_notes.txt)
//! 3.11 on    co_linetable: entries of a first byte 1kkkklll (kind, code units - 1) and what its kind has
//!            (Objects/locations.md)
//! ```

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Up to 3.9.
    Lnotab,
    /// 3.10.
    Ranges,
    /// 3.11 and later.
    Locations,
}

/// The line of the instruction at byte `position`; `None` if the table has none for it, or is damaged before it.
pub(super) fn line_at(format: Format, table: &[u8], first_line: u32, position: u32) -> Option<u32> {
    let line = match format {
        Format::Lnotab => Some(line_of_steps(table, i64::from(first_line), u64::from(position))),
        Format::Ranges => line_of_ranges(table, i64::from(first_line), u64::from(position)),
        Format::Locations => line_of_locations(table, i64::from(first_line), u64::from(position)),
    };
    u32::try_from(line?).ok().filter(|line| *line != 0)
}

fn line_of_steps(table: &[u8], first_line: i64, position: u64) -> i64 {
    let (mut address, mut line) = (0_u64, first_line);
    for pair in table.chunks_exact(2) {
        let [bytes, lines] = pair else { break };
        address += u64::from(*bytes);
        if address > position {
            break;
        }
        line += i64::from(lines.cast_signed());
    }
    line
}

fn line_of_ranges(table: &[u8], first_line: i64, position: u64) -> Option<i64> {
    let (mut begin, mut line) = (0_u64, first_line);
    for pair in table.chunks_exact(2) {
        let [bytes, lines] = pair else { break };
        let has_line = lines.cast_signed() != i8::MIN;
        if has_line {
            line += i64::from(lines.cast_signed());
        }
        let end = begin + u64::from(*bytes);
        if (begin..end).contains(&position) {
            return has_line.then_some(line);
        }
        begin = end;
    }
    None
}

fn line_of_locations(table: &[u8], first_line: i64, position: u64) -> Option<i64> {
    let mut rest = table.iter().copied();
    let (mut begin, mut line) = (0_u64, first_line);
    while let Some(first) = rest.next() {
        if first & 0x80 == 0 {
            return None;
        }
        let end = begin + (u64::from(first & 7) + 1) * 2;
        let has_line = match (first >> 3) & 15 {
            // Columns only.
            0..=9 => rest.next().is_some(),
            kind @ 10..=12 => {
                line += i64::from(kind - 10);
                rest.next().and(rest.next()).is_some()
            }
            13 => {
                line = line.checked_add(signed_number(&mut rest)?)?;
                true
            }
            14 => {
                line = line.checked_add(signed_number(&mut rest)?)?;
                for _ in 0..3 {
                    number(&mut rest)?;
                }
                true
            }
            _ => false,
        };
        if (begin..end).contains(&position) {
            return has_line.then_some(line);
        }
        begin = end;
    }
    None
}

/// Six bits a byte, lowest first; 0x40 says that more follow.
fn number(rest: &mut impl Iterator<Item = u8>) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..32).step_by(6) {
        let byte = rest.next()?;
        value |= u32::from(byte & 0x3f).checked_shl(shift)?;
        if byte & 0x40 == 0 {
            return Some(value);
        }
    }
    None
}

/// The lowest bit is the sign.
fn signed_number(rest: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let value = number(rest)?;
    let magnitude = i64::from(value >> 1);
    Some(if value & 1 == 0 { magnitude } else { -magnitude })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_count_from_the_instruction_they_reach() {
        // Objects/lnotab_notes.txt: lines 1, 2, 7, 361, 207 at bytes 0, 6, 50, 350, 361 of code.
        let table = [6, 1, 44, 5, 255, 0, 45, 127, 0, 127, 0, 100, 11, 0x80, 0, 0x80 + 102];
        let line = |position| line_at(Format::Lnotab, &table, 1, position);
        assert_eq!(
            [line(0), line(5), line(6), line(49), line(50)],
            [Some(1), Some(1), Some(2), Some(2), Some(7)]
        );
        assert_eq!([line(349), line(350), line(360), line(361)], [Some(7), Some(361), Some(361), Some(207)]);
        assert_eq!(line_at(Format::Lnotab, &[4], 9, 8), Some(9), "half a pair");
    }

    #[test]
    fn a_range_may_have_no_line_and_code_ends_with_the_last() {
        // Objects/lnotab_notes.txt of 3.10: 0–2: 100, 2–4: none, 4–8: 101.
        let table = [2, 0, 2, 0x80, 4, 1];
        let line = |position| line_at(Format::Ranges, &table, 100, position);
        assert_eq!(
            [line(0), line(2), line(4), line(7), line(8)],
            [Some(100), None, Some(101), Some(101), None]
        );
        assert_eq!(
            line_at(Format::Ranges, &[0, 127, 0, 3, 2, 0xff], 1, 0),
            Some(130),
            "empty ranges still count"
        );
    }

    #[test]
    fn locations_of_every_kind() {
        let table = [
            0x80 | 13 << 3,
            0x02, // no columns, + 1
            0x80 | 3 << 3 | 1,
            0x11, // short, two units
            0x80 | 12 << 3,
            1,
            2,              // one line, + 2
            0x80 | 15 << 3, // none
            0x80 | 14 << 3 | 7,
            0x40 | 0x01,
            0x04,
            0x00,
            0x01,
            0x41,
            0x01, // long, - (0x101 >> 1)
        ];
        let line = |position| line_at(Format::Locations, &table, 300, position);
        assert_eq!([line(0), line(2), line(5), line(6)], [Some(301), Some(301), Some(301), Some(303)]);
        assert_eq!([line(8), line(10), line(25), line(26)], [None, Some(175), Some(175), None]);
        assert_eq!(line_at(Format::Locations, &[0x13, 1], 1, 0), None, "no first byte");
        assert_eq!(
            line_at(Format::Locations, &[0x80 | 13 << 3, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f], 1, 0),
            None
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(
            table in prop::collection::vec(any::<u8>(), 0..300), first: u32, position: u32, kind in 0..3
        ) {
            let format = [Format::Lnotab, Format::Ranges, Format::Locations][kind as usize];
            let _ = line_at(format, &table, first, position);
        }
    }
}
