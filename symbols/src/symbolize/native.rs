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
use super::plt::PltStubs;
use super::symbol_table::{AddressRange, SymbolTable, SymbolTableBuilder};
use super::{Symbol, SymbolFrame, UnknownReason, debug_file, function_starts};
use crate::go::GoSymbols;
use crate::{ElfAddress, ObjectError, ObjectFile};

/// Section holds code (`SHF_ALLOC | SHF_EXECINSTR`).
const SHF_CODE: u64 = 0x2 | 0x4;

/// What names the addresses of one object.
#[derive(Debug)]
pub struct NativeSymbols {
    go: Option<GoSymbols>,
    dwarf: LazyDwarf,
    table: SymbolTable,
    plt: PltStubs,
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
    /// Reads the symbol tables of an object; DWARF only when it is first needed. `pid` is a process that
    /// has the object mapped, inside whose root a debug file is sought first.
    #[must_use]
    pub fn read(object: &ObjectFile, pid: Option<u32>) -> Self {
        let mut is_incomplete = false;
        let mut note = |failed: bool| is_incomplete |= failed;
        let go = GoSymbols::read(object);
        note(go.is_err());
        let executable = executable_ranges(object);
        let mut builder = SymbolTableBuilder::default();
        let has_symtab = has_contents(object, ".symtab");
        let has_dwarf = dwarf::is_in(object);
        let debug_file =
            if has_symtab && has_dwarf { None } else { debug_file::find(object, pid).map(Box::new) };
        let symtab_in_debug_file = debug_file.as_deref().filter(|file| has_contents(file, ".symtab"));
        if has_symtab {
            note(add_table(&mut builder, object, ".symtab", ".strtab", &executable).is_err());
        } else if let Some(file) = symtab_in_debug_file {
            note(add_table(&mut builder, file, ".symtab", ".strtab", &executable).is_err());
        } else if has_contents(object, ".gnu_debugdata") {
            let added = debug_file::mini_debug_object(object)
                .map(|inner| add_table(&mut builder, &inner, ".symtab", ".strtab", &executable));
            note(!matches!(added, Some(Ok(()))));
        }
        note(add_table(&mut builder, object, ".dynsym", ".dynstr", &executable).is_err());
        let plt = PltStubs::read(object);
        note(plt.is_err());
        Self {
            go: go.ok().flatten(),
            dwarf: match debug_file {
                _ if has_dwarf => LazyDwarf::InObject,
                Some(file) if dwarf::is_in(&file) => LazyDwarf::InDebugFile(file),
                _ => LazyDwarf::Absent,
            },
            table: builder.build(&executable, &function_starts::read(object)),
            plt: plt.unwrap_or_default(),
            is_incomplete,
            is_dwarf_too_large: false,
        }
    }

    /// Names an address of `object`, which must be the one that was read.
    pub fn symbolize(&mut self, object: &ObjectFile, pid: Option<u32>, address: ElfAddress) -> Symbol {
        if let Some(frames) = self.go.as_ref().and_then(|go| go.symbolize(address))
            && !frames.is_empty()
        {
            return Ok(frames);
        }
        if let Some(frames) = self.frames_of_dwarf(object, pid, address) {
            return Ok(frames);
        }
        if let Some(found) = self.table.find(address.0) {
            return Ok(vec![named(&String::from_utf8_lossy(found.name))]);
        }
        if let Some(function) = self.plt.find(address.0) {
            let mut frame = named(function);
            frame.name.push_str("@plt");
            return Ok(vec![frame]);
        }
        let has_symbols =
            self.go.is_some() || !matches!(self.dwarf, LazyDwarf::Absent) || !self.table.is_absent();
        Err(if self.is_incomplete {
            UnknownReason::Unreadable
        } else if has_symbols {
            UnknownReason::NoSymbol
        } else {
            UnknownReason::NoSymbolTable
        })
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let dwarf = match &self.dwarf {
            LazyDwarf::Read(dwarf) => dwarf.memory_bytes(),
            _ => 0,
        };
        dwarf + self.table.memory_bytes() + self.plt.memory_bytes()
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

    fn frames_of_dwarf(
        &mut self,
        object: &ObjectFile,
        pid: Option<u32>,
        address: ElfAddress,
    ) -> Option<Vec<SymbolFrame>> {
        self.load_dwarf(object, pid);
        let LazyDwarf::Read(dwarf) = &mut self.dwarf else { return None };
        let mut found = dwarf.find(address.0);
        let outermost = found.last_mut()?;
        if let Some(symbol) = self.table.find(address.0)
            && (symbol.sized || outermost.name.is_none())
        {
            outermost.name = Some(String::from_utf8_lossy(symbol.name).into_owned());
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

fn add_table(
    builder: &mut SymbolTableBuilder,
    object: &ObjectFile,
    symbols: &str,
    names: &str,
    executable: &[AddressRange],
) -> Result<(), ObjectError> {
    if let (Some(symbols), Some(names)) = (object.section(symbols)?, object.section(names)?) {
        builder.add(&symbols.data, &names.data, executable);
    }
    Ok(())
}
