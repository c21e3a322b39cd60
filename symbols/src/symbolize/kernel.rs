//! Kernel addresses → names, from `/proc/kallsyms`.
//!
//! One line a symbol: address in hex, type letter as `nm` prints it, name, and for code outside of the
//! kernel's image the module in brackets (kernel/kallsyms.c, `s_show`). `[bpf]` marks JIT-compiled BPF
//! programs and `[__builtin__ftrace]`, `[__builtin__kprobes]` generated trampolines. To a user who may
//! not see addresses (`kptr_restrict`) every address reads zero.
//!
//! kallsyms gives no sizes, so a symbol reaches to the next one, but: in the image never past `_etext`
//! (or `_einittext`, which lies apart); in a module never past the module's end as `/proc/modules`
//! gives it; a BPF program or trampoline never past [`MAX_GENERATED_BYTES`].
//!
//! kallsyms is read when first needed, and again when an address is asked for that no kept symbol covers:
//! at once if it was not asked for before, so that addresses should come in batches; else it may be of a
//! module or BPF program loaded since, which is looked for at most every [`RELOAD_INTERVAL`].
//! Its text has five to twenty megabytes, and its code symbols would take five; a profile needs a few
//! hundred of them. So lines are read one by one, and every [`SYMBOLS_OF_PIECE`] symbols all are dropped
//! but those around an address that was asked for: the last one at or before it, and the first one behind
//! it, which is where it ends.
//!
//! Known gaps: file names and lines of the kernel are not looked for; a BPF program that was loaded into
//! the gap behind another one after the last reading is named after the other one until the next.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use super::{KernelSymbol, SymbolFrame, UnknownReason};

/// What the kernel's own image is called.
const KERNEL: &str = "kernel";
/// Most that is read of `/proc/kallsyms`: a distribution's kernel with all modules has about 20 MiB.
const MAX_KALLSYMS_BYTES: u64 = 256 << 20;
const MAX_MODULES_BYTES: u64 = 16 << 20;
/// Longest line that is looked at; the kernel's names have less than 512 bytes (`KSYM_NAME_LEN`).
const MAX_LINE_BYTES: u64 = 4096;
/// Reach of a symbol whose end nobody tells: BPF programs and trampolines.
const MAX_GENERATED_BYTES: u64 = 64 << 10;
/// Symbols that are read before those that no address needs are dropped.
const SYMBOLS_OF_PIECE: usize = 4096;
/// Least time between two readings.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    begin: u64,
    /// Where its name begins in `names`.
    name: u32,
    /// 0 if the symbol is kept only as the end of the one before it; no name is empty.
    name_bytes: u16,
    module: u16,
}

/// What one reading of kallsyms gave for the addresses that were asked for.
#[derive(Debug, Default)]
struct KernelTable {
    entries: Vec<Entry>,
    names: String,
    modules: Vec<String>,
    /// Ends of the image's text, sorted.
    image_ends: Vec<u64>,
    /// Name, first address and end of each module.
    module_ranges: Vec<(String, u64, u64)>,
    /// Lines were there, and all their addresses were zero.
    hidden: bool,
    malformed_lines: u64,
}

/// Names kernel addresses.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    table: Option<KernelTable>,
    /// Addresses that the last reading was made for and did not name, sorted.
    not_named: Vec<u64>,
    read_at: Option<Instant>,
    readings: u64,
}

impl KernelSymbols {
    /// Names addresses, in the order given.
    pub fn symbolize(&mut self, addresses: &[u64]) -> Vec<KernelSymbol> {
        let is_due = self.read_at.is_none_or(|at| at.elapsed() >= RELOAD_INTERVAL);
        if addresses.iter().any(|&address| self.calls_for_reading(address, is_due)) {
            self.reload(addresses);
        }
        addresses.iter().map(|&address| self.name(address)).collect()
    }

    /// Whether kallsyms may tell more of an address than is known. One that the last reading did not name
    /// waits until the next `is_due`.
    fn calls_for_reading(&self, address: u64, is_due: bool) -> bool {
        let Some(table) = &self.table else { return is_due };
        if table.find(address).is_some() {
            return false;
        }
        is_due || !(table.hidden || self.not_named.binary_search(&address).is_ok())
    }

    /// How often kallsyms was read.
    pub fn readings(&self) -> u64 {
        self.readings
    }

    /// Lines of the last reading that were not understood.
    pub fn malformed_lines(&self) -> u64 {
        self.table.as_ref().map_or(0, |table| table.malformed_lines)
    }

