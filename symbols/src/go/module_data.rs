//! The module data: the struct that tells the runtime where the parts of its executable are.
//!
//! `runtime.moduledata` has no symbol in a stripped executable and no length, but it begins with
//! pointers that are known: to the pclntab's header, and slices of its parts.
//!
//! ```text
//!   0  *pcHeader
//!   8  names, 32 units, 56 files, 80 pc tables, 104 functions: {pointer, length, capacity} each
//! 128  function table {pointer, length, capacity}
//! 152  findfunctab, 160 minpc, 168 maxpc, 176 text, 184 etext, then pointers to data and to
//!      function data ("gofunc"): at 304 in Go 1.18 and 1.19, at 320 in Go 1.20 to 1.26
//! ```
//!
//! In a position-independent executable these words are filled in by the dynamic loader. Go's own
//! linker also leaves them in the file; the system's linker leaves zeros there and the values only in
//! the relocations, triples {address, type, value} sorted by address: the pointer to the pclntab is
//! then found as a triple's value, and the other words in the triples that follow.

use super::pclntab::{Header, Pclntab, Version};
use super::scan;
use crate::little_endian::u64_at;
use crate::{ElfAddress, ObjectError, ObjectFile};

/// Bytes that are read of a module data.
const MODULE_DATA_BYTES: u64 = 0x180;
/// Places that may be looked at, should many words equal the pclntab's address.
const MAX_CANDIDATES: usize = 64;
/// `R_X86_64_RELATIVE` and `R_AARCH64_RELATIVE`: the value is the triple's, plus the load bias.
const RELATIVE_RELOCATIONS: [u64; 2] = [8, 1027];

const MIN_PC: u64 = 160;
const MAX_PC: u64 = 168;
const TEXT: u64 = 176;
const END_OF_TEXT: u64 = 184;
/// Where a pointer to the function data may be, as versions insert words before it.
const FUNCTION_DATA_RANGE: std::ops::Range<u64> = 192..MODULE_DATA_BYTES;

/// What the module data says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModuleData {
    /// Where the text begins.
    pub text: ElfAddress,
    /// Where the function data may begin, most likely first.
    pub function_data_candidates: Vec<ElfAddress>,
}

/// Looks for the module data of a pclntab.
///
/// # Errors
/// [`ObjectError::Io`].
pub(super) fn find(object: &ObjectFile, table: &Pclntab) -> Result<Option<ModuleData>, ObjectError> {
    let mut candidates = 0;
    // Writable data are last as a rule, and the module data are in them.
    let data = object.segments().iter().rev().filter(|segment| !segment.executable);
    let found = scan::segments(object, data, 0, |begin, window| {
        for (index, word) in window.chunks_exact(8).enumerate() {
            if u64_at(word, 0) != Some(table.address.0) {
                continue;
            }
            candidates += 1;
            if candidates > MAX_CANDIDATES {
                return Ok(Some(None));
            }
            let Some(place) = begin.checked_add(8 * index as u64) else { break };
            for words in [Words::in_place(object, place), Words::in_relocations(object, place)] {
                if let Some(module_data) = words.and_then(|words| check(table, &words)) {
                    return Ok(Some(Some(module_data)));
                }
            }
        }
        Ok(None)
    })?;
    Ok(found.flatten())
}

/// The words of a place that may be a module data.
struct Words {
    words: Vec<Option<u64>>,
}

impl Words {
    fn in_place(object: &ObjectFile, place: ElfAddress) -> Option<Self> {
        let bytes = object.read_loaded(place, MODULE_DATA_BYTES).ok()?;
        Some(Self { words: bytes.chunks_exact(8).map(|word| u64_at(word, 0)).collect() })
    }

    /// `place` is that of a relocation's value. The words that are not relocated (lengths) are those
    /// in the file.
    fn in_relocations(object: &ObjectFile, place: ElfAddress) -> Option<Self> {
        let triples = ElfAddress(place.0.checked_sub(16)?);
        let triples = object.read_loaded(triples, 24 * (MODULE_DATA_BYTES / 8)).ok()?;
        let begin = ElfAddress(u64_at(&triples, 0)?);
        let mut words = Self::in_place(object, begin)?;
        for triple in triples.chunks_exact(24) {
            let (address, kind, value) = (u64_at(triple, 0)?, u64_at(triple, 8)?, u64_at(triple, 16)?);
            if !RELATIVE_RELOCATIONS.contains(&kind) {
                break;
            }
            let index =
                ElfAddress(address).checked_sub(begin).and_then(|offset| usize::try_from(offset / 8).ok());
            if let Some(word) = index.and_then(|index| words.words.get_mut(index)) {
                *word = Some(value);
            }
        }
        Some(words)
    }

    fn at(&self, offset: u64) -> Option<u64> {
        *self.words.get(usize::try_from(offset / 8).ok()?)?
    }
}

/// Takes the words as a module data if everything in them that is known otherwise agrees.
fn check(table: &Pclntab, words: &Words) -> Option<ModuleData> {
    if words.at(0)? != table.address.0 {
        return None;
    }
    let parts = Header::part_offsets(&table.header);
    for (index, part) in parts.iter().enumerate() {
        let expected = table.address.checked_add(*part as u64)?;
        if words.at(8 + 24 * index as u64)? != expected.0 {
            return None;
        }
    }
    let text = ElfAddress(words.at(TEXT)?);
    let first = text.checked_add(u64::from(table.entry(0)?))?;
    let end = text.checked_add(u64::from(table.entry(table.functions())?))?;
    if words.at(MIN_PC)? != first.0 || words.at(MAX_PC)? != end.0 || words.at(END_OF_TEXT)? < end.0 {
        return None;
    }
    let expected = match table.header.version {
        Version::Go118 => 304,
        Version::Go120 => 320,
    };
    let mut function_data_candidates = vec![];
    for offset in std::iter::once(expected).chain(FUNCTION_DATA_RANGE.step_by(8)) {
        if let Some(address) = words.at(offset).filter(|address| *address != 0).map(ElfAddress)
            && !function_data_candidates.contains(&address)
        {
            function_data_candidates.push(address);
        }
    }
    Some(ModuleData { text, function_data_candidates })
}
