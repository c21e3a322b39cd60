//! The numbers that stacks have in the blocks of their series: a table of nodes for each series, in order of first
//! appearance.
//!
//! ```text
//! page    (1, run)…, in order of series, 0 to the end of the last byte; bits.rs tells of codes
//! run     series − series of the run before, code 0
//!         number of stacks − 1, code 2
//!         first node − last node of the run before (of the first run: how many nodes there are), code 3
//!         for each other stack, node − node before − 1, code 1
//! ```
//!
//! What a series has of new stacks in a window is a run, its nodes rising. A series has some thousands of stacks
//! where the segment has a million, and those that come often were seen first: in a block they take few bits, and
//! whoever adds up a series needs a small table. It belongs to the dictionary, and its pages lie behind those of
//! the nodes and series that they name.

use hashbrown::HashTable;

use super::bits::{BitReader, BitWriter};
use super::varint::Malformed;
use crate::model::index_hash::mix;

/// Number of the table in the column `kind`.
pub(super) const KIND: i64 = 9;

const SERIES_ORDER: u32 = 0;
const COUNT_ORDER: u32 = 2;
const FIRST_ORDER: u32 = 3;
const NEXT_ORDER: u32 = 1;
/// Least bits of a stack after the first of a run.
const LEAST_BITS: usize = 2;

/// The stacks of all series, as they grow.
#[derive(Debug, Default)]
pub(super) struct SeriesStacks {
    of_series: Vec<Stacks>,
    /// Series with stacks that are not in the file yet.
    grown: Vec<u32>,
    len: usize,
}

#[derive(Debug, Default)]
struct Stacks {
    nodes: Vec<u32>,
    /// Numbers, by node.
    numbers: HashTable<u32>,
    /// How many are in the file.
    written: usize,
}

impl Stacks {
    /// The number of a stack, and whether it is new.
    fn intern(&mut self, node: u32) -> (u32, bool) {
        let Self { nodes, numbers, .. } = self;
        let at = |number: u32| nodes.get(number as usize).copied().unwrap_or(u32::MAX);
        let hash = |node: u32| mix(node.into());
        if let Some(&known) = numbers.find(hash(node), |&number| at(number) == node) {
            return (known, false);
        }
        let new = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        numbers.insert_unique(hash(node), new, |&number| hash(at(number)));
        nodes.push(node);
        (new, true)
    }
}

impl SeriesStacks {
    /// The stacks of a segment that is to be written on.
    pub(super) fn from_tables(tables: Vec<Vec<u32>>) -> Result<Self, Malformed> {
        let mut stacks = Self::default();
        for nodes in tables {
            let mut of_series = Stacks::default();
            for &node in &nodes {
                if !of_series.intern(node).1 {
                    return Err(Malformed("a series that has a stack twice"));
                }
            }
            of_series.written = nodes.len();
            stacks.len += nodes.len();
            stacks.of_series.push(of_series);
        }
        Ok(stacks)
    }

    /// The number of a stack in its series. New ones of one window come in order of series and node.
    pub(super) fn intern(&mut self, series: u32, node: u32) -> u32 {
        let place = series as usize;
        if self.of_series.len() <= place {
            self.of_series.resize_with(place + 1, Stacks::default);
        }
        let Some(stacks) = self.of_series.get_mut(place) else { return u32::MAX };
        let (number, is_new) = stacks.intern(node);
        if is_new {
            self.len += 1;
            if stacks.nodes.len() == stacks.written + 1 {
                self.grown.push(series);
            }
        }
        number
    }

    /// How many stacks a series has.
    pub(super) fn len_of(&self, series: u32) -> usize {
        self.of_series.get(series as usize).map_or(0, |stacks| stacks.nodes.len())
    }

    /// How many stacks all series have.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The page of all that is not in the file yet. `nodes` is how many nodes there are.
    pub(super) fn new_page(&self, nodes: usize) -> Vec<u8> {
        let mut bits = BitWriter::default();
        let mut series_before = 0;
        let mut node_before = nodes as u64;
        for &series in &self.grown {
            let Some(stacks) = self.of_series.get(series as usize) else { continue };
            let mut new = stacks.nodes.get(stacks.written..).unwrap_or_default().iter().copied();
            let count = new.len() as u64;
            let Some(first) = new.next() else { continue };
            bits.bits(1, 1);
            bits.number(SERIES_ORDER, u64::from(series.wrapping_sub(series_before)));
            bits.number(COUNT_ORDER, count - 1);
            bits.signed(FIRST_ORDER, u64::from(first).wrapping_sub(node_before).cast_signed());
            node_before = first.into();
            for node in new {
                bits.number(NEXT_ORDER, u64::from(node).wrapping_sub(node_before).wrapping_sub(1));
                node_before = node.into();
            }
            series_before = series;
        }
        bits.finish()
    }

