//! What is known of the code of one process: each object that is mapped executable, its build id, where
//! its unwind information and its symbols would come from, or why they cannot be had.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use serde::Serialize;
use spanflame_symbols::address::Bias;
use spanflame_symbols::open::{open_in_process, open_mapped_file};
use spanflame_symbols::process_memory::LiveMemory;
use spanflame_symbols::script::MappedObject;
use spanflame_symbols::script::markers::marked;
use spanflame_symbols::unwind::UnwindTable;
use spanflame_symbols::{FileOffset, ObjectError, ObjectFile, ProcessAddress};

use crate::process::proc_maps::{self, MapsLine};
use crate::process::{RuntimeOfProcess, find_runtimes};

/// A vDSO is two pages; more than this is no vDSO.
const MAX_VDSO_BYTES: u64 = 1 << 20;

/// One process, as far as this user may look.
#[derive(Debug, Serialize)]
pub(super) struct ProcessReport {
    pid: u32,
    /// `null` if it is hidden.
    command: Option<String>,
    executable: Option<String>,
    /// Why the mappings could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    objects: Vec<ObjectReport>,
    /// Executable memory without an object: generated code.
    generated_code: Option<GeneratedCode>,
    /// Language runtimes, and whether stacks show the frames of their programs.
    runtimes: Vec<RuntimeReport>,
}

#[derive(Debug, Serialize)]
struct RuntimeReport {
    name: String,
    /// `null` if it is not known.
    version: Option<String>,
    /// Why stacks do not show the frames of its programs; `null` if they do.
    not_read: Option<String>,
}

#[derive(Debug, Serialize)]
struct ObjectReport {
    path: String,
    mappings: Vec<MappingReport>,
    /// `null` if the object could not be read.
    build_id: Option<String>,
    unwind: Option<UnwindReport>,
    /// Sources in the order in which they are asked.
    symbols: Vec<&'static str>,
    /// Why nothing is known of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct MappingReport {
    begin: String,
    end: String,
    file_offset: u64,
}

#[derive(Debug, Serialize)]
struct UnwindReport {
    sources: Vec<&'static str>,
    rows: u64,
    /// Bytes of the table that BPF searches.
    table_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct GeneratedCode {
    mappings: Vec<MappingReport>,
    unwind: &'static str,
    perf_map: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ProcessReport {
    /// Looks at a process.
    ///
    /// # Errors
    /// Only if there is no such process; what may not be read is in the report, with the reason.
    pub(super) fn read(pid: u32) -> anyhow::Result<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        if !folder.exists() {
            return Err(anyhow!("there is no process {pid}"));
        }
        let command = fs::read_to_string(folder.join("comm")).ok().map(|comm| comm.trim_end().to_owned());
        let executable = fs::read_link(folder.join("exe")).ok().map(|path| path.display().to_string());
        let (lines, reason) = match proc_maps::read(pid) {
            Ok(lines) if lines.is_empty() => (
                lines,
                Some("no executable mappings: a kernel thread, or a process that has ended".to_owned()),
            ),
            Ok(lines) => (lines, None),
            Err(error) => (Vec::new(), Some(format!("/proc/{pid}/maps: {error}"))),
        };
        Ok(Self {
            pid,
            command,
            executable,
            reason,
            objects: objects_of(&lines).iter().map(|lines| ObjectReport::read(pid, lines)).collect(),
            generated_code: GeneratedCode::of(pid, &lines),
            runtimes: runtimes_of(pid, &lines),
        })
    }

    pub(super) fn append_text(&self, lines: &mut Vec<String>) {
        let hidden = "(hidden)";
        lines.push(format!(
            "process {}: {} {}",
            self.pid,
            self.command.as_deref().unwrap_or(hidden),
            self.executable.as_deref().unwrap_or(hidden)
        ));
        lines.extend(self.reason.iter().map(|reason| format!("  {reason}")));
        for object in &self.objects {
            object.append_text(lines);
        }
        if let Some(code) = &self.generated_code {
            lines.push(format!("  generated code in {} mappings", code.mappings.len()));
            lines.push(format!("      unwind:   {}", code.unwind));
            let symbols = match (&code.perf_map, &code.reason) {
                (Some(path), _) => format!("perf map {path}"),
                (None, reason) => format!("none: {}", reason.as_deref().unwrap_or_default()),
            };
            lines.push(format!("      symbols:  {symbols}"));
        }
        for runtime in &self.runtimes {
            let version = runtime.version.as_deref().unwrap_or("of a version that is not known");
            let frames =
                runtime.not_read.as_deref().unwrap_or("read: functions, files and lines of its programs");
            lines.push(format!("  runtime {} {version}", runtime.name));
            lines.push(format!("      frames:   {frames}"));
        }
    }
}

fn runtimes_of(pid: u32, lines: &[MapsLine]) -> Vec<RuntimeReport> {
    let Ok(memory) = LiveMemory::open(pid) else { return Vec::new() };
    let mut wanted = Vec::new();
    let mut mapped = Vec::new();
    for object_lines in objects_of(lines) {
        let Some(line) = object_lines.first() else { continue };
        let Ok(file) = open_object(pid, line) else { continue };
        let Some(linked) = file.elf_address(FileOffset(line.file_offset)) else { continue };
        wanted.extend(marked(&file));
        let bias = Bias::between(ProcessAddress(line.begin), linked);
        mapped.push(MappedObject { file: Arc::new(file), bias });
    }
    wanted.sort_unstable();
    wanted.dedup();
    let report = |runtime: RuntimeOfProcess| {
        let RuntimeOfProcess { name, version, not_read, .. } = runtime;
        RuntimeReport { name, version: (!version.is_empty()).then_some(version), not_read }
    };
    find_runtimes(&wanted, &mapped, &memory).about.into_iter().map(report).collect()
}

/// Groups the mappings of each object, in the order of their addresses. Paths do not tell objects apart
/// (a replaced library has the name of the new one), device and inode do.
fn objects_of(lines: &[MapsLine]) -> Vec<Vec<&MapsLine>> {
    let mut position: BTreeMap<((u32, u32), u64, &Path), usize> = BTreeMap::new();
    let mut objects: Vec<Vec<&MapsLine>> = Vec::new();
    for line in lines.iter().filter(|line| line.inode != 0 || is_vdso(line)) {
        let index = *position.entry((line.device, line.inode, &line.path)).or_insert_with(|| {
            objects.push(Vec::new());
            objects.len() - 1
        });
        if let Some(object) = objects.get_mut(index) {
            object.push(line);
        }
    }
    objects
}

fn is_vdso(line: &MapsLine) -> bool {
    line.path == Path::new("[vdso]")
}

/// Opens the object of a mapping the way `record` does: by the mapping, else by its path in the
/// process's own root.
fn open_object(pid: u32, line: &MapsLine) -> Result<ObjectFile, ObjectError> {
    if is_vdso(line) {
        let bytes = read_memory(pid, line)
            .map_err(|source| ObjectError::Io { path: PathBuf::from(format!("/proc/{pid}/mem")), source })?;
        return ObjectFile::from_bytes(bytes, &line.path);
    }
    let file = open_mapped_file(pid, line.begin, line.end).or_else(|_| open_in_process(pid, &line.path))?;
    ObjectFile::new(file, &line.path)
}

fn read_memory(pid: u32, line: &MapsLine) -> io::Result<Vec<u8>> {
    let length = line
        .end
        .checked_sub(line.begin)
        .filter(|&bytes| bytes <= MAX_VDSO_BYTES)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| io::Error::other("too large for a vDSO"))?;
    let mut bytes = vec![0; length];
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, line.begin)?;
    Ok(bytes)
}

