//! How to get from a thread of a Go program to the goroutine that it runs: offsets in the runtime's structs,
//! which differ by version, and the place of the thread's pointer to its `g`.
//!
//! The offsets are those of the DWARF of programs that were built with each release (runtime/runtime2.go);
//! they changed within 1.18 … 1.26 only with a minor version. A version that is not in the table has no
//! offsets: its structs may be any other.
//!
//! `g` is in the one thread-local variable that Go itself has, `runtime.tlsg`. Without a `PT_TLS` segment the
//! runtime puts it 8 bytes below the FS base; where the system's linker made one of these 8 bytes alone, it
//! is there as well (ELF TLS variant II puts an executable's block right below the thread pointer). Where C
//! code has brought others, its place is not known here.

use super::build_info::{BuildInfo, minor_version};
use crate::object_file::Machine;
use crate::{ObjectError, ObjectFile};

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
    /// `g.startpc`.
    pub g_start_pc: u32,
    /// `m.p`, behind which `m.nextp` and `m.oldp` lie.
    pub m_p: u32,
    /// `p.goidcache`, behind which `p.goidcacheend` lies.
    pub p_goidcache: u32,
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
        let Some(info) = BuildInfo::read(object)? else { return Ok(None) };
        let tls_offset = match object.machine() {
            Machine::X86_64 => tls_offset(object),
            Machine::Aarch64 => None,
        };
        let goroutines = tls_offset.and_then(|tls_offset| offsets(info.minor_version()?, tls_offset));
        Ok(Some(Self { version: info.version, goroutines }))
    }
}

fn offsets(minor: u32, tls_offset: i32) -> Option<GoroutineOffsets> {
    let (m_curg, m_p, g_goid, g_parent_goid, g_start_pc, p_goidcache) = match minor {
        18..=20 => (192, 208, 152, None, 312, 384),
        21..=22 => (192, 208, 152, Some(272), 296, 384),
        23..=24 => (192, 208, 160, Some(280), 304, 376),
        25 => (184, 200, 152, Some(272), 296, 376),
        26 => (184, 208, 152, Some(280), 304, 384),
        _ => return None,
    };
    Some(GoroutineOffsets {
        tls_offset,
        g_m: 48,
        m_curg,
        g_goid,
        g_parent_goid,
        g_start_pc,
        m_p,
        p_goidcache,
    })
}

/// The offset of `p.goidcache` in bytes; `None` if the version is not in the table.
pub(super) fn p_goidcache(minor: u32) -> Option<u32> {
    offsets(minor, 0).map(|offsets| offsets.p_goidcache)
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

    #[test]
    fn versions_beyond_the_table_have_no_offsets() {
        assert_eq!(offsets(17, -8), None);
        assert_eq!(offsets(27, -8), None);
        assert_eq!(offsets(20, -8).and_then(|offsets| offsets.g_parent_goid), None);
        assert_eq!(offsets(26, -8).map(|offsets| (offsets.m_curg, offsets.g_goid)), Some((184, 152)));
    }
}
