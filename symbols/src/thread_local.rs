//! Where a thread-local variable is that an object exports by name (ELF TLS, Ulrich Drepper, "ELF Handling For
//! Thread-Local Storage", x86-64: variant II).
//!
//! Which way the program finds it is told by the relocations that name it. Each leaves what it came to in a
//! slot of the process's memory, where others can read it too:
//!
//! ```text
//! R_X86_64_TPOFF64   slot: distance from the thread pointer
//! R_X86_64_TLSDESC   slot: a function, and its argument: such a distance, which is negative; or the
//!                    address of (module, offset in its block), when the block is dynamic
//! R_X86_64_DTPMOD64  slot: module; the offset in its block is the symbol's value
//! none               an executable's own: right below the thread pointer
//! ```

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::object_file::Machine;
use crate::{ElfAddress, FileOffset, ObjectError, ObjectFile};

const SYMBOL_BYTES: usize = 24;
const RELOCATION_BYTES: usize = 24;
const STT_TLS: u8 = 6;
const SECTION_IS_THREAD_LOCAL: u64 = 0x400;
const R_X86_64_DTPMOD64: u32 = 16;
const R_X86_64_TPOFF64: u32 = 18;
const R_X86_64_TLSDESC: u32 = 36;
const PT_TLS: u32 = 7;
const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// Blocks of thread-local variables are aligned to no more than a page.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// How to find the variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadLocal {
    /// At this distance from the thread pointer.
    Distance(i64),
    /// The distance is in this slot.
    DistanceSlot(ElfAddress),
    /// In this slot is a descriptor.
    DescriptorSlot(ElfAddress),
    /// The module is in this slot.
    ModuleSlot {
        /// Where.
        slot: ElfAddress,
        /// Of the variable in the module's block.
        offset: u64,
    },
}

/// What it came to in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadLocalPlace {
    /// At this distance from the thread pointer.
    Distance(i64),
    /// In the block of a module.
    Module {
        /// Its number in the dynamic thread vector.
        module: u32,
        /// In its block.
        offset: u64,
    },
}

impl ThreadLocal {
    /// The variable of this name, if the object exports one. x86-64 only.
    ///
    /// # Errors
    /// [`ObjectError`] if the object cannot be read.
    pub fn find(object: &ObjectFile, name: &str) -> Result<Option<Self>, ObjectError> {
        let has_any =
            object.section_headers().iter().any(|header| header.flags & SECTION_IS_THREAD_LOCAL != 0);
        if !has_any || object.machine() != Machine::X86_64 {
            return Ok(None);
        }
        let (Some(texts), Some(symbols)) = (object.section(".dynstr")?, object.section(".dynsym")?) else {
            return Ok(None);
        };
        let Some((number, value)) = find_symbol(&symbols.data, &texts.data, name) else { return Ok(None) };
        let mut descriptor = None;
        let mut distance = None;
        let mut module = None;
        for section in [".rela.dyn", ".rela.plt"] {
            let Some(section) = object.section(section)? else { continue };
            for relocation in section.data.chunks_exact(RELOCATION_BYTES) {
                let (Some(slot), Some(info)) = (u64_at(relocation, 0), u64_at(relocation, 8)) else {
                    continue;
                };
                if info >> 32 != u64::from(number) {
                    continue;
                }
                let slot = Some(ElfAddress(slot));
                match u32::try_from(info & 0xffff_ffff).unwrap_or(0) {
                    R_X86_64_TLSDESC => descriptor = slot,
                    R_X86_64_TPOFF64 => distance = slot,
                    R_X86_64_DTPMOD64 => module = slot,
                    _ => {}
                }
            }
        }
        if let Some(slot) = distance {
            return Ok(Some(Self::DistanceSlot(slot)));
        }
        if let Some(slot) = descriptor {
            return Ok(Some(Self::DescriptorSlot(slot)));
        }
        if let Some(slot) = module {
            return Ok(Some(Self::ModuleSlot { slot, offset: value }));
        }
        Ok(block_of_executable(object)?.and_then(|bytes| {
            let distance = i64::try_from(value).ok()?.checked_sub(i64::try_from(bytes).ok()?)?;
            (distance < 0).then_some(Self::Distance(distance))
        }))
    }

