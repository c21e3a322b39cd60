//! Symbols of an object by name, whatever their type, with what stands at them in the file.

use std::collections::HashMap;

use super::builtins::Search;
use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::object_file::SectionHeader;
use crate::{ElfAddress, ObjectError, ObjectFile};

const SYMBOL_BYTES: usize = 24;
const SYMBOLS_WINDOW_BYTES: u64 = 24 * 8192;
/// Of Node 24 they have 12 MB and 3.5 MB.
const MAX_NAMES_BYTES: u64 = 64 << 20;
const MAX_SYMBOLS_BYTES: u64 = 24 << 20;
const SHN_UNDEF: u16 = 0;

/// Calls back with the name, address and size of each symbol that an object defines: `.dynsym` first, then
/// `.symtab`.
///
/// # Errors
/// [`ObjectError`] if a table of the object cannot be read.
pub(super) fn for_each(
    object: &ObjectFile,
    mut on_symbol: impl FnMut(&[u8], ElfAddress, u64),
) -> Result<(), ObjectError> {
    for (symbols, strings) in [(".dynsym", ".dynstr"), (".symtab", ".strtab")] {
        let (Some(symbols), Some(strings)) = (stored(object, symbols), stored(object, strings)) else {
            continue;
        };
        if strings.bytes > MAX_NAMES_BYTES || symbols.bytes > MAX_SYMBOLS_BYTES {
            continue;
        }
        let names = object.read_file(strings.offset, strings.bytes)?;
        let mut begin = 0;
        while begin < symbols.bytes {
            let bytes = (symbols.bytes - begin).min(SYMBOLS_WINDOW_BYTES);
            let Some(offset) = symbols.offset.checked_add(begin) else { break };
            for symbol in object.read_file(offset, bytes)?.chunks_exact(SYMBOL_BYTES) {
                // st_name, st_info, st_other, st_shndx, st_value, st_size.
                let (Some(name), Some(section), Some(value), Some(size)) =
                    (u32_at(symbol, 0), u16_at(symbol, 6), u64_at(symbol, 8), u64_at(symbol, 16))
                else {
                    continue;
                };
                let name = usize::try_from(name).ok().and_then(|begin| names.get(begin..));
                let name = name.and_then(|rest| rest.split(|byte| *byte == 0).next());
                if let (Some(name), true) = (name, section != SHN_UNDEF) {
                    on_symbol(name, ElfAddress(value), size);
                }
            }
            begin += SYMBOLS_WINDOW_BYTES;
        }
    }
    Ok(())
}

fn stored(object: &ObjectFile, name: &str) -> Option<SectionHeader> {
    const SHF_COMPRESSED: u64 = 0x800;
    let header = object.section_header(name)?;
    (header.has_contents() && header.flags & SHF_COMPRESSED == 0).then_some(*header)
}

/// What an object has for debuggers, and what else of its symbols is asked for.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// V8's constants: names without `v8dbg_` → numbers. Its version too, as `major_E` and so on.
    pub constants: HashMap<String, i32>,
    /// Sizes of bytecodes: an array of a byte for each bytecode, for operands of three widths.
    pub bytecode_sizes: Vec<u8>,
    /// Node's own: where it has its versions as text.
    pub metadata: Option<ElfAddress>,
    /// Where the builtins are.
    pub builtins: Search,
}

/// Reads it.
///
/// # Errors
/// [`ObjectError`] if a table of the object cannot be read.
pub(super) fn told(object: &ObjectFile) -> Result<Told, ObjectError> {
    const MAX_CONSTANTS: usize = 4096;
    let mut places: HashMap<String, ElfAddress> = HashMap::new();
    let mut told = Told::default();
    let mut sizes = None;
    for_each(object, |name, address, size| {
        told.builtins.take(name, address);
        let name = match name {
            b"_ZN2v88internal11interpreter9Bytecodes14kBytecodeSizesE" => {
                sizes = Some((address, size));
                return;
            }
            b"_ZN4node11per_process8metadataE" => {
                told.metadata = Some(address);
                return;
            }
            _ => name.strip_prefix(b"v8dbg_").or_else(|| name.strip_prefix(b"_ZN2v88internal7Version6")),
        };
        if let Some(Ok(name)) = name.map(std::str::from_utf8)
            && places.len() < MAX_CONSTANTS
        {
            places.entry(name.to_owned()).or_insert(address);
        }
    })?;
    let values = places.into_iter().map(|(name, address)| {
        // What is zero has no bytes in the file.
        let bytes = object.read_loaded(address, 4).unwrap_or_default();
        (name, u32_at(&bytes, 0).unwrap_or(0) as i32)
    });
    told.constants = values.collect();
    if let Some((address, size)) = sizes.filter(|(_, size)| *size > 0 && *size % 3 == 0 && *size <= 3 * 256) {
        told.bytecode_sizes = object.read_loaded(address, size).unwrap_or_default();
    }
    Ok(told)
}
