//! The file of one unwind table.
//!
//! A file is one page of header and then the table's pages as they are, so that they lie on page
//! boundaries of the file. Numbers are little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0–8 | magic |
//! | 8–12 | [`FORMAT_VERSION`] |
//! | 12–16 | kind of build id |
//! | 16–32 | XXH3-128 of everything from byte 32 to the end of the file |
//! | 32–40 | `text_begin` |
//! | 40–56 | `chunks`, `directory_pages`, `rule_pages`, `leaf_pages` |
//! | 56–72 | `rows`, `oversized_chunks` |
//! | 72–76 | bytes of the build id, which follows; zeros to the end of the page |
//!
//! The digest finds damage (a full disk, a bad sector, a crash in the middle), not malice, hence one
//! that costs a tenth of a millisecond per megabyte. A file from before a change of format is rebuilt,
//! not converted.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use xxhash_rust::xxh3::Xxh3;

use super::UnwindTable;
use super::layout::{DIRECTORY_PER_PAGE, PAGE_BYTES};
use super::packer::{MAX_CHUNKS, MAX_LEAVES};
use crate::little_endian::{u32_at, u64_at};
use crate::{BuildId, ElfAddress};

/// To be raised with every change of the file's layout, of the pages' layout, and of what rows an
/// object's call-frame information comes to.
pub const FORMAT_VERSION: u32 = 4;

const MAGIC: [u8; 8] = *b"SPFLUNW\0";
const DIGESTED_FROM: usize = 32;
const BUILD_ID_AT: usize = 76;
const MAX_BUILD_ID_BYTES: usize = 256;

/// Why a file was not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// There is none.
    #[error("there is no such file")]
    Missing,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The folder could have been written by others.
    #[error("{0} is not a folder of mode 0700 that belongs to this user")]
    FolderNotPrivate(PathBuf),
    /// The file could have been written by others.
    #[error("it is not a regular file of mode 0600 that belongs to this user")]
    FileNotPrivate,
    /// It is another kind of file.
    #[error("it does not begin with the magic of an unwind table")]
    Magic,
    /// Another version of this program wrote it.
    #[error("its format is version {0}, not {FORMAT_VERSION}")]
    Version(u32),
    /// It is the table of another object.
    #[error("it is the table of another build id")]
    OtherBuildId,
    /// Its numbers contradict each other or its size.
    #[error("its header is damaged")]
    Header,
    /// Its contents are not what was written.
    #[error("its digest does not match")]
    Digest,
}

fn build_id_parts(build_id: &BuildId) -> (u32, &[u8]) {
    match build_id {
        BuildId::Gnu(id) => (1, id),
        BuildId::Go(text) => (2, text.as_bytes()),
        BuildId::Hash(hash) => (3, hash),
    }
}

/// The first page of a table's file.
///
/// # Errors
/// `InvalidInput` for a build id that does not fit.
pub(super) fn header_of(build_id: &BuildId, table: &UnwindTable) -> io::Result<Vec<u8>> {
    let (kind, id) = build_id_parts(build_id);
    if id.len() > MAX_BUILD_ID_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the build id is too long"));
    }
    let mut digested = Vec::with_capacity(PAGE_BYTES - DIGESTED_FROM);
    digested.extend_from_slice(&table.text_begin.0.to_le_bytes());
    for number in [table.chunks, table.directory_pages, table.rule_pages, table.leaf_pages] {
        digested.extend_from_slice(&number.to_le_bytes());
    }
    digested.extend_from_slice(&table.rows.to_le_bytes());
    digested.extend_from_slice(&table.oversized_chunks.to_le_bytes());
    digested.extend_from_slice(&(id.len() as u32).to_le_bytes());
    digested.extend_from_slice(id);
    digested.resize(PAGE_BYTES - DIGESTED_FROM, 0);

    let mut header = Vec::with_capacity(PAGE_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&kind.to_le_bytes());
    header.extend_from_slice(&digest(&digested, &table.pages).to_le_bytes());
    header.append(&mut digested);
    Ok(header)
}

fn digest(header: &[u8], pages: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(header);
    hasher.update(pages);
    hasher.digest128()
}

/// Reads a file of `file_bytes` bytes, which must be the table of `build_id`.
///
/// # Errors
/// [`CacheError`]. No more is allocated than the file has.
pub(super) fn read_table(
    file: &mut File,
    file_bytes: u64,
    build_id: &BuildId,
) -> Result<UnwindTable, CacheError> {
    let mut header = [0; PAGE_BYTES];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(CacheError::Header),
        read => read?,
    }
    if header.get(..8) != Some(&MAGIC) {
        return Err(CacheError::Magic);
    }
    let word = |offset| u32_at(&header, offset).ok_or(CacheError::Header);
    let long = |offset| u64_at(&header, offset).ok_or(CacheError::Header);
    if word(8)? != FORMAT_VERSION {
        return Err(CacheError::Version(word(8)?));
    }
    let (kind, id) = build_id_parts(build_id);
    let kept_id = header.get(BUILD_ID_AT..BUILD_ID_AT + id.len());
    if word(12)? != kind || word(72)? as usize != id.len() || kept_id != Some(id) {
        return Err(CacheError::OtherBuildId);
    }
    let mut table = UnwindTable {
        text_begin: ElfAddress(long(32)?),
        chunks: word(40)?,
        directory_pages: word(44)?,
        rule_pages: word(48)?,
        leaf_pages: word(52)?,
        rows: long(56)?,
        oversized_chunks: long(64)?,
        pages: Vec::new(),
    };
    let pages = u64::from(table.directory_pages) + u64::from(table.rule_pages) + u64::from(table.leaf_pages);
    let is_sound = u64::from(table.chunks) <= MAX_CHUNKS
        && table.directory_pages as usize == (table.chunks as usize).div_ceil(DIRECTORY_PER_PAGE)
        && table.leaf_pages as usize <= MAX_LEAVES
        && Some(file_bytes) == (pages + 1).checked_mul(PAGE_BYTES as u64);
    if !is_sound {
        return Err(CacheError::Header);
    }
    let page_bytes = pages as usize * PAGE_BYTES;
    table.pages = Vec::with_capacity(page_bytes);
    let read_bytes = file.take(page_bytes as u64).read_to_end(&mut table.pages)?;
    if read_bytes != page_bytes {
        return Err(CacheError::Header);
    }
    let expected =
        header.get(16..DIGESTED_FROM).and_then(|bytes| bytes.try_into().ok()).map(u128::from_le_bytes);
    let digested = header.get(DIGESTED_FROM..).unwrap_or_default();
    if expected != Some(digest(digested, &table.pages)) {
        return Err(CacheError::Digest);
    }
    Ok(table)
}
