//! From call-frame information to tables that BPF can search.
//!
//! `.eh_frame`, `.debug_frame` and Go's pcsp tables become [`Row`]s (an address and the rule in force
//! from there on); [`UnwindTable`] packs them into 4 KiB pages laid out as `bpf/spanflame.h` says;
//! [`cache`] keeps the pages on disk by build id.

pub mod cache;
pub mod cfi;
pub mod layout;
pub mod table;

pub use layout::UnwindRule;
pub use table::UnwindTable;

use crate::ElfAddress;

/// A rule and the first address at which it is in force; it ends where the next row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// First address.
    pub address: ElfAddress,
    /// How to find the caller from here; [`UnwindRule::NONE`] ends a function that nothing follows.
    pub rule: UnwindRule,
}

/// Why an object has no unwind table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnwindError {
    /// The object could not be read.
    #[error(transparent)]
    Object(#[from] crate::ObjectError),
    /// It has no unwind information of any kind.
    #[error("{0} has no unwind information")]
    NoInformation(std::path::PathBuf),
    /// A table that would not fit the format's limits.
    #[error("unwind table of {path} is too large: {what}")]
    TooLarge {
        /// The object.
        path: std::path::PathBuf,
        /// Which limit, with figures.
        what: String,
    },
}
