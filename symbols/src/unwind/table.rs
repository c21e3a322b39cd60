//! The unwind table of one object: pages that BPF searches, and the same search in Rust.

use super::build;
use super::cfi::CfiCounts;
use super::layout::{CHUNK_BITS, DirectoryEntry, LEAF_ROWS, PAGE_BYTES};
use super::packer::{MAX_RULES, Packer};
use super::rules::RuleNumbers;
use super::{Row, UnwindError, UnwindRule};
use crate::little_endian::u16_at;
use crate::{ElfAddress, ObjectFile};

/// The unwind table of one object: pages for the kernel, and where each kind begins in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwindTable {
    /// ELF address of the first chunk, a multiple of 4 KiB.
    pub text_begin: ElfAddress,
    /// Directory entries.
    pub chunks: u32,
    /// Pages of directory; they come first.
    pub directory_pages: u32,
    /// Pages of rules; they follow.
    pub rule_pages: u32,
    /// Pages of leaves; they come last.
    pub leaf_pages: u32,
    /// Rows in the leaves, for statistics.
    pub rows: u64,
    /// Chunks that have more rows than a leaf holds: their shortest rows are not known.
    pub oversized_chunks: u64,
    /// Directory, rules, leaves; a multiple of 4096 bytes.
    pub pages: Vec<u8>,
}

impl UnwindTable {
    /// Reads every source of unwind information of an object and packs it. Linear in the size of the
    /// sections; on several threads where there are many functions.
    ///
    /// # Errors
    /// [`UnwindError`].
    pub fn build(object: &ObjectFile) -> Result<Self, UnwindError> {
        build::build(object).map(|(table, _)| table)
    }

    /// The same, with what was met on the way.
    ///
    /// # Errors
    /// [`UnwindError`].
    pub fn build_with_counts(object: &ObjectFile) -> Result<(Self, CfiCounts), UnwindError> {
        build::build(object)
    }

    /// Packs rows, sorted by address; of several at one address the last counts. A last row that is not
    /// [`UnwindRule::NONE`] is in force until the end of its 4 KiB chunk.
    ///
    /// # Errors
    /// [`UnwindError::TooLarge`], also for rows that are not sorted.
    pub fn from_rows(rows: &[Row]) -> Result<Self, UnwindError> {
        let too_large = |what| UnwindError::TooLarge { path: "rows".into(), what };
        let mut packer = Packer::default();
        let mut rules = RuleNumbers::new();
        let mut rest = rows;
        while let Some((row, following)) = rest.split_first() {
            rest = following;
            let begin = row.address.0;
            let end_of_chunk = (begin | ((1 << CHUNK_BITS) - 1)).saturating_add(1);
            let end = following.first().map_or(end_of_chunk, |next| next.address.0);
            let number = u16::try_from(rules.number(row.rule))
                .map_err(|_| too_large(format!("more than {MAX_RULES} rules")))?;
            if end < begin {
                return Err(too_large(format!("row at {} is followed by a lower one", row.address)));
            }
            if number != 0 {
                packer.add(begin, end, number).map_err(too_large)?;
            }
        }
        packer.finish(rules.rules()).map_err(too_large)
    }

    /// The rule in force at `address`: what BPF does, in Rust, for tests and `doctor`.
    #[must_use]
    pub fn find(&self, address: ElfAddress) -> UnwindRule {
        self.search(address).unwrap_or(UnwindRule::NONE)
    }

