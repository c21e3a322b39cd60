//! Tables of real objects: every row of the call-frame information is found in the table, on both
//! sides of its boundaries, and the table comes back from the cache as it was; what that costs is printed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use spanflame_symbols::unwind::cache::UnwindCache;
use spanflame_symbols::unwind::layout::cfa;
use spanflame_symbols::unwind::{Row, UnwindError, UnwindRule, UnwindTable, cfi};
use spanflame_symbols::{ElfAddress, ObjectFile};

fn open(path: &Path) -> Option<ObjectFile> {
    ObjectFile::new(File::open(path).ok()?, path).ok()
}

/// The first line a command prints.
fn told_by(command: &str, arguments: &[&str]) -> PathBuf {
    let output = Command::new(command).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    PathBuf::from(text.lines().next().unwrap_or_default())
}

/// Large and peculiar objects of this machine: perlasm, hand-written assembly, other linkers, JITs.
fn objects() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib/x86_64-linux-gnu/libcrypto.so.3",
        "/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so",
        "/usr/lib/jvm/temurin-25-jdk-amd64/lib/server/libjvm.so",
        "/usr/bin/node",
        "/usr/bin/python3.11",
        "/usr/lib/chromium/chromium",
        "/usr/lib/llvm-19/lib/libLLVM.so.1",
        "/usr/lib/x86_64-linux-gnu/libLLVM.so.19.1",
        "/usr/lib/x86_64-linux-gnu/libclang-cpp.so.19.1",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    paths.push(told_by("gcc", &["-print-prog-name=cc1"]));
    paths.push(told_by("rustc", &["--print", "sysroot"]).join("bin/rustc"));
    paths.push(told_by("go", &["env", "GOROOT"]).join("bin/go"));
    paths
}

#[test]
fn every_row_is_found_in_the_table_at_both_its_ends() {
    let folder = tempfile::tempdir().unwrap();
    let cache = UnwindCache::new(folder.path().join("unwind"));
    let mut compared_objects = 0;
    for path in objects() {
        let Some(object) = open(&path) else {
            println!("skipped: {} is not there", path.display());
            continue;
        };
        let start = Instant::now();
        let (table, counts) = match UnwindTable::build_with_counts(&object) {
            Ok(built) => built,
            Err(UnwindError::NoInformation(_)) if path.ends_with("bin/go") => {
                println!("skipped: {} has only Go's own tables", path.display());
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let build_ms = start.elapsed().as_secs_f64() * 1000.0;
        let start = Instant::now();
        cache.store(object.build_id(), &table).unwrap();
        let store_ms = start.elapsed().as_secs_f64() * 1000.0;
        let start = Instant::now();
        let loaded = cache.load(object.build_id());
        let load_ms = start.elapsed().as_secs_f64() * 1000.0;
        assert_eq!(loaded.as_ref(), Some(&table), "{}", path.display());
        let mut rows: Vec<Row> = Vec::new();
        cfi::rows(&object, &mut rows).unwrap();
        let follows_rbx = rows.iter().any(|row| row.rule.needs_rbx());
        let (mut unsupported, mut forgotten) = (0, 0);
        for pair in rows.windows(2) {
            let [row, next] = pair else { continue };
            if row.rule.cfa == cfa::UNSUPPORTED {
                println!("{}: unsupported from {} to {}", path.display(), row.address, next.address);
                unsupported += 1;
            }
            for address in [row.address.0, next.address.0 - 1] {
                let found = table.find(ElfAddress(address));
                if found != row.rule {
                    // Only rows that a leaf has no room for, and they read as unknown.
                    assert_eq!(found, UnwindRule::NONE, "{} at {address:#x}", path.display());
                    forgotten += 1;
                }
            }
        }
        println!(
            "{}: {} FDEs, {} rows, {} in the table, {} rule pages, {} KiB, {build_ms:.1} ms (stored in {store_ms:.1} ms, loaded in {load_ms:.2} ms), {:.1} M rows/s; \
             rbx {follows_rbx}, malformed {}, outside {}, overlapping {}, unsupported {}, oversized chunks {}, rows forgotten {forgotten}",
            path.display(),
            counts.fdes,
            rows.len(),
            table.rows,
            table.rule_pages,
            table.pages.len() / 1024,
            rows.len() as f64 / build_ms / 1000.0,
            counts.malformed_entries,
            counts.outside_of_code,
            counts.overlapping,
            counts.unsupported_rows,
            table.oversized_chunks,
        );
        assert!(forgotten <= 2 * 4096 * table.oversized_chunks, "{forgotten} rows of {}", path.display());
        assert!(forgotten * 200 <= rows.len() as u64, "{forgotten} rows of {}", path.display());
        assert!(unsupported * 1000 <= rows.len() as u64, "{unsupported} of {} rows", rows.len());
        compared_objects += 1;
    }
    assert!(compared_objects >= 4, "only {compared_objects} objects are there");
}

#[test]
fn only_code_that_nothing_describes_is_taken_to_keep_frame_pointers() {
    let mut compared_objects = 0;
    for path in objects() {
        // Node's table says where V8's builtins are by the same rule.
        let Some(object) = open(&path).filter(|_| !path.ends_with("node")) else {
            println!("skipped: {}", path.display());
            continue;
        };
        let mut rows: Vec<Row> = Vec::new();
        cfi::rows(&object, &mut rows).unwrap();
        let by_frame_pointer: u64 = rows
            .windows(2)
            .filter(|pair| pair[0].rule.cfa == cfa::RUNTIME)
            .map(|pair| pair[1].address.0 - pair[0].address.0)
            .sum();
        if path.ends_with("chromium") {
            let text = object.section_header(".text").unwrap().bytes;
            println!("chromium: {by_frame_pointer} of {text} bytes");
            assert!(by_frame_pointer * 100 >= text * 80, "{by_frame_pointer} of {text} bytes of Chromium");
        } else {
            assert_eq!(by_frame_pointer, 0, "{} has unwind tables", path.display());
        }
        compared_objects += 1;
    }
    assert!(compared_objects >= 4, "only {compared_objects} objects are there");
}