    /// What it came to in a process, of whose memory `word` reads eight bytes at an ELF address of the object
    /// (`Ok`) or at an address of the process (`Err`). `None` while the loader has not filled the slot in.
    #[must_use]
    pub fn place(self, word: &dyn Fn(Result<ElfAddress, u64>) -> Option<u64>) -> Option<ThreadLocalPlace> {
        let of_module = |module: u64, offset: u64| {
            let module = u32::try_from(module).ok().filter(|&module| module != 0)?;
            Some(ThreadLocalPlace::Module { module, offset })
        };
        let behind = |ElfAddress(address): ElfAddress| Some(ElfAddress(address.checked_add(8)?));
        match self {
            Self::Distance(distance) => Some(ThreadLocalPlace::Distance(distance)),
            Self::DistanceSlot(slot) => {
                let distance = word(Ok(slot))?.cast_signed();
                (distance < 0).then_some(ThreadLocalPlace::Distance(distance))
            }
            Self::DescriptorSlot(slot) => {
                let (function, argument) = (word(Ok(slot))?, word(Ok(behind(slot)?))?);
                if function == 0 || argument == 0 {
                    return None;
                }
                if argument.cast_signed() < 0 {
                    return Some(ThreadLocalPlace::Distance(argument.cast_signed()));
                }
                of_module(word(Err(argument))?, word(Err(argument.checked_add(8)?))?)
            }
            Self::ModuleSlot { slot, offset } => of_module(word(Ok(slot))?, offset),
        }
    }
}

/// Number and value of a thread-local symbol that is defined here.
fn find_symbol(symbols: &[u8], texts: &[u8], name: &str) -> Option<(u32, u64)> {
    // Nearly no object has it: its texts tell that at once.
    let wanted = [&[0], name.as_bytes(), &[0]].concat();
    let at = texts.windows(wanted.len()).position(|window| window == wanted)? + 1;
    let at = u32::try_from(at).ok()?;
    let (number, symbol) = (0_u32..).zip(symbols.chunks_exact(SYMBOL_BYTES)).find(|(_, symbol)| {
        u32_at(symbol, 0) == Some(at)
            && symbol.get(4).is_some_and(|info| info & 0xf == STT_TLS)
            && u16_at(symbol, 6).is_some_and(|section| section != 0)
    })?;
    Some((number, u64_at(symbol, 8)?))
}

