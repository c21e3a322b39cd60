//! A segment: a file with the windows of at most a day, and the dictionary that they need.
//!
//! ```text
//! segment     one row: when it was made, what time its windows are of
//! dictionary  pages of rows (rows.rs), to be read in order of id
//! windows     a row for each window: time, format, totals by series, mappings, comments
//! blocks      the samples of some series in a window: segment/blocks.rs
//! rollup…     samples of some hours added up: segment/rollups.rs
//! span_…      spans: segment/spans.rs
//! ```
//!
//! A window, its blocks and the rows that it adds to the dictionary are one transaction. Ids only grow, so
//! that a transaction writes to the end of each table: about as many bytes to the log as it has, whereas
//! an order by series would rewrite a page for each series. The log (`-wal`) is synced when it is
//! written back, not at each window (`synchronous=NORMAL`): the end of the process costs nothing, a loss of power the
//! last windows. A segment that is finished has no log any more.

pub(super) mod blocks;
pub(super) mod rollups;
mod spans;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};

use self::blocks::Table;
use super::TimeRange;
use super::block::Layout;
use super::dictionary::{Dictionary, Tables};
use super::encode::{EncodedWindow, encode};
use super::error::StoreError;
use super::rollup::stretch_at;
use super::rows::FormatRow;
use super::spans::dictionary::SpanDictionary;
use super::varint::Malformed;
use super::window_row::{read_plain_totals, read_totals};
use crate::model::Profile;

/// `SPFL`: says that a `SQLite` file is one of ours.
const APPLICATION_ID: i64 = 0x5350_464c;
/// Version of the tables and of everything that is encoded in them. Those of earlier versions are read as they are
/// and not written on. Version 1 has no spans, and there has been none before it; version 3 may have frames of
/// runtimes, of which an older program knows nothing; version 4 numbers stacks for each series.
pub(super) const SCHEMA_VERSION: i64 = 4;
const SCHEMA_WITHOUT_SPANS: i64 = 1;
const SCHEMA_BY_SERIES: i64 = 4;
/// How long to wait for a lock: writers and readers do not wait for each other, only for the moments in
/// which a log is written back or opened.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const PAGE_BYTES: u64 = 8192;

const SCHEMA: &str = "
CREATE TABLE segment (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    created_ns INTEGER NOT NULL, written_ns INTEGER NOT NULL, windows INTEGER NOT NULL,
    first_start_ns INTEGER NOT NULL, last_end_ns INTEGER NOT NULL, longest_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE dictionary (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, rows BLOB NOT NULL) STRICT;
CREATE TABLE windows (
    id INTEGER PRIMARY KEY, start_ns INTEGER NOT NULL, duration_ns INTEGER NOT NULL,
    format INTEGER NOT NULL, totals BLOB NOT NULL, mappings BLOB NOT NULL, comments BLOB NOT NULL
) STRICT;
CREATE INDEX windows_by_start ON windows (start_ns);
CREATE TABLE blocks (id INTEGER PRIMARY KEY, samples BLOB NOT NULL) STRICT;
";

/// What time a segment is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    /// When it was made, by the clock.
    pub(super) created_ns: u64,
    /// When it was last written, by the clock. Its age counts from here, so that old profiles that are
    /// uploaded are kept as long as others.
    pub(super) written_ns: u64,
    pub(super) windows: u64,
    pub(super) first_start_ns: u64,
    pub(super) last_end_ns: u64,
    /// The longest window: none that overlaps a moment begins longer than this before it.
    pub(super) longest_ns: u64,
    /// How many spans were written to it; some may have replaced others.
    pub(super) spans: u64,
    pub(super) first_span_ns: u64,
    /// When the last span begins.
    pub(super) last_span_ns: u64,
}

impl Extent {
    fn with(self, window: &EncodedWindow, now_ns: u64) -> Self {
        let start_ns = window.start_ns.cast_unsigned();
        let end_ns = start_ns.saturating_add(window.duration_ns.cast_unsigned());
        let first_start_ns = if self.windows == 0 { start_ns } else { self.first_start_ns.min(start_ns) };
        Self {
            written_ns: now_ns,
            windows: self.windows + 1,
            first_start_ns,
            last_end_ns: self.last_end_ns.max(end_ns),
            longest_ns: self.longest_ns.max(window.duration_ns.cast_unsigned()),
            ..self
        }
    }

    /// Whether a window of it may overlap the range.
    pub(super) fn overlaps(&self, range: TimeRange) -> bool {
        self.windows > 0
            && range.overlaps(self.first_start_ns, self.last_end_ns.saturating_sub(self.first_start_ns))
    }
}

