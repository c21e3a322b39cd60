//! The store that keeps windows in `SQLite` files of a folder.
//!
//! One writer at a time, any number of readers beside it: a reader opens the files it needs for itself,
//! read-only, and holds none of the locks here while it reads.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::catalog::{self, Catalog, Segment};
use super::counters::Counters;
use super::error::StoreError;
use super::query::{self, Source};
use super::retention::{KeptFile, Retention, Why};
use super::segment::{self, SegmentReader, SegmentWriter};
use super::spans::find::SpanSource;
use super::spans::{joined, traces};
use super::timeline;
use super::{
    Answer, ProfileQuery, ProfileType, Selector, ServiceSummary, SetAside, SpanList, SpanQuery, SpanSummary,
    Statistics, TimeRange, Timeline, TracePage, TraceQuery, WindowStore, WindowValues,
};
use crate::model::{Profile, Span, SpanId, TraceId};

/// A segment whose dictionary takes more memory than this is finished. A day of a busy host of 32 cores takes
/// 74 MB at 19 Hz, the numbers of stacks in their series included: a second segment has most of the same names and
/// stacks again, on the disk and in each query.
const MAX_DICTIONARY_BYTES: usize = 80 << 20;
/// How long the dictionary of the last segment is kept in memory for the next query.
const KEEP_TABLES_FOR: Duration = Duration::from_secs(60);
/// Locked by the process that uses the folder.
const LOCK_FILE: &str = "lock";

type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Where its files are; made if it is not there.
    pub folder: PathBuf,
    /// How much is kept.
    pub retention: Retention,
    /// The time, nanoseconds since the Unix epoch: what decides on the age of files. Windows say
    /// themselves when they began.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, retention, clock: _ } = self;
        formatter
            .debug_struct("Options")
            .field("folder", folder)
            .field("retention", retention)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// A store in this folder, with the default retention and the system's clock.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), retention: Retention::default(), clock: Arc::new(now_unix_ns) }
    }
}

