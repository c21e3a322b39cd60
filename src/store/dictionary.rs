//! The dictionary of a segment in memory: as it is read ([`Tables`]) and as it grows ([`Dictionary`]).

use super::deflated;
use super::nodes::{self, Nodes};
use super::rows::{
    FlaggedMapping, FormatRow, FunctionRow, LabelsRow, LocationRow, MappingRow, NodeRow, Row, SeriesRow,
    read_page, write_page,
};
use super::stacks::{self, SeriesStacks};
use super::varint::Malformed;
use crate::model::Interner;

/// All tables, in order of index.
#[derive(Debug, Default, Clone)]
pub(super) struct Tables {
    pub(super) texts: Vec<String>,
    pub(super) mappings: Vec<FlaggedMapping>,
    pub(super) functions: Vec<FunctionRow>,
    pub(super) locations: Vec<LocationRow>,
    pub(super) nodes: Vec<NodeRow>,
    pub(super) labels: Vec<LabelsRow>,
    pub(super) formats: Vec<FormatRow>,
    pub(super) series: Vec<SeriesRow>,
    /// For each series the nodes of its stacks, by the numbers that its blocks have.
    pub(super) stacks: Vec<Vec<u32>>,
}

impl Tables {
    /// Appends a page to the table of this kind. Kinds that are not known are no mistake of ours to hide. Node pages
    /// of [`NodeRow::KIND`] are of segments of versions 1 to 3.
    pub(super) fn read(&mut self, kind: i64, page: &[u8]) -> Result<(), Malformed> {
        match kind {
            <String as Row>::KIND => read_page(&mut self.texts, page),
            FlaggedMapping::KIND => read_page(&mut self.mappings, page),
            FunctionRow::KIND => read_page(&mut self.functions, page),
            LocationRow::KIND => read_page(&mut self.locations, page),
            NodeRow::KIND => read_page(&mut self.nodes, page),
            LabelsRow::KIND => read_page(&mut self.labels, page),
            FormatRow::KIND => read_page(&mut self.formats, page),
            SeriesRow::KIND => read_page(&mut self.series, page),
            nodes::KIND => nodes::read_page(&mut self.nodes, page, self.locations.len()),
            stacks::KIND => stacks::read_page(&mut self.stacks, page, self.series.len(), self.nodes.len()),
            _ => match deflated::kind_of(kind) {
                Some(plain) => self.read(plain, &deflated::plain(page)?),
                None => Err(Malformed("a dictionary page of an unknown kind")),
            },
        }
    }

    pub(super) fn text(&self, text: u32) -> Result<&str, Malformed> {
        self.texts.get(text as usize).map(String::as_str).ok_or(Malformed("a text that does not exist"))
    }

    pub(super) fn format(&self, format: u32) -> Result<&FormatRow, Malformed> {
        self.formats.get(format as usize).ok_or(Malformed("a format that does not exist"))
    }

    pub(super) fn series(&self, series: u32) -> Result<&SeriesRow, Malformed> {
        self.series.get(series as usize).ok_or(Malformed("a series that does not exist"))
    }

    /// The nodes of a series' stacks, by number.
    pub(super) fn stacks(&self, series: u32) -> &[u32] {
        self.stacks.get(series as usize).map_or(&[], Vec::as_slice)
    }
}

/// The writer's dictionary: equal rows have one number.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    pub(super) texts: Interner<String>,
    mappings: Interner<MappingRow>,
    mapping_flags: Vec<u8>,
    pub(super) functions: Interner<FunctionRow>,
    pub(super) locations: Interner<LocationRow>,
    pub(super) nodes: Nodes,
    pub(super) labels: Interner<LabelsRow>,
    pub(super) formats: Interner<FormatRow>,
    pub(super) series: Interner<SeriesRow>,
    pub(super) stacks: SeriesStacks,
    /// How many rows of each table, in the order above, are in the file.
    written: [usize; 8],
}