    /// Symbols held.
    pub fn len(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.entries.len())
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.table
            .as_ref()
            .map_or(0, |table| table.entries.capacity() * size_of::<Entry>() + table.names.capacity())
    }

    /// Reads what names `addresses`, and all that was asked for before, as it is now.
    fn reload(&mut self, addresses: &[u64]) {
        let kept = self.table.iter().flat_map(|table| &table.entries);
        let named = kept.filter(|entry| entry.name_bytes > 0).map(|entry| entry.begin);
        let mut wanted: Vec<u64> = named.chain(addresses.iter().copied()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        self.read_at = Some(Instant::now());
        self.readings += 1;
        // A failed reading keeps what an earlier one gave.
        let Ok(kallsyms) = File::open("/proc/kallsyms") else { return };
        let modules = read_text("/proc/modules", MAX_MODULES_BYTES).unwrap_or_default();
        let kallsyms = BufReader::with_capacity(64 << 10, kallsyms.take(MAX_KALLSYMS_BYTES));
        if let Ok(table) = KernelTable::parse(kallsyms, &modules, &wanted) {
            self.not_named = addresses.to_vec();
            self.not_named.retain(|&address| table.find(address).is_none());
            self.not_named.sort_unstable();
            self.table = Some(table);
        }
    }

    fn name(&self, address: u64) -> KernelSymbol {
        let unknown = |reason| KernelSymbol { symbol: Err(reason), module: KERNEL.to_owned() };
        let Some(table) = &self.table else { return unknown(UnknownReason::NoSymbolTable) };
        if table.hidden {
            return unknown(UnknownReason::KernelHidden);
        }
        let Some(entry) = table.find(address) else { return unknown(UnknownReason::NoSymbol) };
        let name = table.name_of(entry);
        let demangled = super::demangle::demangle(name);
        KernelSymbol {
            symbol: Ok(vec![SymbolFrame::from_linker_name(name.to_owned(), demangled)]),
            module: table.modules.get(usize::from(entry.module)).cloned().unwrap_or_default(),
        }
    }
}

fn read_text(path: &str, max_bytes: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(max_bytes).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

struct ParsedLine<'text> {
    address: u64,
    kind: u8,
    name: &'text str,
    module: &'text str,
}

fn parse_line(line: &str) -> Option<ParsedLine<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let address = u64::from_str_radix(fields.next()?, 16).ok()?;
    let &[kind] = fields.next()?.as_bytes() else { return None };
    let name = fields.next()?;
    let module = match fields.next() {
        None => KERNEL,
        Some(bracketed) => bracketed.strip_prefix('[')?.strip_suffix(']')?,
    };
    Some(ParsedLine { address, kind, name, module })
}

