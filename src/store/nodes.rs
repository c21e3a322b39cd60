//! Stack nodes: interned, and as pages of the dictionary.
//!
//! ```text
//! page    (1, node)…, 0 to the end of the last byte; bits.rs tells of codes
//! node    1 if its parent is the node before | 0, how many nodes ago the parent was − 2, by code of an order that
//!         follows from how many nodes there are
//!         location, as many bits as the number of locations has
//! ```
//!
//! A day of a busy host has three million of them, which is most of a dictionary. Three in four are the children of
//! the node before: what a new stack does not have in common with older ones is a chain. Until version 3 of the
//! schema, pages of nodes were varints (`rows.rs`).

use hashbrown::HashTable;

use super::bits::{BitReader, BitWriter, bits_of};
use super::rows::NodeRow;
use super::varint::Malformed;

/// Number of the table in the column `kind`.
pub(super) const KIND: i64 = 10;
/// Another node goes to another page then: about a kilobyte, so that pages of the file are full.
const NODES_OF_PAGE: usize = 320;

/// Interned stack nodes. There are more of them than of everything else together, so that the hash table
/// holds their indices only.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    rows: Vec<NodeRow>,
    indices: HashTable<u32>,
}

impl Nodes {
    /// The number (index + 1) of the node with this parent and location.
    pub(super) fn intern(&mut self, parent: u32, location: u32) -> u32 {
        let Self { rows, indices } = self;
        let row = NodeRow { parent, location };
        let at = |index: u32| rows.get(index as usize).copied().unwrap_or(NodeRow { parent: 0, location: 0 });
        if let Some(&known) = indices.find(row.hash(), |&index| at(index) == row) {
            return known.saturating_add(1);
        }
        let index = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        indices.insert_unique(row.hash(), index, |&index| at(index).hash());
        rows.push(row);
        index.saturating_add(1)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The pages of all nodes after the first `written` ones. `locations` is how many locations there are.
    pub(super) fn new_pages(&self, written: usize, locations: usize) -> Vec<Vec<u8>> {
        let rows = self.rows.get(written..).unwrap_or_default();
        let width = location_bits(locations);
        let mut pages = Vec::new();
        let mut number = written;
        for rows in rows.chunks(NODES_OF_PAGE) {
            let mut bits = BitWriter::default();
            for row in rows {
                number += 1;
                let ago = (number as u64).wrapping_sub(row.parent.into());
                if ago == 1 {
                    bits.bits(3, 2);
                } else {
                    bits.bits(2, 2);
                    bits.number(ago_order(number), ago.wrapping_sub(2));
                }
                bits.bits(row.location.into(), width);
            }
            pages.push(bits.finish());
        }
        pages
    }
}

/// Appends a page. There are this many locations until now.
pub(super) fn read_page(rows: &mut Vec<NodeRow>, page: &[u8], locations: usize) -> Result<(), Malformed> {
    let width = location_bits(locations);
    let mut bits = BitReader::new(page);
    while bits.left() > 0 && bits.bits(1)? == 1 {
        let number = rows.len() + 1;
        let ago = match bits.bits(1)? {
            1 => 1,
            _ => bits.number(ago_order(number))?.saturating_add(2),
        };
        // Towards the root numbers fall, so that a walk ends.
        let parent = (number as u64).checked_sub(ago).and_then(|parent| u32::try_from(parent).ok());
        let parent = parent.ok_or(Malformed("a stack node that is its own ancestor"))?;
        let location = u32::try_from(bits.bits(width)?).unwrap_or(u32::MAX);
        rows.push(NodeRow { parent, location });
    }
    bits.end()
}

/// How many bits a location takes that is one of so many.
fn location_bits(locations: usize) -> u32 {
    bits_of(u32::try_from(locations).unwrap_or(u32::MAX))
}

/// The order of the code that says how long ago the parent of a node of this number was: anywhere before.
fn ago_order(number: usize) -> u32 {
    bits_of(u32::try_from(number).unwrap_or(u32::MAX)).saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nodes_come_back_page_by_page(
            windows in prop::collection::vec(prop::collection::vec((0_u32..5000, 0_u32..700), 0..900), 0..4),
        ) {
            let mut nodes = Nodes::default();
            let mut rows = Vec::new();
            for window in windows {
                let written = nodes.len();
                for (parent, location) in window {
                    // Most are children of the node before.
                    let last = u32::try_from(nodes.len()).unwrap();
                    nodes.intern(if parent > last { last } else { parent }, location);
                }
                for page in nodes.new_pages(written, 700) {
                    read_page(&mut rows, &page, 700).unwrap();
                }
                prop_assert_eq!(&rows, &nodes.rows);
            }
        }

        #[test]
        fn hostile_pages_never_panic_and_parents_come_before_their_children(page: Vec<u8>, locations in 0_usize..1000) {
            let mut rows = vec![NodeRow { parent: 0, location: 0 }; 10];
            let _ = read_page(&mut rows, &page, locations);
            prop_assert!(rows.len() <= 10 + page.len() * 8);
            prop_assert!((1_u32..).zip(&rows).all(|(number, row)| row.parent < number));
        }
    }

    #[test]
    fn a_chain_takes_two_bits_and_its_locations() {
        let mut nodes = Nodes::default();
        for at in 0..400 {
            nodes.intern(at, at % 3);
        }
        let bytes: usize = nodes.new_pages(0, 1000).iter().map(Vec::len).sum();
        assert_eq!(bytes, 400 * (2 + 10) / 8);
    }

    #[test]
    fn a_page_that_is_torn_off_has_fewer_nodes_or_is_refused() {
        let mut nodes = Nodes::default();
        for at in 0..100 {
            nodes.intern(at / 2, at);
        }
        let pages = nodes.new_pages(0, 100);
        for length in 0..pages[0].len() {
            let mut rows = Vec::new();
            let read = read_page(&mut rows, &pages[0][..length], 100);
            assert!(read.is_err() || rows.len() < 100);
            assert!(nodes.rows.starts_with(&rows));
        }
    }
}
