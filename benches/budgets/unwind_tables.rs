//! Building unwind tables: time, memory and size, for the largest executables of this machine.
//!
//! Each build runs in a process of its own (this program, started again with `--build-table`), so
//! that its peak memory is its own and nothing is warm but the page cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use spanflame_symbols::ObjectFile;
use spanflame_symbols::unwind::UnwindTable;

use crate::Context;
use crate::measured_process::{cpu_time_ns, peak_memory_bytes};
use crate::report::{Figure, Section};
use crate::workload::compiler_proper;

/// The argument that makes this program build one table and print its figures.
pub const CHILD_ARGUMENT: &str = "--build-table";

/// How many of the largest other executables are looked at.
const LARGEST: usize = 3;

/// Opens an object file of this machine.
pub fn open(path: &Path) -> Result<ObjectFile> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(ObjectFile::new(file, path)?)
}

/// What the child process does.
pub fn build_one(path: &Path) -> Result<()> {
    let pid = std::process::id();
    let (begin, cpu_begin, memory_begin) = (Instant::now(), cpu_time_ns(pid)?, peak_memory_bytes(pid)?);
    let object = open(path)?;
    let table = UnwindTable::build(&object)?;
    let figures = json!({
        "wall_ms": begin.elapsed().as_secs_f64() * 1e3,
        "cpu_ms": (cpu_time_ns(pid)? - cpu_begin) as f64 / 1e6,
        "memory_mb": (peak_memory_bytes(pid)? - memory_begin) as f64 / 1e6,
        "rows": table.rows,
        "table_mb": table.pages.len() as f64 / 1e6,
    });
    println!("{figures}");
    Ok(())
}

/// Runs it.
pub fn section(context: &mut Context) -> Section {
    let mut section = Section::new(
        "Unwind tables",
        "one build in a process of its own: call-frame information to finished pages, no cache; memory is the growth of VmHWM",
    );
    for path in objects() {
        if let Err(error) = measure(context, &path, &mut section) {
            section.missing(path.display().to_string(), &error);
        }
    }
    if !Path::new("/usr/lib/chromium/chromium").exists() {
        section.add(Figure::missing("chromium", "not installed on this machine"));
    }
    section
}

fn measure(context: &Context, path: &Path, section: &mut Section) -> Result<()> {
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..context.runs {
        let output = Command::new(std::env::current_exe()?).arg(CHILD_ARGUMENT).arg(path).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let values: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        for name in ["wall_ms", "cpu_ms", "memory_mb", "rows", "table_mb"] {
            let value = values.get(name).and_then(serde_json::Value::as_f64);
            figures.entry(name).or_default().push(value.context("a figure is missing")?);
        }
    }
    let mut figure = |name: &str, unit, what: String| {
        section.add(Figure::new(what, unit, figures.remove(name).unwrap_or_default()));
    };
    let bytes = fs::metadata(path)?.len();
    figure("wall_ms", "ms", format!("{} ({:.0} MB)", path.display(), bytes as f64 / 1e6));
    figure("cpu_ms", "ms", "… CPU".to_owned());
    figure("memory_mb", "MB", "… peak memory".to_owned());
    figure("rows", "rows", "… rows".to_owned());
    figure("table_mb", "MB", "… table".to_owned());
    Ok(())
}

/// Those that the budgets name, then the largest others.
fn objects() -> Vec<PathBuf> {
    let mut named: Vec<PathBuf> = [
        "/usr/bin/node",
        "/usr/lib/chromium/chromium",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    named.extend(compiler_proper());
    if let Ok(folder) = fs::read_dir("/usr/lib/jvm") {
        named.extend(folder.flatten().map(|home| home.path().join("lib/server/libjvm.so")));
    }
    let mut seen = BTreeSet::new();
    let mut is_new = |path: &Path| fs::metadata(path).is_ok_and(|file| seen.insert((file.dev(), file.ino())));
    let mut objects: Vec<PathBuf> = named.into_iter().filter(|path| is_new(path)).collect();

    let mut found = Vec::new();
    let cargo_home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup"));
    let roots = [Some(PathBuf::from("/usr")), Some(PathBuf::from("/opt")), cargo_home.or(home)];
    for root in roots.into_iter().flatten() {
        collect_executables(&root, 0, &mut found);
    }
    found.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    objects.extend(found.into_iter().map(|(_, path)| path).filter(|path| is_new(path)).take(LARGEST));
    objects
}

/// ELF executables and libraries of 32 MiB and more below a folder. Links are not followed.
fn collect_executables(folder: &Path, depth: u32, found: &mut Vec<(u64, PathBuf)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() && depth < 12 {
            collect_executables(&entry.path(), depth + 1, found);
        } else if metadata.is_file() && metadata.len() >= 32 << 20 && is_elf_program(&entry.path()) {
            found.push((metadata.len(), entry.path()));
        }
    }
}

/// Whether a file begins as an ELF executable or shared object does (`e_type` 2 or 3).
fn is_elf_program(path: &Path) -> bool {
    let mut head = [0_u8; 18];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head.starts_with(b"\x7fELF") && matches!(head.get(16), Some(2 | 3))
}

/// Unwind rows in all executables and libraries that living processes have mapped.
pub fn rows_of_living_processes() -> u64 {
    let mut seen = BTreeSet::new();
    let mut rows = 0;
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    for process in processes.flatten() {
        let Ok(maps) = fs::read_to_string(process.path().join("maps")) else { continue };
        for line in maps.lines() {
            // begin-end perms offset device inode path
            let mut fields = line.split_ascii_whitespace();
            let executable = fields.nth(1).is_some_and(|permissions| permissions.contains('x'));
            let (device, inode) = (fields.nth(1), fields.next());
            let Some(path) = fields.next().filter(|path| path.starts_with('/')) else { continue };
            if !executable || !seen.insert((device.map(str::to_owned), inode.map(str::to_owned))) {
                continue;
            }
            if let Ok(table) = open(Path::new(path)).and_then(|object| Ok(UnwindTable::build(&object)?)) {
                rows += table.rows;
            }
        }
    }
    rows
}