fn as_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::database(path, "cannot be opened", source);
    // No path is taken for a URI; a connection is used by one thread at a time.
    let connection =
        Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    Ok(connection)
}

/// The version of a file. Refuses those of a later one, and files that are no segments.
fn check_version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let failed = |source| StoreError::database(path, "its version cannot be read", source);
    let application = pragma("application_id").map_err(failed)?;
    let found = pragma("user_version").map_err(failed)?;
    if application != APPLICATION_ID {
        return Err(StoreError::corrupt(path, "not a segment of windows"));
    }
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    if found < SCHEMA_WITHOUT_SPANS {
        return Err(StoreError::corrupt(path, format!("schema version {found}, which there never was")));
    }
    Ok(found)
}

fn read_extent(connection: &Connection, path: &Path, version: i64) -> Result<Extent, StoreError> {
    let sql = "SELECT created_ns, written_ns, windows, first_start_ns, last_end_ns, longest_ns FROM segment";
    let row = connection.query_row(sql, [], |row| {
        let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
        Ok(Extent {
            created_ns: number(0)?,
            written_ns: number(1)?,
            windows: number(2)?,
            first_start_ns: number(3)?,
            last_end_ns: number(4)?,
            longest_ns: number(5)?,
            ..Extent::default()
        })
    });
    let extent = row
        .optional()
        .map_err(|source| StoreError::database(path, "its extent cannot be read", source))?
        .ok_or_else(|| StoreError::corrupt(path, "it does not say what time it is of"))?;
    match version {
        SCHEMA_WITHOUT_SPANS => Ok(extent),
        _ => spans::read_extent(connection, path, extent),
    }
}

/// Appends the pages that come after number `last`; answers the number of the last one now.
fn read_tables(
    connection: &Connection,
    path: &Path,
    tables: &mut Tables,
    mut last: i64,
) -> Result<i64, StoreError> {
    let failed = |source| StoreError::database(path, "its dictionary cannot be read", source);
    let sql = "SELECT id, kind, rows FROM dictionary WHERE id > ?1 ORDER BY id";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([last]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        last = row.get(0).map_err(failed)?;
        let kind = row.get(1).map_err(failed)?;
        let page = blob(row, 2).map_err(failed)?;
        tables.read(kind, page).map_err(|what| broken(path, "dictionary", what))?;
    }
    Ok(last)
}

/// A dictionary that has been read. Pages are only ever added, so it stays true, and what has been added since
/// is all that has to be read.
#[derive(Debug)]
pub(super) struct KnownTables {
    tables: Arc<Tables>,
    last_page: i64,
}

fn blob<'a>(row: &'a rusqlite::Row<'_>, column: usize) -> Result<&'a [u8], rusqlite::Error> {
    Ok(row.get_ref(column)?.as_blob()?)
}

pub(super) fn broken(path: &Path, place: &str, what: Malformed) -> StoreError {
    StoreError::corrupt(path, format!("{place}: {what}"))
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    path: PathBuf,
    connection: Connection,
    pub(super) dictionary: Dictionary,
    span_dictionary: SpanDictionary,
    pub(super) extent: Extent,
    /// Of the last window, if there is one that is not added up (`rollup.rs`).
    stretch: Option<u64>,
}

impl SegmentWriter {
    /// A new segment. `log_bytes` is how large its log grows before it is written back.
    pub(super) fn create(path: &Path, now_ns: u64, log_bytes: u64) -> Result<Self, StoreError> {
        let failed = |source| StoreError::database(path, "cannot be created", source);
        let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.execute_batch(&format!("PRAGMA page_size = {PAGE_BYTES}")).map_err(failed)?;
        set_up(&connection, log_bytes).map_err(failed)?;
        let extent = Extent { created_ns: now_ns, written_ns: now_ns, ..Extent::default() };
        // All of it or nothing: a file without it was never used.
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.execute_batch(SCHEMA).map_err(failed)?;
        transaction.execute_batch(rollups::SCHEMA).map_err(failed)?;
        transaction.execute_batch(spans::SCHEMA).map_err(failed)?;
        let sql = "INSERT INTO segment VALUES (1, ?1, ?1, 0, 0, 0, 0)";
        transaction.execute(sql, [as_signed(now_ns)]).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        let (dictionary, span_dictionary) = (Dictionary::default(), SpanDictionary::default());
        Ok(Self { path: path.to_owned(), connection, dictionary, span_dictionary, extent, stretch: None })
    }

