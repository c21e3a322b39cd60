//! The memory of a process that runs, by `/proc/PID/mem`, without making the process wait for us.
//!
//! Whoever reads that file and comes upon a page that is not there has the kernel fetch it, and holds the lock of the
//! process's mappings for as long as that takes (`__access_remote_vm`, mm/memory.c). If the page is a file's whose
//! file system does not answer (FUSE, NFS), the process stops at its next `mmap`, and so does everyone who reads its
//! `/proc/PID/maps`. So pages are looked at first (`/proc/PID/pagemap`, Documentation/admin-guide/mm/pagemap.rst):
//!
//! ```text
//! there, or swapped out      read as memory
//! not there, of a file       read as that file, by /proc/PID/map_files: holds no lock of the process
//! not there, of no file      read as memory: zeros, or nobody waits. Pages that the process supplies itself
//!                            (userfaultfd) cannot be had so: the kernel refuses them to readers of this file at
//!                            once, as it does not let them try again (handle_userfault, fs/userfaultfd.c)
//! ```
//!
//! A page that goes away between the look and the reading is waited for all the same; so is every page where
//! `/proc/PID/map_files` may not be opened (`CAP_CHECKPOINT_RESTORE`). What tells a function's name lies in few pages and
//! is read in many small pieces, so a page that was there is not looked at again for a millisecond or two.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{ProcessMemory, Unreadable};
use crate::ObjectError;
use crate::open::open_mapped_file;

/// Bits of an entry of `pagemap`: swapped out, there.
const IS_THERE: u64 = 1 << 62 | 1 << 63;
const ENTRY_BYTES: usize = 8;
/// Entries that are looked at at a time.
const ENTRIES: usize = 64;
/// Longer lists of mappings are not looked through.
const MAX_MAPS_BYTES: u64 = 64 << 20;

/// Pages of which it is remembered that they were there.
const SEEN_PAGES: usize = 64;
/// Time as it is remembered with them: in steps of about a millisecond, 28 bits. The page's number has those above.
const STEP_NS_BITS: u32 = 20;
const STEP_BITS: u32 = 28;
/// No page's.
const NOT_SEEN: u64 = u64::MAX;

/// See the module's description. Reading it may wait for a file: never to be done on a thread that others wait for,
/// but for [`LiveMemory::only_what_is_there`].
#[derive(Debug)]
pub struct LiveMemory {
    pid: u32,
    memory: File,
    /// `None`: this kernel has none.
    pages: Option<File>,
    page_bytes: u64,
    may_wait: bool,
    /// A page and when it was there last, by the page's lowest bits.
    seen: [AtomicU64; SEEN_PAGES],
    opened: Instant,
}

impl LiveMemory {
    /// Opens it. It stays that of the program that runs now: after an `execve` nothing can be read.
    ///
    /// # Errors
    /// The system's: the process is gone, or is not to be looked into.
    pub fn open(pid: u32) -> std::io::Result<Self> {
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let pages = File::open(format!("/proc/{pid}/pagemap")).ok();
        let seen = std::array::from_fn(|_| AtomicU64::new(NOT_SEEN));
        Ok(Self {
            pid,
            memory,
            pages,
            page_bytes: page_bytes(),
            may_wait: true,
            seen,
            opened: Instant::now(),
        })
    }

    /// From now on pages that are not there cannot be read, and nobody waits for a file.
    #[must_use]
    pub fn only_what_is_there(self) -> Self {
        Self { may_wait: false, ..self }
    }