impl MappingReport {
    fn new(line: &MapsLine) -> Self {
        Self {
            begin: format!("{:#x}", line.begin),
            end: format!("{:#x}", line.end),
            file_offset: line.file_offset,
        }
    }
}

impl ObjectReport {
    fn read(pid: u32, lines: &[&MapsLine]) -> Self {
        let path = lines.first().map(|line| line.path.display().to_string()).unwrap_or_default();
        let mappings = lines.iter().map(|line| MappingReport::new(line)).collect();
        let opened = match lines.first() {
            Some(line) => open_object(pid, line).map_err(|error| error.to_string()),
            None => Err("no mapping".to_owned()),
        };
        match opened {
            Ok(object) => Self {
                path,
                mappings,
                build_id: Some(object.build_id().to_hex()),
                unwind: Some(UnwindReport::of(&object)),
                symbols: symbol_sources(&object),
                reason: None,
            },
            Err(reason) => Self {
                path,
                mappings,
                build_id: None,
                unwind: None,
                symbols: Vec::new(),
                reason: Some(reason),
            },
        }
    }

    fn append_text(&self, lines: &mut Vec<String>) {
        lines.push(format!("  {}", self.path));
        if let Some(reason) = &self.reason {
            lines.push(format!("      unreadable: {reason}"));
        }
        if let Some(build_id) = &self.build_id {
            lines.push(format!("      build id: {build_id}"));
        }
        if let Some(unwind) = &self.unwind {
            lines.push(match &unwind.reason {
                Some(reason) => format!("      unwind:   none: {reason}"),
                None => format!(
                    "      unwind:   {} rows from {}, {} KiB",
                    unwind.rows,
                    unwind.sources.join(", "),
                    unwind.table_bytes / 1024
                ),
            });
            let symbols =
                if self.symbols.is_empty() { "none in the file".to_owned() } else { self.symbols.join(", ") };
            lines.push(format!("      symbols:  {symbols}"));
        }
    }
}

/// Whether the object has a section of one of these names, with contents.
fn has_section(object: &ObjectFile, names: &[&str]) -> bool {
    names.iter().any(|name| {
        object.section_header(name).is_some_and(|section| section.has_contents() && section.bytes > 0)
    })
}

const GO_TABLES: &[&str] = &[".gopclntab", ".data.rel.ro.gopclntab"];