    /// A segment that was written before, to go on with; nothing if it is of an earlier version.
    pub(super) fn open(path: &Path, log_bytes: u64) -> Result<Option<Self>, StoreError> {
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if check_version(&connection, path)? != SCHEMA_VERSION {
            return Ok(None);
        }
        set_up(&connection, log_bytes)
            .and_then(|()| connection.execute_batch(rollups::SCHEMA))
            .map_err(|source| StoreError::database(path, "cannot be written", source))?;
        let mut writer = Self {
            path: path.to_owned(),
            connection,
            dictionary: Dictionary::default(),
            span_dictionary: SpanDictionary::default(),
            extent: Extent::default(),
            stretch: None,
        };
        writer.reread()?;
        Ok(Some(writer))
    }

    /// Forgets what is in memory and not in the file, after something could not be written. The
    /// connection stays: to open the log anew takes room, which a full disk does not have, and readers
    /// need the log.
    pub(super) fn reread(&mut self) -> Result<(), StoreError> {
        self.extent = read_extent(&self.connection, &self.path, SCHEMA_VERSION)?;
        let mut tables = Tables::default();
        read_tables(&self.connection, &self.path, &mut tables, i64::MIN)?;
        self.dictionary =
            Dictionary::from_tables(tables).map_err(|what| broken(&self.path, "dictionary", what))?;
        let texts = spans::read_texts(&self.connection, &self.path)?;
        self.span_dictionary =
            SpanDictionary::from_texts(&texts).map_err(|what| broken(&self.path, "texts of spans", what))?;
        self.find_stretch()
    }

    /// Writes a window of at most `max_bytes`.
    ///
    /// # Errors
    /// [`StoreError`]. What is in memory may differ from the file then: [`SegmentWriter::reread`].
    pub(super) fn append(&mut self, window: &Profile, now_ns: u64, max_bytes: u64) -> Result<(), StoreError> {
        self.roll_up_before(window.start_unix_ns)?;
        let stretch = stretch_at(window.start_unix_ns);
        let window = encode(window, &mut self.dictionary)?;
        let pages = self.dictionary.new_pages();
        let page_bytes: usize = pages.iter().map(|(_, page)| page.len() + 16).sum();
        let bytes = window.bytes().saturating_add(page_bytes) as u64;
        if bytes > max_bytes {
            let what = format!("it takes {bytes} bytes, and the store's limit allows {max_bytes} for one");
            return Err(StoreError::RefusedWindow { what });
        }
        if self.dictionary.series.len() > blocks::MAX_SERIES as usize {
            let what = "more different services, containers and names than can be numbered".to_owned();
            return Err(StoreError::RefusedWindow { what });
        }
        let extent = self.extent.with(&window, now_ns);
        let written = insert(&mut self.connection, &window, &pages, &extent);
        written.map_err(|source| StoreError::database(&self.path, "a window cannot be written", source))?;
        self.dictionary.set_written();
        self.extent = extent;
        self.stretch = self.stretch.max(Some(stretch));
        Ok(())
    }
}

/// Writes the log of a segment that nobody writes any more back, and does without it from now on. If a
/// reader is in the way, this is left to the next start.
pub(super) fn seal(path: &Path) {
    let sealed = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|connection| {
        // A reader may hold the log for seconds, and windows come every ten.
        let sealed = connection.busy_timeout(Duration::from_millis(100)).and_then(|()| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        });
        sealed.map_err(|source| StoreError::database(path, "its log cannot be written back", source))
    });
    if let Err(error) = sealed {
        tracing::debug!("{error}");
    }
}

/// Whether this is a segment whose making was broken off before it had any table.
pub(super) fn is_unborn(path: &Path) -> Result<bool, StoreError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let sql = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection
        .query_row(sql, [], |row| row.get(0))
        .map_err(|source| StoreError::database(path, "its tables cannot be read", source))?;
    Ok(tables == 0)
}

fn set_up(connection: &Connection, log_bytes: u64) -> Result<(), rusqlite::Error> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let log_pages = (log_bytes / PAGE_BYTES).max(1);
    connection.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL;
         PRAGMA wal_autocheckpoint = {log_pages};
         PRAGMA journal_size_limit = {log_bytes};
         PRAGMA cache_size = -2048;"
    ))
}

