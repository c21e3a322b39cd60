//! Names of generated code: which files a process tells them in, found and read safely.
//!
//! `/tmp/perf-PID.map` and the `jit-PID.dump` that the process has mapped, PID being the one that the
//! process knows itself by (the last number of `NSpid`), both looked up inside its own root. Such files
//! are written by anyone who can write to the process's `/tmp`, so only a regular file that belongs to
//! the process's user or to root is read, up to a limit; a FIFO or a device in its place is never opened
//! for reading. Maps stay behind in `/tmp` and process ids come back, so a file last written before the
//! process started is not its own and is refused too.
//!
//! The process may be gone when its addresses are asked for. [`GeneratedCodeNames::remember`] therefore
//! holds its root directory and opens what is there; call it when the process is first seen to execute
//! outside of its objects. Asking for a name does the same.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::jitdump::JitDump;
use super::perf_map::PerfMap;
use super::{Symbol, SymbolFrame, UnknownReason};

/// Perf maps are read up to here; what a runtime appends beyond is refused and counted.
const MAX_PERF_MAP_BYTES: u64 = 256 << 20;
const MAX_STATUS_BYTES: u64 = 64 << 10;
const MAX_MAPS_BYTES: u64 = 32 << 20;
/// Bytes compared to tell a file that was written anew from one that grew.
const HEAD_BYTES: usize = 256;
const READ_BYTES: usize = 1 << 20;
const MAX_PROCESSES: usize = 256;
const MAX_MEMORY_BYTES: usize = 192 << 20;
/// Least time between two searches of a process's mappings for a jitdump.
const JITDUMP_SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GeneratedCodeStats {
    /// Perf maps or jitdumps refused: not regular, owned by another user, or over the size limit.
    pub refused_files: u64,
    /// Lines or records that were not understood or were over a limit.
    pub malformed_entries: u64,
    /// Processes forgotten for want of room.
    pub evicted_processes: u64,
}

/// Names of generated code of all processes.
#[derive(Debug, Default)]
pub struct GeneratedCodeNames {
    processes: HashMap<u32, Process>,
    uses: u64,
    stats: GeneratedCodeStats,
}

#[derive(Debug)]
struct Process {
    /// Clock ticks since boot; tells a process from a later one with the same id.
    start_time: u64,
    /// The same in seconds of the Unix epoch, rounded down.
    start_unix_s: i64,
    namespace_pid: u32,
    user: u32,
    root: OwnedFd,
    perf_map: Option<OpenPerfMap>,
    jitdump: Option<(File, JitDump)>,
    jitdump_searched: Option<Instant>,
    /// The file last refused, so that it is counted once: device, inode.
    refused: Option<(u64, u64)>,
    last_use: u64,
}

#[derive(Debug)]
struct OpenPerfMap {
    file: File,
    device_and_inode: (u64, u64),
    head: Vec<u8>,
    position: u64,
    map: PerfMap,
}

impl GeneratedCodeNames {
    /// Takes hold of what a process tells about its generated code, so that it can be named after the
    /// process is gone. Cheap when nothing changed; a process that cannot be looked at is left out.
    pub fn remember(&mut self, pid: u32) {
        self.uses += 1;
        let now = start_time(pid);
        match (self.processes.get(&pid), now) {
            // Gone: what was read of it stays.
            (Some(_), None) => {}
            (Some(known), Some(now)) if known.start_time == now => {}
            (_, Some(now)) => {
                self.forget(pid);
                if let Some(process) = Process::open(pid, now) {
                    self.processes.insert(pid, process);
                }
            }
            (None, None) => return,
        }
        if let Some(process) = self.processes.get_mut(&pid) {
            process.last_use = self.uses;
            process.refresh(pid, &mut self.stats);
        }
        self.evict(pid);
    }

    /// Drops what is held of a process.
    pub fn forget(&mut self, pid: u32) {
        if let Some(process) = self.processes.remove(&pid) {
            self.stats.malformed_entries += process.malformed_entries();
        }
    }

    /// Names process addresses, in the order given.
    pub fn symbolize(&mut self, pid: u32, addresses: &[u64]) -> Vec<Symbol> {
        self.remember(pid);
        let process = self.processes.get(&pid);
        addresses.iter().map(|&address| name(process, address)).collect()
    }

