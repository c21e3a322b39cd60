//! Address ranges of generated code, where whatever was announced last wins.
//!
//! A runtime reuses addresses: a range that overlaps older ones takes their place there and leaves
//! the rest of them alone, as the code itself did.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A piece of generated code.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GeneratedCode {
    /// Name as the runtime wrote it.
    pub name: String,
    /// Where lines begin, sorted by address; empty if the runtime told none.
    pub lines: Vec<GeneratedLine>,
}

/// From `address` on, the code belongs to this line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedLine {
    /// Process address.
    pub address: u64,
    /// Line.
    pub line: u32,
    /// Source file.
    pub file: Arc<str>,
}

impl GeneratedCode {
    /// The file and line in force at `address`.
    #[must_use]
    pub fn line_at(&self, address: u64) -> Option<&GeneratedLine> {
        let after = self.lines.partition_point(|line| line.address <= address);
        self.lines.get(after.checked_sub(1)?)
    }

    fn memory_bytes(&self) -> usize {
        // Map node, both counters of the Arc, and the range.
        64 + size_of::<Self>() + self.name.capacity() + self.lines.capacity() * size_of::<GeneratedLine>()
    }
}

/// Disjoint ranges.
#[derive(Debug, Default)]
pub struct CodeRanges {
    ranges: BTreeMap<u64, (u64, Arc<GeneratedCode>)>,
    memory_bytes: usize,
}

impl CodeRanges {
    /// Announces code at `[begin, end)`; nothing happens if that is empty. O(log n) and one step for
    /// each range that it covers.
    pub fn insert(&mut self, begin: u64, end: u64, code: GeneratedCode) {
        if begin >= end {
            return;
        }
        self.clear(begin, end);
        self.memory_bytes += code.memory_bytes();
        self.ranges.insert(begin, (end, Arc::new(code)));
    }

    /// Removes whatever is in `[begin, end)`.
    pub fn clear(&mut self, begin: u64, end: u64) {
        if let Some((&before, (before_end, code))) = self.ranges.range_mut(..begin).next_back()
            && *before_end > begin
        {
            debug_assert!(before < begin);
            let tail = (*before_end, Arc::clone(code));
            *before_end = begin;
            if tail.0 > end {
                self.ranges.insert(end, tail);
            }
        }
        let covered: Vec<u64> = self.ranges.range(begin..end).map(|(&start, _)| start).collect();
        for start in covered {
            let Some((old_end, code)) = self.ranges.remove(&start) else { continue };
            if old_end > end {
                self.ranges.insert(end, (old_end, code));
            } else {
                self.memory_bytes = self.memory_bytes.saturating_sub(code.memory_bytes());
            }
        }
    }

    /// Takes the code out that begins at exactly `begin`.
    pub fn remove(&mut self, begin: u64) -> Option<Arc<GeneratedCode>> {
        let (_, code) = self.ranges.remove(&begin)?;
        self.memory_bytes = self.memory_bytes.saturating_sub(code.memory_bytes());
        Some(code)
    }

    /// The code at an address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&GeneratedCode> {
        let (_, (end, code)) = self.ranges.range(..=address).next_back()?;
        (address < *end).then_some(code)
    }

    /// Ranges held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(name: &str) -> GeneratedCode {
        GeneratedCode { name: name.to_owned(), lines: Vec::new() }
    }

    #[test]
    fn a_later_range_splits_the_one_around_it() {
        let mut ranges = CodeRanges::default();
        ranges.insert(10, 40, code("old"));
        ranges.insert(20, 30, code("new"));
        let names: Vec<_> = [9, 10, 19, 20, 29, 30, 39, 40]
            .map(|address| ranges.find(address).map(|code| code.name.as_str()))
            .into();
        let (old, new) = (Some("old"), Some("new"));
        assert_eq!(names, [None, old, old, new, new, old, old, None]);
        assert_eq!(ranges.len(), 3);
    }

    #[test]
    fn an_empty_or_inverted_range_changes_nothing() {
        let mut ranges = CodeRanges::default();
        ranges.insert(10, 10, code("empty"));
        ranges.insert(11, 10, code("inverted"));
        assert_eq!((ranges.len(), ranges.memory_bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn answers_equal_those_of_an_array(inserts in proptest::collection::vec((0_u64..64, 0_u64..64), 0..40)) {
            let mut ranges = CodeRanges::default();
            let mut expected = [None; 64];
            for (number, &(begin, end)) in inserts.iter().enumerate() {
                ranges.insert(begin, end, code(&number.to_string()));
                for slot in &mut expected[begin as usize..(end.max(begin)) as usize] {
                    *slot = Some(number);
                }
            }
            for (address, number) in expected.iter().enumerate() {
                let found = ranges.find(address as u64).map(|code| code.name.clone());
                prop_assert_eq!(found, number.map(|number| number.to_string()));
            }
        }
    }
}
