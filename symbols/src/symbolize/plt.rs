//! Stubs of the procedure linkage table → `function@plt`.
//!
//! A stub jumps through a slot of the GOT (`ff 25 disp32`, maybe after `endbr64` and with a `bnd` prefix)
//! and a relocation of `.rela.plt` or `.rela.dyn` says which function's address the loader puts there;
//! where the jump stands in `.plt.sec`, the lazy part in `.plt` pushes the relocation's number instead
//! (`68 imm32`). System V ABI, AMD64 supplement, "Procedure Linkage Table".
//!
//! Nothing is held: the tables of large objects have megabytes, and few stubs are ever sampled. A batch
//! of addresses walks once through the relocations.
//!
//! Known gaps: x86-64 only; the first stub of `.plt`, which calls the loader, has no name.

use std::collections::HashMap;

use crate::little_endian::{u32_at, u64_at};
use crate::object_file::{Machine, SectionHeader};
use crate::paged_bytes::PageSource;
use crate::{ObjectError, ObjectFile};

const RELOCATION_BYTES: usize = 24;
const SYMBOL_BYTES: usize = 24;
const R_X86_64_GLOB_DAT: u32 = 6;
const R_X86_64_JUMP_SLOT: u32 = 7;
const MAX_STUB_BYTES: u64 = 16;
const MAX_NAME_BYTES: usize = 32 << 10;
/// Relocations that are read together.
const CHUNK_RELOCATIONS: usize = 1024;
/// Most of a compressed section, decompressed.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;

/// What a stub says about the function it leads to, and which symbol relocations say that is.
#[derive(Debug, Default)]
struct Stub {
    slot: Option<u64>,
    number: Option<usize>,
    symbol_of_slot: Option<u32>,
    symbol_of_number: Option<u32>,
}

/// The functions to which the stubs at addresses lead.
///
/// # Errors
/// [`ObjectError`] if a section cannot be read.
pub fn functions(object: &ObjectFile, addresses: &[u64]) -> Result<Vec<Option<String>>, ObjectError> {
    let mut functions = vec![None; addresses.len()];
    if object.machine() != Machine::X86_64 {
        return Ok(functions);
    }
    let mut stubs: Vec<(usize, Stub)> = Vec::new();
    for (index, &address) in addresses.iter().enumerate() {
        stubs.extend(stub_at(object, address)?.map(|stub| (index, stub)));
    }
    if stubs.is_empty() {
        return Ok(functions);
    }
    let mut by_slot: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut by_number: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, (_, stub)) in stubs.iter().enumerate() {
        if let Some(slot) = stub.slot {
            by_slot.entry(slot).or_default().push(index);
        }
        if let Some(number) = stub.number {
            by_number.entry(number).or_default().push(index);
        }
    }
    for section in [".rela.dyn", ".rela.plt"] {
        walk_relocations(object, section, |number, slot, symbol| {
            for index in by_slot.get(&slot).into_iter().flatten() {
                if let Some((_, stub)) = stubs.get_mut(*index) {
                    stub.symbol_of_slot = Some(symbol);
                }
            }
            let indices = by_number.get(&number).filter(|_| section == ".rela.plt");
            for index in indices.into_iter().flatten() {
                if let Some((_, stub)) = stubs.get_mut(*index) {
                    stub.symbol_of_number = Some(symbol);
                }
            }
        })?;
    }
    let (Some(symbols), Some(names)) = (source(object, ".dynsym")?, source(object, ".dynstr")?) else {
        return Ok(functions);
    };
    for (index, stub) in stubs {
        let symbol = stub.symbol_of_slot.or(stub.symbol_of_number);
        if let Some(function) = functions.get_mut(index) {
            *function = symbol.and_then(|symbol| name_of(symbol, &symbols, &names));
        }
    }
    Ok(functions)
}

fn source(object: &ObjectFile, name: &str) -> Result<Option<PageSource>, ObjectError> {
    let header = object.section_header(name).filter(|header| header.has_contents());
    header.map(|header| PageSource::of_section(object, header, MAX_UNPACKED_BYTES)).transpose()
}

