//! Unwind tables on disk: a folder with a file for each build id.
//!
//! Malice is kept out by where a file is: in a folder of mode 0700 that is ours, in a file of mode 0600
//! that is ours, or it is not looked at. Damage is found by its digest (`cache_file`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};

use super::UnwindTable;
pub use super::cache_file::{CacheError, FORMAT_VERSION};
use super::cache_file::{header_of, read_table};
use crate::BuildId;

const FILE_ENDING: &str = ".unwind";
const TEMPORARY_ENDING: &str = ".new";

/// Bytes that a cache keeps, unless told otherwise: the tables of a few hundred large programs.
pub const DEFAULT_MAX_BYTES: u64 = 512 << 20;
/// Files that a cache keeps, unless told otherwise.
pub const DEFAULT_MAX_FILES: u64 = 8192;

/// A file that was used is marked as such at most this often.
const USE_MARK_INTERVAL: Duration = Duration::from_secs(3600);
/// What a writer left that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// A folder of unwind tables. Usable from several threads and several processes at once.
#[derive(Debug)]
pub struct UnwindCache {
    folder: PathBuf,
    max_bytes: u64,
    max_files: u64,
    /// What the folder holds as far as known, so that it is listed only when it may be too full.
    usage: Mutex<Option<Usage>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    bytes: u64,
    files: u64,
}

impl UnwindCache {
    /// A cache in `folder`, which is made when first written to, private to its user.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self::with_limits(folder, DEFAULT_MAX_BYTES, DEFAULT_MAX_FILES)
    }

    /// A cache that keeps at most so much; the files that were not used for longest are removed first.
    #[must_use]
    pub fn with_limits(folder: PathBuf, max_bytes: u64, max_files: u64) -> Self {
        Self { folder, max_bytes, max_files, usage: Mutex::new(None) }
    }

    /// The table of this build id, if a sound one is there. Anything else is removed and is `None`.
    #[must_use]
    pub fn load(&self, build_id: &BuildId) -> Option<UnwindTable> {
        self.load_checked(build_id).ok()
    }

    /// As [`Self::load`], with the reason.
    ///
    /// # Errors
    /// [`CacheError`]; except for a folder that is not private, what is wrong has been removed.
    pub fn load_checked(&self, build_id: &BuildId) -> Result<UnwindTable, CacheError> {
        let folder = self.open_folder()?;
        let name = file_name(build_id);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let loaded = match rustix::fs::openat(&folder, name.as_str(), flags, Mode::empty()) {
            Ok(file) => load_file(File::from(file), build_id),
            Err(rustix::io::Errno::NOENT) => return Err(CacheError::Missing),
            Err(errno) => Err(io::Error::from(errno).into()),
        };
        if loaded.is_err() {
            // Best effort: what stays is refused again.
            let _ = rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::empty());
        }
        loaded
    }

    /// Keeps a table: written aside and renamed, so that no reader sees half of it. Not synced: what a
    /// crash of the machine leaves of it is found by its digest.
    ///
    /// # Errors
    /// The system's; a cache that cannot be written is slower, not wrong.
    pub fn store(&self, build_id: &BuildId, table: &UnwindTable) -> io::Result<()> {
        static TEMPORARIES: AtomicU64 = AtomicU64::new(0);
        let header = header_of(build_id, table)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let folder = self.open_folder().map_err(|error| match error {
            CacheError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::PermissionDenied, other.to_string()),
        })?;
        let written_bytes = (header.len() + table.pages.len()) as u64;
        self.make_room(&folder, written_bytes)?;

        let number = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{}-{number}{TEMPORARY_ENDING}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A process id comes again: what is in the way was abandoned.
        let _ = rustix::fs::unlinkat(&folder, temporary.as_str(), AtFlags::empty());
        let file = rustix::fs::openat(&folder, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        let written = file.write_all(&header).and_then(|()| file.write_all(&table.pages));
        let renamed = written.and_then(|()| {
            rustix::fs::renameat(&folder, temporary.as_str(), &folder, file_name(build_id).as_str())
                .map_err(io::Error::from)
        });
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(&folder, temporary.as_str(), AtFlags::empty());
        }
        renamed
    }

    /// The folder, if only this user can write to it.
    fn open_folder(&self) -> Result<File, CacheError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(&self.folder, flags, Mode::empty()) {
            Ok(folder) => File::from(folder),
            Err(rustix::io::Errno::NOENT) => return Err(CacheError::Missing),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                return Err(CacheError::FolderNotPrivate(self.folder.clone()));
            }
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        let status = rustix::fs::fstat(&folder).map_err(io::Error::from)?;
        if is_private(&status) { Ok(folder) } else { Err(CacheError::FolderNotPrivate(self.folder.clone())) }
    }

    /// Removes files until `coming_bytes` more fit.
    fn make_room(&self, folder: &File, coming_bytes: u64) -> io::Result<()> {
        let Ok(mut usage) = self.usage.lock() else { return Ok(()) };
        if let Some(known) = usage.as_mut() {
            known.bytes = known.bytes.saturating_add(coming_bytes);
            known.files = known.files.saturating_add(1);
            if known.bytes <= self.max_bytes && known.files <= self.max_files {
                return Ok(());
            }
        }
        let mut files = list_files(folder)?;
        files.sort_unstable_by_key(|file| file.used);
        let mut bytes = files.iter().map(|file| file.bytes).sum::<u64>().saturating_add(coming_bytes);
        let mut count = files.len() as u64 + 1;
        // Some more than needed goes, so that a full cache is not listed at every store.
        let is_over = bytes > self.max_bytes || count > self.max_files;
        let (kept_bytes, kept_files) = (self.max_bytes / 8 * 7, self.max_files - self.max_files / 8);
        for file in files {
            if !is_over || (bytes <= kept_bytes && count <= kept_files) {
                break;
            }
            if rustix::fs::unlinkat(folder, file.name.as_os_str(), AtFlags::empty()).is_ok() {
                bytes = bytes.saturating_sub(file.bytes);
                count = count.saturating_sub(1);
            }
        }
        *usage = Some(Usage { bytes, files: count });
        Ok(())
    }
}

