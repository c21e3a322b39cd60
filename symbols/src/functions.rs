//! Functions by their names: where in the file the code of those lies that a program asks for.
//!
//! Format: System V gABI, chapter 4, "Symbol Table" and "String Table". Symbols are looked for in `.dynsym` (what
//! an object exports) and, if none of them is there, in `.symtab`. First the names are searched, so that an
//! object which has none of them costs one walk through its strings; nothing of a table is kept. Read in
//! pieces, so that a browser's tables take no more memory than any other's.

use crate::little_endian::{u16_at, u32_at, u64_at};
use crate::object_file::SectionHeader;
use crate::{ElfAddress, FileOffset, ObjectError, ObjectFile};

/// Bytes that are read together: of names, and of symbols (a multiple of 24).
const NAMES_WINDOW_BYTES: u64 = 256 << 10;
const SYMBOLS_WINDOW_BYTES: u64 = 24 * 8192;
/// Names and symbols beyond this are not looked at: a binary with debug information of a gigabyte has less.
const MAX_NAMES_BYTES: u64 = 256 << 20;
const MAX_SYMBOLS_BYTES: u64 = 24 * (8 << 20);
/// Places where one of the names stands: a name may be the end of others.
const MAX_PLACES: usize = 4096;
const SYMBOL_BYTES: usize = 24;

const SHN_UNDEF: u16 = 0;
const STT_FUNC: u8 = 2;
const SHF_COMPRESSED: u64 = 0x800;

/// A function of one of the names that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedFunction {
    /// Which of the names: its index.
    pub name: usize,
    /// Where its first instruction is.
    pub at: FileOffset,
    /// How long its code is; 0 if nobody has said.
    pub bytes: u64,
}

