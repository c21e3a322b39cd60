//! `.eh_frame` and `.debug_frame` → rows.

use super::{Row, UnwindError};
use crate::ObjectFile;

/// Appends the rows of an object's call-frame information, unsorted.
///
/// # Errors
/// [`UnwindError::Object`] if a section cannot be read.
pub fn rows(_object: &ObjectFile, _rows: &mut Vec<Row>) -> Result<(), UnwindError> {
    todo!("helper cfi")
}
