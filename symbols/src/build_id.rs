//! What identifies the contents of an object: GNU build id, Go build id, else a content hash.
//!
//! Notes are laid out as the System V gABI says (chapter 5, "Note Section"): sizes of name and
//! description, type, then both padded to the alignment of the segment, 4 or 8. Linkers write 4 for
//! build ids, also in files whose property notes are aligned to 8.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::little_endian::u32_at;

/// `NT_GNU_BUILD_ID` of the owner `GNU`.
const NOTE_GNU_BUILD_ID: u32 = 3;
/// `ELF_NOTE_GOBUILDID_TAG` of the owner `Go` (cmd/internal/buildid).
const NOTE_GO_BUILD_ID: u32 = 4;

/// Longest GNU build id that is believed: linkers write 8, 16 or 20 bytes, or what `--build-id=0x…`
/// was given.
const MAX_GNU_BUILD_ID_BYTES: usize = 64;
/// Longest Go build id that is believed: four base64 hashes of 20 bytes and three slashes are 83.
const MAX_GO_BUILD_ID_BYTES: usize = 256;

/// Identity of an object's contents. Equal ids mean equal code, wherever the file lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuildId {
    /// `NT_GNU_BUILD_ID` note.
    Gnu(Vec<u8>),
    /// Go's build id, from the `Go` note; the text as the linker wrote it.
    Go(String),
    /// Hash over the file's executable contents, when it carries no id.
    Hash([u8; 20]),
}

impl BuildId {
    /// Lower-case hex, as pprof and OTLP carry it: a GNU id as it is, Go's text as its own hash.
    ///
    /// Go's hash is the first 20 bytes of SHA-256, which is what Go's linker itself writes as GNU
    /// build id since 1.24 (`-B gobuildid`), so that old and new binaries are named alike.
    #[must_use]
    pub fn to_hex(&self) -> String {
        match self {
            Self::Gnu(id) => hex(id),
            Self::Go(text) => hex(Sha256::digest(text.as_bytes()).get(..20).unwrap_or_default()),
            Self::Hash(hash) => hex(hash),
        }
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The build id among the notes of one segment or section; a GNU id is preferred to a Go id, since
/// other tools know only the former. `alignment` is that of the segment. Malformed notes end the
/// search.
pub(crate) fn build_id_in_notes(notes: &[u8], alignment: u64) -> Option<BuildId> {
    let alignment: usize = if alignment == 8 { 8 } else { 4 };
    let mut go_build_id = None;
    let mut offset = 0usize;
    while let Some(note) = parse_note(notes, offset, alignment) {
        match (note.owner, note.kind) {
            (b"GNU\0", NOTE_GNU_BUILD_ID) if is_plausible_gnu_build_id(note.description) => {
                return Some(BuildId::Gnu(note.description.to_vec()));
            }
            (b"Go\0\0", NOTE_GO_BUILD_ID) if go_build_id.is_none() => {
                go_build_id = go_text(note.description).map(BuildId::Go);
            }
            _ => {}
        }
        offset = note.end;
    }
    go_build_id
}

/// Some packers leave the note and zero its contents: that would make all their files one.
fn is_plausible_gnu_build_id(id: &[u8]) -> bool {
    (4..=MAX_GNU_BUILD_ID_BYTES).contains(&id.len()) && id.iter().any(|byte| *byte != 0)
}

fn go_text(description: &[u8]) -> Option<String> {
    let text = description.split(|byte| *byte == 0).next()?;
    if text.is_empty() || text.len() > MAX_GO_BUILD_ID_BYTES {
        return None;
    }
    // `go build -ldflags=-buildid=` and `redacted` are not ids, they are the same in every such file.
    if text == b"redacted" || !text.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    String::from_utf8(text.to_vec()).ok()
}

struct Note<'data> {
    owner: &'data [u8],
    kind: u32,
    description: &'data [u8],
    end: usize,
}

fn parse_note(notes: &[u8], offset: usize, alignment: usize) -> Option<Note<'_>> {
    let owner_bytes = usize::try_from(u32_at(notes, offset)?).ok()?;
    let description_bytes = usize::try_from(u32_at(notes, offset.checked_add(4)?)?).ok()?;
    let kind = u32_at(notes, offset.checked_add(8)?)?;
    let owner_begin = offset.checked_add(12)?;
    let owner_end = owner_begin.checked_add(owner_bytes)?;
    let owner = notes.get(owner_begin..owner_end)?;
    let description_begin = owner_end.checked_next_multiple_of(alignment)?;
    let description_end = description_begin.checked_add(description_bytes)?;
    let description = notes.get(description_begin..description_end)?;
    let end = description_end.checked_next_multiple_of(alignment)?;
    Some(Note { owner, kind, description, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(owner: &[u8], kind: u32, description: &[u8], alignment: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&u32::try_from(owner.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(description.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(owner);
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        bytes.extend_from_slice(description);
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        bytes
    }

    #[test]
    fn the_gnu_id_is_found_behind_other_notes_and_before_go_s() {
        let mut notes = note(b"stapsdt\0", 3, &[9; 33], 4);
        notes.extend(note(b"Go\0\0", 4, b"abc/def", 4));
        notes.extend(note(b"GNU\0", 1, &[0; 16], 4));
        notes.extend(note(b"GNU\0", 3, &[0xde, 0xad, 0xbe, 0xef], 4));
        assert_eq!(build_id_in_notes(&notes, 4), Some(BuildId::Gnu(vec![0xde, 0xad, 0xbe, 0xef])));
        assert_eq!(build_id_in_notes(&notes, 4).unwrap().to_hex(), "deadbeef");
    }

    #[test]
    fn notes_aligned_to_eight_are_walked_with_eight() {
        let mut notes = note(b"GNU\0", 5, &[1; 12], 8);
        notes.extend(note(b"GNU\0", 3, &[7; 20], 8));
        assert_eq!(build_id_in_notes(&notes, 8), Some(BuildId::Gnu(vec![7; 20])));
    }

    #[test]
    fn a_note_that_claims_more_than_there_is_ends_the_search() {
        let mut notes = note(b"GNU\0", 3, &[7; 20], 4);
        notes.truncate(notes.len() - 1);
        assert_eq!(build_id_in_notes(&notes, 4), None);
        let mut huge = note(b"GNU\0", 3, &[7; 20], 4);
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(build_id_in_notes(&huge, 4), None);
    }

    #[test]
    fn zeroed_empty_and_redacted_ids_identify_nothing() {
        assert_eq!(build_id_in_notes(&note(b"GNU\0", 3, &[0; 20], 4), 4), None);
        assert_eq!(build_id_in_notes(&note(b"GNU\0", 3, &[], 4), 4), None);
        assert_eq!(build_id_in_notes(&note(b"Go\0\0", 4, b"redacted", 4), 4), None);
        assert_eq!(build_id_in_notes(&note(b"Go\0\0", 4, b"", 4), 4), None);
    }

    #[test]
    fn go_s_text_is_named_by_the_hash_go_s_own_linker_uses() {
        let id = build_id_in_notes(&note(b"Go\0\0", 4, b"abc", 4), 4).unwrap();
        assert_eq!(id, BuildId::Go("abc".to_owned()));
        // First 20 bytes of SHA-256("abc"), FIPS 180-2 appendix B.1.
        assert_eq!(id.to_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a3");
    }

    proptest! {
        #[test]
        fn arbitrary_notes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), alignment in 0u64..16) {
            let _ = build_id_in_notes(&bytes, alignment);
        }
    }
}
