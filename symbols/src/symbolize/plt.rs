//! Stubs of the procedure linkage table → `function@plt`.
//!
//! A stub jumps through a slot of the GOT (`ff 25 disp32`, maybe after `endbr64` and with a `bnd` prefix)
//! and a relocation of `.rela.plt` or `.rela.dyn` says which function's address the loader puts there;
//! where the jump stands in `.plt.sec`, the lazy part in `.plt` pushes the relocation's number instead
//! (`68 imm32`). System V ABI, AMD64 supplement, "Procedure Linkage Table".
//!
//! Known gaps: x86-64 only; the first stub of `.plt`, which calls the loader, has no name.

use std::collections::HashMap;

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::object_file::Machine;
use crate::{ObjectError, ObjectFile};

const RELOCATION_BYTES: usize = 24;
const SYMBOL_BYTES: usize = 24;
const R_X86_64_GLOB_DAT: u32 = 6;
const R_X86_64_JUMP_SLOT: u32 = 7;
const MAX_STUBS: usize = 1 << 20;
const MAX_NAME_BYTES: usize = 32 << 10;

/// Stubs of one object, sorted by address.
#[derive(Debug, Default)]
pub struct PltStubs {
    stubs: Vec<Stub>,
}

#[derive(Debug)]
struct Stub {
    begin: u64,
    end: u64,
    function: Box<str>,
}

impl PltStubs {
    /// Reads the stubs of an object.
    ///
    /// # Errors
    /// [`ObjectError`] if a section cannot be read.
    pub fn read(object: &ObjectFile) -> Result<Self, ObjectError> {
        if object.machine() != Machine::X86_64 {
            return Ok(Self::default());
        }
        let read = |name: &str| object.section(name);
        let (Some(symbols), Some(names)) = (read(".dynsym")?, read(".dynstr")?) else {
            return Ok(Self::default());
        };
        let by_number = relocations(&read(".rela.plt")?.map_or_else(Vec::new, |section| section.data));
        let other = relocations(&read(".rela.dyn")?.map_or_else(Vec::new, |section| section.data));
        let by_slot: HashMap<u64, u32> =
            other.iter().chain(&by_number).filter_map(|relocation| *relocation).collect();
        let mut stubs = Vec::new();
        for (section, stub_bytes) in [(".plt", 16), (".plt.sec", 16), (".plt.got", 8)] {
            let Some(plt) = read(section)? else { continue };
            // With IBT the stubs of .plt.got have 16 bytes.
            let stub_bytes = if plt.data.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 16 } else { stub_bytes };
            for (index, stub) in plt.data.chunks_exact(stub_bytes).enumerate().take(MAX_STUBS) {
                let begin = plt.address.0.wrapping_add((index * stub_bytes) as u64);
                let is_loader_call = section == ".plt" && index == 0;
                let symbol = slot_of(stub, begin)
                    .and_then(|slot| by_slot.get(&slot).copied())
                    .or_else(|| pushed_number(stub).and_then(|number| by_number.get(number)?.map(|(_, s)| s)))
                    .filter(|_| !is_loader_call);
                let Some(function) = symbol.and_then(|symbol| name_of(symbol, &symbols.data, &names.data))
                else {
                    continue;
                };
                stubs.push(Stub { begin, end: begin.saturating_add(stub_bytes as u64), function });
            }
        }
        stubs.sort_by_key(|stub| stub.begin);
        Ok(Self { stubs })
    }

    /// The function that the stub at an ELF address leads to.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&str> {
        let after = self.stubs.partition_point(|stub| stub.begin <= address);
        let stub = self.stubs.get(after.checked_sub(1)?)?;
        (address < stub.end).then_some(&*stub.function)
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.stubs.iter().map(|stub| size_of::<Stub>() + stub.function.len()).sum()
    }
}

/// Slot and symbol of each `Elf64_Rela`; `None` for kinds that no stub uses, so that numbers stay right.
fn relocations(bytes: &[u8]) -> Vec<Option<(u64, u32)>> {
    let decode = |relocation: &[u8]| {
        let kind = u32_at(relocation, 8)?;
        let symbol = u32_at(relocation, 12)?;
        matches!(kind, R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT).then_some((u64_at(relocation, 0)?, symbol))
    };
    bytes.chunks_exact(RELOCATION_BYTES).map(decode).collect()
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

fn name_of(symbol: u32, symbols: &[u8], names: &[u8]) -> Option<Box<str>> {
    let entry = usize::try_from(symbol).ok()?.checked_mul(SYMBOL_BYTES)?;
    // The null symbol stands for a function that has no name (`IRELATIVE`).
    if entry == 0 || u16_at(symbols, entry + 6).is_none() {
        return None;
    }
    let name = names.get(usize::try_from(u32_at(symbols, entry)?).ok()?..)?;
    let name = name.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())?;
    Some(String::from_utf8_lossy(name.get(..MAX_NAME_BYTES).unwrap_or(name)).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            let _ = (slot_of(&bytes, u64::MAX), pushed_number(&bytes), relocations(&bytes));
            let _ = name_of(number, &bytes, &bytes);
        }
    }
}
