//! Everything that names the addresses of one object, asked in order.
//!
//! 1. Go's own tables, which know inlined calls and lines even of stripped programs and cost a fraction
//!    of Go's DWARF; they say nothing about C that was linked in.
//! 2. DWARF of the object, else of its separate debug file: functions with what is inlined into them.
//! 3. Symbol tables: `.symtab` of the object or its debug file, `.dynsym`, and the one in
//!    `.gnu_debugdata` where there is no `.symtab`.
//! 4. Stubs of the procedure linkage table.
//!
//! Where both DWARF and a symbol name the machine code's own function, and differ, the symbol wins, as in
//! llvm-symbolizer: it tells clones apart (`f.cold`, `f.constprop.0`), and it has the parameters of
//! functions whose linkage name DWARF leaves out, and it makes names the same with and without debug
//! information (`malloc`, where glibc's DWARF has `__GI___libc_malloc`).

use super::dwarf::{self, ObjectDwarf};
use super::symbol_table::{AddressRange, FoundSymbol, SymbolTables};
use super::{Symbol, SymbolFrame, UnknownReason, debug_file, function_starts, plt};
use crate::go::GoSymbols;
use crate::{ElfAddress, ObjectError, ObjectFile};

/// Section holds code (`SHF_ALLOC | SHF_EXECINSTR`).
const SHF_CODE: u64 = 0x2 | 0x4;

/// Pages of Go's tables that stay read from one address to the next.
const GO_WORKING_BYTES: usize = 4 << 20;

/// What names the addresses of one object.
#[derive(Debug)]
pub struct NativeSymbols {
    go: Option<GoSymbols>,
    dwarf: LazyDwarf,
    tables: SymbolTables,
    /// Bytes of the object inside of `.gnu_debugdata`, whose table is held in memory.
    mini_debug_bytes: usize,
    /// A source that is there could not be read: what is not found may have been in it.
    is_incomplete: bool,
    is_dwarf_too_large: bool,
}

#[derive(Debug)]
enum LazyDwarf {
    Absent,
    /// Not asked for yet: in the object itself.
    InObject,
    /// Not asked for yet: in its debug file.
    InDebugFile(Box<ObjectFile>),
    Read(Box<ObjectDwarf>),
}

impl NativeSymbols {
    /// Finds the symbol tables of an object; DWARF only when it is first needed. `pid` is a process that
    /// has the object mapped, inside whose root a debug file is sought first.
    #[must_use]
    pub fn read(object: &ObjectFile, pid: Option<u32>) -> Self {
        let mut is_incomplete = false;
        let mut note = |failed: bool| is_incomplete |= failed;
        let go = GoSymbols::read(object);
        note(go.is_err());
        let mut mini_debug_bytes = 0;
        let mut tables = SymbolTables::new(executable_ranges(object));
        let has_symtab = has_contents(object, ".symtab");
        let has_dwarf = dwarf::is_in(object);
        let debug_file =
            if has_symtab && has_dwarf { None } else { debug_file::find(object, pid).map(Box::new) };
        let symtab_in_debug_file = debug_file.as_deref().filter(|file| has_contents(file, ".symtab"));
        if has_symtab {
            note(tables.add(object, ".symtab", ".strtab").is_err());
        } else if let Some(file) = symtab_in_debug_file {
            note(tables.add(file, ".symtab", ".strtab").is_err());
        } else if has_contents(object, ".gnu_debugdata") {
            let added = debug_file::mini_debug_object(object)
                .map(|inner| tables.add(&inner, ".symtab", ".strtab").map(|()| inner.file_bytes()));
            mini_debug_bytes = added.as_ref().and_then(|added| added.as_ref().ok()).copied().unwrap_or(0);
            note(!matches!(added, Some(Ok(_))));
        }
        note(tables.add(object, ".dynsym", ".dynstr").is_err());
        Self {
            go: go.ok().flatten(),
            dwarf: match debug_file {
                _ if has_dwarf => LazyDwarf::InObject,
                Some(file) if dwarf::is_in(&file) => LazyDwarf::InDebugFile(file),
                _ => LazyDwarf::Absent,
            },
            tables,
            mini_debug_bytes: usize::try_from(mini_debug_bytes).unwrap_or(usize::MAX),
            is_incomplete,
            is_dwarf_too_large: false,
        }
    }

