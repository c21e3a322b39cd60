//! Address ranges with rules → pages, laid out as `bpf/spanflame.h` says.
//!
//! Ranges come in ascending order and are cut at the chunk boundaries (4 KiB of text). A chunk's rows
//! begin with one for its first byte, whatever came before, and never cross from one leaf to the next;
//! a chunk about which nothing is known has no rows at all.

use super::UnwindTable;
use super::layout::{
    CHUNK_BITS, DIRECTORY_PER_PAGE, DirectoryEntry, LEAF_ROWS, PAGE_BYTES, RULES_PER_PAGE, UnwindRule,
};
use crate::ElfAddress;

/// Chunks of an object: 4 GiB of text, 8 MiB of directory.
pub(super) const MAX_CHUNKS: u64 = 1 << 20;
/// Rules of an object: their numbers are 16 bits.
pub(super) const MAX_RULES: usize = (1 << 16) - 1;
/// Leaves of an object, 128 MiB; Chromium has less than a tenth.
pub(super) const MAX_LEAVES: usize = 1 << 15;

const CHUNK_BYTES: u64 = 1 << CHUNK_BITS;

/// Packs ranges.
#[derive(Debug, Default)]
pub(super) struct Packer {
    directory: Vec<DirectoryEntry>,
    leaves: Vec<u8>,
    /// Rows in the last leaf.
    used_rows: usize,
    /// Number (address / 4 KiB) of the chunk that entry 0 of the directory is for.
    first_chunk: u64,
    chunk: OpenChunk,
    /// A run of one row in the last leaf, which other chunks that are all of one rule share.
    single_row: Option<(u16, DirectoryEntry)>,
    rows: u64,
    oversized_chunks: u64,
}

/// The chunk that ranges are being added to.
#[derive(Debug, Default)]
struct OpenChunk {
    number: Option<u64>,
    rows: Vec<(u16, u16)>,
    /// Bytes from the chunk's start about which something was said.
    filled_bytes: u64,
}

impl OpenChunk {
    fn push(&mut self, offset: u64, rule: u16) {
        let same = self.rows.last().is_some_and(|(_, last_rule)| *last_rule == rule);
        if !same {
            // Callers stay within the chunk, so it fits.
            self.rows.push((offset as u16, rule));
        }
    }
}

impl OpenChunk {
    /// Makes the rows fit a leaf by forgetting those of the fewest bytes: from there on nothing is
    /// known, and neighbours that are forgotten become one. Seen where clang makes tail calls from
    /// every branch of a function, each with an epilogue that has a row for every `pop`: the pops are
    /// forgotten, the places that calls return to are kept.
    fn forget_shortest_rows(&mut self) {
        let ends: Vec<u64> =
            self.rows.iter().skip(1).map(|(offset, _)| u64::from(*offset)).chain([CHUNK_BYTES]).collect();
        // Rows of nine bytes or more and the gaps between them are fewer than LEAF_ROWS.
        for forgotten_bytes in 1..=8 {
            let mut kept: Vec<(u16, u16)> = Vec::with_capacity(LEAF_ROWS);
            for ((offset, rule), end) in self.rows.iter().zip(&ends) {
                let rule = if end - u64::from(*offset) <= forgotten_bytes { 0 } else { *rule };
                if kept.last().is_none_or(|(_, last_rule)| *last_rule != rule) {
                    kept.push((*offset, rule));
                }
            }
            if kept.len() <= LEAF_ROWS {
                self.rows = kept;
                return;
            }
        }
        self.rows.clear();
    }
}

impl Packer {
    /// Adds the range `[begin, end)`, which must not begin before the last one's end.
    ///
    /// # Errors
    /// What does not fit the format, for [`super::UnwindError::TooLarge`].
    pub(super) fn add(&mut self, begin: u64, end: u64, rule: u16) -> Result<(), String> {
        let mut position = begin;
        while position < end {
            let number = position >> CHUNK_BITS;
            if self.chunk.number != Some(number) {
                self.close_chunk()?;
                self.open_chunk(number)?;
            }
            let chunk_begin = number << CHUNK_BITS;
            let offset = position - chunk_begin;
            let piece_end = (end - chunk_begin).min(CHUNK_BYTES);
            if offset > self.chunk.filled_bytes {
                self.chunk.push(self.chunk.filled_bytes, 0);
            }
            self.chunk.push(offset, rule);
            self.chunk.filled_bytes = piece_end;
            let Some(next) = chunk_begin.checked_add(piece_end) else { break };
            position = next;
        }
        Ok(())
    }

    fn open_chunk(&mut self, number: u64) -> Result<(), String> {
        if self.directory.is_empty() {
            self.first_chunk = number;
        }
        let index = number.checked_sub(self.first_chunk).ok_or("its ranges are not ascending")?;
        if index >= MAX_CHUNKS {
            let begin = self.first_chunk << CHUNK_BITS;
            return Err(format!("its code spans more than 4 GiB from {begin:#x}"));
        }
        // Below the limit: it fits. Chunks that were skipped have entries of count 0.
        self.directory.resize(index as usize + 1, DirectoryEntry::default());
        self.chunk.number = Some(number);
        self.chunk.rows.clear();
        self.chunk.filled_bytes = 0;
        Ok(())
    }