    /// Counters since the start.
    pub fn stats(&self) -> GeneratedCodeStats {
        let living: u64 = self.processes.values().map(Process::malformed_entries).sum();
        GeneratedCodeStats { malformed_entries: self.stats.malformed_entries + living, ..self.stats }
    }

    /// Bytes of memory held, about.
    pub fn memory_bytes(&self) -> usize {
        self.processes.values().map(Process::memory_bytes).sum()
    }

    fn evict(&mut self, current: u32) {
        while self.processes.len() > MAX_PROCESSES
            || (self.processes.len() > 1 && self.memory_bytes() > MAX_MEMORY_BYTES)
        {
            let least = self.processes.iter().filter(|&(&pid, _)| pid != current);
            let Some((&pid, _)) = least.min_by_key(|(_, process)| process.last_use) else { return };
            self.forget(pid);
            self.stats.evicted_processes += 1;
        }
    }
}

fn name(process: Option<&Process>, address: u64) -> Symbol {
    let Some(process) = process else { return Err(UnknownReason::Unreadable) };
    let in_jitdump = process.jitdump.as_ref().and_then(|(_, dump)| dump.find(address));
    let code = in_jitdump.or_else(|| process.perf_map.as_ref().and_then(|map| map.map.find(address)));
    if let Some(code) = code {
        let mut frame = SymbolFrame { name: code.name.clone(), ..SymbolFrame::default() };
        if let Some(line) = code.line_at(address) {
            frame.file = line.file.to_string();
            frame.line = line.line;
        }
        return Ok(vec![frame]);
    }
    if process.perf_map.is_none() && process.jitdump.is_none() {
        return Err(UnknownReason::NoPerfMap);
    }
    Err(UnknownReason::NoSymbol)
}

impl Process {
    fn open(pid: u32, start_time: u64) -> Option<Self> {
        let status = read_proc(pid, "status", MAX_STATUS_BYTES)?;
        let last_number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_ascii_whitespace().last()?.parse::<u32>().ok()
        };
        // `Uid:` gives real, effective, saved and file-system id: the last makes files.
        let user = last_number("Uid:")?;
        let namespace_pid = last_number("NSpid:").unwrap_or(pid);
        let root = rustix::fs::open(
            format!("/proc/{pid}/root"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        Some(Self {
            start_time,
            start_unix_s: start_unix_s(start_time),
            namespace_pid,
            user,
            root,
            perf_map: None,
            jitdump: None,
            jitdump_searched: None,
            refused: None,
            last_use: 0,
        })
    }

    fn refresh(&mut self, pid: u32, stats: &mut GeneratedCodeStats) {
        let path = PathBuf::from(format!("/tmp/perf-{}.map", self.namespace_pid));
        if let Some(file) = self.open_own_file(&path, stats) {
            self.take_perf_map(file, stats);
        } else if let Some(map) = &mut self.perf_map {
            // Removed, or its mount is gone with the process: the descriptor still reads it.
            map.read_on(stats);
        }
        if self.jitdump.is_none()
            && self.jitdump_searched.is_none_or(|at| at.elapsed() >= JITDUMP_SEARCH_INTERVAL)
        {
            self.jitdump_searched = Some(Instant::now());
            let wanted = format!("jit-{}.dump", self.namespace_pid);
            if let Some(path) = mapped_file_named(pid, &wanted)
                && let Some(file) = self.open_own_file(&path, stats)
            {
                self.jitdump = Some((file, JitDump::default()));
            }
        }
        if let Some((file, dump)) = &mut self.jitdump {
            // A read error leaves the names that were read; the next refresh tries again.
            let _ = dump.read_on(file);
        }
    }

    /// Opens a file by its path in the process's root, if it is one that the process may have written.
    fn open_own_file(&mut self, path: &Path, stats: &mut GeneratedCodeStats) -> Option<File> {
        let root = PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()));
        let file = match crate::open::open_below_root(&root, path) {
            Ok(file) => file,
            Err(crate::ObjectError::Io { .. }) => return None,
            Err(_) => {
                if self.refused.replace((0, 0)) != Some((0, 0)) {
                    stats.refused_files += 1;
                }
                return None;
            }
        };
        let metadata = file.metadata().ok()?;
        let is_foreign = metadata.uid() != self.user && metadata.uid() != 0;
        if is_foreign || metadata.mtime() < self.start_unix_s {
            let identity = (metadata.dev(), metadata.ino());
            if self.refused.replace(identity) != Some(identity) {
                stats.refused_files += 1;
            }
            return None;
        }
        Some(file)
    }

    fn take_perf_map(&mut self, file: File, stats: &mut GeneratedCodeStats) {
        let Ok(metadata) = file.metadata() else { return };
        let device_and_inode = (metadata.dev(), metadata.ino());
        let mut head = [0; HEAD_BYTES];
        let head_bytes = file.read_at(&mut head, 0).unwrap_or(0);
        let head = head.get(..head_bytes).unwrap_or_default();
        let grew = self.perf_map.as_ref().is_some_and(|known| {
            known.device_and_inode == device_and_inode
                && metadata.len() >= known.position
                && head.starts_with(&known.head)
        });
        if !grew {
            if let Some(replaced) = self.perf_map.take() {
                stats.malformed_entries += replaced.map.malformed_lines() + replaced.map.refused_lines();
            }
            self.perf_map = Some(OpenPerfMap {
                file,
                device_and_inode,
                head: Vec::new(),
                position: 0,
                map: PerfMap::default(),
            });
        }
        if let Some(map) = &mut self.perf_map {
            map.head = head.to_vec();
            map.read_on(stats);
        }
    }

    fn malformed_entries(&self) -> u64 {
        let of_map =
            self.perf_map.as_ref().map_or(0, |map| map.map.malformed_lines() + map.map.refused_lines());
        of_map + self.jitdump.as_ref().map_or(0, |(_, dump)| dump.malformed_records())
    }

    fn memory_bytes(&self) -> usize {
        self.perf_map.as_ref().map_or(0, |map| map.map.memory_bytes())
            + self.jitdump.as_ref().map_or(0, |(_, dump)| dump.memory_bytes())
    }
}

