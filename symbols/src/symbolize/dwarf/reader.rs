//! gimli's view of sections that are read a page at a time.

use std::borrow::Cow;

use gimli::{Error, LittleEndian, Reader, ReaderOffsetId, Result};

use crate::paged_bytes::PagedBytes;

/// Most that is copied together, where it does not lie on one page; names and expressions are short.
const MAX_COPIED_BYTES: usize = 1 << 20;
/// Longest name; the rest of a longer one is cut off.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// A part of a section.
#[derive(Debug, Clone, Copy)]
pub struct PagedReader<'data> {
    section: &'data PagedBytes,
    position: usize,
    end: usize,
    /// What is at hand at `position`; empty until it is looked at, and never past `end`.
    window: &'data [u8],
}

impl<'data> PagedReader<'data> {
    /// All of a section.
    pub fn new(section: &'data PagedBytes) -> Self {
        Self { section, position: 0, end: section.len(), window: &[] }
    }

    fn left(&self) -> usize {
        self.end - self.position
    }

    fn end_of_data(&self) -> Error {
        Error::UnexpectedEof(self.offset_id())
    }

    /// Makes sure that the window is not empty unless the end is reached.
    fn look(&mut self) -> Result<()> {
        if self.window.is_empty() && self.position < self.end {
            let rest = self.section.rest_of_page(self.position).map_err(|_| Error::Io)?;
            self.window = rest.get(..rest.len().min(self.left())).unwrap_or_default();
            if self.window.is_empty() {
                return Err(self.end_of_data());
            }
        }
        Ok(())
    }

    /// `count` is at most what is left.
    fn advance(&mut self, count: usize) {
        self.position += count;
        self.window = self.window.get(count..).unwrap_or_default();
    }

    fn text(&self) -> Result<Cow<'data, [u8]>> {
        self.bytes(self.left().min(MAX_TEXT_BYTES))
    }

    fn bytes(&self, count: usize) -> Result<Cow<'data, [u8]>> {
        if let Some(bytes) = self.window.get(..count) {
            return Ok(Cow::Borrowed(bytes));
        }
        if count > MAX_COPIED_BYTES {
            return Err(Error::UnsupportedOffset);
        }
        let bytes = self.section.slice(self.position, count).map_err(|_| Error::Io)?;
        bytes.ok_or_else(|| self.end_of_data())
    }
}

impl Reader for PagedReader<'_> {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        self.left()
    }

    fn empty(&mut self) {
        self.truncate_to(0);
    }

    fn truncate(&mut self, length: usize) -> Result<()> {
        if length > self.left() {
            return Err(self.end_of_data());
        }
        self.truncate_to(length);
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.position.wrapping_sub(base.position)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.position as u64)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        let position = usize::try_from(id.0).ok()?;
        (self.position..=self.end).contains(&position).then(|| position - self.position)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let mut rest = *self;
        loop {
            rest.look()?;
            if let Some(index) = rest.window.iter().position(|&found| found == byte) {
                return Ok(rest.position - self.position + index);
            }
            if rest.window.is_empty() {
                return Err(self.end_of_data());
            }
            rest.advance(rest.window.len());
        }
    }

    fn skip(&mut self, count: usize) -> Result<()> {
        if count > self.left() {
            return Err(self.end_of_data());
        }
        self.advance(count);
        Ok(())
    }

    fn split(&mut self, count: usize) -> Result<Self> {
        let mut first = *self;
        first.truncate(count)?;
        self.advance(count);
        Ok(first)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.bytes(self.left())
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        match self.text()? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Error::BadUtf8),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Error::BadUtf8),
        }
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        Ok(match self.text()? {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    fn read_slice(&mut self, buffer: &mut [u8]) -> Result<()> {
        if let Some(bytes) = self.window.get(..buffer.len()) {
            buffer.copy_from_slice(bytes);
            self.advance(buffer.len());
            return Ok(());
        }
        if buffer.len() > self.left() {
            return Err(self.end_of_data());
        }
        for place in buffer {
            *place = self.read_u8()?;
        }
        Ok(())
    }

    fn read_u8(&mut self) -> Result<u8> {
        self.look()?;
        let Some((&byte, rest)) = self.window.split_first() else { return Err(self.end_of_data()) };
        self.window = rest;
        self.position += 1;
        Ok(byte)
    }
}

impl PagedReader<'_> {
    /// `length` is at most what is left.
    fn truncate_to(&mut self, length: usize) {
        self.end = self.position + length;
        self.window = self.window.get(..length).unwrap_or(self.window);
    }
}