impl Dictionary {
    /// The dictionary of a segment that is to be written on.
    pub(super) fn from_tables(tables: Tables) -> Result<Self, Malformed> {
        let mut dictionary = Self::default();
        let lengths = [
            tables.texts.len(),
            tables.mappings.len(),
            tables.functions.len(),
            tables.locations.len(),
            tables.nodes.len(),
            tables.labels.len(),
            tables.formats.len(),
            tables.series.len(),
        ];
        fill(&mut dictionary.texts, tables.texts);
        for FlaggedMapping { row, flags } in tables.mappings {
            dictionary.mapping(row, flags);
        }
        fill(&mut dictionary.functions, tables.functions);
        fill(&mut dictionary.locations, tables.locations);
        for NodeRow { parent, location } in tables.nodes {
            dictionary.nodes.intern(parent, location);
        }
        fill(&mut dictionary.labels, tables.labels);
        fill(&mut dictionary.formats, tables.formats);
        fill(&mut dictionary.series, tables.series);
        dictionary.stacks = SeriesStacks::from_tables(tables.stacks)?;
        dictionary.written = dictionary.lengths();
        if dictionary.written == lengths {
            Ok(dictionary)
        } else {
            Err(Malformed("a dictionary that has a row twice"))
        }
    }

    /// The number of a mapping and its flags as the file has them.
    pub(super) fn mapping(&mut self, row: MappingRow, flags: u8) -> (u32, u8) {
        let index = self.mappings.intern(row);
        if self.mapping_flags.len() < self.mappings.len() {
            self.mapping_flags.push(flags);
        }
        (index, self.mapping_flags.get(index as usize).copied().unwrap_or(flags))
    }

    /// [`FormatRow::expected_factors`] of a series.
    pub(super) fn factors_of(&self, series: u32) -> Vec<i64> {
        let format = self.series.get(series).and_then(|row| self.formats.get(row.format));
        format.map(FormatRow::expected_factors).unwrap_or_default()
    }

    /// The number of a text.
    pub(super) fn text(&mut self, text: &str) -> u32 {
        self.texts.intern_text(text)
    }

    /// The pages of all rows that are not in the file yet, by kind, in the order in which they refer to
    /// each other. Once they are there, [`Dictionary::set_written`].
    pub(super) fn new_pages(&self) -> Vec<(i64, Vec<u8>)> {
        let mut pages = Vec::new();
        let mut add = |kind: i64, page: Vec<u8>| {
            if !page.is_empty() {
                pages.push(deflated::deflated(kind, page));
            }
        };
        let [texts, mappings, functions, locations, nodes, labels, formats, series] = self.written;
        add(<String as Row>::KIND, write_page(texts, self.texts.iter().skip(texts)));
        let flagged = self.mappings.iter().zip(&self.mapping_flags).skip(mappings);
        let flagged: Vec<_> = flagged.map(|(&row, &flags)| FlaggedMapping { row, flags }).collect();
        add(FlaggedMapping::KIND, write_page(mappings, flagged.iter()));
        add(FunctionRow::KIND, write_page(functions, self.functions.iter().skip(functions)));
        add(LocationRow::KIND, write_page(locations, self.locations.iter().skip(locations)));
        for page in self.nodes.new_pages(nodes, self.locations.len()) {
            add(nodes::KIND, page);
        }
        add(LabelsRow::KIND, write_page(labels, self.labels.iter().skip(labels)));
        add(FormatRow::KIND, write_page(formats, self.formats.iter().skip(formats)));
        add(SeriesRow::KIND, write_page(series, self.series.iter().skip(series)));
        add(stacks::KIND, self.stacks.new_page(self.nodes.len()));
        pages
    }

    pub(super) fn set_written(&mut self) {
        self.stacks.set_written();
        self.written = self.lengths();
    }

    fn lengths(&self) -> [usize; 8] {
        [
            self.texts.len(),
            self.mappings.len(),
            self.functions.len(),
            self.locations.len(),
            self.nodes.len(),
            self.labels.len(),
            self.formats.len(),
            self.series.len(),
        ]
    }

    /// About how much memory this takes, bytes, the contents of texts left out.
    pub(super) fn memory_bytes(&self) -> usize {
        let rows: usize = self.lengths().iter().sum();
        // A node takes 8 bytes and about 6 of the hash table, a stack of a series 4 and 6; other rows about 100.
        let nodes = self.nodes.len();
        (rows - nodes) * 100 + nodes * 14 + self.stacks.len() * 10
    }
}

