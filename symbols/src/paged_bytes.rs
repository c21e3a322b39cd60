//! Part of a file, of which only those pages are in memory that were looked at.
//!
//! Debug information of one object can have a gigabyte, and an address needs some kilobytes of it.
//! A mapping of the file would do the same, but one of a file that someone cuts short ends in SIGBUS.
//! Pages stay until the whole is dropped, so that what was read can be borrowed; who reads much drops it
//! from time to time and makes another of the same [`PageSource`].
//!
//! A compressed section has no random access. It is decompressed once, a page at a time, and each page
//! is packed again by itself: about a third of its size is held.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::compressed_section::{self, DecompressError};
use crate::object_file::{Contents, SHF_COMPRESSED, SectionHeader};
use crate::{ObjectError, ObjectFile};

/// Bytes of a page, as a power of two.
const PAGE_BITS: u32 = 14;
const PAGE_BYTES: usize = 1 << PAGE_BITS;
/// zstd's level for packing pages: its fastest but one.
const PACKING_LEVEL: i32 = 1;
/// Bytes of a compressed section that are read together.
const READ_BYTES: usize = 64 << 10;

/// Where pages come from. Shared, and cheap to keep.
#[derive(Debug, Clone)]
pub(crate) struct PageSource {
    pages: Pages,
    bytes: usize,
}

#[derive(Debug, Clone)]
enum Pages {
    /// From this offset of a file on.
    InFile(Arc<Contents>, u64),
    /// Each packed by itself.
    Packed(Arc<[Box<[u8]>]>),
}

impl PageSource {
    /// A source without bytes.
    pub(crate) fn empty() -> Self {
        Self { pages: Pages::Packed(Arc::new([])), bytes: 0 }
    }

    /// Contents of which the first `bytes` bytes are wanted.
    #[cfg(test)]
    pub(crate) fn of_contents(contents: Contents, bytes: usize) -> Self {
        Self { pages: Pages::InFile(Arc::new(contents), 0), bytes }
    }

    /// Part of an object's file.
    ///
    /// # Errors
    /// [`ObjectError::Malformed`] if it is not wholly in the file.
    pub(crate) fn of_range(object: &ObjectFile, offset: u64, bytes: u64) -> Result<Self, ObjectError> {
        let end = offset.checked_add(bytes).filter(|end| *end <= object.file_bytes());
        match (end, usize::try_from(bytes)) {
            (Some(_), Ok(bytes)) => Ok(Self { pages: Pages::InFile(object.contents(), offset), bytes }),
            _ => Err(ObjectError::Malformed {
                path: object.path().to_owned(),
                reason: format!("{bytes} bytes at {offset:#x} are outside of its {}", object.file_bytes()),
            }),
        }
    }

    /// Contents of a section. A compressed one may have `max_unpacked_bytes`, decompressed; others are
    /// bounded by their file.
    ///
    /// # Errors
    /// [`ObjectError`] if it is not in the file, damaged, or too large.
    pub(crate) fn of_section(
        object: &ObjectFile,
        header: &SectionHeader,
        max_unpacked_bytes: u64,
    ) -> Result<Self, ObjectError> {
        let stored = Self::of_range(object, header.offset.0, header.bytes)?;
        if header.flags & SHF_COMPRESSED == 0 {
            return Ok(stored);
        }
        let name = || String::from_utf8_lossy(object.section_name(header)).into_owned();
        let path = || object.path().to_owned();
        let mut packing = Packing::default();
        let input = io::BufReader::with_capacity(READ_BYTES, ContentsReader { stored: &stored, position: 0 });
        match compressed_section::decompress_from(input, max_unpacked_bytes, &mut |data| packing.add(data)) {
            Ok(()) => packing.finish().map_err(|source| ObjectError::Io { path: path(), source }),
            Err(DecompressError::TooLarge) => Err(ObjectError::TooLarge {
                path: path(),
                what: format!("section {}, decompressed,", name()),
                limit: max_unpacked_bytes,
            }),
            Err(DecompressError::Malformed(reason)) => {
                Err(ObjectError::Malformed { path: path(), reason: format!("section {}: {reason}", name()) })
            }
        }
    }

