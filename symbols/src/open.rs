//! Opening files of another process safely: as the process sees them, never what they merely point
//! to on the host, never anything but regular files, never blocking.

use std::fs::File;
use std::path::Path;

use crate::ObjectError;

/// Opens `path` as process `pid` sees it: `openat2(RESOLVE_IN_ROOT)` below `/proc/PID/root`,
/// `O_NONBLOCK`, regular files only.
///
/// # Errors
/// [`ObjectError::Io`] with the system's reason, [`ObjectError::Malformed`] for anything but a
/// regular file.
pub fn open_in_process(_pid: u32, _path: &Path) -> Result<File, ObjectError> {
    todo!("helper cfi")
}

/// Opens the file behind the mapping `[begin, end)` of `pid` through `/proc/PID/map_files`: right
/// also when the file was deleted or replaced since. Needs `CAP_SYS_ADMIN` or
/// `CAP_CHECKPOINT_RESTORE`.
///
/// # Errors
/// As [`open_in_process`].
pub fn open_mapped_file(_pid: u32, _begin: u64, _end: u64) -> Result<File, ObjectError> {
    todo!("helper cfi")
}
