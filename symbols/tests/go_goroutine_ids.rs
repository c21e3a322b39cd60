//! Where the runtime counts goroutine ids, in executables with symbols and without, against `go tool nm`.

mod go_programs;

use std::path::Path;

use go_programs::{Mode, Toolchain, build, object_of, toolchains};
use spanflame_symbols::go::GoRequestCode;
use spanflame_symbols::{ElfAddress, ObjectFile};

/// `runtime.sched`, whose first word it is.
fn by_nm(toolchain: Toolchain, program: &Path) -> ElfAddress {
    let output = toolchain.go().args(["tool", "nm"]).arg(program).output().expect("go was there before");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let address = lines.find_map(|line| match line[..] {
        [address, _, "runtime.sched"] => u64::from_str_radix(address, 16).ok(),
        _ => None,
    });
    ElfAddress(address.expect("runtime.sched"))
}

fn goroutine_ids(object: &ObjectFile) -> Option<ElfAddress> {
    GoRequestCode::read(object).expect("readable").expect("a Go executable").goroutine_ids
}

/// The same without section headers, and so without a symbol table.
fn without_symbols(program: &Path) -> ObjectFile {
    let mut bytes = std::fs::read(program).expect("readable");
    bytes[0x28..0x30].fill(0); // e_shoff
    bytes[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
    ObjectFile::from_bytes(bytes, program).expect("an ELF file")
}

#[test]
fn goroutine_ids_are_counted_at_the_same_place_whether_symbols_say_so_or_code() {
    for toolchain in toolchains() {
        for mode in [Mode::Plain, Mode::Pie, Mode::Cgo] {
            let Some(program) = build(toolchain, mode) else { continue };
            let expected = Some(by_nm(toolchain, &program.path));
            assert_eq!(goroutine_ids(&object_of(&program.path)), expected, "{program}");
            assert_eq!(goroutine_ids(&without_symbols(&program.path)), expected, "{program} without symbols");
        }
    }
}

#[test]
fn a_stripped_executable_says_where_goroutine_ids_are_counted() {
    for toolchain in toolchains() {
        for mode in [Mode::Stripped, Mode::CgoPieStripped] {
            let Some(program) = build(toolchain, mode) else { continue };
            let object = object_of(&program.path);
            assert!(object.section_header(".symtab").is_none(), "{program}");
            let found = goroutine_ids(&object).unwrap_or_else(|| panic!("{program}: unknown"));
            // A variable that begins as zero and has no pointers to it in the file is there, in all releases.
            let variables = object.section_header(".bss").expect("a section of variables");
            let offset = found.checked_sub(variables.address);
            assert!(offset.is_some_and(|offset| offset < variables.bytes), "{program}: {found}");
        }
    }
}

#[test]
fn without_inlined_calls_the_symbols_say_it_or_nobody() {
    let Some(toolchain) = toolchains().pop() else { return };
    let Some(program) = build(toolchain, Mode::NotInlined) else { return };
    let expected = by_nm(toolchain, &program.path);
    assert_eq!(goroutine_ids(&object_of(&program.path)), Some(expected));
    assert_eq!(goroutine_ids(&without_symbols(&program.path)), None);
}