impl UnwindReport {
    fn of(object: &ObjectFile) -> Self {
        let mut sources = Vec::new();
        if has_section(object, &[".eh_frame"]) || object.eh_frame_header().is_some() {
            sources.push(".eh_frame");
        }
        if has_section(object, &[".debug_frame", ".zdebug_frame"]) {
            sources.push(".debug_frame");
        }
        if has_section(object, GO_TABLES) {
            sources.push(".gopclntab");
        }
        match UnwindTable::build(object) {
            Ok(table) => {
                Self { sources, rows: table.rows, table_bytes: table.pages.len() as u64, reason: None }
            }
            Err(error) => Self { sources, rows: 0, table_bytes: 0, reason: Some(error.to_string()) },
        }
    }
}

/// Sources of names that the file itself holds or points to, best first (DESIGN §5).
fn symbol_sources(object: &ObjectFile) -> Vec<&'static str> {
    const SOURCES: &[(&str, &[&str])] = &[
        ("dwarf", &[".debug_info", ".zdebug_info"]),
        ("symtab", &[".symtab"]),
        ("gnu_debugdata", &[".gnu_debugdata"]),
        ("gopclntab", GO_TABLES),
        ("dynsym", &[".dynsym"]),
        ("gnu_debuglink", &[".gnu_debuglink"]),
    ];
    let mut sources: Vec<&'static str> =
        SOURCES.iter().filter(|(_, names)| has_section(object, names)).map(|&(source, _)| source).collect();
    if debug_file(object).is_some_and(|path| path.is_file()) {
        sources.insert(0, "debug file by build id");
    }
    sources
}

/// Where Debian, Fedora and others install the debug file of a GNU build id.
fn debug_file(object: &ObjectFile) -> Option<PathBuf> {
    let spanflame_symbols::BuildId::Gnu(_) = object.build_id() else { return None };
    let hex = object.build_id().to_hex();
    let (folder, file) = hex.split_at_checked(2)?;
    Some(PathBuf::from(format!("/usr/lib/debug/.build-id/{folder}/{file}.debug")))
}

impl GeneratedCode {
    /// Executable memory that is neither an object's nor the kernel's.
    fn of(pid: u32, lines: &[MapsLine]) -> Option<Self> {
        let generated: Vec<MappingReport> = lines
            .iter()
            .filter(|line| line.inode == 0 && (line.path.as_os_str().is_empty() || is_named_anonymous(line)))
            .map(MappingReport::new)
            .collect();
        if generated.is_empty() {
            return None;
        }
        let (perf_map, reason) = match open_perf_map(pid) {
            Ok(path) => (Some(path), None),
            Err(reason) => (None, Some(reason)),
        };
        Some(Self { mappings: generated, unwind: "frame pointers", perf_map, reason })
    }
}

/// `[anon:…]`, as `PR_SET_VMA_ANON_NAME` names memory; `[vsyscall]` and `[uprobes]` are the kernel's.
fn is_named_anonymous(line: &MapsLine) -> bool {
    line.path.to_string_lossy().starts_with("[anon")
}

/// The process's perf map lies in its own `/tmp` and is named by its own pid.
fn open_perf_map(pid: u32) -> Result<String, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let own_pid = innermost_pid(&status).unwrap_or(pid);
    let path = format!("/tmp/perf-{own_pid}.map");
    open_in_process(pid, Path::new(&path)).map(|_| path).map_err(|error| error.to_string())
}

/// The last number of `NSpid`: the process's id as it sees itself (`proc_pid_status(5)`).
fn innermost_pid(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?
        .split_ascii_whitespace()
        .next_back()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(begin: u64, inode: u64, path: &str) -> MapsLine {
        MapsLine {
            begin,
            end: begin + 0x1000,
            file_offset: 0,
            device: (8, 1),
            inode,
            path: PathBuf::from(path),
        }
    }

    #[test]
    fn two_mappings_of_a_file_are_one_object_and_a_replaced_file_is_another() {
        let lines = [
            line(0x1000, 7, "/lib/a.so"),
            line(0x3000, 8, "/lib/a.so"),
            line(0x5000, 7, "/lib/a.so"),
            line(0x7000, 0, ""),
            line(0x9000, 0, "[vdso]"),
            line(0xb000, 0, "[vsyscall]"),
        ];
        let begins: Vec<Vec<u64>> =
            objects_of(&lines).iter().map(|object| object.iter().map(|line| line.begin).collect()).collect();
        assert_eq!(begins, [vec![0x1000, 0x5000], vec![0x3000], vec![0x9000]]);
    }

    #[test]
    fn the_innermost_pid_is_the_last_one() {
        assert_eq!(innermost_pid("Name:\tx\nNSpid:\t4711\t12\t1\n"), Some(1));
        assert_eq!(innermost_pid("NSpid:\t4711\n"), Some(4711));
        assert_eq!(innermost_pid("NSpid:\n"), None);
        assert_eq!(innermost_pid(""), None);
    }

    #[test]
    fn a_mapping_too_large_for_a_vdso_is_not_read() {
        let mut huge = line(0x1000, 0, "[vdso]");
        huge.end = u64::MAX;
        assert!(read_memory(std::process::id(), &huge).is_err());
        huge.end = 0;
        assert!(read_memory(std::process::id(), &huge).is_err());
    }
}
