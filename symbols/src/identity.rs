//! Which build id an object has: from its notes, else from its contents.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::build_id::build_id_in_notes;
use crate::object_file::{PT_NOTE, ProgramHeader, SHT_NOTE};
use crate::{BuildId, FileOffset, ObjectError, ObjectFile};

/// Notes that are looked through for an identity, bytes per segment or section.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// Code that is hashed whole for an object without an id. Programs that are larger (`librustc_driver` has
/// 100 MB) are waited for by samples: of them pieces are hashed …
const MAX_HASHED_BYTES: u64 = 4 << 20;
/// … of this size, at even distances. Another build has other code, and from the first difference in
/// length on everything is elsewhere.
const PIECE_BYTES: u64 = 4 << 10;

/// The identity of an object whose headers have been read.
///
/// # Errors
/// [`ObjectError::Io`] if it carries no id and its code cannot be read.
pub(crate) fn of_object(
    object: &ObjectFile,
    elf_header: &[u8],
    program_headers: &[ProgramHeader],
) -> Result<BuildId, ObjectError> {
    match build_id_from_notes(object, program_headers) {
        Some(build_id) => Ok(build_id),
        None => content_hash(object, elf_header, program_headers),
    }
}

/// A GNU id in any note is preferred to a Go id in an earlier one. Segments first: they are what
/// the kernel's own build id of a mapping is read from.
fn build_id_from_notes(object: &ObjectFile, program_headers: &[ProgramHeader]) -> Option<BuildId> {
    let note_segments = program_headers.iter().filter(|header| header.kind == PT_NOTE);
    let note_sections = object.section_headers().iter().filter(|header| header.kind == SHT_NOTE);
    let places = note_segments
        .map(|header| (header.offset, header.file_bytes, header.alignment))
        .chain(note_sections.map(|header| (header.offset.0, header.bytes, 4)));
    let mut go_build_id = None;
    // As many as any linker makes; hostile files have thousands of one place.
    for (offset, bytes, alignment) in places.take(64) {
        let Ok(notes) = object.read_file(FileOffset(offset), bytes.min(MAX_NOTE_BYTES)) else { continue };
        match build_id_in_notes(&notes, alignment) {
            Some(BuildId::Gnu(id)) => return Some(BuildId::Gnu(id)),
            Some(other) if go_build_id.is_none() => go_build_id = Some(other),
            _ => {}
        }
    }
    go_build_id
}

/// Identity of an object that carries none: SHA-256 over file header, program headers and
/// [`MAX_HASHED_BYTES`] of the code.
fn content_hash(
    object: &ObjectFile,
    elf_header: &[u8],
    program_headers: &[ProgramHeader],
) -> Result<BuildId, ObjectError> {
    let mut hasher = Sha256::new();
    hasher.update(b"spanflame object 2");
    // Not the section table's place, which stripping changes.
    hasher.update(elf_header.get(..0x28).unwrap_or_default());
    for header in program_headers {
        for number in [header.offset, header.address, header.file_bytes, header.memory_bytes] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update(header.kind.to_le_bytes());
        hasher.update(header.flags.to_le_bytes());
    }
    let code: Vec<Range<u64>> = object
        .segments()
        .iter()
        .filter(|segment| segment.executable)
        .map(|segment| {
            let end = segment.offset.0.saturating_add(segment.file_bytes).min(object.file_bytes());
            segment.offset.0.min(end)..end
        })
        .collect();
    let code_bytes = code.iter().fold(0_u64, |sum, range| sum.saturating_add(range.end - range.start));
    let stride = code_bytes.div_ceil(MAX_HASHED_BYTES / PIECE_BYTES).max(PIECE_BYTES);
    for range in code {
        let mut begin = range.start;
        while begin < range.end {
            let bytes = PIECE_BYTES.min(range.end - begin);
            hasher.update(object.read_file(FileOffset(begin), bytes)?);
            begin = begin.saturating_add(stride);
        }
    }
    let digest = hasher.finalize();
    let mut hash = [0; 20];
    for (byte, digest_byte) in hash.iter_mut().zip(digest.iter()) {
        *byte = *digest_byte;
    }
    Ok(BuildId::Hash(hash))
}