    /// Whether all pages of a range are there. `None`: it cannot be known.
    fn is_there(&self, address: u64, bytes: usize) -> Option<bool> {
        let pages = self.pages.as_ref()?;
        let last = address.checked_add(u64::try_from(bytes).ok()?.checked_sub(1)?)? / self.page_bytes;
        let mut first = address / self.page_bytes;
        // Whoever must not wait looks each time.
        let seen = (first == last && self.may_wait).then(|| self.seen_page(first)).flatten();
        if seen.is_some_and(|(slot, now)| was_just_there(slot.load(Ordering::Relaxed), now)) {
            return Some(true);
        }
        let mut buffer = [0; ENTRIES * ENTRY_BYTES];
        while first <= last {
            let count =
                usize::try_from(last - first).map_or(ENTRIES, |more| more.saturating_add(1).min(ENTRIES));
            let entries = buffer.get_mut(..count * ENTRY_BYTES)?;
            pages.read_exact_at(entries, first.checked_mul(ENTRY_BYTES as u64)?).ok()?;
            let is_there = |entry: &[u8; ENTRY_BYTES]| u64::from_ne_bytes(*entry) & IS_THERE != 0;
            if !entries.as_chunks().0.iter().all(is_there) {
                return Some(false);
            }
            first += count as u64;
        }
        if let Some((slot, now)) = seen {
            slot.store(now, Ordering::Relaxed);
        }
        Some(true)
    }

    /// Where it is remembered of a page that it was there, and what says that it is so now. `None` for pages that no
    /// process has.
    fn seen_page(&self, page: u64) -> Option<(&AtomicU64, u64)> {
        let slot = self.seen.get(usize::try_from(page).ok()? % SEEN_PAGES)?;
        let step = (self.opened.elapsed().as_nanos() >> STEP_NS_BITS) as u64 + 1;
        (page >> (u64::BITS - STEP_BITS) == 0)
            .then_some((slot, page << STEP_BITS | step & ((1 << STEP_BITS) - 1)))
    }

    /// Reads what lies in one page that is not there.
    fn read_absent(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let unreadable = Unreadable { address, bytes: into.len() };
        if !self.may_wait {
            return Err(unreadable);
        }
        let mapping = mapping_at(self.pid, address).ok_or(unreadable)?;
        if mapping.inode == 0 {
            return self.memory.read_exact_at(into, address).map_err(|_| unreadable);
        }
        let offset = mapping.file_offset.checked_add(address - mapping.begin).ok_or(unreadable)?;
        match open_mapped_file(self.pid, mapping.begin, mapping.end) {
            // Behind the file's end there is nothing in memory either.
            Ok(file) => file.read_exact_at(into, offset).map_err(|_| unreadable),
            Err(ObjectError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                self.memory.read_exact_at(into, address).map_err(|_| unreadable)
            }
            // A device's, or not mapped any more.
            Err(_) => Err(unreadable),
        }
    }
}

impl ProcessMemory for LiveMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let unreadable = Unreadable { address, bytes: into.len() };
        let is_there = self.is_there(address, into.len()).unwrap_or(self.pages.is_none() && self.may_wait);
        if is_there {
            return self.memory.read_exact_at(into, address).map_err(|_| unreadable);
        }
        let (mut address, mut rest) = (address, into);
        while !rest.is_empty() {
            let left_in_page = self.page_bytes - address % self.page_bytes;
            let bytes = usize::try_from(left_in_page).map_or(rest.len(), |bytes| bytes.min(rest.len()));
            let (piece, behind) = rest.split_at_mut_checked(bytes).ok_or(unreadable)?;
            if self.is_there(address, bytes) == Some(true) {
                self.memory.read_exact_at(piece, address).map_err(|_| unreadable)?;
            } else {
                self.read_absent(address, piece).map_err(|_| unreadable)?;
            }
            rest = behind;
            if !rest.is_empty() {
                address = address.checked_add(left_in_page).ok_or(unreadable)?;
            }
        }
        Ok(())
    }
}

/// Whether both are of one page and of one step, or of one and the next.
fn was_just_there(seen: u64, now: u64) -> bool {
    now.wrapping_sub(seen) <= 1
}

fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096).max(1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    begin: u64,
    end: u64,
    file_offset: u64,
    /// 0: of no file.
    inode: u64,
}

/// The mapping that an address lies in. O(mappings).
fn mapping_at(pid: u32, address: u64) -> Option<Mapping> {
    let maps = File::open(format!("/proc/{pid}/maps")).ok()?;
    find_mapping(BufReader::with_capacity(32 << 10, maps.take(MAX_MAPS_BYTES)), address)
}