/// What the stub around an address says; `None` if there is no stub, or the one that calls the loader.
fn stub_at(object: &ObjectFile, address: u64) -> Result<Option<Stub>, ObjectError> {
    for (name, stub_bytes) in [(".plt", 16), (".plt.sec", 16), (".plt.got", 8)] {
        let holds = |header: &&SectionHeader| {
            header.has_contents() && address.checked_sub(header.address.0).is_some_and(|at| at < header.bytes)
        };
        let Some(header) = object.section_header(name).filter(holds) else { continue };
        let Some(section) = source(object, name)? else { continue };
        let read = |position: u64, bytes: u64| {
            let mut data = vec![0; usize::try_from(bytes).ok()?];
            section.read_exact_at(&mut data, usize::try_from(position).ok()?).ok().map(|()| data)
        };
        // With IBT the stubs of .plt.got have 16 bytes.
        let has_ibt = read(0, 4).is_some_and(|first| first == [0xf3, 0x0f, 0x1e, 0xfa]);
        let stub_bytes = if has_ibt { MAX_STUB_BYTES } else { stub_bytes };
        let index = (address - header.address.0) / stub_bytes;
        if name == ".plt" && index == 0 {
            continue;
        }
        let Some(stub) = read(index * stub_bytes, stub_bytes) else { continue };
        let begin = header.address.0.wrapping_add(index * stub_bytes);
        return Ok(Some(Stub {
            slot: slot_of(&stub, begin),
            number: pushed_number(&stub),
            ..Stub::default()
        }));
    }
    Ok(None)
}

/// Hands on number, slot and symbol of each relocation of a kind that stubs use.
fn walk_relocations(
    object: &ObjectFile,
    section: &str,
    mut each: impl FnMut(usize, u64, u32),
) -> Result<(), ObjectError> {
    let Some(source) = source(object, section)? else { return Ok(()) };
    let count = source.len() / RELOCATION_BYTES;
    let mut chunk = Vec::new();
    for first in (0..count).step_by(CHUNK_RELOCATIONS) {
        chunk.resize((count - first).min(CHUNK_RELOCATIONS) * RELOCATION_BYTES, 0);
        let read = source.read_exact_at(&mut chunk, first * RELOCATION_BYTES);
        read.map_err(|source| ObjectError::Io { path: object.path().to_owned(), source })?;
        for (number, relocation) in (first..).zip(chunk.chunks_exact(RELOCATION_BYTES)) {
            if let Some((slot, symbol)) = relocation_of(relocation) {
                each(number, slot, symbol);
            }
        }
    }
    Ok(())
}

/// Slot and symbol of an `Elf64_Rela`; `None` for kinds that no stub uses.
fn relocation_of(relocation: &[u8]) -> Option<(u64, u32)> {
    let kind = u32_at(relocation, 8)?;
    let symbol = u32_at(relocation, 12)?;
    matches!(kind, R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT).then_some((u64_at(relocation, 0)?, symbol))
}

/// The address that `jmp *disp32(%rip)` in the stub reads.
fn slot_of(stub: &[u8], begin: u64) -> Option<u64> {
    let at = [0, 1, 4, 5].into_iter().find(|&at| stub.get(at..at + 2) == Some(&[0xff, 0x25]))?;
    let displacement = u32_at(stub, at + 2)?.cast_signed();
    Some(begin.wrapping_add(at as u64 + 6).wrapping_add_signed(i64::from(displacement)))
}

/// The number that `push imm32` in the stub pushes.
fn pushed_number(stub: &[u8]) -> Option<usize> {
    let at = [0, 4, 6].into_iter().find(|&at| stub.get(at) == Some(&0x68))?;
    usize::try_from(u32_at(stub, at + 1)?).ok()
}

fn name_of(symbol: u32, symbols: &PageSource, names: &PageSource) -> Option<String> {
    let entry = usize::try_from(symbol).ok()?.checked_mul(SYMBOL_BYTES)?;
    let mut raw = [0; SYMBOL_BYTES];
    // The null symbol stands for a function that has no name (`IRELATIVE`).
    if entry == 0 || symbols.read_exact_at(&mut raw, entry).is_err() {
        return None;
    }
    let begin = usize::try_from(u32_at(&raw, 0)?).ok()?;
    let mut name = vec![0; names.len().checked_sub(begin)?.min(MAX_NAME_BYTES)];
    names.read_exact_at(&mut name, begin).ok()?;
    let name = name.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object_file::Contents;

    #[test]
    fn the_slot_is_found_behind_each_prefix() {
        let plain = [0xff, 0x25, 0x10, 0, 0, 0, 0x68, 3, 0, 0, 0, 0xe9, 0, 0, 0, 0];
        assert_eq!(slot_of(&plain, 0x1000), Some(0x1016));
        assert_eq!(pushed_number(&plain), Some(3));
        let ibt = [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0xf0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0];
        assert_eq!(slot_of(&ibt, 0x1000), Some(0xffa));
        let bnd = [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(slot_of(&bnd, 0x1000), Some(0x100b));
        let lazy = [0xf3, 0x0f, 0x1e, 0xfa, 0x68, 9, 0, 0, 0, 0xe9, 0, 0, 0, 0, 0x66, 0x90];
        assert_eq!((slot_of(&lazy, 0), pushed_number(&lazy)), (None, Some(9)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64), number: u32) {
            let _ = (slot_of(&bytes, u64::MAX), pushed_number(&bytes), relocation_of(&bytes));
            let source = PageSource::of_contents(Contents::Memory(bytes.clone()), bytes.len());
            let _ = name_of(number, &source, &source);
        }
    }
}
