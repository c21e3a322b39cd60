//! The tables of rollups (`rollup.rs` tells what they are).
//!
//! ```text
//! rollups        a row for each stretch that has been added up: when it is, the number of the last window in it, and
//!                the series that it has (differences)
//! rollup_blocks  id: rollup × 2^24 + the first series; samples as `blocks` has them
//! ```
//!
//! They came after version 4 of the schema, which is the same without them: a segment that lacks them has none, and a
//! program that knows nothing of them reads the windows and writes on.

use std::collections::HashMap;

use rusqlite::{Connection, TransactionBehavior, params};

use super::blocks::{self, Table};
use super::{SegmentReader, SegmentWriter, as_signed, blob, broken};
use crate::store::TimeRange;
use crate::store::dictionary::Dictionary;
use crate::store::error::StoreError;
use crate::store::rollup::{LEFT_OUT, SeriesRollup, range_of, stretch_at};
use crate::store::rows::LabelsRow;
use crate::store::varint::{Malformed, Reader, put};
use crate::store::windows::Batch;

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS rollups (
    id INTEGER PRIMARY KEY, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
    last_window INTEGER NOT NULL, series BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS rollup_blocks (id INTEGER PRIMARY KEY, samples BLOB NOT NULL) STRICT;
";

/// Most bytes of blocks that are in memory at a time while a stretch is added up.
const BYTES_AT_A_TIME: usize = 16 << 20;

/// A rollup as a question sees it.
#[derive(Debug)]
pub(in crate::store) struct Rollup {
    pub(in crate::store) id: i64,
    range: TimeRange,
    last_window: i64,
    /// Rising.
    series: Vec<u32>,
}

impl Rollup {
    /// Whether it stands for this window.
    pub(in crate::store) fn has_window(&self, window: i64, start_ns: u64) -> bool {
        window <= self.last_window && (self.range.from_unix_ns..self.range.to_unix_ns).contains(&start_ns)
    }

    /// The series that it has, by number.
    pub(in crate::store) fn series(&self) -> &[u32] {
        &self.series
    }

    /// Where among its series this one is.
    pub(in crate::store) fn place_of(&self, series: u32) -> Option<usize> {
        self.series.binary_search(&series).ok()
    }
}

impl SegmentReader {
    /// The rollups of stretches that lie in the range.
    pub(in crate::store) fn rollups(&self, range: TimeRange) -> Result<Vec<Rollup>, StoreError> {
        let failed = |source| StoreError::database(&self.path, "its rollups cannot be read", source);
        if !has_tables(&self.connection).map_err(failed)? {
            return Ok(Vec::new());
        }
        let sql = "SELECT id, start_ns, end_ns, last_window, series FROM rollups
                   WHERE start_ns >= ?1 AND end_ns <= ?2 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows =
            statement.query([as_signed(range.from_unix_ns), as_signed(range.to_unix_ns)]).map_err(failed)?;
        let mut rollups = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let time = |column| row.get::<_, i64>(column).map(|ns| u64::try_from(ns).unwrap_or(0));
            rollups.push(Rollup {
                id: row.get(0).map_err(failed)?,
                range: TimeRange {
                    from_unix_ns: time(1).map_err(failed)?,
                    to_unix_ns: time(2).map_err(failed)?,
                },
                last_window: row.get(3).map_err(failed)?,
                series: read_series(blob(row, 4).map_err(failed)?)
                    .map_err(|what| broken(&self.path, "rollups", what))?,
            });
        }
        Ok(rollups)
    }
}

fn has_tables(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('rollups', 'rollup_blocks')";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|tables| tables == 2)
}

fn write_series(blocks: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = 0;
    for &(series, _) in blocks {
        put(&mut bytes, series.wrapping_sub(before).into());
        before = series;
    }
    bytes
}

fn read_series(bytes: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut bytes = Reader::new(bytes);
    let mut series: Vec<u32> = Vec::new();
    while !bytes.is_empty() {
        let step = bytes.id()?;
        let next = match series.last() {
            Some(_) if step == 0 => return Err(Malformed("a series that is there twice")),
            Some(last) => last.checked_add(step),
            None => Some(step),
        };
        let next = next.filter(|&next| next <= blocks::MAX_SERIES);
        series.push(next.ok_or(Malformed("a series beyond all that can be"))?);
    }
    Ok(series)
}

impl SegmentWriter {
    /// Adds the windows of the last stretch up if one that begins at this time is of a later one.
    pub(super) fn roll_up_before(&mut self, start_ns: u64) -> Result<(), StoreError> {
        if self.stretch.is_some_and(|stretch| stretch < stretch_at(start_ns)) {
            self.roll_up()?;
        }
        Ok(())
    }

    /// Adds the windows of the last stretch up, if there are any. If they cannot be, questions are answered without;
    /// they take longer then.
    ///
    /// # Errors
    /// [`StoreError`] if the segment cannot be read again after that: whether a commit that failed has left pages of
    /// the dictionary in the file is only told by the file.
    pub(in crate::store) fn roll_up(&mut self) -> Result<(), StoreError> {
        let Some(stretch) = self.stretch.take() else { return Ok(()) };
        if let Err(error) = self.try_to_roll_up(range_of(stretch)) {
            tracing::warn!(
                "windows could not be added up, so that questions about a day take longer: {error}"
            );
            self.reread()?;
            // Not tried again with every window.
            self.stretch = None;
        }
        Ok(())
    }

