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

/// Bytes of an `Elf64_Sym`.
const SYMBOL_BYTES: usize = 24;
/// Symbols that are kept of one table; the largest C++ programs have about two million.
const MAX_SYMBOLS: usize = 8 << 20;
/// Symbols before an address that are looked at in search of one around it: nesting in real objects
/// is two or three deep.
const MAX_SCAN: usize = 256;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    begin: u64,
    /// Exclusive.
    end: u64,
    /// Where its name begins in `names`.
    name: u32,
    /// Worst 0; see [`rank`].
    rank: u8,
    /// Whether the symbol itself says where it ends.
    sized: bool,
}

/// Collects symbols of one object's tables.
#[derive(Debug, Default)]
pub struct SymbolTableBuilder {
    entries: Vec<Entry>,
    names: Vec<u8>,
    tables: usize,
}

impl SymbolTableBuilder {
    /// Adds the code symbols of one table that lie in one of `executable`.
    pub fn add(&mut self, symbols: &[u8], names: &[u8], executable: &[AddressRange]) {
        let Ok(names_begin) = u32::try_from(self.names.len()) else { return };
        // The final zero ends a last name that is not terminated.
        if u32::try_from(self.names.len() + names.len() + 1).is_err() {
            return;
        }
        self.tables += 1;
        self.names.extend_from_slice(names);
        self.names.push(0);
        for symbol in symbols.chunks_exact(SYMBOL_BYTES) {
            if self.entries.len() >= MAX_SYMBOLS {
                break;
            }
            let Some(entry) = decode(symbol, names, executable) else { continue };
            self.entries.push(Entry { name: entry.name + names_begin, ..entry });
        }
    }

    /// The table. `boundaries` are addresses known to begin a function, sorted.
    #[must_use]
    pub fn build(mut self, executable: &[AddressRange], boundaries: &[u64]) -> SymbolTable {
        let names = &self.names;
        // Stable order within one range: worst first, since look-ups walk backwards.
        self.entries.sort_unstable_by(|a, b| {
            (a.begin, a.sized, std::cmp::Reverse(a.end), a.rank)
                .cmp(&(b.begin, b.sized, std::cmp::Reverse(b.end), b.rank))
                .then_with(|| compare_names(name_at(names, b.name), name_at(names, a.name)))
        });
        self.entries.dedup_by(|a, b| {
            a.begin == b.begin && a.end == b.end && name_at(names, a.name) == name_at(names, b.name)
        });
        give_ends_to_unsized(&mut self.entries, executable, boundaries);
        let mut greatest_end = 0;
        let greatest_ends = self
            .entries
            .iter()
            .map(|entry| {
                greatest_end = entry.end.max(greatest_end);
                greatest_end
            })
            .collect();
        self.entries.shrink_to_fit();
        SymbolTable { entries: self.entries, greatest_ends, names: self.names, tables: self.tables }
    }
}

