//! How to get from a thread of a Go program to the goroutine that it runs: offsets in the runtime's structs,
//! which differ by version, and the place of the thread's pointer to its `g`.
//!
//! The version stands in the *build info* that every Go linker since 1.18 writes in this form (debug/buildinfo
//! of the Go sources): the magic bytes, the pointer size, flags of which bit 1 says that strings follow at
//! offset 32, and there a length as a varint and the version's text.
//!
//! The offsets are those of the DWARF of programs that were built with each release (runtime/runtime2.go);
//! they changed within 1.18 … 1.26 only with a minor version. A version that is not in the table has no
//! offsets: its structs may be any other.
//!
//! `g` is in the one thread-local variable that Go itself has, `runtime.tlsg`. Without a `PT_TLS` segment the
//! runtime puts it 8 bytes below the FS base; where the system's linker made one of these 8 bytes alone, it
//! is there as well (ELF TLS variant II puts an executable's block right below the thread pointer). Where C
//! code has brought others, its place is not known here.

use super::scan;
use crate::object_file::Machine;
use crate::{ObjectError, ObjectFile};

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
const HEADER_BYTES: usize = 32;
const FLAG_STRINGS_INLINE: u8 = 2;
/// Longest version that is read; development versions carry a commit and a date.
const MAX_VERSION_BYTES: usize = 256;
/// Build info is aligned so.
const ALIGNMENT: usize = 16;
/// `SHF_TLS`.
const SECTION_IS_THREAD_LOCAL: u64 = 0x400;
/// A pointer.
const TLSG_BYTES: u64 = 8;

/// Offsets in bytes: the goroutine id is `*(*(*(*(fs_base + tls_offset) + g_m) + m_curg) + g_goid)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoroutineOffsets {
    /// From the thread's FS base to the pointer to its `g`.
    pub tls_offset: i32,
    /// `g.m`.
    pub g_m: u32,
    /// `m.curg`.
    pub m_curg: u32,
    /// `g.goid`.
    pub g_goid: u32,
    /// `g.parentGoid`, from Go 1.21 on.
    pub g_parent_goid: Option<u32>,
}

/// What a Go executable says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoProgram {
    /// `go1.22.12`.
    pub version: String,
    /// `None` if the version is not known here, or thread-local variables of C code are in the way.
    pub goroutines: Option<GoroutineOffsets>,
}

impl GoProgram {
    /// 22 of Go 1.22.12.
    pub(super) fn minor_version(&self) -> Option<u32> {
        minor_version(&self.version)
    }

    /// Of an executable; `None` if it is not a Go program.
    ///
    /// # Errors
    /// [`ObjectError`] if it cannot be read.
    pub fn read(object: &ObjectFile) -> Result<Option<Self>, ObjectError> {
        let Some(version) = version(object)? else { return Ok(None) };
        let tls_offset = match object.machine() {
            Machine::X86_64 => tls_offset(object),
            Machine::Aarch64 => None,
        };
        let goroutines = tls_offset.and_then(|tls_offset| offsets(minor_version(&version)?, tls_offset));
        Ok(Some(Self { version, goroutines }))
    }
}

fn version(object: &ObjectFile) -> Result<Option<String>, ObjectError> {
    let bytes = (HEADER_BYTES + 2 + MAX_VERSION_BYTES) as u64;
    if let Some(section) = object.section_header(".go.buildinfo").filter(|header| header.has_contents()) {
        return Ok(parse(&object.read_loaded(section.address, bytes)?));
    }
    if !object.section_headers().is_empty() {
        return Ok(None);
    }
    let data = object.segments().iter().filter(|segment| !segment.executable);
    scan::segments(object, data, bytes, |_, window| {
        Ok(window.windows(HEADER_BYTES).enumerate().step_by(ALIGNMENT / 2).find_map(|(at, header)| {
            if header.starts_with(MAGIC) { window.get(at..).and_then(parse) } else { None }
        }))
    })
}

