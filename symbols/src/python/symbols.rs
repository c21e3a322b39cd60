//! Symbols of an object by their names, of whatever kind: functions and data.
//!
//! Format: System V gABI, chapter 4, "Symbol Table". `.symtab` is looked into as well, since an interpreter that is
//! linked into a program need not export anything.

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::{ElfAddress, ObjectFile};

const SYMBOL_BYTES: usize = 24;
const SHN_UNDEF: u16 = 0;
const SHF_COMPRESSED: u64 = 0x800;
/// Larger tables are not looked through: the objects of an interpreter have tenths of that.
const MAX_NAMES_BYTES: u64 = 64 << 20;
const MAX_SYMBOLS_BYTES: u64 = 128 << 20;

/// A symbol that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundSymbol {
    /// Which of the names: its index.
    pub name: usize,
    pub address: ElfAddress,
    pub bytes: u64,
}

/// The symbols of these names that are defined here. If the first name is not among those of a table, the table is
/// not looked at: it marks the objects that are of interest.
pub(super) fn find(object: &ObjectFile, names: &[&str]) -> Vec<FoundSymbol> {
    let mut found: Vec<FoundSymbol> = Vec::new();
    for (symbols, strings) in [(".dynsym", ".dynstr"), (".symtab", ".strtab")] {
        let contents = |name: &str, max_bytes: u64| {
            let header = object.section_header(name)?;
            let is_usable =
                header.has_contents() && header.flags & SHF_COMPRESSED == 0 && header.bytes <= max_bytes;
            is_usable.then(|| object.read_section(header).ok()).flatten().map(|section| section.data)
        };
        let Some(strings) = contents(strings, MAX_NAMES_BYTES) else { continue };
        if names.first().is_none_or(|marker| !has_name(&strings, marker)) {
            continue;
        }
        let Some(symbols) = contents(symbols, MAX_SYMBOLS_BYTES) else { continue };
        for symbol in symbols.chunks_exact(SYMBOL_BYTES) {
            // st_name, st_info, st_other, st_shndx, st_value, st_size.
            let (Some(name), Some(section), Some(address), Some(bytes)) =
                (u32_at(symbol, 0), u16_at(symbol, 6), u64_at(symbol, 8), u64_at(symbol, 16))
            else {
                continue;
            };
            let text = usize::try_from(name).ok().and_then(|at| strings.get(at..)).unwrap_or_default();
            let is_called = |name: &&str| {
                text.starts_with(name.as_bytes()) && matches!(text.get(name.len()), None | Some(0))
            };
            let Some(name) = names.iter().position(is_called).filter(|_| section != SHN_UNDEF) else {
                continue;
            };
            let symbol = FoundSymbol { name, address: ElfAddress(address), bytes };
            if !found.contains(&symbol) {
                found.push(symbol);
            }
        }
    }
    found
}

fn has_name(strings: &[u8], name: &str) -> bool {
    let wanted = [&[0], name.as_bytes(), &[0]].concat();
    strings.windows(wanted.len()).any(|window| window.first() == Some(&0) && window == wanted.as_slice())
}
