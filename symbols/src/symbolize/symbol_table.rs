//! ELF symbol tables (`.symtab`, `.dynsym`, the one inside `.gnu_debugdata`) → the name at an address.
//!
//! Format: System V gABI, chapter 4, "Symbol Table"; `Elf64_Sym` is 24 bytes, little endian.
//!
//! Which symbol names an address:
//! - The innermost symbol *with a size* that covers it. An address past a symbol's end is not named
//!   after it: in a stripped library the symbol before an address is usually another function.
//! - Else a symbol without size (assembly), which reaches to the next symbol, the next function that
//!   `.eh_frame_hdr` knows, or the end of its section, whichever comes first.
//! - Among several for the same bytes: functions before untyped symbols, exported before local,
//!   then the fewest leading underscores (`malloc`, not `__libc_malloc`), the shortest, and the
//!   alphabet, so that the answer never depends on the order in a file.
//!
//! Left out: undefined and absolute symbols, data, sections, files, thread-locals, ARM mapping symbols
//! (`$x`, `$d.1`), and anything outside executable ranges. `STT_GNU_IFUNC` names its resolver's code.
//!
//! No table is held: those of a browser have tens of megabytes, of which a profile needs a thousand
//! names. Each batch of addresses walks once through the tables as they lie in the file, which takes
//! about 20 ns a symbol, and reads the names of the few symbols that come into question.

use std::cmp::Ordering;
use std::io;

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::paged_bytes::PageSource;
use crate::{ObjectError, ObjectFile};

/// Bytes of an `Elf64_Sym`.
const SYMBOL_BYTES: usize = 24;
/// Symbols that are read of one table; the largest C++ programs have about two million.
const MAX_SYMBOLS: usize = 8 << 20;
/// Pairs of a symbol and an address it covers that are looked at in one batch; in sound objects there
/// are two or three for each address.
const MAX_COVERED: usize = 1 << 24;
/// Symbols that are read together.
const CHUNK_SYMBOLS: usize = 1024;
/// Bytes of names that are read together.
const NAMES_WINDOW_BYTES: usize = 4096;
/// Most of a compressed symbol table or its names, decompressed.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;
/// A name is cut here.
const MAX_NAME_BYTES: usize = 32 << 10;

const SHN_UNDEF: u16 = 0;
const SHN_ABS: u16 = 0xfff1;
const SHN_COMMON: u16 = 0xfff2;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
const STB_LOCAL: u8 = 0;
const STB_GLOBAL: u8 = 1;
const STB_WEAK: u8 = 2;

/// A half-open range of ELF addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    /// First address.
    pub begin: u64,
    /// First address after it.
    pub end: u64,
}

impl AddressRange {
    /// Whether the range holds `address`.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.begin <= address && address < self.end
    }
}

/// Symbol tables of one object, as they lie in its file or in another.
#[derive(Debug, Default)]
pub struct SymbolTables {
    tables: Vec<Table>,
    /// Where code is.
    executable: Vec<AddressRange>,
}

#[derive(Debug)]
struct Table {
    symbols: PageSource,
    names: PageSource,
}

/// A symbol found at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSymbol {
    /// The name as the table has it.
    pub name: Vec<u8>,
    /// First address.
    pub begin: u64,
    /// Whether the symbol itself says where it ends; else its end was inferred.
    pub sized: bool,
}

/// What is decided by without its name.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    begin: u64,
    /// Exclusive; `begin` for a symbol without size.
    end: u64,
    /// Where its name begins.
    name: u32,
    /// Worst 0; see [`rank`].
    rank: u8,
}

#[derive(Debug, Clone)]
struct Candidate {
    symbol: Symbol,
    name: Vec<u8>,
}

/// What is known of an address on the way through the tables.
#[derive(Debug, Clone, Default)]
struct Asked {
    address: u64,
    /// Innermost symbol with size around it.
    sized: Option<Candidate>,
    /// Last symbol without size at or before it, and behind the address asked before it.
    unsized_symbol: Option<Candidate>,
    /// Begin of the last symbol of any kind at or before it, and behind the address asked before it.
    last_begin: Option<u64>,
}

impl SymbolTables {
    /// No tables yet, of an object with code in `executable`.
    #[must_use]
    pub fn new(executable: Vec<AddressRange>) -> Self {
        Self { tables: Vec::new(), executable }
    }

