//! Addresses → names, files, lines and inlined frames.
//!
//! Comes in: opened objects with ELF addresses, kernel addresses, process ids with addresses of generated
//! code. Goes out: [`Symbol`]s, each with its frames or with the reason why there are none. Never: the
//! network; a guess where nothing is known; a file mapped into memory.
//!
//! Memory is bounded by what is asked, not by how large objects are: debug information and Go's tables
//! are read a page at a time (`paged_bytes`) and dropped unit by unit, symbol tables and relocations are
//! walked through in the file once for each batch of addresses. So addresses should come in batches.
//! What stays of an object is where its units and tables are, as long as there is room ([`Limits`]);
//! answers are kept longer than objects. Both are known by build id, so that a library that many
//! containers carry is read once.

mod bounded_cache;
mod code_ranges;
mod debug_file;
mod demangle;
mod dwarf;
mod function_starts;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod intervals;
mod jit;
mod jitdump;
mod kernel;
mod native;
mod perf_map;
mod plt;
mod symbol_table;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::{BuildId, ElfAddress, ObjectFile};
use bounded_cache::BoundedCache;
pub use demangle::demangle;
use jit::GeneratedCodeNames;
use kernel::KernelSymbols;
use native::NativeSymbols;

/// Build ids that keep a number, by which answers are kept: 100 bytes each.
const MAX_NUMBERED_OBJECTS: usize = 1 << 16;

/// One function at an address: the machine code's own, or one inlined into it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SymbolFrame {
    /// Demangled name.
    pub name: String,
    /// The name as the object has it, if it differs; else empty.
    pub system_name: String,
    /// Source file as the compiler wrote it, empty if unknown.
    pub file: String,
    /// Line, 0 if unknown.
    pub line: u32,
    /// First line of the function, 0 if unknown.
    pub start_line: u32,
}

impl SymbolFrame {
    /// A frame with a name and nothing else.
    fn from_linker_name(linker_name: String, demangled: Option<String>) -> Self {
        match demangled {
            Some(name) => Self { name, system_name: linker_name, ..Self::default() },
            None => Self { name: linker_name, ..Self::default() },
        }
    }
}

/// Why an address has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnknownReason {
    /// The object has no symbols that cover the address.
    NoSymbol,
    /// The object has no symbol table of any kind.
    NoSymbolTable,
    /// The object could not be read any more, or it is malformed.
    Unreadable,
    /// No perf map and no runtime support for generated code.
    NoPerfMap,
    /// Kernel addresses are hidden from this user (`kptr_restrict`).
    KernelHidden,
}

/// What is known of an address: frames innermost inlined first, or why there are none.
pub type Symbol = Result<Vec<SymbolFrame>, UnknownReason>;

/// A kernel address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSymbol {
    /// Its name.
    pub symbol: Symbol,
    /// The module it lies in, `kernel` for the kernel itself, `bpf` for a BPF program.
    pub module: String,
}

/// How much a [`Symbolizer`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Answers; about 400 bytes each.
    pub symbols: usize,
    /// Objects that are held read.
    pub objects: usize,
    /// Bytes that they may take together once their addresses are answered.
    pub object_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { symbols: 1 << 16, objects: 128, object_bytes: 4 << 20 }
    }
}

impl Limits {
    /// For who is asked again and again: each time there are a few addresses that nobody asked for before, and reading an
    /// object with all its debug information again takes 100 to 200 ms for libc or a Rust program of 40 MB.
    #[must_use]
    pub fn of_long_running() -> Self {
        Self { object_bytes: 24 << 20, ..Self::default() }
    }
}