fn find_mapping(mut maps: impl BufRead, address: u64) -> Option<Mapping> {
    let mut line = Vec::new();
    while maps.read_until(b'\n', &mut line).ok()? > 0 {
        let mapping = mapping_of_line(&line)?;
        if address < mapping.end {
            return (mapping.begin <= address).then_some(mapping);
        }
        line.clear();
    }
    None
}

/// `begin-end permissions offset device inode …` (`proc_pid_maps(5)`).
fn mapping_of_line(line: &[u8]) -> Option<Mapping> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let (begin, end) = word()?.split_once('-')?;
    let _permissions = word()?;
    let file_offset = word()?;
    let _device = word()?;
    let inode = word()?.trim_ascii_end();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(Mapping {
        begin: hex(begin)?,
        end: hex(end)?,
        file_offset: hex(file_offset)?,
        inode: inode.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn our_own_memory_is_read_and_what_is_not_mapped_is_not() {
        let value = 0x0123_4567_89ab_cdef_u64;
        let memory = LiveMemory::open(std::process::id()).expect("our own");
        let address = std::ptr::from_ref(&value) as u64;
        assert_eq!(memory.u64_at(address), Ok(value));
        assert_eq!(memory.u32_at(address), Ok(0x89ab_cdef));
        assert_eq!(memory.u16_at(address + 6), Ok(0x0123));
        assert_eq!(memory.u8_at(8), Err(Unreadable { address: 8, bytes: 1 }));
        for nowhere in [0, 1 << 47, u64::MAX - 7, u64::MAX] {
            assert!(memory.u64_at(nowhere).is_err(), "{nowhere:#x}");
        }
        assert_eq!(memory.only_what_is_there().u64_at(address), Ok(value));
    }

    #[test]
    fn a_page_that_was_there_is_believed_for_a_moment_and_no_other_page_for_it() {
        let memory = LiveMemory::open(std::process::id()).expect("our own");
        let (slot, now) = memory.seen_page(0x7fff_1234).expect("a page");
        assert!(!was_just_there(slot.load(Ordering::Relaxed), now), "nothing was seen yet");
        assert!(was_just_there(now, now) && was_just_there(now, now + 1));
        assert!(!was_just_there(now, now + 2), "that is too long ago");
        assert!(!was_just_there(now + 1, now), "that was never");
        let (same_slot, other) = memory.seen_page(0x7fff_1234 + SEEN_PAGES as u64).expect("a page");
        assert!(std::ptr::eq(slot, same_slot) && !was_just_there(now, other));
        assert!(memory.seen_page(u64::MAX / page_bytes()).is_none(), "no process has it");
        // What is read once is remembered; whoever must not wait does not rely on it.
        let value = 7_u64;
        let page = std::ptr::from_ref(&value) as u64 / page_bytes();
        assert_eq!(memory.u64_at(std::ptr::from_ref(&value) as u64), Ok(7));
        let (slot, _) = memory.seen_page(page).expect("a page");
        assert_eq!(slot.load(Ordering::Relaxed) >> STEP_BITS, page);
        let only = LiveMemory::open(std::process::id()).expect("our own").only_what_is_there();
        assert_eq!(only.u64_at(std::ptr::from_ref(&value) as u64), Ok(7));
        assert!(only.seen.iter().all(|slot| slot.load(Ordering::Relaxed) == NOT_SEEN));
    }

    /// A file of pages, mapped with one page more than it has, and not touched; and its contents.
    fn mapped_file() -> (memmap2::Mmap, Vec<u8>) {
        let page = usize::try_from(page_bytes()).expect("small");
        let contents: Vec<u8> = (0..4 * page).map(|index| (index / 7) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&contents).expect("it is written");
        // SAFETY: nobody else has the file, and it is not shortened while it is mapped.
        let mapping = unsafe { memmap2::MmapOptions::new().len(5 * page).map(&file) }.expect("it is mapped");
        (mapping, contents)
    }

    #[test]
    fn pages_of_a_file_that_are_not_there_are_the_files_and_stay_away() {
        let (mapping, contents) = mapped_file();
        let begin = mapping.as_ptr() as u64;
        let memory = LiveMemory::open(std::process::id()).expect("our own");
        assert_eq!(memory.is_there(begin, contents.len()), Some(false));
        let page = usize::try_from(page_bytes()).expect("small");
        for (from, to) in
            [(0, contents.len()), (page - 3, page + 5), (page, 2 * page), (4 * page - 1, 4 * page)]
        {
            let mut into = vec![0; to - from];
            memory.read(begin + from as u64, &mut into).expect("it is mapped");
            assert_eq!(into, contents[from..to], "{from}–{to}");
        }
        assert!(memory.read(begin, &mut vec![0; contents.len() + page]).is_err(), "past its end");
        // Nothing was fetched into the process for it. Without the right to open files of mappings all of it was.
        if open_mapped_file(std::process::id(), begin, begin + contents.len() as u64).is_ok() {
            assert_eq!(memory.is_there(begin, contents.len()), Some(false));
            let only = LiveMemory::open(std::process::id()).expect("our own").only_what_is_there();
            assert!(only.u64_at(begin).is_err());
        }
        assert_eq!(mapping.get(..page), contents.get(..page), "a touch, and what is around it is there");
        let only = LiveMemory::open(std::process::id()).expect("our own").only_what_is_there();
        assert_eq!(only.u8_at(begin + 7), Ok(1));
    }

    #[test]
    fn pages_that_the_process_must_supply_itself_are_unreadable_at_once() {
        // SAFETY: numbers only (userfaultfd(2)).
        let descriptor = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if descriptor < 0 {
            println!("skipped: userfaultfd: {}", std::io::Error::last_os_error());
            return;
        }
        let descriptor = libc::c_int::try_from(descriptor).expect("a descriptor");
        let bytes = 4 * usize::try_from(page_bytes()).expect("small");
        let mapping = memmap2::MmapMut::map_anon(bytes).expect("memory");
        let begin = mapping.as_ptr() as u64;
        // struct uffdio_api and struct uffdio_register (linux/userfaultfd.h): UFFDIO_API, UFFDIO_REGISTER for pages
        // that are missing.
        let mut api = [0xaa_u64, 0, 0];
        let mut register = [begin, bytes as u64, 1, 0];
        // SAFETY: the descriptor is open, and both structures have the size that their request's number says.
        let done = unsafe {
            libc::ioctl(descriptor, 0xc018_aa3f, api.as_mut_ptr()) == 0
                && libc::ioctl(descriptor, 0xc020_aa00, register.as_mut_ptr()) == 0
        };
        assert!(done, "{}", std::io::Error::last_os_error());
        let (answer, answered) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let memory = LiveMemory::open(std::process::id()).expect("our own");
            answer.send(memory.u64_at(begin).is_err()).expect("it is waited for");
        });
        assert_eq!(answered.recv_timeout(std::time::Duration::from_secs(30)), Ok(true));
        // Whoever still waits there would go on now.
        // SAFETY: it is open, and nobody else's.
        unsafe { libc::close(descriptor) };
        drop(mapping);
    }

    #[test]
    fn the_mapping_of_an_address_is_found_among_lines_of_any_kind() {
        let maps = b"1000-3000 r-xp 00001000 08:01 77 /a b\\012c (deleted)\n\
            3000-4000 rw-p 00000000 00:00 0 \n\
            7000-8000 rw-s 00000000 00:01 9 /memfd:x (deleted)\n";
        let at = |address| find_mapping(maps.as_slice(), address);
        let first = Mapping { begin: 0x1000, end: 0x3000, file_offset: 0x1000, inode: 77 };
        assert_eq!((at(0xfff), at(0x1000), at(0x2fff)), (None, Some(first), Some(first)));
        assert_eq!(at(0x3000).map(|mapping| mapping.inode), Some(0));
        assert_eq!((at(0x4000), at(0x8000)), (None, None));
        assert_eq!(at(0x7fff).map(|mapping| mapping.inode), Some(9));
        assert_eq!(find_mapping(b"no line of maps\n".as_slice(), 1), None);
    }
}
