//! Texts of spans that come again and again, numbered for a whole segment.
//!
//! Names, routes and resources are numbered at first sight. Values of attributes are, once they have come
//! twice: a path with an order's number in it comes once, and would fill the dictionary for nothing. What
//! counts as text here is any bytes; a resource is one, too.

use std::hash::BuildHasher as _;

use foldhash::HashMap;

use crate::store::varint::{Malformed, Reader, put};

/// What all texts may come to, bytes with the table; then new ones are written where they are used.
const MAX_BYTES: usize = 16 << 20;
/// A longer text is written where it is used.
const MAX_TEXT_BYTES: usize = 4 << 10;
/// What is counted for a text beside its contents.
const TEXT_BYTES: usize = 64;
/// Hashes of texts that have come once: a new one takes the place of an older one.
const SIGHTS: usize = 1 << 14;

/// When a text is given a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Promote {
    /// The first time.
    AtOnce,
    /// When it comes again.
    WhenSeenAgain,
}

/// The writer's side.
#[derive(Debug, Default)]
pub(in crate::store) struct SpanDictionary {
    numbers: HashMap<Box<[u8]>, u32>,
    bytes: usize,
    /// The texts that are not in the file yet, as a page.
    new: Vec<u8>,
    sights: Vec<u32>,
}

impl SpanDictionary {
    /// The dictionary of a segment that is to be written on.
    pub(in crate::store) fn from_texts(texts: &SpanTexts) -> Result<Self, Malformed> {
        let mut dictionary = Self::default();
        for number in 0..texts.len() {
            dictionary.insert(texts.get(number)?);
        }
        dictionary.new.clear();
        // A text that stands there twice would shift all numbers behind it.
        if dictionary.numbers.len() == texts.len() as usize {
            Ok(dictionary)
        } else {
            Err(Malformed("a text of spans that is there twice"))
        }
    }

    /// The number of a text, unless it has none.
    pub(in crate::store) fn number(&mut self, text: &[u8], promote: Promote) -> Option<u32> {
        if let Some(&number) = self.numbers.get(text) {
            return Some(number);
        }
        if text.len() > MAX_TEXT_BYTES || self.bytes + text.len() + TEXT_BYTES > MAX_BYTES {
            return None;
        }
        (promote == Promote::AtOnce || self.was_seen(text)).then(|| self.insert(text))
    }

    /// Whether a text came before; from now on it did.
    fn was_seen(&mut self, text: &[u8]) -> bool {
        if self.sights.is_empty() {
            self.sights.resize(SIGHTS, 0);
        }
        let hash = self.numbers.hasher().hash_one(text);
        let tag = (hash as u32).max(1);
        let at = usize::try_from(hash >> 32).unwrap_or(0) % SIGHTS;
        self.sights.get_mut(at).is_some_and(|sight| std::mem::replace(sight, tag) == tag)
    }

    fn insert(&mut self, text: &[u8]) -> u32 {
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        self.numbers.insert(text.into(), number);
        self.bytes += text.len() + TEXT_BYTES;
        put(&mut self.new, text.len() as u64);
        self.new.extend_from_slice(text);
        number
    }

    /// The page that is to be written; empty if there is nothing new.
    pub(in crate::store) fn new_page(&self) -> &[u8] {
        &self.new
    }

    /// The page has been written.
    pub(in crate::store) fn set_written(&mut self) {
        self.new.clear();
    }
}

/// The reader's side.
#[derive(Debug, Default)]
pub(in crate::store) struct SpanTexts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl SpanTexts {
    /// Appends a page.
    pub(in crate::store) fn read(&mut self, page: &[u8]) -> Result<(), Malformed> {
        let mut page = Reader::new(page);
        while !page.is_empty() {
            let length = page.count(1)?;
            self.bytes.extend_from_slice(page.bytes(length)?);
            self.ends.push(self.bytes.len());
        }
        Ok(())
    }

    pub(in crate::store) fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// The text of this number.
    pub(in crate::store) fn get(&self, number: u32) -> Result<&[u8], Malformed> {
        let number = number as usize;
        let start = match number.checked_sub(1) {
            Some(before) => self.ends.get(before).copied(),
            None => Some(0),
        };
        let range = start.zip(self.ends.get(number).copied());
        range
            .and_then(|(start, end)| self.bytes.get(start..end))
            .ok_or(Malformed("a text of spans that does not exist"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_numbered_the_second_time_and_names_the_first() {
        let mut dictionary = SpanDictionary::default();
        assert_eq!(dictionary.number(b"GET /", Promote::AtOnce), Some(0));
        assert_eq!(dictionary.number(b"/a/1", Promote::WhenSeenAgain), None);
        assert_eq!(dictionary.number(b"/a/2", Promote::WhenSeenAgain), None);
        assert_eq!(dictionary.number(b"/a/1", Promote::WhenSeenAgain), Some(1));
        assert_eq!(dictionary.number(b"/a/1", Promote::WhenSeenAgain), Some(1));
        assert_eq!(dictionary.number(b"GET /", Promote::WhenSeenAgain), Some(0));
        assert_eq!(dictionary.number(b"", Promote::AtOnce), Some(2));
        let mut texts = SpanTexts::default();
        texts.read(dictionary.new_page()).unwrap();
        dictionary.set_written();
        assert_eq!(dictionary.number(b"later", Promote::AtOnce), Some(3));
        texts.read(dictionary.new_page()).unwrap();
        let read: Vec<&[u8]> = (0..texts.len()).map(|number| texts.get(number).unwrap()).collect();
        assert_eq!(read, [&b"GET /"[..], b"/a/1", b"", b"later"]);
        assert!(texts.get(4).is_err());
        let mut again = SpanDictionary::from_texts(&texts).unwrap();
        assert!(again.new_page().is_empty());
        assert_eq!(again.number(b"later", Promote::AtOnce), Some(3));
        assert_eq!(again.number(b"new", Promote::AtOnce), Some(4));
    }

    #[test]
    fn texts_that_never_come_again_do_not_grow_it_without_end() {
        let mut dictionary = SpanDictionary::default();
        let text = "x".repeat(MAX_TEXT_BYTES - 20);
        let mut numbered = 0;
        for number in 0..2 * MAX_BYTES / MAX_TEXT_BYTES {
            let text = format!("{text}{number}");
            numbered += usize::from(dictionary.number(text.as_bytes(), Promote::AtOnce).is_some());
        }
        assert!(numbered > 1000 && numbered < MAX_BYTES / (MAX_TEXT_BYTES - 20), "{numbered}");
        assert!(dictionary.number(&[b'x'; MAX_TEXT_BYTES + 1], Promote::AtOnce).is_none());
    }

    #[test]
    fn a_repeated_text_is_refused() {
        let mut texts = SpanTexts::default();
        texts.read(&[1, b'a', 1, b'a']).unwrap();
        assert!(SpanDictionary::from_texts(&texts).is_err());
        assert!(SpanTexts::default().read(&[2, b'a']).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_pages_never_panic(page: Vec<u8>) {
            let mut texts = SpanTexts::default();
            if texts.read(&page).is_ok() {
                let _ = SpanDictionary::from_texts(&texts);
            }
        }
    }
}