struct CachedFile {
    name: OsString,
    bytes: u64,
    used: SystemTime,
}

/// The cache's files; abandoned temporary ones are removed on the way. Others' files are left alone.
fn list_files(folder: &File) -> io::Result<Vec<CachedFile>> {
    let mut files = Vec::new();
    let now = SystemTime::now();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        let text = name.to_string_lossy();
        let is_temporary = text.ends_with(TEMPORARY_ENDING);
        if !is_temporary && !text.ends_with(FILE_ENDING) {
            continue;
        }
        let Ok(status) = rustix::fs::statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let used = modified(&status);
        if is_temporary && now.duration_since(used).is_ok_and(|age| age > ABANDONED_AFTER) {
            let _ = rustix::fs::unlinkat(folder, name.as_os_str(), AtFlags::empty());
            continue;
        }
        files.push(CachedFile { bytes: u64::try_from(status.st_size).unwrap_or(0), used, name });
    }
    Ok(files)
}

fn modified(status: &Stat) -> SystemTime {
    let seconds = u64::try_from(status.st_mtime).unwrap_or(0);
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

/// Nobody but us (and root) can have written it.
fn is_private(status: &Stat) -> bool {
    status.st_uid == rustix::process::geteuid().as_raw() && status.st_mode & 0o077 == 0
}

fn file_name(build_id: &BuildId) -> String {
    format!("{}{FILE_ENDING}", build_id.to_hex())
}

fn load_file(mut file: File, build_id: &BuildId) -> Result<UnwindTable, CacheError> {
    let status = rustix::fs::fstat(&file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile || !is_private(&status) {
        return Err(CacheError::FileNotPrivate);
    }
    let table = read_table(&mut file, u64::try_from(status.st_size).unwrap_or(0), build_id)?;
    mark_used(&file, &status);
    Ok(table)
}

/// Files that are used are removed last. Their time of modification is what says so: that of access is
/// not kept on most systems.
fn mark_used(file: &File, status: &Stat) {
    let is_recent =
        SystemTime::now().duration_since(modified(status)).is_ok_and(|age| age < USE_MARK_INTERVAL);
    if !is_recent {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let unchanged = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let times = Timestamps { last_access: unchanged, last_modification: now };
        // Best effort: an older mark only makes it go earlier.
        let _ = rustix::fs::futimens(file, &times);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::ElfAddress;
    use crate::unwind::layout::PAGE_BYTES;
    use crate::unwind::{Row, UnwindRule, layout::cfa};

    fn table() -> UnwindTable {
        let rows: Vec<Row> = (0..3000)
            .map(|index| Row {
                address: ElfAddress(0x1000 + index * 7),
                rule: UnwindRule { cfa: cfa::REGISTER, cfa_offset: (index % 9) as i32, ..UnwindRule::NONE },
            })
            .collect();
        UnwindTable::from_rows(&rows).unwrap()
    }

    fn id(number: u8) -> BuildId {
        BuildId::Gnu(vec![number; 20])
    }

    /// A cache with one table in it, and the path of its file.
    fn filled() -> (tempfile::TempDir, UnwindCache, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let cache = UnwindCache::new(folder.path().join("unwind"));
        cache.store(&id(1), &table()).unwrap();
        let path = folder.path().join("unwind").join(file_name(&id(1)));
        (folder, cache, path)
    }

    fn change_byte(path: &Path, offset: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[offset] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_was_stored_is_loaded_and_the_file_is_ours_alone() {
        let (folder, cache, path) = filled();
        assert_eq!(cache.load(&id(1)), Some(table()));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(folder.path().join("unwind").metadata().unwrap().mode() & 0o777, 0o700);
        assert!(matches!(cache.load_checked(&id(2)), Err(CacheError::Missing)));
        assert!(matches!(UnwindCache::new("/no/such".into()).load_checked(&id(1)), Err(CacheError::Missing)));
        let leftovers = fs::read_dir(folder.path().join("unwind")).unwrap().count();
        assert_eq!(leftovers, 1);
    }

    #[test]
    fn every_damaged_field_is_found_and_the_file_removed() {
        type Expected = fn(&CacheError) -> bool;
        let damages: [(usize, Expected); 14] = [
            (0, |error| matches!(error, CacheError::Magic)),
            (8, |error| matches!(error, CacheError::Version(_))),
            (12, |error| matches!(error, CacheError::OtherBuildId)),
            (16, |error| matches!(error, CacheError::Digest)),
            (32, |error| matches!(error, CacheError::Digest)),
            (40, |error| matches!(error, CacheError::Digest | CacheError::Header)),
            (44, |error| matches!(error, CacheError::Header)),
            (48, |error| matches!(error, CacheError::Header)),
            (52, |error| matches!(error, CacheError::Header)),
            (56, |error| matches!(error, CacheError::Digest)),
            (64, |error| matches!(error, CacheError::Digest)),
            (72, |error| matches!(error, CacheError::OtherBuildId)),
            (76, |error| matches!(error, CacheError::OtherBuildId)),
            (4000, |error| matches!(error, CacheError::Digest)),
        ];
        for (offset, is_expected) in damages {
            let (_folder, cache, path) = filled();
            change_byte(&path, offset);
            let error = cache.load_checked(&id(1)).unwrap_err();
            assert!(is_expected(&error), "byte {offset}: {error}");
            assert!(!path.exists(), "byte {offset}");
        }
    }

    #[test]
    fn contents_cut_short_lengthened_or_changed_are_found() {
        let (_folder, cache, path) = filled();
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, 4095, 4096, whole.len() - 4096, whole.len() - 1] {
            cache.store(&id(1), &table()).unwrap();
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(cache.load_checked(&id(1)), Err(CacheError::Header)), "{length} bytes");
        }
        for extra in [1, 4096] {
            cache.store(&id(1), &table()).unwrap();
            fs::write(&path, [&whole[..], &vec![0; extra]].concat()).unwrap();
            assert!(matches!(cache.load_checked(&id(1)), Err(CacheError::Header)), "{extra} bytes more");
        }
        for offset in (PAGE_BYTES..whole.len()).step_by(997) {
            cache.store(&id(1), &table()).unwrap();
            change_byte(&path, offset);
            assert!(matches!(cache.load_checked(&id(1)), Err(CacheError::Digest)), "byte {offset}");
        }
    }

    #[test]
    fn a_table_under_another_s_name_is_refused() {
        let (_folder, cache, path) = filled();
        fs::rename(&path, path.with_file_name(file_name(&id(2)))).unwrap();
        assert!(matches!(cache.load_checked(&id(2)), Err(CacheError::OtherBuildId)));
        // The same bytes as another kind of id have the same name, and are not the same.
        cache.store(&id(1), &table()).unwrap();
        assert!(matches!(cache.load_checked(&BuildId::Hash([1; 20])), Err(CacheError::OtherBuildId)));
    }

    #[test]
    fn what_others_could_have_written_is_refused() {
        let (folder, cache, path) = filled();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(cache.load_checked(&id(1)), Err(CacheError::FileNotPrivate)));

        cache.store(&id(1), &table()).unwrap();
        let kept = folder.path().join("kept");
        fs::rename(&path, &kept).unwrap();
        symlink(&kept, &path).unwrap();
        assert!(cache.load_checked(&id(1)).is_err(), "a symbolic link was followed");
        assert!(kept.exists());

        cache.store(&id(1), &table()).unwrap();
        let cache_folder = folder.path().join("unwind");
        fs::set_permissions(&cache_folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(cache.load_checked(&id(1)), Err(CacheError::FolderNotPrivate(_))));
        assert!(cache.store(&id(1), &table()).is_err());
        assert!(path.exists(), "a folder that is not ours is left alone");

        fs::set_permissions(&cache_folder, fs::Permissions::from_mode(0o700)).unwrap();
        let link = folder.path().join("link");
        symlink(&cache_folder, &link).unwrap();
        let through_link = UnwindCache::new(link);
        assert!(matches!(through_link.load_checked(&id(1)), Err(CacheError::FolderNotPrivate(_))));
    }

    #[test]
    fn the_files_not_used_for_longest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unwind");
        let file_bytes = (PAGE_BYTES + table().pages.len()) as u64;
        let cache = UnwindCache::with_limits(path.clone(), file_bytes * 8, 1000);
        let age = |number: u8, seconds: u64| {
            let file = File::options().write(true).open(path.join(file_name(&id(number)))).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        for number in 0..8 {
            cache.store(&id(number), &table()).unwrap();
            age(number, 1000 + u64::from(number));
        }
        // Used: the oldest is the newest now.
        assert!(cache.load(&id(0)).is_some());
        cache.store(&id(8), &table()).unwrap();
        assert!(cache.load(&id(1)).is_none() && cache.load(&id(2)).is_none());
        for number in [0, 3, 7, 8] {
            assert!(cache.load(&id(number)).is_some(), "{number}");
        }
        let few = UnwindCache::with_limits(path.clone(), u64::MAX, 3);
        few.store(&id(9), &table()).unwrap();
        assert!(fs::read_dir(&path).unwrap().count() <= 3);
        assert!(few.load(&id(9)).is_some());
    }

    #[test]
    fn abandoned_temporary_files_go_and_foreign_files_stay() {
        let (folder, _, _) = filled();
        let path = folder.path().join("unwind");
        for (name, seconds_ago) in [("1-1.new", 3600), ("2-1.new", 1), ("README", 3600)] {
            let file = File::create(path.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds_ago)).unwrap();
        }
        UnwindCache::new(path.clone()).store(&id(3), &table()).unwrap();
        assert!(!path.join("1-1.new").exists());
        assert!(path.join("2-1.new").exists());
        assert!(path.join("README").exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn arbitrary_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000), sound_start: bool) {
            let (_folder, cache, path) = filled();
            let mut contents = fs::read(&path).unwrap();
            if !sound_start {
                contents.clear();
            }
            contents.truncate(100);
            contents.extend_from_slice(&bytes);
            fs::write(&path, contents).unwrap();
            prop_assert!(cache.load(&id(1)).is_none());
        }
    }
}
