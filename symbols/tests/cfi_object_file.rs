//! `ObjectFile` on the system's own files, against binutils, and on damaged copies of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use spanflame_symbols::{BuildId, ElfAddress, FileOffset, Machine, ObjectError, ObjectFile};

fn system_objects(limit: usize) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for folder in ["/usr/lib/x86_64-linux-gnu", "/usr/bin"] {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file() && starts_with_elf_magic(path))
            .collect();
        found.sort();
        paths.extend(found.into_iter().take(limit / 2));
    }
    paths
}

fn starts_with_elf_magic(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn true_bytes() -> Vec<u8> {
    std::fs::read("/bin/true").unwrap()
}

fn object(bytes: Vec<u8>) -> Result<ObjectFile, ObjectError> {
    ObjectFile::from_bytes(bytes, Path::new("test"))
}

#[test]
fn build_ids_are_those_readelf_prints() {
    let paths = system_objects(300);
    let output = Command::new("readelf").arg("-n").args(&paths).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut expected = std::collections::HashMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("File: ") {
            path.clone_into(&mut current);
        } else if let Some(id) = line.trim().strip_prefix("Build ID: ") {
            expected.entry(current.clone()).or_insert_with(|| id.to_owned());
        }
    }
    let mut compared = 0;
    for path in &paths {
        let object = match ObjectFile::new(File::open(path).unwrap(), path) {
            Ok(object) => object,
            // crt1.o and its like stand among the libraries.
            Err(ObjectError::Malformed { .. }) if path.extension().is_some_and(|ending| ending == "o") => {
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(object.machine(), Machine::X86_64);
        if let Some(id) = expected.get(path.to_str().unwrap()) {
            assert_eq!(&object.build_id().to_hex(), id, "{}", path.display());
            assert!(matches!(object.build_id(), BuildId::Gnu(_)));
            compared += 1;
        } else {
            assert!(!matches!(object.build_id(), BuildId::Gnu(_)), "{}", path.display());
        }
    }
    println!("{compared} build ids equal those of readelf");
    assert!(compared > 50);
}

#[test]
fn an_object_without_its_section_table_keeps_segments_and_identity() {
    let whole = object(true_bytes()).unwrap();
    let mut bytes = true_bytes();
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    let stripped = object(bytes).unwrap();
    assert_eq!(stripped.segments(), whole.segments());
    assert_eq!(stripped.build_id(), whole.build_id());
    assert_eq!(stripped.section_headers(), &[]);
    assert!(stripped.section(".text").unwrap().is_none());
    let (address, _) = stripped.eh_frame_header().unwrap();
    assert_eq!(stripped.read_loaded(address, 4).unwrap()[0], 1, "version of .eh_frame_hdr");
}

#[test]
fn an_object_without_notes_is_known_by_its_code() {
    let mut bytes = true_bytes();
    // No note is called NOTE any more, neither segment nor section: its type is made PT_NULL.
    let headers = u64::from_le_bytes(bytes[0x20..0x28].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes(bytes[0x38..0x3a].try_into().unwrap()));
    for index in 0..count {
        let at = headers + index * 56;
        if bytes[at..at + 4] == 4u32.to_le_bytes() {
            bytes[at..at + 4].fill(0);
        }
    }
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    let first = object(bytes.clone()).unwrap();
    let BuildId::Hash(hash) = first.build_id() else { panic!("{:?}", first.build_id()) };
    assert_eq!(object(bytes.clone()).unwrap().build_id(), first.build_id());
    let code = *first.segments().iter().find(|segment| segment.executable).unwrap();
    let last_byte_of_code = (code.offset.0 + code.file_bytes - 1) as usize;
    bytes[last_byte_of_code] ^= 1;
    let changed = object(bytes.clone()).unwrap();
    assert_ne!(changed.build_id(), &BuildId::Hash(*hash));
    // What follows the code is data: it does not change which code this is.
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(object(bytes).unwrap().build_id(), changed.build_id());
}

#[test]
fn sections_are_read_by_whole_names() {
    let object = object(true_bytes()).unwrap();
    assert!(object.section(".tex").unwrap().is_none());
    assert!(object.section(".text").unwrap().is_some_and(|section| section.data.len() > 100));
    assert!(object.section(".bss").unwrap().is_none(), "it has no contents");
    let eh_frame = object.section(".eh_frame").unwrap().unwrap();
    let loaded = object.read_loaded(eh_frame.address, eh_frame.data.len() as u64).unwrap();
    assert_eq!(loaded, eh_frame.data);
}

#[test]
fn offsets_in_a_shared_page_belong_to_the_executable_segment() {
    let object = object(true_bytes()).unwrap();
    for segment in object.segments() {
        assert_eq!(object.elf_address(segment.offset), Some(segment.address));
        let last = FileOffset(segment.offset.0 + segment.file_bytes - 1);
        assert_eq!(object.elf_address(last), Some(ElfAddress(segment.address.0 + segment.file_bytes - 1)));
        if segment.executable {
            let page = FileOffset(segment.offset.0 & !4095);
            assert_eq!(object.elf_address(page), Some(ElfAddress(segment.address.0 & !4095)));
        }
    }
    assert_eq!(object.elf_address(FileOffset(1 << 40)), None);
}

#[test]
fn what_is_no_object_says_why() {
    for (bytes, reason) in [
        (Vec::new(), "shorter than"),
        (vec![0; 100], "magic"),
        (
            {
                let mut bytes = true_bytes();
                bytes[4] = 1;
                bytes
            },
            "64-bit",
        ),
        (
            {
                let mut bytes = true_bytes();
                bytes[0x10] = 1;
                bytes
            },
            "neither executable",
        ),
        (
            {
                let mut bytes = true_bytes();
                bytes[0x12] = 40;
                bytes
            },
            "machine 40",
        ),
        (
            {
                let mut bytes = true_bytes();
                bytes[0x38..0x3a].fill(0);
                bytes
            },
            "no program headers",
        ),
        (
            {
                let mut bytes = true_bytes();
                bytes[0x20..0x28].fill(0xff);
                bytes
            },
            "outside of the file",
        ),
    ] {
        let error = object(bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let text = ObjectFile::new(File::open("/etc/passwd").unwrap(), Path::new("/etc/passwd"));
    assert!(text.unwrap_err().to_string().contains("/etc/passwd"));
}

#[test]
fn a_huge_sparse_file_is_refused_and_a_file_cut_short_is_an_error() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(5 << 30).unwrap();
    assert!(matches!(ObjectFile::new(file, Path::new("sparse")), Err(ObjectError::TooLarge { .. })));

    let mut copy = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut copy, &true_bytes()).unwrap();
    let object = ObjectFile::new(copy.reopen().unwrap(), Path::new("cut")).unwrap();
    copy.as_file().set_len(4096).unwrap();
    assert!(matches!(object.section(".eh_frame"), Err(ObjectError::Io { .. })));
}

/// Everything an object can be asked, so that damage has a chance to do harm.
fn exercise(bytes: Vec<u8>) {
    let Ok(object) = object(bytes) else { return };
    let _ = object.build_id().to_hex();
    for header in object.section_headers().iter().take(64) {
        let _ = object.section_name(header);
        let _ = object.read_section(header);
    }
    for segment in object.segments() {
        let _ = object.elf_address(segment.offset);
        let _ = object.read_loaded(segment.address, 64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_objects_never_panic(
        header_changes in proptest::collection::vec((0usize..0x400, any::<u8>()), 0..8),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..64),
        kept in prop_oneof![Just(usize::MAX), 0usize..40_000],
    ) {
        let mut bytes = true_bytes();
        for (position, value) in header_changes {
            bytes[position] = value;
        }
        for (position, value) in changes {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        bytes.truncate(kept);
        exercise(bytes);
    }
}