    /// Names addresses of `object`, which must be the one that was read, in the order given.
    pub fn symbolize(
        &mut self,
        object: &ObjectFile,
        pid: Option<u32>,
        addresses: &[ElfAddress],
    ) -> Vec<Symbol> {
        let go = |address: &ElfAddress| {
            let go = self.go.as_mut()?;
            go.forget_over(GO_WORKING_BYTES);
            go.symbolize(*address).filter(|frames| !frames.is_empty())
        };
        let mut named: Vec<Option<Vec<SymbolFrame>>> = addresses.iter().map(go).collect();
        let symbols = self.find_symbols(object, addresses, &named);
        self.name_by_dwarf(object, pid, addresses, &symbols, &mut named);
        for (frames, symbol) in named.iter_mut().zip(&symbols) {
            if let (None, Some(symbol)) = (&frames, symbol) {
                *frames = Some(vec![self::named(&String::from_utf8_lossy(&symbol.name))]);
            }
        }
        self.name_stubs(object, addresses, &mut named);
        let has_symbols =
            self.go.is_some() || !matches!(self.dwarf, LazyDwarf::Absent) || !self.tables.is_absent();
        let unknown = if self.is_incomplete {
            UnknownReason::Unreadable
        } else if has_symbols {
            UnknownReason::NoSymbol
        } else {
            UnknownReason::NoSymbolTable
        };
        named.into_iter().map(|frames| frames.ok_or(unknown)).collect()
    }

    /// Symbols of the addresses that are not named yet.
    fn find_symbols(
        &mut self,
        object: &ObjectFile,
        addresses: &[ElfAddress],
        named: &[Option<Vec<SymbolFrame>>],
    ) -> Vec<Option<FoundSymbol>> {
        let mut symbols = vec![None; addresses.len()];
        let (indices, asked): (Vec<usize>, Vec<u64>) = not_named(addresses, named).unzip();
        if asked.is_empty() {
            return symbols;
        }
        match self.tables.find(&asked, |sorted| function_starts::last_before(object, sorted)) {
            Ok(found) => {
                for (index, found) in indices.into_iter().zip(found) {
                    if let Some(symbol) = symbols.get_mut(index) {
                        *symbol = found;
                    }
                }
            }
            Err(_) => self.is_incomplete = true,
        }
        symbols
    }

    fn name_stubs(
        &mut self,
        object: &ObjectFile,
        addresses: &[ElfAddress],
        named: &mut [Option<Vec<SymbolFrame>>],
    ) {
        let (indices, asked): (Vec<usize>, Vec<u64>) = not_named(addresses, named).unzip();
        let Ok(functions) = plt::functions(object, &asked) else {
            self.is_incomplete = true;
            return;
        };
        for (index, function) in indices.into_iter().zip(functions) {
            if let (Some(function), Some(frames)) = (function, named.get_mut(index)) {
                let mut frame = self::named(&function);
                frame.name.push_str("@plt");
                *frames = Some(vec![frame]);
            }
        }
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let dwarf = match &self.dwarf {
            LazyDwarf::Read(dwarf) => dwarf.memory_bytes(),
            _ => 0,
        };
        let go = self.go.as_ref().map_or(0, GoSymbols::memory_bytes);
        go + dwarf + self.tables.memory_bytes() + self.mini_debug_bytes
    }

    /// Whether a source that is there could not be read.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// Whether DWARF was left out for its size.
    #[must_use]
    pub fn is_dwarf_too_large(&self) -> bool {
        self.is_dwarf_too_large
    }

    /// DWARF units that could not be read so far.
    #[must_use]
    pub fn malformed_units(&self) -> u64 {
        match &self.dwarf {
            LazyDwarf::Read(dwarf) => dwarf.malformed_units(),
            _ => 0,
        }
    }