fn fill<T: Eq + std::hash::Hash>(interner: &mut Interner<T>, rows: Vec<T>) {
    for row in rows {
        interner.intern(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameKind;
    use crate::store::rows::LabelValueRow;
    use proptest::prelude::*;

    fn a_dictionary() -> Dictionary {
        let mut dictionary = Dictionary::default();
        let path = dictionary.text("/bin/true");
        let build_id = dictionary.text("");
        let row = MappingRow { path, build_id, ordinal: 0, start: 1 << 63, limit: u64::MAX, file_offset: 0 };
        assert_eq!(dictionary.mapping(row, 7), (0, 7));
        assert_eq!(dictionary.mapping(row, 3), (0, 7), "the flags of the first sight stay");
        let name = dictionary.text("main");
        let function = FunctionRow { name, system_name: build_id, file: path, start_line: 3 };
        let function = dictionary.functions.intern(function);
        let frames = vec![(function, 7), (function, 0)];
        for address in [u64::MAX, 0, 1 << 63] {
            let kind = FrameKind::Jit;
            dictionary.locations.intern(LocationRow {
                mapping: Some(0),
                address,
                kind,
                frames: frames.clone(),
            });
        }
        let root = dictionary.nodes.intern(0, 2);
        let leaf = dictionary.nodes.intern(root, 1);
        assert_eq!((root, leaf, dictionary.nodes.intern(root, 1)), (1, 2, 2));
        dictionary
            .labels
            .intern(LabelsRow(vec![(0, LabelValueRow::Number(-5)), (1, LabelValueRow::Text(2))]));
        dictionary.formats.intern(FormatRow {
            value_types: vec![(0, 1)],
            default_value: 0,
            period_type: Some((1, 2)),
            period: -1,
        });
        dictionary.series.intern(SeriesRow {
            format: 0,
            service: None,
            container_id: Some(0),
            comm: Some(2),
        });
        assert_eq!((dictionary.stacks.intern(0, root), dictionary.stacks.intern(0, leaf)), (0, 1));
        dictionary
    }

    fn read(pages: &[(i64, Vec<u8>)]) -> Result<Tables, Malformed> {
        let mut tables = Tables::default();
        for (kind, page) in pages {
            tables.read(*kind, page)?;
        }
        Ok(tables)
    }

    #[test]
    fn what_was_written_in_several_pages_is_read_back_and_goes_on_growing_from_there() {
        let mut dictionary = a_dictionary();
        let mut pages = dictionary.new_pages();
        dictionary.set_written();
        assert!(dictionary.new_pages().is_empty());
        let leaf = dictionary.nodes.intern(2, 0);
        assert_eq!(dictionary.stacks.intern(0, leaf), 2);
        dictionary.text("later");
        let later = dictionary.new_pages();
        assert_eq!(later.len(), 3, "only tables that grew have a page");
        pages.extend(later);
        dictionary.set_written();
        let tables = read(&pages).unwrap();
        assert_eq!(tables.locations[2].address, 1 << 63);
        assert_eq!(tables.nodes[2], NodeRow { parent: 2, location: 0 });
        assert_eq!(tables.stacks(0), [1, 2, 3]);
        assert_eq!(tables.stacks(1), [0_u32; 0]);
        let mut again = Dictionary::from_tables(tables).unwrap();
        assert_eq!(again.lengths(), dictionary.lengths());
        assert!(again.new_pages().is_empty());
        assert_eq!(again.nodes.intern(2, 0), leaf);
        assert_eq!(again.stacks.intern(0, leaf), 2);
        assert_eq!(again.text("later"), 3);
        assert_eq!(again.text("new"), 4);
    }

    #[test]
    fn every_truncation_of_a_page_is_refused_or_has_fewer_rows() {
        let pages = a_dictionary().new_pages();
        for (number, (kind, page)) in pages.iter().enumerate() {
            for length in 0..page.len() {
                let mut tables = read(&pages[..number]).unwrap();
                let _ = tables.read(*kind, &page[..length]);
            }
        }
    }

    #[test]
    fn a_node_that_is_its_own_ancestor_a_repeated_row_and_an_unknown_kind_are_refused() {
        assert!(Tables::default().read(NodeRow::KIND, &[0, 1]).is_err(), "its own parent");
        assert!(Tables::default().read(NodeRow::KIND, &[2, 1]).is_err(), "a parent before the first");
        assert!(Tables::default().read(99, &[]).is_err());
        let mut tables = Tables::default();
        tables.read(<String as Row>::KIND, &[1, b'a', 1, b'a']).unwrap();
        assert!(Dictionary::from_tables(tables).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_pages_never_panic(kind in 0_i64..80, page: Vec<u8>) {
            let mut tables = Tables::default();
            if tables.read(kind, &page).is_ok() {
                let _ = Dictionary::from_tables(tables);
            }
        }
    }
}