    /// `None` where nothing is known, or where pages do not hold what the numbers promise.
    fn search(&self, address: ElfAddress) -> Option<UnwindRule> {
        let offset_in_text = address.checked_sub(self.text_begin)?;
        let chunk = usize::try_from(offset_in_text >> CHUNK_BITS).ok()?;
        if chunk >= self.chunks as usize {
            return None;
        }
        let entry = DirectoryEntry::from_bytes(&self.pages, chunk * 8)?;
        let first = usize::from(entry.first);
        let end = first + usize::from(entry.count);
        if entry.count == 0 || end > LEAF_ROWS || entry.leaf >= self.leaf_pages {
            return None;
        }
        let rules_begin = self.directory_pages as usize * PAGE_BYTES;
        let leaves_begin = rules_begin + self.rule_pages as usize * PAGE_BYTES;
        let leaf_begin = leaves_begin.checked_add(entry.leaf as usize * PAGE_BYTES)?;
        let leaf = self.pages.get(leaf_begin..leaf_begin + PAGE_BYTES)?;
        // The last row at or before the address; the chunk's first row is for its first byte.
        let offset_in_chunk = (offset_in_text & ((1 << CHUNK_BITS) - 1)) as u16;
        let (mut low, mut high) = (first, end);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if u16_at(leaf, middle * 2)? <= offset_in_chunk {
                low = middle;
            } else {
                high = middle;
            }
        }
        let rule = usize::from(u16_at(leaf, (LEAF_ROWS + low) * 2)?);
        let rules = self.pages.get(rules_begin..leaves_begin)?;
        UnwindRule::from_bytes(rules, rule * 16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::unwind::layout::cfa;

    fn rule(number: i32) -> UnwindRule {
        match number {
            0 => UnwindRule::NONE,
            _ => {
                UnwindRule { cfa: cfa::REGISTER, cfa_register: 7, cfa_offset: number * 8, ..UnwindRule::NONE }
            }
        }
    }

    fn row(address: u64, number: i32) -> Row {
        Row { address: ElfAddress(address), rule: rule(number) }
    }

    /// What `from_rows` promises, by looking at every row.
    fn naive(rows: &[Row], address: u64) -> UnwindRule {
        let Some(last) = rows.last() else { return UnwindRule::NONE };
        if address > (last.address.0 | 4095) {
            return UnwindRule::NONE;
        }
        rows.iter().rev().find(|row| row.address.0 <= address).map_or(UnwindRule::NONE, |row| row.rule)
    }

    #[test]
    fn a_rule_that_spans_chunks_is_found_in_each_of_them() {
        let rows = [row(0x1ffe, 1), row(0x4001, 2), row(0x4003, 0)];
        let table = UnwindTable::from_rows(&rows).unwrap();
        assert_eq!(table.text_begin, ElfAddress(0x1000));
        assert_eq!(table.chunks, 4);
        for address in [0x0, 0xfff, 0x1000, 0x1ffd, 0x1ffe, 0x1fff, 0x2000, 0x3abc, 0x3fff, 0x4000, 0x4001] {
            assert_eq!(table.find(ElfAddress(address)), naive(&rows, address), "{address:#x}");
        }
        assert_eq!(table.find(ElfAddress(0x4003)), UnwindRule::NONE);
        assert_eq!(table.find(ElfAddress(u64::MAX)), UnwindRule::NONE);
    }

    #[test]
    fn a_full_chunk_fills_a_leaf_and_of_a_fuller_one_the_shortest_rows_are_unknown_and_counted() {
        let mut rows: Vec<Row> =
            (0..1024).map(|index| row(0x1000 + index * 2, 1 + (index % 2) as i32)).collect();
        let full = UnwindTable::from_rows(&rows).unwrap();
        assert_eq!((full.rows, full.leaf_pages, full.oversized_chunks), (1024, 1, 0));
        assert_eq!(full.find(ElfAddress(0x1000 + 1023 * 2 + 1)), rule(2));
        // The last row ends the run of two-byte rows with one of 2048 bytes.
        rows.push(row(0x1000 + 1024 * 2, 1));
        rows.push(row(0x2000, 3));
        let over = UnwindTable::from_rows(&rows).unwrap();
        assert_eq!((over.rows, over.oversized_chunks), (3, 1));
        assert_eq!(over.find(ElfAddress(0x1004)), UnwindRule::NONE);
        assert_eq!(over.find(ElfAddress(0x1000 + 1024 * 2)), rule(1));
        assert_eq!(over.find(ElfAddress(0x1fff)), rule(1));
        assert_eq!(over.find(ElfAddress(0x2000)), rule(3));
    }

    #[test]
    fn rows_of_one_byte_each_are_forgotten_at_worst() {
        let rows: Vec<Row> = (0..4096).map(|index| row(index, 1 + (index % 3) as i32)).collect();
        let table = UnwindTable::from_rows(&rows).unwrap();
        assert_eq!((table.rows, table.oversized_chunks), (0, 1));
        let rows: Vec<Row> = (0..4096 / 3).map(|index| row(index * 3, 1 + (index % 3) as i32)).collect();
        let table = UnwindTable::from_rows(&rows).unwrap();
        assert_eq!((table.rows, table.oversized_chunks), (2, 1));
    }

    #[test]
    fn a_chunk_whose_rows_do_not_fit_the_leaf_s_rest_begins_a_new_one() {
        let mut rows = Vec::new();
        for chunk in 0..3u64 {
            rows.extend((0..600).map(|index| row((chunk << 12) + index * 4, 1 + (index % 3) as i32)));
        }
        let table = UnwindTable::from_rows(&rows).unwrap();
        assert_eq!(table.leaf_pages, 3);
        for row in &rows {
            assert_eq!(table.find(row.address), row.rule);
        }
    }

    #[test]
    fn chunks_of_one_rule_share_a_row_and_gaps_take_none() {
        let table = UnwindTable::from_rows(&[row(0, 1), row(1 << 30, 0), row((1 << 30) + 4096, 2)]).unwrap();
        assert_eq!(table.rows, 2);
        assert_eq!(table.leaf_pages, 1);
        assert_eq!(table.find(ElfAddress((1 << 30) - 1)), rule(1));
        assert_eq!(table.find(ElfAddress(1 << 30)), UnwindRule::NONE);
        assert_eq!(table.find(ElfAddress((1 << 30) + 4096)), rule(2));
    }

    #[test]
    fn text_of_more_than_four_gibibytes_is_refused_before_it_is_allocated() {
        let far = UnwindTable::from_rows(&[row(0, 1), row(8, 0), row(1 << 32, 1)]);
        assert!(matches!(far, Err(UnwindError::TooLarge { .. })));
        let near = UnwindTable::from_rows(&[row(0, 1), row(8, 0), row((1 << 32) - 8, 1)]).unwrap();
        assert_eq!(near.chunks, 1 << 20);
        let highest = UnwindTable::from_rows(&[row(u64::MAX - 5, 1)]).unwrap();
        assert_eq!(highest.find(ElfAddress(u64::MAX - 1)), rule(1));
    }

    #[test]
    fn too_many_rules_are_refused() {
        let rows: Vec<Row> = (0..70_000).map(|index| row(index * 8, index as i32 + 1)).collect();
        assert!(matches!(UnwindTable::from_rows(&rows), Err(UnwindError::TooLarge { .. })));
        assert!(UnwindTable::from_rows(&rows[..65_534]).is_ok());
    }

    proptest! {
        #[test]
        fn find_equals_a_look_at_every_row(
            start in 0u64..10_000,
            steps in proptest::collection::vec((prop_oneof![0u64..40, 0u64..9000], 0i32..5), 0..300),
        ) {
            let mut address = start;
            let mut rows = Vec::new();
            for (step, number) in steps {
                address += step;
                rows.push(row(address, number));
            }
            let table = UnwindTable::from_rows(&rows).unwrap();
            for row in &rows {
                let at = row.address.0;
                for address in [at.saturating_sub(1), at, at + 1, at | 4095, (at | 4095) + 1] {
                    prop_assert_eq!(table.find(ElfAddress(address)), naive(&rows, address), "{:#x}", address);
                }
            }
        }

        #[test]
        fn damaged_pages_never_panic(
            pages in proptest::collection::vec(any::<u8>(), 0..20_000),
            chunks: u32, directory_pages: u32, rule_pages: u32, leaf_pages: u32, address: u64,
        ) {
            let table = UnwindTable {
                text_begin: ElfAddress(0), chunks, directory_pages, rule_pages, leaf_pages,
                rows: 0, oversized_chunks: 0, pages,
            };
            for address in [address, address % 100_000] {
                let _ = table.find(ElfAddress(address));
            }
        }
    }
}
