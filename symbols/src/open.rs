//! Opening files of another process safely: as the process sees them, never what they merely point
//! to on the host, never anything but regular files, never blocking.
//!
//! A file is first had by `O_PATH`, which touches neither a device nor a FIFO (a plain open of a tape
//! rewinds it, one of a FIFO wakes its writer), then looked at, and only a regular file is opened for
//! reading, by its descriptor, so that nothing can be swapped in between.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::ObjectError;

/// `openat2` answers EAGAIN when a rename or mount anywhere raced with a scoped look-up.
const RACED_LOOKUP_ATTEMPTS: usize = 16;

/// Opens `path` as process `pid` sees it: `openat2(RESOLVE_IN_ROOT)` below `/proc/PID/root`,
/// `O_NONBLOCK`, regular files only.
///
/// # Errors
/// [`ObjectError::Io`] with the system's reason, [`ObjectError::Malformed`] for anything but a
/// regular file.
pub fn open_in_process(pid: u32, path: &Path) -> Result<File, ObjectError> {
    open_below_root(Path::new(&format!("/proc/{pid}/root")), path)
}

/// Opens the file behind the mapping `[begin, end)` of `pid` through `/proc/PID/map_files`: right
/// also when the file was deleted or replaced since. Needs `CAP_SYS_ADMIN` or
/// `CAP_CHECKPOINT_RESTORE`.
///
/// # Errors
/// As [`open_in_process`].
pub fn open_mapped_file(pid: u32, begin: u64, end: u64) -> Result<File, ObjectError> {
    let link = PathBuf::from(format!("/proc/{pid}/map_files/{begin:x}-{end:x}"));
    let handle = rustix::fs::open(&link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| io_error(&link, errno))?;
    reopen_regular_file(&handle, &link)
}

/// Opens `path` with `root` as the root directory: absolute paths and symbolic links start there, and
/// `..` does not lead out of it. Links of `/proc` that are no paths (`/proc/self/fd/3`) are refused.
pub(crate) fn open_below_root(root: &Path, path: &Path) -> Result<File, ObjectError> {
    let root_handle =
        rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| io_error(root, errno))?;
    let mut attempt = 1;
    let handle = loop {
        let opened = rustix::fs::openat2(
            &root_handle,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        );
        match opened {
            Ok(handle) => break handle,
            Err(Errno::AGAIN | Errno::INTR) if attempt < RACED_LOOKUP_ATTEMPTS => attempt += 1,
            Err(errno) => return Err(io_error(path, errno)),
        }
    };
    reopen_regular_file(&handle, path)
}

fn reopen_regular_file(handle: &OwnedFd, path: &Path) -> Result<File, ObjectError> {
    let status = rustix::fs::fstat(handle.as_fd()).map_err(|errno| io_error(path, errno))?;
    let file_type = FileType::from_raw_mode(status.st_mode);
    if file_type != FileType::RegularFile {
        return Err(ObjectError::Malformed {
            path: path.to_owned(),
            reason: format!("it is a {}, not a regular file", file_type_name(file_type)),
        });
    }
    let by_descriptor = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(by_descriptor, flags, Mode::empty());
    opened.map(File::from).map_err(|errno| io_error(path, errno))
}

fn file_type_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "file of unknown type",
    }
}

fn io_error(path: &Path, errno: Errno) -> ObjectError {
    ObjectError::Io { path: path.to_owned(), source: io::Error::from(errno) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn contents(mut file: File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn refusal(result: Result<File, ObjectError>) -> String {
        result.expect_err("it was opened").to_string()
    }

    #[test]
    fn absolute_symlinks_are_resolved_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/hostname"), "inside").unwrap();
        symlink("/etc/hostname", root.path().join("link")).unwrap();
        symlink("../../../../../../etc/hostname", root.path().join("climbing")).unwrap();
        for path in ["/link", "link", "/climbing", "/../etc/hostname"] {
            let file = open_below_root(root.path(), Path::new(path)).unwrap();
            assert_eq!(contents(file), "inside", "{path}");
        }
        symlink("/etc/passwd", root.path().join("escaping")).unwrap();
        assert!(open_below_root(root.path(), Path::new("/escaping")).is_err(), "the host's file was opened");
    }

    #[test]
    fn a_fifo_is_refused_without_blocking() {
        let root = tempfile::tempdir().unwrap();
        let fifo = root.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(refusal(open_below_root(root.path(), Path::new("/fifo"))).contains("FIFO"));
    }

    #[test]
    fn devices_directories_and_sockets_are_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        assert!(refusal(open_below_root(root.path(), Path::new("/directory"))).contains("directory"));
        assert!(refusal(open_below_root(root.path(), Path::new("/socket"))).contains("socket"));
        let device = refusal(open_in_process(std::process::id(), Path::new("/dev/null")));
        assert!(device.contains("character device"), "{device}");
    }

    #[test]
    fn magic_links_are_refused() {
        let own = format!("/proc/{}/exe", std::process::id());
        let refused = open_in_process(std::process::id(), Path::new(&own));
        assert!(matches!(refused, Err(ObjectError::Io { .. })), "{refused:?}");
    }

    #[test]
    fn a_missing_process_and_a_missing_file_are_errors_with_the_path() {
        assert!(refusal(open_in_process(u32::MAX, Path::new("/bin/true"))).contains("/proc/4294967295"));
        assert!(refusal(open_in_process(std::process::id(), Path::new("/no/such"))).contains("/no/such"));
    }

    #[test]
    fn the_file_behind_a_mapping_is_had_after_it_was_deleted() {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"still here").unwrap();
        // SAFETY: the file is ours alone and nobody shortens it while it is mapped.
        let mapping = unsafe { memmap2::Mmap::map(file.as_file()) }.unwrap();
        let begin = mapping.as_ptr() as u64;
        drop(file);
        match open_mapped_file(std::process::id(), begin, begin + 4096) {
            Ok(opened) => assert_eq!(contents(opened), "still here"),
            Err(ObjectError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                println!("skipped: /proc/PID/map_files needs CAP_CHECKPOINT_RESTORE");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
