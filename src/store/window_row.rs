//! What a segment says of a window beside its blocks: which series it has with which totals, so that time
//! lines, lists of services and the choice of blocks need no block; and what it knew of mappings.

use super::varint::{Malformed, Reader, put, put_signed, put_text};
use crate::model::Mapping;

const SERIES_BEYOND_ALL: Malformed = Malformed("a series beyond all that can be");

/// Totals by series, in order of series: `(series, one total for each value)`.
pub(super) type SeriesTotals = Vec<(u32, Vec<i64>)>;

/// Series (differences) × 2 + (1 if some total is not the expected one), then the first total and, if there is one
/// that is not expected, for each other the difference; totals zigzag. `factors` say what is expected, as in blocks.
pub(super) fn write_totals(totals: &[(u32, Vec<i64>)], factors: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = 0;
    for (series, values) in totals {
        let first = values.first().copied().unwrap_or(0);
        let others = values.iter().skip(1).zip(factors);
        let differences: Vec<i64> =
            others.map(|(&value, &factor)| value.wrapping_sub(first.wrapping_mul(factor))).collect();
        let differs = differences.iter().any(|&difference| difference != 0);
        put(&mut bytes, u64::from(series.wrapping_sub(before)) << 1 | u64::from(differs));
        before = *series;
        put_signed(&mut bytes, first);
        for difference in differences.into_iter().filter(|_| differs) {
            put_signed(&mut bytes, difference);
        }
    }
    bytes
}

/// Calls `each` with every series and its totals.
pub(super) fn read_totals(
    bytes: &[u8],
    factors: &[i64],
    mut each: impl FnMut(u32, &[i64]),
) -> Result<(), Malformed> {
    let mut bytes = Reader::new(bytes);
    let mut totals = vec![0; factors.len() + 1];
    let mut series = 0_u32;
    while !bytes.is_empty() {
        let head = bytes.number()?;
        let next = u32::try_from(head >> 1).ok().and_then(|difference| series.checked_add(difference));
        series = next.ok_or(SERIES_BEYOND_ALL)?;
        let first = bytes.signed()?;
        if let Some((first_total, others)) = totals.split_first_mut() {
            *first_total = first;
            for (total, factor) in others.iter_mut().zip(factors) {
                let difference = if head & 1 != 0 { bytes.signed()? } else { 0 };
                *total = first.wrapping_mul(*factor).wrapping_add(difference);
            }
        }
        each(series, &totals);
    }
    Ok(())
}

/// [`read_totals`] of segments of versions 1 to 3: series (differences) and zigzag totals, `values` of them.
pub(super) fn read_plain_totals(
    bytes: &[u8],
    values: usize,
    mut each: impl FnMut(u32, &[i64]),
) -> Result<(), Malformed> {
    let mut bytes = Reader::new(bytes);
    let mut totals = vec![0; values];
    let mut series = 0_u32;
    while !bytes.is_empty() {
        series = series.checked_add(bytes.id()?).ok_or(SERIES_BEYOND_ALL)?;
        for total in &mut totals {
            *total = bytes.signed()?;
        }
        each(series, &totals);
    }
    Ok(())
}

/// What a window knew of a mapping, where that is not what the dictionary says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenMapping {
    pub(super) mapping: u32,
    pub(super) start: u64,
    pub(super) limit: u64,
    pub(super) file_offset: u64,
    pub(super) flags: u8,
}

/// The four `has_…` of a mapping as bits.
pub(super) fn flags(mapping: &Mapping) -> u8 {
    u8::from(mapping.has_functions)
        | u8::from(mapping.has_filenames) << 1
        | u8::from(mapping.has_line_numbers) << 2
        | u8::from(mapping.has_inline_frames) << 3
}

/// Sets what [`flags`] took.
pub(super) fn set_flags(mapping: &mut Mapping, flags: u8) {
    mapping.has_functions |= flags & 1 != 0;
    mapping.has_filenames |= flags & 2 != 0;
    mapping.has_line_numbers |= flags & 4 != 0;
    mapping.has_inline_frames |= flags & 8 != 0;
}

pub(super) fn write_mappings(mappings: &[SeenMapping]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for seen in mappings {
        put(&mut bytes, seen.mapping.into());
        put(&mut bytes, seen.start);
        // Kernel addresses take ten bytes, what lies between two of them three.
        put_signed(&mut bytes, seen.limit.wrapping_sub(seen.start).cast_signed());
        put(&mut bytes, seen.file_offset);
        bytes.push(seen.flags);
    }
    bytes
}

pub(super) fn read_mappings(bytes: &[u8]) -> Result<Vec<SeenMapping>, Malformed> {
    let mut bytes = Reader::new(bytes);
    let mut mappings = Vec::new();
    while !bytes.is_empty() {
        let mapping = bytes.id()?;
        let start = bytes.number()?;
        let limit = start.wrapping_add(bytes.signed()?.cast_unsigned());
        mappings.push(SeenMapping {
            mapping,
            start,
            limit,
            file_offset: bytes.number()?,
            flags: bytes.byte()?,
        });
    }
    Ok(mappings)
}

pub(super) fn write_comments(comments: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for comment in comments {
        put_text(&mut bytes, comment);
    }
    bytes
}

pub(super) fn read_comments(bytes: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut bytes = Reader::new(bytes);
    let mut comments = Vec::new();
    while !bytes.is_empty() {
        comments.push(bytes.text()?.to_owned());
    }
    Ok(comments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn totals_mappings_and_comments_come_back() {
        let totals: SeriesTotals =
            vec![(0, vec![1, -2]), (3, vec![i64::MAX, i64::MIN]), (4, vec![7, 70]), (u32::MAX, vec![0, 0])];
        let mut read = Vec::new();
        let bytes = write_totals(&totals, &[10]);
        read_totals(&bytes, &[10], |series, values| read.push((series, values.to_vec()))).unwrap();
        assert_eq!(read, totals);
        read.clear();
        let plain = [0, 2, 3, 3, 14, 1];
        read_plain_totals(&plain, 2, |series, values| read.push((series, values.to_vec()))).unwrap();
        assert_eq!(read, [(0, vec![1, -2]), (3, vec![7, -1])]);

        let seen = |mapping, start, limit| SeenMapping { mapping, start, limit, file_offset: 9, flags: 5 };
        let mappings = vec![seen(0, u64::MAX - 1, u64::MAX), seen(7, 5, 0), seen(1, 0, u64::MAX)];
        assert_eq!(read_mappings(&write_mappings(&mappings)), Ok(mappings));

        let comments = vec![String::new(), "12 samples lost: ring_full".to_owned()];
        assert_eq!(read_comments(&write_comments(&comments)), Ok(comments));
    }

    #[test]
    fn flags_come_back_each_by_itself() {
        for bit in 0..4 {
            let mut mapping = Mapping::default();
            set_flags(&mut mapping, 1 << bit);
            assert_eq!(flags(&mapping), 1 << bit);
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, values in 0_usize..4) {
            let _ = read_plain_totals(&bytes, values, |_, _| {});
            let _ = read_totals(&bytes, &vec![3; values], |_, _| {});
            let _ = read_mappings(&bytes);
            let _ = read_comments(&bytes);
        }
    }
}
