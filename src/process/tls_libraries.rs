//! Which files hold a TLS library that can be followed: OpenSSL's interface, as OpenSSL, BoringSSL and Node
//! have it.
//!
//! Libraries are looked at by their name (`libssl…`, which those in wheels and containers have too), and so is the
//! main executable of every process: Node's exports the functions, and others have them in their symbol table.
//! What a file has is found out once. A library under another name that is loaded later is not found; what a
//! process does without a library that is known is counted where its connections are.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use spanflame_symbols::open::{open_in_process, open_mapped_file};
use spanflame_symbols::{FileOffset, ObjectFile, find_functions};

use super::living::living_pids;
use super::mapped_file::FileNumbers;
use super::proc_maps::{self, MapsLine};
use crate::kernel::{FileIdentity, ProbedFile, TlsFunction};

/// Files whose contents are remembered; beyond that all are looked at anew.
const MAX_FILES: usize = 16_384;
/// Folders of the host in which TLS libraries and Node lie, whoever maps them.
const LIBRARY_FOLDERS: [&str; 8] = [
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/usr/local/lib",
];
const PROGRAMS: [&str; 3] = ["/usr/bin/node", "/usr/bin/nodejs", "/usr/local/bin/node"];

/// A file that holds a TLS library, and where its functions are.
#[derive(Debug)]
pub struct TlsLibrary {
    /// The open file.
    pub file: ProbedFile,
    /// Its functions.
    pub functions: Vec<(TlsFunction, FileOffset)>,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It holds no TLS library, or cannot be read.
    Nothing,
    Library(FileIdentity),
}

/// What a process has of TLS libraries.
#[derive(Debug, Default)]
pub struct ProcessLibraries {
    /// Those that were not known before.
    pub new: Vec<TlsLibrary>,
    /// All of them.
    pub all: Vec<FileIdentity>,
}

/// The files that were looked at.
#[derive(Debug, Default)]
pub struct TlsLibraries {
    known: HashMap<(FileNumbers, PathBuf), Known>,
    of_host: Vec<FileIdentity>,
}

impl TlsLibraries {
    /// The libraries of the host itself, whether anybody maps them or not. They are kept for ever.
    pub fn of_host(&mut self) -> Vec<TlsLibrary> {
        let mut paths: Vec<PathBuf> = PROGRAMS.iter().map(PathBuf::from).collect();
        for folder in LIBRARY_FOLDERS {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            paths.extend(
                entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| is_named_so(path)),
            );
        }
        let mut found = Vec::new();
        for path in paths {
            let Ok(file) = open_in_process(std::process::id(), &path) else { continue };
            let Ok(identity) = FileIdentity::of(&file) else { continue };
            if self.of_host.contains(&identity) {
                continue;
            }
            if let Some(library) = read(file, &path) {
                self.of_host.push(identity);
                found.push(library);
            }
        }
        found
    }

    /// Whether a file is one of [`Self::of_host`].
    #[must_use]
    pub fn is_of_host(&self, file: &FileIdentity) -> bool {
        self.of_host.contains(file)
    }

    /// The libraries of a process; `None` if there is no such process, or none that may be read. Reads its
    /// maps: some hundred microseconds.
    pub fn of_process(&mut self, pid: u32) -> Option<ProcessLibraries> {
        let mut libraries = ProcessLibraries::default();
        let lines = proc_maps::read(pid).ok()?;
        let executable = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let mut seen = HashSet::new();
        for line in lines {
            let is_candidate = line.inode != 0 && (is_named_so(&line.path) || line.path == executable);
            if !is_candidate || !seen.insert((line.device, line.inode)) {
                continue;
            }
            let key = (FileNumbers { device: line.device, inode: line.inode }, line.path.clone());
            let known = match self.known.get(&key) {
                Some(known) => *known,
                None => {
                    let library = open(pid, &line).and_then(|file| read(file, &line.path));
                    let known = library
                        .as_ref()
                        .map_or(Known::Nothing, |library| Known::Library(library.file.identity()));
                    if self.known.len() >= MAX_FILES {
                        self.known.clear();
                    }
                    self.known.insert(key, known);
                    libraries.new.extend(library);
                    known
                }
            };
            if let Known::Library(identity) = known {
                libraries.all.push(identity);
            }
        }
        Some(libraries)
    }

    /// Forgets the files that nobody maps: their numbers will be others'. Returns the libraries that somebody
    /// does map, and those of the host. Reads the maps of every process.
    pub fn forget_unmapped(&mut self) -> HashSet<FileIdentity> {
        self.forget_unmapped_by(&living_pids())
    }

    fn forget_unmapped_by(&mut self, pids: &[u32]) -> HashSet<FileIdentity> {
        let mut mapped = HashSet::new();
        for &pid in pids {
            let lines = proc_maps::read(pid).unwrap_or_default();
            mapped.extend(lines.iter().filter(|line| line.inode != 0).map(|line| (line.device, line.inode)));
        }
        self.known.retain(|(numbers, _), _| mapped.contains(&(numbers.device, numbers.inode)));
        let libraries = self.known.values().filter_map(|known| match known {
            Known::Library(identity) => Some(*identity),
            Known::Nothing => None,
        });
        libraries.chain(self.of_host.iter().copied()).collect()
    }
}

