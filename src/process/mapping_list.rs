//! The executable mappings of one process, sorted and without overlaps.
//!
//! The kernel tells of every new executable mapping and of none that goes: a new one simply replaces
//! whatever it covers, wholly or in part, as `mmap(MAP_FIXED)` does. Content that goes on from one
//! mapping to the next is kept as one: runtimes map generated code page by page.

use spanflame_symbols::address::Bias;

use crate::model::ObjectId;

/// What lies in an executable mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingContent {
    /// An object, with what to add to its ELF addresses.
    Object {
        /// Which one.
        object: ObjectId,
        /// Process address minus ELF address.
        bias: Bias,
    },
    /// Generated code: anonymous memory, or a file that is no ELF object.
    Jit,
    /// The kernel's page of uprobe trampolines.
    Uprobes,
}

/// A half-open range of process addresses, `[begin, end)`, and what lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutableMapping {
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// What lies there.
    pub content: MappingContent,
}

/// Mappings sorted by `begin`, without overlaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappingList {
    mappings: Vec<ExecutableMapping>,
}

impl MappingList {
    /// The mappings in order.
    #[must_use]
    pub fn as_slice(&self) -> &[ExecutableMapping] {
        &self.mappings
    }

    /// The mapping that holds `address`. O(log n).
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&ExecutableMapping> {
        let behind = self.mappings.partition_point(|mapping| mapping.begin <= address);
        let candidate = self.mappings.get(behind.checked_sub(1)?)?;
        (address < candidate.end).then_some(candidate)
    }

    /// Adds a mapping; what it covers of others is gone, and neighbours with the same content become one
    /// mapping. Says whether anything changed. O(log n) to find the place, and a move of what lies behind.
    pub fn insert(&mut self, mut new: ExecutableMapping) -> bool {
        if new.begin >= new.end {
            return false;
        }
        let first = self.mappings.partition_point(|old| old.end < new.begin);
        let behind = self.mappings.partition_point(|old| old.begin <= new.end);
        let touched = self.mappings.get(first..behind).unwrap_or_default();
        let (begin, end) = (new.begin, new.end);
        let (mut before, mut after) = (None, None);
        for old in touched {
            if old.begin < begin && old.content == new.content {
                new.begin = old.begin;
            } else if old.begin < begin {
                before = Some(ExecutableMapping { end: old.end.min(begin), ..*old });
            }
            if old.end > end && old.content == new.content {
                new.end = old.end;
            } else if old.end > end {
                after = Some(ExecutableMapping { begin: old.begin.max(end), ..*old });
            }
        }
        let replacement: Vec<_> = before.into_iter().chain([new]).chain(after).collect();
        if touched == replacement {
            return false;
        }
        self.mappings.splice(first..behind, replacement);
        true
    }

    /// Forgets everything, as `execve` does.
    pub fn clear(&mut self) {
        self.mappings.clear();
    }

    /// The objects that are mapped, each once, in order of address.
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectId> {
        let mut objects = Vec::new();
        for mapping in &self.mappings {
            if let MappingContent::Object { object, .. } = mapping.content
                && !objects.contains(&object)
            {
                objects.push(object);
            }
        }
        objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(begin: u64, end: u64, id: u32) -> ExecutableMapping {
        let content = MappingContent::Object { object: ObjectId(id), bias: Bias(begin) };
        ExecutableMapping { begin, end, content }
    }

    fn ranges(list: &MappingList) -> Vec<(u64, u64)> {
        list.as_slice().iter().map(|mapping| (mapping.begin, mapping.end)).collect()
    }

    #[test]
    fn finds_the_first_and_last_byte_and_nothing_beside() {
        let mut list = MappingList::default();
        list.insert(mapping(0x1000, 0x2000, 1));
        list.insert(mapping(0x3000, 0x4000, 2));
        assert_eq!(list.find(0xfff), None);
        assert_eq!(list.find(0x1000).map(|found| found.begin), Some(0x1000));
        assert_eq!(list.find(0x1fff).map(|found| found.begin), Some(0x1000));
        assert_eq!(list.find(0x2000), None);
        assert_eq!(list.find(0x3fff).map(|found| found.begin), Some(0x3000));
        assert_eq!(list.find(u64::MAX), None);
    }

    #[test]
    fn a_new_mapping_splits_the_one_it_lies_in() {
        let mut list = MappingList::default();
        list.insert(mapping(0x1000, 0x9000, 1));
        assert!(list.insert(mapping(0x3000, 0x4000, 2)));
        assert_eq!(ranges(&list), [(0x1000, 0x3000), (0x3000, 0x4000), (0x4000, 0x9000)]);
        // The parts keep the bias of the whole: addresses in them mean what they meant.
        assert_eq!(list.as_slice()[2].content, mapping(0x1000, 0x9000, 1).content);
    }

    #[test]
    fn a_new_mapping_replaces_those_it_covers_and_cuts_those_it_touches() {
        let mut list = MappingList::default();
        list.insert(mapping(0x1000, 0x3000, 1));
        list.insert(mapping(0x3000, 0x4000, 2));
        list.insert(mapping(0x4000, 0x6000, 3));
        list.insert(mapping(0x2000, 0x5000, 4));
        assert_eq!(ranges(&list), [(0x1000, 0x2000), (0x2000, 0x5000), (0x5000, 0x6000)]);
    }

    #[test]
    fn the_same_mapping_again_changes_nothing_and_empty_ones_are_refused() {
        let mut list = MappingList::default();
        assert!(list.insert(mapping(0x1000, 0x2000, 1)));
        assert!(!list.insert(mapping(0x1000, 0x2000, 1)));
        assert!(!list.insert(mapping(0x5000, 0x5000, 1)));
        assert!(!list.insert(mapping(0x5000, 0x4000, 1)));
        assert_eq!(ranges(&list), [(0x1000, 0x2000)]);
    }

    #[test]
    fn neighbours_with_the_same_content_become_one() {
        let jit = |begin, end| ExecutableMapping { begin, end, content: MappingContent::Jit };
        let mut list = MappingList::default();
        for page in [1, 3, 2, 7, 6] {
            assert!(list.insert(jit(page * 0x1000, (page + 1) * 0x1000)));
        }
        assert_eq!(ranges(&list), [(0x1000, 0x4000), (0x6000, 0x8000)]);
        assert!(!list.insert(jit(0x1800, 0x2800)), "a part of what is there already");
        assert!(list.insert(mapping(0x4000, 0x6000, 1)), "fills the gap and stays for itself");
        assert_eq!(ranges(&list), [(0x1000, 0x4000), (0x4000, 0x6000), (0x6000, 0x8000)]);
        assert!(list.insert(jit(0x4000, 0x6000)));
        assert_eq!(ranges(&list), [(0x1000, 0x8000)]);
    }

    #[test]
    fn each_object_is_named_once() {
        let mut list = MappingList::default();
        list.insert(mapping(0x1000, 0x2000, 7));
        list.insert(mapping(0x2000, 0x3000, 3));
        list.insert(mapping(0x5000, 0x6000, 7));
        assert_eq!(list.objects(), [ObjectId(7), ObjectId(3)]);
    }
}
