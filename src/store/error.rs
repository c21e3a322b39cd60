//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::model::InvalidProfile;

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error("{}: cannot be used for windows: {source}", path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process writes there.
    #[error("{}: another spanflame uses this folder; stop it or choose another --data-dir", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A later version has written this.
    #[error(
        "{}: written by a newer spanflame (schema {found}, this one knows {known}); \
         use that version, or move the file away", path.display()
    )]
    NewerSchema {
        /// The segment.
        path: PathBuf,
        /// Version that it has.
        found: i64,
        /// Newest version that is known here.
        known: i64,
    },
    /// The disk is full.
    #[error("{}: the disk is full; nothing of this window was kept", path.display())]
    DiskFull {
        /// The segment that was written.
        path: PathBuf,
    },
    /// A file contradicts itself or its format.
    #[error("{}: broken: {what}", path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// `SQLite` failed otherwise.
    #[error("{}: {doing}: {source}", path.display())]
    Database {
        /// The segment.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The window contradicts itself: a mistake of whoever made it.
    #[error("the window is inconsistent: {0}")]
    InvalidWindow(#[from] InvalidProfile),
    /// The window cannot be kept.
    #[error("the window cannot be kept: {what}")]
    RefusedWindow {
        /// Why.
        what: String,
    },
    /// The question makes no sense.
    #[error("{what}")]
    BadQuery {
        /// Why.
        what: String,
    },
    /// Of a batch of spans, only the beginning was written.
    #[error("{source}; the first {written} spans of the batch are kept")]
    PartlyWritten {
        /// How many.
        written: usize,
        /// Why not the others.
        source: Box<StoreError>,
    },
    /// The answer would be too large.
    #[error(
        "more than {limit} {what} in the range: ask for a shorter one, for fewer labels, or for one service"
    )]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// The options make no sense.
    #[error("storage: {what}")]
    BadOptions {
        /// Why.
        what: String,
    },
}

impl StoreError {
    /// What `SQLite` said of `path`, sorted by what it means for us.
    pub(super) fn database(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { path, what: source.to_string() }
            }
            _ => Self::Database { path, doing, source },
        }
    }

    pub(super) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.into() }
    }

    /// Whether it is the file that is at fault and will stay so.
    pub(super) fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether the file was not there (any more).
    pub(super) fn is_missing(&self) -> bool {
        match self {
            Self::Database { source, .. } => source.sqlite_error_code() == Some(ErrorCode::CannotOpen),
            _ => false,
        }
    }
}