impl OpenPerfMap {
    fn read_on(&mut self, stats: &mut GeneratedCodeStats) {
        let mut buffer = Vec::new();
        while self.position < MAX_PERF_MAP_BYTES {
            buffer.resize(READ_BYTES, 0);
            let Ok(bytes) = self.file.read_at(&mut buffer, self.position) else { return };
            if bytes == 0 {
                return;
            }
            self.map.append(buffer.get(..bytes).unwrap_or_default());
            self.position += bytes as u64;
            if self.position >= MAX_PERF_MAP_BYTES {
                stats.refused_files += 1;
            }
        }
    }
}

fn read_proc(pid: u32, file: &str, max_bytes: u64) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{file}")).ok()?.take(max_bytes).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Field 22 of `/proc/PID/stat`, counted after the name, which may itself hold spaces and brackets.
fn start_time(pid: u32) -> Option<u64> {
    let stat = read_proc(pid, "stat", MAX_STATUS_BYTES)?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Ticks since boot → seconds of the Unix epoch, one second early, since both parts are rounded; the
/// beginning of the epoch if the time of boot cannot be read.
fn start_unix_s(start_time: u64) -> i64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let since_boot = i64::try_from(start_time / ticks_per_second).unwrap_or(0);
    boot.map_or(0, |boot| boot.saturating_add(since_boot).saturating_sub(1))
}

