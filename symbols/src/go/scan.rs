//! Walks over the loaded bytes of an object, a window at a time.

use crate::object_file::Segment;
use crate::{ElfAddress, ObjectError, ObjectFile};

/// Bytes that are looked at together.
const WINDOW_BYTES: u64 = 1 << 20;
/// Segments may overlap in a hostile file: it is walked over this many times at most.
const MAX_PASSES: u64 = 2;

/// Shows the bytes of segments to `visit` until it returns something. Windows begin at multiples of
/// eight; `overlap` bytes of each are in the next one as well, so that nothing is cut in two.
///
/// # Errors
/// [`ObjectError::Io`], and those of `visit`.
pub(super) fn segments<'a, T>(
    object: &ObjectFile,
    segments: impl Iterator<Item = &'a Segment>,
    overlap: u64,
    mut visit: impl FnMut(ElfAddress, &[u8]) -> Result<Option<T>, ObjectError>,
) -> Result<Option<T>, ObjectError> {
    let mut bytes_left = object.file_bytes().saturating_mul(MAX_PASSES);
    for segment in segments {
        let Some(end) = segment.address.0.checked_add(segment.file_bytes) else { continue };
        let Some(mut at) = segment.address.0.checked_next_multiple_of(8) else { continue };
        while at < end && bytes_left > 0 {
            let window = match object.read_loaded(ElfAddress(at), WINDOW_BYTES + overlap) {
                Ok(window) => window,
                // The file is shorter than the segment says.
                Err(ObjectError::Malformed { .. }) => break,
                Err(error) => return Err(error),
            };
            if let Some(found) = visit(ElfAddress(at), &window)? {
                return Ok(Some(found));
            }
            bytes_left = bytes_left.saturating_sub((window.len() as u64).max(1));
            at = at.saturating_add(WINDOW_BYTES);
        }
    }
    Ok(None)
}
