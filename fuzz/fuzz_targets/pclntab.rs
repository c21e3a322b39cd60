//! A Go executable around any pclntab: the ELF file and the module data are made to fit it, so that
//! the fuzzer need not find out where pointers lead.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_symbols::go::{GoSymbols, unwind_rows};
use spanflame_symbols::{ElfAddress, ObjectFile};

const TEXT: u64 = 0x40_1000;
const TABLE: u64 = 0x50_0000;
const MODULE_DATA: u64 = 0x60_0000;

/// First byte: bit 0, whether the module data are in relocations only. Second: bytes of text. Third:
/// bytes of function data. Then these two, and the pclntab.
struct Input<'a> {
    text: &'a [u8],
    function_data: &'a [u8],
    in_relocations: bool,
    table: &'a [u8],
}

impl<'a> Input<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<3>()?;
        let (text, rest) = rest.split_at_checked(usize::from(head[1]))?;
        let (function_data, table) = rest.split_at_checked(usize::from(head[2]))?;
        Some(Self { text, function_data, in_relocations: head[0] & 1 != 0, table })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(input) = Input::of(bytes) else { return };
    let (module_data, relocations) = module_data(&input);
    let data = [module_data, relocations, input.function_data.to_vec()].concat();
    let bytes = elf(&[(TEXT, 5, input.text), (TABLE, 4, input.table), (MODULE_DATA, 6, &data)]);
    let object = ObjectFile::from_bytes(bytes, "fuzz".as_ref()).expect("an ELF file");
    let mut rows = vec![];
    let unwound = unwind_rows(&object, &mut rows);
    assert!(rows.is_sorted_by_key(|row| row.address));
    let Ok(Some(symbols)) = GoSymbols::read(&object) else { return };
    assert!(unwound.is_ok());
    for offset in 0..256 {
        if let Some(frames) = symbols.symbolize(ElfAddress(TEXT + offset)) {
            assert!(!frames.is_empty() && frames.iter().all(|frame| !frame.name.is_empty()));
        }
    }
});

/// A module data for the pclntab, as it would be with or without relocations.
fn module_data(input: &Input<'_>) -> (Vec<u8>, Vec<u8>) {
    let word = |at: usize| {
        let bytes = input.table.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let offset = |index: usize| word(8 + 8 * index).unwrap_or(0);
    let entry = |index: u64| {
        let at = offset(7).saturating_add(index.saturating_mul(8));
        let bytes = usize::try_from(at).ok().and_then(|at| input.table.get(at..at.checked_add(4)?));
        bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
    };
    let mut words = [0_u64; 48];
    words[0] = TABLE;
    for part in 0..5 {
        words[1 + 3 * part] = TABLE.wrapping_add(offset(3 + part));
    }
    let (first, end) = (TEXT + entry(0), TEXT + entry(offset(0)));
    (words[20], words[21], words[22], words[23]) = (first, end, TEXT, end);
    let triples = if input.in_relocations { 48 } else { 0 };
    let function_data = MODULE_DATA + 8 * 48 + 24 * triples;
    words[38] = function_data;
    words[40] = function_data;
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    if !input.in_relocations {
        return (bytes(&words), vec![]);
    }
    let triple = |(index, value): (usize, &u64)| [MODULE_DATA + 8 * index as u64, 8, *value];
    let relocations: Vec<u64> = words.iter().enumerate().flat_map(triple).collect();
    (vec![0; 8 * 48], bytes(&relocations))
}

/// An ELF file with segments of these addresses, flags and contents, and no sections.
fn elf(segments: &[(u64, u32, &[u8])]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([0_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, segments.len() as u16, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    let mut offset = 64 + 56 * segments.len() as u64;
    for (address, flags, contents) in segments {
        let bytes = contents.len() as u64;
        file.extend([1_u32, *flags].iter().flat_map(|half| half.to_le_bytes()));
        file.extend([offset, *address, *address, bytes, bytes, 8].iter().flat_map(|word| word.to_le_bytes()));
        offset += bytes;
    }
    for (_, _, contents) in segments {
        file.extend(*contents);
    }
    file
}
