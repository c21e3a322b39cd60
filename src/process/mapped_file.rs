//! Opening the file behind a mapping, and proving that it is that file.
//!
//! Between the kernel's word of a mapping and our opening of its file the process may have called
//! `execve`, mapped something else at the same place, or ended, and the path may name another file by
//! now (a package was upgraded). So the opened file is compared with what the kernel said: with its
//! build id if there is one, else with device and inode.
//!
//! Device and inode of `/proc/PID/maps` and of perf's records are not always those of `stat(2)`: on
//! btrfs and on overlayfs before Linux 6.8 the former are of the file system below. Where they differ
//! the file is mapped here for a moment, and what the kernel says of *that* mapping is compared.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use spanflame_symbols::open::{open_in_process, open_mapped_file};
use spanflame_symbols::{BuildId, ObjectError, ObjectFile};

use super::objects::FileMapping;

/// Device and inode of a mapped file, as the kernel writes them of mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileNumbers {
    /// Device, major and minor.
    pub device: (u32, u32),
    /// Inode.
    pub inode: u64,
}

/// What became of the attempt to open the file behind a mapping.
#[derive(Debug)]
pub(super) enum Opened {
    /// This is it.
    File(File),
    /// There is a file of that path, and it is another one.
    Changed,
    /// None could be opened.
    Nothing {
        /// For want of a file descriptor.
        no_descriptors: bool,
    },
}

/// Opens the file behind `mapping`: by the mapping itself, else by its path as its process sees it, else,
/// only if the kernel gave a build id to prove it by, by its path on the host.
pub(super) fn open(mapping: FileMapping<'_>) -> Opened {
    let by_mapping = open_mapped_file(mapping.pid, mapping.begin, mapping.end);
    let by_path = || open_in_process(mapping.pid, mapping.path);
    let on_host = || open_in_process(std::process::id(), mapping.path);
    let (mut changed, mut no_descriptors) = (false, false);
    let mut is_it = |opened: Result<File, ObjectError>| match opened {
        Ok(file) if is_mapped_file(&file, mapping) => Some(file),
        Ok(_) => {
            changed = true;
            None
        }
        Err(ObjectError::Io { source, .. }) => {
            no_descriptors |= matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
            None
        }
        Err(_) => None,
    };
    let found = is_it(by_mapping)
        .or_else(|| is_it(by_path()))
        .or_else(|| mapping.build_id.and_then(|_| is_it(on_host())));
    match found {
        Some(file) => Opened::File(file),
        None if changed => Opened::Changed,
        None => Opened::Nothing { no_descriptors },
    }
}

/// Whether `file` is what the kernel said is mapped. Without the kernel's word there is nothing to doubt.
fn is_mapped_file(file: &File, mapping: FileMapping<'_>) -> bool {
    match (mapping.build_id, mapping.numbers) {
        (Some(wanted), _) => has_build_id(file, wanted, mapping.path),
        (None, Some(wanted)) => {
            numbers_by_stat(file) == Some(wanted) || numbers_by_mapping(file) == Some(wanted)
        }
        (None, None) => true,
    }
}

fn has_build_id(file: &File, wanted: &[u8], path: &Path) -> bool {
    let Ok(copy) = file.try_clone() else { return false };
    match ObjectFile::new(copy, path) {
        Ok(object) => *object.build_id() == BuildId::Gnu(wanted.to_vec()),
        // Damaged beside its build id, which the kernel could read: nothing of it will be believed.
        Err(_) => is_elf(file),
    }
}

