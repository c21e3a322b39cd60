//! The tables of spans in a segment.
//!
//! ```text
//! span_extent   one row: how many spans, when the first and the last of them begin
//! span_texts    pages of texts (spans/dictionary.rs), to be read in order of id
//! span_keys     for each block what is gone through to find an id
//! span_rows     for each block what can be asked for
//! span_details  for each block all the rest (spans/block.rs)
//! ```
//!
//! Blocks of one write, and the texts they add, are one transaction. Ids only grow.

use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{Extent, SegmentReader, SegmentWriter, as_signed, blob, broken};
use crate::model::span::Span;
use crate::store::TimeRange;
use crate::store::error::StoreError;
use crate::store::spans::SpanCuts;
use crate::store::spans::block::{BlockWriter, EncodedBlock};
use crate::store::spans::dictionary::SpanTexts;
use crate::store::spans::limits::within_limits;

pub(super) const SCHEMA: &str = "
CREATE TABLE span_extent (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    spans INTEGER NOT NULL, first_start_ns INTEGER NOT NULL, last_start_ns INTEGER NOT NULL
) STRICT;
INSERT INTO span_extent VALUES (1, 0, 0, 0);
CREATE TABLE span_texts (id INTEGER PRIMARY KEY, texts BLOB NOT NULL) STRICT;
CREATE TABLE span_keys (
    id INTEGER PRIMARY KEY, first_start_ns INTEGER NOT NULL, last_start_ns INTEGER NOT NULL, keys BLOB NOT NULL
) STRICT;
CREATE TABLE span_rows (
    id INTEGER PRIMARY KEY, first_start_ns INTEGER NOT NULL, last_start_ns INTEGER NOT NULL, rows BLOB NOT NULL
) STRICT;
CREATE TABLE span_details (id INTEGER PRIMARY KEY, details BLOB NOT NULL) STRICT;
";

/// Spans of a block: beyond it, what a search has to read for one span would grow.
const MAX_BLOCK_SPANS: u32 = 4096;
/// About how many bytes a block may have.
const MAX_BLOCK_BYTES: usize = 1 << 20;

impl Extent {
    /// Whether a span of it may begin in the range.
    pub(in crate::store) fn has_spans_in(&self, range: TimeRange) -> bool {
        self.spans > 0 && range.overlaps(self.first_span_ns, self.last_span_ns - self.first_span_ns + 1)
    }

    fn with_block(self, block: &EncodedBlock, now_ns: u64) -> Self {
        let first_span_ns =
            if self.spans == 0 { block.first_start_ns } else { self.first_span_ns.min(block.first_start_ns) };
        Self {
            written_ns: now_ns,
            spans: self.spans + u64::from(block.spans),
            first_span_ns,
            last_span_ns: self.last_span_ns.max(block.last_start_ns),
            ..self
        }
    }
}

pub(super) fn read_extent(
    connection: &Connection,
    path: &Path,
    extent: Extent,
) -> Result<Extent, StoreError> {
    let sql = "SELECT spans, first_start_ns, last_start_ns FROM span_extent";
    let row = connection.query_row(sql, [], |row| {
        let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
        Ok(Extent { spans: number(0)?, first_span_ns: number(1)?, last_span_ns: number(2)?, ..extent })
    });
    row.optional()
        .map_err(|source| StoreError::database(path, "the extent of its spans cannot be read", source))?
        .filter(|extent| extent.first_span_ns <= extent.last_span_ns)
        .ok_or_else(|| StoreError::corrupt(path, "it does not say what time its spans are of"))
}

pub(super) fn read_texts(connection: &Connection, path: &Path) -> Result<SpanTexts, StoreError> {
    let failed = |source| StoreError::database(path, "texts of its spans cannot be read", source);
    let mut texts = SpanTexts::default();
    let sql = "SELECT texts FROM span_texts ORDER BY id";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let page = blob(row, 0).map_err(failed)?;
        texts.read(page).map_err(|what| broken(path, "texts of spans", what))?;
    }
    Ok(texts)
}