    /// Adds a table of `object`, if it has it.
    ///
    /// # Errors
    /// [`ObjectError`] if the table is not in the file.
    pub fn add(&mut self, object: &ObjectFile, symbols: &str, names: &str) -> Result<(), ObjectError> {
        let header = |name: &str| object.section_header(name).filter(|header| header.has_contents());
        if let (Some(symbols), Some(names)) = (header(symbols), header(names)) {
            let read = |header| PageSource::of_section(object, header, MAX_UNPACKED_BYTES);
            self.tables.push(Table { symbols: read(symbols)?, names: read(names)? });
        }
        Ok(())
    }

    /// Whether the object has no symbol table at all (an empty one counts).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.tables.is_empty()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let tables: usize =
            self.tables.iter().map(|table| table.symbols.memory_bytes() + table.names.memory_bytes()).sum();
        tables + self.executable.capacity() * size_of::<AddressRange>()
    }

    /// The symbols that name addresses, in the order asked. `last_starts` answers, for sorted addresses,
    /// where the last function begins at or before each that is known from elsewhere. One pass over all
    /// tables: O(symbols × log addresses).
    ///
    /// # Errors
    /// [`io::Error`] if a table cannot be read any more.
    pub fn find(
        &self,
        addresses: &[u64],
        last_starts: impl FnOnce(&[u64]) -> Vec<Option<u64>>,
    ) -> io::Result<Vec<Option<FoundSymbol>>> {
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut asked: Vec<Asked> =
            sorted.iter().map(|&address| Asked { address, ..Asked::default() }).collect();
        for table in &self.tables {
            table.walk(&self.executable, &mut asked)?;
        }
        self.carry_over(&mut asked);
        let unnamed = |asked: &Asked| asked.sized.is_none() && asked.unsized_symbol.is_some();
        if asked.iter().any(unnamed) {
            for (asked, start) in asked.iter_mut().zip(last_starts(&sorted)) {
                let behind = asked.unsized_symbol.as_ref().map(|candidate| candidate.symbol.begin);
                if start > behind {
                    asked.unsized_symbol = None;
                }
            }
        }
        let found = |address: &u64| {
            let asked = asked.get(sorted.binary_search(address).ok()?)?;
            let found = |candidate: &Candidate, sized| FoundSymbol {
                name: candidate.name.clone(),
                begin: candidate.symbol.begin,
                sized,
            };
            let sized = asked.sized.as_ref().map(|candidate| found(candidate, true));
            sized.or_else(|| asked.unsized_symbol.as_ref().map(|candidate| found(candidate, false)))
        };
        Ok(addresses.iter().map(found).collect())
    }

    /// What stands before an address stands before those behind it too; what ends before it goes.
    fn carry_over(&self, asked: &mut [Asked]) {
        let mut last_begin = None;
        let mut last_unsized: Option<Candidate> = None;
        for asked in asked {
            last_begin = asked.last_begin.or(last_begin);
            last_unsized = asked.unsized_symbol.take().or(last_unsized);
            let reaches = |candidate: &&Candidate| {
                let begin = candidate.symbol.begin;
                let ranges = self.executable.iter().filter(|range| range.contains(begin));
                last_begin == Some(begin)
                    && ranges.map(|range| range.end).min().is_some_and(|end| asked.address < end)
            };
            asked.unsized_symbol = last_unsized.as_ref().filter(reaches).cloned();
        }
    }
}

impl Table {
    fn walk(&self, executable: &[AddressRange], asked: &mut [Asked]) -> io::Result<()> {
        let mut names = Names { source: &self.names, begin: 0, window: Vec::new() };
        let symbols = (self.symbols.len() / SYMBOL_BYTES).min(MAX_SYMBOLS);
        let mut chunk = Vec::new();
        let mut covered = 0;
        for first in (0..symbols).step_by(CHUNK_SYMBOLS) {
            chunk.resize((symbols - first).min(CHUNK_SYMBOLS) * SYMBOL_BYTES, 0);
            self.symbols.read_exact_at(&mut chunk, first * SYMBOL_BYTES)?;
            for raw in chunk.chunks_exact(SYMBOL_BYTES) {
                let Some((kind, symbol)) = decode(raw, executable) else { continue };
                let from = asked.partition_point(|asked| asked.address < symbol.begin);
                let Some(behind) = asked.get_mut(from..).filter(|behind| !behind.is_empty()) else {
                    continue;
                };
                // Names cost a look elsewhere: only of symbols that change something.
                let is_last = behind.first().is_some_and(|asked| asked.last_begin <= Some(symbol.begin));
                let covers = behind.first().is_some_and(|asked| asked.address < symbol.end);
                if !is_last && !covers || !names.is_name(symbol.name, kind)? {
                    continue;
                }
                if let Some(next) = behind.first_mut().filter(|_| is_last) {
                    next.last_begin = Some(symbol.begin);
                    if symbol.begin == symbol.end {
                        take_better(&mut next.unsized_symbol, symbol, &mut names)?;
                    }
                }
                for asked in behind.iter_mut().take_while(|asked| asked.address < symbol.end) {
                    covered += 1;
                    if covered > MAX_COVERED {
                        return Ok(());
                    }
                    take_better(&mut asked.sized, symbol, &mut names)?;
                }
            }
        }
        Ok(())
    }
}