/// Bytes from an executable's block of thread-local variables to the thread pointer; `None` for a library, whose
/// place the loader chooses. A library that has no relocation for a variable of its own reaches it by another
/// one's: that is not followed.
fn block_of_executable(object: &ObjectFile) -> Result<Option<u64>, ObjectError> {
    const PT_INTERP: u32 = 3;
    const ET_EXEC: u16 = 2;
    let header = object.read_file(FileOffset(0), HEADER_BYTES)?;
    let (Some(kind), Some(table), Some(count)) =
        (u16_at(&header, 16), u64_at(&header, 32), u16_at(&header, 56))
    else {
        return Ok(None);
    };
    let bytes = u64::from(count) * PROGRAM_HEADER_BYTES as u64;
    let table = object.read_file(FileOffset(table), bytes)?;
    let mut is_executable = kind == ET_EXEC;
    let mut block = None;
    for header in table.chunks_exact(PROGRAM_HEADER_BYTES) {
        match u32_at(header, 0) {
            Some(PT_INTERP) => is_executable = true,
            Some(PT_TLS) => block = u64_at(header, 40).zip(u64_at(header, 48)),
            _ => {}
        }
    }
    Ok(block
        .filter(|&(_, alignment)| is_executable && alignment <= MAX_ALIGNMENT)
        .and_then(|(bytes, alignment)| bytes.checked_next_multiple_of(alignment.max(1))))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    const NAME: &str = "otel_thread_ctx_v1";
    const SOURCE: &str = "extern __thread void *otel_thread_ctx_v1;\n\
        __attribute__((visibility(\"default\"))) __thread void *otel_thread_ctx_v1;\n\
        __thread char before[24];\n\
        void set(void *to) { otel_thread_ctx_v1 = to; before[3] = 1; }\n\
        int main(void) { set(0); return 0; }\n";

    fn build(name: &str, arguments: &[&str]) -> Option<ObjectFile> {
        let folder = std::env::temp_dir().join(format!("spanflame-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (source, output): (PathBuf, PathBuf) = (folder.join("a.c"), folder.join("a.out"));
        std::fs::write(&source, SOURCE).expect("written");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-o"]).arg(&output).args(arguments).arg(&source);
        let is_built = compiler.status().is_ok_and(|status| status.success());
        let bytes = is_built.then(|| std::fs::read(&output).expect("readable"));
        let _ = std::fs::remove_dir_all(&folder);
        Some(ObjectFile::from_bytes(bytes?, &output).expect("an object"))
    }

    #[test]
    fn each_way_to_a_variable_is_found() {
        type IsRight = fn(&ThreadLocal) -> bool;
        let ways: [(&str, &[&str], IsRight); 4] = [
            (
                "executable",
                &["-rdynamic", "-pie", "-fpie"],
                |found| matches!(found, ThreadLocal::Distance(distance) if (-64..0).contains(distance)),
            ),
            ("general", &["-shared", "-fPIC", "-mtls-dialect=gnu"], |found| {
                matches!(found, ThreadLocal::ModuleSlot { .. })
            }),
            ("descriptor", &["-shared", "-fPIC", "-mtls-dialect=gnu2"], |found| {
                matches!(found, ThreadLocal::DescriptorSlot(_))
            }),
            ("initial", &["-shared", "-fPIC", "-ftls-model=initial-exec"], |found| {
                matches!(found, ThreadLocal::DistanceSlot(_))
            }),
        ];
        for (name, arguments, is_right) in ways {
            let Some(object) = build(name, arguments) else {
                eprintln!("skipped: no C compiler for {name}");
                continue;
            };
            let found = ThreadLocal::find(&object, NAME).expect("readable").expect("exported");
            assert!(is_right(&found), "{name}: {found:?}");
            assert_eq!(ThreadLocal::find(&object, "otel_thread_ctx").expect("readable"), None);
            assert_eq!(ThreadLocal::find(&object, "set").expect("readable"), None, "a function");
        }
    }

    #[test]
    fn a_slot_counts_once_it_is_filled_in() {
        let slot = ElfAddress(0x4000);
        let memory = |words: &'static [(u64, u64)]| {
            move |at: Result<ElfAddress, u64>| {
                let address = at.map_or_else(|address| address, |ElfAddress(address)| address + 0x10_0000);
                words.iter().find(|(known, _)| *known == address).map(|&(_, word)| word)
            }
        };
        let descriptor = ThreadLocal::DescriptorSlot(slot);
        let distance = ThreadLocalPlace::Distance(-0x40);
        let module = ThreadLocalPlace::Module { module: 3, offset: 0x18 };
        let near = (-0x40_i64).cast_unsigned();
        assert_eq!(ThreadLocal::DistanceSlot(slot).place(&memory(&[(0x10_4000, 0)])), None);
        assert_eq!(ThreadLocal::Distance(-0x40).place(&memory(&[])), Some(distance));
        let words: &'static [(u64, u64)] = Box::leak(Box::new([(0x10_4000, 7), (0x10_4008, near)]));
        assert_eq!(descriptor.place(&memory(words)), Some(distance));
        assert_eq!(descriptor.place(&memory(&[(0x10_4000, 0), (0x10_4008, 9)])), None);
        let words = &[(0x10_4000, 7), (0x10_4008, 0x900), (0x900, 3), (0x908, 0x18)];
        assert_eq!(descriptor.place(&memory(words)), Some(module));
        assert_eq!(descriptor.place(&memory(&[(0x10_4000, 7), (0x10_4008, 0x900)])), None);
        let of_module = ThreadLocal::ModuleSlot { slot, offset: 0x18 };
        assert_eq!(of_module.place(&memory(&[(0x10_4000, 3)])), Some(module));
        assert_eq!(of_module.place(&memory(&[(0x10_4000, 0)])), None);
    }

    #[test]
    fn damaged_symbols_and_texts_are_none() {
        assert_eq!(find_symbol(&[0; 47], b"\0a\0", "a"), None);
        assert_eq!(find_symbol(&[], b"\0a\0", "a"), None);
        assert_eq!(find_symbol(&[0xff; 240], b"a", "a"), None);
        let mut symbol = vec![0; 24];
        symbol.extend([1, 0, 0, 0, 0x16, 0, 5, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(find_symbol(&symbol, b"\0a\0", "a"), Some((1, 0x18)));
        symbol[24 + 6] = 0;
        assert_eq!(find_symbol(&symbol, b"\0a\0", "a"), None, "defined elsewhere");
    }
}
