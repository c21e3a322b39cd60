//! Unwind tables of objects that are stripped of their section table, that have only `.debug_frame`,
//! or that are damaged.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use spanflame_symbols::unwind::layout::{cfa, saved_fp};
use spanflame_symbols::unwind::{UnwindError, UnwindTable, cfi};
use spanflame_symbols::{ElfAddress, ObjectFile};

fn object(bytes: Vec<u8>) -> Option<ObjectFile> {
    ObjectFile::from_bytes(bytes, Path::new("test")).ok()
}

#[test]
fn an_object_without_sections_has_the_same_table() {
    for path in ["/bin/true", "/lib/x86_64-linux-gnu/libc.so.6"] {
        let mut bytes = std::fs::read(path).unwrap();
        let whole = UnwindTable::build(&object(bytes.clone()).unwrap()).unwrap();
        bytes[0x28..0x30].fill(0);
        bytes[0x3c..0x40].fill(0);
        let stripped = object(bytes).unwrap();
        assert!(stripped.section_headers().is_empty());
        assert_eq!(UnwindTable::build(&stripped).unwrap(), whole, "{path}");
    }
}

#[test]
fn an_object_without_any_information_is_told_from_a_damaged_one() {
    let mut bytes = std::fs::read("/bin/true").unwrap();
    let headers = u64::from_le_bytes(bytes[0x20..0x28].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes(bytes[0x38..0x3a].try_into().unwrap()));
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    for index in 0..count {
        let at = headers + index * 56;
        if bytes[at..at + 4] == 0x6474_e550u32.to_le_bytes() {
            bytes[at..at + 4].fill(0);
        }
    }
    let nothing = UnwindTable::build(&object(bytes.clone()).unwrap());
    assert!(matches!(nothing, Err(UnwindError::NoInformation(_))), "{nothing:?}");
    bytes[0x12] = 183;
    let other_machine = UnwindTable::build(&object(bytes).unwrap());
    assert!(matches!(other_machine, Err(UnwindError::UnsupportedMachine(_))), "{other_machine:?}");
}

/// `/bin/true` with sections renamed by objcopy; `None` without objcopy.
fn renamed_sections(renames: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let renamed = folder.path().join("renamed");
    let mut objcopy = Command::new("objcopy");
    for rename in renames {
        objcopy.args(["--rename-section", rename]);
    }
    match objcopy.arg("/bin/true").arg(&renamed).status() {
        Ok(status) => assert!(status.success(), "objcopy refuses {renames:?}"),
        Err(error) => {
            println!("skipped: objcopy: {error}");
            return None;
        }
    }
    Some(std::fs::read(&renamed).unwrap())
}

#[test]
fn a_damaged_table_of_go_costs_only_itself() {
    // Read-only data under the name of Go's table: its first bytes are no header of any version.
    let Some(bytes) = renamed_sections(&[".rodata=.gopclntab"]) else { return };
    let damaged = object(bytes).unwrap();
    assert!(spanflame_symbols::go::unwind_rows(&damaged, &mut Vec::new()).is_err(), "it is damaged");
    let whole = object(std::fs::read("/bin/true").unwrap()).unwrap();
    assert_eq!(UnwindTable::build(&damaged).unwrap(), UnwindTable::build(&whole).unwrap());

    // With nothing else to go by, the damage is what is told. The header of .eh_frame goes as well.
    let Some(mut bytes) = renamed_sections(&[".rodata=.gopclntab", ".eh_frame=.other"]) else { return };
    let headers = u64::from_le_bytes(bytes[0x20..0x28].try_into().unwrap()) as usize;
    for at in (headers..).step_by(56).take(16) {
        if bytes[at..at + 4] == 0x6474_e550u32.to_le_bytes() {
            bytes[at..at + 4].fill(0);
        }
    }
    let nothing_else = UnwindTable::build(&object(bytes).unwrap());
    assert!(matches!(nothing_else, Err(UnwindError::Object(_))), "{nothing_else:?}");
}

#[test]
fn debug_frame_fills_what_eh_frame_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("main.c");
    let program = folder.path().join("main");
    let text = "__attribute__((noinline)) int framed(int n) { volatile int a[64]; a[n & 63] = n; return a[0]; }\n\
                int main(int argc, char **argv) { (void)argv; return framed(argc); }\n";
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new("gcc")
        .args([
            "-O1",
            "-g",
            "-fno-omit-frame-pointer",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
        ])
        .args([source.as_path(), Path::new("-o"), program.as_path()])
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        println!("skipped: gcc is not there");
        return;
    }
    let object = object(std::fs::read(&program).unwrap()).unwrap();
    assert!(object.section(".debug_frame").unwrap().is_some());
    let (table, counts) = UnwindTable::build_with_counts(&object).unwrap();
    assert_eq!(counts.malformed_entries, 0);
    let symbols = Command::new("nm").arg(&program).output().unwrap();
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    let address_of = |name: &str| {
        let line = symbols.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
    };
    // From .debug_frame: on entry, and behind `push rbp; mov rbp, rsp`.
    let entry = table.find(ElfAddress(address_of("framed")));
    assert_eq!((entry.cfa, entry.cfa_register, entry.cfa_offset), (cfa::REGISTER, 7, 8));
    let inside = table.find(ElfAddress(address_of("framed") + 4));
    assert_eq!((inside.cfa, inside.cfa_register, inside.cfa_offset), (cfa::REGISTER, 6, 16));
    assert_eq!((inside.frame_pointer, inside.fp_offset), (saved_fp::AT_CFA, -16));
    // From .eh_frame of crt1.o.
    assert_eq!(table.find(ElfAddress(address_of("_start"))).cfa, cfa::END);
}

/// Where `.eh_frame` and its header lie in `/bin/true`, so that damage falls where it hurts.
fn frame_bytes_of_true() -> (Vec<u8>, std::ops::Range<usize>) {
    let bytes = std::fs::read("/bin/true").unwrap();
    let object = object(bytes.clone()).unwrap();
    let header = object.section_header(".eh_frame").unwrap();
    let begin = usize::try_from(header.offset.0).unwrap();
    (bytes, begin..begin + usize::try_from(header.bytes).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_objects_never_panic(
        frame_changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..200),
        header_changes in proptest::collection::vec((0usize..0x400, any::<u8>()), 0..3),
        without_sections: bool,
        kept in prop_oneof![Just(usize::MAX), 0usize..40_000],
    ) {
        let (mut bytes, frame) = frame_bytes_of_true();
        for (position, value) in frame_changes {
            bytes[frame.start + position.index(frame.len())] = value;
        }
        for (position, value) in header_changes {
            bytes[position] = value;
        }
        if without_sections {
            bytes[0x28..0x30].fill(0);
            bytes[0x3c..0x40].fill(0);
        }
        bytes.truncate(kept);
        let Some(object) = object(bytes) else { return Ok(()) };
        let mut rows = Vec::new();
        let counted = cfi::rows(&object, &mut rows);
        prop_assert!(rows.windows(2).all(|pair| pair[0].address < pair[1].address));
        match UnwindTable::build(&object) {
            Ok(table) => {
                prop_assert!(counted.is_ok());
                for row in &rows {
                    if table.oversized_chunks == 0 {
                        prop_assert_eq!(table.find(row.address), row.rule, "at {}", row.address);
                    }
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