/// Whether a file is a TLS library by its name.
fn is_named_so(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"libssl") && name.windows(3).any(|part| part == b".so")
    })
}

/// The file behind a mapping, or that of its name as the process sees it.
fn open(pid: u32, line: &MapsLine) -> Option<File> {
    open_mapped_file(pid, line.begin, line.end).or_else(|_| open_in_process(pid, &line.path)).ok()
}

/// What a file holds of TLS; `None` if it cannot be read, or has no function that reads or writes.
fn read(file: File, path: &Path) -> Option<TlsLibrary> {
    let object = ObjectFile::new(file.try_clone().ok()?, path).ok()?;
    let names = TlsFunction::NAMES.map(|(name, _)| name);
    let found = find_functions(&object, &names).ok()?;
    let functions: Vec<(TlsFunction, FileOffset)> = found
        .iter()
        .filter_map(|found| TlsFunction::NAMES.get(found.name).map(|(_, function)| (*function, found.at)))
        .collect();
    let has = |wanted: &[TlsFunction]| functions.iter().any(|(function, _)| wanted.contains(function));
    if !has(&[TlsFunction::Read, TlsFunction::ReadEx]) || !has(&[TlsFunction::Write, TlsFunction::WriteEx]) {
        return None;
    }
    Some(TlsLibrary { file: ProbedFile::new(file, path).ok()?, functions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_their_names_whatever_version_follows() {
        for path in
            ["/lib/libssl.so.3", "/x/libssl.so.1.1", "/w/psycopg2.libs/libssl-0a1b.so.1.1", "libssl.so"]
        {
            assert!(is_named_so(Path::new(path)), "{path}");
        }
        for path in ["/lib/libcrypto.so.3", "/lib/libssl.a", "/lib/xlibssl.so", "/", "", "/lib/libssl3"] {
            assert!(!is_named_so(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn the_hosts_own_library_has_its_functions_and_is_found_once() {
        let mut libraries = TlsLibraries::default();
        let found = libraries.of_host();
        if found.is_empty() {
            eprintln!("skipped: this machine has no libssl");
            return;
        }
        for library in &found {
            assert!(libraries.is_of_host(&library.file.identity()));
            let has = |wanted| library.functions.iter().any(|(function, _)| *function == wanted);
            assert!(has(TlsFunction::Read) && has(TlsFunction::Write) && has(TlsFunction::Handshake));
        }
        assert_eq!(libraries.of_host().len(), 0);
    }

    #[test]
    fn a_process_without_a_library_has_none_and_is_not_read_twice() {
        let mut libraries = TlsLibraries::default();
        let own = libraries.of_process(std::process::id()).expect("it lives");
        assert!(own.new.is_empty() && own.all.is_empty(), "{own:?}");
        assert_eq!(libraries.known.len(), 1, "its executable");
        assert!(libraries.forget_unmapped_by(&[std::process::id()]).is_empty());
        assert_eq!(libraries.known.len(), 1, "it is still mapped");
        libraries.forget_unmapped_by(&[]);
        assert_eq!(libraries.known.len(), 0);
        assert!(libraries.of_process(u32::MAX).is_none());
    }
}
