//! The windows of a segment that a question goes to, and the blocks of them, or of the rollups that stand for them, that
//! it needs.

use std::ops::Range;

use super::error::StoreError;
use super::query::Selected;
use super::rows::FormatRow;
use super::segment::blocks::Table;
use super::segment::rollups::Rollup;
use super::segment::{SegmentReader, StoredWindow};
use super::varint::Malformed;

/// See the module.
#[derive(Default)]
pub(super) struct Windows {
    wanted: Vec<(i64, u32)>,
    /// How many blocks the windows have in all.
    blocks: usize,
    /// Rollups whose windows are all asked for, and which of their series are wanted.
    rollups: Vec<(Rollup, Vec<bool>)>,
}

impl Windows {
    /// No windows yet. In place of those that have been added up, rollups are read where they have a series.
    pub(super) fn with_rollups(rollups: Vec<Rollup>) -> Self {
        let rollups = rollups
            .into_iter()
            .map(|rollup| {
                let wanted = vec![false; rollup.series().len()];
                (rollup, wanted)
            })
            .collect();
        Self { rollups, ..Self::default() }
    }

    /// Adds a window, with what of it is selected.
    pub(super) fn add(
        &mut self,
        window: &StoredWindow<'_>,
        format: &FormatRow,
        selected: &Selected,
    ) -> Result<(), Malformed> {
        let Self { wanted, blocks, rollups } = self;
        let mut rollup = rollups.iter_mut().find(|(rollup, _)| rollup.has_window(window.id, window.start_ns));
        window.totals(format, |series, _| {
            *blocks += 1;
            if !selected.has_series(series) {
                return;
            }
            let of_rollup =
                rollup.as_mut().and_then(|(rollup, wanted)| wanted.get_mut(rollup.place_of(series)?));
            match of_rollup {
                Some(is_wanted) => *is_wanted = true,
                None => wanted.push((window.id, series)),
            }
        })
    }

    /// Whether no block is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.work() == 0
    }

    /// About how many blocks of windows there are to be read: one of a rollup has the stacks of many.
    pub(super) fn work(&self) -> usize {
        let of_rollups: usize =
            self.rollups.iter().map(|(_, wanted)| wanted.iter().filter(|wanted| **wanted).count()).sum();
        self.wanted.len() + of_rollups * BLOCKS_OF_ROLLUP
    }

    /// Reads the wanted blocks: one by one if they are few, else all in one go, which takes a tenth of
    /// the time for each. Batches that have been handed on come back empty, or others.
    pub(super) fn read(
        &self,
        reader: &SegmentReader,
        mut hand_on: impl FnMut(Batch) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        let mut batch = Some(Batch::default());
        let mut add = |window, series, block: &[u8]| {
            let mut filled = batch.take().unwrap_or_default();
            if filled.bytes.capacity() == 0 && self.wanted.len() > MANY_BLOCKS {
                // One that grows is copied again and again.
                filled.bytes.reserve(BATCH_BYTES + BATCH_BYTES / 8);
            }
            filled.add(window, series, block);
            batch = Some(if filled.bytes.len() >= BATCH_BYTES { hand_on(filled.sorted())? } else { filled });
            Ok(())
        };
        for (rollup, wanted) in &self.rollups {
            let wanted: Vec<_> = rollup
                .series()
                .iter()
                .zip(wanted)
                .filter(|(_, wanted)| **wanted)
                .map(|(series, _)| (rollup.id, *series))
                .collect();
            reader.blocks(Table::Rollups, &wanted, &mut add)?;
        }
        if self.wanted.len() < self.blocks / 8 {
            reader.blocks(Table::Windows, &self.wanted, add)?;
        } else if let (Some(&first), Some(&last)) = (self.wanted.first(), self.wanted.last()) {
            let mut wanted = self.wanted.iter().peekable();
            let mut found = 0;
            reader.all_blocks(Table::Windows, first.0, last.0, |window, series, block| {
                while wanted.next_if(|next| **next < (window, series)).is_some() {}
                if wanted.next_if(|next| **next == (window, series)).is_none() {
                    return Ok(());
                }
                found += 1;
                add(window, series, block)
            })?;
            if found < self.wanted.len() {
                return Err(StoreError::corrupt(reader.path(), "a window lacks a block"));
            }
        }
        hand_on(batch.unwrap_or_default().sorted()).map(drop)
    }
}

/// How many bytes of blocks are put into another order at a time.
const BATCH_BYTES: usize = 8 << 20;
/// So many blocks probably fill a batch.
const MANY_BLOCKS: usize = 50_000;
/// The block of a rollup takes about as long as so many of windows.
const BLOCKS_OF_ROLLUP: usize = 64;

/// Blocks of many windows, series by series: those of one series add to the same stacks, which stay in the
/// processor's caches then. Of a day of a host every sample would be a cache miss.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Series, window, and where the block lies.
    blocks: Vec<(u32, i64, Range<usize>)>,
}

impl Batch {
    pub(super) fn add(&mut self, window: i64, series: u32, block: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(block);
        self.blocks.push((series, window, start..self.bytes.len()));
    }

    pub(super) fn sorted(mut self) -> Self {
        self.blocks.sort_unstable_by_key(|&(series, window, _)| (series, window));
        self
    }

    /// Window, series and block of each.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (i64, u32, &[u8])> {
        let block = |place: &Range<usize>| self.bytes.get(place.clone()).unwrap_or_default();
        self.blocks.iter().map(move |(series, window, place)| (*window, *series, block(place)))
    }

    /// Nothing, with the memory that it had.
    pub(super) fn cleared(mut self) -> Self {
        self.bytes.clear();
        self.blocks.clear();
        self
    }
}