    /// Bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether its pages are held, packed.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.pages, Pages::Packed(_))
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.pages {
            Pages::InFile(..) => 0,
            Pages::Packed(pages) => pages.iter().map(|page| page.len() + size_of::<Box<[u8]>>()).sum(),
        }
    }

    /// All of it with no page read yet.
    pub(crate) fn open(&self) -> PagedBytes {
        let pages = self.bytes.div_ceil(PAGE_BYTES);
        PagedBytes {
            source: self.clone(),
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            held_bytes: AtomicUsize::new(pages * size_of::<OnceLock<Box<[u8]>>>()),
        }
    }

    /// Fills `buffer` with the bytes from `position` on.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], position: usize) -> io::Result<()> {
        let end = position.checked_add(buffer.len()).filter(|end| *end <= self.bytes);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.pages {
            Pages::InFile(contents, offset) => {
                contents.read_exact_at(buffer, offset.saturating_add(position as u64))
            }
            Pages::Packed(_) => {
                let (mut filled, mut position) = (0, position);
                while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                    let page = self.load(position >> PAGE_BITS)?;
                    let available = page.get(position % PAGE_BYTES..).unwrap_or_default();
                    let count = rest.len().min(available.len());
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let (target, source) = (rest.get_mut(..count), available.get(..count));
                    if let (Some(target), Some(source)) = (target, source) {
                        target.copy_from_slice(source);
                    }
                    filled += count;
                    position += count;
                }
                Ok(())
            }
        }
    }

    fn load(&self, index: usize) -> io::Result<Box<[u8]>> {
        let begin = index << PAGE_BITS;
        let bytes = self.bytes.saturating_sub(begin).min(PAGE_BYTES);
        match &self.pages {
            Pages::InFile(..) => {
                let mut page = vec![0; bytes];
                self.read_exact_at(&mut page, begin)?;
                Ok(page.into())
            }
            Pages::Packed(pages) => {
                let packed = pages.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(zstd::bulk::decompress(packed, bytes)?.into())
            }
        }
    }
}

/// Packs what comes, a page at a time.
#[derive(Default)]
struct Packing {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    page: Vec<u8>,
    packed: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Packing {
    fn add(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let count = data.len().min(PAGE_BYTES - self.page.len());
            let (now, later) = data.split_at(count);
            self.page.extend_from_slice(now);
            data = later;
            if self.page.len() == PAGE_BYTES {
                self.close_page()?;
            }
        }
        Ok(())
    }

    fn close_page(&mut self) -> io::Result<()> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            None => self.compressor.insert(zstd::bulk::Compressor::new(PACKING_LEVEL)?),
        };
        self.packed.push(compressor.compress(&self.page)?.into());
        self.bytes += self.page.len();
        self.page.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<PageSource> {
        if !self.page.is_empty() {
            self.close_page()?;
        }
        Ok(PageSource { pages: Pages::Packed(self.packed.into()), bytes: self.bytes })
    }
}

/// Reads a source from its begin.
struct ContentsReader<'a> {
    stored: &'a PageSource,
    position: usize,
}

impl Read for ContentsReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.stored.bytes.saturating_sub(self.position));
        let Some(buffer) = buffer.get_mut(..count) else { return Ok(0) };
        self.stored.read_exact_at(buffer, self.position)?;
        self.position += count;
        Ok(count)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PagedBytes {
    source: PageSource,
    pages: Box<[OnceLock<Box<[u8]>>]>,
    held_bytes: AtomicUsize,
}