/// What a [`Symbolizer`] did since its start, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SymbolizerStats {
    /// Addresses of objects answered from the cache.
    pub hits: u64,
    /// Addresses of objects that were looked up.
    pub misses: u64,
    /// Addresses of objects without an answer, cached or not.
    pub unknown: u64,
    /// Answers forgotten for want of room.
    pub evicted_symbols: u64,
    /// Objects forgotten for want of room; they are read again when asked about.
    pub evicted_objects: u64,
    /// Objects read, counting again those that were forgotten.
    pub objects_read: u64,
    /// Of those, ones with a part that could not be read.
    pub unreadable_objects: u64,
    /// Objects named by their symbol table only, since their DWARF is compressed and over its size limit.
    pub dwarf_too_large: u64,
    /// DWARF units that were malformed.
    pub malformed_units: u64,
    /// Perf maps and jitdumps refused: not regular, of another user, left behind, or too large.
    pub refused_generated_code_files: u64,
    /// Lines of perf maps and records of jitdumps not understood or over a limit.
    pub malformed_generated_code_entries: u64,
    /// Processes whose generated code was forgotten for want of room.
    pub evicted_processes: u64,
    /// Times `/proc/kallsyms` was read.
    pub kernel_readings: u64,
    /// Lines of it that were not understood at the last reading.
    pub malformed_kernel_lines: u64,
    /// Kernel symbols held.
    pub kernel_symbols: u64,
    /// Objects held.
    pub objects: u64,
    /// Bytes held for objects, kernel symbols and generated code, about.
    pub memory_bytes: u64,
}

#[derive(Debug)]
struct HeldObject {
    symbols: NativeSymbols,
    last_use: u64,
    memory_bytes: usize,
    malformed_units: u64,
    was_incomplete: bool,
    was_dwarf_too_large: bool,
}

