//! Which build id an object has: from its notes, else from its contents.

use sha2::{Digest, Sha256};

use crate::build_id::build_id_in_notes;
use crate::object_file::{PT_NOTE, ProgramHeader, SHT_NOTE};
use crate::{BuildId, FileOffset, ObjectError, ObjectFile};

/// Notes that are looked through for an identity, bytes per segment or section.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// Code that is hashed for an object without an id; of a larger segment its two ends.
const MAX_HASHED_SEGMENT_BYTES: u64 = 64 << 20;

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

/// Identity of an object that carries none: SHA-256 over file header, program headers and the
/// code, of which at most [`MAX_HASHED_SEGMENT_BYTES`] a segment and twice that in all.
fn content_hash(
    object: &ObjectFile,
    elf_header: &[u8],
    program_headers: &[ProgramHeader],
) -> Result<BuildId, ObjectError> {
    let mut hasher = Sha256::new();
    hasher.update(b"spanflame object 1");
    // Not the section table's place, which stripping changes.
    hasher.update(elf_header.get(..0x28).unwrap_or_default());
    for header in program_headers {
        for number in [header.offset, header.address, header.file_bytes, header.memory_bytes] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update(header.kind.to_le_bytes());
        hasher.update(header.flags.to_le_bytes());
    }
    let mut budget_bytes = 2 * MAX_HASHED_SEGMENT_BYTES;
    for segment in object.segments().iter().filter(|segment| segment.executable) {
        let begin = segment.offset.0.min(object.file_bytes());
        let end = segment.offset.0.saturating_add(segment.file_bytes).min(object.file_bytes());
        let hashed_bytes = (end - begin).min(MAX_HASHED_SEGMENT_BYTES).min(budget_bytes);
        budget_bytes -= hashed_bytes;
        let head_bytes = hashed_bytes - hashed_bytes / 2;
        hash_range(object, &mut hasher, begin, begin + head_bytes)?;
        hash_range(object, &mut hasher, end - hashed_bytes / 2, end)?;
    }
    let digest = hasher.finalize();
    let mut hash = [0; 20];
    for (byte, digest_byte) in hash.iter_mut().zip(digest.iter()) {
        *byte = *digest_byte;
    }
    Ok(BuildId::Hash(hash))
}

fn hash_range(object: &ObjectFile, hasher: &mut Sha256, begin: u64, end: u64) -> Result<(), ObjectError> {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut position = begin;
    while position < end {
        let bytes = (end - position).min(PIECE_BYTES);
        hasher.update(object.read_file(FileOffset(position), bytes)?);
        position += bytes;
    }
    Ok(())
}