/// Keeps the better of two symbols: the one that begins last, then ends first, then by rank and name.
fn take_better(held: &mut Option<Candidate>, symbol: Symbol, names: &mut Names<'_>) -> io::Result<()> {
    let order = held.as_ref().map_or(Ordering::Greater, |held| {
        let key = |symbol: &Symbol| (symbol.begin, std::cmp::Reverse(symbol.end), symbol.rank);
        key(&symbol).cmp(&key(&held.symbol))
    });
    if order.is_lt() {
        return Ok(());
    }
    let name = names.at(symbol.name)?;
    if order.is_gt() || held.as_ref().is_some_and(|held| compare_names(&name, &held.name).is_lt()) {
        *held = Some(Candidate { symbol, name });
    }
    Ok(())
}

/// Names of one table.
struct Names<'a> {
    source: &'a PageSource,
    begin: usize,
    window: Vec<u8>,
}

impl Names<'_> {
    /// What is at hand at a position, at least `count` bytes unless the table ends.
    fn look(&mut self, position: usize, count: usize) -> io::Result<&[u8]> {
        let end = position.saturating_add(count).min(self.source.len());
        if position < self.begin || end > self.begin + self.window.len() {
            let bytes = self.source.len().saturating_sub(position).min(NAMES_WINDOW_BYTES.max(count));
            self.window.resize(bytes, 0);
            self.begin = position;
            if let Err(error) = self.source.read_exact_at(&mut self.window, position.min(self.source.len())) {
                self.window.clear();
                return Err(error);
            }
        }
        Ok(self.window.get(position - self.begin..).unwrap_or_default())
    }

    /// Whether there is a name, and it is not one that marks other things.
    fn is_name(&mut self, position: u32, kind: u8) -> io::Result<bool> {
        let text = self.look(position as usize, 3)?;
        Ok(text.first().is_some_and(|&first| first != 0) && !(kind == STT_NOTYPE && is_mapping_symbol(text)))
    }

    /// The name at a position, cut at [`MAX_NAME_BYTES`].
    fn at(&mut self, position: u32) -> io::Result<Vec<u8>> {
        for count in [256, MAX_NAME_BYTES] {
            let text = self.look(position as usize, count)?;
            let text = text.get(..MAX_NAME_BYTES).unwrap_or(text);
            let end = text.iter().position(|&byte| byte == 0);
            if end.is_some() || count == MAX_NAME_BYTES {
                return Ok(text.get(..end.unwrap_or(text.len())).unwrap_or_default().to_vec());
            }
        }
        Ok(Vec::new())
    }
}

/// A symbol of code, and its kind.
fn decode(raw: &[u8], executable: &[AddressRange]) -> Option<(u8, Symbol)> {
    let info = *raw.get(4)?;
    let section = u16_at(raw, 6)?;
    let kind = info & 0xf;
    if matches!(section, SHN_UNDEF | SHN_ABS | SHN_COMMON)
        || !matches!(kind, STT_NOTYPE | STT_FUNC | STT_GNU_IFUNC)
    {
        return None;
    }
    let begin = u64_at(raw, 8)?;
    let range = executable.iter().find(|range| range.contains(begin))?;
    let end = begin.saturating_add(u64_at(raw, 16)?).min(range.end);
    Some((kind, Symbol { begin, end, name: u32_at(raw, 0)?, rank: rank(kind, info >> 4) }))
}

/// `$a`, `$d`, `$t`, `$x`, alone or followed by a dot (ELF for the Arm 64-bit Architecture, "Mapping
/// symbols").
fn is_mapping_symbol(text: &[u8]) -> bool {
    matches!(text, [b'$', b'a' | b'd' | b't' | b'x', 0 | b'.', ..])
}

fn rank(kind: u8, binding: u8) -> u8 {
    let by_kind = if kind == STT_NOTYPE { 0 } else { 4 };
    let by_binding = match binding {
        // Weak or not decides nothing between names that were both exported: `puts` is the weak one.
        STB_GLOBAL | STB_WEAK => 2,
        STB_LOCAL => 1,
        _ => 0,
    };
    by_kind + by_binding
}

