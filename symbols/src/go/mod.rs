//! Go executables: `.gopclntab` names, lines and stack-pointer deltas, stripped or not.

use crate::ObjectFile;
use crate::unwind::{Row, UnwindError};

/// Appends the rows of a Go executable's pcsp tables.
///
/// # Errors
/// [`UnwindError::Object`] if a section cannot be read.
pub fn unwind_rows(_object: &ObjectFile, _rows: &mut Vec<Row>) -> Result<(), UnwindError> {
    Ok(())
}