fn decode(symbol: &[u8], names: &[u8], executable: &[AddressRange]) -> Option<Entry> {
    let name = u32::from_le_bytes(symbol.get(0..4)?.try_into().ok()?);
    let info = *symbol.get(4)?;
    let section = u16::from_le_bytes(symbol.get(6..8)?.try_into().ok()?);
    let value = u64::from_le_bytes(symbol.get(8..16)?.try_into().ok()?);
    let bytes = u64::from_le_bytes(symbol.get(16..24)?.try_into().ok()?);
    let kind = info & 0xf;
    let binding = info >> 4;
    if matches!(section, SHN_UNDEF | SHN_ABS | SHN_COMMON)
        || !matches!(kind, STT_NOTYPE | STT_FUNC | STT_GNU_IFUNC)
    {
        return None;
    }
    let text = names.get(usize::try_from(name).ok()?..)?;
    let first = *text.first()?;
    if first == 0 || (kind == STT_NOTYPE && is_mapping_symbol(text)) {
        return None;
    }
    let range = executable.iter().find(|range| range.contains(value))?;
    let end = value.saturating_add(bytes).min(range.end);
    Some(Entry { begin: value, end, name, rank: rank(kind, binding), sized: bytes > 0 })
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

fn name_at(names: &[u8], begin: u32) -> &[u8] {
    let text = names.get(begin as usize..).unwrap_or_default();
    let text = text.get(..MAX_NAME_BYTES).unwrap_or(text);
    text.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn give_ends_to_unsized(entries: &mut [Entry], executable: &[AddressRange], boundaries: &[u64]) {
    let mut next_begin = u64::MAX;
    let mut this_begin = u64::MAX;
    for entry in entries.iter_mut().rev() {
        if entry.begin != this_begin {
            next_begin = this_begin;
            this_begin = entry.begin;
        }
        if entry.sized {
            continue;
        }
        let range_end = executable
            .iter()
            .filter(|range| range.contains(entry.begin))
            .map(|range| range.end)
            .min()
            .unwrap_or(entry.begin);
        let boundary = boundaries.partition_point(|&address| address <= entry.begin);
        let boundary = boundaries.get(boundary).copied().unwrap_or(u64::MAX);
        entry.end = next_begin.min(range_end).min(boundary);
    }
}

/// Code symbols of one object, sorted.
#[derive(Debug, Default)]
pub struct SymbolTable {
    entries: Vec<Entry>,
    /// For each entry the greatest end of it and all before it: where a search may stop.
    greatest_ends: Vec<u64>,
    names: Vec<u8>,
    tables: usize,
}

/// A symbol found at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSymbol<'table> {
    /// The name as the table has it.
    pub name: &'table [u8],
    /// First address.
    pub begin: u64,
    /// Whether the symbol itself says where it ends; else its end was inferred.
    pub sized: bool,
}

impl SymbolTable {
    /// Whether the object had no symbol table at all (an empty one counts).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.tables == 0
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.greatest_ends.capacity() * size_of::<u64>()
            + self.names.capacity()
    }

    /// The symbol that names `address`. O(log n) and at most [`MAX_SCAN`] steps more.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<FoundSymbol<'_>> {
        let mut unsized_symbol = None;
        for entry in self.covering(address) {
            if entry.sized {
                return Some(self.found(entry));
            }
            unsized_symbol.get_or_insert(entry);
        }
        unsized_symbol.map(|entry| self.found(entry))
    }

    fn found(&self, entry: &Entry) -> FoundSymbol<'_> {
        FoundSymbol { name: name_at(&self.names, entry.name), begin: entry.begin, sized: entry.sized }
    }

    /// Entries around `address`, innermost and best first.
    fn covering(&self, address: u64) -> impl Iterator<Item = &Entry> {
        let after = self.entries.partition_point(|entry| entry.begin <= address);
        let entries = self.entries.get(..after).unwrap_or_default();
        let ends = self.greatest_ends.get(..after).unwrap_or_default();
        entries
            .iter()
            .zip(ends)
            .rev()
            .take(MAX_SCAN)
            .take_while(move |&(_, &greatest_end)| greatest_end > address)
            .filter(move |(entry, _)| address < entry.end)
            .map(|(entry, _)| entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[AddressRange] = &[AddressRange { begin: 0x1000, end: 0x2000 }];

    struct Symbol(&'static str, u8, u8, u64, u64);

    fn table(symbols: &[Symbol], boundaries: &[u64]) -> SymbolTable {
        let mut names = vec![0];
        let mut bytes = vec![0; SYMBOL_BYTES];
        for Symbol(name, kind, binding, value, size) in symbols {
            bytes.extend((names.len() as u32).to_le_bytes());
            bytes.extend([binding << 4 | kind, 0]);
            bytes.extend(1u16.to_le_bytes());
            bytes.extend(value.to_le_bytes());
            bytes.extend(size.to_le_bytes());
            names.extend(name.bytes());
            names.push(0);
        }
        let mut builder = SymbolTableBuilder::default();
        builder.add(&bytes, &names, TEXT);
        builder.build(TEXT, boundaries)
    }

    fn name(table: &SymbolTable, address: u64) -> Option<&str> {
        table.find(address).map(|found| std::str::from_utf8(found.name).unwrap())
    }

    #[test]
    fn an_address_past_the_end_of_a_symbol_is_not_named_after_it() {
        let table = table(&[Symbol("f", STT_FUNC, STB_GLOBAL, 0x1100, 0x10)], &[]);
        assert_eq!(name(&table, 0x10ff), None);
        assert_eq!(name(&table, 0x1100), Some("f"));
        assert_eq!(name(&table, 0x110f), Some("f"));
        assert_eq!(name(&table, 0x1110), None);
    }

    #[test]
    fn a_symbol_without_size_reaches_to_the_next_symbol_function_or_section_end() {
        let symbols = [
            Symbol("asm", STT_NOTYPE, STB_GLOBAL, 0x1100, 0),
            Symbol("next", STT_FUNC, STB_LOCAL, 0x1200, 8),
            Symbol("last", STT_NOTYPE, STB_LOCAL, 0x1f00, 0),
        ];
        let without = table(&symbols, &[]);
        assert_eq!(name(&without, 0x11ff), Some("asm"));
        assert_eq!(name(&without, 0x1200), Some("next"));
        assert_eq!(name(&without, 0x1208), None);
        assert_eq!(name(&without, 0x1fff), Some("last"));
        assert_eq!(name(&without, 0x2000), None);
        let with = table(&symbols, &[0x1100, 0x1180]);
        assert_eq!(name(&with, 0x117f), Some("asm"));
        assert_eq!(name(&with, 0x1180), None);
    }

    #[test]
    fn a_label_inside_a_function_does_not_take_its_name_but_a_nested_function_does() {
        let table = table(
            &[
                Symbol("outer", STT_FUNC, STB_GLOBAL, 0x1100, 0x100),
                Symbol("label", STT_NOTYPE, STB_LOCAL, 0x1110, 0),
                Symbol("inner", STT_FUNC, STB_LOCAL, 0x1180, 0x10),
            ],
            &[],
        );
        assert_eq!(name(&table, 0x1111), Some("outer"));
        assert_eq!(name(&table, 0x1188), Some("inner"));
        assert_eq!(name(&table, 0x1190), Some("outer"));
    }

    #[test]
    fn aliases_are_chosen_by_kind_binding_and_name_and_not_by_order() {
        let mut symbols = vec![
            Symbol("aa_local", STT_FUNC, STB_LOCAL, 0x1100, 16),
            Symbol("_IO_puts", STT_FUNC, STB_GLOBAL, 0x1100, 16),
            Symbol("puts", STT_FUNC, STB_WEAK, 0x1100, 16),
            Symbol("__puts", STT_FUNC, STB_GLOBAL, 0x1100, 16),
            Symbol("a", STT_NOTYPE, STB_GLOBAL, 0x1100, 16),
            Symbol("b", STT_NOTYPE, STB_GLOBAL, 0x1100, 0),
        ];
        for _ in 0..symbols.len() {
            symbols.rotate_left(1);
            let table = table(&symbols, &[]);
            assert_eq!(name(&table, 0x1105), Some("puts"));
        }
    }

    #[test]
    fn what_is_no_code_is_left_out() {
        let object = 1;
        let table = table(
            &[
                Symbol("data", object, STB_GLOBAL, 0x1100, 16),
                Symbol("$x", STT_NOTYPE, STB_LOCAL, 0x1100, 0),
                Symbol("$d.17", STT_NOTYPE, STB_LOCAL, 0x1100, 0),
                Symbol("outside", STT_FUNC, STB_GLOBAL, 0x3000, 16),
                Symbol("", STT_FUNC, STB_GLOBAL, 0x1100, 16),
            ],
            &[],
        );
        assert_eq!(name(&table, 0x1100), None);
        assert!(!table.is_absent());
        assert!(SymbolTableBuilder::default().build(TEXT, &[]).is_absent());
    }

    #[test]
    fn a_size_that_overflows_ends_with_the_section() {
        let table = table(&[Symbol("f", STT_FUNC, STB_GLOBAL, 0x1100, u64::MAX)], &[]);
        assert_eq!(name(&table, 0x1fff), Some("f"));
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
            let mut builder = SymbolTableBuilder::default();
            builder.add(&symbols, &names, &everywhere);
            builder.add(&symbols, &names, &everywhere);
            let mut boundaries = boundaries;
            boundaries.sort_unstable();
            let table = builder.build(&everywhere, &boundaries);
            for address in addresses {
                if let Some(found) = table.find(address) {
                    prop_assert!(found.begin <= address);
                }
            }
        }
    }
}