/// Where the code of the functions with these names is, each place once, ordered by name. An object may have
/// several of one name (symbol versions), or none.
///
/// # Errors
/// [`ObjectError`] if a table of the object cannot be read.
pub fn find_functions(object: &ObjectFile, names: &[&str]) -> Result<Vec<NamedFunction>, ObjectError> {
    for (symbols, strings) in [(".dynsym", ".dynstr"), (".symtab", ".strtab")] {
        let stored = |name: &str| {
            let header = object.section_header(name)?;
            (header.has_contents() && header.flags & SHF_COMPRESSED == 0).then_some(*header)
        };
        let (Some(symbols), Some(strings)) = (stored(symbols), stored(strings)) else { continue };
        let places = find_names(object, &strings, names)?;
        let found = if places.is_empty() { Vec::new() } else { find_symbols(object, &symbols, &places)? };
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// Offsets in the string table at which one of the names stands, and which: ascending.
fn find_names(
    object: &ObjectFile,
    strings: &SectionHeader,
    names: &[&str],
) -> Result<Vec<(u32, usize)>, ObjectError> {
    let longest = names.iter().map(|name| name.len() as u64 + 1).max().unwrap_or(1);
    let total = strings.bytes.min(MAX_NAMES_BYTES);
    let mut places = Vec::new();
    let mut begin = 0;
    while begin < total {
        // What begins in this piece may end in the next one.
        let bytes = (total - begin).min(NAMES_WINDOW_BYTES + longest);
        let Some(offset) = strings.offset.checked_add(begin) else { break };
        let window = object.read_file(offset, bytes)?;
        let ends = window.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(index, _)| index);
        for end in ends {
            for (index, name) in names.iter().enumerate() {
                let Some(at) = end.checked_sub(name.len()) else { continue };
                let is_in_next = at as u64 >= NAMES_WINDOW_BYTES;
                if is_in_next || window.get(at..end) != Some(name.as_bytes()) {
                    continue;
                }
                let Ok(place) = u32::try_from(begin + at as u64) else { continue };
                if places.len() < MAX_PLACES {
                    places.push((place, index));
                }
            }
        }
        begin += NAMES_WINDOW_BYTES;
    }
    places.sort_unstable();
    Ok(places)
}

/// The functions whose names stand at these places.
fn find_symbols(
    object: &ObjectFile,
    symbols: &SectionHeader,
    places: &[(u32, usize)],
) -> Result<Vec<NamedFunction>, ObjectError> {
    let total = symbols.bytes.min(MAX_SYMBOLS_BYTES);
    let mut found = Vec::new();
    let mut begin = 0;
    while begin < total {
        let bytes = (total - begin).min(SYMBOLS_WINDOW_BYTES);
        let Some(offset) = symbols.offset.checked_add(begin) else { break };
        for symbol in object.read_file(offset, bytes)?.chunks_exact(SYMBOL_BYTES) {
            // st_name, st_info, st_other, st_shndx, st_value, st_size.
            let (Some(name), Some(section), Some(value), Some(bytes)) =
                (u32_at(symbol, 0), u16_at(symbol, 6), u64_at(symbol, 8), u64_at(symbol, 16))
            else {
                continue;
            };
            let is_function = symbol.get(4).is_some_and(|info| info & 0xf == STT_FUNC);
            if !is_function || section == SHN_UNDEF {
                continue;
            }
            let Ok(index) = places.binary_search_by_key(&name, |&(place, _)| place) else { continue };
            let (Some(&(_, name)), Some(at)) = (places.get(index), code_offset(object, ElfAddress(value)))
            else {
                continue;
            };
            found.push(NamedFunction { name, at, bytes });
        }
        begin += SYMBOLS_WINDOW_BYTES;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Where in the file the code at an address is; `None` if no executable segment has it there.
fn code_offset(object: &ObjectFile, address: ElfAddress) -> Option<FileOffset> {
    object.segments().iter().filter(|segment| segment.executable).find_map(|segment| {
        let skipped = address.checked_sub(segment.address)?;
        (skipped < segment.file_bytes).then(|| segment.offset.checked_add(skipped)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    fn object(path: &Path) -> ObjectFile {
        ObjectFile::new(File::open(path).expect("it is there"), path).expect("an ELF file")
    }

    /// A library of functions, one of which ends in another's name, and one that is only imported.
    fn library(folder: &Path, strip: bool) -> PathBuf {
        let source = folder.join("library.c");
        let path = folder.join(format!("library-{strip}.so"));
        let code = "int imported(void); int wanted(void) { return imported(); }\n\
            int is_wanted(void) { return 2; } static int hidden(int x) { return x * 3; }\n\
            int use(int x) { return hidden(x) + hidden(x + 1); } int wanted_data = 1;\n";
        std::fs::write(&source, code).expect("written");
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-O0", "-o"]).arg(&path).arg(&source);
        if strip {
            gcc.arg("-s");
        }
        assert!(gcc.status().expect("gcc is there").success());
        path
    }

    #[test]
    fn functions_are_found_where_nm_says_they_are_and_imports_and_data_are_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = library(folder.path(), true);
        let object = object(&path);
        let found = find_functions(&object, &["is_wanted", "wanted", "imported", "wanted_data", "none"]);
        let found = found.expect("readable");
        assert_eq!(found.iter().map(|function| function.name).collect::<Vec<_>>(), [0, 1]);
        let nm = Command::new("nm").arg("-D").arg(&path).output().expect("nm is there");
        let nm = String::from_utf8_lossy(&nm.stdout).into_owned();
        for (function, name) in found.iter().zip(["is_wanted", "wanted"]) {
            let line = nm.lines().find(|line| line.ends_with(&format!(" T {name}"))).expect("listed");
            let address = u64::from_str_radix(line.split(' ').next().expect("a number"), 16).expect("hex");
            assert_eq!(object.elf_address(function.at), Some(ElfAddress(address)), "{name}");
        }
    }

    #[test]
    fn what_is_not_exported_is_found_unless_the_object_is_stripped() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["hidden"];
        let whole = find_functions(&object(&library(folder.path(), false)), &names).expect("readable");
        assert_eq!(whole.len(), 1);
        let stripped = find_functions(&object(&library(folder.path(), true)), &names).expect("readable");
        assert_eq!(stripped, []);
    }

    #[test]
    fn a_file_cut_anywhere_or_with_bytes_changed_gives_an_error_or_less() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = library(folder.path(), false);
        let bytes = std::fs::read(&path).expect("readable");
        for cut in (0..bytes.len()).step_by(97) {
            if let Ok(object) = ObjectFile::from_bytes(bytes[..cut].to_vec(), &path) {
                let _ = find_functions(&object, &["wanted", "hidden"]);
            }
            let mut changed = bytes.clone();
            changed[cut] ^= 0xff;
            if let Ok(object) = ObjectFile::from_bytes(changed, &path) {
                let _ = find_functions(&object, &["wanted", "hidden"]);
            }
        }
    }
}
