//! Unwind tables on disk, by build id.

use std::path::PathBuf;

use super::UnwindTable;
use crate::BuildId;

/// A folder of unwind tables.
#[derive(Debug)]
pub struct UnwindCache {
    folder: PathBuf,
}

impl UnwindCache {
    /// A cache in `folder`, which is made when first written to, private to its user.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The table of this build id, if a sound one is there. Anything else is removed and is `None`.
    #[must_use]
    pub fn load(&self, _build_id: &BuildId) -> Option<UnwindTable> {
        let _ = &self.folder;
        todo!("helper cfi")
    }

    /// Keeps a table: written aside and renamed, so that no reader sees half of it.
    ///
    /// # Errors
    /// The system's; a cache that cannot be written is slower, not wrong.
    pub fn store(&self, _build_id: &BuildId, _table: &UnwindTable) -> std::io::Result<()> {
        todo!("helper cfi")
    }
}
