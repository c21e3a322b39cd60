//! A Go executable around any pclntab: the ELF file and the module data are made to fit it, so that
//! the fuzzer need not find out where pointers lead.
#![no_main]

mod go_executable;

use go_executable::{MODULE_DATA, TABLE, TEXT, elf, module_data};
use libfuzzer_sys::fuzz_target;
use spanflame_symbols::go::{GoSymbols, unwind_rows};
use spanflame_symbols::{ElfAddress, ObjectFile};

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
    let (module_data, relocations) = module_data(input.table, input.in_relocations);
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