    /// Names what DWARF knows of the addresses that are not named yet, unit by unit.
    fn name_by_dwarf(
        &mut self,
        object: &ObjectFile,
        pid: Option<u32>,
        addresses: &[ElfAddress],
        symbols: &[Option<FoundSymbol>],
        named: &mut [Option<Vec<SymbolFrame>>],
    ) {
        let mut asked: Vec<(usize, u64)> = not_named(addresses, named).collect();
        if asked.is_empty() {
            return;
        }
        self.load_dwarf(object, pid);
        let LazyDwarf::Read(dwarf) = &mut self.dwarf else { return };
        asked.sort_by_cached_key(|&(_, address)| (dwarf.order(address), address));
        for (index, address) in asked {
            let symbol = symbols.get(index).and_then(Option::as_ref);
            if let (Some(found), Some(frames)) =
                (frames_of(dwarf.find(address), symbol), named.get_mut(index))
            {
                *frames = Some(found);
            }
        }
        // The answers are kept; what they were made from is read again if others are asked for.
        dwarf.forget();
    }

    fn load_dwarf(&mut self, object: &ObjectFile, pid: Option<u32>) {
        let source = match &self.dwarf {
            LazyDwarf::Absent | LazyDwarf::Read(_) => return,
            LazyDwarf::InObject => object,
            LazyDwarf::InDebugFile(file) => file,
        };
        let supplement = debug_file::find_supplement(source, pid);
        self.dwarf = match ObjectDwarf::read(source, supplement.as_ref()) {
            Ok(dwarf) => LazyDwarf::Read(Box::new(dwarf)),
            Err(ObjectError::TooLarge { .. }) => {
                self.is_dwarf_too_large = true;
                LazyDwarf::Absent
            }
            Err(_) => {
                self.is_incomplete = true;
                LazyDwarf::Absent
            }
        };
    }
}

/// Frames as DWARF has them, with the name that the symbol table has for the outermost.
fn frames_of(mut found: Vec<dwarf::DwarfFrame>, symbol: Option<&FoundSymbol>) -> Option<Vec<SymbolFrame>> {
    let outermost = found.last_mut()?;
    if let Some(symbol) = symbol.filter(|symbol| symbol.sized || outermost.name.is_none()) {
        outermost.name = Some(String::from_utf8_lossy(&symbol.name).into_owned());
    }
    outermost.name.as_ref()?;
    let frame = |found: dwarf::DwarfFrame| SymbolFrame {
        file: found.file,
        line: found.line,
        start_line: found.start_line,
        ..named(&found.name.unwrap_or_default())
    };
    // An inlined function without a name (it stands in a file that was not found) is left out: the
    // function around it is right, and its line is that of the call.
    Some(found.into_iter().filter(|frame| frame.name.is_some()).map(frame).collect())
}

/// Index and address of what has no frames yet.
fn not_named(
    addresses: &[ElfAddress],
    named: &[Option<Vec<SymbolFrame>>],
) -> impl Iterator<Item = (usize, u64)> {
    let pairs = addresses.iter().zip(named).enumerate();
    pairs.filter(|(_, (_, frames))| frames.is_none()).map(|(index, (address, _))| (index, address.0))
}

fn named(linker_name: &str) -> SymbolFrame {
    SymbolFrame::from_linker_name(linker_name.to_owned(), super::demangle::demangle(linker_name))
}

fn has_contents(object: &ObjectFile, section: &str) -> bool {
    object.section_header(section).is_some_and(|header| header.has_contents() && header.bytes > 0)
}

/// Sections with code; the executable segments if there is no section table.
fn executable_ranges(object: &ObjectFile) -> Vec<AddressRange> {
    let range =
        |begin: ElfAddress, bytes| AddressRange { begin: begin.0, end: begin.0.saturating_add(bytes) };
    let sections: Vec<AddressRange> = object
        .section_headers()
        .iter()
        .filter(|header| header.flags & SHF_CODE == SHF_CODE)
        .map(|header| range(header.address, header.bytes))
        .collect();
    if !sections.is_empty() {
        return sections;
    }
    let segments = object.segments().iter().filter(|segment| segment.executable);
    segments.map(|segment| range(segment.address, segment.memory_bytes)).collect()
}
