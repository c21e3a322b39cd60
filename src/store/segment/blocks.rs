//! The table of blocks; rollups have one of the same form.
//!
//! ```text
//! id       window (or rollup) × 2^24 + the first series that it has
//! samples  (series − series before, length, block)…, in order of series; the first has no difference
//! ```
//!
//! A block (`block.rs`) has some tens of bytes, a row of SQLite a dozen of its own: so several blocks share one, but
//! no more than leave the pages full. Before version 4 of the schema a row was a block.

use rusqlite::{Transaction, params};

use super::{SegmentReader, blob, broken};
use crate::store::block::Layout;
use crate::store::error::StoreError;
use crate::store::varint::{Malformed, Reader, put};

/// Bits of a row's id for the series.
const SERIES_BITS: u32 = 24;
pub(super) const MAX_SERIES: u32 = (1 << SERIES_BITS) - 1;
/// Another block goes to another row when one has this many bytes. The last one of a page of 8 KiB is moved to the
/// next as a whole, which leaves half as many unused.
const ROW_BYTES: usize = 512;

/// Whose blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Table {
    Windows,
    Rollups,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Self::Windows => "blocks",
            Self::Rollups => "rollup_blocks",
        }
    }
}

/// Writes the blocks of a window or rollup.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    table: Table,
    of: i64,
    blocks: &[(u32, Vec<u8>)],
) -> Result<(), rusqlite::Error> {
    let sql = format!("INSERT INTO {} (id, samples) VALUES (?1, ?2)", table.name());
    let mut statement = transaction.prepare_cached(&sql)?;
    for (series, row) in rows(blocks) {
        statement.execute(params![row_id(of, series), row])?;
    }
    Ok(())
}

fn row_id(window: i64, series: u32) -> i64 {
    window << SERIES_BITS | i64::from(series & MAX_SERIES)
}

fn series_of(id: i64) -> u32 {
    u32::try_from(id & i64::from(MAX_SERIES)).unwrap_or(u32::MAX)
}

/// The rows of a window's blocks, with the first series of each.
fn rows(blocks: &[(u32, Vec<u8>)]) -> Vec<(u32, Vec<u8>)> {
    let mut rows: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut before = 0;
    for (series, block) in blocks {
        let row = match rows.last_mut() {
            Some((_, row)) if row.len() < ROW_BYTES => row,
            _ => {
                rows.push((*series, Vec::new()));
                before = *series;
                let Some((_, row)) = rows.last_mut() else { continue };
                row
            }
        };
        put(row, series.wrapping_sub(before).into());
        put(row, block.len() as u64);
        row.extend_from_slice(block);
        before = *series;
    }
    rows
}

/// The blocks of a row, each with its series.
struct Row<'a> {
    layout: Layout,
    series: u32,
    bytes: Reader<'a>,
}

impl<'a> Row<'a> {
    fn new(layout: Layout, id: i64, row: &'a [u8]) -> Self {
        Self { layout, series: series_of(id), bytes: Reader::new(row) }
    }

    fn next(&mut self) -> Result<Option<(u32, &'a [u8])>, Malformed> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        if self.layout == Layout::ByNode {
            return Ok(Some((self.series, self.bytes.rest())));
        }
        let series = self.series.checked_add(self.bytes.id()?).filter(|&series| series <= MAX_SERIES);
        self.series = series.ok_or(Malformed("a series beyond all that can be"))?;
        let length = self.bytes.count(1)?;
        Ok(Some((self.series, self.bytes.bytes(length)?)))
    }
}

impl SegmentReader {
    /// Calls `each` with the samples of these series in these windows: `(window, series)`, sorted.
    pub(in crate::store) fn blocks(
        &self,
        table: Table,
        wanted: &[(i64, u32)],
        mut each: impl FnMut(i64, u32, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |source| StoreError::database(&self.path, "its samples cannot be read", source);
        let table = table.name();
        let sql = format!("SELECT id, samples FROM {table} WHERE id <= ?1 ORDER BY id DESC LIMIT 1");
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let mut wanted = wanted.iter().copied().peekable();
        while let Some(&(window, series)) = wanted.peek() {
            let mut rows = statement.query([row_id(window, series)]).map_err(failed)?;
            if let Some(row) = rows.next().map_err(failed)? {
                let id: i64 = row.get(0).map_err(failed)?;
                let mut row = Row::new(self.layout, id, blob(row, 1).map_err(failed)?);
                while let Some((series, block)) =
                    row.next().map_err(|what| broken(&self.path, "blocks", what))?
                {
                    if wanted.next_if_eq(&(id >> SERIES_BITS, series)).is_some() {
                        each(window, series, block)?;
                    }
                }
            }
            if wanted.peek() == Some(&(window, series)) {
                return Err(StoreError::corrupt(
                    &self.path,
                    format!("row {window} of {table} lacks a block"),
                ));
            }
        }
        Ok(())
    }

    /// Calls `each` with all samples of the windows from `first` to `last`.
    pub(in crate::store) fn all_blocks(
        &self,
        table: Table,
        first: i64,
        last: i64,
        mut each: impl FnMut(i64, u32, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |source| StoreError::database(&self.path, "its samples cannot be read", source);
        let sql = format!("SELECT id, samples FROM {} WHERE id BETWEEN ?1 AND ?2 ORDER BY id", table.name());
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let ids = [row_id(first, 0), row_id(last, MAX_SERIES)];
        let mut rows = statement.query(ids).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            let mut row = Row::new(self.layout, id, blob(row, 1).map_err(failed)?);
            while let Some((series, block)) = row.next().map_err(|what| broken(&self.path, "blocks", what))? {
                each(id >> SERIES_BITS, series, block)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_come_back_from_the_rows_that_they_share(
            blocks in prop::collection::btree_map(0..=MAX_SERIES, prop::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let blocks: Vec<_> = blocks.into_iter().collect();
            let rows = rows(&blocks);
            let mut read = Vec::new();
            for (first, row) in &rows {
                let mut row = Row::new(Layout::BySeries, row_id(7, *first), row);
                while let Some((series, block)) = row.next().unwrap() {
                    read.push((series, block.to_vec()));
                }
            }
            prop_assert_eq!(read, blocks);
            prop_assert!(rows.iter().all(|(_, row)| row.len() < ROW_BYTES + 310));
        }

        #[test]
        fn hostile_rows_never_panic_and_end(row: Vec<u8>, id: i64) {
            let mut row = Row::new(Layout::BySeries, id, &row);
            while let Ok(Some(_)) = row.next() {}
        }
    }
}