    fn try_to_roll_up(&mut self, stretch: TimeRange) -> Result<(), StoreError> {
        let reader = SegmentReader::open(&self.path)?;
        if !reader.rollups(stretch)?.is_empty() {
            return Ok(());
        }
        let mut windows: Vec<i64> = Vec::new();
        reader.windows(stretch, |window| {
            if (stretch.from_unix_ns..stretch.to_unix_ns).contains(&window.start_ns) {
                windows.push(window.id);
            }
            Ok(())
        })?;
        let (Some(&first), Some(&last)) = (windows.first(), windows.last()) else { return Ok(()) };
        let is_of_stretch = |window: i64| windows.binary_search(&window).is_ok();

        let mut bytes_by_series: Vec<usize> = vec![0; self.dictionary.series.len()];
        reader.all_blocks(Table::Windows, first, last, |window, series, block| {
            if let Some(bytes) = bytes_by_series.get_mut(series as usize).filter(|_| is_of_stretch(window)) {
                *bytes += block.len();
            }
            Ok(())
        })?;
        let mut kept_labels = KeptLabels::default();
        let mut rollups: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut from = 0;
        while from < bytes_by_series.len() {
            let mut to = from;
            let mut bytes = 0;
            while let Some(more) =
                bytes_by_series.get(to).filter(|more| to == from || bytes + **more <= BYTES_AT_A_TIME)
            {
                bytes += more;
                to += 1;
            }
            let mut batch = Batch::default();
            reader.all_blocks(Table::Windows, first, last, |window, series, block| {
                if (from..to).contains(&(series as usize)) && is_of_stretch(window) {
                    batch.add(window, series, block);
                }
                Ok(())
            })?;
            let batch = batch.sorted();
            let mut blocks = batch.blocks().peekable();
            while let Some((_, series, block)) = blocks.next() {
                let factors = self.dictionary.factors_of(series);
                let mut rollup = SeriesRollup::new(&factors, self.dictionary.stacks.len_of(series));
                let mut add = |block| {
                    let kept = |row| kept_labels.without_threads(row, &mut self.dictionary);
                    rollup.add(block, kept).map_err(|what| broken(&self.path, "block", what))
                };
                add(block)?;
                while let Some((_, _, block)) = blocks.next_if(|(_, next, _)| *next == series) {
                    add(block)?;
                }
                rollups.extend(rollup.finish().map(|block| (series, block)));
            }
            from = to;
        }
        drop(reader);
        if rollups.is_empty() {
            return Ok(());
        }
        let pages = self.dictionary.new_pages();
        let failed = |source| StoreError::database(&self.path, "rollups cannot be written", source);
        insert(&mut self.connection, stretch, last, &rollups, &pages).map_err(failed)?;
        self.dictionary.set_written();
        Ok(())
    }

    /// The stretch of the last window, after the segment has been opened.
    pub(super) fn find_stretch(&mut self) -> Result<(), StoreError> {
        let failed = |source| StoreError::database(&self.path, "its windows cannot be read", source);
        let sql = "SELECT max(start_ns) FROM windows";
        let start_ns: Option<i64> = self.connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
        self.stretch = start_ns.and_then(|start_ns| u64::try_from(start_ns).ok()).map(stretch_at);
        Ok(())
    }
}

fn insert(
    connection: &mut Connection,
    stretch: TimeRange,
    last_window: i64,
    rollups: &[(u32, Vec<u8>)],
    pages: &[(i64, Vec<u8>)],
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    super::insert_pages(&transaction, pages)?;
    let sql = "INSERT INTO rollups (start_ns, end_ns, last_window, series) VALUES (?1, ?2, ?3, ?4)";
    transaction.prepare_cached(sql)?.execute(params![
        as_signed(stretch.from_unix_ns),
        as_signed(stretch.to_unix_ns),
        last_window,
        write_series(rollups)
    ])?;
    blocks::insert(&transaction, Table::Rollups, transaction.last_insert_rowid(), rollups)?;
    transaction.commit()
}

/// Rows of labels without those of threads, by the rows with them.
#[derive(Default)]
struct KeptLabels(HashMap<u32, u32>);

impl KeptLabels {
    fn without_threads(&mut self, row: u32, dictionary: &mut Dictionary) -> u32 {
        *self.0.entry(row).or_insert_with(|| {
            let mut labels = dictionary.labels.get(row).cloned().unwrap_or_default();
            let LabelsRow(kept) = &mut labels;
            kept.retain(|&(key, _)| {
                let key = dictionary.texts.get(key).map_or("", String::as_str);
                !LEFT_OUT.contains(&key)
            });
            dictionary.labels.intern(labels)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_series_of_a_rollup_come_back(series in prop::collection::btree_set(0..5000_u32, 0..50)) {
            let blocks: Vec<_> = series.iter().map(|&series| (series, Vec::new())).collect();
            prop_assert!(read_series(&write_series(&blocks)).unwrap().into_iter().eq(series));
        }

        #[test]
        fn hostile_lists_of_series_never_panic_and_take_little(bytes: Vec<u8>) {
            if let Ok(series) = read_series(&bytes) {
                prop_assert!(series.len() <= bytes.len());
                prop_assert!(series.is_sorted_by(|before, after| before < after));
            }
        }
    }
}