fn mapped_file_named(pid: u32, wanted: &str) -> Option<PathBuf> {
    let maps = read_proc(pid, "maps", MAX_MAPS_BYTES)?;
    let paths = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    paths.map(PathBuf::from).find(|path| path.file_name().is_some_and(|name| name == wanted))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A stand-in for a process with its own root: this one's identity, a folder as root.
    fn process_in(root: &Path) -> Process {
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        let pid = std::process::id();
        let mut process = Process::open(pid, start_time(pid).unwrap()).unwrap();
        process.root =
            rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .unwrap();
        process.namespace_pid = 7;
        process
    }

    fn refreshed(process: &mut Process) -> GeneratedCodeStats {
        let mut stats = GeneratedCodeStats::default();
        process.refresh(std::process::id(), &mut stats);
        stats
    }

    fn name_at(process: &Process, address: u64) -> Result<String, UnknownReason> {
        name(Some(process), address).map(|frames| frames[0].name.clone())
    }

    #[test]
    fn a_growing_map_is_read_on_and_a_replaced_one_anew() {
        let root = tempfile::tempdir().unwrap();
        let mut process = process_in(root.path());
        assert_eq!(refreshed(&mut process), GeneratedCodeStats::default());
        assert_eq!(name_at(&process, 0x10), Err(UnknownReason::NoPerfMap));

        let path = root.path().join("tmp/perf-7.map");
        std::fs::write(&path, "10 8 first\n20 8 sec").unwrap();
        refreshed(&mut process);
        assert_eq!(name_at(&process, 0x10).as_deref(), Ok("first"));
        assert_eq!(name_at(&process, 0x20), Err(UnknownReason::NoSymbol));

        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"ond\n").unwrap();
        refreshed(&mut process);
        assert_eq!(name_at(&process, 0x20).as_deref(), Ok("second"));
        assert_eq!(name_at(&process, 0x10).as_deref(), Ok("first"));

        // Written anew in place, and longer than before: only the contents tell.
        std::fs::write(&path, "10 8 other\n20 8 second\n30 8 third\n").unwrap();
        refreshed(&mut process);
        assert_eq!(name_at(&process, 0x10).as_deref(), Ok("other"));

        std::fs::remove_file(&path).unwrap();
        refreshed(&mut process);
        assert_eq!(name_at(&process, 0x30).as_deref(), Ok("third"), "what was read outlives the file");
    }

    #[test]
    fn a_fifo_in_place_of_the_map_neither_blocks_nor_names_and_is_counted_once() {
        let root = tempfile::tempdir().unwrap();
        let mut process = process_in(root.path());
        let path = root.path().join("tmp/perf-7.map");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(refreshed(&mut process).refused_files, 1);
        assert_eq!(refreshed(&mut process).refused_files, 0);
        assert_eq!(name_at(&process, 0x10), Err(UnknownReason::NoPerfMap));
    }

    #[test]
    fn a_map_of_another_user_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut process = process_in(root.path());
        let path = root.path().join("tmp/perf-7.map");
        std::fs::write(&path, "10 8 first\n").unwrap();
        if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
            println!("skipped: giving a file away needs CAP_CHOWN");
            return;
        }
        assert_eq!(refreshed(&mut process).refused_files, 1);
        assert_eq!(name_at(&process, 0x10), Err(UnknownReason::NoPerfMap));
        process.user = 12345;
        refreshed(&mut process);
        assert_eq!(name_at(&process, 0x10).as_deref(), Ok("first"));
    }

    #[test]
    fn a_map_left_behind_by_an_earlier_process_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut process = process_in(root.path());
        let path = root.path().join("tmp/perf-7.map");
        std::fs::write(&path, "10 8 stale\n").unwrap();
        let before = std::time::UNIX_EPOCH + Duration::from_secs(process.start_unix_s as u64 - 1);
        File::options().append(true).open(&path).unwrap().set_modified(before).unwrap();
        assert_eq!(refreshed(&mut process).refused_files, 1);
        assert_eq!(name_at(&process, 0x10), Err(UnknownReason::NoPerfMap));
    }

    #[test]
    fn a_link_out_of_the_root_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), "10 8 outside\n").unwrap();
        let mut process = process_in(root.path());
        std::os::unix::fs::symlink(outside.path(), root.path().join("tmp/perf-7.map")).unwrap();
        refreshed(&mut process);
        assert_eq!(name_at(&process, 0x10), Err(UnknownReason::NoPerfMap));
    }

    #[test]
    fn a_process_that_is_gone_keeps_its_names_and_an_unknown_one_has_none() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let path = PathBuf::from(format!("/tmp/perf-{pid}.map"));
        std::fs::write(&path, "10 8 first\n").unwrap();
        let mut names = GeneratedCodeNames::default();
        names.remember(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(&path).unwrap();
        let symbols = names.symbolize(pid, &[0x10, 0x20]);
        assert_eq!(symbols[0].as_ref().unwrap()[0].name, "first");
        assert_eq!(symbols[1], Err(UnknownReason::NoSymbol));
        names.forget(pid);
        assert_eq!(names.symbolize(pid, &[0x10]), [Err(UnknownReason::Unreadable)]);
    }

    #[test]
    fn a_jitdump_is_found_among_the_mappings() {
        let pid = std::process::id();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("jit-{pid}.dump"));
        std::fs::write(&path, vec![0; 4096]).unwrap();
        let file = File::open(&path).unwrap();
        // SAFETY: the file is ours alone and nobody shortens it while it is mapped.
        let _mapping = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        assert_eq!(mapped_file_named(pid, &format!("jit-{pid}.dump")).as_deref(), Some(path.as_path()));
        assert_eq!(mapped_file_named(pid, "jit-0.dump"), None);
    }
}
