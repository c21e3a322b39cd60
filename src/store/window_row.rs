//! What a segment says of a window beside its blocks: which series it has with which totals, so that time
//! lines, lists of services and the choice of blocks need no block; and what it knew of mappings.

use super::varint::{Malformed, Reader, put, put_signed, put_text};
use crate::model::Mapping;

/// Totals by series, in order of series: `(series, one total for each value)`.
pub(super) type SeriesTotals = Vec<(u32, Vec<i64>)>;

/// Series (differences) and zigzag totals.
pub(super) fn write_totals(totals: &[(u32, Vec<i64>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = 0;
    for (series, values) in totals {
        put(&mut bytes, u64::from(series.wrapping_sub(before)));
        before = *series;
        for &value in values {
            put_signed(&mut bytes, value);
        }
    }
    bytes
}

/// Calls `each` with every series and its totals, `values` of them.
pub(super) fn read_totals(
    bytes: &[u8],
    values: usize,
    mut each: impl FnMut(u32, &[i64]),
) -> Result<(), Malformed> {
    let mut bytes = Reader::new(bytes);
    let mut totals = vec![0; values];
    let mut series = 0_u32;
    while !bytes.is_empty() {
        series = series.checked_add(bytes.id()?).ok_or(Malformed("a series beyond all that can be"))?;
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
            vec![(0, vec![1, -2]), (3, vec![i64::MAX, i64::MIN]), (u32::MAX, vec![0, 0])];
        let mut read = Vec::new();
        read_totals(&write_totals(&totals), 2, |series, values| read.push((series, values.to_vec())))
            .unwrap();
        assert_eq!(read, totals);

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
            let _ = read_totals(&bytes, values, |_, _| {});
            let _ = read_mappings(&bytes);
            let _ = read_comments(&bytes);
        }
    }
}
