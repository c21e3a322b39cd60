//! From call-frame information to tables that BPF can search.
//!
//! Comes in: an [`crate::ObjectFile`]. `.eh_frame`, `.debug_frame` and Go's pcsp tables become address
//! ranges with rules (`span` decides which source speaks for which addresses, `frame_section` runs the
//! programs, `rule` and `expression` translate). Of code that nothing describes, `frame_pointers` looks whether it
//! keeps those. Goes out: an [`UnwindTable`], packed into 4 KiB pages laid out as `bpf/spanflame.h` says; [`cache`]
//! keeps them on disk by build id. Never: a rule that was guessed for code that is described. What is not evaluated is
//! `UNSUPPORTED`, what is not described and does not keep frame pointers is `NONE`.

mod build;
pub mod cache;
mod cache_file;
pub mod cfi;
mod expression;
mod frame_pointers;
mod frame_section;
mod go_rows;
pub mod layout;
mod packer;
mod rule;
mod rules;
mod span;
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
    /// Its code is for a processor whose unwind rules are not known here.
    #[error("{0} is not for x86-64, unwinding of which is all that is supported")]
    UnsupportedMachine(std::path::PathBuf),
    /// A table that would not fit the format's limits.
    #[error("unwind table of {path} is too large: {what}")]
    TooLarge {
        /// The object.
        path: std::path::PathBuf,
        /// Which limit, with figures.
        what: String,
    },
}