fn parse(bytes: &[u8]) -> Option<String> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    if !header.starts_with(MAGIC) || header.get(15)? & FLAG_STRINGS_INLINE == 0 {
        return None;
    }
    // A varint of two bytes at most: longer versions are not believed.
    let (low, rest) = rest.split_first()?;
    let (length, rest) = match low {
        0..0x80 => (usize::from(*low), rest),
        _ => {
            let (high, rest) = rest.split_first()?;
            (usize::from(low & 0x7f) | usize::from(*high) << 7, rest)
        }
    };
    if length > MAX_VERSION_BYTES {
        return None;
    }
    let text = std::str::from_utf8(rest.get(..length)?).ok()?;
    text.starts_with("go").then(|| text.to_owned())
}

/// 22 of `go1.22.12`, `go1.22rc1` and `go1.22-custom X:experiment`.
fn minor_version(version: &str) -> Option<u32> {
    let minor = version.strip_prefix("go1.")?;
    let digits = minor.bytes().take_while(u8::is_ascii_digit).count();
    minor.get(..digits)?.parse().ok()
}

fn offsets(minor: u32, tls_offset: i32) -> Option<GoroutineOffsets> {
    let (m_curg, g_goid, g_parent_goid) = match minor {
        18..=20 => (192, 152, None),
        21..=22 => (192, 152, Some(272)),
        23..=24 => (192, 160, Some(280)),
        25 => (184, 152, Some(272)),
        26 => (184, 152, Some(280)),
        _ => return None,
    };
    Some(GoroutineOffsets { tls_offset, g_m: 48, m_curg, g_goid, g_parent_goid })
}

fn tls_offset(object: &ObjectFile) -> Option<i32> {
    let sections = object.section_headers().iter();
    let bytes = sections
        .filter(|header| header.flags & SECTION_IS_THREAD_LOCAL != 0)
        .try_fold(0_u64, |sum, header| sum.checked_add(header.bytes))?;
    (bytes == 0 || bytes == TLSG_BYTES).then_some(-8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build_info(flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[8, flags]);
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn a_version_is_read_with_its_length() {
        assert_eq!(parse(&build_info(2, b"\x08go1.22.1tail")).as_deref(), Some("go1.22.1"));
        let long = format!("go1.27-devel_{}", "x".repeat(150));
        let mut rest = vec![(long.len() & 0x7f) as u8 | 0x80, (long.len() >> 7) as u8];
        rest.extend_from_slice(long.as_bytes());
        assert_eq!(parse(&build_info(2, &rest)), Some(long));
    }

    #[test]
    fn damaged_build_info_is_none() {
        let sound = build_info(2, b"\x08go1.22.1");
        assert!(parse(&sound).is_some());
        for length in 0..sound.len() {
            assert_eq!(parse(&sound[..length]), None, "cut to {length} bytes");
        }
        assert_eq!(parse(&build_info(0, b"\x08go1.22.1")), None, "pointers, as to Go 1.17");
        assert_eq!(parse(&build_info(2, b"\xff\xff")), None, "a length over all bounds");
        assert_eq!(parse(&build_info(2, b"\x02\xff\xff")), None, "no text");
        assert_eq!(parse(&build_info(2, b"\x04rust")), None);
    }

    #[test]
    fn a_minor_version_is_found_in_whatever_follows_it() {
        for (version, minor) in [
            ("go1.22.12", Some(22)),
            ("go1.18", Some(18)),
            ("go1.26rc1", Some(26)),
            ("go1.25-custom X:nodwarf5", Some(25)),
            ("devel +abc", None),
            ("go2.1", None),
            ("go1.", None),
        ] {
            assert_eq!(minor_version(version), minor, "{version}");
        }
    }

    #[test]
    fn versions_beyond_the_table_have_no_offsets() {
        assert_eq!(offsets(17, -8), None);
        assert_eq!(offsets(27, -8), None);
        assert_eq!(offsets(20, -8).and_then(|offsets| offsets.g_parent_goid), None);
        assert_eq!(offsets(26, -8).map(|offsets| (offsets.m_curg, offsets.g_goid)), Some((184, 152)));
    }
}
