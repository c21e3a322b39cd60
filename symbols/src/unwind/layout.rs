//! The unwind-table types of `bpf/spanflame.h`, as Rust writes them into pages. The binary's
//! `src/kernel/abi.rs` refuses to compile if they differ from the header in size or offset.

use crate::little_endian::{u16_at, u32_at};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// Text bytes that one directory entry covers, as a power of two.
pub const CHUNK_BITS: u32 = 12;
/// Rows of a leaf.
pub const LEAF_ROWS: usize = 1024;
/// Rules of a page.
pub const RULES_PER_PAGE: usize = 256;
/// Directory entries of a page.
pub const DIRECTORY_PER_PAGE: usize = 512;

/// `enum sf_cfa`.
#[allow(missing_docs)]
pub mod cfa {
    pub const NONE: u8 = 0;
    pub const REGISTER: u8 = 1;
    pub const DEREF: u8 = 2;
    pub const PLT: u8 = 3;
    pub const SIGNAL: u8 = 4;
    pub const FRAME_POINTER: u8 = 5;
    pub const END: u8 = 6;
    pub const UNSUPPORTED: u8 = 7;
    pub const RUNTIME: u8 = 8;
}

/// `enum sf_saved_fp`.
#[allow(missing_docs)]
pub mod saved_fp {
    pub const SAME: u8 = 0;
    pub const AT_CFA: u8 = 1;
    pub const AT_FP: u8 = 2;
    pub const UNKNOWN: u8 = 3;
}

/// `enum sf_return_address`, the low nibble of [`UnwindRule::return_address`].
#[allow(missing_docs)]
pub mod return_address {
    pub const AT_CFA: u8 = 0;
    pub const IN_REGISTER: u8 = 1;
}

/// `struct sf_unwind_rule`: one way to get from a frame to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
#[repr(C)]
pub struct UnwindRule {
    /// One of [`cfa`].
    pub cfa: u8,
    /// DWARF number of the register for `REGISTER` and `DEREF`.
    pub cfa_register: u8,
    /// One of [`saved_fp`].
    pub frame_pointer: u8,
    /// Low nibble one of [`return_address`], high nibble its register.
    pub return_address: u8,
    /// Bytes.
    pub cfa_offset: i32,
    /// Bytes; for `PLT` the low four bits of pc from which 8 more are on the stack.
    pub cfa_addend: i32,
    /// Bytes from the CFA or rbp.
    pub fp_offset: i16,
    /// Caller's rbx at CFA + this; 0: not touched.
    pub rbx_offset: i16,
}

impl UnwindRule {
    /// Nothing is known about these addresses; always rule 0 of a table.
    pub const NONE: Self = Self {
        cfa: cfa::NONE,
        cfa_register: 0,
        frame_pointer: 0,
        return_address: 0,
        cfa_offset: 0,
        cfa_addend: 0,
        fp_offset: 0,
        rbx_offset: 0,
    };

    /// The 16 bytes that stand in a page.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (kinds, rest) = bytes.split_at_mut(4);
        kinds.copy_from_slice(&[self.cfa, self.cfa_register, self.frame_pointer, self.return_address]);
        let (cfa_offset, rest) = rest.split_at_mut(4);
        cfa_offset.copy_from_slice(&self.cfa_offset.to_le_bytes());
        let (cfa_addend, rest) = rest.split_at_mut(4);
        cfa_addend.copy_from_slice(&self.cfa_addend.to_le_bytes());
        let (fp_offset, rbx_offset) = rest.split_at_mut(2);
        fp_offset.copy_from_slice(&self.fp_offset.to_le_bytes());
        rbx_offset.copy_from_slice(&self.rbx_offset.to_le_bytes());
        bytes
    }

    /// The rule in the 16 bytes at `offset` of a page.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], offset: usize) -> Option<Self> {
        let raw = bytes.get(offset..offset.checked_add(16)?)?;
        let &[cfa, cfa_register, frame_pointer, return_address] = raw.first_chunk::<4>()?;
        Some(Self {
            cfa,
            cfa_register,
            frame_pointer,
            return_address,
            cfa_offset: u32_at(raw, 4)? as i32,
            cfa_addend: u32_at(raw, 8)? as i32,
            fp_offset: u16_at(raw, 12)? as i16,
            rbx_offset: u16_at(raw, 14)? as i16,
        })
    }
}

/// `struct sf_directory_entry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct DirectoryEntry {
    /// Pages from the object's first leaf page.
    pub leaf: u32,
    /// Index of the chunk's first row in the leaf.
    pub first: u16,
    /// Rows.
    pub count: u16,
}

impl DirectoryEntry {
    /// The entry in the 8 bytes at `offset` of a page.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], offset: usize) -> Option<Self> {
        Some(Self {
            leaf: u32_at(bytes, offset)?,
            first: u16_at(bytes, offset.checked_add(4)?)?,
            count: u16_at(bytes, offset.checked_add(6)?)?,
        })
    }
}