impl KernelTable {
    /// Keeps what names the addresses `wanted`, which are sorted.
    fn parse(mut kallsyms: impl BufRead, modules: &str, wanted: &[u64]) -> std::io::Result<Self> {
        let mut table = Self { modules: vec![KERNEL.to_owned()], ..Self::default() };
        let mut kept = 0;
        let mut lines = 0_u64;
        let mut any_symbol = false;
        let mut module_of_last_line = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            // The rest of a longer line is taken for a line of its own, which is not understood either.
            if kallsyms.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let Some(parsed) = std::str::from_utf8(&line).ok().and_then(parse_line) else {
                table.malformed_lines += 1;
                continue;
            };
            lines += 1;
            if parsed.address == 0 {
                continue;
            }
            if parsed.module == KERNEL && matches!(parsed.name, "_etext" | "_einittext") {
                table.image_ends.push(parsed.address);
                continue;
            }
            if !matches!(parsed.kind, b't' | b'T' | b'w' | b'W') {
                continue;
            }
            if table.modules.get(usize::from(module_of_last_line)).is_none_or(|name| name != parsed.module) {
                module_of_last_line = table.module_index(parsed.module);
            }
            let (Ok(name), Ok(name_bytes)) =
                (u32::try_from(table.names.len()), u16::try_from(parsed.name.len()))
            else {
                table.malformed_lines += 1;
                continue;
            };
            any_symbol = true;
            table.names.push_str(parsed.name);
            table.entries.push(Entry {
                begin: parsed.address,
                name,
                name_bytes,
                module: module_of_last_line,
            });
            if table.entries.len() >= kept + SYMBOLS_OF_PIECE {
                table.keep_only_what_names(wanted);
                kept = table.entries.len();
            }
        }
        table.hidden = lines > 0 && !any_symbol && table.image_ends.is_empty();
        table.image_ends.sort_unstable();
        table.module_ranges = parse_modules(modules);
        table.keep_only_what_names(wanted);
        table.entries.shrink_to_fit();
        table.names.shrink_to_fit();
        Ok(table)
    }

    fn module_index(&mut self, module: &str) -> u16 {
        if let Some(known) = self.modules.iter().position(|name| name == module) {
            return u16::try_from(known).unwrap_or(u16::MAX);
        }
        let new = u16::try_from(self.modules.len()).unwrap_or(u16::MAX);
        if new < u16::MAX {
            self.modules.push(module.to_owned());
        }
        new
    }

    /// Sorts by address and keeps one symbol of each: the one with the fewest leading underscores,
    /// never a section's boundary (`_text`, `_stext`, `__entry_text_start`) where there is another.
    fn choose_among_aliases(&mut self) {
        let names = &self.names;
        let preference = |entry: &Entry| {
            let begin = entry.name as usize;
            let name = names.get(begin..begin + usize::from(entry.name_bytes)).unwrap_or_default();
            let is_boundary = matches!(name, "_text" | "_stext")
                || name.starts_with("__start_")
                || name.ends_with("_text_start")
                || name.ends_with("_text_end");
            let underscores = name.bytes().take_while(|&byte| byte == b'_').count();
            (is_boundary, underscores, name.len(), name)
        };
        self.entries
            .sort_unstable_by(|a, b| a.begin.cmp(&b.begin).then_with(|| preference(a).cmp(&preference(b))));
        self.entries.dedup_by_key(|entry| entry.begin);
    }

    /// Drops symbols that name none of the addresses `wanted`, and the names of those that only end one
    /// that does. What is dropped could not be needed after more lines either: a symbol that is further
    /// from an address than another stays so.
    fn keep_only_what_names(&mut self, wanted: &[u64]) {
        self.choose_among_aliases();
        let all = std::mem::take(&mut self.entries);
        let all_names = std::mem::take(&mut self.names);
        let mut wanted = wanted.iter().copied().peekable();
        let mut ends_one_before = false;
        for (index, entry) in all.iter().enumerate() {
            let next_begin = all.get(index + 1).map_or(u64::MAX, |next| next.begin);
            while wanted.next_if(|&address| address < entry.begin).is_some() {
                // Before all symbols: this one ends what names the address, if another line does.
                ends_one_before = true;
            }
            // The last symbol names everything behind it, up to the last address there is.
            let is_last = index + 1 == all.len();
            let is_wanted = wanted.peek().is_some_and(|&address| address < next_begin || is_last);
            while wanted.next_if(|&address| address < next_begin || is_last).is_some() {}
            if is_wanted || ends_one_before {
                let begin = entry.name as usize;
                let name = all_names.get(begin..begin + usize::from(entry.name_bytes)).unwrap_or_default();
                let name = if is_wanted { name } else { "" };
                // Shorter than what they are taken from, so these numbers fit.
                let at = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                let name_bytes = u16::try_from(name.len()).unwrap_or(u16::MAX);
                self.names.push_str(name);
                self.entries.push(Entry { name: at, name_bytes, ..*entry });
            }
            ends_one_before = is_wanted;
        }
    }

    fn name_of(&self, entry: &Entry) -> &str {
        let begin = entry.name as usize;
        self.names.get(begin..begin + usize::from(entry.name_bytes)).unwrap_or_default()
    }

    /// Where the code of a symbol ends, whatever follows it.
    fn limit_of(&self, entry: &Entry) -> u64 {
        let unknown = entry.begin.saturating_add(MAX_GENERATED_BYTES);
        if entry.module == 0 {
            let after = self.image_ends.partition_point(|&end| end <= entry.begin);
            // A symbol behind every end of text that is known: nothing says how far it goes.
            return self.image_ends.get(after).copied().unwrap_or(unknown);
        }
        let name = self.modules.get(usize::from(entry.module)).map_or("", String::as_str);
        let holds = |begin: u64, end: u64| (begin..end).contains(&entry.begin);
        let mut ranges = self.module_ranges.iter();
        ranges
            .find(|(module, begin, end)| module == name && holds(*begin, *end))
            .map_or(unknown, |(_, _, end)| *end)
    }

    fn find(&self, address: u64) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| entry.begin <= address);
        // What follows begins after the address, so that only the limit of this one is to be asked.
        let entry = self.entries.get(after.checked_sub(1)?)?;
        (entry.name_bytes > 0 && address < self.limit_of(entry)).then_some(entry)
    }
}