impl PagedBytes {
    /// Bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.source.bytes
    }

    /// Bytes of memory held for pages.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Drops all pages if they have more than `max_bytes`.
    pub(crate) fn forget_over(&mut self, max_bytes: usize) {
        if *self.held_bytes.get_mut() > max_bytes {
            *self = self.source.open();
        }
    }

    /// The `u32` at a position; `None` past the end or if it cannot be read.
    pub(crate) fn u32_at(&self, position: usize) -> Option<u32> {
        crate::little_endian::u32_at(&self.slice(position, 4).ok()??, 0)
    }

    /// From `position` to the end of its page; empty at the end.
    pub(crate) fn rest_of_page(&self, position: usize) -> io::Result<&[u8]> {
        let index = position >> PAGE_BITS;
        let Some(slot) = self.pages.get(index) else { return Ok(&[]) };
        if slot.get().is_none() {
            let page = self.source.load(index)?;
            self.held_bytes.fetch_add(page.len(), Ordering::Relaxed);
            // Another thread may have been first, with the same bytes.
            let _ = slot.set(page);
        }
        Ok(slot.get().and_then(|page| page.get(position % PAGE_BYTES..)).unwrap_or_default())
    }

    /// `count` bytes from `position` on; borrowed unless they lie on several pages. `None` past the end.
    pub(crate) fn slice(&self, position: usize, count: usize) -> io::Result<Option<Cow<'_, [u8]>>> {
        if position.checked_add(count).is_none_or(|end| end > self.len()) {
            return Ok(None);
        }
        if let Some(slice) = self.rest_of_page(position)?.get(..count) {
            return Ok(Some(Cow::Borrowed(slice)));
        }
        let mut copy = Vec::with_capacity(count);
        while copy.len() < count {
            let rest = self.rest_of_page(position + copy.len())?;
            let part = rest.get(..rest.len().min(count - copy.len())).unwrap_or_default();
            if part.is_empty() {
                return Ok(None);
            }
            copy.extend_from_slice(part);
        }
        Ok(Some(Cow::Owned(copy)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(data: &[u8]) -> PageSource {
        let mut packing = Packing::default();
        for piece in data.chunks(1000) {
            packing.add(piece).unwrap();
        }
        packing.finish().unwrap()
    }

    fn in_memory(data: &[u8]) -> PageSource {
        let contents = Arc::new(Contents::Memory([b"before", data].concat()));
        PageSource { pages: Pages::InFile(contents, 6), bytes: data.len() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_part_equals_that_of_the_whole(
            bytes in 0..3 * PAGE_BYTES, position in 0..3 * PAGE_BYTES, count in 0..2 * PAGE_BYTES,
        ) {
            let data: Vec<u8> = (0..bytes).map(|index| (index / 7 % 251) as u8).collect();
            for source in [packed(&data), in_memory(&data)] {
                prop_assert_eq!(source.len(), bytes);
                let paged = source.open();
                let expected = data.get(position..position + count);
                let found = paged.slice(position, count).unwrap();
                prop_assert_eq!(found.as_deref(), expected);
                let mut buffer = vec![0; count];
                prop_assert_eq!(source.read_exact_at(&mut buffer, position).is_ok(), expected.is_some());
                prop_assert!(expected.is_none_or(|expected| expected == buffer));
            }
        }
    }

    #[test]
    fn only_pages_that_were_looked_at_are_held_and_a_file_cut_short_is_an_error() {
        let data = vec![7; 10 * PAGE_BYTES];
        let paged = in_memory(&data).open();
        let empty = paged.held_bytes();
        paged.slice(3 * PAGE_BYTES + 5, 10).unwrap();
        paged.slice(3 * PAGE_BYTES + 50, 10).unwrap();
        assert_eq!(paged.held_bytes() - empty, PAGE_BYTES);
        let mut short = in_memory(&data);
        short.bytes += PAGE_BYTES;
        assert!(short.open().slice(10 * PAGE_BYTES, 1).is_err());
    }
}