/// Whether a file begins as ELF files do.
pub(super) fn is_elf(file: &File) -> bool {
    let mut magic = [0_u8; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == *b"\x7fELF"
}

fn numbers_by_stat(file: &File) -> Option<FileNumbers> {
    let metadata = file.metadata().ok()?;
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    Some(FileNumbers { device, inode: metadata.ino() })
}

/// What `/proc/self/maps` says of a mapping of `file`.
fn numbers_by_mapping(file: &File) -> Option<FileNumbers> {
    let page_bytes = rustix::param::page_size();
    // SAFETY: a new private read-only mapping at an address of the kernel's choice disturbs no other
    // memory, and nothing reads from it.
    let base = unsafe {
        mmap(std::ptr::null_mut(), page_bytes, ProtFlags::READ, MapFlags::PRIVATE, file.as_fd(), 0)
    };
    let base = base.ok()?;
    let maps = std::fs::read("/proc/self/maps");
    // SAFETY: exactly the mapping made above, which nothing else refers to.
    let unmapped = unsafe { munmap(base, page_bytes) };
    if let Err(error) = unmapped {
        tracing::debug!("a page of address space is left mapped: {error}");
    }
    numbers_of_line(&maps.ok()?, base as u64)
}

/// Device and inode of the line of `/proc/PID/maps` (proc(5)) whose mapping begins at `begin`.
fn numbers_of_line(maps: &[u8], begin: u64) -> Option<FileNumbers> {
    maps.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ').filter_map(|field| std::str::from_utf8(field).ok());
        let (first, _) = fields.next()?.split_once('-')?;
        if u64::from_str_radix(first, 16).ok()? != begin {
            return None;
        }
        let (major, minor) = fields.nth(2)?.split_once(':')?;
        let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        Some(FileNumbers { device, inode: fields.next()?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree_on_the_numbers_of_our_own_executable() {
        let file = File::open("/proc/self/exe").expect("it is there");
        let numbers = numbers_by_mapping(&file);
        assert!(numbers.is_some());
        // The machine that builds this has an ordinary file system below its target directory.
        assert_eq!(numbers.map(|numbers| numbers.inode), numbers_by_stat(&file).map(|numbers| numbers.inode));
    }

    #[test]
    fn two_files_are_told_apart_by_either_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = ["one", "two"].map(|name| {
            let path = folder.path().join(name);
            std::fs::write(&path, "not empty").expect("it is ours");
            File::open(path).expect("it is ours")
        });
        for numbers in [numbers_by_stat, numbers_by_mapping] {
            let [one, two] = files.each_ref().map(numbers);
            assert!(one.is_some() && two.is_some());
            assert_ne!(one, two);
        }
    }

    #[test]
    fn the_line_of_a_mapping_is_found_by_its_first_address_and_garbage_is_passed_over() {
        let maps = b"garbage\n\
            1000-2000 r--p 00000000 fe:01 42 /some thing\n\
            2000-3000 r-xp 00001000 00:1f 43\n\
            3000-4000 r-xp\n\xff\xfe\n";
        let at = |begin| numbers_of_line(maps, begin).map(|numbers| (numbers.device, numbers.inode));
        assert_eq!(at(0x1000), Some(((0xfe, 1), 42)));
        assert_eq!(at(0x2000), Some(((0, 0x1f), 43)));
        assert_eq!((at(0x3000), at(0x4000)), (None, None));
    }

    #[test]
    fn a_file_that_is_not_the_mapped_one_is_never_taken() {
        let own = std::process::id();
        let path = std::env::current_exe().expect("it is there");
        let file = File::open(&path).expect("it is there");
        let numbers = numbers_by_stat(&file).expect("it has them");
        let build_id = ObjectFile::new(file, &path).expect("an ELF file").build_id().clone();
        let BuildId::Gnu(build_id) = build_id else { panic!("linked with a build id") };
        // No such range: the path decides.
        let mapping = FileMapping {
            pid: own,
            begin: 1,
            end: 2,
            file_offset: 0,
            build_id: None,
            numbers: None,
            path: &path,
        };
        assert!(matches!(open(mapping), Opened::File(_)), "nothing to doubt");
        assert!(matches!(open(FileMapping { numbers: Some(numbers), ..mapping }), Opened::File(_)));
        let other = FileNumbers { inode: numbers.inode ^ 1, ..numbers };
        assert!(matches!(open(FileMapping { numbers: Some(other), ..mapping }), Opened::Changed));
        assert!(matches!(open(FileMapping { build_id: Some(&build_id), ..mapping }), Opened::File(_)));
        assert!(matches!(open(FileMapping { build_id: Some(&build_id[1..]), ..mapping }), Opened::Changed));
        let gone = FileMapping { path: Path::new("/no/such/file"), ..mapping };
        assert!(matches!(open(gone), Opened::Nothing { no_descriptors: false }));
    }
}