#[cfg(feature = "fuzzing")]
impl KernelSymbols {
    /// Symbols at sorted addresses as these texts tell them, for `fuzzing`.
    pub(super) fn of_texts(kallsyms: &str, modules: &str, addresses: &[u64]) -> Self {
        let table = KernelTable::parse(kallsyms.as_bytes(), modules, addresses).ok();
        Self { table, read_at: Some(Instant::now()), ..Self::default() }
    }

    /// The name of an address, without reading anything again.
    pub(super) fn name_of(&self, address: u64) -> KernelSymbol {
        self.name(address)
    }
}

/// Name, first address and end of each line of `/proc/modules`:
/// `name bytes references users state address`.
fn parse_modules(text: &str) -> Vec<(String, u64, u64)> {
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        let bytes: u64 = fields.next()?.parse().ok()?;
        let begin = u64::from_str_radix(fields.nth(3)?.strip_prefix("0x")?, 16).ok()?;
        (begin > 0).then_some((name.to_owned(), begin, begin.saturating_add(bytes)))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KALLSYMS: &str = "\
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 T first
ffffffff81000100 t second
ffffffff81000180 d some_data
ffffffff81000200 T _etext
ffffffff81000300 T __init_begin_gap
ffffffff83783000 T init_function
ffffffff83784000 T _einittext
0000000000010000 A fixed_percpu_data
ffffffffc0001000 t mod_init\t[mod]
ffffffffc0001100 t mod_last\t[mod]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530_x\t[bpf]
not a line
";
    const MODULES: &str = "mod 8192 0 - Live 0xffffffffc0001000\nbroken\n";

    fn parse(kallsyms: &str, modules: &str, wanted: &[u64]) -> KernelTable {
        KernelTable::parse(kallsyms.as_bytes(), modules, wanted).unwrap()
    }

    fn named(table: &KernelTable, address: u64) -> Option<(&str, &str)> {
        let entry = table.find(address)?;
        Some((table.name_of(entry), &table.modules[usize::from(entry.module)]))
    }

    #[test]
    fn names_end_with_their_section_module_or_program() {
        let cases = [
            (0xffff_ffff_80ff_ffff, None),
            (0xffff_ffff_8100_0000, Some(("first", "kernel"))),
            (0xffff_ffff_8100_00ff, Some(("first", "kernel"))),
            (0xffff_ffff_8100_01ff, Some(("second", "kernel"))),
            (0xffff_ffff_8100_0200, None),
            (0xffff_ffff_8378_3fff, Some(("init_function", "kernel"))),
            (0xffff_ffff_8378_4000, None),
            (0xffff_ffff_c000_10ff, Some(("mod_init", "mod"))),
            (0xffff_ffff_c000_2fff, Some(("mod_last", "mod"))),
            (0xffff_ffff_c000_3000, None),
            (0xffff_ffff_c010_0010, Some(("bpf_prog_6deef7357e7b4530_x", "bpf"))),
            (0xffff_ffff_c011_0000, None),
            (u64::MAX, None),
            (0, None),
        ];
        let mut wanted = cases.map(|(address, _)| address);
        wanted.sort_unstable();
        let table = parse(KALLSYMS, MODULES, &wanted);
        for (address, expected) in cases {
            assert_eq!(named(&table, address), expected, "{address:#x} among all");
            let alone = parse(KALLSYMS, MODULES, &[address]);
            assert_eq!(named(&alone, address), expected, "{address:#x} alone");
            assert!(alone.entries.len() <= 2, "{:?}", alone.entries);
        }
        assert_eq!(table.malformed_lines, 1);
        assert!(!table.hidden);
    }

    #[test]
    fn zeroed_addresses_are_hidden_and_not_merely_unknown() {
        let table = parse("0000000000000000 T _stext\n0000000000000000 t x\t[m]\n", "", &[1]);
        assert!(table.hidden);
        let mut symbols =
            KernelSymbols { table: Some(table), read_at: Some(Instant::now()), ..KernelSymbols::default() };
        assert_eq!(symbols.symbolize(&[1])[0].symbol, Err(UnknownReason::KernelHidden));
        assert!(!parse("", "", &[]).hidden);
    }

    #[test]
    fn this_kernel_names_its_own_symbols() {
        let text = read_text("/proc/kallsyms", MAX_KALLSYMS_BYTES).unwrap();
        let Some(line) =
            text.lines().find(|line| line.ends_with(" T schedule") || line.ends_with(" T vfs_read"))
        else {
            eprintln!("skipped: kallsyms has neither schedule nor vfs_read");
            return;
        };
        let parsed = parse_line(line).unwrap();
        if parsed.address == 0 {
            eprintln!("skipped: kernel addresses are hidden from this user");
            return;
        }
        let mut symbols = KernelSymbols::default();
        let named = symbols.symbolize(&[parsed.address + 1, 1]);
        assert_eq!(named[0].module, "kernel");
        assert_eq!(named[0].symbol.as_ref().unwrap()[0].name, parsed.name);
        assert_eq!(named[1].symbol, Err(UnknownReason::NoSymbol));
        symbols.symbolize(&[1]);
        assert_eq!(symbols.readings(), 1, "an unknown address is no reason to read again at once");
        let other = symbols.symbolize(&[parsed.address + 1, parsed.address - 1, parsed.address]);
        assert_eq!(symbols.readings(), 2, "one that was not asked for before is");
        assert_eq!(other[0], named[0], "what was asked for before is kept");
        assert_eq!(other[2], named[0]);
        assert_ne!(other[1], named[0]);
        assert!(symbols.len() <= 8, "{} symbols are kept for three addresses", symbols.len());
    }

    #[test]
    fn a_line_without_end_and_bytes_that_are_no_text_cost_only_themselves() {
        let mut text = b"ffffffff81000000 t before\n".to_vec();
        text.extend(vec![b'x'; 3 * MAX_LINE_BYTES as usize]);
        text.extend(b"\n\xff\xfe\nffffffff81000100 t after\n");
        let wanted = [0xffff_ffff_8100_0000, 0xffff_ffff_8100_0100];
        let table = KernelTable::parse(text.as_slice(), "", &wanted).unwrap();
        assert_eq!(named(&table, 0xffff_ffff_8100_0100), Some(("after", "kernel")));
        assert_eq!(named(&table, 0xffff_ffff_8100_0000), Some(("before", "kernel")));
        assert_eq!(table.malformed_lines, 5);
    }

    /// The name of every address as a search through all lines finds it.
    fn named_by_search(lines: &[(u64, String)], address: u64) -> Option<&str> {
        let begin = lines.iter().map(|&(begin, _)| begin).filter(|&begin| begin <= address).max()?;
        let aliases = lines.iter().filter(|(other, _)| *other == begin);
        aliases.map(|(_, name)| name.as_str()).min_by_key(|name| (name.len(), *name))
    }

    proptest! {
        #[test]
        fn what_is_dropped_on_the_way_is_not_missed(
            begins in prop::collection::vec(1_u64..40, 0..40),
            mut wanted in prop::collection::vec(0_u64..45, 0..6),
            pieces in prop::collection::vec(prop::bool::weighted(0.3), 40),
        ) {
            let lines: Vec<(u64, String)> =
                begins.iter().enumerate().map(|(line, &begin)| (begin, format!("f{line}"))).collect();
            wanted.sort_unstable();
            let mut table = KernelTable { modules: vec![KERNEL.to_owned()], ..KernelTable::default() };
            for ((begin, name), ends_piece) in lines.iter().zip(pieces) {
                let at = table.names.len() as u32;
                table.names.push_str(name);
                table.entries.push(Entry { begin: *begin, name: at, name_bytes: name.len() as u16, module: 0 });
                if ends_piece {
                    table.keep_only_what_names(&wanted);
                }
            }
            table.keep_only_what_names(&wanted);
            for &address in &wanted {
                let found = named(&table, address).map(|(name, _)| name);
                prop_assert_eq!(found, named_by_search(&lines, address));
            }
            // Whatever else is asked of it, it does not name it wrongly.
            for address in 0..45 {
                if let Some((name, _)) = named(&table, address) {
                    prop_assert_eq!(Some(name), named_by_search(&lines, address));
                }
            }
            prop_assert!(table.entries.len() <= 2 * wanted.len());
        }

        #[test]
        fn any_text_parses(kallsyms in "([0-9a-f]{1,17} [tTwWdA] [a-z_]{0,6}(\\t\\[[a-z]{0,3}\\]?)?\n|\\PC{0,20}\n){0,30}",
                           modules in "([a-z]{1,3} [0-9]{1,20} 0 - Live 0x[0-9a-f]{1,16}\n|\\PC{0,20}\n){0,5}",
                           address: u64) {
            let table = parse(&kallsyms, &modules, &[address]);
            if let Some(entry) = table.find(address) {
                prop_assert!(entry.begin <= address && address < table.limit_of(entry));
            }
            for pair in table.entries.windows(2) {
                prop_assert!(pair[0].begin < pair[1].begin);
            }
        }
    }
}
