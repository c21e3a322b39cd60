//! `/proc/PID/maps`: the executable mappings of a process that was there before we looked.
//!
//! A line reads `begin-end perms offset major:minor inode   path` (proc(5)). The path is the rest of
//! the line and may hold spaces; a newline in it is written `\012`; `(deleted)` follows the name of a
//! file that is gone.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Larger than any real process's file; what is behind it is not looked at.
const MAX_MAPS_BYTES: u64 = 64 << 20;

/// An executable line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapsLine {
    /// First process address.
    pub begin: u64,
    /// First process address behind it.
    pub end: u64,
    /// Where the mapping begins in the file, bytes.
    pub file_offset: u64,
    /// Device of the file, major and minor.
    pub device: (u32, u32),
    /// Inode of the file; 0 for anonymous memory.
    pub inode: u64,
    /// The file as the process named it, `[vdso]` and the like, or empty.
    pub path: PathBuf,
}

/// The executable mappings of process `pid`.
///
/// # Errors
/// The system's, typically `NotFound` or `ESRCH` for a process that is gone.
pub fn read(pid: u32) -> io::Result<Vec<MapsLine>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/maps"))?.take(MAX_MAPS_BYTES).read_to_end(&mut text)?;
    Ok(parse(&text))
}

/// The executable lines of a maps file; malformed lines are passed over.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<MapsLine> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MapsLine> {
    let mut rest = line;
    let range = next_field(&mut rest)?;
    let permissions = next_field(&mut rest)?;
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let file_offset = u64::from_str_radix(next_field(&mut rest)?, 16).ok()?;
    let (major, minor) = next_field(&mut rest)?.split_once(':')?;
    let inode = next_field(&mut rest)?.parse().ok()?;
    let (begin, end) = range.split_once('-')?;
    Some(MapsLine {
        begin: u64::from_str_radix(begin, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        file_offset,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode,
        path: PathBuf::from(OsString::from_vec(rest.trim_ascii_start().to_vec())),
    })
}

/// Takes the next word off `rest`, which then begins with the space behind it.
fn next_field<'line>(rest: &mut &'line [u8]) -> Option<&'line str> {
    let trimmed = rest.trim_ascii_start();
    let length = trimmed.iter().position(|&byte| byte == b' ').unwrap_or(trimmed.len());
    let (field, behind) = trimmed.split_at_checked(length)?;
    *rest = behind;
    std::str::from_utf8(field).ok().filter(|field| !field.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_executable_lines_count() {
        let text = b"\
55d0c0000000-55d0c0002000 r--p 00000000 fe:00 4242                       /usr/bin/some thing
55d0c0002000-55d0c0006000 r-xp 00002000 fe:00 4242                       /usr/bin/some thing
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
7ffd00100000-7ffd00102000 r-xp 00000000 00:00 0                          [vdso]
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n";
        let lines = parse(text);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].begin, 0x55d0_c000_2000);
        assert_eq!(lines[0].file_offset, 0x2000);
        assert_eq!(lines[0].device, (0xfe, 0));
        assert_eq!(lines[0].inode, 4242);
        assert_eq!(lines[0].path, PathBuf::from("/usr/bin/some thing"), "spaces belong to the path");
        assert_eq!(lines[1].path, PathBuf::from("[vdso]"));
        assert_eq!(lines[2].path, PathBuf::new(), "anonymous memory has no path");
    }

    #[test]
    fn our_own_maps_hold_our_own_code() {
        let here = our_address();
        let lines = read(std::process::id()).expect("our own maps are readable");
        assert!(lines.iter().any(|line| line.begin <= here && here < line.end && line.inode != 0));
    }

    fn our_address() -> u64 {
        our_own_maps_hold_our_own_code as fn() as usize as u64
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_passed_over(text: Vec<u8>) {
            let _ = parse(&text);
        }
    }
}