impl SegmentWriter {
    /// Writes spans from the front, as many as fit into `max_bytes`, in one transaction. Returns how many, and
    /// what was cut off them.
    ///
    /// # Errors
    /// [`StoreError`]. What is in memory may differ from the file then: [`SegmentWriter::reread`].
    pub(in crate::store) fn append_spans(
        &mut self,
        spans: &[Span],
        now_ns: u64,
        max_bytes: u64,
    ) -> Result<(usize, SpanCuts), StoreError> {
        let mut cuts = SpanCuts::default();
        let (mut blocks, mut taken, mut bytes) = (Vec::new(), 0, 0);
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        while taken < spans.len() && (bytes < max_bytes / 2 || taken == 0) {
            let mut block = BlockWriter::new(&mut self.span_dictionary);
            for span in spans.get(taken..).unwrap_or_default() {
                block.add(&within_limits(span, &mut cuts));
                taken += 1;
                if block.spans() == MAX_BLOCK_SPANS || block.bytes() >= MAX_BLOCK_BYTES.min(max_bytes / 2) {
                    break;
                }
            }
            bytes += block.bytes();
            blocks.push(block.finish());
        }
        let extent = blocks.iter().fold(self.extent, |extent, block| extent.with_block(block, now_ns));
        let written = insert(&mut self.connection, &blocks, self.span_dictionary.new_page(), &extent);
        written.map_err(|source| StoreError::database(&self.path, "spans cannot be written", source))?;
        self.span_dictionary.set_written();
        self.extent = extent;
        Ok((taken, cuts))
    }
}

fn insert(
    connection: &mut Connection,
    blocks: &[EncodedBlock],
    texts: &[u8],
    extent: &Extent,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !texts.is_empty() {
        transaction.prepare_cached("INSERT INTO span_texts (texts) VALUES (?1)")?.execute([texts])?;
    }
    for block in blocks {
        let (first, last) = (as_signed(block.first_start_ns), as_signed(block.last_start_ns));
        let sql = "INSERT INTO span_rows (first_start_ns, last_start_ns, rows) VALUES (?1, ?2, ?3)";
        transaction.prepare_cached(sql)?.execute(params![first, last, block.rows])?;
        let id = transaction.last_insert_rowid();
        let sql = "INSERT INTO span_keys VALUES (?1, ?2, ?3, ?4)";
        transaction.prepare_cached(sql)?.execute(params![id, first, last, block.keys])?;
        let sql = "INSERT INTO span_details VALUES (?1, ?2)";
        transaction.prepare_cached(sql)?.execute(params![id, block.details])?;
    }
    let sql = "UPDATE span_extent SET spans = ?1, first_start_ns = ?2, last_start_ns = ?3";
    let numbers = [extent.spans, extent.first_span_ns, extent.last_span_ns];
    transaction.prepare_cached(sql)?.execute(numbers.map(as_signed))?;
    transaction
        .prepare_cached("UPDATE segment SET written_ns = ?1")?
        .execute([as_signed(extent.written_ns)])?;
    transaction.commit()
}

impl SegmentReader {
    /// The texts that the blocks of this reader need.
    pub(in crate::store) fn span_texts(&self) -> Result<SpanTexts, StoreError> {
        read_texts(&self.connection, &self.path)
    }

    /// Calls `each` with the rows of every block up to `last` that has a span which begins in the range, the
    /// newest first.
    pub(in crate::store) fn span_blocks(
        &self,
        range: TimeRange,
        last: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let failed = |source| StoreError::database(&self.path, "its spans cannot be read", source);
        let sql = "SELECT id, rows FROM span_rows
                   WHERE id <= ?1 AND first_start_ns < ?2 AND last_start_ns >= ?3 ORDER BY id DESC";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let numbers = [last, range.to_unix_ns, range.from_unix_ns].map(as_signed);
        let mut rows = statement.query(numbers).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            if each(id.cast_unsigned(), blob(row, 1).map_err(failed)?)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `each` with the keys of every block that has a span which begins in the range, the newest first.
    pub(in crate::store) fn span_keys(
        &self,
        range: TimeRange,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |source| StoreError::database(&self.path, "keys of its spans cannot be read", source);
        let sql = "SELECT id, keys FROM span_keys
                   WHERE first_start_ns < ?1 AND last_start_ns >= ?2 ORDER BY id DESC";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let numbers = [range.to_unix_ns, range.from_unix_ns].map(as_signed);
        let mut rows = statement.query(numbers).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            each(id.cast_unsigned(), blob(row, 1).map_err(failed)?)?;
        }
        Ok(())
    }

    /// Calls `each` with the rows of a block.
    pub(in crate::store) fn span_rows<T>(
        &self,
        block: u64,
        each: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.one_blob("SELECT rows FROM span_rows WHERE id = ?1", block, each)
    }

    /// Calls `each` with the details of a block.
    pub(in crate::store) fn span_details<T>(
        &self,
        block: u64,
        each: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.one_blob("SELECT details FROM span_details WHERE id = ?1", block, each)
    }

    fn one_blob<T>(
        &self,
        sql: &str,
        block: u64,
        each: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let failed = |source| StoreError::database(&self.path, "its spans cannot be read", source);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query([as_signed(block)]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else {
            return Err(StoreError::corrupt(&self.path, format!("block {block} of its spans is not whole")));
        };
        each(blob(row, 0).map_err(failed)?)
    }
}