    fn close_chunk(&mut self) -> Result<(), String> {
        if self.chunk.number.is_none() {
            return Ok(());
        }
        if self.chunk.filled_bytes < CHUNK_BYTES {
            self.chunk.push(self.chunk.filled_bytes, 0);
        }
        let entry = self.place_rows()?;
        if let Some(last) = self.directory.last_mut() {
            *last = entry;
        }
        self.chunk.number = None;
        Ok(())
    }

    /// Writes the open chunk's rows into a leaf.
    fn place_rows(&mut self) -> Result<DirectoryEntry, String> {
        if self.chunk.rows.len() > LEAF_ROWS {
            self.oversized_chunks += 1;
            self.chunk.forget_shortest_rows();
        }
        let count = self.chunk.rows.len();
        let only_rule = match self.chunk.rows.as_slice() {
            [] | [(_, 0)] => return Ok(DirectoryEntry::default()),
            [(_, rule)] => Some(*rule),
            _ => None,
        };
        if let (Some(rule), Some((shared_rule, entry))) = (only_rule, self.single_row)
            && rule == shared_rule
        {
            return Ok(entry);
        }
        if self.leaves.is_empty() || self.used_rows + count > LEAF_ROWS {
            if self.leaves.len() >= MAX_LEAVES * PAGE_BYTES {
                return Err(format!("it has more than {} unwind rows", self.rows));
            }
            self.leaves.resize(self.leaves.len() + PAGE_BYTES, 0);
            self.used_rows = 0;
            self.single_row = None;
        }
        let leaf_begin = self.leaves.len() - PAGE_BYTES;
        let (offsets, rules) = self.leaves.split_at_mut(leaf_begin + LEAF_ROWS * 2);
        let offsets = offsets.get_mut(leaf_begin + self.used_rows * 2..).unwrap_or_default();
        let rules = rules.get_mut(self.used_rows * 2..).unwrap_or_default();
        let places = offsets.chunks_exact_mut(2).zip(rules.chunks_exact_mut(2));
        for ((offset_place, rule_place), (offset, rule)) in places.zip(&self.chunk.rows) {
            offset_place.copy_from_slice(&offset.to_le_bytes());
            rule_place.copy_from_slice(&rule.to_le_bytes());
        }
        // At most MAX_LEAVES and LEAF_ROWS: they fit.
        let entry = DirectoryEntry {
            leaf: (leaf_begin / PAGE_BYTES) as u32,
            first: self.used_rows as u16,
            count: count as u16,
        };
        self.used_rows += count;
        self.rows += count as u64;
        if let Some(rule) = only_rule {
            self.single_row = Some((rule, entry));
        }
        Ok(entry)
    }

    /// The table. `rules` by number, NONE first.
    ///
    /// # Errors
    /// What does not fit the format.
    pub(super) fn finish(mut self, rules: &[UnwindRule]) -> Result<UnwindTable, String> {
        self.close_chunk()?;
        if rules.len() > MAX_RULES {
            return Err(format!("it has {} different unwind rules, of at most {MAX_RULES}", rules.len()));
        }
        let directory_pages = self.directory.len().div_ceil(DIRECTORY_PER_PAGE);
        let rule_pages = rules.len().div_ceil(RULES_PER_PAGE);
        let leaf_pages = self.leaves.len() / PAGE_BYTES;
        let mut head = Vec::with_capacity((directory_pages + rule_pages) * PAGE_BYTES);
        for entry in &self.directory {
            head.extend_from_slice(&entry.leaf.to_le_bytes());
            head.extend_from_slice(&entry.first.to_le_bytes());
            head.extend_from_slice(&entry.count.to_le_bytes());
        }
        head.resize(directory_pages * PAGE_BYTES, 0);
        for rule in rules {
            head.extend_from_slice(&rule.to_bytes());
        }
        head.resize((directory_pages + rule_pages) * PAGE_BYTES, 0);
        // Moved up within their own memory: a second copy of all leaves would be half of the peak.
        let mut pages = self.leaves;
        let leaf_bytes = pages.len();
        pages.reserve_exact(head.len());
        pages.resize(leaf_bytes + head.len(), 0);
        pages.copy_within(..leaf_bytes, head.len());
        if let Some(front) = pages.get_mut(..head.len()) {
            front.copy_from_slice(&head);
        }
        pages.shrink_to_fit();
        Ok(UnwindTable {
            text_begin: ElfAddress(self.first_chunk << CHUNK_BITS),
            // All three are limited above.
            chunks: self.directory.len() as u32,
            directory_pages: directory_pages as u32,
            rule_pages: rule_pages as u32,
            leaf_pages: leaf_pages as u32,
            rows: self.rows,
            oversized_chunks: self.oversized_chunks,
            pages,
        })
    }
}
