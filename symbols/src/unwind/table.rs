//! Packs rows into pages.

use super::{Row, UnwindError, UnwindRule};
use crate::{ElfAddress, ObjectFile};

/// The unwind table of one object: pages for the kernel, and where each kind begins in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwindTable {
    /// ELF address of the first chunk, a multiple of 4 KiB.
    pub text_begin: ElfAddress,
    /// Directory entries.
    pub chunks: u32,
    /// Pages of directory; they come first.
    pub directory_pages: u32,
    /// Pages of rules; they follow.
    pub rule_pages: u32,
    /// Pages of leaves; they come last.
    pub leaf_pages: u32,
    /// Rows in all, for statistics.
    pub rows: u64,
    /// Directory, rules, leaves; a multiple of 4096 bytes.
    pub pages: Vec<u8>,
}

impl UnwindTable {
    /// Reads every source of unwind information of an object and packs it.
    ///
    /// # Errors
    /// [`UnwindError`].
    pub fn build(_object: &ObjectFile) -> Result<Self, UnwindError> {
        todo!("helper cfi")
    }

    /// Packs rows, sorted by address.
    ///
    /// # Errors
    /// [`UnwindError::TooLarge`].
    pub fn from_rows(_rows: &[Row]) -> Result<Self, UnwindError> {
        todo!("helper cfi")
    }

    /// The rule in force at `address`: what BPF does, in Rust, for tests and `doctor`.
    #[must_use]
    pub fn find(&self, _address: ElfAddress) -> UnwindRule {
        todo!("helper cfi")
    }
}