    pub(super) fn set_written(&mut self) {
        for series in std::mem::take(&mut self.grown) {
            if let Some(stacks) = self.of_series.get_mut(series as usize) {
                stacks.written = stacks.nodes.len();
            }
        }
    }
}

/// Appends a page. There are this many series and nodes until now.
pub(super) fn read_page(
    tables: &mut Vec<Vec<u32>>,
    page: &[u8],
    series_count: usize,
    nodes: usize,
) -> Result<(), Malformed> {
    let mut bits = BitReader::new(page);
    let mut series = 0_u32;
    let mut node_before = nodes as u64;
    while bits.left() > 0 && bits.bits(1)? == 1 {
        series = series.saturating_add(bits.id(SERIES_ORDER)?);
        if series as usize >= series_count {
            return Err(Malformed("stacks of a series that does not exist"));
        }
        let others = bits.count(COUNT_ORDER, LEAST_BITS)?;
        if tables.len() <= series as usize {
            tables.resize_with(series as usize + 1, Vec::new);
        }
        let Some(stacks) = tables.get_mut(series as usize) else { continue };
        stacks.reserve(others + 1);
        let mut node = node_before.wrapping_add(bits.signed(FIRST_ORDER)?.cast_unsigned());
        for left in (0..=others).rev() {
            let exists = u32::try_from(node).ok().filter(|&node| node as usize <= nodes);
            stacks.push(exists.ok_or(Malformed("a stack of a node that does not exist"))?);
            node_before = node;
            if left > 0 {
                node = node.wrapping_add(bits.number(NEXT_ORDER)?).wrapping_add(1);
            }
        }
    }
    bits.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Windows of stacks that series have, in any order.
    fn any_windows() -> impl Strategy<Value = Vec<Vec<(u32, u32)>>> {
        prop::collection::vec(prop::collection::vec((0_u32..40, 0_u32..=1000), 0..60), 0..5)
    }

    proptest! {
        #[test]
        fn numbers_are_the_same_after_reading_what_was_written_and_stay_so(windows in any_windows()) {
            let mut stacks = SeriesStacks::default();
            let mut tables = Vec::new();
            for window in &windows {
                let mut window = window.clone();
                window.sort_unstable();
                let numbers: Vec<_> =
                    window.iter().map(|&(series, node)| stacks.intern(series, node)).collect();
                read_page(&mut tables, &stacks.new_page(1000), 40, 1000).unwrap();
                stacks.set_written();
                for (&(series, node), &number) in window.iter().zip(&numbers) {
                    prop_assert_eq!(tables[series as usize][number as usize], node);
                }
            }
            prop_assert!(stacks.new_page(1000).is_empty());
            let mut again = SeriesStacks::from_tables(tables).unwrap();
            prop_assert_eq!(again.len(), stacks.len());
            for &(series, node) in windows.iter().flatten() {
                prop_assert_eq!(again.intern(series, node), stacks.intern(series, node));
            }
            prop_assert!(again.new_page(1000).is_empty());
        }

        #[test]
        fn hostile_pages_name_nothing_that_is_not_there_and_take_memory_by_their_length(
            page: Vec<u8>, series in 0_usize..50, nodes in 0_usize..1000,
        ) {
            let mut tables = Vec::new();
            let _ = read_page(&mut tables, &page, series, nodes);
            prop_assert!(tables.len() <= series);
            prop_assert!(tables.iter().flatten().all(|&node| node as usize <= nodes));
            prop_assert!(tables.iter().map(Vec::len).sum::<usize>() <= page.len() * 8);
        }
    }

    #[test]
    fn a_stack_that_a_series_has_twice_is_refused_by_who_writes_on() {
        assert!(SeriesStacks::from_tables(vec![vec![1], vec![2, 2]]).is_err());
        assert!(SeriesStacks::from_tables(vec![vec![2], vec![1, 2]]).is_ok());
    }

    #[test]
    fn a_page_that_is_torn_off_is_refused() {
        let mut stacks = SeriesStacks::default();
        for node in 1..200 {
            stacks.intern(3, node * 5);
        }
        let page = stacks.new_page(1000);
        for length in 1..page.len() {
            assert!(read_page(&mut Vec::new(), &page[..length], 4, 1000).is_err(), "{length}");
        }
    }
}