/// Symbolizes, with bounded caches.
#[derive(Debug)]
pub struct Symbolizer {
    limits: Limits,
    numbers: HashMap<BuildId, u32>,
    next_number: u32,
    objects: HashMap<u32, HeldObject>,
    cache: BoundedCache<(u32, u64), Symbol>,
    kernel: KernelSymbols,
    generated_code: GeneratedCodeNames,
    uses: u64,
    stats: SymbolizerStats,
}

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbolizer {
    /// A symbolizer with empty caches and the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// A symbolizer with empty caches.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            limits,
            numbers: HashMap::new(),
            next_number: 0,
            objects: HashMap::new(),
            cache: BoundedCache::new(limits.symbols),
            kernel: KernelSymbols::default(),
            generated_code: GeneratedCodeNames::default(),
            uses: 0,
            stats: SymbolizerStats::default(),
        }
    }

    /// Names ELF addresses of one object, in the order given. An address to look up is that of an
    /// instruction: for a caller, of the call itself and not of what follows it.
    pub fn object(&mut self, object: &Arc<ObjectFile>, addresses: &[ElfAddress]) -> Vec<Symbol> {
        self.object_of_process(None, object, addresses)
    }

    /// As [`Symbolizer::object`], seeking a separate debug file inside the root of `pid` first, a process
    /// that has the object mapped, then on this host.
    pub fn object_of_process(
        &mut self,
        pid: Option<u32>,
        object: &Arc<ObjectFile>,
        addresses: &[ElfAddress],
    ) -> Vec<Symbol> {
        let number = self.number_of(object.build_id());
        let mut symbols: Vec<Option<Symbol>> = Vec::with_capacity(addresses.len());
        let mut missing = BTreeMap::new();
        for &address in addresses {
            let held = self.cache.get((number, address.0)).cloned();
            if held.is_none() {
                missing.insert(address, None);
            }
            symbols.push(held);
        }
        self.stats.hits += symbols.iter().filter(|symbol| symbol.is_some()).count() as u64;
        self.stats.misses += missing.len() as u64;
        if !missing.is_empty() {
            let asked: Vec<ElfAddress> = missing.keys().copied().collect();
            let found = self.look_up(number, pid, object, &asked);
            for ((address, slot), symbol) in missing.iter_mut().zip(found) {
                self.cache.insert((number, address.0), symbol.clone());
                *slot = Some(symbol);
            }
            self.account(number);
        }
        self.evict();
        let answer = |(address, held): (&ElfAddress, Option<Symbol>)| {
            let symbol = held.or_else(|| missing.get(address).cloned().flatten());
            symbol.unwrap_or(Err(UnknownReason::NoSymbol))
        };
        let symbols: Vec<Symbol> = addresses.iter().zip(symbols).map(answer).collect();
        self.stats.unknown += symbols.iter().filter(|symbol| symbol.is_err()).count() as u64;
        symbols
    }

    /// Names kernel addresses; the module (or `kernel`) stands beside each.
    pub fn kernel(&mut self, addresses: &[u64]) -> Vec<KernelSymbol> {
        self.kernel.symbolize(addresses)
    }

    /// Names process addresses of generated code through the process's perf map or jitdump. Works after
    /// the process is gone if [`Symbolizer::remember_process`] or this was called while it lived.
    pub fn jit(&mut self, pid: u32, addresses: &[u64]) -> Vec<Symbol> {
        self.generated_code.symbolize(pid, addresses)
    }

    /// Takes hold of a process's root, perf map and jitdump, so that its generated code can be named after
    /// it is gone. To be called when a process is first seen to execute outside of its objects, and again
    /// (it reads on what was appended) as often as names shall be fresh: a runtime reuses addresses.
    pub fn remember_process(&mut self, pid: u32) {
        self.generated_code.remember(pid);
    }

    /// Drops what is held of a process.
    pub fn forget_process(&mut self, pid: u32) {
        self.generated_code.forget(pid);
    }

    /// What happened since the start, and what is held now.
    #[must_use]
    pub fn stats(&self) -> SymbolizerStats {
        let generated_code = self.generated_code.stats();
        let objects_bytes: usize = self.objects.values().map(|object| object.memory_bytes).sum();
        let memory_bytes = objects_bytes + self.kernel.memory_bytes() + self.generated_code.memory_bytes();
        SymbolizerStats {
            evicted_symbols: self.cache.evicted(),
            refused_generated_code_files: generated_code.refused_files,
            malformed_generated_code_entries: generated_code.malformed_entries,
            evicted_processes: generated_code.evicted_processes,
            kernel_readings: self.kernel.readings(),
            malformed_kernel_lines: self.kernel.malformed_lines(),
            kernel_symbols: self.kernel.len() as u64,
            objects: self.objects.len() as u64,
            memory_bytes: memory_bytes as u64,
            ..self.stats
        }
    }

    fn number_of(&mut self, build_id: &BuildId) -> u32 {
        if let Some(&number) = self.numbers.get(build_id) {
            return number;
        }
        if self.numbers.len() >= MAX_NUMBERED_OBJECTS {
            self.numbers.clear();
            self.stats.evicted_objects += self.objects.len() as u64;
            self.objects.clear();
            self.cache.clear();
        }
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        self.numbers.insert(build_id.clone(), number);
        number
    }

    fn look_up(
        &mut self,
        number: u32,
        pid: Option<u32>,
        object: &Arc<ObjectFile>,
        addresses: &[ElfAddress],
    ) -> Vec<Symbol> {
        let held = self.objects.entry(number).or_insert_with(|| {
            self.stats.objects_read += 1;
            HeldObject {
                symbols: NativeSymbols::read(object, pid),
                last_use: 0,
                memory_bytes: 0,
                malformed_units: 0,
                was_incomplete: false,
                was_dwarf_too_large: false,
            }
        });
        held.symbols.symbolize(object, pid, addresses)
    }

    /// Brings the figures about an object up to date after it was asked.
    fn account(&mut self, number: u32) {
        self.uses += 1;
        let Some(held) = self.objects.get_mut(&number) else { return };
        held.last_use = self.uses;
        held.memory_bytes = held.symbols.memory_bytes();
        let malformed_units = held.symbols.malformed_units();
        self.stats.malformed_units += malformed_units.saturating_sub(held.malformed_units);
        held.malformed_units = malformed_units;
        if held.symbols.is_incomplete() && !std::mem::replace(&mut held.was_incomplete, true) {
            self.stats.unreadable_objects += 1;
        }
        if held.symbols.is_dwarf_too_large() && !std::mem::replace(&mut held.was_dwarf_too_large, true) {
            self.stats.dwarf_too_large += 1;
        }
    }

    fn evict(&mut self) {
        let mut bytes: usize = self.objects.values().map(|object| object.memory_bytes).sum();
        while self.objects.len() > self.limits.objects || bytes > self.limits.object_bytes {
            let Some((&least, _)) = self.objects.iter().min_by_key(|(_, object)| object.last_use) else {
                return;
            };
            if let Some(evicted) = self.objects.remove(&least) {
                bytes = bytes.saturating_sub(evicted.memory_bytes);
                self.stats.evicted_objects += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_executable() -> Arc<ObjectFile> {
        let path = std::env::current_exe().unwrap();
        Arc::new(ObjectFile::new(std::fs::File::open(&path).unwrap(), &path).unwrap())
    }

    fn is_send<T: Send>(_: &T) {}

    #[test]
    fn a_second_look_comes_from_the_cache_and_equals_the_first() {
        let object = own_executable();
        let mut symbolizer = Symbolizer::new();
        is_send(&symbolizer);
        let segment = object.segments().iter().find(|segment| segment.executable).unwrap();
        let begin = segment.address.0;
        let addresses: Vec<ElfAddress> =
            (0..200).map(|step| ElfAddress(begin + step * segment.file_bytes / 200)).collect();
        let first = symbolizer.object(&object, &addresses);
        assert!(first.iter().filter(|symbol| symbol.is_ok()).count() > 150, "{first:?}");
        let second = symbolizer.object(&object, &addresses);
        assert_eq!(first, second);
        let stats = symbolizer.stats();
        assert_eq!((stats.hits, stats.misses, stats.objects_read), (200, 200, 1));
    }

    #[test]
    fn one_at_a_time_with_nothing_held_gives_what_a_batch_gives() {
        let object = own_executable();
        let segment = object.segments().iter().find(|segment| segment.executable).unwrap();
        let step = segment.file_bytes / 40;
        let address = |index: u64| ElfAddress(segment.address.0 + index * 17 % 40 * step);
        let addresses: Vec<ElfAddress> = (0..40).map(address).collect();
        let batch = Symbolizer::new().object(&object, &addresses);
        assert!(
            batch.iter().any(|symbol| symbol.as_ref().is_ok_and(|frames| frames[0].line > 0)),
            "{batch:?}"
        );
        let mut forgetful = Symbolizer::with_limits(Limits { symbols: 2, objects: 0, object_bytes: 0 });
        for (address, expected) in addresses.iter().zip(&batch) {
            assert_eq!(forgetful.object(&object, &[*address]), std::slice::from_ref(expected), "{address}");
        }
        assert_eq!(forgetful.stats().objects_read, 40);
        // Twice the same address in one batch is looked up once.
        let twice = Symbolizer::new().object(&object, &[addresses[3], addresses[1], addresses[3]]);
        assert_eq!(twice, [batch[3].clone(), batch[1].clone(), batch[3].clone()]);
    }

    #[test]
    fn objects_and_answers_over_the_limits_are_forgotten_and_counted() {
        let object = own_executable();
        let other = Arc::new(
            ObjectFile::new(std::fs::File::open("/bin/true").unwrap(), "/bin/true".as_ref()).unwrap(),
        );
        let mut symbolizer = Symbolizer::with_limits(Limits { symbols: 4, objects: 8, object_bytes: 1 });
        for step in 0..10 {
            symbolizer.object(&object, &[ElfAddress(step)]);
            assert!(symbolizer.object(&other, &[ElfAddress(step)])[0].is_err());
        }
        let stats = symbolizer.stats();
        assert!(stats.evicted_symbols >= 16, "{stats:?}");
        assert_eq!((stats.evicted_objects, stats.objects), (stats.objects_read, 0));
        assert_eq!(stats.unknown, 20);
    }
}