fn insert(
    connection: &mut Connection,
    window: &EncodedWindow,
    pages: &[(i64, Vec<u8>)],
    extent: &Extent,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    insert_pages(&transaction, pages)?;
    let sql = "INSERT INTO windows (start_ns, duration_ns, format, totals, mappings, comments)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.prepare_cached(sql)?.execute(params![
        window.start_ns,
        window.duration_ns,
        window.format,
        window.totals,
        window.mappings,
        window.comments
    ])?;
    blocks::insert(&transaction, Table::Windows, transaction.last_insert_rowid(), &window.blocks)?;
    let sql = "UPDATE segment SET written_ns = ?1, windows = ?2, first_start_ns = ?3, last_end_ns = ?4,
               longest_ns = ?5";
    let numbers =
        [extent.written_ns, extent.windows, extent.first_start_ns, extent.last_end_ns, extent.longest_ns];
    transaction.prepare_cached(sql)?.execute(numbers.map(as_signed))?;
    transaction.commit()
}

/// Writes new pages of the dictionary.
fn insert_pages(transaction: &Transaction<'_>, pages: &[(i64, Vec<u8>)]) -> Result<(), rusqlite::Error> {
    let mut statement = transaction.prepare_cached("INSERT INTO dictionary (kind, rows) VALUES (?1, ?2)")?;
    for (kind, page) in pages {
        statement.execute(params![kind, page])?;
    }
    Ok(())
}

/// A window as a reader gets it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredWindow<'a> {
    pub(super) id: i64,
    pub(super) start_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) format: u32,
    totals: &'a [u8],
    layout: Layout,
    pub(super) mappings: &'a [u8],
    pub(super) comments: &'a [u8],
}

impl StoredWindow<'_> {
    /// Calls `each` with every series and its totals. `format` is the row of [`StoredWindow::format`].
    pub(super) fn totals(&self, format: &FormatRow, each: impl FnMut(u32, &[i64])) -> Result<(), Malformed> {
        match self.layout {
            Layout::ByNode => read_plain_totals(self.totals, format.value_types.len(), each),
            Layout::BySeries => read_totals(self.totals, &format.expected_factors(), each),
        }
    }
}

/// A segment at one moment: windows that are written later are not seen, and if the file is removed,
/// it can be read to the end.
#[derive(Debug)]
pub(super) struct SegmentReader {
    path: PathBuf,
    connection: Connection,
    extent: Extent,
    layout: Layout,
}

impl SegmentReader {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection
            .execute_batch("BEGIN")
            .map_err(|source| StoreError::database(path, "cannot be read", source))?;
        let version = check_version(&connection, path)?;
        let extent = read_extent(&connection, path, version)?;
        let layout = if version < SCHEMA_BY_SERIES { Layout::ByNode } else { Layout::BySeries };
        Ok(Self { path: path.to_owned(), connection, extent, layout })
    }

    /// How its samples are written.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The dictionary, which has at least the rows that this reader's windows need. `known` is what of it has
    /// been read before; it is empty after an error.
    pub(super) fn tables(&self, known: &mut Option<KnownTables>) -> Result<Arc<Tables>, StoreError> {
        let nothing = || KnownTables { tables: Arc::default(), last_page: i64::MIN };
        let mut read = known.take().unwrap_or_else(nothing);
        // Copied only if another query has it in use and there is more to read.
        let last = self.last_page()?;
        if last > read.last_page {
            let tables = Arc::make_mut(&mut read.tables);
            read.last_page = read_tables(&self.connection, &self.path, tables, read.last_page)?;
        }
        let tables = Arc::clone(&read.tables);
        *known = Some(read);
        Ok(tables)
    }

    fn last_page(&self) -> Result<i64, StoreError> {
        let failed = |source| StoreError::database(&self.path, "its dictionary cannot be read", source);
        let sql = "SELECT ifnull(max(id), 0) FROM dictionary";
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(failed)
    }

    /// Calls `each` with every window that overlaps the range, in the order in which they were written.
    pub(super) fn windows(
        &self,
        range: TimeRange,
        mut each: impl FnMut(StoredWindow<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |source| StoreError::database(&self.path, "its windows cannot be read", source);
        let sql = "SELECT id, start_ns, duration_ns, format, totals, mappings, comments FROM windows
                   WHERE start_ns >= ?1 AND start_ns < ?2 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let earliest = as_signed(range.from_unix_ns.saturating_sub(self.extent.longest_ns));
        let mut rows = statement.query([earliest, as_signed(range.to_unix_ns)]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let number = |column| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
            let window = StoredWindow {
                id: row.get(0).map_err(failed)?,
                start_ns: number(1).map_err(failed)?,
                duration_ns: number(2).map_err(failed)?,
                format: row.get(3).map_err(failed)?,
                totals: blob(row, 4).map_err(failed)?,
                layout: self.layout,
                mappings: blob(row, 5).map_err(failed)?,
                comments: blob(row, 6).map_err(failed)?,
            };
            if range.overlaps(window.start_ns, window.duration_ns) {
                each(window)?;
            }
        }
        Ok(())
    }
}