/// Better names are less.
fn compare_names(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let underscores = |name: &[u8]| name.iter().take_while(|&&byte| byte == b'_').count();
    (underscores(a), a.len(), a).cmp(&(underscores(b), b.len(), b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object_file::Contents;

    const TEXT: &[AddressRange] = &[AddressRange { begin: 0x1000, end: 0x2000 }];

    struct Given(&'static str, u8, u8, u64, u64);

    fn table(symbols: &[Given], boundaries: &[u64]) -> TestTable {
        let mut names = vec![0];
        let mut bytes = vec![0; SYMBOL_BYTES];
        for Given(name, kind, binding, value, size) in symbols {
            bytes.extend((names.len() as u32).to_le_bytes());
            bytes.extend([binding << 4 | kind, 0]);
            bytes.extend(1u16.to_le_bytes());
            bytes.extend(value.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            names.extend(name.bytes());
            names.push(0);
        }
        TestTable { tables: tables(&[(&bytes, &names)], TEXT), boundaries: boundaries.to_vec() }
    }

    struct TestTable {
        tables: SymbolTables,
        boundaries: Vec<u64>,
    }

    fn tables(parts: &[(&[u8], &[u8])], executable: &[AddressRange]) -> SymbolTables {
        let source = |bytes: &[u8]| PageSource::of_contents(Contents::Memory(bytes.to_vec()), bytes.len());
        let table =
            |(symbols, names): &(&[u8], &[u8])| Table { symbols: source(symbols), names: source(names) };
        SymbolTables { tables: parts.iter().map(table).collect(), executable: executable.to_vec() }
    }

    fn last_starts(boundaries: &[u64], addresses: &[u64]) -> Vec<Option<u64>> {
        let last = |&address| boundaries.iter().copied().filter(|&start| start <= address).max();
        addresses.iter().map(last).collect()
    }

    fn name(table: &TestTable, address: u64) -> Option<String> {
        // Others are asked about together with it, and change nothing.
        let others: Vec<u64> = (0x1000..0x2001).step_by(0x11).collect();
        let find = |addresses: &[u64]| {
            table.tables.find(addresses, |sorted| last_starts(&table.boundaries, sorted)).unwrap()
        };
        let alone = find(&[address]).remove(0);
        assert_eq!(find(&[&others[..], &[address]].concat()).pop().unwrap(), alone);
        alone.map(|found| String::from_utf8(found.name).unwrap())
    }

    #[test]
    fn an_address_past_the_end_of_a_symbol_is_not_named_after_it() {
        let table = table(&[Given("f", STT_FUNC, STB_GLOBAL, 0x1100, 0x10)], &[]);
        assert_eq!(name(&table, 0x10ff), None);
        assert_eq!(name(&table, 0x1100), Some("f".to_owned()));
        assert_eq!(name(&table, 0x110f), Some("f".to_owned()));
        assert_eq!(name(&table, 0x1110), None);
    }

    #[test]
    fn a_symbol_without_size_reaches_to_the_next_symbol_function_or_section_end() {
        let symbols = [
            Given("asm", STT_NOTYPE, STB_GLOBAL, 0x1100, 0),
            Given("next", STT_FUNC, STB_LOCAL, 0x1200, 8),
            Given("last", STT_NOTYPE, STB_LOCAL, 0x1f00, 0),
        ];
        let without = table(&symbols, &[]);
        assert_eq!(name(&without, 0x11ff), Some("asm".to_owned()));
        assert_eq!(name(&without, 0x1200), Some("next".to_owned()));
        assert_eq!(name(&without, 0x1208), None);
        assert_eq!(name(&without, 0x1fff), Some("last".to_owned()));
        assert_eq!(name(&without, 0x2000), None);
        let with = table(&symbols, &[0x1100, 0x1180]);
        assert_eq!(name(&with, 0x117f), Some("asm".to_owned()));
        assert_eq!(name(&with, 0x1180), None);
    }

    #[test]
    fn a_label_inside_a_function_does_not_take_its_name_but_a_nested_function_does() {
        let table = table(
            &[
                Given("outer", STT_FUNC, STB_GLOBAL, 0x1100, 0x100),
                Given("label", STT_NOTYPE, STB_LOCAL, 0x1110, 0),
                Given("inner", STT_FUNC, STB_LOCAL, 0x1180, 0x10),
            ],
            &[],
        );
        assert_eq!(name(&table, 0x1111), Some("outer".to_owned()));
        assert_eq!(name(&table, 0x1188), Some("inner".to_owned()));
        assert_eq!(name(&table, 0x1190), Some("outer".to_owned()));
    }

    #[test]
    fn aliases_are_chosen_by_kind_binding_and_name_and_not_by_order() {
        let mut symbols = vec![
            Given("aa_local", STT_FUNC, STB_LOCAL, 0x1100, 16),
            Given("_IO_puts", STT_FUNC, STB_GLOBAL, 0x1100, 16),
            Given("puts", STT_FUNC, STB_WEAK, 0x1100, 16),
            Given("__puts", STT_FUNC, STB_GLOBAL, 0x1100, 16),
            Given("a", STT_NOTYPE, STB_GLOBAL, 0x1100, 16),
            Given("b", STT_NOTYPE, STB_GLOBAL, 0x1100, 0),
        ];
        for _ in 0..symbols.len() {
            symbols.rotate_left(1);
            let table = table(&symbols, &[]);
            assert_eq!(name(&table, 0x1105), Some("puts".to_owned()));
        }
    }

    #[test]
    fn what_is_no_code_is_left_out() {
        let object = 1;
        let table = table(
            &[
                Given("data", object, STB_GLOBAL, 0x1100, 16),
                Given("$x", STT_NOTYPE, STB_LOCAL, 0x1100, 0),
                Given("$d.17", STT_NOTYPE, STB_LOCAL, 0x1100, 0),
                Given("outside", STT_FUNC, STB_GLOBAL, 0x3000, 16),
                Given("", STT_FUNC, STB_GLOBAL, 0x1100, 16),
            ],
            &[],
        );
        assert_eq!(name(&table, 0x1100), None);
        assert!(!table.tables.is_absent());
        assert!(SymbolTables::new(TEXT.to_vec()).is_absent());
    }

    #[test]
    fn a_size_that_overflows_ends_with_the_section() {
        let table = table(&[Given("f", STT_FUNC, STB_GLOBAL, 0x1100, u64::MAX)], &[]);
        assert_eq!(name(&table, 0x1fff), Some("f".to_owned()));
        assert_eq!(name(&table, 0x2000), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_table_whose_answers_cover_the_address(
            symbols in proptest::collection::vec(any::<u8>(), 0..2000),
            names in proptest::collection::vec(any::<u8>(), 0..100),
            addresses in proptest::collection::vec(any::<u64>(), 0..50),
            boundaries in proptest::collection::vec(any::<u64>(), 0..10),
        ) {
            let everywhere = [AddressRange { begin: 0, end: u64::MAX }];
            let everywhere = tables(&[(&symbols, &names), (&symbols, &names)], &everywhere);
            let found = everywhere.find(&addresses, |sorted| last_starts(&boundaries, sorted)).unwrap();
            prop_assert_eq!(found.len(), addresses.len());
            for (address, found) in addresses.iter().zip(found) {
                prop_assert!(found.is_none_or(|found| found.begin <= *address && !found.name.is_empty()));
            }
        }

        #[test]
        fn answers_equal_those_of_a_look_at_every_symbol(
            given in proptest::collection::vec((0x1000_u64..0x1040, 0_u64..24, 0_usize..4, any::<bool>()), 0..24),
            boundaries in proptest::collection::vec(0x1000_u64..0x1040, 0..3),
        ) {
            const NAMES: [&str; 4] = ["a", "_b", "__c", "dd"];
            let given: Vec<Given> = given
                .into_iter()
                .map(|(begin, bytes, name, is_global)| {
                    Given(NAMES[name], STT_FUNC, if is_global { STB_GLOBAL } else { STB_LOCAL }, begin, bytes)
                })
                .collect();
            let table = table(&given, &boundaries);
            for address in 0x0fff..0x1060 {
                let key = |g: &&Given| (g.3, std::cmp::Reverse(g.4), g.2, std::cmp::Reverse(name_key(g.0)));
                let covering = given.iter().filter(|g| g.4 > 0 && (g.3..g.3 + g.4).contains(&address));
                let last = given.iter().map(|g| g.3).filter(|&begin| begin <= address).max();
                let start = boundaries.iter().copied().filter(|&start| start <= address).max();
                let labels = given.iter().filter(|g| g.4 == 0 && Some(g.3) == last && start <= Some(g.3));
                let expected = covering.max_by_key(key).or(labels.max_by_key(key)).map(|g| g.0);
                let found = name(&table, address);
                prop_assert_eq!(found.as_deref(), expected, "at {:#x}", address);
            }
        }
    }

    fn name_key(name: &str) -> (usize, usize, &str) {
        (name.bytes().take_while(|&byte| byte == b'_').count(), name.len(), name)
    }
}
