//! The files of a store: which there are, what they are called, how they go.
//!
//! `windows-00000001.db` is a segment, numbered in the order of making; `-wal` and `-shm` beside it are
//! `SQLite`'s log and its index. `windows-00000001.db.broken` is one that could not be read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::SetAside;
use super::dictionary::Tables;
use super::error::StoreError;
use super::segment::{Extent, KnownTables, SegmentReader};

/// What stands beside a `SQLite` file.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
const BROKEN: &str = ".broken";

/// A segment that is in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    extent: Mutex<Extent>,
    /// Its dictionary, if a query has read it, and when that was.
    known: Mutex<Option<(KnownTables, Instant)>>,
}

impl Segment {
    pub(super) fn new(number: u64, path: PathBuf, extent: Extent) -> Self {
        Self { number, path, extent: Mutex::new(extent), known: Mutex::new(None) }
    }

    pub(super) fn extent(&self) -> Extent {
        *self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its dictionary, for this reader of it. With `keep` the next query reads only what has been added.
    pub(super) fn tables(&self, reader: &SegmentReader, keep: bool) -> Result<Arc<Tables>, StoreError> {
        if !keep {
            return reader.tables(&mut None);
        }
        let mut kept = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = kept.take().map(|(known, _)| known);
        let tables = reader.tables(&mut known);
        *kept = known.map(|known| (known, Instant::now()));
        tables
    }

    /// Lets go of the dictionary unless a query has needed it lately.
    pub(super) fn forget_tables_unused_for(&self, limit: Duration) {
        let mut kept = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|(_, used)| used.elapsed() > limit);
    }

    pub(super) fn set_extent(&self, extent: Extent) {
        *self.extent.lock().unwrap_or_else(PoisonError::into_inner) = extent;
    }
}

/// What is known of the files, segments in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) set_aside: Vec<SetAside>,
}

impl Catalog {
    pub(super) fn remove(&mut self, number: u64) {
        self.segments.retain(|segment| segment.number != number);
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.segments.iter().any(|segment| segment.number == number)
    }
}

/// The files of a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Numbers and paths, in order.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// Those that were set aside before.
    pub(super) broken: Vec<PathBuf>,
    /// One more than the largest number that is in use for anything.
    pub(super) next_number: u64,
}

/// Path of the segment of this number.
pub(super) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("windows-{number:08}.db"))
}

fn number_of(name: &str) -> Option<(u64, &str)> {
    let (number, rest) = name.strip_prefix("windows-")?.split_once(".db")?;
    Some((number.parse().ok()?, rest))
}

/// Lists a folder. Files of other names are left alone; logs whose segment is gone are removed.
pub(super) fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing { next_number: 1, ..Listing::default() };
    let mut companions = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((number, rest)) = name.to_str().and_then(number_of) else { continue };
        listing.next_number = listing.next_number.max(number.saturating_add(1));
        match rest {
            "" => listing.segments.push((number, entry.path())),
            BROKEN => listing.broken.push(entry.path()),
            rest if COMPANIONS.contains(&rest) => companions.push((number, entry.path())),
            _ => {}
        }
    }
    listing.segments.sort();
    listing.broken.sort();
    for (number, path) in companions {
        if !listing.segments.iter().any(|(of, _)| *of == number) {
            fs::remove_file(path)?;
        }
    }
    Ok(listing)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Bytes of a segment with its log and all. Its contents are never opened here: to close a file
/// drops all locks that this process has on it.
pub(super) fn bytes_of(path: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let companions = COMPANIONS.iter().map(|ending| length(&beside(path, ending)));
    companions.fold(length(path), u64::saturating_add)
}

/// Whether a segment has a log.
pub(super) fn has_log(path: &Path) -> bool {
    beside(path, "-wal").exists()
}

/// When a file was changed, nanoseconds since the Unix epoch.
pub(super) fn changed_ns(path: &Path) -> u64 {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let since_epoch = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// Removes a segment. Readers that have it open read it to the end.
pub(super) fn remove_files(path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    for ending in COMPANIONS {
        remove_if_there(&beside(path, ending))?;
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames a segment that cannot be read, with its log, so that somebody may look at it.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let broken = beside(path, BROKEN);
    fs::rename(path, &broken)?;
    for ending in COMPANIONS {
        match fs::rename(beside(path, ending), beside(&broken, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_listed_in_order_and_logs_without_a_segment_go() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "windows-00000010.db",
            "windows-00000002.db",
            "windows-00000002.db-wal",
            "windows-00000012.db.broken",
            "windows-00000001.db-wal",
            "windows-.db",
            "notes.txt",
            "windows-x.db",
            "windows-00000003.db.bak",
        ];
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let listing = list(folder.path()).unwrap();
        assert_eq!(listing.segments.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(listing.broken.len(), 1);
        assert_eq!(listing.next_number, 13);
        assert!(!folder.path().join("windows-00000001.db-wal").exists());
        for name in ["windows-00000002.db-wal", "notes.txt", "windows-.db", "windows-00000003.db.bak"] {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        let path = segment_path(folder.path(), 2);
        assert_eq!(bytes_of(&path), 19 + 23);
        let broken = set_aside(&path).unwrap();
        assert_eq!((bytes_of(&path), bytes_of(&broken)), (0, 19 + 23));
        remove_files(&broken).unwrap();
        remove_files(&broken).unwrap();
        assert_eq!(bytes_of(&broken), 0);
    }
}
