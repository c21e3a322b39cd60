//! Separate debug files: where a distribution or a packager put what was stripped off.
//!
//! Sought by build id in `/usr/lib/debug/.build-id/xx/yyyy.debug`, then by `.gnu_debuglink` (a file name
//! and a CRC-32 of that file) beside the object, in `.debug/` beside it and below `/usr/lib/debug`; GDB's
//! manual, "Debugging Information in Separate Files". Each place is tried inside the root of a process
//! that has the object mapped, if one is given, then on this host.
//!
//! A file counts only if it proves itself: an equal GNU build id, or the link's CRC where the object has
//! no build id. So a path that means something else on the host than in a container does no harm.
//!
//! `.gnu_debugaltlink` (dwz) names one more file, with what several debug files have in common; its build
//! id stands in the link. `.gnu_debugdata` is a small object inside of the object, xz-compressed
//! (`MiniDebugInfo`), which holds a symbol table and no more.
//!
//! Known gap: dwz's common files have no program headers, for which [`ObjectFile`] refuses them, so what
//! only stands there is not found yet; a supplement with program headers is read.
//!
//! Never: the network.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::open::{open_below_root, open_in_process};
use crate::{BuildId, FileOffset, ObjectError, ObjectFile};

const DEBUG_ROOT: &str = "/usr/lib/debug";
/// Largest file whose CRC is computed.
const MAX_CRC_BYTES: u64 = 1 << 30;
const CRC_CHUNK_BYTES: u64 = 1 << 20;
/// Largest object inside `.gnu_debugdata`; Fedora's largest has about 10 MiB.
const MAX_MINI_DEBUG_BYTES: u64 = 64 << 20;
/// Memory that the xz decoder may take for its dictionary.
const MAX_XZ_MEMORY_BYTES: u64 = 96 << 20;

/// Finds the separate debug file of an object.
#[must_use]
pub fn find(object: &ObjectFile, pid: Option<u32>) -> Option<ObjectFile> {
    let by_build_id = build_id_path(object.build_id())
        .and_then(|path| open_proven(&path, pid, |found| found.build_id() == object.build_id()));
    if by_build_id.is_some() {
        return by_build_id;
    }
    let link = object.section(".gnu_debuglink").ok()??.data;
    let (name, crc) = parse_debug_link(&link)?;
    let is_proven = |found: &ObjectFile| match (object.build_id(), found.build_id()) {
        (BuildId::Gnu(wanted), BuildId::Gnu(id)) => wanted == id,
        _ => crc_of(found) == Some(crc),
    };
    debug_link_paths(object.path(), name).iter().find_map(|path| open_proven(path, pid, is_proven))
}

/// Finds the file that `.gnu_debugaltlink` of a debug file names.
#[must_use]
pub fn find_supplement(debug_file: &ObjectFile, pid: Option<u32>) -> Option<ObjectFile> {
    let link = debug_file.section(".gnu_debugaltlink").ok()??.data;
    let zero = link.iter().position(|&byte| byte == 0)?;
    let name = Path::new(std::ffi::OsStr::from_bytes(link.get(..zero)?));
    let build_id = BuildId::Gnu(link.get(zero + 1..)?.to_vec());
    let beside = debug_file.path().parent().unwrap_or(Path::new("/")).join(name);
    let paths = [Some(beside), build_id_path(&build_id)];
    let mut paths = paths.iter().flatten();
    paths.find_map(|path| open_proven(path, pid, |found| *found.build_id() == build_id))
}

/// The object inside of `.gnu_debugdata`, if there is one and it is sound.
#[must_use]
pub fn mini_debug_object(object: &ObjectFile) -> Option<ObjectFile> {
    let packed = object.section(".gnu_debugdata").ok()??.data;
    let decoder = liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY_BYTES, 0).ok()?;
    let mut bytes = Vec::new();
    liblzma::read::XzDecoder::new_stream(packed.as_slice(), decoder)
        .take(MAX_MINI_DEBUG_BYTES + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    if bytes.len() as u64 > MAX_MINI_DEBUG_BYTES {
        return None;
    }
    ObjectFile::from_bytes(bytes, object.path()).ok()
}