fn now_unix_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// See the module.
pub struct SqliteStore {
    folder: PathBuf,
    clock: Clock,
    retention: Mutex<Retention>,
    /// Taken before `catalog` and `counters` where both are.
    writer: Mutex<Writer>,
    catalog: RwLock<Catalog>,
    counters: Mutex<Counters>,
    /// Holds the lock on the folder.
    _lock: File,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SqliteStore").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The segment that is written, always the last one of the catalog.
struct Writer {
    open: Option<(Arc<Segment>, SegmentWriter)>,
    next_number: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked left nothing half done: the files decide, and the writer is opened anew.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SqliteStore {
    /// Opens the store of a folder. Segments that cannot be read are set aside.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it, [`StoreError::NewerSchema`] if a later version
    /// wrote there, [`StoreError::Folder`], [`StoreError::BadOptions`].
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let Options { folder, retention, clock } = options;
        retention.check()?;
        let failed = |source| StoreError::Folder { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        let lock = lock_folder(&folder)?;
        let listing = catalog::list(&folder).map_err(failed)?;
        let mut catalog = Catalog::default();
        let before = |path| SetAside { path, reason: String::new() };
        catalog.set_aside.extend(listing.broken.into_iter().map(before));
        for (number, path) in listing.segments {
            match look_at(&path) {
                Ok(Some(extent)) => catalog.segments.push(Arc::new(Segment::new(number, path, extent))),
                Ok(None) => catalog::remove_files(&path).map_err(failed)?,
                Err(error) if error.is_corrupt() => set_aside(&mut catalog, &path, &error),
                Err(error) => return Err(error),
            }
        }
        // All but the last are finished, whatever was in the way when they were.
        if let Some((_, finished)) = catalog.segments.split_last() {
            for segment in finished.iter().filter(|segment| catalog::has_log(&segment.path)) {
                segment::seal(&segment.path);
            }
        }
        let store = Self {
            folder,
            clock,
            retention: Mutex::new(retention),
            writer: Mutex::new(Writer { open: None, next_number: listing.next_number }),
            catalog: RwLock::new(catalog),
            counters: Mutex::new(Counters::default()),
            _lock: lock,
        };
        store.enforce_retention()?;
        Ok(store)
    }

    fn catalog(&self) -> std::sync::RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn catalog_mut(&self) -> std::sync::RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks all segments.
    fn ask<T>(&self, question: impl FnOnce(&Source<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let segments = self.catalog().segments.clone();
        let on_broken = |segment: &Segment, error: &StoreError| self.drop_broken(segment, error);
        question(&Source { segments: &segments, on_broken: &on_broken })
    }

    /// Asks all segments about spans.
    fn ask_spans<T>(
        &self,
        question: impl FnOnce(&SpanSource<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let segments = self.catalog().segments.clone();
        let on_broken = |segment: &Segment, error: &StoreError| self.drop_broken(segment, error);
        question(&SpanSource { segments: &segments, on_broken: &on_broken })
    }

    /// Does without a segment from now on.
    fn drop_broken(&self, segment: &Segment, error: &StoreError) {
        let mut writer = locked(&self.writer);
        let mut catalog = self.catalog_mut();
        // It may have been removed while it was read.
        if catalog.has(segment.number) {
            writer.open.take_if(|(open, _)| open.number == segment.number);
            catalog.remove(segment.number);
            set_aside(&mut catalog, &segment.path, error);
        }
    }

    fn write(
        &self,
        writer: &mut Writer,
        window: &Profile,
        now_ns: u64,
        retention: &Retention,
    ) -> Result<(), StoreError> {
        let (segment, open) = self.segment_to_write(writer, now_ns, retention)?;
        open.append(window, now_ns, retention.window_bytes())?;
        segment.set_extent(open.extent);
        let mut counters = locked(&self.counters);
        counters.open_series = open.dictionary.series.len() as u64;
        counters.open_stack_nodes = open.dictionary.nodes.len() as u64;
        Ok(())
    }

    /// Writes spans from the front, as many as one transaction takes; returns how many.
    fn write_some_spans(
        &self,
        writer: &mut Writer,
        spans: &[Span],
        now_ns: u64,
        retention: &Retention,
    ) -> Result<usize, StoreError> {
        let (segment, open) = self.segment_to_write(writer, now_ns, retention)?;
        let (taken, cuts) = open.append_spans(spans, now_ns, retention.window_bytes())?;
        segment.set_extent(open.extent);
        let mut counters = locked(&self.counters);
        counters.spans_written += taken as u64;
        counters.span_cuts.add(&cuts);
        counters.last_write_error = None;
        Ok(taken)
    }

    /// The segment that the next window goes to: the last one, or a new one if that is finished.
    fn segment_to_write<'w>(
        &self,
        writer: &'w mut Writer,
        now_ns: u64,
        retention: &Retention,
    ) -> Result<&'w mut (Arc<Segment>, SegmentWriter), StoreError> {
        if writer.open.is_none() {
            writer.open = self.reopen_last(now_ns, retention)?;
        }
        let has_room = |(segment, open): &(Arc<Segment>, SegmentWriter)| {
            !is_full(segment, now_ns, retention) && open.dictionary.memory_bytes() < MAX_DICTIONARY_BYTES
        };
        let open = match writer.open.take() {
            Some(open) if has_room(&open) => open,
            finished => match self.new_segment(writer, now_ns, retention) {
                Ok(new) => {
                    if let Some((segment, mut finished)) = finished {
                        if let Err(error) = finished.roll_up() {
                            tracing::debug!("{error}");
                        }
                        drop(finished);
                        segment::seal(&segment.path);
                    }
                    new
                }
                Err(error) => {
                    // It stays open: on a full disk it could not be opened again to be read.
                    writer.open = finished;
                    return Err(error);
                }
            },
        };
        Ok(writer.open.insert(open))
    }

    fn new_segment(
        &self,
        writer: &mut Writer,
        now_ns: u64,
        retention: &Retention,
    ) -> Result<(Arc<Segment>, SegmentWriter), StoreError> {
        let number = writer.next_number;
        let path = catalog::segment_path(&self.folder, number);
        let created = SegmentWriter::create(&path, now_ns, retention.log_bytes());
        let created = created.inspect_err(|_| {
            // What there is of it would be in the way of the next try.
            let _ = catalog::remove_files(&path);
        })?;
        writer.next_number += 1;
        let segment = Arc::new(Segment::new(number, path, created.extent));
        self.catalog_mut().segments.push(Arc::clone(&segment));
        Ok((segment, created))
    }

    /// The last segment, if it can be written on: after a start, or after a window that failed.
    fn reopen_last(
        &self,
        now_ns: u64,
        retention: &Retention,
    ) -> Result<Option<(Arc<Segment>, SegmentWriter)>, StoreError> {
        let last = self.catalog().segments.last().cloned();
        let Some(last) = last.filter(|last| !is_full(last, now_ns, retention)) else { return Ok(None) };
        match SegmentWriter::open(&last.path, retention.log_bytes()) {
            Ok(Some(open)) => {
                last.set_extent(open.extent);
                Ok(Some((last, open)))
            }
            // An earlier version wrote it: it is finished.
            Ok(None) => {
                segment::seal(&last.path);
                Ok(None)
            }
            Err(error) if error.is_corrupt() => {
                let mut catalog = self.catalog_mut();
                catalog.remove(last.number);
                set_aside(&mut catalog, &last.path, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes what has to go, the segment that is written included if it is too old.
    fn retain(&self, writer: &mut Writer, now_ns: u64, retention: &Retention) -> Result<(), StoreError> {
        let mut catalog = self.catalog_mut();
        let set_aside = catalog.set_aside.iter().map(|file| file.path.clone());
        let mut paths: Vec<PathBuf> = set_aside.collect();
        let mut files: Vec<KeptFile> = paths
            .iter()
            .map(|path| KeptFile { bytes: catalog::bytes_of(path), written_ns: catalog::changed_ns(path) })
            .collect();
        for segment in &catalog.segments {
            let written_ns = segment.extent().written_ns;
            files.push(KeptFile { bytes: catalog::bytes_of(&segment.path), written_ns });
            paths.push(segment.path.clone());
        }
        for removal in retention.removals(&files, writer.open.is_some(), now_ns) {
            let Some(path) = paths.get(removal.index) else { continue };
            writer.open.take_if(|(open, _)| open.path == *path);
            catalog::remove_files(path)
                .map_err(|source| StoreError::Folder { path: path.clone(), source })?;
            catalog.segments.retain(|segment| segment.path != *path);
            catalog.set_aside.retain(|file| file.path != *path);
            let mut counters = locked(&self.counters);
            let written_ns = files.get(removal.index).map_or(0, |file| file.written_ns);
            counters.removed_until_ns = counters.removed_until_ns.max(written_ns);
            match removal.why {
                Why::Age => counters.removed_by_age += 1,
                Why::Size => counters.removed_by_size += 1,
            }
        }
        Ok(())
    }
}

fn is_full(segment: &Segment, now_ns: u64, retention: &Retention) -> bool {
    retention.is_over(segment.extent().created_ns, now_ns)
        || catalog::bytes_of(&segment.path) >= retention.segment_bytes()
}

/// What time a segment is of; nothing if it was never finished being made.
fn look_at(path: &Path) -> Result<Option<segment::Extent>, StoreError> {
    if segment::is_unborn(path)? {
        return Ok(None);
    }
    SegmentReader::open(path).map(|reader| Some(reader.extent()))
}

fn set_aside(catalog: &mut Catalog, path: &Path, error: &StoreError) {
    tracing::warn!("{error}; it is set aside, and the store goes on without it");
    let path = catalog::set_aside(path).unwrap_or_else(|failure| {
        tracing::warn!("{}: cannot be renamed: {failure}", path.display());
        path.to_owned()
    });
    catalog.set_aside.push(SetAside { path, reason: error.to_string() });
}

fn lock_folder(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_FILE);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|source| StoreError::Folder { path: path.clone(), source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: folder.to_owned() }),
        Err(error) => Err(StoreError::Folder { path, source: error.into() }),
    }
}

impl WindowStore for SqliteStore {
    fn write_window(&self, window: &Profile) -> Result<(), StoreError> {
        window.validate()?;
        let now_ns = (self.clock)();
        let retention = *locked(&self.retention);
        let mut writer = locked(&self.writer);
        let written = self.write(&mut writer, window, now_ns, &retention);
        let mut counters = locked(&self.counters);
        match &written {
            Ok(()) => {
                counters.windows_written += 1;
                counters.last_write_error = None;
            }
            Err(error) => {
                counters.windows_failed += 1;
                counters.last_write_error = Some(error.to_string());
                // The dictionary in memory has rows that are not in the file.
                writer.open.take_if(|(_, open)| open.reread().is_err());
            }
        }
        drop(counters);
        for segment in &self.catalog().segments {
            segment.forget_tables_unused_for(KEEP_TABLES_FOR);
        }
        if let Err(error) = self.retain(&mut writer, now_ns, &retention) {
            tracing::warn!("old windows stay: {error}");
        }
        written
    }

    fn services(&self, range: TimeRange) -> Result<Vec<ServiceSummary>, StoreError> {
        self.ask(|source| query::services(source, range))
    }

    fn types(&self, range: TimeRange) -> Result<Vec<ProfileType>, StoreError> {
        self.ask(|source| query::types(source, range))
    }

    fn timeline(&self, selector: &Selector, range: TimeRange, step_ns: u64) -> Result<Timeline, StoreError> {
        self.ask(|source| timeline::timeline(source, selector, range, step_ns))
    }

    fn windows(&self, selector: &Selector, range: TimeRange) -> Result<WindowValues, StoreError> {
        self.ask(|source| timeline::windows(source, selector, range))
    }

    fn profile(&self, query: &ProfileQuery) -> Result<Answer, StoreError> {
        self.ask(|source| query::profile(source, query))
    }

    fn write_spans(&self, spans: &[Span]) -> Result<(), StoreError> {
        let now_ns = (self.clock)();
        let retention = *locked(&self.retention);
        let mut writer = locked(&self.writer);
        let mut left = spans;
        while !left.is_empty() {
            let written = self.write_some_spans(&mut writer, left, now_ns, &retention);
            if let Err(error) = self.retain(&mut writer, now_ns, &retention) {
                tracing::warn!("old windows stay: {error}");
            }
            match written {
                Ok(taken) => left = left.get(taken..).unwrap_or_default(),
                Err(error) => {
                    let mut counters = locked(&self.counters);
                    counters.spans_failed += left.len() as u64;
                    counters.last_write_error = Some(error.to_string());
                    drop(counters);
                    // The dictionary in memory has texts that are not in the file.
                    writer.open.take_if(|(_, open)| open.reread().is_err());
                    let written = spans.len() - left.len();
                    return Err(match written {
                        0 => error,
                        _ => StoreError::PartlyWritten { written, source: Box::new(error) },
                    });
                }
            }
        }
        Ok(())
    }

    fn traces(&self, query: &TraceQuery) -> Result<TracePage, StoreError> {
        self.ask_spans(|source| traces::traces(source, query))
    }

    fn spans(&self, query: &SpanQuery) -> Result<SpanList, StoreError> {
        self.ask_spans(|source| traces::spans(source, query))
    }

    fn trace(&self, trace_id: TraceId) -> Result<Vec<Span>, StoreError> {
        self.ask_spans(|source| joined::trace(source, trace_id))
    }

    fn span(&self, span_id: SpanId, trace_id: Option<TraceId>) -> Result<Option<Span>, StoreError> {
        self.ask_spans(|source| joined::span(source, span_id, trace_id))
    }

    fn span_summaries(&self, spans: &[(TraceId, SpanId)]) -> Result<Vec<Option<SpanSummary>>, StoreError> {
        self.ask_spans(|source| joined::span_summaries(source, spans))
    }

    fn span_aliases(
        &self,
        trace_id: Option<TraceId>,
        span_id: Option<SpanId>,
    ) -> Result<Vec<(TraceId, SpanId)>, StoreError> {
        self.ask_spans(|source| joined::aliases(source, trace_id, span_id))
    }

    fn statistics(&self) -> Statistics {
        let max_bytes = locked(&self.retention).max_bytes;
        let catalog = self.catalog();
        let counters = locked(&self.counters);
        counters.statistics(&catalog, max_bytes)
    }

    fn enforce_retention(&self) -> Result<(), StoreError> {
        let retention = *locked(&self.retention);
        let mut writer = locked(&self.writer);
        self.retain(&mut writer, (self.clock)(), &retention)
    }

    fn set_retention(&self, retention: Retention) -> Result<(), StoreError> {
        retention.check()?;
        *locked(&self.retention) = retention;
        Ok(())
    }
}
