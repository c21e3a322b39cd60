//! An ELF file that was opened once: its segments, sections and identity.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{BuildId, ElfAddress, FileOffset};

/// Largest file that is looked into.
pub const MAX_OBJECT_BYTES: u64 = 4 << 30;

/// Why a file could not be used as an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// Reading failed.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not an ELF file of this machine, or one with impossible contents.
    #[error("{path} is not a usable ELF file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Over a size limit.
    #[error("{path}: {what} is over the limit of {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The part that is too large.
        what: String,
        /// The limit, bytes.
        limit: u64,
    },
}

/// A `PT_LOAD` segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: FileOffset,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Where it is linked.
    pub address: ElfAddress,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Whether it is executable.
    pub executable: bool,
}

/// An opened ELF file. Reads with `pread`, never through a mapping of the file: a file that is cut
/// short while it is looked at must be an error, not a SIGBUS.
#[derive(Debug)]
pub struct ObjectFile {
    path: PathBuf,
}

impl ObjectFile {
    /// Reads headers and identity of an open file. `path` is for people only.
    ///
    /// # Errors
    /// [`ObjectError`] if it cannot be read or is no usable ELF file.
    pub fn new(_file: File, _path: &Path) -> Result<Self, ObjectError> {
        todo!("helper cfi")
    }

    /// The same for contents in memory (vDSO, tests).
    ///
    /// # Errors
    /// As [`ObjectFile::new`].
    pub fn from_bytes(_bytes: Vec<u8>, _path: &Path) -> Result<Self, ObjectError> {
        todo!("helper cfi")
    }

    /// The path it was opened by, as the process sees it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file; `None` for contents in memory.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        todo!("helper cfi")
    }

    /// What identifies the contents.
    #[must_use]
    pub fn build_id(&self) -> &BuildId {
        todo!("helper cfi")
    }

    /// The `PT_LOAD` segments in file order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        todo!("helper cfi")
    }

    /// The ELF address that file offset `offset` is loaded at, preferring executable segments.
    /// Accepts the page-rounded offsets that mappings have.
    #[must_use]
    pub fn elf_address(&self, _offset: FileOffset) -> Option<ElfAddress> {
        todo!("helper cfi")
    }

    /// Contents of a section, decompressed; `None` if there is none of this name.
    ///
    /// # Errors
    /// [`ObjectError`] if it lies outside of the file or is over its size limit.
    pub fn section(&self, _name: &str) -> Result<Option<Section>, ObjectError> {
        todo!("helper cfi")
    }
}

/// A section that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Where it is linked.
    pub address: ElfAddress,
    /// Its contents.
    pub data: Vec<u8>,
}