fn build_id_path(build_id: &BuildId) -> Option<PathBuf> {
    let BuildId::Gnu(bytes) = build_id else { return None };
    let (first, rest) = bytes.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let hex: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(PathBuf::from(format!("{DEBUG_ROOT}/.build-id/{first:02x}/{hex}.debug")))
}

/// The name and CRC of a `.gnu_debuglink`: a zero-terminated name, padded to four bytes, and the CRC.
fn parse_debug_link(link: &[u8]) -> Option<(&Path, u32)> {
    let zero = link.iter().position(|&byte| byte == 0)?;
    let name = link.get(..zero)?;
    // A name with a path in it would lead out of the places that are searched.
    if name.is_empty() || name.contains(&b'/') || name == b".." {
        return None;
    }
    let crc = link.get((zero + 1).next_multiple_of(4)..)?.get(..4)?;
    Some((Path::new(std::ffi::OsStr::from_bytes(name)), u32::from_le_bytes(crc.try_into().ok()?)))
}

fn debug_link_paths(object: &Path, name: &Path) -> Vec<PathBuf> {
    let Some(folder) = object.parent().filter(|_| object.is_absolute()) else { return Vec::new() };
    let below_root = folder.strip_prefix("/").unwrap_or(folder);
    vec![
        folder.join(name),
        folder.join(".debug").join(name),
        Path::new(DEBUG_ROOT).join(below_root).join(name),
    ]
}

/// The object at a path as the process sees it, else as this host does, if it is the one sought.
fn open_proven(path: &Path, pid: Option<u32>, is_proven: impl Fn(&ObjectFile) -> bool) -> Option<ObjectFile> {
    let proven = |opened: Result<File, ObjectError>| {
        let object = opened.and_then(|file| ObjectFile::new(file, path)).ok()?;
        is_proven(&object).then_some(object)
    };
    pid.and_then(|pid| proven(open_in_process(pid, path)))
        .or_else(|| proven(open_below_root(Path::new("/"), path)))
}

/// CRC-32 of a whole file, as `.gnu_debuglink` has it (the one of zlib).
fn crc_of(object: &ObjectFile) -> Option<u32> {
    let file_bytes = object.file_bytes();
    if file_bytes > MAX_CRC_BYTES {
        return None;
    }
    let mut crc = flate2::Crc::new();
    let mut position = 0;
    while position < file_bytes {
        let bytes = CRC_CHUNK_BYTES.min(file_bytes - position);
        crc.update(&object.read_file(FileOffset(position), bytes).ok()?);
        position += bytes;
    }
    Some(crc.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debug_link_is_a_plain_name_and_an_aligned_crc() {
        assert_eq!(parse_debug_link(b"a.debug\0\x01\x02\x03\x04"), Some((Path::new("a.debug"), 0x0403_0201)));
        assert_eq!(parse_debug_link(b"ab\0\0\x01\0\0\0rest"), Some((Path::new("ab"), 1)));
        for hostile in [
            &b""[..],
            b"\0\0\0\0\0\0\0\0",
            b"name without end",
            b"../../etc/shadow\0\0\0\0\0\0\0\0\0",
            b"..\0\0\0\0\0\0",
            b"abc\0\x01\x02\x03",
            b"ab\0",
        ] {
            assert_eq!(parse_debug_link(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn debug_files_are_sought_where_gdb_seeks_them() {
        let paths = debug_link_paths(Path::new("/usr/bin/app"), Path::new("app.debug"));
        let expected =
            ["/usr/bin/app.debug", "/usr/bin/.debug/app.debug", "/usr/lib/debug/usr/bin/app.debug"];
        assert_eq!(paths, expected.map(PathBuf::from));
        assert!(debug_link_paths(Path::new("app"), Path::new("x")).is_empty(), "no place is relative to us");
        let id = BuildId::Gnu(vec![0xab, 0x01, 0xff]);
        assert_eq!(build_id_path(&id), Some(PathBuf::from("/usr/lib/debug/.build-id/ab/01ff.debug")));
        assert_eq!(build_id_path(&BuildId::Gnu(vec![0xab])), None);
        assert_eq!(build_id_path(&BuildId::Gnu(vec![])), None);
    }
}
